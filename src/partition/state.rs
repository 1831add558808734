//! Leadership, in-sync replicas and high watermark of one partition, without files, clocks or locks (Kafka's `Partition`).
//!
//! Events come in with their time; what follows goes out as [`Effects`]. The log's end is an argument: the log belongs to
//! the caller. The simulator drives this same state machine.
//!
//! | event | leader | follower |
//! |---|---|---|
//! | `apply` | new epoch: starts at the log end, forgets followers, keeps the high watermark | takes the leader's epoch |
//! | `on_append` | high watermark | - |
//! | `on_follower_fetch` | follower's end, ISR expansion, high watermark | refused |
//! | `on_tick` | ISR shrinking | - |
//! | `on_alter_partition` | new ISR, high watermark | ignored |
//! | `on_replicated`, `on_truncated` | - | high watermark from the leader, inside the own log |

use super::isr::{CommittedIsr, IsrProposal, IsrState, Refusal, refusal};
use super::remote_replica::{FollowerFetch, RemoteReplica, UNKNOWN_OFFSET};
use crate::metadata::PartitionRegistration;
use crate::protocol::{Error, ErrorCode};
use crate::types::{BrokerId, LeaderEpoch, NO_LEADER_EPOCH, Offset};

/// Settings that the rules depend on; they may change at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationRules {
    /// `min.insync.replicas` of the topic.
    pub min_insync_replicas: usize,
    /// `replica.lag.time.max.ms`
    pub replica_lag_time_max_ms: i64,
}

/// What the caller has to do after an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub high_watermark_moved: bool,
    /// A follower's log starts elsewhere now, or a follower that kept the low watermark down is gone.
    pub low_watermark_moved: bool,
    /// To be sent to the controller; its answer comes back with `on_alter_partition`.
    pub proposal: Option<IsrProposal>,
}

/// What a registration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Older than what is known: ignored.
    Stale,
    /// This replica leads. In a new epoch the log notes where it begins.
    Leader { is_new_epoch: bool },
    /// Another replica leads, or none. In a new epoch fetching starts anew.
    Follower { is_new_epoch: bool },
}

/// Broker epoch of an active broker; `None` for one that is fenced, shutting down or unknown.
pub type ActiveEpochs<'a> = &'a dyn Fn(BrokerId) -> Option<i64>;

/// What a broker knows about a partition it hosts.
#[derive(Clone, Debug)]
pub struct PartitionState {
    local: BrokerId,
    rules: ReplicationRules,
    leader: BrokerId,
    leader_epoch: LeaderEpoch,
    partition_epoch: i32,
    /// Log end offset at which this replica's leadership began; `None` on followers.
    leader_epoch_start: Option<Offset>,
    replicas: Vec<BrokerId>,
    /// Those among them that a reassignment adds.
    adding: Vec<BrokerId>,
    isr: IsrState,
    /// The other replicas, in the order of assignment. Bounded by the replication factor.
    remotes: Vec<RemoteReplica>,
    high_watermark: Offset,
    /// Where the high watermark must stop: what `flush.messages` has yet to make durable.
    high_watermark_limit: Offset,
    /// The newest time that any event told.
    now_ms: i64,
}

impl PartitionState {
    /// A replica before its first registration is applied. `high_watermark` comes from the checkpoint.
    pub fn new(local: BrokerId, high_watermark: Offset, rules: ReplicationRules) -> Self {
        Self {
            local,
            rules,
            leader: -1,
            leader_epoch: NO_LEADER_EPOCH,
            partition_epoch: -1,
            leader_epoch_start: None,
            replicas: Vec::new(),
            adding: Vec::new(),
            isr: IsrState::default(),
            remotes: Vec::new(),
            high_watermark,
            high_watermark_limit: Offset::MAX,
            now_ms: 0,
        }
    }

    pub fn rules(&self) -> ReplicationRules {
        self.rules
    }

    pub fn set_rules(&mut self, rules: ReplicationRules) {
        self.rules = rules;
    }

