//! When a partition's records become durable (`flush.messages`, `flush.ms`, rolled segments), with group commit.
//!
//! Kafka syncs inside the log's lock, one append after the other. Here an append only asks: one flush at a time runs outside
//! the lock, takes all that was appended when it began, and answers everybody who waits for those offsets. What comes
//! meanwhile goes with the next one, which begins at once.
//!
//! While `flush.messages` records are not durable, the high watermark stays at what is, and so do the answers of acks=all;
//! acks=1 waits for [`Partition::wait_durable`]. That is what consumers and producers see of Kafka's order, too: append,
//! flush, high watermark, answer.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::error;

use super::waiters::{Committed, refused};
use super::{Effects, Inner, IsrProposal, Partition, PartitionState, online};
use crate::log::{FlushJob, Log};
use crate::protocol::ErrorCode;
use crate::types::Offset;

/// What is under way for one partition.
#[derive(Debug, Default)]
pub(super) struct FlushState {
    /// A thread is flushing and will look again before it ends.
    running: bool,
    /// The timer of `flush.ms` is set; it began with the first append after the last one.
    timer_is_set: bool,
    /// Bytes that were appended and that no consumer's fetch was told of yet.
    pub(super) unseen_bytes: i64,
}

#[cfg(test)]
impl FlushState {
    pub(super) fn set_running(&mut self, running: bool) {
        self.running = running;
    }
}

/// What an append leaves to do once the lock is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlushNeed {
    /// Nobody flushes: start.
    start: bool,
    /// Set the timer of `flush.ms`.
    timer_ms: Option<i64>,
}

impl Inner {
    /// Moves the high watermark after `bytes` were appended, and tells what to flush.
    pub(super) fn appended(&mut self, bytes: u64) -> FlushNeed {
        self.flush.unseen_bytes = self.flush.unseen_bytes.saturating_add(bytes as i64);
        self.waiters.appended(bytes as i64);
        self.advance();
        let Some(log) = self.log.as_ref() else {
            return FlushNeed {
                start: false,
                timer_ms: None,
            };
        };
        let start = log.flush_due() && !self.flush.running;
        self.flush.running |= start;
        let timed = self.config.flush_ms != i64::MAX && !self.flush.timer_is_set && bytes > 0;
        self.flush.timer_is_set |= timed;
        FlushNeed {
            start,
            timer_ms: timed.then_some(self.config.flush_ms),
        }
    }

    /// A shorter `flush.ms` holds for what was appended before, too. A timer that is set already comes in vain.
    pub(super) fn flush_sooner(&mut self) -> FlushNeed {
        let log = self.log.as_ref();
        let waits = log.is_some_and(|log| log.recovery_point() < log.next_offset());
        self.flush.timer_is_set |= waits;
        FlushNeed {
            start: false,
            timer_ms: waits.then_some(self.config.flush_ms),
        }
    }

    /// Moves the high watermark as far as this replica allows, and wakes who waits for it.
    fn advance(&mut self) {
        self.on_event(|state, next_offset| Effects {
            high_watermark_moved: state.on_append(next_offset),
            ..Effects::default()
        });
    }

    /// Gives the state an event, and wakes who waits for the high watermark if that moved. Does nothing without a log.
    pub(super) fn on_event(
        &mut self,
        event: impl FnOnce(&mut PartitionState, Offset) -> Effects,
    ) -> Option<IsrProposal> {
        let log = self.log.as_ref()?;
        let limit = if log.messages_flush_due() {
            log.recovery_point()
        } else {
            Offset::MAX
        };
        let next_offset = log.next_offset();
        let high_watermark = self.state.high_watermark();
        self.state.limit_high_watermark(limit);
        let effects = event(&mut self.state, next_offset);
        if effects.high_watermark_moved {
            self.high_watermark_moved(high_watermark, next_offset);
        }
        if effects.low_watermark_moved {
            self.waiters.low_watermark_moved();
        }
        effects.proposal
    }

    /// Wakes who waited for the high watermark. Of bytes that are committed in part the part is an estimate.
    pub(super) fn high_watermark_moved(&mut self, from: Offset, next_offset: Offset) {
        let to = self.state.high_watermark();
        let unseen = &mut self.flush.unseen_bytes;
        let bytes = if to >= next_offset {
            *unseen
        } else {
            let share = (to - from).max(0) as f64 / (next_offset - from).max(1) as f64;
            (*unseen as f64 * share) as i64
        };
        *unseen -= bytes;
        self.waiters.advance(to, bytes);
    }
}

impl Partition {
    /// Does what an append left to do. Called without the lock.
    pub(super) fn flush_as_needed(self: &Arc<Self>, need: FlushNeed) {
        if need.start {
            let partition = Arc::clone(self);
            tokio::task::spawn_blocking(move || partition.flush_until_done());
        }
        if let Some(timer_ms) = need.timer_ms {
            let delay = Duration::from_millis(timer_ms.max(0) as u64);
            tokio::spawn(flush_after(delay, Arc::downgrade(self)));
        }
    }

    /// `None` if a producer with acks=1 need not wait for `offset`, else what resolves when every record below it is
    /// durable.
    pub fn wait_durable(&self, offset: Offset) -> Option<oneshot::Receiver<Committed>> {
        let mut inner = self.look();
        let log = match online(&mut inner.log) {
            // Behind a failed flush nobody would ever answer.
            Ok(log) if log.log_dir().is_offline() => {
                return Some(refused(ErrorCode::KafkaStorageError.into()));
            }
            Ok(log) => log,
            // Taken away since the append, with who waited then: nobody knows what became of the record.
            Err(reason) => return Some(refused(reason)),
        };
        let waits = log.messages_flush_due() && log.recovery_point() < offset;
        waits.then(|| inner.waiters.wait_durable(offset))
    }

    /// Flushes until nothing more is asked for.
    fn flush_until_done(&self) {
        let mut job = self.next_flush(None);
        while let Some(running) = job {
            if let Err(cause) = running.run() {
                let mut inner = self.lock();
                inner.flush.running = false;
                inner.fail(&self.topic_partition, &cause.into());
                return;
            }
            job = self.next_flush(Some(&running));
            if let Err(error) = running.log_dir().write_recovery_points() {
                error!(%error, "recovery points not written");
            }
        }
    }

    /// Takes note of a flush that is done and begins the next, if one is due.
    fn next_flush(&self, done: Option<&FlushJob>) -> Option<FlushJob> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let next = inner.log.as_mut().and_then(|log| {
            if let Some(done) = done {
                log.finish_flush(done);
                inner.waiters.durable(log.recovery_point());
            }
            let wanted = done.is_none() || log.flush_due();
            wanted.then(|| log.begin_flush()).flatten()
        });
        inner.flush.running = next.is_some();
        inner.advance();
        next
    }

    /// Flushes in this thread unless one is flushing already: for timers.
    pub fn flush_now(&self) {
        {
            let mut inner = self.lock();
            inner.flush.timer_is_set = false;
            if inner.flush.running {
                return;
            }
            inner.flush.running = true;
        }
        self.flush_until_done();
    }
}

/// `flush.ms` after the first append that is not durable.
async fn flush_after(delay: Duration, partition: Weak<Partition>) {
    tokio::time::sleep(delay).await;
    if let Some(partition) = partition.upgrade() {
        // A panic there is that partition's alone.
        let _ = tokio::task::spawn_blocking(move || partition.flush_now()).await;
    }
}

impl Log {
    /// Whether as many records as `flush.messages` are not durable yet.
    fn messages_flush_due(&self) -> bool {
        self.next_offset() - self.recovery_point() >= self.config().flush_messages.max(1)
    }
}
