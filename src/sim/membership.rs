//! The quorum where its voters come and go and lose their disks (KIP-853): who is elected, what is on a majority, who may come
//! and who has to go. Votes and replication are modelled; which change is allowed and who votes after it, the real rules say.

use std::sync::Arc;

use super::NodeId;
use super::bug::Bug;
use super::controller::Active;
use super::messages::Event;
use super::oracle::{Checked, Violation};
use super::quorum::{Entry, Replica};
use super::world::World;
use crate::protocol::metadata_records::MetadataRecord;
use crate::quorum::pure::Voters;
use crate::quorum::{VoterChange, VoterNode};
use crate::types::Uuid;

/// How long the voters stay as they are, at most.
const CHANGE_MS: usize = 700;

impl World {
    fn replica(&self, node: NodeId) -> &Replica {
        &self.quorum.replicas[&node]
    }

    /// Who lost its disk is another replica than the voter was.
    fn is_replica(&self, (node, directory_id): (NodeId, Uuid)) -> bool {
        let mistaken = self.plan.bug == Some(Bug::LostDiskKeepsItsVote);
        mistaken || self.replica(node).directory_id == directory_id
    }

    fn hears(&self, node: NodeId, other: NodeId) -> bool {
        self.is_running(other) && self.network.connects(node, other)
    }

    /// Those of `voters` that `node` is in touch with, itself included.
    fn in_touch(&self, node: NodeId, voters: &[(NodeId, Uuid)]) -> Vec<NodeId> {
        let present = voters.iter().copied();
        let present = present.filter(|voter| self.is_replica(*voter) && self.hears(node, voter.0));
        present.map(|(id, _)| id).collect()
    }

    /// Whether `node` is a voter, as far as is committed.
    pub(super) fn is_voter(&self, node: NodeId) -> bool {
        let voters = self.quorum.voters().replicas();
        let mut voters = voters.into_iter();
        voters.any(|voter| voter.0 == node && self.is_replica(voter))
    }

    // ---- elections and replication ---------------------------------------------------------------------------------

    /// Whether a majority of the voters that `node` knows vote for it: whose log goes further does not, nor who hears `leader`.
    pub(super) fn wins_election(&self, node: NodeId, leader: Option<NodeId>) -> bool {
        let known = self.quorum.voters_of(node);
        let voters = known.replicas();
        let mut in_touch = self.in_touch(node, &voters);
        // As raft has it, who is about to be removed stands as well: the others may need its log.
        let is_candidate = in_touch.contains(&node) || self.is_voter(node);
        if !self.is_running(node) || !is_candidate {
            return false;
        }
        if self.plan.bug == Some(Bug::CountsRemovedVoters) {
            in_touch.extend(self.in_touch(node, &known.former()));
        }
        in_touch.retain(|id| leader.is_none_or(|leader| !self.network.connects(leader, *id)));
        let end = self.replica(node).end();
        let votes = in_touch.iter().filter(|id| self.replica(**id).end() <= end);
        votes.count() > voters.len() / 2
    }

    /// Who was elected writes a first entry, and all that it has is committed.
    pub(super) fn take_over(&mut self, node: NodeId) -> Checked {
        self.check_elected(node)?;
        let entry = Entry {
            epoch: self.quorum.epoch,
            records: Arc::new([]),
            voters: Arc::clone(self.quorum.voters_of(node)),
        };
        let voters = entry.voters.replicas();
        self.log_mut_of(node).push(entry);
        for voter in self.in_touch(node, &voters) {
            self.copy_log(node, voter);
        }
        let committed = self.quorum.batches().len();
        let entries = self.replica(node).log[committed..].to_vec();
        for entry in entries {
            self.commit(entry)?;
        }
        Ok(())
    }

    /// The leader writes an entry; `None` from who leads no more, or is no controller.
    pub(super) fn append_entry(
        &mut self,
        node: NodeId,
        records: Arc<[MetadataRecord]>,
        voters: Option<Arc<Voters>>,
    ) -> Option<Entry> {
        let epoch = self.active(node)?.epoch;
        let known = || Arc::clone(self.quorum.voters_of(node));
        let entry = Entry {
            epoch,
            records,
            voters: voters.unwrap_or_else(known),
        };
        if self.plan.changes_voters && self.quorum.leads(node, epoch) {
            self.log_mut_of(node).push(entry.clone());
        }
        Some(entry)
    }