    /// Takes over a registration (`makeLeader`, `makeFollower`).
    pub fn apply(
        &mut self,
        registration: &PartitionRegistration,
        next_offset: Offset,
        now_ms: i64,
        active: ActiveEpochs<'_>,
    ) -> Transition {
        if registration.partition_epoch < self.partition_epoch
            || registration.leader_epoch < self.leader_epoch
        {
            return Transition::Stale;
        }
        self.see(now_ms);
        // If epochs are missing in between, others may have led, and followers may have cut what they told us of: where
        // Kafka goes by leadership alone, a stale end would count for the high watermark.
        let goes_on = self.is_leader() && registration.leader_epoch - self.leader_epoch <= 1;
        let is_new_epoch = registration.leader_epoch > self.leader_epoch;
        // The answer to our own AlterPartition told this registration already; another one may be in flight.
        let is_news = registration.partition_epoch > self.partition_epoch;
        self.leader = registration.leader;
        self.leader_epoch = registration.leader_epoch;
        self.partition_epoch = registration.partition_epoch;
        self.replicas.clone_from(&registration.replicas);
        self.adding.clone_from(&registration.adding_replicas);
        if !self.is_leader() {
            self.leader_epoch_start = None;
            self.isr.commit(&[]);
            self.remotes.clear();
            return Transition::Follower { is_new_epoch };
        }
        if is_news || is_new_epoch {
            self.isr.commit(&registration.isr);
        }
        self.assign_remotes(active);
        if is_new_epoch {
            self.leader_epoch_start = Some(next_offset);
            for remote in &mut self.remotes {
                let in_isr = registration.isr.contains(&remote.id);
                remote.reset(next_offset, !goes_on, in_isr, self.now_ms);
            }
        }
        self.advance_high_watermark(next_offset);
        Transition::Leader { is_new_epoch }
    }

    fn assign_remotes(&mut self, active: ActiveEpochs<'_>) {
        let mut known = std::mem::take(&mut self.remotes);
        let others = self.replicas.iter().filter(|id| **id != self.local);
        self.remotes = others
            .map(|id| {
                let at = known.iter().position(|remote| remote.id == *id);
                let mut remote =
                    at.map_or_else(|| RemoteReplica::new(*id), |at| known.swap_remove(at));
                remote.active_epoch = active(*id);
                remote
            })
            .collect();
    }

    /// Brokers came, went, or were fenced.
    pub fn on_brokers_changed(&mut self, next_offset: Offset, active: ActiveEpochs<'_>) -> Effects {
        for remote in &mut self.remotes {
            remote.active_epoch = active(remote.id);
        }
        Effects {
            high_watermark_moved: self.advance_high_watermark(next_offset),
            low_watermark_moved: true,
            proposal: None,
        }
    }

