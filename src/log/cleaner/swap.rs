//! Putting a cleaned segment in the place of those it was made of, so that a crash at any moment leaves the one or the other
//! (Kafka's `LocalLog.replaceSegments`), and finishing that at the next start (`LogLoader`):
//!
//! ```text
//! .cleaned files, synced         a crash here: they are removed, nothing has happened
//! .cleaned -> .swap, synced      a crash from here on: the old segments go, .swap gets its name
//! old segments -> .deleted
//! .swap -> no suffix, synced
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tracing::info;

use super::cleaning::{CleanedGroup, Cleaning};
use super::output::{CLEANED, SEGMENT_KINDS, suffixed};
use super::plan::SourceSegment;
use crate::log::Log;
use crate::log::batch_io::BatchScanner;
use crate::log::checkpoint::sync_dir;
use crate::log::disk;
use crate::log::error::StorageError;
use crate::log::paths::{LOG, SNAPSHOT, parse_file_name, segment_file};
use crate::log::segment::{ClosedSegment, SEARCH_CHUNK};
use crate::types::Offset;

/// Suffix of a segment that is about to replace others.
const SWAP: &str = "swap";

impl Log {
    /// Puts a cleaned segment in the place of its sources. False if they are not all there any more: the attempt is
    /// discarded. Follow it with [`Cleaning::sync_replaced`], which needs no lock.
    pub fn replace_segments(
        &mut self,
        cleaning: &Cleaning,
        group: CleanedGroup,
    ) -> Result<bool, StorageError> {
        let CleanedGroup { segment, sources } = group;
        let Some(at) = self.place_of(&sources).filter(|_| self.began(cleaning)) else {
            let path = self.path.clone();
            return match segment.discard() {
                // The directory was renamed: the topic is deleted.
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(self.io_error("discard cleaned segment in", &path, e))
                }
                _ => Ok(false),
            };
        };
        let base_offset = segment.base_offset;
        self.rename_suffix(base_offset, CLEANED, SWAP)?;
        sync_dir(&self.path).map_err(|e| self.dir.fail(e))?;
        self.readers.clear();
        for source in &sources {
            for kind in SEGMENT_KINDS {
                self.delete_file(source.base_offset, kind)?;
            }
            self.txn_indexes.set_count(source.base_offset, 0);
            if source.base_offset != base_offset {
                self.delete_file(source.base_offset, SNAPSHOT)?;
                self.snapshots
                    .retain(|offset| *offset != source.base_offset);
            }
        }
        self.rename_suffix(base_offset, SWAP, "")?;
        self.note_txn_index(base_offset)?;
        let replaced: u64 = sources.iter().map(|s| s.size).sum();
        self.closed_bytes = self.closed_bytes - replaced + segment.size;
        let closed = ClosedSegment::with_largest(base_offset, segment.size, segment.largest());
        self.closed
            .splice(at..at + sources.len(), [Arc::new(closed)]);
        Ok(true)
    }

    /// Whether the log is still the one that a cleaning of this generation began with: open, and not truncated since.
    pub fn is_generation(&self, generation: u64) -> bool {
        !self.is_closed && self.truncations == generation
    }

    /// Whether the cleaning is of this log: a partition may have got another one, in another directory.
    fn began(&self, cleaning: &Cleaning) -> bool {
        self.is_generation(cleaning.generation()) && self.path == cleaning.path
    }

    /// A cleaning could not read or write a file. That takes the directory offline, unless the log changed meanwhile: then the
    /// files are rightly gone.
    pub fn fail_cleaning(&self, error: io::Error) {
        let is_gone = error.kind() == io::ErrorKind::NotFound && !self.path.is_dir();
        if !self.is_closed && !is_gone {
            self.io_error("clean log in", &self.path, error);
        }
    }

    fn place_of(&self, sources: &[SourceSegment]) -> Option<usize> {
        let first = sources.first()?.base_offset;
        let at = self.closed.iter().position(|s| s.base_offset == first)?;
        let here = self.closed.get(at..at + sources.len())?;
        let same = |(closed, source): (&Arc<ClosedSegment>, &SourceSegment)| {
            (closed.base_offset, closed.size) == (source.base_offset, source.size)
        };
        here.iter().zip(sources).all(same).then_some(at)
    }

    fn rename_suffix(&self, base_offset: Offset, from: &str, to: &str) -> Result<(), StorageError> {
        for kind in SEGMENT_KINDS {
            let source = suffixed(&self.path, base_offset, kind, from);
            let target = match to {
                "" => segment_file(&self.path, base_offset, kind),
                to => suffixed(&self.path, base_offset, kind, to),
            };
            match disk::rename(&source, &target) {
                // Only the log is always there.
                Err(e) if kind == LOG || e.kind() != io::ErrorKind::NotFound => {
                    return Err(self.io_error("rename", &source, e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes that the log is clean up to where the cleaning got. False if it lost segments meanwhile.
    pub fn finish_cleaning(&mut self, cleaning: &Cleaning) -> bool {
        let (_, end) = cleaning.dirty_section();
        let finished = self.began(cleaning);
        if finished {
            self.cleaner_checkpoint = Some(end);
        }
        finished
    }
}

/// Finishes what an interrupted replacement left, or takes it back. For a log that is not open yet.
pub fn finish_swaps(dir: &Path) -> Result<(), StorageError> {
    let swaps = remove_unfinished(dir)?;
    if swaps.is_empty() {
        return Ok(());
    }
    let mut from = Offset::MAX;
    let mut to = Offset::MIN;
    for (base_offset, kinds) in &swaps {
        if kinds.iter().any(|kind| kind == LOG) {
            from = from.min(*base_offset);
            let path = suffixed(dir, *base_offset, LOG, SWAP);
            let end = next_offset_of(&path, *base_offset)
                .map_err(|e| StorageError::io("read", &path, e))?;
            to = to.max(end);
        }
    }
    info!(dir = %dir.display(), from, to, "finishing an interrupted replacement of segments");
    for (offset, kind) in files(dir)? {
        if !kind.ends_with(SWAP) && (from..to).contains(&offset) {
            remove(&segment_file(dir, offset, &kind))?;
        }
    }
    for (base_offset, kinds) in swaps {
        for kind in kinds {
            let source = suffixed(dir, base_offset, &kind, SWAP);
            disk::rename(&source, &segment_file(dir, base_offset, &kind))
                .map_err(|e| StorageError::io("rename", &source, e))?;
        }
    }
    sync_dir(dir)
}

/// Removes `.cleaned` and `.deleted` files, and `.swap` files of a replacement that did not get to its point of no return: those
/// at or behind the lowest `.cleaned` (KAFKA-6264). Returns the other `.swap` files, by base offset.
fn remove_unfinished(dir: &Path) -> Result<BTreeMap<Offset, Vec<String>>, StorageError> {
    let found = files(dir)?;
    let is_cleaned = |kind: &str| kind.ends_with(CLEANED);
    let lowest = found
        .iter()
        .filter(|(_, kind)| is_cleaned(kind))
        .map(|(offset, _)| *offset)
        .min()
        .unwrap_or(Offset::MAX);
    let mut swaps: BTreeMap<Offset, Vec<String>> = BTreeMap::new();
    for (offset, kind) in found {
        match kind.strip_suffix(".swap") {
            Some(base) if offset < lowest => swaps.entry(offset).or_default().push(base.to_owned()),
            None if !is_cleaned(&kind) && !kind.ends_with(".deleted") => {}
            _ => remove(&segment_file(dir, offset, &kind))?,
        }
    }
    Ok(swaps)
}

/// Offsets and suffixes of the files that belong to segments.
fn files(dir: &Path) -> Result<Vec<(Offset, String)>, StorageError> {
    let failed = |e| StorageError::io("list", dir, e);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some((offset, kind)) = name.to_str().and_then(parse_file_name) {
            found.push((offset, kind.to_owned()));
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> Result<(), StorageError> {
    match disk::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StorageError::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Behind the last batch of a segment file.
fn next_offset_of(path: &Path, base_offset: Offset) -> io::Result<Offset> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut scanner = BatchScanner::new(&file, 0, size, SEARCH_CHUNK);
    let mut next_offset = base_offset;
    while let Some(batch) = scanner.next_header()? {
        next_offset = batch.header.next_offset();
    }
    Ok(next_offset)
}
