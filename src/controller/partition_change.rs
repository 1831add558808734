//! Works out the record for a change of one partition: leader election, eligible leader replicas (KIP-966), the end of a
//! reassignment. After Kafka's `PartitionChangeBuilder`, for metadata.version 3.7-IV2 and up.

use crate::metadata::{
    LeaderRecoveryState, NO_LEADER, NO_LEADER_CHANGE, PartitionRegistration, unchanged_partition,
};
use crate::protocol::metadata_records::PartitionChangeRecord;
use crate::types::{BrokerId, Uuid};

/// How a leader is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Election {
    /// The first assigned replica if it can lead, else as `Online`.
    Preferred,
    /// The present leader, else the first in-sync (or eligible) replica.
    Online,
    /// As `Online`, else any replica that is alive.
    Unclean,
}

/// What a partition shall become. Start from [`PartitionChange::of`], set fields, [`PartitionChange::build`].
pub(super) struct PartitionChange<'a> {
    pub partition: &'a PartitionRegistration,
    pub topic_id: Uuid,
    pub partition_id: i32,
    pub min_isr: usize,
    pub elr_enabled: bool,
    pub election: Election,
    pub isr: Vec<BrokerId>,
    pub replicas: Vec<BrokerId>,
    pub removing_replicas: Vec<BrokerId>,
    pub adding_replicas: Vec<BrokerId>,
    pub leader_recovery_state: LeaderRecoveryState,
    /// A replica that is in another log directory than the registration says (KIP-858).
    pub moved_to: Option<(BrokerId, Uuid)>,
    /// A replica whose former log directory is gone.
    pub wiped: Option<BrokerId>,
    /// A replica that may have lost records it had acknowledged.
    pub unclean_shutdown: Option<BrokerId>,
    elr: Vec<BrokerId>,
}

impl<'a> PartitionChange<'a> {
    pub fn of(partition: &'a PartitionRegistration, topic_id: Uuid, partition_id: i32) -> Self {
        Self {
            partition,
            topic_id,
            partition_id,
            min_isr: 1,
            elr_enabled: false,
            election: Election::Online,
            isr: partition.isr.clone(),
            replicas: partition.replicas.clone(),
            removing_replicas: partition.removing_replicas.clone(),
            adding_replicas: partition.adding_replicas.clone(),
            leader_recovery_state: partition.leader_recovery_state,
            moved_to: None,
            wiped: None,
            unclean_shutdown: None,
            elr: partition.elr.clone(),
        }
    }

    /// The record, or none when nothing would change. `acceptable` says who may lead, `directory` where a new replica goes.
    pub fn build(
        mut self,
        acceptable: &dyn Fn(BrokerId) -> bool,
        directory: &dyn Fn(BrokerId) -> Uuid,
    ) -> Option<PartitionChangeRecord> {
        let nothing = unchanged_partition(self.topic_id, self.partition_id);
        let mut record = nothing.clone();
        self.complete_reassignment();
        self.populate_elr();
        self.elect(&mut record, acceptable);
        let partition = self.partition;
        let lost_replica = partition
            .replicas
            .iter()
            .any(|id| !self.replicas.contains(id));
        if record.leader == NO_LEADER_CHANGE && lost_replica {
            // Fences the replica that was taken away.
            record.leader = partition.leader;
        }
        self.set_elr(&mut record);
        let isr_allowed = !self.isr.is_empty() || self.elr_enabled;
        if record.isr.is_none() && isr_allowed && self.isr != partition.isr {
            record.isr = Some(self.isr.clone());
        }
        self.set_last_known_leader(&mut record);
        self.set_assignment(&mut record, directory);
        if self.leader_recovery_state != partition.leader_recovery_state {
            record.leader_recovery_state = self.leader_recovery_state as i8;
        }
        (record != nothing).then_some(record)
    }

    /// Drops the removing replicas once all adding ones are in sync (`PartitionReassignmentReplicas`).
    fn complete_reassignment(&mut self) {
        if self.removing_replicas.is_empty() && self.adding_replicas.is_empty() {
            return;
        }
        let stays = |id: &BrokerId| !self.removing_replicas.contains(id);
        let isr: Vec<BrokerId> = self.isr.iter().copied().filter(stays).collect();
        let replicas: Vec<BrokerId> = self.replicas.iter().copied().filter(stays).collect();
        let added = self.adding_replicas.iter().all(|id| isr.contains(id));
        // Where the number of replicas shrinks, all that stay must be in sync: the ISR would shrink with it otherwise.
        let shrinks = self.adding_replicas.len() < self.removing_replicas.len();
        let enough = !isr.is_empty() && (!shrinks || replicas.iter().all(|id| isr.contains(id)));
        if added && enough {
            self.isr = isr;
            self.replicas = replicas;
            self.removing_replicas.clear();
            self.adding_replicas.clear();
        }
    }

