//! The leader changes the quorum's members: voters one at a time (AddRaftVoter, RemoveRaftVoter, UpdateRaftVoter), observers as
//! they come.
//!
//! A change is an entry of the log, so it goes the way of all proposals, which fixes its offset and that of everything behind it.
//! While it is on its way no proposal passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::EntryPayload;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::Precondition;
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::Instant;
use tracing::{info, warn};

use super::VoterWait;
use super::meta_log::Inner;
use super::proposals::Forward;
use super::store::lock;
use super::types::{
    CommittedLeaderId, LogId, Membership, Proposal, StoredMembership, VoterNode, kraft_version,
    nodes_of, raft_id, voter_of,
};
use super::voters::{VoterChange, VoterChangeError};
use crate::metadata::features::KRAFT_VERSION_LEVEL;
use crate::types::{BrokerId, LeaderEpoch};

/// How long an observer may take to get into the log's members.
const OBSERVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Observers that are silent for this long are gone (`LeaderState.OBSERVER_SESSION_TIMEOUT_MS`).
const OBSERVER_SILENCE: Duration = Duration::from_mins(5);
/// Controllers that observe the log at a time; the leader has a stream to each.
pub(super) const OBSERVERS_MAX: usize = 64;
/// How often that is looked at.
const SILENCE_CHECK: Duration = Duration::from_mins(1);
/// How long a voter may take to take over before the next one is asked.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(500);
/// How often a new voter's progress is looked at.
const CATCH_UP_POLL: Duration = Duration::from_millis(20);

type Outcome = Result<(), VoterChangeError>;

/// Who has it may change the members. A step on its way holds it too: the next one builds on what came of it.
type MembersTurn = Arc<OwnedMutexGuard<()>>;

/// New members on their way to raft.
pub(super) struct MembersStep {
    members: Membership,
    _turn: MembersTurn,
    /// A node that is described anew: openraft takes that as a change of its own.
    described: Option<(u64, VoterNode)>,
    epoch: LeaderEpoch,
    /// Takes the offset of the members, should they be refused.
    filler: Proposal,
    reply: oneshot::Sender<Outcome>,
}

impl MembersStep {
    /// Appends the members and waits until they are committed.
    pub(super) async fn carry_out(self, inner: &Arc<Inner>) {
        let raft = &inner.raft;
        let leader = CommittedLeaderId::from(u64::from(self.epoch.unsigned_abs()));
        let led_by = [Precondition::CommittedLeaderId {
            committed_leader_id: leader,
        }];
        let appended = if let Some((id, node)) = self.described {
            let change = ChangeMembers::SetNodes(BTreeMap::from([(id, node)]));
            let done = raft.change_membership_if(change, true, led_by).await;
            done.map(|_| ())
        } else {
            let members = self.members;
            let done = raft.append_membership(members, EntryPayload::Blank, led_by);
            done.await.map(|_| ())
        };
        let refused = |error: &dyn std::error::Error| {
            inner.fail(self.epoch, error);
            VoterChangeError::NotLeader
        };
        let outcome = match appended {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                warn!(%error, "the quorum's members were not changed");
                let filled = raft.write(self.filler).with_leader(leader).await;
                let timed_out = VoterChangeError::TimedOut(error.to_string().into());
                Err(filled.err().map_or(timed_out, |error| refused(&error)))
            }
            Err(error) => Err(refused(&error)),
        };
        let _ = self.reply.send(outcome);
    }
}

fn timed_out(why: &str) -> VoterChangeError {
    VoterChangeError::TimedOut(why.into())
}

impl Inner {
    /// The newest members, and whether they are committed.
    pub(super) fn members(&self) -> (StoredMembership, bool) {
        let state = self.store.state();
        let newest = state.membership_at(u64::MAX);
        let (applied, _) = state.applied();
        let is_committed = newest.log_id().as_ref() <= applied.as_ref();
        (newest, is_committed)
    }

