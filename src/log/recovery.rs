//! Recovery of one segment after an unclean stop: one thread walks the headers and builds the indexes, and the checksums are
//! worked out by whatever threads of `num.recovery.threads.per.data.dir` are idle. Called by `load.rs`; also keeps count of
//! what is left to do, for the log and the metrics.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

use super::batch_io::{BatchAt, BatchScanner};
use super::error::StorageError;
use super::index::{Indexes, TimestampOffset};
use super::load::Loader;
use super::paths::{LOG, segment_file};
use super::{LogDir, disk};
use crate::protocol::batch::{BatchHeader, check_crc};
use crate::types::{LeaderEpoch, NO_TIMESTAMP, Offset, TopicPartition};

/// Read-ahead of the walk over headers: small batches come many at a time, of large ones little is read in vain.
const WALK_CHUNK: usize = 64 << 10;
/// Read-ahead of the checksums, and about how much a thread takes at once.
const CHECK_CHUNK: usize = 1 << 20;
/// Ranges that wait for a thread.
const RANGES_MAX: usize = 64;

/// What the start still has to recover in one directory, and the threads that are free for it.
#[derive(Debug, Default)]
pub struct RecoveryState {
    /// `remainingLogsToRecover`
    pub remaining_logs: AtomicUsize,
    /// `remainingSegmentsToRecover`
    pub remaining_segments: AtomicUsize,
    /// Threads of `num.recovery.threads.per.data.dir` that have no log to open.
    pub(super) idle_threads: AtomicUsize,
}

impl RecoveryState {
    fn take_thread(&self) -> bool {
        let one_less = |idle: usize| idle.checked_sub(1);
        let taken = self
            .idle_threads
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        taken.is_ok()
    }
}

/// Says how far the recovery of one log is (Kafka's `LogLoader` has the same line).
pub(super) struct Progress<'a> {
    dir: &'a LogDir,
    topic_partition: &'a TopicPartition,
    done: usize,
    count: usize,
}

impl<'a> Progress<'a> {
    pub(super) fn new(dir: &'a LogDir, topic_partition: &'a TopicPartition, count: usize) -> Self {
        dir.recovery()
            .remaining_segments
            .fetch_add(count, Ordering::Relaxed);
        Self {
            dir,
            topic_partition,
            done: 0,
            count,
        }
    }

    pub(super) fn segment_done(&mut self, base_offset: Offset) {
        // A segment without an index is recovered, too, after a clean stop.
        if self.done == self.count {
            return;
        }
        self.done += 1;
        self.dir
            .recovery()
            .remaining_segments
            .fetch_sub(1, Ordering::Relaxed);
        if self.count > 1 {
            info!(tp = %self.topic_partition, "recovering unflushed segment {base_offset}, {}/{} recovered", self.done, self.count);
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        let left = self.count - self.done;
        self.dir
            .recovery()
            .remaining_segments
            .fetch_sub(left, Ordering::Relaxed);
    }
}

/// One segment after recovery.
pub(super) struct Recovered {
    pub size: u64,
    pub next_offset: Offset,
    pub indexes: Indexes,
    pub torn: bool,
    /// Some batch belongs to a transaction.
    pub transactional: bool,
}

impl Loader<'_> {
    /// Reads a whole segment and cuts off what is no sound batch (Kafka's `LogSegment.recover`).
    pub(super) fn recover(&mut self, base: Offset, size: u64) -> Result<Recovered, StorageError> {
        let path = segment_file(self.path, base, LOG);
        let file = self.open(base)?;
        let walk = self
            .read_segment(&file, base, size)
            .map_err(|e| StorageError::io("recover", &path, e))?;
        for (epoch, start_offset) in &walk.epochs {
            if self.epochs.latest_epoch() < Some(*epoch) {
                self.epochs_changed |= self.epochs.assign(*epoch, *start_offset);
            }
        }
        let torn = walk.valid < size;
        if torn {
            self.cut(&file, &path, &walk, size)?;
        }
        Ok(Recovered {
            size: walk.valid,
            next_offset: walk.next_offset,
            indexes: walk.indexes,
            torn,
            transactional: walk.transactional,
        })
    }

    fn cut(&self, file: &File, path: &Path, walk: &Walk, size: u64) -> Result<(), StorageError> {
        let (valid, next_offset) = (walk.valid, walk.next_offset);
        if next_offset < self.recovery_point {
            return Err(self.damaged(path.to_owned(), next_offset));
        }
        warn!(path = %path.display(), valid, size, next_offset, "cutting off the torn end of a segment");
        disk::set_len(file, valid)
            .and_then(|()| disk::sync_data(file))
            .map_err(|e| StorageError::io("recover", path, e))
    }

    fn read_segment(&self, file: &File, base: Offset, size: u64) -> io::Result<Walk> {
        let checks = Checks::new(file);
        let interval = u64::try_from(self.config.index_interval_bytes).unwrap_or(0);
        let state = self.dir.recovery();
        let walk = std::thread::scope(|scope| {
            let mut helpers = 0;
            while size > CHECK_CHUNK as u64 && state.take_thread() {
                scope.spawn(|| checks.work(true));
                helpers += 1;
            }
            let walk = Walk::run(file, base, size, interval, Some(&checks));
            checks.close();
            checks.work(false);
            (walk, helpers)
        });
        let (walk, helpers) = walk;
        state.idle_threads.fetch_add(helpers, Ordering::Relaxed);
        let walk = walk?;
        match checks.first_bad()? {
            // All before it is sound: once more, up to there.
            Some(bad) if bad < walk.valid => Walk::run(file, base, bad, interval, None),
            _ => Ok(walk),
        }
    }
}