    fn see(&mut self, now_ms: i64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// The broker of this replica.
    pub fn local(&self) -> BrokerId {
        self.local
    }

    pub fn is_leader(&self) -> bool {
        self.leader == self.local
    }

    /// Whether a reassignment adds the replica of this broker.
    pub fn is_adding(&self, id: BrokerId) -> bool {
        self.adding.contains(&id)
    }

    /// -1 while nobody leads.
    pub fn leader(&self) -> BrokerId {
        self.leader
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    pub fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub fn isr(&self) -> &IsrState {
        &self.isr
    }

    pub fn remotes(&self) -> &[RemoteReplica] {
        &self.remotes
    }

    /// Whether the followers keep the high watermark below the log end.
    pub fn has_followers(&self) -> bool {
        !self.remotes.is_empty()
    }

    /// `min.insync.replicas`, but never more than the partition has (`effectiveMinIsr`).
    pub fn effective_min_isr(&self) -> usize {
        self.rules.min_insync_replicas.min(self.replicas.len())
    }

    fn is_under_min_isr(&self) -> bool {
        self.isr.committed().len() < self.effective_min_isr()
    }

    /// The leader appended up to `next_offset`; tells whether the high watermark moved.
    pub fn on_append(&mut self, next_offset: Offset) -> bool {
        self.advance_high_watermark(next_offset)
    }

    /// Keeps the leader's high watermark at or below `limit` from now on.
    pub fn limit_high_watermark(&mut self, limit: Offset) {
        self.high_watermark_limit = limit;
    }

    /// The smallest log end offset of the maximal ISR, and of those that are about to join it. Never while the ISR is
    /// too small for acks=all (KIP-966), and never back (`maybeIncrementLeaderHW`).
    fn advance_high_watermark(&mut self, next_offset: Offset) -> bool {
        if !self.is_leader() || self.is_under_min_isr() {
            return false;
        }
        let lag_max_ms = self.rules.replica_lag_time_max_ms;
        let counts = |remote: &&RemoteReplica| {
            self.isr.maximal_contains(remote.id)
                || remote.is_caught_up(next_offset, self.now_ms, lag_max_ms)
                    && remote.is_isr_eligible()
        };
        let counted = self.remotes.iter().filter(counts);
        let own_end = next_offset.min(self.high_watermark_limit);
        let committed = counted.fold(own_end, |least, remote| least.min(remote.log_end_offset));
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

    /// A follower fetches: everything below its fetch offset is in its log. A fetch that
    /// [`PartitionState::check_replica`] refuses is ignored.
    pub fn on_follower_fetch(&mut self, fetch: &FollowerFetch, next_offset: Offset) -> Effects {
        self.see(fetch.now_ms);
        let Ok(at) = self.check_follower(fetch.replica_id, fetch.broker_epoch) else {
            return Effects::default();
        };
        let remote = &mut self.remotes[at];
        let end_moved = remote.log_end_offset != fetch.fetch_offset;
        let low_watermark_moved = remote.log_start_offset != fetch.log_start_offset;
        remote.fetched(fetch, next_offset);
        let proposal = self.maybe_expand(at);
        let high_watermark_moved = end_moved && self.advance_high_watermark(next_offset);
        Effects {
            high_watermark_moved,
            low_watermark_moved,
            proposal,
        }
    }

    /// The least log start of all replicas on active brokers: below it nobody has records (`lowWatermarkIfLeader`).
    pub fn low_watermark(&self, log_start_offset: Offset) -> Offset {
        let active = self.remotes.iter().filter(|it| it.active_epoch.is_some());
        let starts = active.map(|remote| remote.log_start_offset);
        starts.fold(log_start_offset, Offset::min)
    }

    /// Index of the follower. A replica that is not assigned here may be ahead of us; an older incarnation of a broker is
    /// not (KIP-903).
    fn check_follower(&self, replica_id: BrokerId, broker_epoch: i64) -> Result<usize, Error> {
        if !self.is_leader() {
            return Err(ErrorCode::NotLeaderOrFollower.into());
        }
        let at = self.remotes.iter().position(|r| r.id == replica_id);
        let at = at.ok_or(ErrorCode::UnknownLeaderEpoch)?;
        let known = self.remotes[at].broker_epoch;
        if broker_epoch != -1 && known.is_some_and(|known| known > broker_epoch) {
            return Err(ErrorCode::NotLeaderOrFollower.into());
        }
        Ok(at)
    }

    /// Fails unless `replica_id` follows here, in this incarnation.
    pub fn check_replica(&self, replica_id: BrokerId, broker_epoch: i64) -> Result<(), Error> {
        self.check_follower(replica_id, broker_epoch).map(|_| ())
    }

    /// The high watermark that the follower knows; -1 before its first answer.
    pub fn told_high_watermark(&self, replica_id: BrokerId) -> Offset {
        let remote = self.remotes.iter().find(|r| r.id == replica_id);
        remote.map_or(UNKNOWN_OFFSET, |remote| remote.told_high_watermark)
    }

    /// The high watermark goes out to the follower.
    pub fn tell_high_watermark(&mut self, replica_id: BrokerId) {
        let high_watermark = self.high_watermark;
        if let Some(remote) = self.remotes.iter_mut().find(|r| r.id == replica_id) {
            remote.told_high_watermark = high_watermark;
        }
    }

    /// The replica that a consumer in the rack that `is_near` knows should read `offset` from: none if this leader is there
    /// itself, else the one that is least behind (KIP-392, `RackAwareReplicaSelector`).
    pub fn preferred_read_replica(
        &self,
        offset: Offset,
        is_near: &dyn Fn(BrokerId) -> bool,
    ) -> Option<BrokerId> {
        if !self.is_leader() || is_near(self.local) {
            return None;
        }
        let has_it = |remote: &&RemoteReplica| {
            (remote.log_start_offset..=remote.log_end_offset).contains(&offset)
                && is_near(remote.id)
        };
        let best =
            self.remotes.iter().filter(has_it).max_by_key(|remote| {
                (remote.log_end_offset, remote.last_caught_up_ms(), remote.id)
            });
        best.map(|remote| remote.id)
    }

    /// A follower joins when it has all that is committed and all that this leader found when it took over, and the
    /// controller would take it (`needsExpandIsr`).
    fn maybe_expand(&mut self, at: usize) -> Option<IsrProposal> {
        let remote = &self.remotes[at];
        let epoch_start = self.leader_epoch_start?;
        let is_in_sync = remote.log_end_offset >= self.high_watermark.max(epoch_start);
        if self.isr.is_in_flight()
            || self.isr.maximal_contains(remote.id)
            || !is_in_sync
            || !remote.is_isr_eligible()
        {
            return None;
        }
        let joining = remote.id;
        let members = self.isr.committed().iter().copied();
        let proposal = self.propose(members.chain([joining]));
        self.isr.expand(joining, proposal.clone());
        Some(proposal)
    }

    fn propose(&self, members: impl Iterator<Item = BrokerId>) -> IsrProposal {
        let epoch = |id| {
            let remote = self.remotes.iter().find(|remote| remote.id == id);
            remote.and_then(|remote| remote.broker_epoch).unwrap_or(-1)
        };
        IsrProposal {
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            isr: members.map(|id| (id, epoch(id))).collect(),
        }
    }

    /// Time passed: members that lag too long are to leave the ISR. The high watermark goes by the old ISR until the
    /// controller has confirmed (`maybeShrinkIsr`).
    pub fn on_tick(&mut self, next_offset: Offset, now_ms: i64) -> Effects {
        self.see(now_ms);
        let mut effects = Effects::default();
        if !self.is_leader() {
            return effects;
        }
        effects.high_watermark_moved = self.advance_high_watermark(next_offset);
        if self.isr.is_in_flight() {
            return effects;
        }
        let lag_max_ms = self.rules.replica_lag_time_max_ms;
        let is_in_sync = |id: &BrokerId| {
            let remote = self.remotes.iter().find(|remote| remote.id == *id);
            *id == self.local
                || remote.is_some_and(|r| r.is_caught_up(next_offset, self.now_ms, lag_max_ms))
        };
        let committed = self.isr.committed();
        let left: Vec<BrokerId> = committed.iter().copied().filter(is_in_sync).collect();
        if left.len() < committed.len() {
            let proposal = self.propose(left.into_iter());
            self.isr.shrink(proposal.clone());
            effects.proposal = Some(proposal);
        }
        effects
    }

    /// The controller answered `proposal`, or nobody did. An answer to another proposal than the one in flight is ignored.
    pub fn on_alter_partition(
        &mut self,
        proposal: &IsrProposal,
        answer: Result<&CommittedIsr, ErrorCode>,
        next_offset: Offset,
    ) -> Effects {
        let mut effects = Effects::default();
        if !self.is_leader() || self.isr.proposal() != Some(proposal) {
            return effects;
        }
        match answer {
            Ok(committed)
                if committed.leader_epoch != self.leader_epoch
                    || committed.partition_epoch < self.partition_epoch => {}
            Ok(committed) => {
                self.isr.commit(&committed.isr);
                self.partition_epoch = committed.partition_epoch;
                effects.high_watermark_moved = self.advance_high_watermark(next_offset);
            }
            Err(code) => match refusal(code) {
                Refusal::Void => self.isr.reset(),
                Refusal::Superseded => {}
                Refusal::Retry => effects.proposal = Some(proposal.clone()),
            },
        }
        effects
    }

    /// A follower appended what its leader sent; tells whether the high watermark moved. It never goes back by a new leader
    /// that has yet to learn it: what was committed is on both.
    pub fn on_replicated(&mut self, leader_high_watermark: Offset, next_offset: Offset) -> bool {
        let known = leader_high_watermark.min(next_offset);
        let moved = known > self.high_watermark;
        if moved {
            self.high_watermark = known;
        }
        moved
    }

    /// Checks a client's idea of the leader epoch (KIP-320); -1 means it has none.
    pub fn check_epoch(&self, current_leader_epoch: LeaderEpoch) -> Result<(), Error> {
        if current_leader_epoch >= 0 && current_leader_epoch < self.leader_epoch {
            return Err(ErrorCode::FencedLeaderEpoch.into());
        }
        if current_leader_epoch > self.leader_epoch {
            return Err(ErrorCode::UnknownLeaderEpoch.into());
        }
        Ok(())
    }

    /// As [`PartitionState::check_epoch`], and this replica must lead.
    pub fn check_leader(&self, current_leader_epoch: LeaderEpoch) -> Result<(), Error> {
        self.check_epoch(current_leader_epoch)?;
        if !self.is_leader() {
            return Err(ErrorCode::NotLeaderOrFollower.into());
        }
        Ok(())
    }

    /// Whether acks=all may be appended.
    pub fn check_in_sync(&self) -> Result<(), Error> {
        if self.is_under_min_isr() {
            return Err(ErrorCode::NotEnoughReplicas.into());
        }
        Ok(())
    }

    /// What an acks=all append gets whose records are below the high watermark (`checkEnoughReplicasReachOffset`): the ISR may
    /// have shrunk, or the minimum grown, since they were committed.
    pub fn check_committed(&self) -> Result<(), Error> {
        if self.isr.maximal_len() < self.effective_min_isr() {
            return Err(ErrorCode::NotEnoughReplicasAfterAppend.into());
        }
        Ok(())
    }

    /// Whether the high watermark is right for clients: a new leader's may be behind what the old one told until its own
    /// epoch is committed (KIP-207).
    pub fn check_offsets_known(&self) -> Result<(), Error> {
        if self.leader_epoch_start > Some(self.high_watermark) {
            return Err(ErrorCode::OffsetNotAvailable.into());
        }
        Ok(())
    }
}
