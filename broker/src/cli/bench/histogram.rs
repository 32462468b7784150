//! Counts of latencies in log-linear buckets: 128 per power of two, so that a value is off by less than 0.8 %.

const LINEAR_BITS: u32 = 7;
const LINEAR: u64 = 1 << LINEAR_BITS;
const BUCKETS: usize = ((64 - LINEAR_BITS as usize) + 1) << LINEAR_BITS;

#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, sum: 0, max: 0 }
    }

    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    pub fn record_many(&mut self, value: u64, count: u64) {
        self.buckets[index(value)] += count;
        self.count += count;
        self.sum += u128::from(value) * u128::from(count);
        self.max = self.max.max(value);
    }

    pub fn add(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// The value that the given share of the recorded ones does not exceed; 0 when there is none.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest(index).min(self.max);
            }
        }
        self.max
    }

    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    pub fn max(&self) -> u64 {
        self.max
    }
}

fn index(value: u64) -> usize {
    if value < LINEAR {
        return value as usize;
    }
    let shift = value.ilog2() - LINEAR_BITS;
    (((u64::from(shift) + 1) << LINEAR_BITS) + ((value >> shift) - LINEAR)) as usize
}

/// The highest value that falls into the bucket.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    if index < LINEAR {
        return index;
    }
    let shift = (index >> LINEAR_BITS) - 1;
    let lowest = ((index & (LINEAR - 1)) + LINEAR) << shift;
    lowest + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, highest, index};

    #[test]
    fn every_value_is_in_a_bucket_no_more_than_one_percent_off() {
        let mut value = 0_u64;
        while value < u64::MAX / 2 {
            let bound = highest(index(value));
            assert!(bound >= value && (bound - value) as f64 <= value as f64 * 0.008, "{value} {bound}");
            value += 1 + value / 37;
        }
        assert_eq!(highest(index(u64::MAX)), u64::MAX);
        assert_eq!(index(u64::MAX), BUCKETS - 1);
        assert_eq!(index(127) + 1, index(128));
        assert_eq!(index(255) + 1, index(256));
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), 0);
        (1..=100).for_each(|value| histogram.record(value));
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| histogram.quantile(share)), [1, 50, 99, 100]);
        histogram.record(1_000_000);
        assert_eq!(histogram.quantile(1.0), 1_000_000);
        assert_eq!(histogram.max(), 1_000_000);
    }

    #[test]
    fn histograms_add_up() {
        let (mut one, mut two) = (Histogram::new(), Histogram::new());
        one.record(10);
        two.record_many(30, 3);
        one.add(&two);
        assert_eq!((one.count, one.mean(), one.max()), (4, 25.0, 30));
    }
}
