//! Recovery: from the files of a store to its state, and to a segment that can be written to.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock;
use super::disk::Disk;
use super::format::{self, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::open::{Identity, LogFiles, OpenError, Options, Recovery};
use super::record::{Gap, LogRecord};
use super::scan::{self, Damage, FileWindow, Position};
use super::segment::{Layout, Segment, Spares, segment_name};
use super::snapshot::{self, Folded};

/// A recovery that takes longer says so, this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What recovery has come to.
pub struct Recovered {
    pub folded: Folded,
    pub segments: Vec<Arc<Segment>>,
    pub active: Arc<Segment>,
    pub next_frame: u64,
    pub report: Recovery,
}

/// Comes to the state the log holds, and to a segment that can be written to.
pub fn recover(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    options: &Options,
    identity: &Identity,
    files: LogFiles,
    spares: &Spares,
    accepted: &[Damage],
) -> Result<Recovered, OpenError> {
    let mut segments = files.segments;
    let io = |source| OpenError::Io { path: layout.dir.clone(), source };
    let keep_offsets = options.skip_damage || !accepted.is_empty();
    let mut folded = snapshot::base(&**disk, layout, options.window, &segments, identity, keep_offsets)
        .map_err(io)?
        .ok_or_else(|| OpenError::NoSnapshot {
            dir: layout.snapshots(),
            segment: segments.first().map_or_else(|| layout.log(), |first| first.path.clone()),
        })?;
    extend_before(&segments, folded.position).map_err(io)?;
    let (from, next_offset) = (folded.position, folded.next_offset());
    let mut failed = None;
    let mut told = Instant::now();
    let total = segments.last().map_or(0, |last| last.number() + 1).saturating_sub(from.segment).max(1);
    let mut ending = scan::scan(&segments, from, next_offset, &mut |found| {
        note(found);
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            let percent = (found.segment.number() - from.segment) * 100 / total;
            tracing::info!(percent, segment = found.segment.number(), "recovering the log");
        }
        if failed.is_none() {
            failed = folded.fold(found, options.outstanding).err();
        }
        Ok(())
    })
    .map_err(io)?;
    if let Some(error) = failed {
        return Err(io(error));
    }
    let last_number = segments.last().map_or(0, |last| last.number());
    if from.frame > 0 && last_number < from.segment {
        let (file, offset) = (segment_name(from.segment), ending.next_offset);
        let segment = last_number + 1;
        ending.damage.push(Damage { file, segment, start: 0, end: 0, offsets: (offset, offset) });
    }
    let is_known = |damage: &&Damage| folded.state.gaps.iter().any(|gap| damage.is_within(gap));
    ending.damage.extend(files.damage);
    let found = ending.damage.iter().chain(accepted.iter().filter(|part| !ending.damage.contains(part)));
    let damage: Vec<_> = found.filter(|damage| !is_known(damage)).cloned().collect();
    if damage.iter().any(|part| !accepted.contains(part)) && !options.skip_damage {
        return Err(OpenError::Damaged { dir: layout.dir.clone(), damage });
    }
    let mut report = Recovery { frames: ending.frames, was_closed: ending.closed, ..Recovery::default() };
    let nothing_new = ending.last.is_none() && from.frame > 0 && is_closed_at(&segments, from).map_err(io)?;
    ending.closed |= nothing_new;
    let last_frame = ending.last_frame;
    let (active, next_frame) = if ending.closed && damage.is_empty() && !segments.is_empty() {
        close_again(&**disk, layout, &segments, &ending).map_err(io)?;
        let active = segments.last().cloned().ok_or(OpenError::NotAStore(layout.dir.clone()))?;
        (active, last_frame + 1)
    } else {
        if let Some((segment, at, bytes)) = &ending.torn {
            set_aside(&**disk, layout, *segment, *at, bytes).map_err(io)?;
            report.torn_bytes = bytes.len();
        }
        let gaps: Vec<LogRecord> = damage.iter().map(|damage| LogRecord::Gap(gap(damage))).collect();
        report.gaps = gaps.len();
        let begun = begin_again(
            disk,
            layout,
            identity,
            &segments,
            spares,
            &ending,
            (last_frame, from.segment),
            &gaps,
        )?;
        if !begun.reused {
            segments.push(Arc::clone(&begun.segment));
        }
        gaps.iter().for_each(|gap| folded.state.apply(gap, &|_| true));
        (begun.segment, begun.next_frame)
    };
    folded.take_up(&segments, options.outstanding).map_err(io)?;
    Ok(Recovered { folded, segments, active, next_frame, report })
}

/// Notes what a segment holds, for look-ups.
fn note(found: &scan::Found<'_>) {
    let header = &found.header;
    let (first, next) = (header.first_offset, header.end_offset());
    found.segment.advance(header.frame, found.at, header.span(), first, next, header.written_at_ms);
}

/// Says how far the segments go that the snapshot covers, without reading more of them than it must.
fn extend_before(segments: &[Arc<Segment>], until: Position) -> io::Result<()> {
    for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
        if segment.number() < until.segment {
            segment.seal_before(next)?;
        }
    }
    let Some(at) = segments.iter().position(|segment| segment.number() == until.segment) else {
        return Ok(());
    };
    segments[at].walk_headers(until.at)?;
    match segments.get(at + 1) {
        // A damaged frame is in the way.
        Some(next) if segments[at].extent().end < until.at => segments[at].seal_before(next),
        _ => Ok(()),
    }
}