/// Indexes of a segment by its batch headers, checksums apart, and how many of its bytes are whole batches that follow each other.
pub(super) fn walk_segment(
    log: &File,
    base: Offset,
    size: u64,
    index_interval: u64,
) -> io::Result<(Indexes, u64)> {
    let walk = Walk::run(log, base, size, index_interval, None)?;
    Ok((walk.indexes, walk.valid))
}

/// What the headers of a segment tell, up to the first that cannot follow the one before it.
struct Walk {
    valid: u64,
    next_offset: Offset,
    indexes: Indexes,
    largest: TimestampOffset,
    last_entry: u64,
    /// Leader epochs where they begin.
    epochs: Vec<(LeaderEpoch, Offset)>,
    transactional: bool,
}

impl Walk {
    fn run(
        file: &File,
        base: Offset,
        size: u64,
        index_interval: u64,
        checks: Option<&Checks<'_>>,
    ) -> io::Result<Self> {
        let mut walk = Self {
            valid: 0,
            next_offset: base,
            indexes: Indexes::new(base),
            largest: TimestampOffset {
                timestamp: NO_TIMESTAMP,
                offset: base,
            },
            last_entry: 0,
            epochs: Vec::new(),
            transactional: false,
        };
        let mut unchecked_from = 0;
        let mut scanner = BatchScanner::new(file, 0, size, WALK_CHUNK);
        while let Some(batch) = scanner.next_header()? {
            let header = &batch.header;
            let follows = header.last_offset_delta >= 0
                && header.base_offset >= walk.next_offset
                && header.last_offset().saturating_sub(base) <= i64::from(i32::MAX);
            if !follows {
                break;
            }
            walk.take(header, index_interval, &batch);
            if let Some(checks) = checks
                && walk.valid - unchecked_from >= CHECK_CHUNK as u64
            {
                checks.push(unchecked_from, walk.valid);
                unchecked_from = walk.valid;
            }
        }
        if let Some(checks) = checks {
            checks.push(unchecked_from, walk.valid);
        }
        walk.indexes.maybe_append_time(walk.largest);
        Ok(walk)
    }

    fn take(&mut self, header: &BatchHeader, index_interval: u64, batch: &BatchAt) {
        if header.max_timestamp > self.largest.timestamp {
            self.largest = TimestampOffset {
                timestamp: header.max_timestamp,
                offset: header.last_offset(),
            };
        }
        if self.valid - self.last_entry > index_interval {
            self.indexes.append_offset(header.last_offset(), self.valid);
            self.indexes.maybe_append_time(self.largest);
            self.last_entry = self.valid;
        }
        let epoch = header.partition_leader_epoch;
        if self.epochs.last().is_none_or(|(last, _)| *last < epoch) {
            self.epochs.push((epoch, header.base_offset));
        }
        self.transactional |= header.is_transactional();
        self.valid = batch.end();
        self.next_offset = header.next_offset();
    }
}

/// Ranges of whole batches whose checksums are not known yet.
struct Checks<'a> {
    file: &'a File,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    ranges: VecDeque<(u64, u64)>,
    closed: bool,
    /// Where the first unsound batch begins.
    bad: Option<u64>,
    failed: Option<io::Error>,
}

impl<'a> Checks<'a> {
    fn new(file: &'a File) -> Self {
        Self {
            file,
            queue: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a range to whoever is idle; with too many waiting the caller checks one itself.
    fn push(&self, from: u64, to: u64) {
        let mut queue = self.lock();
        queue.ranges.push_back((from, to));
        let full = queue.ranges.len() > RANGES_MAX;
        let own = full.then(|| queue.ranges.pop_front()).flatten();
        drop(queue);
        self.changed.notify_one();
        if let Some((from, to)) = own {
            self.check(from, to);
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Checks ranges until there are none; with `wait` until there will be none.
    fn work(&self, wait: bool) {
        loop {
            let mut queue = self.lock();
            while wait && queue.ranges.is_empty() && !queue.closed {
                queue = self
                    .changed
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let Some((from, to)) = queue.ranges.pop_front() else {
                return;
            };
            drop(queue);
            self.check(from, to);
        }
    }

    fn check(&self, from: u64, to: u64) {
        if self.lock().bad.is_some_and(|bad| bad <= from) {
            return;
        }
        match self.first_bad_in(from, to) {
            Ok(None) => {}
            Ok(Some(bad)) => {
                let mut queue = self.lock();
                queue.bad = Some(queue.bad.map_or(bad, |known| known.min(bad)));
            }
            Err(e) => self.lock().failed = Some(e),
        }
    }

    fn first_bad_in(&self, from: u64, to: u64) -> io::Result<Option<u64>> {
        let mut scanner = BatchScanner::new(self.file, from, to, CHECK_CHUNK);
        while let Some(batch) = scanner.next_header()? {
            let bytes = scanner.batch_bytes(&batch)?;
            if check_crc(&batch.header, bytes).is_err() {
                return Ok(Some(batch.position));
            }
        }
        Ok(None)
    }

    fn first_bad(&self) -> io::Result<Option<u64>> {
        let mut queue = self.lock();
        match queue.failed.take() {
            Some(error) => Err(error),
            None => Ok(queue.bad),
        }
    }
}