    /// Voters and observers that hear the leader get what it has, or soon.
    pub(super) fn replicate(&mut self, leader: NodeId) {
        if !self.plan.changes_voters || !self.is_running(leader) {
            return;
        }
        for node in self.plan.nodes.iter().copied() {
            if self.hears(leader, node) && self.rng.below(4) > 0 {
                self.copy_log(leader, node);
            }
        }
    }

    fn copy_log(&mut self, from: NodeId, to: NodeId) {
        if from != to {
            let log = std::mem::take(self.log_mut_of(from));
            let replica = self.quorum.replicas.get_mut(&to);
            replica.expect("all nodes have one").copy(&log);
            *self.log_mut_of(from) = log;
        }
    }

    fn log_mut_of(&mut self, node: NodeId) -> &mut Vec<Entry> {
        let replica = self.quorum.replicas.get_mut(&node);
        &mut replica.expect("all nodes have one").log
    }

    /// Whether the oldest proposal of the leader `node` is on a majority by now.
    pub(super) fn reaches_majority(&mut self, node: NodeId) -> bool {
        self.replicate(node);
        let is_entry = self.active(node).is_some_and(Active::proposes_entry);
        let count = if self.plan.changes_voters && is_entry {
            self.quorum.batches().len() + 1
        } else {
            0
        };
        self.has_majority(node, count)
    }

    /// Whether the leader `node` is in touch with a majority that has the first `count` entries of its log.
    pub(super) fn has_majority(&self, node: NodeId, count: usize) -> bool {
        let own = self.replica(node);
        let mut known = self.quorum.voters_of(node);
        if self.plan.bug == Some(Bug::CountsFormerMajority) {
            let mut of_epoch = own.log.iter().filter(|it| it.epoch == self.quorum.epoch);
            known = of_epoch.next().map_or(known, |first| &first.voters);
        }
        let voters = known.replicas();
        let in_touch = self.in_touch(node, &voters);
        let have_it = in_touch
            .iter()
            .filter(|id| self.replica(**id).agrees(own, count));
        self.is_running(node) && have_it.count() > voters.len() / 2
    }

    // ---- changes ---------------------------------------------------------------------------------------------------

    /// Somebody has a voter added or removed, or who lost its disk joins in its own place. One after the other.
    pub(super) fn on_change_voters(&mut self) -> Checked {
        let delay_ms = 1 + self.rng.below(CHANGE_MS) as i64;
        self.schedule(delay_ms, Event::ChangeVoters);
        let leader = self.quorum.leader.filter(|id| self.active(*id).is_some());
        let Some(leader) = leader else {
            return Ok(());
        };
        let known = Arc::clone(self.quorum.voters_of(leader));
        let is_changing = !Arc::ptr_eq(&known, self.quorum.voters());
        if is_changing && self.plan.bug != Some(Bug::ChangesVotersAtOnce) {
            return Ok(());
        }
        let Some(change) = self.next_change(leader, &known.replicas()) else {
            return Ok(());
        };
        let voters = known.after(&change).map(Arc::new);
        // Nobody takes away what the quorum cannot do without.
        let Some(voters) = voters.ok().filter(|voters| self.is_whole(voters, None)) else {
            return Ok(());
        };
        self.note(format_args!(
            "controller {leader} proposes voters {:?} instead of {:?}",
            ids(&voters),
            ids(&known)
        ));
        self.check_voters(&voters)?;
        self.propose_voters(leader, voters);
        Ok(())
    }

    fn next_change(&mut self, leader: NodeId, voters: &[(NodeId, Uuid)]) -> Option<VoterChange> {
        let remove = |(node_id, directory_id): (NodeId, Uuid)| VoterChange::Remove {
            node_id,
            directory_id,
        };
        let mut present = voters.iter().filter(|voter| self.hears(leader, voter.0));
        if let Some(lost) = present.find(|voter| !self.is_replica(**voter)) {
            return Some(remove(*lost));
        }
        if voters.len() >= 3 && self.rng.below(2) == 0 {
            return Some(remove(voters[self.rng.below(voters.len())]));
        }
        // Only who has caught up is added.
        let committed = self.quorum.batches().len();
        let is_ready = |id: &NodeId| {
            let has_all = self.replica(*id).agrees(self.replica(leader), committed);
            has_all && self.hears(leader, *id) && voters.iter().all(|(voter, _)| voter != id)
        };
        let ready: Vec<NodeId> = self.plan.nodes.iter().copied().filter(is_ready).collect();
        if ready.is_empty() {
            return None;
        }
        let node_id = ready[self.rng.below(ready.len())];
        let node = VoterNode {
            directory_id: self.replica(node_id).directory_id,
            endpoints: Vec::new(),
        };
        Some(VoterChange::Add { node_id, node })
    }

