//! In-sync replicas that leaders of this broker ask the controller for, until somebody takes them there: all that wait go
//! in one AlterPartition.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

use super::isr::{IsrChanges, IsrProposal};
use crate::types::{TopicPartition, Uuid};

/// A proposal and the partition it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedIsr {
    pub topic_partition: TopicPartition,
    pub topic_id: Uuid,
    pub proposal: IsrProposal,
}

/// Proposals that wait. One of each partition at most, since each has one in flight.
#[derive(Debug, Default)]
pub struct IsrProposals {
    waiting: Mutex<Vec<ProposedIsr>>,
    added: Notify,
    /// Proposals that the controller accepted.
    pub expands: AtomicU64,
    pub shrinks: AtomicU64,
    /// Those that it refused, or nobody answered.
    pub failed: AtomicU64,
}

impl IsrProposals {
    fn lock(&self) -> MutexGuard<'_, Vec<ProposedIsr>> {
        self.waiting
            .lock()
            .expect("pushing and taking do not panic")
    }

    /// The controller accepted what a partition proposed.
    pub(super) fn count(&self, before: IsrChanges, after: IsrChanges) {
        let expands = after.expands - before.expands;
        self.expands.fetch_add(expands, Relaxed);
        let shrinks = after.shrinks - before.shrinks;
        self.shrinks.fetch_add(shrinks, Relaxed);
    }

    pub fn push(&self, proposed: ProposedIsr) {
        self.lock().push(proposed);
        self.added.notify_one();
    }

    /// All that wait, without waiting.
    pub fn take(&self) -> Vec<ProposedIsr> {
        std::mem::take(&mut *self.lock())
    }

    /// Resolves with all that wait, as soon as there are any.
    pub async fn next(&self) -> Vec<ProposedIsr> {
        loop {
            let waiting = self.take();
            if !waiting.is_empty() {
                return waiting;
            }
            self.added.notified().await;
        }
    }
}
