//! Opening a log: a new directory, a clean one, or recovery after an unclean stop (Kafka's `LogLoader`).
//!
//! Recovery reads every segment from the one with the recovery point on (`recovery.rs`), checks each batch, cuts the file at the first that
//! is torn, drops the segments behind, and builds indexes, leader epochs and producer state anew. A bad batch below the
//! recovery point is no torn tail but damage: the log does not open, so that nobody mistakes what is left for the whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::append::parse_end_txn_marker;
use super::batch_io::BatchScanner;
use super::checkpoint::{
    LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA, format_partition_metadata,
    parse_partition_metadata, read_file, replace_file,
};
use super::cleaner::finish_swaps;
use super::error::StorageError;
use super::index::{Indexes, position_in_file};
use super::paths::{INDEX, LOG, SNAPSHOT, TIME_INDEX, TXN_INDEX, parse_file_name, segment_file};
use super::producer_snapshot;
use super::producer_state::{ProducerState, is_expired};
use super::reader::Readers;
use super::recovery::Progress;
use super::segment::{ActiveSegment, ClosedSegment};
use super::txn_index::{self, TxnIndexes};
use super::unified::{Log, write_index_files};
use super::{AbortedTxn, LeaderEpochCache, LogDir, OpenParams, disk};
use crate::config::TopicConfig;
use crate::types::{CLUSTER_METADATA_TOPIC, Offset, TimestampMs, TopicPartition, Uuid};

/// Read-ahead of walks over headers.
const REPLAY_CHUNK: usize = 16 << 10;

pub(super) fn load(params: OpenParams) -> Result<Log, StorageError> {
    let name = params.topic_partition.to_string();
    load_named(params, &name)
}

/// As [`load`], in a directory of another name.
pub(super) fn load_named(params: OpenParams, name: &str) -> Result<Log, StorageError> {
    let path = params.dir.path().join(name);
    match disk::create_dir(&path) {
        Ok(()) => create(params, &path),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => load_existing(params, &path),
        Err(e) => Err(params.dir.fail(StorageError::io("create", &path, e))),
    }
}

fn create(params: OpenParams, path: &Path) -> Result<Log, StorageError> {
    params.dir.before_create(&params.topic_partition)?;
    if let Some(id) = params.topic_id {
        let text = format_partition_metadata(id);
        replace_file(path, PARTITION_METADATA, text.as_bytes(), false)
            .map_err(|e| params.dir.fail(e))?;
    }
    let active = ActiveSegment::create(path, 0, params.now_ms, &params.config)
        .map_err(|e| params.dir.fail(StorageError::io("create log in", path, e)))?;
    let mut log = assemble(params, path, Vec::new(), active);
    log.dir_dirty = true;
    log.parent_dirty = true;
    log.cleaner_checkpoint = None;
    Ok(log)
}

fn assemble(
    params: OpenParams,
    path: &Path,
    closed: Vec<Arc<ClosedSegment>>,
    active: ActiveSegment,
) -> Log {
    let cleaner_checkpoint = params.dir.cleaner_checkpoint(&params.topic_partition);
    Log {
        dir: params.dir,
        path: path.to_owned(),
        topic_partition: params.topic_partition,
        topic_id: params.topic_id,
        config: params.config,
        producer_id_expiration_ms: params.producer_id_expiration_ms,
        log_start_offset: closed.first().map_or(active.base_offset, |s| s.base_offset),
        next_offset: active.base_offset,
        recovery_point: active.base_offset,
        readers: Readers::default(),
        closed_bytes: closed.iter().map(|s| s.size).sum(),
        closed,
        active,
        leader_epochs: LeaderEpochCache::default(),
        producers: ProducerState::default(),
        txn_indexes: TxnIndexes::default(),
        snapshots: Vec::new(),
        last_snapshot_offset: 0,
        deleted: Vec::new(),
        dir_dirty: false,
        parent_dirty: false,
        rolled: false,
        unflushed_bytes: 0,
        truncations: 0,
        now_ms: params.now_ms,
        is_closed: false,
        cleaner_checkpoint,
    }
}

