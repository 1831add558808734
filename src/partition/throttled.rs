//! Which way a replica's traffic goes by the broker's replication quotas (KIP-73): the topic's lists of throttled replicas,
//! looked up when they change, so that fetches need no lock to know.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::Partition;
use crate::config::{TopicConfig, is_throttled_replica};
use crate::types::BrokerId;

#[derive(Debug, Default)]
pub struct Throttled {
    /// `leader.replication.throttled.replicas` names this replica.
    leader: AtomicBool,
    /// `follower.replication.throttled.replicas` does.
    follower: AtomicBool,
}

impl Throttled {
    pub fn update(&self, config: &TopicConfig, partition: i32, broker_id: BrokerId) {
        let is_listed = |list: &[String]| is_throttled_replica(list, partition, broker_id);
        let leader = is_listed(&config.leader_replication_throttled_replicas);
        let follower = is_listed(&config.follower_replication_throttled_replicas);
        self.leader.store(leader, Relaxed);
        self.follower.store(follower, Relaxed);
    }
}

impl Partition {
    /// Whether what followers fetch here counts for the leaders' quota.
    pub fn is_leader_throttled(&self) -> bool {
        self.throttled.leader.load(Relaxed)
    }

    /// Whether what this follower fetches counts for the followers' quota.
    pub fn is_follower_throttled(&self) -> bool {
        self.throttled.follower.load(Relaxed)
    }

    /// Whether the quota may keep records from a follower: from one in sync never (`ReplicaManager.shouldLeaderThrottle`).
    pub fn may_hold_back(&self, replica_id: BrokerId) -> bool {
        self.is_leader_throttled() && !self.look().state.isr().committed().contains(&replica_id)
    }
}
