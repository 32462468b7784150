//! Patterns of LIKE (CESQL 3.4.3), on characters.
//!
//! A pattern is cut at its `%` into pieces. The first and the last are anchored; each in between is searched from where the one
//! before it ended, and taking its first occurrence is always right. Each byte of the text is looked at by one search only, so
//! that a match takes time in proportion to the text, whatever the pattern is.

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    head: Piece,
    /// `None`: there is no `%`, and `head` is all.
    rest: Option<Rest>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rest {
    between: Vec<Floating>,
    tail: Piece,
}

/// Literal text and single characters of any kind, without `%`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Piece(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// So many characters, whichever.
    Any(usize),
}

/// A piece between two `%`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Floating {
    any_before: usize,
    core: Core,
    any_after: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Core {
    Literal(String),
    Masked(Masks),
}

impl Pattern {
    /// Every text is a pattern: a backslash before anything but `%` and `_` is itself.
    pub fn compile(text: &str) -> Self {
        let mut pieces = vec![Piece::default()];
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let last = pieces.len() - 1;
            match character {
                '%' => pieces.push(Piece::default()),
                '_' => pieces[last].any(),
                '\\' => {
                    let escaped = characters.next_if(|next| matches!(next, '%' | '_'));
                    pieces[last].literal(escaped.unwrap_or('\\'));
                }
                _ => pieces[last].literal(character),
            }
        }
        let mut pieces = pieces.into_iter();
        let head = pieces.next().unwrap_or_default();
        let rest = pieces.next_back().map(|tail| {
            let between = pieces.filter(|piece| !piece.0.is_empty()).map(Piece::float).collect();
            Rest { between, tail }
        });
        Self { head, rest }
    }

    pub fn matches(&self, text: &str) -> bool {
        self.matches_in(text, &mut 0)
    }

    /// Adds to `steps` the bytes and words looked at.
    pub(super) fn matches_in(&self, text: &str, steps: &mut usize) -> bool {
        let Some(after_head) = self.head.strip_from_start(text, steps) else { return false };
        let Some(rest) = &self.rest else { return after_head.is_empty() };
        let Some(mut left) = rest.tail.strip_from_end(after_head, steps) else { return false };
        rest.between.iter().all(|piece| piece.skip_first(&mut left, steps))
    }

    /// What every match begins with, and whether nothing can follow it.
    pub fn prefix(&self) -> (&str, bool) {
        match (self.head.0.as_slice(), &self.rest) {
            ([], None) => ("", true),
            ([Part::Literal(text)], rest) => (text, rest.is_none()),
            ([Part::Literal(text), ..], _) => (text, false),
            ([] | [Part::Any(_), ..], _) => ("", false),
        }
    }
}

impl Piece {
    fn literal(&mut self, character: char) {
        match self.0.last_mut() {
            Some(Part::Literal(text)) => text.push(character),
            Some(Part::Any(_)) | None => self.0.push(Part::Literal(character.into())),
        }
    }

    fn any(&mut self) {
        match self.0.last_mut() {
            Some(Part::Any(count)) => *count += 1,
            Some(Part::Literal(_)) | None => self.0.push(Part::Any(1)),
        }
    }

    fn strip_from_start<'t>(&self, text: &'t str, steps: &mut usize) -> Option<&'t str> {
        self.0.iter().try_fold(text, |left, part| {
            let left_after = match part {
                Part::Literal(literal) => left.strip_prefix(literal.as_str())?,
                Part::Any(count) => skip(left, *count)?,
            };
            *steps += left.len() - left_after.len();
            Some(left_after)
        })
    }

    fn strip_from_end<'t>(&self, text: &'t str, steps: &mut usize) -> Option<&'t str> {
        self.0.iter().rev().try_fold(text, |left, part| {
            let left_before = match part {
                Part::Literal(literal) => left.strip_suffix(literal.as_str())?,
                Part::Any(count) => {
                    let (at, _) = left.char_indices().nth_back(count - 1)?;
                    &left[..at]
                }
            };
            *steps += left.len() - left_before.len();
            Some(left_before)
        })
    }

    fn float(self) -> Floating {
        let mut parts = self.0;
        let any_before = match parts.first() {
            Some(Part::Any(count)) => *count,
            Some(Part::Literal(_)) | None => 0,
        };
        if any_before > 0 {
            parts.remove(0);
        }
        let any_after = match parts.last() {
            Some(Part::Any(count)) => *count,
            Some(Part::Literal(_)) | None => 0,
        };
        if any_after > 0 {
            parts.pop();
        }
        let core = match parts.as_slice() {
            [] => Core::Literal(String::new()),
            [Part::Literal(text)] => Core::Literal(text.clone()),
            parts => Core::Masked(Masks::of(parts)),
        };
        Floating { any_before, core, any_after }
    }
}

