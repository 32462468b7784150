//! Numbers, equal and ordered as event-ruler has them.

use std::fmt::Write as _;

/// A number of a JSON text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<'e> {
    pub text: &'e str,
    /// The double that the text names exactly, as far as the shortest text of a double goes; other numbers compare as text.
    pub value: Option<f64>,
}

/// A decimal of so many digits survives being read into a double and written again.
const DIGITS_SAFE: usize = 15;

impl<'e> Number<'e> {
    pub fn of(text: &'e str) -> Self {
        Self { text, value: value(text) }
    }

    pub fn write_key(&self, key: &mut String) {
        match self.value {
            Some(value) => {
                let _ = write!(key, "={value:e}");
            }
            None => key.push_str(self.text),
        }
    }
}

/// The number's double; `None` when the shortest text of the nearest double is another number.
pub(crate) fn value(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let is_safe = digits <= DIGITS_SAFE && (1e-290..1e290).contains(&value.abs());
    // The sum turns a negative zero into zero, which it equals.
    (is_safe || decimal(text) == decimal(&format!("{value:e}"))).then_some(value + 0.0)
}

/// Sign, digits without zeros at either end, and the power of ten of the first of them.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    let skipped = i64::try_from(digits.len() - significant.len()).ok()?;
    let exponent: i64 = exponent.parse().ok()?;
    let power = exponent.checked_add(i64::try_from(whole.len()).ok()?)?.checked_sub(skipped)?;
    Some((is_negative, significant.trim_end_matches('0').to_owned(), power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_double_whose_shortest_text_it_is() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("1.0", Some(1.0)),
            ("10e-1", Some(1.0)),
            ("-0.0", Some(0.0)),
            ("0e5", Some(0.0)),
            ("0.1", Some(0.1)),
            ("5e-324", Some(5e-324)),
            ("1.7976931348623157E308", Some(f64::MAX)),
            ("123456789012345680", Some(1.234_567_890_123_456_8e17)),
            ("9007199254740993", None),
            ("0.12345678901234567890", None),
            ("1e400", None),
            ("1e-400", None),
            ("1e99999999999999999999", None),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn a_zero_has_no_sign() {
        assert!(value("-0").expect("comparable").is_sign_positive());
    }
}
