//! One partition that this broker hosts: its log, its leadership and who waits on it, behind one lock.
//!
//! The critical sections are short, never await and never take another partition's lock. Under theirs this module takes one
//! other, a leaf: that of [`Touched`]. Handlers call straight in: no queue, no task between a request and the log.

mod flush;
mod isr;
mod proposals;
mod remote_replica;
mod replication;
mod state;
#[cfg(test)]
mod tests;
mod throttled;
mod touched;
mod truncation;
mod waiters;

pub use isr::{CommittedIsr, IsrProposal};
pub use proposals::{IsrProposals, ProposedIsr};
pub use remote_replica::FollowerFetch;
pub use replication::{AppendAsFollowerError, FollowerPosition, Replicated};
pub use state::{ActiveEpochs, Effects, PartitionState, ReplicationRules, Transition};
pub use touched::{Timer, Touched};
pub use truncation::{OutOfRange, Truncation, diverging_epoch, out_of_range, truncation};
pub use waiters::{Committed, FetchWait};

use throttled::Throttled;
use touched::Waiting;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use tokio::sync::{oneshot, watch};
use tracing::error;

use crate::config::{TimestampType, TopicConfig};
use crate::log::{
    AbortedTxn, AppendInfo, CopyStep, DeletedSegment, EpochEndOffset, Log, LogSlice, ReadError,
    StartOffsetReason, StorageError, TimestampAndOffset, Wanted,
};
use crate::metrics::TopicMetrics;
use crate::protocol::batch::{TransactionMarker, ValidBatch};
use crate::protocol::{Error, ErrorCode};
use crate::types::{
    BrokerId, LeaderEpoch, NO_LEADER_EPOCH, Offset, TimestampMs, TopicPartition, Uuid,
};

/// A hosted partition. Shared by every connection; all state is behind `inner`.
pub struct Partition {
    pub topic_partition: TopicPartition,
    pub topic_id: Uuid,
    /// Counters of the topic.
    pub metrics: Arc<TopicMetrics>,
    /// The log's directory failed, or the log in it: only a restart brings it back.
    offline: AtomicBool,
    throttled: Throttled,
    broker: Arc<BrokerWide>,
    /// Timers that are to look at this partition, and what they get to find it.
    waiting: Waiting,
    this: Weak<Self>,
    inner: Mutex<Inner>,
}

/// What the partitions of one broker share.
#[derive(Debug, Default)]
pub struct BrokerWide {
    /// Where proposals for the controller go.
    pub isr_proposals: IsrProposals,
    /// What timers have to look at.
    pub touched: Touched,
}

struct Inner {
    log: LogSlot,
    state: PartitionState,
    waiters: waiters::Waiters,
    flush: flush::FlushState,
    /// `replica.lag.time.max.ms`
    lag_time_max_ms: i64,
    config: Arc<TopicConfig>,
}

/// The log of a partition, or why there is none.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are open: a box would be another hop"
)]
enum LogSlot {
    Open(Log),
    Closed(ErrorCode),
}

impl LogSlot {
    fn as_ref(&self) -> Option<&Log> {
        match self {
            Self::Open(log) => Some(log),
            Self::Closed(_) => None,
        }
    }

    fn as_mut(&mut self) -> Option<&mut Log> {
        match self {
            Self::Open(log) => Some(log),
            Self::Closed(_) => None,
        }
    }
}

/// What became of [`Partition::replace_log`].
#[derive(Debug)]
pub enum Replaced {
    /// Where the log is now that was there before, to be deleted.
    Old(PathBuf),
    /// The new one, which has not caught up.
    NotYet(Box<Log>),
    /// A directory of the two failed; the old log stays, if its own did not.
    Failed(StorageError),
}

/// One result for each batch.
type AppendResults = Vec<Result<AppendInfo, Error>>;

/// What a consumer or follower gets from one partition.
#[derive(Debug)]
pub struct ReadResult {
    /// Empty at the end of the log.
    pub slice: Option<LogSlice>,
    /// What read_committed consumers must leave out of it, by first offset.
    pub aborted: Vec<AbortedTxn>,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_start_offset: Offset,
    /// Set, and no slice, where the reader's log and this one differ (KIP-595).
    pub diverging_epoch: Option<EpochEndOffset>,
    /// Set, and no slice, where the consumer is to read from another replica (KIP-392).
    pub preferred_read_replica: Option<BrokerId>,
    /// Read for a replica that a reassignment adds.
    pub for_added_replica: bool,
}

