//! What a run comes to, as text and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::histogram::Histogram;
use super::load::Tally;
use super::receiver::Deliveries;
use super::{Args, Mode};
use crate::cli::Error;

#[derive(Debug, Serialize)]
pub struct Report {
    publishers: u16,
    size: u32,
    mode: Mode,
    rate: Option<f64>,
    /// From the first request to the last answer.
    seconds: f64,
    /// Accepted ones.
    events: u64,
    events_per_second: f64,
    refused: u64,
    refused_by_status: BTreeMap<u16, u64>,
    failed: u64,
    ack: Latency,
    end_to_end: Option<EndToEnd>,
    lost: Option<u64>,
    duplicated: Option<u64>,
}

#[derive(Debug, Serialize)]
struct EndToEnd {
    deliveries: u64,
    /// From the first request to the last delivery.
    seconds: f64,
    deliveries_per_second: f64,
    events_per_second: f64,
    #[serde(flatten)]
    latency: Latency,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    mean_ms: f64,
}

impl Report {
    pub fn new(args: &Args, tally: &Tally, deliveries: Option<Deliveries>) -> Self {
        let seconds = seconds(tally.ended_ns.saturating_sub(tally.began_ns));
        Self {
            publishers: args.publishers,
            size: args.size,
            mode: args.mode,
            rate: args.rate,
            seconds,
            events: tally.accepted,
            events_per_second: rounded(tally.accepted as f64 / seconds, 1.0),
            refused: tally.refused(),
            refused_by_status: tally.refused_by_status.clone(),
            failed: tally.failed,
            ack: Latency::new(&tally.ack),
            lost: deliveries.as_ref().map(|deliveries| deliveries.lost),
            duplicated: deliveries.as_ref().map(|deliveries| deliveries.duplicated),
            end_to_end: deliveries.map(|deliveries| EndToEnd::new(&deliveries, tally.began_ns, args.fanout)),
        }
    }

    pub fn json(&self) -> Result<String, Error> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").map_err(|error| Error::failed_because("cannot write the report", error))
    }

    pub fn text(&self) -> String {
        let mut text = format!(
            "{} events in {:.1} s: {:.0} events/s; refused {}, failed {}\nack         {}\n",
            self.events,
            self.seconds,
            self.events_per_second,
            self.refused,
            self.failed,
            self.ack.text()
        );
        for (status, events) in &self.refused_by_status {
            text.push_str(&format!("refused with {status}: {events}\n"));
        }
        if let Some(end_to_end) = &self.end_to_end {
            text.push_str(&format!(
                "end to end  {}\n{} deliveries in {:.1} s: {:.0} deliveries/s, {:.0} events/s; lost {}, duplicated {}\n",
                end_to_end.latency.text(),
                end_to_end.deliveries,
                end_to_end.seconds,
                end_to_end.deliveries_per_second,
                end_to_end.events_per_second,
                self.lost.unwrap_or_default(),
                self.duplicated.unwrap_or_default()
            ));
        }
        text
    }
}

impl EndToEnd {
    fn new(deliveries: &Deliveries, began_ns: u64, fanout: u32) -> Self {
        let seconds = seconds(deliveries.last_ns.saturating_sub(began_ns));
        let per_second = deliveries.deliveries as f64 / seconds;
        Self {
            deliveries: deliveries.deliveries,
            seconds,
            deliveries_per_second: rounded(per_second, 1.0),
            events_per_second: rounded(per_second / f64::from(fanout.max(1)), 1.0),
            latency: Latency::new(&deliveries.latency),
        }
    }
}

impl Latency {
    fn new(histogram: &Histogram) -> Self {
        let ms = |ns: f64| rounded(ns / 1e6, 1000.0);
        let quantile = |share| ms(histogram.quantile(share) as f64);
        Self {
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: ms(histogram.max() as f64),
            mean_ms: ms(histogram.mean()),
        }
    }

    fn text(&self) -> String {
        format!(
            "p50 {:.2} ms  p90 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms  max {:.2} ms",
            self.p50_ms, self.p90_ms, self.p99_ms, self.p999_ms, self.max_ms
        )
    }
}

/// Never zero, because it is divided by.
fn seconds(ns: u64) -> f64 {
    rounded((ns as f64 / 1e9).max(1e-6), 1e6)
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
