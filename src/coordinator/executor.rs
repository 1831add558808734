//! One partition's coordinator without its event loop: runs handlers, appends what they return as one batch, takes it
//! back when the append fails, and completes operations as the high watermark passes them. No clock, no tasks.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tracing::{debug, error};

use super::PartitionWriter;
use super::loader::Loaded;
use super::shard::{Effects, EncodedRecord, HardState, HardView, Now, RecordOrigin, Shard, UndoOf};
use crate::protocol::batch::{BatchBuilder, CompressionType, TransactionMarker};
use crate::protocol::error::{Error, ErrorCode};
use crate::types::{LeaderEpoch, NO_PRODUCER_ID, Offset, TimestampMs, TopicPartition};

/// Operations share a batch until it is this large; well under the default `max.message.bytes`.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// What the runtime itself can be told.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeConfig {
    /// How long an operation waits for the high watermark before it fails with `RequestTimedOut`.
    pub write_timeout_ms: i64,
    pub compression: CompressionType,
    /// What is read at a time while a partition is loaded.
    pub load_bytes: usize,
}

pub struct Executor<S: Shard> {
    tp: TopicPartition,
    leader_epoch: LeaderEpoch,
    config: RuntimeConfig,
    writer: Arc<dyn PartitionWriter>,
    high_watermark: watch::Receiver<Offset>,
    shard: S,
    state: S::Hard,
    /// What takes back each record at or above the high watermark, oldest first.
    uncommitted: VecDeque<(Offset, UndoOf<S>)>,
    committed: Offset,
    /// Of the next record, behind those in the open batch.
    next_offset: Offset,
    batch: OpenBatch<S>,
    /// Appended, in the order of their offsets and so of their deadlines. Bounded by the mailbox: callers wait.
    pending: VecDeque<Pending<S>>,
    ready: VecDeque<(S::Completion, Result<(), Error>)>,
    out_of_sync: bool,
}

struct OpenBatch<S: Shard> {
    base_offset: Offset,
    records: BatchBuilder,
    completions: Vec<S::Completion>,
}

struct Pending<S: Shard> {
    /// Committed when the high watermark reaches this.
    next_offset: Offset,
    deadline_ms: i64,
    completion: S::Completion,
}

impl<S: Shard> Executor<S> {
    pub fn new(
        tp: TopicPartition,
        leader_epoch: LeaderEpoch,
        config: RuntimeConfig,
        writer: Arc<dyn PartitionWriter>,
        high_watermark: watch::Receiver<Offset>,
        loaded: Loaded<S::Hard>,
        shard: S,
    ) -> Self {
        let next_offset = loaded.next_offset;
        Self {
            tp,
            leader_epoch,
            config,
            writer,
            high_watermark,
            shard,
            state: loaded.state,
            uncommitted: loaded.uncommitted,
            committed: loaded.committed,
            next_offset,
            batch: OpenBatch::new(next_offset, config.compression),
            pending: VecDeque::new(),
            ready: VecDeque::new(),
            out_of_sync: false,
        }
    }

    pub fn on_loaded(&mut self, now: Now) {
        self.run(now, |shard, view, effects| {
            shard.on_loaded(view, now, effects);
        });
        self.flush(now);
    }

    /// Runs one operation. What it returned is appended by the next [`Executor::flush`].
    pub fn handle(&mut self, now: Now, op: S::Operation) {
        self.run(now, |shard, view, effects| {
            shard.handle(view, now, op, effects);
        });
    }

    /// Runs due timers and gives up writes that wait too long.
    pub fn advance(&mut self, now: Now) {
        while self
            .shard
            .next_deadline_ms()
            .is_some_and(|at| at <= now.monotonic_ms)
        {
            self.run(now, |shard, view, effects| {
                shard.on_timer(view, now, effects);
            });
        }
        while self
            .pending
            .front()
            .is_some_and(|p| p.deadline_ms <= now.monotonic_ms)
        {
            if let Some(pending) = self.pending.pop_front() {
                self.ready
                    .push_back((pending.completion, Err(ErrorCode::RequestTimedOut.into())));
            }
        }
    }

