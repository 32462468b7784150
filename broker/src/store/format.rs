//! The bytes of a segment: its header, frame headers, record headers. Pure; what it cannot vouch for it refuses.

use super::Offset;

/// Frames begin at multiples of this, so that the next one can be found behind damage.
pub const ALIGNMENT: u64 = 512;
/// Where the first frame of a segment begins.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
pub const FRAME_HEADER_BYTES: usize = 64;
pub const RECORD_HEADER_BYTES: usize = 12;
pub const FORMAT_VERSION: u32 = 1;

const SEGMENT_MAGIC: [u8; 8] = *b"SLUICE\r\n";
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"SLFR");
const SEGMENT_HEADER_USED: usize = 68;

/// The first block of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Which store the file belongs to.
    pub store: u128,
    /// Number of the segment. Never used twice, so frames of a recycled file's former life cannot pass.
    pub segment: u64,
    pub first_frame: u64,
    pub first_offset: Offset,
    /// How long the file was made: while it is the last one it cannot be shorter. 0 when that is not known.
    pub file_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("not a segment of a Sluice store")]
    Magic,
    #[error("format version {0}, this program reads {FORMAT_VERSION}")]
    Version(u32),
    #[error("checksum of the header does not match")]
    Checksum,
}

impl SegmentHeader {
    /// Whether a frame of the segment before was given up, unread, when this one was begun: it is readable again, and its
    /// offsets are others' by now.
    pub fn gives_up(&self, earlier: &FrameHeader) -> bool {
        earlier.frame < self.first_frame && earlier.end_offset() > self.first_offset
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES as usize);
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.store.to_le_bytes());
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.first_frame.to_le_bytes());
        bytes.extend_from_slice(&self.first_offset.0.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        // Behind what was there first, with a checksum of its own: headers without it are read as before.
        bytes.extend_from_slice(&self.file_bytes.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.resize(SEGMENT_HEADER_BYTES as usize, 0);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() < SEGMENT_HEADER_USED || bytes[..8] != SEGMENT_MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        if crc32c::crc32c(&bytes[..52]) != u32_at(bytes, 52) {
            return Err(HeaderError::Checksum);
        }
        let store = u128::from(u64_at(bytes, 12)) | u128::from(u64_at(bytes, 20)) << 64;
        let is_length_known = crc32c::crc32c(&bytes[..64]) == u32_at(bytes, 64);
        Ok(Self {
            file_bytes: if is_length_known { u64_at(bytes, 56) } else { 0 },
            store,
            segment: u64_at(bytes, 28),
            first_frame: u64_at(bytes, 36),
            first_offset: Offset(u64_at(bytes, 44)),
        })
    }
}

/// What stands before the records that were synced together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub segment: u64,
    /// One more than the frame before, over all segments.
    pub frame: u64,
    /// The offset of the first event record in the frame, or of the next event when there is none.
    pub first_offset: Offset,
    pub written_at_ms: u64,
    pub body_bytes: u32,
    pub records: u32,
    pub events: u32,
    /// The low half of the store's id.
    pub store: u64,
    /// Checksum of the header; seeds those of the records.
    pub checksum: u32,
}