    /// While the ISR is below the minimum, whoever leaves it stays eligible, unless it may have lost records.
    fn populate_elr(&mut self) {
        if !self.elr_enabled {
            return;
        }
        if self.isr.len() >= self.min_isr {
            self.elr.clear();
            return;
        }
        let mut candidates = std::mem::take(&mut self.elr);
        candidates.extend(&self.partition.isr);
        candidates.retain(|id| !self.isr.contains(id) && self.unclean_shutdown != Some(*id));
        candidates.sort_unstable();
        candidates.dedup();
        self.elr = candidates;
    }

    fn elect(&mut self, record: &mut PartitionChangeRecord, acceptable: &dyn Fn(BrokerId) -> bool) {
        let (leader, unclean) = self.leader(acceptable);
        if leader == self.partition.leader {
            return;
        }
        if self.elr.contains(&leader) {
            self.isr = vec![leader];
            self.elr.retain(|id| *id != leader);
        }
        record.leader = leader;
        if unclean {
            // Records that only others have are lost.
            record.isr = Some(vec![leader]);
            if self.partition.leader_recovery_state != LeaderRecoveryState::Recovering {
                record.leader_recovery_state = LeaderRecoveryState::Recovering as i8;
            }
        }
    }

    /// The best leader and whether choosing it is unclean.
    fn leader(&self, acceptable: &dyn Fn(BrokerId) -> bool) -> (BrokerId, bool) {
        let valid = |id: BrokerId| {
            let complete =
                self.isr.contains(&id) || (self.isr.is_empty() && self.elr.contains(&id));
            complete && acceptable(id)
        };
        let preferred = self.replicas.first().copied();
        let preferred = preferred.filter(|_| self.election == Election::Preferred);
        let candidates = preferred.into_iter().chain([self.partition.leader]);
        let mut candidates = candidates.chain(self.replicas.iter().copied());
        if let Some(leader) = candidates.find(|id| valid(*id)) {
            return (leader, false);
        }
        if let Some(leader) = self.last_known_leader().filter(|id| acceptable(*id)) {
            return (leader, true);
        }
        if self.election == Election::Unclean {
            let mut replicas = self.replicas.iter().copied();
            if let Some(leader) = replicas.find(|id| acceptable(*id)) {
                return (leader, true);
            }
        }
        (NO_LEADER, false)
    }

    /// Who led last, if nobody else can lead without losing records either.
    fn last_known_leader(&self) -> Option<BrokerId> {
        let usable = self.elr_enabled && self.elr.is_empty() && self.isr.is_empty();
        match self.partition.last_known_elr[..] {
            [leader] if usable => Some(leader),
            _ => None,
        }
    }

    fn set_elr(&mut self, record: &mut PartitionChangeRecord) {
        let unclean = record.isr.is_some();
        if unclean || !self.elr_enabled {
            self.elr.clear();
        }
        if self.elr != self.partition.elr {
            record.eligible_leader_replicas = Some(std::mem::take(&mut self.elr));
        }
    }

    /// `last_known_elr` holds the leader that a leaderless partition had, unless its disk was wiped: others may have what it
    /// lost. Kafka would elect it as soon as its new directory is known.
    fn set_last_known_leader(&self, record: &mut PartitionChangeRecord) {
        if !self.elr_enabled {
            return;
        }
        let known = &self.partition.last_known_elr;
        let is_wiped = self.wiped.is_some_and(|id| known[..] == [id]) && self.replicas.len() > 1;
        if record.leader == NO_LEADER && known.is_empty() {
            record.last_known_elr = Some(vec![self.partition.leader]);
        } else if !known.is_empty() && (record.leader >= 0 || is_wiped) {
            record.last_known_elr = Some(Vec::new());
        }
    }

    fn set_assignment(
        &self,
        record: &mut PartitionChangeRecord,
        directory: &dyn Fn(BrokerId) -> Uuid,
    ) {
        let partition = self.partition;
        if !self.replicas.is_empty() && self.replicas != partition.replicas {
            record.replicas = Some(self.replicas.clone());
        }
        if record.replicas.is_some() || self.moved_to.is_some() {
            let directories = self.replicas.iter().map(|id| match self.moved_to {
                Some((moved, to)) if moved == *id => to,
                _ if partition.replicas.contains(id) => partition.directory(*id),
                _ => directory(*id),
            });
            let directories: Vec<Uuid> = directories.collect();
            if record.replicas.is_some() || directories != partition.directories {
                record.directories = Some(directories);
            }
        }
        if self.removing_replicas != partition.removing_replicas {
            record.removing_replicas = Some(self.removing_replicas.clone());
        }
        if self.adding_replicas != partition.adding_replicas {
            record.adding_replicas = Some(self.adding_replicas.clone());
        }
    }
}
