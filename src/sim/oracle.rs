//! What must hold after every step, whatever fails (names after the invariants of Kafka's TLA+ specifications).
//!
//! The oracle keeps the one history of each partition: what any leader's high watermark ever passed. Of each replica it remembers
//! how far its log is that history, so that a look at all of them after every event costs next to nothing.

use std::collections::BTreeMap;

use super::replica_log::{Entry, ReplicaLog};
use super::{NodeId, PartitionIndex};
use crate::metadata::{LeaderRecoveryState, MetadataImage, PartitionRegistration};
use crate::partition::PartitionState;
use crate::types::{LeaderEpoch, Offset, ProducerId};

/// A broken invariant: its name, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// The result of a check.
pub type Checked = Result<(), Violation>;

macro_rules! ensure {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(Violation(format!($($what)*)));
        }
    };
}

#[derive(Debug, Default)]
struct History {
    committed: Vec<Entry>,
    /// The leader epoch in which each of them was committed.
    committed_in: Vec<LeaderEpoch>,
    /// The last sequence that each producer has in it.
    sequences: BTreeMap<ProducerId, i32>,
    leaders: BTreeMap<LeaderEpoch, NodeId>,
    registration: Option<PartitionRegistration>,
    replicas: BTreeMap<NodeId, Seen>,
}

/// A replica at the last look.
#[derive(Debug, Default)]
struct Seen {
    /// Its log is the history up to here; then either ends, or they differ.
    matched: usize,
    /// Which of the node's processes had which high watermark.
    process: u64,
    high_watermark: Offset,
}

/// A replica as it is now.
pub struct Replica<'a> {
    pub node: NodeId,
    pub partition: PartitionIndex,
    pub log: &'a mut ReplicaLog,
    /// What the node's process, by its number, knows of the partition.
    pub state: Option<(u64, &'a PartitionState)>,
}

impl History {
    /// ReplicationQuorumSuperset: the leader of the present epoch lets its high watermark wait for all that the controller has in
    /// the ISR.
    fn maximal_isr(
        &self,
        node: NodeId,
        partition: PartitionIndex,
        state: &PartitionState,
    ) -> Checked {
        let Some(registration) = &self.registration else {
            return Ok(());
        };
        if registration.leader != node || registration.leader_epoch != state.leader_epoch() {
            return Ok(());
        }
        let mut isr = registration.isr.iter();
        let missing = isr.find(|id| !state.isr().maximal_contains(**id));
        ensure!(
            missing.is_none(),
            "ReplicationQuorumSuperset: leader {node} of {partition} does not wait for {missing:?}, {:?} against {registration:?}",
            state.isr()
        );
        Ok(())
    }
}

/// The judge of one run.
#[derive(Debug, Default)]
pub struct Oracle {
    partitions: BTreeMap<PartitionIndex, History>,
    min_insync_replicas: usize,
    /// Acknowledged records.
    pub acknowledged: usize,
}

impl Oracle {
    /// `min_insync_replicas` is the topic's.
    pub fn new(min_insync_replicas: usize) -> Self {
        Self {
            min_insync_replicas,
            ..Self::default()
        }
    }

    fn history(&mut self, partition: PartitionIndex) -> &mut History {
        self.partitions.entry(partition).or_default()
    }

    /// ConsistentRead: whatever a leader shows to consumers is the history, and adds to its end. Nothing in it is there
    /// twice, or out of its producer's order.
    pub fn high_watermark_moved(
        &mut self,
        node: NodeId,
        partition: PartitionIndex,
        log: &ReplicaLog,
        leader_epoch: LeaderEpoch,
        high_watermark: Offset,
    ) -> Checked {
        ensure!(
            high_watermark <= log.next_offset(),
            "high watermark {high_watermark} of {partition} on {node} is beyond the log's end {}",
            log.next_offset()
        );
        let shown = &log.entries()[..high_watermark as usize];
        let history = self.history(partition);
        let known = history.committed.len().min(shown.len());
        let seen = history.replicas.get(&node).map_or(0, |seen| seen.matched);
        let matched = seen.min(log.unchanged()).min(known);
        if let Some(at) = (matched..known).find(|at| shown[*at] != history.committed[*at]) {
            return Err(Violation(format!(
                "ConsistentRead: node {node} shows {:?} at {partition}@{at}, which was committed as {:?}",
                shown[at], history.committed[at]
            )));
        }
        for entry in &shown[known..] {
            let last = history.sequences.insert(entry.producer_id, entry.sequence);
            ensure!(
                entry.sequence == last.map_or(0, |last| last + 1),
                "ExactlyOnce: {entry:?} committed in {partition} on {node} behind sequence {last:?}"
            );
            history.committed.push(*entry);
            history.committed_in.push(leader_epoch);
        }
        Ok(())
    }