/// What a consumer or follower asks of one partition.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub offset: Offset,
    pub size_bytes_max: usize,
    pub isolation: Isolation,
    /// -1 when the reader knows none.
    pub current_leader_epoch: LeaderEpoch,
    /// Epoch of the last record that the reader has; -1 when it does not tell.
    pub last_fetched_epoch: LeaderEpoch,
    /// The first batch comes whole, whatever its size (KIP-74).
    pub min_one_batch: bool,
    /// A follower must not answer (KIP-392).
    pub leader_only: bool,
    /// The follower that reads, unless a consumer does.
    pub replica_id: Option<BrokerId>,
}

/// Offsets of a partition at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    pub log_start_offset: Offset,
    /// Exclusive end of what consumers may see.
    pub high_watermark: Offset,
    /// Exclusive end of what read_committed consumers may see.
    pub last_stable_offset: Offset,
    /// Log end offset (LEO).
    pub next_offset: Offset,
    pub leader_epoch: LeaderEpoch,
}

/// How far a read may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    /// Followers and loaders read to the log end.
    LogEnd,
}

impl Partition {
    pub fn new(
        topic_partition: TopicPartition,
        topic_id: Uuid,
        log: Log,
        state: PartitionState,
        config: Arc<TopicConfig>,
        metrics: Arc<TopicMetrics>,
        broker: Arc<BrokerWide>,
    ) -> Arc<Self> {
        let throttled = Throttled::default();
        throttled.update(&config, topic_partition.partition, state.local());
        Arc::new_cyclic(|this| Self {
            topic_partition,
            topic_id,
            metrics,
            throttled,
            broker,
            waiting: Waiting::default(),
            this: Weak::clone(this),
            offline: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                lag_time_max_ms: state.rules().replica_lag_time_max_ms,
                log: LogSlot::Open(log),
                state,
                waiters: waiters::Waiters::default(),
                flush: flush::FlushState::default(),
                config,
            }),
        })
    }

    /// A partition whose log cannot be had: everybody gets KAFKA_STORAGE_ERROR.
    pub fn offline(
        topic_partition: TopicPartition,
        topic_id: Uuid,
        state: PartitionState,
        config: Arc<TopicConfig>,
        metrics: Arc<TopicMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            topic_partition,
            topic_id,
            metrics,
            throttled: Throttled::default(),
            broker: Arc::default(),
            waiting: Waiting::default(),
            this: Weak::new(),
            offline: AtomicBool::new(true),
            inner: Mutex::new(Inner {
                lag_time_max_ms: state.rules().replica_lag_time_max_ms,
                log: LogSlot::Closed(ErrorCode::KafkaStorageError),
                state,
                waiters: waiters::Waiters::default(),
                flush: flush::FlushState::default(),
                config,
            }),
        })
    }

    pub fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    /// For what may change anything that a timer looks after.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        let inner = self.look();
        self.broker.touched.touch(self);
        inner
    }

    /// For what only looks, or changes what no timer sees, as who waits.
    fn look(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("a panic inside a partition's critical section is not survivable")
    }

    /// Appends batches in order and wakes who waits for them. One write for all; one result each.
    ///
    /// `min_in_sync` asks for `min.insync.replicas` first (acks=all).
    pub fn append_as_leader(
        self: &Arc<Self>,
        batches: &[ValidBatch],
        min_in_sync: bool,
        now_ms: TimestampMs,
    ) -> AppendResults {
        let mut inner = self.lock();
        match inner.append(batches, min_in_sync, now_ms) {
            Ok((results, bytes, flush)) => {
                drop(inner);
                self.count(&results, bytes);
                self.flush_as_needed(flush);
                results
            }
            Err(error) => {
                if error.code == ErrorCode::KafkaStorageError {
                    inner.fail(&self.topic_partition, &error);
                }
                vec![Err(error); batches.len()]
            }
        }
    }

    /// Appends the end of a transaction. Like acks=all it asks for `min.insync.replicas`, and the caller waits for the high
    /// watermark.
    pub fn append_marker(
        self: &Arc<Self>,
        marker: &TransactionMarker,
        now_ms: TimestampMs,
    ) -> Result<AppendInfo, Error> {
        let stamped = self.config().message_timestamp_type == TimestampType::LogAppendTime;
        let batch = marker.to_batch(now_ms, stamped);
        let mut results = self.append_as_leader(&[batch], true, now_ms);
        results.pop().ok_or(ErrorCode::UnknownServerError)?
    }

    /// Reads at most `size_bytes_max` from `offset`, never across a segment.
    pub fn read(&self, request: &ReadRequest) -> Result<ReadResult, Error> {
        let mut inner = self.look();
        // A file may be opened.
        self.broker.touched.keep(self, Timer::ReleaseFiles);
        let result = inner.read(request);
        if let Err(error) = &result
            && error.code == ErrorCode::KafkaStorageError
        {
            inner.fail(&self.topic_partition, error);
        }
        result
    }

    fn count(&self, results: &AppendResults, bytes: u64) {
        let appended = results.iter().flatten().filter(|info| !info.duplicate);
        let records: i64 = appended
            .map(|info| info.last_offset - info.first_offset + 1)
            .sum();
        let failed = results.iter().filter(|result| result.is_err()).count();
        self.metrics
            .appended(results.len() as u64, failed as u64, records as u64, bytes);
    }

    /// Wakes `wait` when bytes come that a reader of that isolation may see, or when the partition changes.
    pub fn park_fetch(&self, wait: &Arc<FetchWait>, isolation: Isolation) {
        let waiters = &mut self.look().waiters;
        match isolation {
            Isolation::LogEnd => waiters.park_follower(wait),
            Isolation::ReadUncommitted | Isolation::ReadCommitted => waiters.park_fetch(wait),
        }
    }

    /// `None` if what is below `offset` is committed already, else what resolves when it is. Where it never will be (the log was
    /// taken away or the leadership lost since the append), or the ISR is too small by now, that is said at once.
    pub fn wait_high_watermark(&self, offset: Offset) -> Option<oneshot::Receiver<Committed>> {
        let mut inner = self.look();
        let inner = &mut *inner;
        // Before the high watermark is looked at: that of a follower may be over somebody else's records.
        let lost = online(&mut inner.log).and_then(|_| inner.state.check_leader(NO_LEADER_EPOCH));
        if let Err(reason) = lost {
            return Some(waiters::refused(reason));
        }
        if inner.state.high_watermark() < offset {
            return Some(inner.waiters.wait_for(offset));
        }
        inner.state.check_committed().err().map(waiters::refused)
    }

    /// The high watermark as it moves, for coordinators.
    pub fn watch_high_watermark(&self) -> watch::Receiver<Offset> {
        let mut inner = self.look();
        let high_watermark = inner.state.high_watermark();
        inner.waiters.watch(high_watermark)
    }

    /// Fails once the log is closed.
    pub fn offsets(&self) -> Result<Offsets, Error> {
        self.look().offsets()
    }

    pub fn is_leader(&self) -> bool {
        self.look().state.is_leader()
    }

    /// Whether a reassignment adds the replica here.
    pub fn is_added_replica(&self) -> bool {
        let state = &self.look().state;
        state.is_adding(state.local())
    }

    /// Fails unless this broker leads the partition in the epoch the client knows.
    pub fn check_leader(&self, current_leader_epoch: LeaderEpoch) -> Result<(), Error> {
        self.look().state.check_leader(current_leader_epoch)
    }

    /// OFFSET_NOT_AVAILABLE while this leader's high watermark may be behind what clients were told (KIP-207).
    pub fn check_offsets_known(&self) -> Result<(), Error> {
        self.look().state.check_offsets_known()
    }

    /// DeleteRecords: moves the log start offset; -1 means up to the high watermark. Returns what was asked for, -1 resolved:
    /// the log starts there, or further on.
    pub fn delete_records_before(&self, offset: Offset) -> Result<Offset, Error> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.state.check_leader(NO_LEADER_EPOCH)?;
        let high_watermark = inner.state.high_watermark();
        let offset = if offset == -1 { high_watermark } else { offset };
        if offset < 0 || offset > high_watermark {
            return Err(ErrorCode::OffsetOutOfRange.into());
        }
        let log = online(&mut inner.log)?;
        log.increment_log_start_offset(offset, StartOffsetReason::ClientRecordDeletion)?;
        Ok(offset)
    }

    /// The low watermark of a leader, and what resolves when it may have moved: DeleteRecords waits for it.
    pub fn low_watermark(&self) -> Result<(Offset, oneshot::Receiver<()>), Error> {
        let mut inner = self.look();
        let inner = &mut *inner;
        inner.state.check_leader(NO_LEADER_EPOCH)?;
        let log_start_offset = online(&mut inner.log)?.log_start_offset();
        let low_watermark = inner.state.low_watermark(log_start_offset);
        Ok((low_watermark, inner.waiters.wait_low_watermark()))
    }

    /// One step of retention: a few of the oldest segments go. Call it until it returns none.
    pub fn delete_old_segments(&self, now_ms: TimestampMs) -> Result<Vec<DeletedSegment>, Error> {
        let mut inner = self.look();
        let inner = &mut *inner;
        let high_watermark = inner.state.high_watermark();
        let log = online(&mut inner.log)?;
        match log.delete_old_segments(high_watermark, now_ms) {
            Ok(deleted) => {
                if !deleted.is_empty() {
                    self.broker.touched.touch(self);
                }
                Ok(deleted)
            }
            Err(cause) => {
                let error = cause.into();
                inner.fail(&self.topic_partition, &error);
                Err(error)
            }
        }
    }

    /// Runs `f` on the log under the partition's lock. Fails once it is closed.
    pub fn with_log<R>(&self, f: impl FnOnce(&mut Log) -> R) -> Result<R, Error> {
        online(&mut self.lock().log).map(f)
    }

    /// As [`Partition::with_log`], for those that only look.
    pub fn look_at_log<R>(&self, f: impl FnOnce(&Log) -> R) -> Result<R, Error> {
        online(&mut self.look().log).map(|log| f(log))
    }

    /// Notes the partition for every timer: it is among the hosted ones now, where checkpoints look for it.
    pub fn published(&self) {
        drop(self.lock());
    }

    /// The files that the log let go of, and the topic's `file.delete.delay.ms`. The timers need not know: the caller is the
    /// one that looks after these files.
    pub fn take_deleted_files(&self) -> Result<(Vec<PathBuf>, i64), Error> {
        let mut inner = self.look();
        let log = online(&mut inner.log)?;
        let delay_ms = log.config().file_delete_delay_ms;
        Ok((log.take_deleted_files(), delay_ms))
    }

    /// Forgets producers that were silent for `producer.id.expiration.ms`. No checkpoint has them, and the timer that calls this
    /// comes to all partitions.
    pub fn remove_expired_producers(&self, now_ms: TimestampMs) -> Result<(), Error> {
        online(&mut self.look().log).map(|log| log.remove_expired_producers(now_ms))
    }

    /// Closes files that nobody read since the last call; one that is still open is for [`Timer::ReleaseFiles`] again.
    pub fn release_idle_files(&self) {
        let inner = self.look();
        if inner.log.as_ref().is_some_and(Log::release_idle_files) {
            self.broker.touched.keep(self, Timer::ReleaseFiles);
        }
    }

    /// The record that ListOffsets asks for by its timestamp. Files are read without the lock.
    pub fn search_timestamp(&self, wanted: Wanted) -> Result<Option<TimestampAndOffset>, Error> {
        let mut first_base = Offset::MIN;
        loop {
            let search = self.with_log(|log| log.begin_timestamp_search(wanted, first_base))??;
            let found = search.run();
            let is_sound = self.with_log(|log| log.still_has_all_of(&search))?;
            match (found, search.rest()) {
                (Ok(None), Some(rest)) if is_sound => first_base = rest,
                (Ok(found), _) if is_sound => return Ok(found),
                // Deleted or replaced meanwhile, most likely.
                _ => return Ok(self.with_log(|log| log.search_timestamp(wanted))??),
            }
        }
    }

    /// As [`Partition::look_at_log`], with the last stable offset.
    pub fn look_at_stable_log<R>(&self, f: impl FnOnce(&Log, Offset) -> R) -> Result<R, Error> {
        let mut inner = self.look();
        let last_stable_offset = inner.offsets()?.last_stable_offset;
        online(&mut inner.log).map(|log| f(log, last_stable_offset))
    }

    /// Puts `future`, a log in another directory, in the place of the present one, if it has everything that this one has.
    pub fn replace_log(&self, mut future: Log) -> Replaced {
        let mut inner = self.lock();
        let LogSlot::Open(current) = &mut inner.log else {
            return Replaced::NotYet(Box::new(future));
        };
        if !matches!(current.copy_step(&future, 1), Ok(CopyStep::CaughtUp)) {
            return Replaced::NotYet(Box::new(future));
        }
        match future.replace(current) {
            Ok(old) => {
                *current = future;
                Replaced::Old(old)
            }
            Err(error) => Replaced::Failed(error),
        }
    }

    /// Takes the log away, to close or delete it; everybody who waits gets `reason`, and who comes later too.
    pub fn take_log(&self, reason: ErrorCode) -> Option<Log> {
        let mut inner = self.lock();
        if reason == ErrorCode::KafkaStorageError {
            self.offline.store(true, Ordering::Relaxed);
        }
        inner.waiters.fail(&reason.into());
        match std::mem::replace(&mut inner.log, LogSlot::Closed(reason)) {
            LogSlot::Open(log) => Some(log),
            LogSlot::Closed(_) => None,
        }
    }

    pub fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.look().config)
    }

    /// The topic's configuration changed.
    pub fn update_config(self: &Arc<Self>, config: Arc<TopicConfig>) {
        let need = {
            let mut inner = self.lock();
            if let Some(log) = inner.log.as_mut() {
                log.update_config(Arc::clone(&config));
            }
            let (index, local) = (self.topic_partition.partition, inner.state.local());
            self.throttled.update(&config, index, local);
            let sooner = config.flush_ms < inner.config.flush_ms;
            inner.config = config;
            inner.update_rules();
            sooner.then(|| inner.flush_sooner())
        };
        if let Some(need) = need {
            self.flush_as_needed(need);
        }
    }
}