/// What a partition's directory holds.
#[derive(Default)]
struct Listing {
    /// Base offset and size, growing.
    segments: Vec<(Offset, u64)>,
    /// Base offsets and kinds of the index files, growing.
    indexes: Vec<(Offset, &'static str)>,
    snapshots: Vec<Offset>,
}

impl Listing {
    /// Whether a segment has both indexes.
    fn is_indexed(&self, base: Offset) -> bool {
        let has = |kind| self.indexes.binary_search(&(base, kind)).is_ok();
        has(INDEX) && has(TIME_INDEX)
    }

    /// Base offsets that have a transaction index.
    fn txn_indexed(&self) -> Vec<Offset> {
        let of_transactions = self.indexes.iter().filter(|(_, kind)| *kind == TXN_INDEX);
        of_transactions.map(|(base, _)| *base).collect()
    }

    /// Index files without a log mean nothing (Kafka's `LogLoader` removes them, too).
    fn remove_orphans(&mut self, path: &Path) -> Result<(), StorageError> {
        let segments = &self.segments;
        let has_log = |(base, _): &(Offset, _)| {
            let found = segments.binary_search_by_key(base, |(base, _)| *base);
            found.is_ok()
        };
        for (base, kind) in self.indexes.extract_if(.., |index| !has_log(index)) {
            let path = segment_file(path, base, kind);
            disk::remove_file(&path).map_err(|e| StorageError::io("remove", &path, e))?;
            warn!(path = %path.display(), "removed an orphaned index file: it has no log file");
        }
        Ok(())
    }
}

/// Lists the directory.
fn list(params: &OpenParams, path: &Path) -> Result<Listing, StorageError> {
    let failed = |e| StorageError::io("list", path, e);
    let mut listing = Listing::default();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        match parse_file_name(name) {
            Some((offset, LOG)) => {
                let size = entry.metadata().map_err(failed)?.len();
                listing.segments.push((offset, size));
            }
            Some((offset, INDEX)) => listing.indexes.push((offset, INDEX)),
            Some((offset, TIME_INDEX)) => listing.indexes.push((offset, TIME_INDEX)),
            Some((offset, TXN_INDEX)) => listing.indexes.push((offset, TXN_INDEX)),
            Some((offset, SNAPSHOT)) => listing.snapshots.push(offset),
            // What else is beside the metadata log is the quorum's.
            _ if is_own_file(name) || &*params.topic_partition.topic == CLUSTER_METADATA_TOPIC => {}
            _ => params.dir.warn_of_unknown(&entry.path()),
        }
    }
    listing.segments.sort_unstable();
    listing.indexes.sort_unstable();
    listing.snapshots.sort_unstable();
    listing.remove_orphans(path)?;
    Ok(listing)
}

/// The files of a log that are no segment's, and what a write that was cut short leaves of a file.
fn is_own_file(name: &str) -> bool {
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    let is_index =
        parse_file_name(name).is_some_and(|(_, kind)| [INDEX, TIME_INDEX].contains(&kind));
    is_index || [LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA].contains(&name)
}

