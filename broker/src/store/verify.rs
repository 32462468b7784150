//! Looking at a store without changing it, and accepting a loss.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, ReadOnlyDisk, RealDisk};
use super::letters::Letters;
use super::open::{self, Identity, LogFiles, OpenError, Options};
use super::reached::Reached;
use super::scan::{self, Damage, Position};
use super::segment::{Layout, Segment};
use super::snapshot;
use super::{Gap, LogRecord, Offset};

/// What `store verify` found.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    pub segments: usize,
    pub frames: u64,
    pub events: u64,
    pub bytes: u64,
    pub first_offset: Offset,
    pub next_offset: Offset,
    pub closed: bool,
    /// Bytes of a tail that the last crash tore; the next start sets them aside.
    pub torn_bytes: usize,
    /// Copies of dead letters beside the log, and where some are not whole: file and byte.
    pub letters: u64,
    pub broken_letters: Vec<(u64, u64)>,
    /// Snapshots that are not whole.
    pub broken_snapshots: Vec<String>,
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    /// What is wrong besides damage of the log, a sentence each.
    #[must_use]
    pub fn other_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.broken_letters.is_empty() {
            let places =
                self.broken_letters.iter().map(|(file, at)| format!(" {file:012}.letters byte {at};"));
            problems.push(format!(
                "dead letters that outlived their segment are damaged:{} they are listed still and can be purged",
                places.collect::<String>()
            ));
        }
        for name in &self.broken_snapshots {
            problems
                .push(format!("snapshot {name} is not whole: the one before it and the log stand in for it"));
        }
        problems
    }
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{}: no such store", .0.display())]
    Absent(PathBuf),
}

/// Reads every frame and every record of a store. `progress` is told the share done, in percent.
pub fn verify(dir: &Path, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport, VerifyError> {
    verify_on(&(Arc::new(ReadOnlyDisk) as Arc<dyn Disk>), dir, progress)
}

pub fn verify_on(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<VerifyReport, VerifyError> {
    let layout = Layout { dir: dir.to_path_buf() };
    let absent = || VerifyError::Absent(dir.to_path_buf());
    let identity = Identity::load(&**disk, &layout)?.ok_or_else(absent)?;
    let _lock = open::lock(&**disk, &layout)?;
    let files = LogFiles::load(&**disk, &layout, identity.id()?)?;
    let broken_snapshots = snapshot::broken(&**disk, &layout)
        .map_err(|source| OpenError::Io { path: layout.snapshots(), source })?;
    let (letters, broken) = Letters::new(Arc::clone(disk), layout.clone(), identity.id()?)
        .verify()
        .map_err(|source| OpenError::Io { path: dir.to_path_buf(), source })?;
    let failed = |source| OpenError::Io { path: dir.to_path_buf(), source };
    let base = snapshot::base(&**disk, &layout, None, &files.segments, &identity, false).map_err(failed)?;
    let noted = Reached::load(&**disk, &layout, &identity).map_err(failed)?;
    let reached = base.as_ref().map(Reached::of).map_or(noted, |known| Some(known.or_further(noted)));
    let Some(first) = files.segments.first() else {
        let floor = base.map(|base| base.state.floor()).unwrap_or_default();
        let mut ending = scan::Ending::of_nothing(floor);
        reached.map_or(Ok(false), |reached| ending.miss_end(None, &reached)).map_err(failed)?;
        return Ok(VerifyReport {
            letters,
            broken_letters: broken,
            broken_snapshots,
            damage: ending.damage,
            ..VerifyReport::default()
        });
    };
    let (mut ending, gaps, bytes) = read_all(&files.segments, first, progress).map_err(failed)?;
    let last = files.segments.last().map(|last| &**last);
    reached.map_or(Ok(false), |reached| ending.miss_end(last, &reached)).map_err(failed)?;
    let mut damage = ending.all_damage();
    damage.extend(files.damage);
    damage.retain(|part| !gaps.iter().any(|gap| part.is_within(gap)));
    if damage.is_empty() && base.is_none() {
        return Err(OpenError::NoSnapshot { dir: layout.snapshots(), segment: first.path.clone() }.into());
    }
    Ok(VerifyReport {
        segments: files.segments.len(),
        frames: ending.frames,
        events: ending.events,
        bytes,
        first_offset: first.header.first_offset,
        next_offset: ending.next_offset,
        closed: ending.closed,
        torn_bytes: ending.torn.map_or(0, |(_, _, bytes)| bytes.len()),
        letters,
        broken_letters: broken,
        broken_snapshots,
        damage,
    })
}

/// Reads all there is: how it ends, the gaps that were accepted, and how many bytes the frames take.
fn read_all(
    segments: &[Arc<Segment>],
    first: &Segment,
    progress: &mut dyn FnMut(u64),
) -> io::Result<(scan::Ending, Vec<Gap>, u64)> {
    let start = Position::start_of(first);
    let total = segments.len() as u64;
    let (mut gaps, mut bytes) = (Vec::new(), 0);
    let ending = scan::scan(segments, start, first.header.first_offset, &mut |found| {
        bytes += found.header.span();
        progress((found.segment.number() - start.segment) * 100 / total);
        for raw in found.records.iter().filter(|_| !found.is_repeated) {
            if let Ok(Some(LogRecord::Gap(gap))) = LogRecord::decode(raw, Offset(0)) {
                gaps.push(gap);
            }
        }
        Ok(())
    })?;
    Ok((ending, gaps, bytes))
}

#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the log is not damaged")]
    Sound,
    #[error("the damage reaches from offset {} to {}, which is not within {}..{}", found.start, found.end.saturating_sub(1), accepted.start, accepted.end.saturating_sub(1))]
    Wider { found: Range<u64>, accepted: Range<u64> },
    #[error("the store did not close")]
    Unclosed,
}

/// Accepts that the events of a damaged range are lost: writes a gap, removes nothing.
pub fn repair(dir: &Path, accepted: Range<u64>) -> Result<VerifyReport, RepairError> {
    repair_on(Arc::new(RealDisk), dir, accepted)
}

pub fn repair_on(disk: Arc<dyn Disk>, dir: &Path, accepted: Range<u64>) -> Result<VerifyReport, RepairError> {
    let report = verify_on(&disk, dir, &mut |_| {})?;
    let first = report.damage.iter().map(|part| part.offsets.0.0).min().ok_or(RepairError::Sound)?;
    let last = report.damage.iter().map(|part| part.offsets.1.0).max().unwrap_or(first);
    if first < accepted.start || last > accepted.end {
        return Err(RepairError::Wider { found: first..last, accepted });
    }
    let opened = open::open_accepting(disk, &Options::bare(dir), &report.damage)?;
    drop(opened.tail);
    opened.log.stop();
    match opened.ended.blocking_recv() {
        Ok(Ok(())) => Ok(report),
        _ => Err(RepairError::Unclosed),
    }
}
