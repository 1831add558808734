//! What must hold after every step, whatever fails (names after the invariants of Kafka's TLA+ specifications).
//!
//! The oracle keeps the one history of each partition: what any leader's high watermark ever passed.

use std::collections::BTreeMap;

use super::replica_log::{Entry, ReplicaLog};
use super::{NodeId, PartitionIndex};
use crate::metadata::{LeaderRecoveryState, MetadataImage, PartitionRegistration};
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
    /// The last sequence that each producer has in it.
    sequences: BTreeMap<ProducerId, i32>,
    leaders: BTreeMap<LeaderEpoch, NodeId>,
    registration: Option<PartitionRegistration>,
}

/// The judge of one run.
#[derive(Debug, Default)]
pub struct Oracle {
    partitions: BTreeMap<PartitionIndex, History>,
    /// Acknowledged records.
    pub acknowledged: usize,
}

impl Oracle {
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
        if let Some(at) = (0..known).find(|at| shown[*at] != history.committed[*at]) {
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

    /// What the controller committed for one partition: epochs grow, one leader an epoch, nobody in the ISR who is not alive.
    pub fn registered(
        &mut self,
        partition: PartitionIndex,
        new: &PartitionRegistration,
        image: &MetadataImage,
    ) -> Checked {
        let history = self.history(partition);
        if let Some(old) = &history.registration {
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
    pub fn candidates(&self, partition: PartitionIndex) -> Vec<NodeId> {
        let registration = self
            .partitions
            .get(&partition)
            .and_then(|history| history.registration.as_ref());
        registration.map_or_else(Vec::new, |r| [&r.isr[..], &r.elr[..]].concat())
    }

    /// LeaderCandidateCompleteness: whoever may become leader has all that is committed.
    pub fn candidate(
        &self,
        partition: PartitionIndex,
        node: NodeId,
        log: Option<&ReplicaLog>,
    ) -> Checked {
        let Some(history) = self.partitions.get(&partition) else {
            return Ok(());
        };
        let committed = &history.committed[..];
        let entries = log.map_or(&[][..], ReplicaLog::entries);
        ensure!(
            entries.starts_with(committed),
            "LeaderCandidateCompleteness: node {node} may lead {partition} with {} of {} committed entries (first difference at {:?})",
            entries.len(),
            committed.len(),
            (0..committed.len()).find(|at| entries.get(*at) != Some(&committed[*at]))
        );
        Ok(())
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