impl FrameHeader {
    /// Writes the header into the first bytes of a frame and returns its checksum.
    pub fn encode_into(&self, bytes: &mut [u8]) -> u32 {
        bytes[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.frame.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_offset.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.written_at_ms.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.records.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.events.to_le_bytes());
        bytes[52..56].fill(0);
        bytes[56..64].copy_from_slice(&self.store.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[8..FRAME_HEADER_BYTES]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }

    /// `None` when the bytes are no frame header of this store and segment.
    pub fn decode(bytes: &[u8], store: u128, segment: u64) -> Option<Self> {
        Self::decode_any(bytes, store).filter(|header| header.segment == segment)
    }

    /// `None` when the bytes are no frame header of this store, be it of what the file was before it was recycled.
    pub fn decode_any(bytes: &[u8], store: u128) -> Option<Self> {
        if bytes.len() < FRAME_HEADER_BYTES || u32_at(bytes, 0) != FRAME_MAGIC {
            return None;
        }
        let header = Self {
            segment: u64_at(bytes, 8),
            frame: u64_at(bytes, 16),
            first_offset: Offset(u64_at(bytes, 24)),
            written_at_ms: u64_at(bytes, 32),
            body_bytes: u32_at(bytes, 40),
            records: u32_at(bytes, 44),
            events: u32_at(bytes, 48),
            store: u64_at(bytes, 56),
            checksum: u32_at(bytes, 4),
        };
        let whole = crc32c::crc32c(&bytes[8..FRAME_HEADER_BYTES]) == header.checksum;
        (whole && header.store == store as u64).then_some(header)
    }

    /// Bytes from the start of this frame to where the next one begins.
    pub fn span(&self) -> u64 {
        aligned(FRAME_HEADER_BYTES as u64 + u64::from(self.body_bytes))
    }

    pub fn end_offset(&self) -> Offset {
        Offset(self.first_offset.0 + u64::from(self.events))
    }
}

pub fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

/// Kinds of records. One with [`CRITICAL`] that is not known here refuses to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordType {
    Event = 1,
    Triggers = 2,
    Routed = 3,
    Outcomes = 4,
    Pause = 5,
    Redrive = 6,
    Purge = 7,
    Gap = 8,
    Close = 9,
    Dropped = 10,
    Aside = 11,
    AsidesGone = 12,
    Mark = 13,
    SourcePause = 14,
    Told = 15,
}

impl RecordType {
    const ALL: [Self; 15] = [
        Self::Event,
        Self::Triggers,
        Self::Routed,
        Self::Outcomes,
        Self::Pause,
        Self::Redrive,
        Self::Purge,
        Self::Gap,
        Self::Close,
        Self::Dropped,
        Self::Aside,
        Self::AsidesGone,
        Self::Mark,
        Self::SourcePause,
        Self::Told,
    ];

    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u8 == byte)
    }
}

pub const CRITICAL: u8 = 1;

/// A record as it stands in a frame: type, flags and body, its checksum already verified.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    pub kind: u8,
    pub flags: u8,
    pub body: &'a [u8],
    /// Where its header begins, from the start of the frame.
    pub position: usize,
}

/// Appends a record; the checksum is filled in by [`seal`], when the frame's header is known.
pub fn push_record(frame: &mut Vec<u8>, kind: RecordType, body: impl FnOnce(&mut Vec<u8>)) {
    let start = frame.len();
    frame.extend_from_slice(&[kind as u8, CRITICAL, 0, 0]);
    frame.extend_from_slice(&[0; 8]);
    body(frame);
    let length = (frame.len() - start - RECORD_HEADER_BYTES) as u32;
    frame[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
}

/// Fills in the header and every record's checksum and pads to the alignment. `frame` begins with room for the header.
pub fn seal(frame: &mut Vec<u8>, mut header: FrameHeader) -> FrameHeader {
    header.body_bytes = (frame.len() - FRAME_HEADER_BYTES) as u32;
    header.checksum = header.encode_into(&mut frame[..FRAME_HEADER_BYTES]);
    let (mut at, mut events) = (FRAME_HEADER_BYTES, 0);
    while at < frame.len() {
        let end = at + RECORD_HEADER_BYTES + u32_at(frame, at + 4) as usize;
        let checksum = record_checksum(&header, events, &frame[at..end]);
        frame[at + 8..at + 12].copy_from_slice(&checksum.to_le_bytes());
        events += u32::from(frame[at] == RecordType::Event as u8);
        at = end;
    }
    frame.resize(aligned(frame.len() as u64) as usize, 0);
    header
}

/// Seeded with the events before the record, too: so a record that is found by counting has the offset that was meant.
fn record_checksum(header: &FrameHeader, events_before: u32, record: &[u8]) -> u32 {
    let seed = header.checksum.wrapping_add(events_before);
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &record[..8]), &record[RECORD_HEADER_BYTES..])
}