    /// Appends the open batch and completes what is committed, until nothing is left to do.
    pub fn flush(&mut self, now: Now) {
        loop {
            self.append_batch(now);
            self.advance_committed();
            if self.ready.is_empty() {
                return;
            }
            while let Some((completion, result)) = self.ready.pop_front() {
                self.run(now, |shard, view, effects| {
                    shard.on_completed(view, now, completion, result, effects);
                });
            }
        }
    }

    /// The partition was lost: everything that waits ends in `error`.
    pub fn unload(mut self, now: Now, error: &Error) {
        let batch = std::mem::take(&mut self.batch.completions);
        let pending = std::mem::take(&mut self.pending);
        let waiting = pending.into_iter().map(|p| p.completion).chain(batch);
        let mut effects = Effects::default();
        for completion in waiting {
            let view = HardView {
                state: &self.state,
                uncommitted: &self.uncommitted,
            };
            self.shard
                .on_completed(&view, now, completion, Err(error.clone()), &mut effects);
            effects = Effects::default();
        }
        self.shard.on_unloaded(error.clone());
    }

    /// The log holds something this coordinator did not write: only loading it again helps.
    pub fn is_out_of_sync(&self) -> bool {
        self.out_of_sync
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub fn next_deadline_ms(&self) -> Option<i64> {
        let write = self.pending.front().map(|p| p.deadline_ms);
        self.shard.next_deadline_ms().into_iter().chain(write).min()
    }

    fn run(&mut self, now: Now, f: impl FnOnce(&mut S, &HardView<'_, S>, &mut Effects<S>)) {
        let mut effects = Effects::default();
        let view = HardView {
            state: &self.state,
            uncommitted: &self.uncommitted,
        };
        f(&mut self.shard, &view, &mut effects);
        self.apply(now, effects);
    }

    fn apply(&mut self, now: Now, effects: Effects<S>) {
        if !effects.records.is_empty() {
            let records: Vec<_> = effects
                .records
                .into_iter()
                .map(|record| (S::Hard::encode(&record), record))
                .collect();
            let size: usize = records.iter().map(|(encoded, _)| size_bytes(encoded)).sum();
            if !self.batch.records.is_empty()
                && self.batch.records.size_bytes() + size > BATCH_BYTES_MAX
            {
                self.append_batch(now);
            }
            for (encoded, record) in records {
                let full = self.batch.records.size_bytes() + size_bytes(&encoded) > BATCH_BYTES_MAX;
                if effects.may_split && full {
                    self.append_batch(now);
                }
                self.add(now.wall_ms, &encoded, record);
            }
        }
        let ended = effects
            .marker
            .map_or(Ok(()), |marker| self.append_marker(now, &marker));
        let Some(completion) = effects.completion else {
            return;
        };
        if let Err(error) = ended {
            self.ready.push_back((completion, Err(error)));
            return;
        }
        if !self.batch.records.is_empty() {
            self.batch.completions.push(completion);
        } else if self.committed < self.next_offset {
            self.park(now, completion);
        } else {
            self.ready.push_back((completion, Ok(())));
        }
    }

    fn add(
        &mut self,
        timestamp: TimestampMs,
        encoded: &EncodedRecord,
        record: <S::Hard as HardState>::Record,
    ) {
        self.batch
            .records
            .append(timestamp, Some(&encoded.key), encoded.value.as_deref());
        let origin = RecordOrigin {
            offset: self.next_offset,
            producer_id: NO_PRODUCER_ID,
        };
        let mut undo = Vec::new();
        self.state.replay(origin, record, &mut undo);
        self.uncommitted
            .extend(undo.into_iter().map(|undo| (origin.offset, undo)));
        self.next_offset += 1;
    }

    fn append_batch(&mut self, now: Now) {
        if self.batch.records.is_empty() {
            return;
        }
        let batch = std::mem::replace(
            &mut self.batch,
            OpenBatch::new(self.next_offset, self.config.compression),
        );
        let bytes = batch.records.build();
        match self.writer.append(&self.tp, self.leader_epoch, bytes) {
            Ok(next_offset) if next_offset == self.next_offset => {
                for completion in batch.completions {
                    self.park(now, completion);
                }
            }
            Ok(next_offset) => {
                error!(tp = %self.tp, next_offset, expected = self.next_offset, "coordinator is out of sync with its log");
                self.out_of_sync = true;
                self.fail(batch.completions, &ErrorCode::NotCoordinator.into());
            }
            Err(error) => {
                debug!(tp = %self.tp, %error, "coordinator could not append");
                self.revert_to(batch.base_offset);
                self.fail(batch.completions, &error);
            }
        }
    }

    fn append_marker(&mut self, now: Now, marker: &TransactionMarker) -> Result<(), Error> {
        self.append_batch(now);
        let appended = self
            .writer
            .append_marker(&self.tp, self.leader_epoch, marker)?;
        if appended != self.next_offset + 1 {
            error!(tp = %self.tp, next_offset = appended, expected = self.next_offset + 1, "coordinator is out of sync with its log");
            self.out_of_sync = true;
            return Err(ErrorCode::NotCoordinator.into());
        }
        let mut undo = Vec::new();
        self.state
            .end_transaction(marker.producer_id, marker.commit, &mut undo);
        let offset = self.next_offset;
        self.uncommitted
            .extend(undo.into_iter().map(|undo| (offset, undo)));
        self.next_offset = appended;
        self.batch.base_offset = appended;
        Ok(())
    }

    fn park(&mut self, now: Now, completion: S::Completion) {
        self.pending.push_back(Pending {
            next_offset: self.next_offset,
            deadline_ms: now.monotonic_ms + self.config.write_timeout_ms,
            completion,
        });
    }

    fn fail(&mut self, completions: Vec<S::Completion>, error: &Error) {
        self.ready
            .extend(completions.into_iter().map(|c| (c, Err(error.clone()))));
    }

    fn revert_to(&mut self, offset: Offset) {
        while self.uncommitted.back().is_some_and(|(at, _)| *at >= offset) {
            if let Some((_, undo)) = self.uncommitted.pop_back() {
                self.state.revert(undo);
            }
        }
        self.next_offset = offset;
        self.batch.base_offset = offset;
    }

    fn advance_committed(&mut self) {
        let high_watermark = *self.high_watermark.borrow_and_update();
        if high_watermark <= self.committed {
            return;
        }
        // What the open batch will hold is not committed, whoever wrote at those offsets.
        self.committed = high_watermark.min(self.batch.base_offset);
        while self
            .uncommitted
            .front()
            .is_some_and(|(at, _)| *at < self.committed)
        {
            self.uncommitted.pop_front();
        }
        while self
            .pending
            .front()
            .is_some_and(|p| p.next_offset <= self.committed)
        {
            if let Some(pending) = self.pending.pop_front() {
                self.ready.push_back((pending.completion, Ok(())));
            }
        }
    }
}

impl<S: Shard> OpenBatch<S> {
    fn new(base_offset: Offset, compression: CompressionType) -> Self {
        Self {
            base_offset,
            records: BatchBuilder::new().compression(compression, None),
            completions: Vec::new(),
        }
    }
}

/// About what the record takes in a batch.
fn size_bytes(record: &EncodedRecord) -> usize {
    record.key.len() + record.value.as_ref().map_or(0, Bytes::len) + 20
}

#[cfg(test)]
impl<S: Shard> Executor<S> {
    pub fn state(&self) -> &S::Hard {
        &self.state
    }

    pub fn shard(&self) -> &S {
        &self.shard
    }
}