fn load_existing(mut params: OpenParams, path: &Path) -> Result<Log, StorageError> {
    let dir = params.dir.clone();
    finish_swaps(path)?;
    let mut listing = list(&params, path)?;
    let wanted = params.topic_id.take();
    params.topic_id = read_topic_id(path)?;
    if let (Some(wanted), Some(found)) = (wanted, params.topic_id)
        && wanted != found
    {
        return Err(StorageError::OtherTopic {
            path: path.to_owned(),
        });
    }
    let clean = dir.had_clean_shutdown();
    let recovery_point = dir.recovery_point(&params.topic_partition);
    let checkpointed_start = dir.log_start_offset(&params.topic_partition);
    let now_ms = params.now_ms;
    let epochs = LeaderEpochCache::load(path)?;
    let epochs_lost = epochs.is_none();
    if epochs_lost {
        warn!(path = %path.display(), "leader-epoch-checkpoint is damaged, recovering all segments to find the epochs");
    }
    let mut loader = Loader {
        dir: dir.clone(),
        topic_partition: params.topic_partition.clone(),
        path,
        config: params.config.clone(),
        recovery_point,
        epochs: epochs.unwrap_or_default(),
        epochs_changed: false,
        recovered: Vec::new(),
    };
    let segments = &listing.segments;
    let (closed, active, next_offset, dropped) = if let Some((last, _)) = segments.last() {
        let floor = segments.partition_point(|(base, _)| *base <= recovery_point);
        let first_unflushed = match (epochs_lost, clean) {
            (true, _) => 0,
            (false, true) => segments.len(),
            (false, false) => floor.max(1) - 1,
        };
        let end = LoadedEnd {
            active: ActiveSegment::new(*last, 0, now_ms, &params.config),
            next_offset: *last,
        };
        loader.load_segments(&listing, first_unflushed, end)?
    } else {
        let active = ActiveSegment::create(path, checkpointed_start, now_ms, &params.config)
            .map_err(|e| StorageError::io("create log in", path, e))?;
        (Vec::new(), active, checkpointed_start, Vec::new())
    };
    let mut log = assemble(params, path, closed, active);
    log.next_offset = next_offset;
    // A process that was killed may have left names that no sync has covered.
    log.dir_dirty = !clean;
    log.parent_dirty = !clean;
    log.leader_epochs = loader.epochs;
    log.recovery_point = if clean {
        next_offset
    } else {
        recovery_point.min(next_offset)
    };
    log.snapshots = std::mem::take(&mut listing.snapshots);
    for base_offset in dropped {
        log.delete_segment_files(base_offset)?;
    }
    if next_offset < checkpointed_start {
        warn!(tp = %log.topic_partition, next_offset, checkpointed_start, "log ends before its start offset, deleting its segments");
        log.truncate_fully_and_start_at(checkpointed_start)?;
    }
    log.log_start_offset = log.log_start_offset.max(checkpointed_start);
    // After a clean stop an epoch may begin at the end: its leader appended nothing. To drop it here and assign it again
    // when leading would write the file of every idle partition twice at each start.
    let epochs_end = log.next_offset + i64::from(clean);
    let cut = log.leader_epochs.truncate_from_end(epochs_end);
    if log.leader_epochs.truncate_from_start(log.log_start_offset) || cut || loader.epochs_changed {
        log.store_epochs(false)?;
    }
    log.remove_stray_snapshots()?;
    let reindex = log.load_txn_indexes(&listing.txn_indexed(), &loader.recovered)?;
    log.rebuild_producers(clean, &reindex)?;
    if let Some(id) = wanted {
        log.set_topic_id(id)?;
    }
    Ok(log)
}

/// `None` where nobody has written it, or where it cannot be read: then it is written anew, once the topic's id is known.
fn read_topic_id(path: &Path) -> Result<Option<Uuid>, StorageError> {
    let path = path.join(PARTITION_METADATA);
    let text = read_file(&path)?;
    let found = text.as_deref().and_then(parse_partition_metadata);
    if text.is_some() && found.is_none() {
        warn!(path = %path.display(), "damaged, writing it anew with the id that the topic has now");
    }
    Ok(found)
}

pub(super) struct Loader<'a> {
    pub(super) dir: Arc<LogDir>,
    topic_partition: TopicPartition,
    pub(super) path: &'a Path,
    pub(super) config: Arc<TopicConfig>,
    pub(super) recovery_point: Offset,
    pub(super) epochs: LeaderEpochCache,
    pub(super) epochs_changed: bool,
    /// Base offsets of the segments that were recovered, and whether they hold transactional batches.
    recovered: Vec<(Offset, bool)>,
}

/// The last segment so far and where the log ends.
struct LoadedEnd {
    active: ActiveSegment,
    next_offset: Offset,
}

/// Closed segments, the active one, the log's end, and base offsets of segments to drop.
type Loaded = (Vec<Arc<ClosedSegment>>, ActiveSegment, Offset, Vec<Offset>);

