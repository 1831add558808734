//! Leadership, in-sync replicas and high watermark of one partition, without files, clocks or locks.
//!
//! The high watermark is the smallest log end offset of the in-sync replicas and never goes back while this
//! replica leads (Kafka's `Partition.maybeIncrementLeaderHW`). With one replica it is the log end offset.

use std::collections::BTreeMap;

use crate::metadata::PartitionRegistration;
use crate::protocol::{Error, ErrorCode};
use crate::types::{BrokerId, LeaderEpoch, NO_LEADER_EPOCH, Offset};

/// What a broker knows about a partition it hosts.
#[derive(Clone, Debug)]
pub struct PartitionState {
    local: BrokerId,
    leader: BrokerId,
    leader_epoch: LeaderEpoch,
    partition_epoch: i32,
    replicas: Vec<BrokerId>,
    isr: Vec<BrokerId>,
    /// Log end offsets of the other replicas, as their fetches showed them in this leader epoch.
    follower_ends: BTreeMap<BrokerId, Offset>,
    high_watermark: Offset,
}

impl PartitionState {
    /// A replica before its first registration is applied. `high_watermark` comes from the checkpoint.
    pub fn new(local: BrokerId, high_watermark: Offset) -> Self {
        Self {
            local,
            leader: -1,
            leader_epoch: NO_LEADER_EPOCH,
            partition_epoch: -1,
            replicas: Vec::new(),
            isr: Vec::new(),
            follower_ends: BTreeMap::new(),
            high_watermark,
        }
    }

    /// Takes over a registration. `false` if it is older than what is known.
    pub fn apply(&mut self, registration: &PartitionRegistration, next_offset: Offset) -> bool {
        if registration.partition_epoch < self.partition_epoch {
            return false;
        }
        if registration.leader_epoch != self.leader_epoch {
            self.follower_ends.clear();
        }
        self.leader = registration.leader;
        self.leader_epoch = registration.leader_epoch;
        self.partition_epoch = registration.partition_epoch;
        self.replicas.clone_from(&registration.replicas);
        self.isr.clone_from(&registration.isr);
        self.advance_high_watermark(next_offset);
        true
    }

    pub fn is_leader(&self) -> bool {
        self.leader == self.local
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Takes note of the leader's own log end offset; tells whether the high watermark moved.
    pub fn advance_high_watermark(&mut self, next_offset: Offset) -> bool {
        if !self.is_leader() {
            return false;
        }
        let committed =
            self.isr
                .iter()
                .filter(|id| **id != self.local)
                .fold(next_offset, |least, id| {
                    least.min(
                        self.follower_ends
                            .get(id)
                            .copied()
                            .unwrap_or(self.high_watermark),
                    )
                });
        let moved = committed > self.high_watermark;
        if moved {
            self.high_watermark = committed;
        }
        moved
    }

    /// Never leaves the high watermark outside the log.
    pub fn clamp_high_watermark(&mut self, log_start_offset: Offset, next_offset: Offset) {
        self.high_watermark = self.high_watermark.clamp(log_start_offset, next_offset);
    }

    /// Checks a client's idea of the leader epoch (KIP-320); -1 means it has none.
    pub fn check_leader(&self, current_leader_epoch: LeaderEpoch) -> Result<(), Error> {
        if current_leader_epoch >= 0 && current_leader_epoch < self.leader_epoch {
            return Err(ErrorCode::FencedLeaderEpoch.into());
        }
        if current_leader_epoch > self.leader_epoch {
            return Err(ErrorCode::UnknownLeaderEpoch.into());
        }
        if !self.is_leader() {
            return Err(ErrorCode::NotLeaderOrFollower.into());
        }
        Ok(())
    }

    /// Whether acks=all may be appended: as many in-sync replicas as `min.insync.replicas` asks, but never more
    /// than the partition has.
    pub fn check_in_sync(&self, min_insync_replicas: usize) -> Result<(), Error> {
        if self.isr.len() < min_insync_replicas.min(self.replicas.len()) {
            return Err(ErrorCode::NotEnoughReplicas.into());
        }
        Ok(())
    }
}
