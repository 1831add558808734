//! The quorum's voters: who may lead, what it takes to commit, and what becomes of both while voters come and go and lose their
//! disks (KIP-853). The rules of a change are the real ones; votes and replication are modelled.

use super::NodeId;
use super::bug::Bug;
use super::messages::Event;
use super::oracle::Checked;
use super::world::{NODES, World};
use crate::quorum::pure::Voters;
use crate::quorum::{VoterChange, VoterNode};
use crate::types::Uuid;

/// How often somebody changes the voters, at most.
const RECONFIGURE_MS: usize = 700;

impl World {
    /// Voters that `node` is in touch with, itself included. Who lost its disk is another replica than the voter was.
    fn voters_in_touch(&self, node: NodeId, voters: &Voters) -> Vec<NodeId> {
        let mistaken = self.plan.bug == Some(Bug::LostDiskKeepsItsVote);
        let present = voters.replicas().into_iter().filter(|(id, directory_id)| {
            let has_its_disk = self.quorum.disks[id].directory_id == *directory_id;
            let hears = self.is_running(*id) && self.network.connects(node, *id);
            hears && (has_its_disk || mistaken)
        });
        present.map(|(id, _)| id).collect()
    }

    /// Whether what `node` writes reaches a majority of `voters`.
    pub(super) fn has_majority(&self, node: NodeId, voters: &Voters) -> bool {
        let count = voters.replicas().len();
        self.is_running(node) && self.voters_in_touch(node, voters).len() > count / 2
    }

    /// Whether a majority votes for `node`: who has more of the log than it does not.
    pub(super) fn wins_election(&self, node: NodeId) -> bool {
        let voters = &self.quorum.voters;
        let held = |node: &NodeId| self.quorum.disks[node].held;
        let in_touch = self.voters_in_touch(node, voters);
        let votes = in_touch.iter().filter(|id| held(id) <= held(&node));
        let is_candidate = self.is_running(node) && in_touch.contains(&node);
        is_candidate && votes.count() > voters.replicas().len() / 2
    }

    /// LeaderCompleteness: who is elected has all that is committed.
    pub(super) fn check_elected(&self, node: NodeId) -> Checked {
        let (held, committed) = (self.quorum.disks[&node].held, self.quorum.batches().len());
        if held == committed {
            return Ok(());
        }
        Err(super::Violation(format!(
            "LeaderCompleteness: controller {node} was elected with {held} of {committed} committed batches"
        )))
    }

    /// Voters and observers that hear the leader have what it has.
    pub(super) fn replicate(&mut self, leader: NodeId) {
        let end = self.quorum.batches().len();
        for node in NODES {
            if self.is_running(node) && self.network.connects(leader, node) {
                self.quorum.disks.entry(node).or_default().held = end;
            }
        }
    }

    /// Somebody adds or removes a voter, or puts one that lost its disk in its own place, as auto join does.
    pub(super) fn on_reconfigure(&mut self) {
        let delay_ms = 1 + self.rng.below(RECONFIGURE_MS) as i64;
        self.schedule(delay_ms, Event::Reconfigure);
        let Some(leader) = self.quorum.leader else {
            return;
        };
        let Some(change) = self.next_change(leader) else {
            return;
        };
        let Ok(voters) = self.quorum.voters.after(&change) else {
            return;
        };
        if self.propose_voters(leader, voters) {
            self.note(format_args!("controller {leader} proposes {change:?}"));
        }
    }

    fn next_change(&mut self, leader: NodeId) -> Option<VoterChange> {
        let voters = self.quorum.voters.replicas();
        let directory = |node: &NodeId| self.quorum.disks[node].directory_id;
        let remove = |(node_id, directory_id): (NodeId, Uuid)| VoterChange::Remove {
            node_id,
            directory_id,
        };
        let lost = voters.iter().find(|(id, of)| directory(id) != *of);
        if let Some(lost) = lost {
            return Some(remove(*lost));
        }
        let grows = self.rng.below(2) == 0 || voters.len() < 3;
        if !grows {
            return Some(remove(voters[self.rng.below(voters.len())]));
        }
        // Only who has caught up is added.
        let end = self.quorum.batches().len();
        let is_ready = |id: &NodeId| {
            let votes = voters.iter().any(|(voter, _)| voter == id);
            let hears = self.is_running(*id) && self.network.connects(leader, *id);
            !votes && hears && self.quorum.disks[id].held == end
        };
        let ready: Vec<NodeId> = NODES.into_iter().filter(is_ready).collect();
        if ready.is_empty() {
            return None;
        }
        let node_id = ready[self.rng.below(ready.len())];
        let node = VoterNode {
            directory_id: self.quorum.disks[&node_id].directory_id,
            endpoints: Vec::new(),
        };
        Some(VoterChange::Add { node_id, node })
    }

    /// SingleVoterChange: any majority of the voters before meets any majority of those after.
    pub(super) fn check_voters(&self, new: &Voters) -> Checked {
        let (old, new) = (self.quorum.voters.replicas(), new.replicas());
        let gone = old.iter().filter(|it| !new.contains(it)).count();
        let come = new.iter().filter(|it| !old.contains(it)).count();
        let mut ids: Vec<NodeId> = new.iter().map(|(id, _)| *id).collect();
        ids.dedup();
        if gone + come <= 1 && !new.is_empty() && ids.len() == new.len() {
            return Ok(());
        }
        Err(super::Violation(format!(
            "SingleVoterChange: from {old:?} to {new:?}"
        )))
    }

    /// Whether the quorum can do without the disk of `node`: a majority of the voters has its own, also of those who are about to
    /// be the voters.
    pub(super) fn can_lose_metadata(&self, node: NodeId) -> bool {
        let leader = self.quorum.leader;
        let proposed = leader.and_then(|leader| self.active(leader)?.proposed_voters());
        let mut all = proposed.into_iter().chain([&self.quorum.voters]);
        all.all(|voters| {
            let voters = voters.replicas();
            let whole = voters.iter().filter(|(id, directory_id)| {
                *id != node && self.quorum.disks[id].directory_id == *directory_id
            });
            whole.count() > voters.len() / 2
        })
    }
}
