//! What a leader knows of one of its followers, from the follower's own fetches (Kafka's `Replica`).

use crate::types::{BrokerId, Offset};

/// An offset that no fetch has told yet.
pub const UNKNOWN_OFFSET: Offset = -1;

/// One follower of a partition that is led here. Times are monotonic milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteReplica {
    pub id: BrokerId,
    /// Where the follower fetches, so all below is in its log. [`UNKNOWN_OFFSET`] until it fetched in this leader epoch.
    pub log_end_offset: Offset,
    pub log_start_offset: Offset,
    /// Broker epoch of the follower's last fetch; -1 from followers that tell none, `None` before the first fetch.
    pub broker_epoch: Option<i64>,
    /// Broker epoch that the metadata has for it; `None` while fenced, shutting down or not registered.
    pub active_epoch: Option<i64>,
    /// The leader's log end offset and the time at the follower's last fetch.
    last_fetch_leader_end: Offset,
    last_fetch_ms: i64,
    /// The last time that the follower had everything that was in the log.
    last_caught_up_ms: i64,
    /// The high watermark in the last answer, so that news of it need no wait.
    pub told_high_watermark: Offset,
}

impl RemoteReplica {
    pub fn new(id: BrokerId) -> Self {
        Self {
            id,
            log_end_offset: UNKNOWN_OFFSET,
            log_start_offset: UNKNOWN_OFFSET,
            broker_epoch: None,
            active_epoch: None,
            last_fetch_leader_end: UNKNOWN_OFFSET,
            last_fetch_ms: 0,
            last_caught_up_ms: i64::MIN / 2,
            told_high_watermark: UNKNOWN_OFFSET,
        }
    }

    /// A new leader epoch began. A new leader knows nothing of its followers; one that goes on leading keeps what they
    /// told. Members of the ISR get the whole lag time to show up (`Replica.resetReplicaState`).
    pub fn reset(&mut self, next_offset: Offset, is_new_leader: bool, in_isr: bool, now_ms: i64) {
        if is_new_leader {
            *self = Self {
                active_epoch: self.active_epoch,
                ..Self::new(self.id)
            };
        } else {
            self.last_fetch_leader_end = next_offset;
            self.last_fetch_ms = if in_isr { now_ms } else { 0 };
        }
        self.last_caught_up_ms = if in_isr { now_ms } else { i64::MIN / 2 };
    }

    /// The follower fetches at `fetch_offset` while the leader's log ends at `next_offset`.
    ///
    /// A follower that fetches where the log ended at its last fetch was caught up then: under a steady load no
    /// fetch ever reaches the end of the log.
    pub fn fetched(&mut self, fetch: &FollowerFetch, next_offset: Offset) {
        if fetch.fetch_offset >= next_offset {
            self.last_caught_up_ms = self.last_caught_up_ms.max(fetch.now_ms);
        } else if fetch.fetch_offset >= self.last_fetch_leader_end {
            self.last_caught_up_ms = self.last_caught_up_ms.max(self.last_fetch_ms);
        }
        self.log_start_offset = fetch.log_start_offset;
        self.log_end_offset = fetch.fetch_offset;
        self.last_fetch_leader_end = self.last_fetch_leader_end.max(next_offset);
        self.last_fetch_ms = fetch.now_ms;
        self.broker_epoch = Some(fetch.broker_epoch);
    }

    /// Whether the follower has everything, or had it within the lag time.
    pub fn is_caught_up(&self, next_offset: Offset, now_ms: i64, lag_max_ms: i64) -> bool {
        self.log_end_offset == next_offset || now_ms - self.last_caught_up_ms <= lag_max_ms
    }

    /// When it last had everything; the later, the better to read from.
    pub fn last_caught_up_ms(&self) -> i64 {
        self.last_caught_up_ms
    }

    /// Whether the controller would take it into the ISR: alive, not on its way out, and the incarnation that fetches
    /// is the one that is registered (KIP-841, KIP-903).
    pub fn is_isr_eligible(&self) -> bool {
        match (self.broker_epoch, self.active_epoch) {
            (Some(fetched), Some(active)) => fetched == -1 || fetched == active,
            _ => false,
        }
    }
}

/// A follower's fetch of one partition, as the state machine needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerFetch {
    pub replica_id: BrokerId,
    /// -1 from followers that tell none (below v15).
    pub broker_epoch: i64,
    pub fetch_offset: Offset,
    pub log_start_offset: Offset,
    /// Monotonic.
    pub now_ms: i64,
}