impl Inner {
    fn append(
        &mut self,
        batches: &[ValidBatch],
        min_in_sync: bool,
        now_ms: TimestampMs,
    ) -> Result<(AppendResults, u64, flush::FlushNeed), Error> {
        let log = online(&mut self.log)?;
        if !self.state.is_leader() {
            return Err(ErrorCode::NotLeaderOrFollower.into());
        }
        if min_in_sync {
            self.state.check_in_sync()?;
        }
        let size_before = log.size_bytes();
        let results = log.append_as_leader(batches, self.state.leader_epoch(), now_ms)?;
        let bytes = log.size_bytes().saturating_sub(size_before);
        let flush = self.appended(bytes);
        Ok((results, bytes, flush))
    }

    fn read(&mut self, request: &ReadRequest) -> Result<ReadResult, Error> {
        if request.leader_only {
            self.state.check_leader(request.current_leader_epoch)?;
        } else {
            self.state.check_epoch(request.current_leader_epoch)?;
        }
        let offsets = self.offsets()?;
        let log = online(&mut self.log)?;
        let mut result = ReadResult {
            slice: None,
            aborted: Vec::new(),
            high_watermark: offsets.high_watermark,
            last_stable_offset: offsets.last_stable_offset,
            log_start_offset: offsets.log_start_offset,
            diverging_epoch: None,
            preferred_read_replica: None,
            for_added_replica: request
                .replica_id
                .is_some_and(|id| self.state.is_adding(id)),
        };
        if request.last_fetched_epoch >= 0 {
            let bounds = (log.log_start_offset(), log.next_offset());
            let (offset, epoch) = (request.offset, request.last_fetched_epoch);
            result.diverging_epoch = diverging_epoch(log.leader_epochs(), bounds, offset, epoch)?;
            if result.diverging_epoch.is_some() {
                return Ok(result);
            }
        }
        if request.offset < offsets.log_start_offset || request.offset > offsets.next_offset {
            return Err(ErrorCode::OffsetOutOfRange.into());
        }
        let end = match request.isolation {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.last_stable_offset,
            Isolation::LogEnd => offsets.next_offset,
        };
        if request.offset < end {
            let (size_bytes_max, whole) = (request.size_bytes_max, request.min_one_batch);
            let slice = match log.read(request.offset, size_bytes_max, end, whole) {
                Ok(slice) => slice,
                Err(ReadError::OutOfRange { .. }) => return Err(ErrorCode::OffsetOutOfRange.into()),
                Err(ReadError::Storage(cause)) => return Err(cause.into()),
            };
            if request.isolation == Isolation::ReadCommitted {
                result.aborted = log.aborted_in_slice(request.offset, &slice)?;
            }
            result.slice = (!slice.is_empty()).then_some(slice);
        }
        if let Some(id) = request.replica_id {
            self.state.tell_high_watermark(id);
        }
        Ok(result)
    }

    fn offsets(&mut self) -> Result<Offsets, Error> {
        let log = online(&mut self.log)?;
        let high_watermark = self.state.high_watermark();
        let last_stable_offset = log.last_stable_offset(high_watermark);
        Ok(Offsets {
            log_start_offset: log.log_start_offset(),
            high_watermark,
            last_stable_offset,
            next_offset: log.next_offset(),
            leader_epoch: self.state.leader_epoch(),
        })
    }

    /// The storage failed. The log's directory is latched offline by the log itself.
    fn fail(&mut self, topic_partition: &TopicPartition, cause: &Error) {
        error!(%topic_partition, %cause, "storage failed, partition is offline");
        self.waiters.fail(&ErrorCode::KafkaStorageError.into());
    }
}

/// The log, unless it was closed, its topic deleted or its directory failed.
fn online(log: &mut LogSlot) -> Result<&mut Log, Error> {
    match log {
        LogSlot::Open(log) => Ok(log),
        LogSlot::Closed(reason) => Err((*reason).into()),
    }
}