    /// NoAcknowledgedRecordLost, the first half: what is acknowledged is committed.
    pub fn acknowledge(
        &mut self,
        partition: PartitionIndex,
        producer_id: ProducerId,
        sequence: i32,
        offset: Offset,
    ) -> Checked {
        self.acknowledged += 1;
        let found = self.history(partition).committed.get(offset as usize);
        ensure!(
            found.is_some_and(|e| e.producer_id == producer_id && e.sequence == sequence),
            "NoAcknowledgedRecordLost: {partition}@{offset} was acknowledged to producer {producer_id} as sequence {sequence}, committed is {found:?}"
        );
        Ok(())
    }

    /// What the controller committed for one partition: epochs grow, one leader an epoch, nobody in the ISR who is not alive, and
    /// nobody is taken from those who may lead while they are few, but who came back from a crash: one of `registered`.
    pub fn registered(
        &mut self,
        partition: PartitionIndex,
        new: &PartitionRegistration,
        image: &MetadataImage,
        registered: &[NodeId],
    ) -> Checked {
        let min_isr = self.min_insync_replicas;
        let history = self.history(partition);
        let may_lead = |it: &PartitionRegistration| [&it.isr[..], &it.elr[..]].concat();
        ensure!(
            new.elr.is_empty() || new.isr.len() < min_isr,
            "EligibleWhileNeeded: {partition} has enough in sync, and {new:?}"
        );
        if let Some(old) = &history.registration {
            let left = may_lead(new);
            let mut gone = may_lead(old).into_iter().filter(|id| !left.contains(id));
            let dropped = gone.find(|id| !registered.contains(id));
            ensure!(
                left.len() >= min_isr || dropped.is_none(),
                "EnoughMayLead: {partition} went from {old:?} to {new:?}, without {dropped:?}"
            );
            ensure!(
                new.partition_epoch >= old.partition_epoch && new.leader_epoch >= old.leader_epoch,
                "MonotonicEpochs: {partition} went from {old:?} to {new:?}"
            );
            ensure!(
                new == old || new.partition_epoch > old.partition_epoch,
                "MonotonicEpochs: {partition} changed within a partition epoch, from {old:?} to {new:?}"
            );
        }
        if new.has_leader() {
            let leader = *history
                .leaders
                .entry(new.leader_epoch)
                .or_insert(new.leader);
            ensure!(
                leader == new.leader,
                "SingleLeader: epoch {} of {partition} has leaders {leader} and {}",
                new.leader_epoch,
                new.leader
            );
            ensure!(
                new.isr.contains(&new.leader),
                "LeaderInIsr: {partition} has {new:?}"
            );
        }
        for id in &new.isr {
            ensure!(
                image.cluster.is_active(*id),
                "NoFencedMember: broker {id} is not active, but in the ISR of {partition}: {new:?}"
            );
            ensure!(
                !new.elr.contains(id),
                "DisjointElr: broker {id} is in both sets of {partition}: {new:?}"
            );
        }
        ensure!(
            new.leader_recovery_state == LeaderRecoveryState::Recovered || new.isr.len() <= 1,
            "RecoveringAlone: {partition} has {new:?}"
        );
        history.registration = Some(new.clone());
        Ok(())
    }

    /// Members of ISR and ELR that the controller may make leader.
    pub fn candidates(&self, partition: PartitionIndex) -> impl Iterator<Item = NodeId> {
        let history = self.partitions.get(&partition);
        let registration = history.and_then(|history| history.registration.as_ref());
        registration
            .into_iter()
            .flat_map(|it| it.isr.iter().chain(&it.elr).copied())
    }