    /// The epoch in which this node leads.
    fn led_epoch(&self) -> Result<LeaderEpoch, VoterChangeError> {
        let proposals = lock(&self.proposals);
        let leads = proposals.leading && !proposals.failed;
        leads
            .then_some(proposals.epoch)
            .ok_or(VoterChangeError::NotLeader)
    }

    /// Adds, removes or moves a voter, as the leader. What is not done in time may still come to be done.
    pub(super) async fn change_voters(
        self: &Arc<Self>,
        change: VoterChange,
        wait: VoterWait,
    ) -> Outcome {
        let deadline = Instant::now() + wait.timeout;
        let epoch = self.led_epoch()?;
        let voters_turn = Arc::clone(&self.voters_turn).try_lock_owned();
        let voters_turn =
            voters_turn.map_err(|_| timed_out("another change of the voters is under way"))?;
        let members_turn = self.members_turn(deadline).await?;
        let (members, is_committed) = self.members();
        if !is_committed {
            return Err(timed_out("the last change of the voters is not committed"));
        }
        change.check(members.membership())?;
        if let VoterChange::Add { node_id, node } = &change {
            self.check_versions(*node_id, node, deadline).await?;
            let soon = deadline.min(Instant::now() + self.timing.catch_up_max);
            self.catch_up(&members_turn, epoch, (*node_id, node), soon)
                .await?;
        }
        let described = match &change {
            VoterChange::Update { node, .. } => Some((change.raft_id(), node.clone())),
            VoterChange::Add { .. } | VoterChange::Remove { .. } => None,
        };
        let (members, _) = self.members();
        let next = change.apply(members.membership());
        let committed = self.queue_members(members_turn, epoch, next, described)?;
        let (done, outcome) = oneshot::channel();
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let result = committed.await.unwrap_or(Err(VoterChangeError::NotLeader));
            match &result {
                Ok(()) => info!(?change, "the quorum's voters have changed"),
                Err(error) => warn!(?change, %error, "the quorum's voters did not change"),
            }
            drop(voters_turn);
            let _ = done.send(result);
            inner.hand_over_if_removed(epoch).await;
        });
        if !wait.committed {
            return Ok(());
        }
        match tokio::time::timeout_at(deadline, outcome).await {
            Ok(result) => result.unwrap_or(Err(VoterChangeError::NotLeader)),
            Err(_) => Err(timed_out("the change of the voters is not committed yet")),
        }
    }

    /// Lets a controller join as it asks to; as the leader.
    pub(super) async fn admit(
        self: &Arc<Self>,
        node_id: BrokerId,
        node: VoterNode,
        as_voter: bool,
    ) -> bool {
        if !as_voter {
            return self.add_observer(node_id, &node).await.is_ok();
        }
        match self.add_in_its_place(node_id, node).await {
            Ok(()) => return true,
            Err(VoterChangeError::NotLeader) => {}
            Err(error) => warn!(node_id, %error, "a controller is not let in as a voter"),
        }
        false
    }

    /// Makes a controller a voter, for what it was before it lost its disk.
    async fn add_in_its_place(self: &Arc<Self>, node_id: BrokerId, node: VoterNode) -> Outcome {
        if node_id == self.own_id {
            // Two processes have one node id, and the other one leads.
            return Err(VoterChangeError::Duplicate(node_id));
        }
        let wait = VoterWait {
            timeout: OBSERVE_TIMEOUT,
            committed: true,
        };
        let former = {
            let (members, _) = self.members();
            voter_of(members.membership(), node_id).map(|voter| voter.directory_id)
        };
        if let Some(directory_id) = former.filter(|id| *id != node.directory_id) {
            let change = VoterChange::Remove {
                node_id,
                directory_id,
            };
            self.change_voters(change, wait).await?;
        }
        self.change_voters(VoterChange::Add { node_id, node }, wait)
            .await
    }

    /// Has a controller observe the log, so that it can be added as a voter, or notes where it has moved to.
    async fn add_observer(&self, node_id: BrokerId, node: &VoterNode) -> Outcome {
        let epoch = self.led_epoch()?;
        let deadline = Instant::now() + OBSERVE_TIMEOUT;
        let turn = self.members_turn(deadline).await?;
        self.observe(&turn, epoch, (node_id, node), deadline).await
    }

    async fn members_turn(&self, deadline: Instant) -> Result<MembersTurn, VoterChangeError> {
        let turn = Arc::clone(&self.members_turn).lock_owned();
        let turn = tokio::time::timeout_at(deadline, turn).await;
        turn.map(Arc::new)
            .map_err(|_| timed_out("the quorum's members are changing"))
    }

    /// Adds an observer, or writes down where a member listens now.
    async fn observe(
        &self,
        turn: &MembersTurn,
        epoch: LeaderEpoch,
        (node_id, node): (BrokerId, &VoterNode),
        deadline: Instant,
    ) -> Outcome {
        let (members, _) = self.members();
        let members = members.membership();
        if kraft_version(members) < 1 {
            return Err(VoterChangeError::Unsupported);
        }
        let id = raft_id(node_id, node.directory_id);
        let described = match members.get_node(&id) {
            Some(known) if known == node => return Ok(()),
            Some(_) => Some((id, node.clone())),
            None if members.learner_ids().count() >= OBSERVERS_MAX => {
                return Err(timed_out("the quorum has no place for one observer more"));
            }
            None => None,
        };
        let mut nodes = nodes_of(members);
        nodes.insert(id, node.clone());
        let configs = members.get_joint_config().clone();
        let next = Membership::new(configs, nodes).expect("only an observer has come");
        let committed = self.queue_members(Arc::clone(turn), epoch, next, described)?;
        match tokio::time::timeout_at(deadline, committed).await {
            Ok(result) => result.unwrap_or(Err(VoterChangeError::NotLeader)),
            Err(_) => Err(timed_out("the observer is not committed")),
        }
    }

    async fn hand_over_if_removed(&self, epoch: LeaderEpoch) {
        let (members, _) = self.members();
        let mut voters = members.membership().voter_ids();
        if voters.all(|id| id != self.store.own_id()) {
            self.hand_over(epoch).await;
        }
    }

    /// Has the voter lead that has most of the log, or another one, until one does (`LeaderState.requestResign`).
    pub(super) async fn hand_over(&self, epoch: LeaderEpoch) {
        let mut tried = BTreeSet::new();
        // Proposals are refused as soon as a hand-over has begun.
        while lock(&self.proposals).leads(epoch) {
            let (members, _) = self.members();
            let mut others: BTreeSet<u64> = members.membership().voter_ids().collect();
            others.remove(&self.store.own_id());
            if tried.is_superset(&others) {
                tried.clear();
            }
            let candidates = others.difference(&tried).copied();
            let Some(next) = candidates.max_by_key(|id| self.matched(*id)) else {
                return;
            };
            tried.insert(next);
            if self.raft.trigger().transfer_leader(next).await.is_err() {
                return;
            }
            tokio::time::sleep(HAND_OVER_PATIENCE).await;
        }
    }

    /// Up to where member `id` has the log, as far as the leader knows.
    fn matched(&self, id: u64) -> Option<LogId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.replication.as_ref().and_then(|all| *all.get(&id)?)
    }

    /// Asks a voter to be what it supports.
    async fn check_versions(
        &self,
        node_id: BrokerId,
        node: &VoterNode,
        deadline: Instant,
    ) -> Outcome {
        let Some(endpoint) = node.endpoints.first() else {
            return Err(timed_out("nobody knows where the new voter is"));
        };
        let supported = self.transport.kraft_versions(node_id, endpoint.clone());
        let supported = tokio::time::timeout_at(deadline, supported).await;
        let supported = supported.map_err(|_| timed_out("the new voter does not answer"))?;
        let supported = supported.map_err(|error| timed_out(&error.to_string()))?;
        match supported {
            Some((min, max)) if (min..=max).contains(&KRAFT_VERSION_LEVEL) => Ok(()),
            _ => Err(VoterChangeError::Incompatible(node_id)),
        }
    }

    /// Waits until a voter to be has the log, so that its coming holds nothing up.
    async fn catch_up(
        &self,
        turn: &MembersTurn,
        epoch: LeaderEpoch,
        (node_id, node): (BrokerId, &VoterNode),
        deadline: Instant,
    ) -> Outcome {
        let id = raft_id(node_id, node.directory_id);
        let is_stranger = {
            let (members, _) = self.members();
            members.membership().get_node(&id).is_none()
        };
        self.observe(turn, epoch, (node_id, node), deadline).await?;
        loop {
            self.led_epoch()?;
            if self.has_caught_up(id) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(CATCH_UP_POLL).await;
        }
        if is_stranger {
            self.forget(Arc::clone(turn), epoch, id)?;
        }
        Err(timed_out("the new voter is not there, or lags behind"))
    }

    /// Whether member `id` has all that was committed a moment ago.
    fn has_caught_up(&self, id: u64) -> bool {
        let (applied, _) = self.store.state().applied();
        let matched = self.matched(id);
        matched.is_some() && matched >= applied
    }

    /// Drops observers that nobody has heard of for long, as leader.
    pub(super) async fn forget_silent_observers(self: Arc<Self>) {
        let stop = self.stop.clone();
        let watching = async {
            let mut first_seen = BTreeMap::new();
            loop {
                tokio::time::sleep(SILENCE_CHECK).await;
                self.forget_observers_silent_for(OBSERVER_SILENCE, &mut first_seen)
                    .await;
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    /// `first_seen` is when this leader began to wait for those that it has not heard of yet.
    pub(super) async fn forget_observers_silent_for(
        &self,
        silence: Duration,
        first_seen: &mut BTreeMap<u64, Instant>,
    ) {
        let Ok(epoch) = self.led_epoch() else {
            first_seen.clear();
            return;
        };
        let observers: Vec<u64> = self.members().0.membership().learner_ids().collect();
        first_seen.retain(|id, _| observers.contains(id));
        for id in observers {
            let since = first_seen.entry(id).or_insert_with(Instant::now).elapsed();
            let silent_for = self.silent_for(id).unwrap_or(since);
            let deadline = Instant::now() + OBSERVE_TIMEOUT;
            if silent_for < silence {
                continue;
            }
            if let Ok(turn) = self.members_turn(deadline).await {
                info!(node_id = super::types::node_id(id), "an observer is gone");
                let _ = self.forget(turn, epoch, id);
            }
        }
    }

    /// How long ago member `id` last answered this leader.
    fn silent_for(&self, id: u64) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let acked = metrics.heartbeat.as_ref()?.get(&id)?.as_ref()?;
        Some(acked.elapsed())
    }

    /// Drops an observer, in the background.
    fn forget(&self, turn: MembersTurn, epoch: LeaderEpoch, id: u64) -> Outcome {
        let (members, _) = self.members();
        let members = members.membership();
        let mut nodes = nodes_of(members);
        nodes.remove(&id);
        let configs = members.get_joint_config().clone();
        let Ok(next) = Membership::new(configs, nodes) else {
            return Ok(());
        };
        self.queue_members(turn, epoch, next, None).map(|_| ())
    }

    /// Sends new members behind all proposals made so far; waits while somebody holds the end of the log.
    fn queue_members(
        &self,
        turn: MembersTurn,
        epoch: LeaderEpoch,
        members: Membership,
        described: Option<(u64, VoterNode)>,
    ) -> Result<oneshot::Receiver<Outcome>, VoterChangeError> {
        let (reply, outcome) = oneshot::channel();
        let _held = lock(&self.end_held);
        let mut proposals = lock(&self.proposals);
        if !proposals.leads(epoch) || proposals.failed {
            return Err(VoterChangeError::NotLeader);
        }
        let step = MembersStep {
            members,
            _turn: turn,
            described,
            epoch,
            filler: Proposal::filler(proposals.next_offset, self.clock.wall_ms()),
            reply,
        };
        // A VotersRecord.
        proposals.next_offset += 1;
        let sent = self.forward.send(Forward::Members(step));
        sent.map_err(|_| VoterChangeError::NotLeader)?;
        Ok(outcome)
    }
}