impl Loader<'_> {
    fn load_segments(
        &mut self,
        listing: &Listing,
        first_unflushed: usize,
        mut end: LoadedEnd,
    ) -> Result<Loaded, StorageError> {
        let segments = &listing.segments;
        let mut closed = Vec::with_capacity(segments.len() - 1);
        let (dir, tp) = (self.dir.clone(), self.topic_partition.clone());
        let mut progress = Progress::new(
            &dir,
            &tp,
            segments[first_unflushed..]
                .iter()
                .filter(|(_, size)| *size > 0)
                .count(),
        );
        for (at, (base, size)) in segments.iter().copied().enumerate() {
            let is_last = at + 1 == segments.len();
            let mut segment = ActiveSegment::new(base, size, 0, &self.config);
            let mut torn = false;
            let next_offset = if size == 0 {
                // Nothing to recover, whatever old index files say.
                if at >= first_unflushed {
                    let next_base = segments.get(at + 1).map(|(base, _)| *base);
                    torn = self.ends_early(base, base, next_base)?;
                }
                Some(base)
            } else if at < first_unflushed {
                self.end_of_flushed(base, size, is_last, listing.is_indexed(base))?
            } else {
                None
            };
            let next_offset = if let Some(next_offset) = next_offset {
                next_offset
            } else {
                let recovered = self.recover(base, size);
                progress.segment_done(base);
                let recovered = recovered?;
                self.recovered.push((base, recovered.transactional));
                segment = ActiveSegment::new(base, recovered.size, 0, &self.config);
                segment.set_indexes(recovered.indexes);
                write_index_files(self.path, &mut segment)
                    .map_err(|e| StorageError::io("index segment in", self.path, e))?;
                let next_base = segments.get(at + 1).map(|(base, _)| *base);
                // What is behind the last batch is not of this log where the next segment goes on there: zeros that a roll
                // had cut off, mostly.
                torn = recovered.torn && next_base != Some(recovered.next_offset)
                    || self.ends_early(base, recovered.next_offset, next_base)?;
                recovered.next_offset
            };
            if is_last || torn {
                end.next_offset = next_offset;
                end.active.base_offset = base;
                end.active.size = segment.size;
                if segment.size == 0 {
                    end.active.set_indexes(Indexes::new(base));
                    end.active.indexes_dirty = !listing.is_indexed(base) || at >= first_unflushed;
                }
                let dropped = segments[at + 1..].iter().map(|(base, _)| *base).collect();
                return Ok((closed, end.active, end.next_offset, dropped));
            }
            closed.push(Arc::new(segment.into_closed()));
        }
        unreachable!("the loop returns at the last segment");
    }

    /// Whether a segment lost its end at a batch boundary, which only the next segment's name tells. What was written behind
    /// the hole cannot be kept.
    fn ends_early(
        &self,
        base: Offset,
        next_offset: Offset,
        next_base: Option<Offset>,
    ) -> Result<bool, StorageError> {
        // Compaction leaves offsets out between segments; without it a hole means that the end of a segment was lost.
        let holes = self.config.cleanup_policy.compact;
        let Some(next_base) = next_base.filter(|next| !holes && next_offset < *next) else {
            return Ok(false);
        };
        let path = segment_file(self.path, base, LOG);
        if next_offset < self.recovery_point {
            return Err(self.damaged(path, next_offset));
        }
        warn!(path = %path.display(), next_offset, next_base, "segment ends early, dropping the segments behind it");
        Ok(true)
    }

    pub(super) fn damaged(&self, path: PathBuf, offset: Offset) -> StorageError {
        StorageError::Corrupt {
            path,
            offset,
            reason: format!("damaged below the recovery point {}", self.recovery_point),
        }
    }

    pub(super) fn open(&self, base: Offset) -> Result<File, StorageError> {
        let path = segment_file(self.path, base, LOG);
        disk::open(&path).map_err(|e| StorageError::io("open", &path, e))
    }

    /// Where a segment ends that needs no recovery (of a closed one the next one tells). `None`, and why is said, where it has
    /// to be recovered all the same.
    fn end_of_flushed(
        &self,
        base: Offset,
        size: u64,
        is_last: bool,
        is_indexed: bool,
    ) -> Result<Option<Offset>, StorageError> {
        let why = if !is_indexed {
            "lacks an index file"
        } else if !is_last {
            return Ok(Some(base));
        } else if let Some(end) = self.end_of(base, size)? {
            return Ok(Some(end));
        } else {
            "does not end with a whole batch where its index leads"
        };
        let path = segment_file(self.path, base, LOG);
        warn!(path = %path.display(), "segment {why}, recovering it and rebuilding its index files");
        Ok(None)
    }

    /// Where a segment that was closed in order ends; `None` if it does not end with a whole batch after all.
    fn end_of(&self, base: Offset, size: u64) -> Result<Option<Offset>, StorageError> {
        if size == 0 {
            return Ok(Some(base));
        }
        let path = segment_file(self.path, base, LOG);
        let file = self.open(base)?;
        let read = || -> io::Result<Option<Offset>> {
            let from = position_in_file(&segment_file(self.path, base, INDEX), base, i64::MAX)?;
            let mut next_offset = None;
            let mut scanner = BatchScanner::new(&file, from, size, REPLAY_CHUNK);
            while let Some(batch) = scanner.next_header()? {
                if batch.header.base_offset < next_offset.unwrap_or(base) {
                    return Ok(None);
                }
                next_offset = Some(batch.header.next_offset());
            }
            Ok(next_offset.filter(|_| scanner.position() == size))
        };
        read().map_err(|e| StorageError::io("read", &path, e))
    }
}

