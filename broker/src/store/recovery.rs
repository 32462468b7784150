//! Recovery: from the files of a store to its state, and to a segment that can be written to.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock;
use super::disk::Disk;
use super::format::{self, FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::open::{Identity, LogFiles, OpenError, Options, Recovery};
use super::reached::Reached;
use super::record::{Gap, LogRecord};
use super::scan::{self, Damage, FileWindow, Position};
use super::segment::{Layout, Segment, Spares};
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
    let from = folded.position;
    let noted = Reached::load(&**disk, layout, identity).map_err(io)?;
    let reached = Reached::of(&folded).or_further(noted);
    let mut ending = fold(&mut folded, &segments, options.outstanding).map_err(io)?;
    let above = miss_end(&mut ending, &folded, &segments, &reached).map_err(io)?;
    let mut damage = ending.all_damage();
    damage.extend(files.damage);
    let damage = to_give_up(damage, &folded.state.gaps, accepted, options)
        .map_err(|damage| OpenError::Damaged { dir: layout.dir.clone(), damage })?;
    for segment in &segments {
        let known = folded.state.gaps.iter().map(|gap| (gap.segment, gap.bytes()));
        let new = damage.iter().map(|part| (part.segment, part.start..part.end));
        let here = known.chain(new).filter(|(number, _)| *number == segment.number());
        segment.give_up(here.map(|(_, place)| place).collect());
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
        let again = Again { disk: &**disk, layout, identity, segments: &segments, spares, ending: &ending };
        if segments.is_empty() && last_frame > 0 {
            // What begins behind frames that are gone begins from a snapshot.
            let at = SEGMENT_HEADER_BYTES;
            folded.position = Position { segment: above, at, frame: last_frame };
            snapshot::write(&**disk, layout, &folded).map_err(io)?;
        }
        let begun = again.begin((last_frame, above), &gaps)?;
        if !begun.reused {
            segments.push(Arc::clone(&begun.segment));
        }
        gaps.iter().for_each(|gap| folded.state.apply(gap, &|_| true));
        (begun.segment, begun.next_frame)
    };
    folded.take_up(&segments, options.outstanding).map_err(io)?;
    Ok(Recovered { folded, segments, active, next_frame, report })
}

/// The damage that gaps are to be written for; all that there is, when some of it may not be given up.
fn to_give_up(
    found: Vec<Damage>,
    known: &[Gap],
    accepted: &[Damage],
    options: &Options,
) -> Result<Vec<Damage>, Vec<Damage>> {
    let is_known = |part: &Damage| known.iter().any(|gap| part.is_within(gap));
    // What a snapshot covers is not looked at: of what was accepted less may have been found, or nothing.
    let taken: Vec<Gap> = accepted.iter().map(gap).collect();
    let mut damage: Vec<_> =
        found.into_iter().filter(|part| !taken.iter().any(|gap| part.is_within(gap))).collect();
    damage.retain(|part| !is_known(part));
    // What cannot be read now may be readable tomorrow: only who has looked at it gives it up.
    let may_go = |part: &Damage| options.skip_damage && !part.is_unreadable;
    let is_refused = !damage.iter().all(may_go);
    damage.extend(accepted.iter().filter(|part| !is_known(part)).cloned());
    if is_refused { Err(damage) } else { Ok(damage) }
}

/// Notes as damage that the end of the log is missing. Returns what a new segment must be numbered at least.
fn miss_end(
    ending: &mut scan::Ending,
    folded: &Folded,
    segments: &[Arc<Segment>],
    reached: &Reached,
) -> io::Result<u64> {
    let mut end = segments.is_empty().then(|| scan::Ending::of_nothing(folded.state.floor()));
    if ending.last.is_none()
        && let Some(last) = segments.last()
    {
        // What the snapshot covers has not been read: it may be what is missing.
        let start = Position::start_of(last);
        let found = scan::scan(std::slice::from_ref(last), start, last.header.first_offset, &mut |found| {
            note(found);
            Ok(())
        })?;
        end = Some(found);
    }
    let is_shorter = |end: &scan::Ending| end.last_frame < reached.position.frame;
    if let Some(end) = end.filter(is_shorter) {
        // What else it found wrong is in what the snapshot covers.
        let (damage, unreadable) =
            (std::mem::take(&mut ending.damage), std::mem::take(&mut ending.unreadable));
        *ending = scan::Ending { damage, unreadable, ..end };
    }
    let is_missing = ending.miss_end(segments.last().map(|last| &**last), reached)?;
    // Nothing is written into a segment of which it is not known where it ends.
    let unknown = segments.last().filter(|_| ending.may_go_on).map_or(0, |last| last.number());
    Ok(if is_missing { reached.position.segment.max(unknown) + 1 } else { 0 })
}

/// Folds in all frames behind where this stands.
fn fold(folded: &mut Folded, segments: &[Arc<Segment>], outstanding: usize) -> io::Result<scan::Ending> {
    let (from, next_offset) = (folded.position, folded.next_offset());
    let mut failed = None;
    let mut told = Instant::now();
    let total = segments.last().map_or(0, |last| last.number() + 1).saturating_sub(from.segment).max(1);
    let ending = scan::scan(segments, from, next_offset, &mut |found| {
        note(found);
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            let percent = (found.segment.number() - from.segment) * 100 / total;
            tracing::info!(percent, segment = found.segment.number(), "recovering the log");
        }
        if failed.is_none() {
            failed = folded.fold(found, outstanding).err();
        }
        Ok(())
    })?;
    failed.map_or(Ok(ending), Err)
}