/// The records of a frame whose header was decoded; `None` as soon as one is not whole.
pub fn records<'a>(header: &FrameHeader, frame: &'a [u8]) -> Option<Vec<RawRecord<'a>>> {
    let end = FRAME_HEADER_BYTES + header.body_bytes as usize;
    if frame.len() < end {
        return None;
    }
    let mut found = Vec::with_capacity((header.records as usize).min(1 << 16));
    let (mut at, mut events) = (FRAME_HEADER_BYTES, 0);
    while at < end {
        let (record, next) = record_at(header, &frame[..end], at, events)?;
        events += u32::from(record.kind == RecordType::Event as u8);
        found.push(record);
        at = next;
    }
    (found.len() == header.records as usize).then_some(found)
}

/// One record of a frame, verified, and where the next one begins. `events_before` are in the same frame.
pub fn record_at<'a>(
    header: &FrameHeader,
    frame: &'a [u8],
    at: usize,
    events_before: u32,
) -> Option<(RawRecord<'a>, usize)> {
    let body = at + RECORD_HEADER_BYTES;
    if body > frame.len() {
        return None;
    }
    let end = body.checked_add(u32_at(frame, at + 4) as usize)?;
    if end > frame.len() || record_checksum(header, events_before, &frame[at..end]) != u32_at(frame, at + 8) {
        return None;
    }
    Some((RawRecord { kind: frame[at], flags: frame[at + 1], body: &frame[body..end], position: at }, end))
}

/// The kind of a record and its length in all, from its header; nothing is verified.
pub fn record_head(bytes: &[u8]) -> Option<(u8, usize)> {
    let head = bytes.get(..RECORD_HEADER_BYTES)?;
    Some((head[0], RECORD_HEADER_BYTES + u32_at(head, 4) as usize))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: u128 = 7 << 64 | 9;

    fn frame() -> (FrameHeader, Vec<u8>) {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        push_record(&mut bytes, RecordType::Event, |body| body.extend_from_slice(b"hello"));
        push_record(&mut bytes, RecordType::Close, |_| {});
        let header = FrameHeader {
            segment: 3,
            frame: 11,
            first_offset: Offset(40),
            written_at_ms: 1,
            body_bytes: 0,
            records: 2,
            events: 1,
            store: STORE as u64,
            checksum: 0,
        };
        (seal(&mut bytes, header), bytes)
    }

    #[test]
    fn a_frame_reads_as_it_was_written() {
        let (header, bytes) = frame();
        assert_eq!(FrameHeader::decode(&bytes, STORE, 3), Some(header));
        let found = records(&header, &bytes).expect("whole");
        assert_eq!(
            found.iter().map(|r| (r.kind, r.body)).collect::<Vec<_>>(),
            [(1, &b"hello"[..]), (9, &b""[..])]
        );
        assert_eq!(bytes.len() as u64 % ALIGNMENT, 0);
    }

    #[test]
    fn any_flipped_bit_of_a_frame_is_noticed() {
        let (header, bytes) = frame();
        let used = FRAME_HEADER_BYTES + header.body_bytes as usize;
        for bit in 0..used * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            let whole = FrameHeader::decode(&broken, STORE, 3)
                .and_then(|header| records(&header, &broken).map(|_| ()));
            assert!(whole.is_none(), "bit {bit} flipped unnoticed");
        }
    }

    #[test]
    fn a_frame_of_a_recycled_files_former_life_does_not_pass() {
        let (_, bytes) = frame();
        assert_eq!(FrameHeader::decode(&bytes, STORE, 4), None);
        assert_eq!(FrameHeader::decode(&bytes, STORE + 1, 3), None);
    }

    #[test]
    fn a_segment_header_reads_as_it_was_written_and_names_a_newer_version() {
        let first_offset = Offset(1000);
        let header =
            SegmentHeader { store: STORE, segment: 5, first_frame: 70, first_offset, file_bytes: 9000 };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        bytes[56..].fill(0);
        let without_length = SegmentHeader { file_bytes: 0, ..header };
        assert_eq!(SegmentHeader::decode(&bytes), Ok(without_length));
        bytes[8] = 2;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version(2)));
    }
}