impl Log {
    /// Keeps the snapshots that belong to segments, and the latest.
    fn remove_stray_snapshots(&mut self) -> Result<(), StorageError> {
        let bases: Vec<Offset> = self.closed.iter().map(|s| s.base_offset).collect();
        let latest = self.snapshots.last().copied();
        for offset in std::mem::take(&mut self.snapshots) {
            let kept = Some(offset) == latest
                || offset == self.active.base_offset
                || bases.binary_search(&offset).is_ok();
            if kept {
                self.snapshots.push(offset);
            } else {
                self.remove_snapshot(offset)?;
            }
        }
        Ok(())
    }

    fn remove_snapshot(&self, offset: Offset) -> Result<(), StorageError> {
        let path = segment_file(&self.path, offset, SNAPSHOT);
        match disk::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.io_error("remove", &path, e)),
            _ => Ok(()),
        }
    }

    /// Takes in the transaction indexes that are sound. Returns the base offsets of segments whose index must be built
    /// anew, growing: those that were recovered, and those with a torn or impossible entry.
    fn load_txn_indexes(
        &mut self,
        indexed: &[Offset],
        recovered: &[(Offset, bool)],
    ) -> Result<Vec<Offset>, StorageError> {
        let transactional = recovered.iter().filter(|(_, transactional)| *transactional);
        let mut reindex: Vec<Offset> = transactional.map(|(base, _)| *base).collect();
        for base in indexed.iter().copied() {
            let is_closed = self.closed.binary_search_by_key(&base, |s| s.base_offset);
            let is_active = base == self.active.base_offset && self.active.size > 0;
            if is_closed.is_err() && !is_active {
                self.delete_file(base, TXN_INDEX)?;
                continue;
            }
            let path = segment_file(&self.path, base, TXN_INDEX);
            let bytes = read_file(&path).map_err(|e| self.dir.fail(e))?;
            let bytes = bytes.unwrap_or_default();
            let entries = txn_index::decode(&bytes, base);
            if recovered.iter().any(|(recovered, _)| *recovered == base) {
                reindex.extend((!bytes.is_empty()).then_some(base));
            } else if let Some(entries) = entries {
                self.txn_indexes.set_count(base, entries.len() as u64);
            } else {
                warn!(path = %path.display(), "rebuilding a damaged transaction index");
                reindex.push(base);
            }
        }
        reindex.sort_unstable();
        reindex.dedup();
        Ok(reindex)
    }

    /// Sets the producer state to what it is at the log's end: the latest good snapshot, and the batches behind it. Builds
    /// the transaction indexes of the segments `reindex` on the way.
    pub(super) fn rebuild_producers(
        &mut self,
        clean: bool,
        reindex: &[Offset],
    ) -> Result<(), StorageError> {
        let (start, end) = (self.log_start_offset, self.next_offset);
        for offset in std::mem::take(&mut self.snapshots) {
            if offset > end || offset <= start {
                self.remove_snapshot(offset)?;
            } else {
                self.snapshots.push(offset);
            }
        }
        // After a clean stop a log without snapshot never had an idempotent producer.
        let from = self
            .load_snapshot(self.now_ms, reindex.first().copied())?
            .unwrap_or(if clean && reindex.is_empty() {
                end
            } else {
                start
            });
        self.last_snapshot_offset = self.snapshots.last().map_or(from, |last| from.max(*last));
        if from < end {
            self.replay_producers(from, reindex)?;
        }
        self.producers.map_end_offset = end;
        Ok(())
    }

    /// Loads the latest snapshot that is not damaged and not above `limit`, and returns its offset.
    fn load_snapshot(
        &mut self,
        now_ms: TimestampMs,
        limit: Option<Offset>,
    ) -> Result<Option<Offset>, StorageError> {
        self.producers.clear(self.log_start_offset);
        let usable = |offset: &Offset| limit.is_none_or(|limit| *offset <= limit);
        while let Some(at) = self.snapshots.iter().rposition(usable) {
            let offset = self.snapshots[at];
            let path = segment_file(&self.path, offset, SNAPSHOT);
            let bytes = read_file(&path).map_err(|e| self.dir.fail(e))?;
            if let Some(entries) = bytes.and_then(|bytes| producer_snapshot::decode(&bytes)) {
                for (id, entry) in entries {
                    if !is_expired(&entry, now_ms, self.producer_id_expiration_ms) {
                        self.producers.restore(id, entry);
                    }
                }
                return Ok(Some(offset));
            }
            warn!(path = %path.display(), "dropping a damaged producer snapshot");
            self.remove_snapshot(offset)?;
            self.snapshots.remove(at);
        }
        Ok(None)
    }

    fn replay_producers(&mut self, from: Offset, reindex: &[Offset]) -> Result<(), StorageError> {
        let mut segments: Vec<(Offset, u64)> = self
            .closed
            .iter()
            .map(|s| (s.base_offset, s.size))
            .collect();
        segments.push((self.active.base_offset, self.active.size));
        let first = segments.partition_point(|(base, _)| *base <= from);
        for (base, size) in segments.split_off(first.max(1) - 1) {
            if size == 0 {
                continue;
            }
            let path = segment_file(&self.path, base, LOG);
            let aborted = self
                .replay_segment(&path, size, from)
                .map_err(|e| self.io_error("read", &path, e))?;
            if reindex.contains(&base) {
                self.write_txn_index(base, &aborted)?;
            }
        }
        Ok(())
    }

    /// Replaces a segment's transaction index. Without entries none is made, as Kafka does.
    fn write_txn_index(
        &mut self,
        base: Offset,
        aborted: &[AbortedTxn],
    ) -> Result<(), StorageError> {
        let path = segment_file(&self.path, base, TXN_INDEX);
        if !aborted.is_empty() || path.exists() {
            disk::write_file(&path, &txn_index::encode(aborted))
                .map_err(|e| self.txn_index_error(base, e))?;
            self.dir_dirty = true;
        }
        self.txn_indexes.set_count(base, aborted.len() as u64);
        Ok(())
    }

    /// Takes in the producers' batches from `from` on. Returns the transactions aborted here.
    fn replay_segment(
        &mut self,
        path: &Path,
        size: u64,
        from: Offset,
    ) -> io::Result<Vec<AbortedTxn>> {
        let mut aborted = Vec::new();
        let file = File::open(path)?;
        let mut scanner = BatchScanner::new(&file, 0, size, REPLAY_CHUNK);
        while let Some(batch) = scanner.next_header()? {
            let header = batch.header;
            if !header.has_producer_id() || header.base_offset < from {
                continue;
            }
            if header.is_control() {
                let bytes = scanner.batch_bytes(&batch)?;
                if let Some(marker) = parse_end_txn_marker(&header, bytes) {
                    aborted.extend(self.producers.end_transaction(&header, marker));
                }
            } else {
                self.producers.update(&header);
            }
        }
        Ok(aborted)
    }
}
