//! Conditions on text: without regard to case, and with wildcards.

/// A text whose letters match in upper and in lower case, each letter by the mappings of the letter as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caseless {
    written: Box<str>,
    letters: Box<[Letter]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Letter {
    Same(char),
    Either { lower: Box<str>, upper: Box<str> },
}

impl Caseless {
    pub fn of(text: &str) -> Self {
        let letter = |letter: char| {
            let (lower, upper) = (letter.to_lowercase(), letter.to_uppercase());
            if lower.clone().eq(upper.clone()) {
                return Letter::Same(letter);
            }
            Letter::Either { lower: lower.to_string().into(), upper: upper.to_string().into() }
        };
        Self { written: text.into(), letters: text.chars().map(letter).collect() }
    }

    pub fn written(&self) -> &str {
        &self.written
    }

    pub fn equals(&self, text: &str) -> bool {
        self.strip_start(text).is_some_and(str::is_empty)
    }

    pub fn starts(&self, text: &str) -> bool {
        self.strip_start(text).is_some()
    }

    pub fn ends(&self, text: &str) -> bool {
        let stripped = self.letters.iter().rev().try_fold(text, |text, letter| match letter {
            Letter::Same(letter) => text.strip_suffix(*letter),
            Letter::Either { lower, upper } => {
                text.strip_suffix(&**lower).or_else(|| text.strip_suffix(&**upper))
            }
        });
        stripped.is_some()
    }

    fn strip_start<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.letters.iter().try_fold(text, |text, letter| match letter {
            Letter::Same(letter) => text.strip_prefix(*letter),
            Letter::Either { lower, upper } => {
                text.strip_prefix(&**lower).or_else(|| text.strip_prefix(&**upper))
            }
        })
    }
}

/// A text in which `*` stands for any run of characters. Matching takes time linear in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wildcard {
    written: Box<str>,
    first: Box<str>,
    /// The parts after each `*`.
    rest: Box<[Box<str>]>,
}

impl Wildcard {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = vec![String::new()];
        let mut characters = text.chars().peekable();
        let mut is_after_star = false;
        while let Some(character) = characters.next() {
            let was_after_star = std::mem::replace(&mut is_after_star, character == '*');
            let literal = match character {
                '*' if was_after_star => {
                    return Err("two `*` in a row: one stands for any text already".into());
                }
                '*' => {
                    parts.push(String::new());
                    continue;
                }
                '\\' => characters
                    .next_if(|next| matches!(next, '*' | '\\'))
                    .ok_or(r"a `\` stands before `*` or `\` only; a backslash itself is `\\`")?,
                other => other,
            };
            if let Some(part) = parts.last_mut() {
                part.push(literal);
            }
        }
        let mut parts = parts.into_iter().map(String::into_boxed_str);
        Ok(Self { written: text.into(), first: parts.next().unwrap_or_default(), rest: parts.collect() })
    }

    pub fn written(&self) -> &str {
        &self.written
    }

    /// The first part must start the text and the last end it; those between are taken where they are found first, which
    /// leaves the most for what follows.
    pub fn matches(&self, text: &str) -> bool {
        let Some((last, middle)) = self.rest.split_last() else { return *text == *self.first };
        let start = text.strip_prefix(&*self.first);
        let Some(mut text) = start.and_then(|text| text.strip_suffix(&**last)) else { return false };
        for part in middle {
            let Some(at) = text.find(&**part) else { return false };
            text = &text[at + part.len()..];
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn case_is_disregarded_letter_by_letter() {
        for (written, text, expected) in [
            ("Abc", "aBC", true),
            ("abc", "abcd", false),
            ("straße", "STRASSE", true),
            ("strasse", "straße", false),
            ("ÉTÉ", "été", true),
            ("😀", "😀", true),
            ("k", "\u{212A}", false),
            ("\u{212A}", "k", true),
            ("", "", true),
        ] {
            assert_eq!(Caseless::of(written).equals(text), expected, "{written} {text}");
        }
        assert!(Caseless::of("ß").ends("maSS"));
        assert!(Caseless::of("Ma").starts("mAss"));
    }

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (wildcard, text, expected) in [
            ("*", "", true),
            ("a*", "a", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("*ab*ab*", "abab", true),
            ("*ab*ab*", "aba", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            (r"\\*", r"\x", true),
            ("*.jpg", "dir/x.jpg", true),
            ("", "", true),
            ("", "a", false),
        ] {
            let parsed = Wildcard::parse(wildcard).expect("a wildcard");
            assert_eq!(parsed.matches(text), expected, "{wildcard} {text}");
        }
        for wildcard in ["**", "a**b", r"\", r"\a", r"a\"] {
            assert!(Wildcard::parse(wildcard).is_err(), "{wildcard}");
        }
    }

    #[test]
    fn many_stars_take_linear_time() {
        let wildcard = Wildcard::parse(&"*a".repeat(5_000)).expect("a wildcard");
        let text = format!("{}b", "a".repeat(1 << 20));
        let start = Instant::now();
        assert!(!wildcard.matches(&text));
        let wildcard = Wildcard::parse(&format!("{}*b", "*a".repeat(5_000))).expect("a wildcard");
        assert!(wildcard.matches(&text));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