impl Floating {
    /// Drops the text up to the end of the first occurrence.
    fn skip_first(&self, left: &mut &str, steps: &mut usize) -> bool {
        let found = skip(left, self.any_before).and_then(|from| {
            let from = match &self.core {
                Core::Literal(literal) => {
                    from.split_at_checked(from.find(literal.as_str())? + literal.len())?.1
                }
                Core::Masked(masks) => masks.skip_first(from, steps)?,
            };
            skip(from, self.any_after)
        });
        *steps += left.len() - found.map_or(0, str::len);
        *left = found.unwrap_or_default();
        found.is_some()
    }
}

fn skip(text: &str, characters: usize) -> Option<&str> {
    match characters.checked_sub(1) {
        None => Some(text),
        Some(before_last) => {
            let (at, last) = text.char_indices().nth(before_last)?;
            Some(&text[at + last.len_utf8()..])
        }
    }
}

const WORD_BITS: usize = 64;

/// Literals with single wild characters between them, searched for by Shift-And: bit `n` of the state says that the last `n + 1`
/// characters of the text are the first `n + 1` of the piece. A character of the text costs a word for every 64 of the piece.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Masks {
    length: usize,
    words: usize,
    /// The characters of the literals, sorted.
    alphabet: Vec<char>,
    /// For each character of the alphabet, and last for all others, which places of the piece it fits.
    fits: Vec<u64>,
}

impl Masks {
    fn of(parts: &[Part]) -> Self {
        let mut places: Vec<Option<char>> = Vec::new();
        for part in parts {
            match part {
                Part::Literal(text) => places.extend(text.chars().map(Some)),
                Part::Any(count) => places.extend(std::iter::repeat_n(None, *count)),
            }
        }
        let mut alphabet: Vec<char> = places.iter().copied().flatten().collect();
        alphabet.sort_unstable();
        alphabet.dedup();
        let words = places.len().div_ceil(WORD_BITS);
        let mut fits = vec![0; words * (alphabet.len() + 1)];
        for (place, wanted) in places.iter().enumerate() {
            let (word, bit) = (place / WORD_BITS, 1 << (place % WORD_BITS));
            for (row, character) in alphabet.iter().map(Some).chain([None]).enumerate() {
                if wanted.is_none() || wanted.as_ref() == character {
                    fits[row * words + word] |= bit;
                }
            }
        }
        Self { length: places.len(), words, alphabet, fits }
    }

    fn skip_first<'t>(&self, text: &'t str, steps: &mut usize) -> Option<&'t str> {
        let (mut one, mut many) = ([0], Vec::new());
        let state = match self.words {
            1 => one.as_mut_slice(),
            words => {
                many.resize(words, 0);
                many.as_mut_slice()
            }
        };
        let last = self.length - 1;
        for (at, character) in text.char_indices() {
            let row = self.alphabet.binary_search(&character).unwrap_or(self.alphabet.len());
            let fits = &self.fits[row * self.words..][..self.words];
            let mut carried = 1;
            for (word, fit) in state.iter_mut().zip(fits) {
                let carry = *word >> (WORD_BITS - 1);
                *word = ((*word << 1) | carried) & fit;
                carried = carry;
            }
            *steps += self.words;
            if state[last / WORD_BITS] >> (last % WORD_BITS) & 1 == 1 {
                return Some(&text[at + character.len_utf8()..]);
            }
        }
        None
    }
}