/// Whether the frame before a position is a closing one and nothing was begun behind it.
fn is_closed_at(segments: &[Arc<Segment>], position: Position) -> io::Result<bool> {
    let Some(segment) = segments.last().filter(|last| last.number() == position.segment) else {
        return Ok(false);
    };
    let mut window = FileWindow::new(segment);
    let mut at = SEGMENT_HEADER_BYTES;
    let mut closed = false;
    while at < position.at {
        let Some(header) = window.header(at)? else { return Ok(false) };
        let records = window.records(at, &header)?;
        closed = records.is_some_and(|records| {
            records.last().is_some_and(|last| last.kind == format::RecordType::Close as u8)
        });
        at += header.span();
    }
    Ok(closed && at == position.at)
}

/// Writes the closing frame again where it is, and syncs. Who wrote it may have died before it was on disk, and a frame
/// behind one that is not would make it look damaged; nothing but itself can be torn here.
fn close_again(
    disk: &dyn Disk,
    layout: &Layout,
    segments: &[Arc<Segment>],
    ending: &scan::Ending,
) -> io::Result<()> {
    if let Some((number, at, header)) = &ending.last
        && let Some(segment) = segments.iter().find(|segment| segment.number() == *number)
    {
        let mut bytes = vec![0; header.span() as usize];
        segment.read_at(&mut bytes, *at)?;
        segment.file.write_at(&bytes, *at)?;
        segment.file.sync()?;
    }
    disk.sync_dir(&layout.log())
}

fn gap(damage: &Damage) -> Gap {
    Gap {
        at_ms: clock::wall_ms(),
        from: damage.offsets.0,
        to: damage.offsets.1,
        segment: damage.segment,
        start: damage.start,
        end: damage.end,
    }
}

/// Keeps the bytes of a torn tail, under a name that says where they were.
fn set_aside(disk: &dyn Disk, layout: &Layout, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
    let dir = layout.set_aside();
    disk.create_dir(&dir)?;
    let file = disk.create(&dir.join(format!("{segment:012}-{at}.torn")))?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.sync_dir(&dir)
}

struct Begun {
    segment: Arc<Segment>,
    next_frame: u64,
    reused: bool,
}

/// Writes the last whole frame again, to a place of its own, and what recovery has to say, and syncs.
#[expect(clippy::too_many_arguments, reason = "each is one thing recovery has found out")]
fn begin_again(
    disk: &Arc<dyn Disk>,
    layout: &Layout,
    identity: &Identity,
    segments: &[Arc<Segment>],
    spares: &Spares,
    ending: &scan::Ending,
    (last_frame, above): (u64, u64),
    gaps: &[LogRecord],
) -> Result<Begun, OpenError> {
    let io = |source| OpenError::Io { path: layout.dir.clone(), source };
    // A frame that something was written behind is on disk; the copy is for one of which that is not known.
    let copy = match &ending.last {
        Some((number, at, header)) if header.frame == last_frame => {
            let holder = segments.iter().find(|segment| segment.number() == *number);
            let holder = holder.ok_or_else(|| OpenError::NotAStore(layout.dir.clone()))?;
            let mut bytes = vec![0; FRAME_HEADER_BYTES + header.body_bytes as usize];
            holder.read_at(&mut bytes, *at).map_err(io)?;
            Some((*header, bytes))
        }
        _ => None,
    };
    let first_frame = copy.as_ref().map_or(last_frame + 1, |(header, _)| header.frame);
    let first_offset = copy.as_ref().map_or(ending.next_offset, |(header, _)| header.first_offset);
    let empty = segments
        .last()
        .filter(|last| last.extent().last_frame.is_none() && last.header.first_frame == first_frame);
    let (segment, reused) = match empty {
        Some(segment) => (Arc::clone(segment), true),
        None => {
            // Above what a snapshot knows, too, should segments behind it be missing.
            let number = segments.last().map_or(1, |last| last.number() + 1).max(above);
            let header = SegmentHeader { store: identity.id()?, segment: number, first_frame, first_offset };
            (Arc::new(new_segment(spares, header).map_err(io)?), false)
        }
    };
    let mut at = SEGMENT_HEADER_BYTES;
    let mut next_frame = first_frame;
    let mut write = |mut header: format::FrameHeader, mut bytes: Vec<u8>| -> io::Result<()> {
        header.segment = segment.number();
        let header = format::seal(&mut bytes, header);
        segment.file.write_at(&bytes, at)?;
        // One frame at a time: with two unsynced ones a power cut could leave the later and look like damage.
        segment.file.sync()?;
        segment.advance(
            header.frame,
            at,
            header.span(),
            header.first_offset,
            header.end_offset(),
            header.written_at_ms,
        );
        at += header.span();
        next_frame = header.frame + 1;
        Ok(())
    };
    if let Some((header, bytes)) = copy {
        write(header, bytes).map_err(io)?;
    }
    if !gaps.is_empty() {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        gaps.iter().for_each(|gap| gap.append_to(&mut bytes));
        let header = format::FrameHeader {
            segment: segment.number(),
            frame: last_frame + 1,
            first_offset: ending.next_offset,
            written_at_ms: clock::wall_ms(),
            body_bytes: 0,
            records: gaps.len() as u32,
            events: 0,
            store: identity.id()? as u64,
            checksum: 0,
        };
        write(header, bytes).map_err(io)?;
    }
    disk.sync_dir(&layout.log()).map_err(io)?;
    if !reused && let Some(last) = segments.last() {
        // What follows the last whole frame is the torn tail, kept elsewhere by now, or space never used.
        let end = last.extent().end;
        if last.file.len().map_err(io)? > end {
            last.file.truncate(end).map_err(io)?;
            last.file.sync().map_err(io)?;
        }
    }
    Ok(Begun { segment, next_frame, reused })
}

fn new_segment(spares: &Spares, header: SegmentHeader) -> io::Result<Segment> {
    if spares.count() == 0 {
        spares.make(&|| false)?;
    }
    spares.take(header, 0)?.ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))
}
