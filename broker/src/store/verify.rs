//! Looking at a store without changing it, and accepting a loss.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Offset;
use super::disk::{Disk, ReadOnlyDisk, RealDisk};
use super::format::SEGMENT_HEADER_BYTES;
use super::letters::Letters;
use super::open::{self, Identity, LogFiles, OpenError, Options};
use super::scan::{self, Damage, Position};
use super::segment::Layout;
use super::snapshot;

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
    pub damage: Vec<Damage>,
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
    let (letters, broken) = Letters::new(Arc::clone(disk), layout.clone(), identity.id()?)
        .verify()
        .map_err(|source| OpenError::Io { path: dir.to_path_buf(), source })?;
    let Some(first) = files.segments.first() else { return Ok(VerifyReport::default()) };
    let start = Position {
        segment: first.number(),
        at: SEGMENT_HEADER_BYTES,
        frame: first.header.first_frame.saturating_sub(1),
    };
    let total = files.segments.len() as u64;
    let (mut gaps, mut bytes) = (Vec::new(), 0);
    let io = |source| OpenError::Io { path: dir.to_path_buf(), source };
    let ending = scan::scan(&files.segments, start, first.header.first_offset, &mut |found| {
        bytes += found.header.span();
        progress((found.segment.number() - start.segment) * 100 / total);
        for raw in found.records.iter().filter(|_| !found.is_repeated) {
            if let Ok(Some(super::LogRecord::Gap(gap))) = super::LogRecord::decode(raw, Offset(0)) {
                gaps.push(gap);
            }
        }
        Ok(())
    })
    .map_err(io)?;
    let mut damage = ending.damage;
    damage.extend(files.damage);
    damage.retain(|part| !gaps.iter().any(|gap| part.is_within(gap)));
    let has_base =
        snapshot::base(&**disk, &layout, None, &files.segments, &identity, false).map_err(io)?.is_some();
    if damage.is_empty() && !has_base {
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
        damage,
    })
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