    /// A power failure took what was not synced, and may have.
    pub fn power_failed(&mut self, partition: PartitionIndex, node: NodeId, log: &ReplicaLog) {
        let seen = self.history(partition).replicas.entry(node).or_default();
        seen.matched = seen.matched.min(log.entries().len());
    }

    /// One replica after an event:
    /// - CommittedStays: what is committed is never cut off again (KIP-101), but on who follows the leader of an older epoch.
    /// - LogMatching: up to its high watermark its log is the history.
    /// - MonotonicHighWatermark: it never goes back while the process lives.
    /// - RecoveryPoint: what the checkpoint says is synced, is.
    pub fn replica(&mut self, now: Replica<'_>) -> Checked {
        let (node, partition, log) = (now.node, now.partition, now.log);
        let history = self.history(partition);
        let seen = history.replicas.entry(node).or_default();
        let unchanged = log.look();
        let leader_epoch = now
            .state
            .map_or(LeaderEpoch::MAX, |(_, it)| it.leader_epoch());
        let mut cut = unchanged..seen.matched;
        ensure!(
            cut.all(|at| history.committed_in[at] > leader_epoch),
            "CommittedStays: node {node} cut {partition} at {unchanged}, it had {} committed entries",
            seen.matched
        );
        seen.matched = seen.matched.min(unchanged);
        let rest = log.entries()[seen.matched..].iter();
        let rest = rest.zip(&history.committed[seen.matched..]);
        seen.matched += rest
            .take_while(|(entry, committed)| entry == committed)
            .count();
        let (recovery_point, synced) = log.durable();
        ensure!(
            recovery_point <= synced,
            "RecoveryPoint: node {node} checkpoints {recovery_point} for {partition}, synced is {synced}"
        );
        let Some((process, state)) = now.state else {
            return Ok(());
        };
        let high_watermark = state.high_watermark();
        ensure!(
            (0..=seen.matched as Offset).contains(&high_watermark),
            "LogMatching: node {node} has high watermark {high_watermark} for {partition}, its log of {} entries is the history up to {}",
            log.next_offset(),
            seen.matched
        );
        ensure!(
            process != seen.process || high_watermark >= seen.high_watermark,
            "MonotonicHighWatermark: of {partition} on {node} it went from {} to {high_watermark}",
            seen.high_watermark
        );
        (seen.process, seen.high_watermark) = (process, high_watermark);
        history.maximal_isr(node, partition, state)
    }

    /// LeaderCandidateCompleteness: whoever may become leader has all that is committed. As of the last look.
    pub fn candidate(&self, partition: PartitionIndex, node: NodeId) -> Checked {
        let Some(history) = self.partitions.get(&partition) else {
            return Ok(());
        };
        let matched = history.replicas.get(&node).map_or(0, |seen| seen.matched);
        ensure!(
            matched == history.committed.len(),
            "LeaderCandidateCompleteness: node {node} may lead {partition} with {matched} of {} committed entries",
            history.committed.len()
        );
        Ok(())
    }

    /// ConsistentRead, for consumers: no gap, no other order, nothing that is not committed.
    pub fn consumed(
        &self,
        partition: PartitionIndex,
        position: Offset,
        entries: &[Entry],
    ) -> Checked {
        let history = self.partitions.get(&partition);
        let committed = history.map_or(&[][..], |history| &history.committed[..]);
        let committed = committed.get(position as usize..).unwrap_or_default();
        ensure!(
            committed.starts_with(entries),
            "ConsistentRead: a consumer got {entries:?} at {partition}@{position}, committed is {:?}",
            &committed[..committed.len().min(entries.len())]
        );
        Ok(())
    }

    /// Records that any leader's high watermark has passed.
    pub fn committed_count(&self, partition: PartitionIndex) -> usize {
        let history = self.partitions.get(&partition);
        history.map_or(0, |history| history.committed.len())
    }

    /// At the end, with everything healed: all replicas hold the history and nothing else.
    pub fn converged(&self, partition: PartitionIndex, node: NodeId, log: &ReplicaLog) -> Checked {
        let history = self.partitions.get(&partition);
        let committed = history.map_or(&[][..], |history| &history.committed[..]);
        ensure!(
            log.entries() == committed,
            "Convergence: node {node} has {} entries of {partition}, {} are committed",
            log.entries().len(),
            committed.len()
        );
        Ok(())
    }
}