/// Notes what a segment holds, for look-ups.
fn note(found: &scan::Found<'_>) {
    found.segment.advance(&found.header, found.at);
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
    if let Err(error) = segments[at].walk_headers(until.at) {
        // As damage there is: who needs it will say so.
        tracing::warn!(%error, "cannot read the log before the snapshot");
    }
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
    // What the snapshot covers is not recovery's to judge, damaged or not.
    let mut window = FileWindow::new(segment).around_unreadable();
    let (mut at, mut last_frame, mut closed) = (SEGMENT_HEADER_BYTES, 0, false);
    while let Some((start, header)) = window.frame(at, position.at, last_frame)? {
        let records = window.records(start, &header)?;
        closed = records.is_some_and(|records| {
            records.last().is_some_and(|last| last.kind == format::RecordType::Close as u8)
        });
        (at, last_frame) = (start + header.span(), header.frame);
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

/// What there is to go on from when the log was not closed, or is damaged.
struct Again<'a> {
    disk: &'a dyn Disk,
    layout: &'a Layout,
    identity: &'a Identity,
    segments: &'a [Arc<Segment>],
    spares: &'a Spares,
    ending: &'a scan::Ending,
}

impl Again<'_> {
    /// Writes the last whole frame again, to a place of its own, and what recovery has to say, and syncs.
    fn begin(&self, (last_frame, above): (u64, u64), gaps: &[LogRecord]) -> Result<Begun, OpenError> {
        let io = |source| OpenError::Io { path: self.layout.dir.clone(), source };
        let copy = self.copy_of(last_frame)?;
        let first_frame = copy.as_ref().map_or(last_frame + 1, |(header, _)| header.frame);
        let first_offset = copy.as_ref().map_or(self.ending.next_offset, |(header, _)| header.first_offset);
        let last = self.segments.last();
        let last_bytes = last.map_or(Ok(0), |last| last.file.len()).map_err(io)?;
        let empty = last.filter(|last| {
            last.extent().last_frame.is_none()
                && last.header.first_frame == first_frame
                && last_bytes >= last.header.file_bytes
                && last.number() >= above
        });
        let (segment, reused) = match empty {
            Some(segment) => (Arc::clone(segment), true),
            None => {
                // Above those that are missing, too.
                let number = last.map_or(1, |last| last.number() + 1).max(above);
                let store = self.identity.id()?;
                let header =
                    SegmentHeader { store, segment: number, first_frame, first_offset, file_bytes: 0 };
                (Arc::new(new_segment(self.spares, header).map_err(io)?), false)
            }
        };
        let (mut at, mut next_frame) = (SEGMENT_HEADER_BYTES, first_frame);
        let is_repeated = copy.is_some();
        let gaps = if gaps.is_empty() { None } else { Some(self.frame_of(last_frame + 1, gaps)?) };
        for (header, bytes) in copy.into_iter().chain(gaps) {
            // One frame at a time: with two unsynced ones a power cut could leave the later and look like damage.
            let header = write(&segment, at, header, bytes).map_err(io)?;
            at += header.span();
            next_frame = header.frame + 1;
        }
        self.disk.sync_dir(&self.layout.log()).map_err(io)?;
        if !reused && let Some(last) = last {
            // What follows the last whole frame is the torn tail, kept elsewhere by now, or space never used.
            let end = last.extent().end;
            // Unless it is not known, or was on disk once and has been given up: then it stays there, and the last whole
            // frame is not written again.
            let is_given_up = !is_repeated && last.has_given_up(&(last_bytes.saturating_sub(1)..last_bytes));
            if last_bytes > end && !self.ending.may_go_on && !is_given_up {
                last.file.truncate(end).map_err(io)?;
            }
            last.file.sync().map_err(io)?;
        }
        Ok(Begun { segment, next_frame, reused })
    }

    /// The last frame, if that is not known to be on disk: one that something was written behind is.
    fn copy_of(&self, last_frame: u64) -> Result<Option<(FrameHeader, Vec<u8>)>, OpenError> {
        let Some((number, at, header)) = &self.ending.last else { return Ok(None) };
        if header.frame != last_frame {
            return Ok(None);
        }
        let holder = self.segments.iter().find(|segment| segment.number() == *number);
        let holder = holder.ok_or_else(|| OpenError::NotAStore(self.layout.dir.clone()))?;
        let mut bytes = vec![0; FRAME_HEADER_BYTES + header.body_bytes as usize];
        let io = |source| OpenError::Io { path: self.layout.dir.clone(), source };
        holder.read_at(&mut bytes, *at).map_err(io)?;
        Ok(Some((*header, bytes)))
    }

    fn frame_of(&self, frame: u64, gaps: &[LogRecord]) -> Result<(FrameHeader, Vec<u8>), OpenError> {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        gaps.iter().for_each(|gap| gap.append_to(&mut bytes));
        let header = FrameHeader {
            segment: 0,
            frame,
            first_offset: self.ending.next_offset,
            written_at_ms: clock::wall_ms(),
            body_bytes: 0,
            records: gaps.len() as u32,
            events: 0,
            store: self.identity.id()? as u64,
            checksum: 0,
        };
        Ok((header, bytes))
    }
}

/// Writes a frame as one of this segment, and syncs it.
fn write(segment: &Segment, at: u64, mut header: FrameHeader, mut bytes: Vec<u8>) -> io::Result<FrameHeader> {
    header.segment = segment.number();
    let header = format::seal(&mut bytes, header);
    segment.file.write_at(&bytes, at)?;
    segment.file.sync()?;
    segment.advance(&header, at);
    Ok(header)
}

fn new_segment(spares: &Spares, header: SegmentHeader) -> io::Result<Segment> {
    if spares.count() == 0 {
        spares.make(&|| false)?;
    }
    spares.take(header, 0)?.ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))
}
