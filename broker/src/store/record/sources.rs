//! The records of sources: what they put aside, where they stand, whether they are paused.

use std::sync::Arc;

use bytes::Bytes;
use sluice_adapters as adapters;

use super::super::Offset;
use super::super::fields::{self, Reader, Writer};
use super::number;

/// What a source received that could not become an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Aside {
    /// From 1; never used twice in a store.
    pub number: u64,
    pub at_ms: u64,
    pub source: Arc<str>,
    /// The next event's offset when it was put aside: the record stands in the log at this offset or behind.
    pub near: Offset,
    pub aside: adapters::Aside,
}

/// Records that were put aside and are not listed any more: purged, or redriven and events now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsidesGone {
    pub at_ms: u64,
    pub numbers: Vec<u64>,
}

/// Where a source stands, in its own words. In the frame of the events it brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub source: Arc<str>,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePause {
    pub source: Arc<str>,
    pub at_ms: u64,
    /// Why, or `None` when this resumes.
    pub reason: Option<String>,
}

mod tag {
    pub const NUMBER: u8 = 1;
    pub const AT: u8 = 2;
    pub const SOURCE: u8 = 3;
    pub const NEAR: u8 = 4;
    pub const CONFLICT: u8 = 5;
    pub const DETAIL: u8 = 6;
    pub const POSITION: u8 = 7;
    pub const TOPIC: u8 = 8;
    pub const SUBJECT: u8 = 9;
    pub const KEY: u8 = 10;
    pub const TIME: u8 = 11;
    pub const HEADER: u8 = 12;
    pub const BODY: u8 = 13;
    /// Of the body as it was received, where only its beginning is kept.
    pub const SIZE: u8 = 14;
}

impl Aside {
    pub fn put(&self, body: &mut Vec<u8>) {
        let record = &self.aside.record;
        let mut fields = Writer(body);
        fields.number(tag::NUMBER, self.number).number(tag::AT, self.at_ms).text(tag::SOURCE, &self.source);
        fields.number(tag::NEAR, self.near.0).text(tag::DETAIL, &self.aside.unfit.detail);
        if self.aside.unfit.is_conflict {
            fields.number(tag::CONFLICT, 1);
        }
        fields.text(tag::POSITION, &record.position);
        for (tag, text) in [(tag::TOPIC, &record.topic), (tag::SUBJECT, &record.subject)] {
            if let Some(text) = text {
                fields.text(tag, text);
            }
        }
        if let Some(time) = record.time_ms {
            fields.bytes(tag::TIME, &time.to_le_bytes());
        }
        for (name, value) in &record.headers {
            fields.group(tag::HEADER, |body| {
                Writer(body).text(1, name).bytes(2, value);
            });
        }
        for (tag, bytes) in [(tag::KEY, &record.key), (tag::BODY, &record.body)] {
            if let Some(bytes) = bytes {
                fields.bytes(tag, bytes);
            }
        }
        if self.aside.is_cut() {
            fields.number(tag::SIZE, self.aside.size as u64);
        }
    }

    pub fn take(body: &[u8]) -> Option<Self> {
        let mut record = adapters::Record::default();
        let mut unfit = adapters::Unfit { is_conflict: false, detail: String::new() };
        let mut source = None;
        let mut size = None;
        for (tag, bytes) in Reader(body) {
            let text = || fields::text(bytes).map(str::to_owned);
            match tag {
                tag::SOURCE => source = fields::text(bytes).map(Arc::from),
                tag::CONFLICT => unfit.is_conflict = true,
                tag::DETAIL => unfit.detail = text()?,
                tag::POSITION => record.position = text()?,
                tag::TOPIC => record.topic = text(),
                tag::SUBJECT => record.subject = text(),
                tag::KEY => record.key = Some(Bytes::copy_from_slice(bytes)),
                tag::TIME => record.time_ms = Some(i64::from_le_bytes(bytes.try_into().ok()?)),
                tag::HEADER => record.headers.push(take_header(bytes)?),
                tag::BODY => record.body = Some(Bytes::copy_from_slice(bytes)),
                tag::SIZE => size = Some(usize::try_from(fields::number(bytes)?).ok()?),
                _ => {}
            }
        }
        let size = size.unwrap_or_else(|| record.body.as_ref().map_or(0, Bytes::len));
        Some(Self {
            number: number(body, tag::NUMBER)?,
            at_ms: number(body, tag::AT)?,
            source: source?,
            near: Offset(number(body, tag::NEAR)?),
            aside: adapters::Aside { record, unfit, size },
        })
    }
}

fn take_header(bytes: &[u8]) -> Option<(String, Bytes)> {
    let (mut name, mut value) = (None, Bytes::new());
    for (tag, bytes) in Reader(bytes) {
        match tag {
            1 => name = fields::text(bytes).map(str::to_owned),
            2 => value = Bytes::copy_from_slice(bytes),
            _ => {}
        }
    }
    Some((name?, value))
}

impl AsidesGone {
    pub fn put(&self, body: &mut Vec<u8>) {
        let mut fields = Writer(body);
        fields.number(1, self.at_ms);
        for number in &self.numbers {
            fields.number(2, *number);
        }
    }

    pub fn take(body: &[u8]) -> Option<Self> {
        let numbers = Reader(body).filter(|(tag, _)| *tag == 2).map(|(_, bytes)| fields::number(bytes));
        Some(Self { at_ms: number(body, 1)?, numbers: numbers.collect::<Option<_>>()? })
    }
}

impl Mark {
    pub fn put(&self, body: &mut Vec<u8>) {
        Writer(body).text(1, &self.source).text(2, &self.text);
    }

    pub fn take(body: &[u8]) -> Option<Self> {
        let text = |tag| super::field(body, tag).and_then(fields::text);
        Some(Self { source: text(1)?.into(), text: text(2)?.to_owned() })
    }
}

impl SourcePause {
    pub fn put(&self, body: &mut Vec<u8>) {
        let mut fields = Writer(body);
        fields.text(1, &self.source).number(2, self.at_ms);
        if let Some(reason) = &self.reason {
            fields.text(3, reason);
        }
    }

    pub fn take(body: &[u8]) -> Option<Self> {
        let text = |tag| super::field(body, tag).and_then(fields::text);
        let reason = text(3).map(str::to_owned);
        Some(Self { source: text(1)?.into(), at_ms: number(body, 2)?, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_put_aside_reads_as_it_was_written() {
        let record = adapters::Record {
            position: "orders/0/17".into(),
            topic: Some("orders".into()),
            subject: None,
            key: Some(Bytes::from_static(b"\xff\x00")),
            time_ms: Some(-5),
            headers: vec![
                ("a".into(), Bytes::new()),
                ("a".into(), Bytes::from_static(b"2")),
                (String::new(), Bytes::new()),
            ],
            body: Some(Bytes::new()),
        };
        for (record, size) in [(record.clone(), 0), (record, 4096), (adapters::Record::default(), 0)] {
            let unfit = adapters::Unfit { is_conflict: true, detail: "no `type`".into() };
            let aside = Aside {
                number: 7,
                at_ms: 9,
                source: "orders".into(),
                near: Offset(3),
                aside: adapters::Aside { record, unfit, size },
            };
            let mut body = Vec::new();
            aside.put(&mut body);
            assert_eq!(Aside::take(&body), Some(aside));
        }
    }
}