    /// Whether the quorum can do without the disk of `node`: a majority has its own, of any voters that somebody knows of.
    pub(super) fn can_lose_metadata(&self, node: NodeId) -> bool {
        let known = self.plan.nodes.iter().map(|id| self.quorum.voters_of(*id));
        let mut known = known.chain([self.quorum.voters()]);
        known.all(|voters| self.is_whole(voters, Some(node)))
    }

    /// Whether a majority of `voters` has its disks, without that of `lost`.
    fn is_whole(&self, voters: &Voters, lost: Option<NodeId>) -> bool {
        let voters = voters.replicas();
        let whole = voters.iter().filter(|(id, directory_id)| {
            lost != Some(*id) && self.replica(*id).directory_id == *directory_id
        });
        whole.count() > voters.len() / 2
    }

    // ---- what must hold --------------------------------------------------------------------------------------------

    /// LeaderCompleteness: who is elected has all that is committed.
    fn check_elected(&self, node: NodeId) -> Checked {
        let (log, batches) = (&self.replica(node).log, self.quorum.batches());
        let shared = log.iter().zip(batches);
        let shared = shared.take_while(|(entry, batch)| entry.epoch == batch.entry.epoch);
        let (held, committed) = (shared.count(), batches.len());
        if held == committed {
            return Ok(());
        }
        Err(Violation(format!(
            "LeaderCompleteness: controller {node} was elected with {held} of {committed} committed batches"
        )))
    }

    /// ElectionSafety: while the leader is in touch with a majority, there is none that does not hear it.
    pub(super) fn check_rivals(&self, leader: NodeId) -> Checked {
        let nodes = self.plan.nodes.iter().copied();
        let mut deaf = nodes.filter(|id| !self.network.connects(leader, *id));
        match deaf.find(|id| self.wins_election(*id, Some(leader))) {
            Some(rival) => Err(Violation(format!(
                "ElectionSafety: controller {rival} could be elected while {leader} has a majority"
            ))),
            None => Ok(()),
        }
    }

    /// SingleVoterChange: any majority of the committed voters meets any majority of the new ones.
    pub(super) fn check_voters(&self, new: &Arc<Voters>) -> Checked {
        if Arc::ptr_eq(new, self.quorum.voters()) {
            return Ok(());
        }
        let (old, new) = (self.quorum.voters().replicas(), new.replicas());
        let gone = old.iter().filter(|it| !new.contains(it)).count();
        let come = new.iter().filter(|it| !old.contains(it)).count();
        let is_twice = new.windows(2).any(|pair| pair[0].0 == pair[1].0);
        if gone + come <= 1 && !new.is_empty() && !is_twice {
            return Ok(());
        }
        Err(Violation(format!(
            "SingleVoterChange: from {old:?} to {new:?}"
        )))
    }

    /// At the end every voter has its disk, and all nodes the whole log.
    pub(super) fn quorum_settled(&self) -> Checked {
        let voters = self.quorum.voters().replicas();
        if let Some(lost) = voters.iter().find(|voter| !self.is_replica(**voter)) {
            return Err(Violation(format!(
                "Progress: voter {lost:?} has lost its disk, and nobody took its place"
            )));
        }
        for node in self.plan.nodes.iter().copied() {
            if !self.committed.cluster.is_active(node) {
                return Err(Violation(format!(
                    "Progress: broker {node} is fenced at the end"
                )));
            }
            let held = self.replica(node).log.len();
            if self.plan.changes_voters && held < self.quorum.batches().len() {
                return Err(Violation(format!(
                    "Progress: {node} has {held} batches of the metadata log at the end"
                )));
            }
        }
        Ok(())
    }
}

fn ids(voters: &Voters) -> Vec<NodeId> {
    voters.replicas().iter().map(|(id, _)| *id).collect()
}
