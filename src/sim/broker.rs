//! A node's broker: registers, heartbeats, follows the metadata, serves producers, and leads or follows partitions with the
//! real [`PartitionState`]. What goes between leader and follower is in `fetching.rs`.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerId as WireBrokerId,
    BrokerRegistrationRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::bug::Bug;
use super::messages::{
    ControllerAnswer, ControllerRequest, Event, Message, Produce, RequestId, Timer,
};
use super::oracle::{Checked, Violation};
use super::replica_log::{Entry, ReplicaLog};
use super::world::{CLUSTER_ID, World};
use super::{NodeId, PartitionIndex};
use crate::log::Verdict;
use crate::metadata::features;
use crate::metadata::{MetadataDelta, MetadataImage, PartitionRegistration};
use crate::partition::{
    CommittedIsr, Effects, IsrProposal, PartitionState, ReplicationRules, Transition,
};
use crate::protocol::ErrorCode;
use crate::protocol::batch::AppendOrigin;
use crate::protocol::messages::broker_heartbeat::BrokerHeartbeatRequest;
use crate::replica::{FetchSession, SessionCache};
use crate::types::{BrokerId, LeaderEpoch, Offset, Uuid};

pub const LAG_TIME_MAX_MS: i64 = 300;
const HEARTBEAT_MS: i64 = 100;
const FOLLOW_MS: i64 = 20;
const REPLICA_TICK_MS: i64 = LAG_TIME_MAX_MS / 2;
/// How long proposals are gathered; also the rest before one is sent again.
const PROPOSE_MS: i64 = 5;
/// When a request to the controller is given up.
const REQUEST_TIMEOUT_MS: i64 = 200;
/// When a controlled shutdown is given up, and the broker just stops.
const SHUTDOWN_TIMEOUT_MS: i64 = 1500;

/// What a broker process has in memory.
pub struct Broker {
    pub image: MetadataImage,
    batches_applied: usize,
    /// Whether partitions are open: once the metadata was caught up with.
    published: bool,
    incarnation: Uuid,
    previous_epoch: i64,
    pub epoch: Option<i64>,
    /// Since when it wants to stop.
    leaving_since_ms: Option<i64>,
    pub partitions: BTreeMap<PartitionIndex, PartitionState>,
    waiting: Vec<WaitingProduce>,
    pub requests: RequestId,
    /// Registration or heartbeat under way, and when it was sent.
    contact: Option<(RequestId, i64)>,
    controller: NodeId,
    /// Proposals that wait for the one under way.
    proposals: BTreeMap<PartitionIndex, IsrProposal>,
    altering: Option<(RequestId, BTreeMap<PartitionIndex, IsrProposal>)>,
    pub fetches: BTreeMap<NodeId, (RequestId, i64)>,
    /// With the leaders that it follows, and with its followers.
    pub sessions: BTreeMap<NodeId, FetchSession>,
    pub session_cache: SessionCache,
}

/// A producer that waits for the high watermark.
struct WaitingProduce {
    partition: PartitionIndex,
    leader_epoch: LeaderEpoch,
    next_offset: Offset,
    client: NodeId,
    request: RequestId,
}

impl Broker {
    /// `process` tells the node's processes apart: answers to one do not reach the next.
    pub fn new(
        node: NodeId,
        process: u64,
        incarnation: Uuid,
        previous_epoch: i64,
        session_slots: usize,
    ) -> Self {
        Self {
            image: MetadataImage::default(),
            batches_applied: 0,
            published: false,
            incarnation,
            previous_epoch,
            epoch: None,
            leaving_since_ms: None,
            partitions: BTreeMap::new(),
            waiting: Vec::new(),
            requests: process << 32,
            contact: None,
            controller: node,
            proposals: BTreeMap::new(),
            altering: None,
            fetches: BTreeMap::new(),
            sessions: BTreeMap::new(),
            session_cache: SessionCache::new(session_slots),
        }
    }

    pub fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        self.requests
    }

    pub fn leave(&mut self, now_ms: i64) {
        self.leaving_since_ms.get_or_insert(now_ms);
    }
}

/// Broker epochs of active brokers, as [`PartitionState`] asks for them.
pub fn active_epochs(image: &MetadataImage) -> impl Fn(BrokerId) -> Option<i64> {
    |id| {
        let broker = image.cluster.broker(id)?;
        image.cluster.is_active(id).then_some(broker.epoch)
    }
}

impl World {
    pub(super) fn start_broker_timers(&mut self, node: NodeId) {
        let flush_ms = 20 + self.rng.below(200) as i64;
        for (delay_ms, timer) in [
            (0, Timer::FollowMetadata),
            (1, Timer::Heartbeat),
            (REPLICA_TICK_MS, Timer::ReplicaTick),
            (flush_ms, Timer::Flush),
        ] {
            self.schedule_timer(node, delay_ms, timer);
        }
        let hosts = self.plan.hosts;
        if hosts.contains(&node) {
            for leader in hosts.into_iter().filter(|id| *id != node) {
                self.schedule_timer(node, 5, Timer::Fetch(leader));
            }
        }
    }

    pub(super) fn on_follow_timer(&mut self, node: NodeId) {
        self.schedule_timer(node, FOLLOW_MS, Timer::FollowMetadata);
        if let Some(broker) = self.broker(node) {
            let (to, applied) = (broker.controller, broker.batches_applied);
            self.send(node, to, Message::FollowMetadata(applied));
        }
    }

    /// The quorum's leader shows what is committed; others know nothing newer.
    pub(super) fn on_follow_metadata(&mut self, node: NodeId, from: NodeId, applied: usize) {
        if self.quorum.leader == Some(node) {
            let to = self.quorum.batches().len();
            self.send(node, from, Message::Metadata { from: applied, to });
        } else {
            self.find_controller(from);
        }
    }

    /// Voters know their leader as soon as they hear it.
    fn find_controller(&mut self, node: NodeId) {
        let leader = self
            .quorum
            .leader
            .filter(|leader| self.network.connects(node, *leader));
        if let (Some(leader), Some(broker)) = (leader, self.broker_mut(node)) {
            broker.controller = leader;
        }
    }

    pub(super) fn on_metadata(&mut self, node: NodeId, from: usize, to: usize) -> Checked {
        let batches = self.quorum.batches()[from.min(to)..to].to_vec();
        let is_caught_up = to == self.quorum.batches().len();
        let repeats = self.plan.bug == Some(Bug::AppliesMetadataTwice);
        let hasty = self.plan.bug == Some(Bug::LeadsBeforeRegistration);
        let Some(broker) = self.broker_mut(node) else {
            return Ok(());
        };
        if broker.batches_applied != from && !repeats {
            return Ok(());
        }
        let mut changes = MetadataDelta::default();
        for batch in &batches {
            for record in &*batch.entry.records {
                if let Err(reason) = broker.image.apply(record, &mut changes) {
                    return Err(Violation(format!(
                        "MetadataLogMatching: {record:?} does not fit on {node}: {reason}"
                    )));
                }
            }
            broker.image.last_offset = batch.last_offset;
        }
        broker.batches_applied = to;
        // Before its own registration the metadata still speaks of the process that was here before: what that one led,
        // this one may have lost.
        let registered = broker.image.cluster.broker(node).map(|known| known.epoch);
        let is_registered = broker.epoch.is_some() && registered == broker.epoch;
        let goes_on = broker.published || is_caught_up && (is_registered || hasty);
        let first = goes_on && !std::mem::replace(&mut broker.published, true);
        if let Some(broker) = self.broker(node) {
            self.check_image(format_args!("broker {node}"), &broker.image, to)?;
        }
        if !goes_on {
            return Ok(());
        }
        self.publish(node, &changes, first)
    }

    fn publish(&mut self, node: NodeId, changes: &MetadataDelta, first: bool) -> Checked {
        let Some(broker) = self.broker(node) else {
            return Ok(());
        };
        let image = broker.image.clone();
        for topic in image.topics.iter() {
            for (index, registration) in &topic.partitions {
                let changed = changes
                    .topics_changed
                    .get(&topic.id)
                    .is_some_and(|topic| topic.partitions.contains(index));
                if (first || changed) && registration.replicas.contains(&node) {
                    self.apply(node, *index, registration, &image)?;
                }
                if !changes.brokers_changed.is_empty() {
                    self.with_partition(node, *index, |state, log| {
                        state.on_brokers_changed(log.next_offset(), &active_epochs(&image))
                    })?;
                }
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        node: NodeId,
        index: PartitionIndex,
        registration: &PartitionRegistration,
        image: &MetadataImage,
    ) -> Checked {
        let now_ms = self.local_ms(node);
        let rules = ReplicationRules {
            min_insync_replicas: self.plan.min_insync_replicas,
            replica_lag_time_max_ms: LAG_TIME_MAX_MS,
        };
        let log = self.log_mut(node, index);
        let high_watermark = log.checkpointed_high_watermark.min(log.next_offset());
        if let Some(broker) = self.broker_mut(node) {
            broker
                .partitions
                .entry(index)
                .or_insert_with(|| PartitionState::new(node, high_watermark, rules));
        }
        let starts_low = self.plan.bug == Some(Bug::JoinsBelowEpochStart);
        self.with_partition(node, index, |state, log| {
            let next_offset = log.next_offset();
            let active = active_epochs(image);
            let epoch_start = if starts_low {
                state.high_watermark()
            } else {
                next_offset
            };
            let transition = state.apply(registration, epoch_start, now_ms, &active);
            if transition == (Transition::Leader { is_new_epoch: true }) {
                log.epochs.assign(registration.leader_epoch, next_offset);
            }
            Effects::default()
        })?;
        self.release_waiting(node, index);
        Ok(())
    }

    /// Runs an event of one partition and does what follows from it.
    pub(super) fn with_partition(
        &mut self,
        node: NodeId,
        index: PartitionIndex,
        event: impl FnOnce(&mut PartitionState, &mut ReplicaLog) -> Effects,
    ) -> Checked {
        let Some((state, log)) = self.state_and_log(node, index) else {
            return Ok(());
        };
        let before = state.high_watermark();
        let effects = event(state, log);
        let (after, leads) = (state.high_watermark(), state.is_leader());
        let leader_epoch = state.leader_epoch();
        if let Some(proposal) = effects.proposal {
            self.enqueue_proposal(node, index, proposal);
        }
        if leads && after != before {
            self.committed_up_to(node, index, leader_epoch, after)?;
        }
        if after != before {
            self.release_waiting(node, index);
        }
        Ok(())
    }

    fn committed_up_to(
        &mut self,
        node: NodeId,
        index: PartitionIndex,
        leader_epoch: LeaderEpoch,
        end: Offset,
    ) -> Checked {
        let log = self.nodes[&node].logs.get(&index);
        log.map_or(Ok(()), |log| {
            let oracle = &mut self.oracle;
            oracle.high_watermark_moved(node, index, log, leader_epoch, end)
        })
    }

    pub(super) fn on_produce(
        &mut self,
        node: NodeId,
        client: NodeId,
        request: RequestId,
        produce: Produce,
    ) -> Checked {
        match self.append(node, produce) {
            Ok((leader_epoch, next_offset)) => {
                if let Some(broker) = self.broker_mut(node) {
                    broker.waiting.push(WaitingProduce {
                        partition: produce.partition,
                        leader_epoch,
                        next_offset,
                        client,
                        request,
                    });
                }
                self.with_partition(node, produce.partition, |state, log| Effects {
                    high_watermark_moved: state.on_append(log.next_offset()),
                    ..Effects::default()
                })?;
                self.release_waiting(node, produce.partition);
                Ok(())
            }
            Err(code) => {
                self.send(node, client, Message::Produced(request, Err(code)));
                Ok(())
            }
        }
    }

    /// The epoch it was appended in and the offset behind it, or behind the original of a duplicate.
    fn append(
        &mut self,
        node: NodeId,
        produce: Produce,
    ) -> Result<(LeaderEpoch, Offset), ErrorCode> {
        let timestamp_ms = self.wall_ms(node);
        let found = self.state_and_log(node, produce.partition);
        let (state, log) = found.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        state.check_leader(-1).map_err(|error| error.code)?;
        state.check_in_sync().map_err(|error| error.code)?;
        let entry = Entry {
            leader_epoch: state.leader_epoch(),
            producer_id: produce.producer_id,
            sequence: produce.sequence,
            timestamp_ms,
        };
        let header = entry.header(log.next_offset());
        let verdict = log.producers.check(&header, AppendOrigin::Client);
        let next_offset = match verdict.map_err(|error| error.code)? {
            Verdict::Duplicate(original) => original.last_offset + 1,
            Verdict::Append => {
                log.append(entry, true);
                log.next_offset()
            }
        };
        Ok((entry.leader_epoch, next_offset))
    }

    /// Answers producers whose records are committed, or never will be here.
    fn release_waiting(&mut self, node: NodeId, index: PartitionIndex) {
        let bug = self.plan.bug;
        let Some(broker) = self.broker_mut(node) else {
            return;
        };
        let Some(state) = broker.partitions.get(&index) else {
            return;
        };
        let judge = |waiting: &WaitingProduce| -> Option<Result<Offset, ErrorCode>> {
            let same_epoch = state.is_leader() && state.leader_epoch() == waiting.leader_epoch;
            let offset = waiting.next_offset - 1;
            if bug == Some(Bug::AcknowledgesBeforeCommit) {
                return Some(Ok(offset));
            }
            if !same_epoch && bug != Some(Bug::AcknowledgesInOtherEpoch) {
                return Some(Err(ErrorCode::NotLeaderOrFollower));
            }
            let committed = state.high_watermark() >= waiting.next_offset;
            committed.then(|| {
                let enough = state.check_committed();
                enough.map(|()| offset).map_err(|error| error.code)
            })
        };
        let mut answers = Vec::new();
        broker.waiting.retain(|waiting| {
            let answer = (waiting.partition == index)
                .then(|| judge(waiting))
                .flatten();
            answers.extend(answer.map(|answer| (waiting.client, waiting.request, answer)));
            answer.is_none()
        });
        for (client, request, answer) in answers {
            self.send(node, client, Message::Produced(request, answer));
        }
    }

    pub(super) fn on_replica_timer(&mut self, node: NodeId) -> Checked {
        self.schedule_timer(node, REPLICA_TICK_MS, Timer::ReplicaTick);
        let now_ms = self.local_ms(node);
        for index in 0..self.plan.partitions {
            self.with_partition(node, index, |state, log| {
                state.on_tick(log.next_offset(), now_ms)
            })?;
        }
        Ok(())
    }

    pub(super) fn on_flush_timer(&mut self, node: NodeId) {
        let delay_ms = 20 + self.rng.below(300) as i64;
        self.schedule_timer(node, delay_ms, Timer::Flush);
        let index = self.rng.below(self.plan.partitions as usize) as PartitionIndex;
        let wall_ms = self.wall_ms(node);
        let checkpoints_only = self.plan.bug == Some(Bug::CheckpointsBeforeSync);
        if let Some((state, log)) = self.state_and_log(node, index) {
            log.expire_producers(wall_ms);
            if !checkpoints_only {
                log.sync();
            }
            log.checkpoint(state.high_watermark());
        }
    }

    // ---- the broker and its controller -----------------------------------------------------------------------------

    pub(super) fn on_heartbeat_timer(&mut self, node: NodeId) {
        self.schedule_timer(node, HEARTBEAT_MS, Timer::Heartbeat);
        let now_ms = self.now_ms;
        let Some(broker) = self.broker_mut(node) else {
            return;
        };
        let gave_up = broker
            .leaving_since_ms
            .is_some_and(|since| since + SHUTDOWN_TIMEOUT_MS <= now_ms);
        if gave_up {
            self.stop_cleanly(node);
            return;
        }
        match broker.contact {
            Some((_, sent_ms)) if sent_ms + REQUEST_TIMEOUT_MS > now_ms => return,
            Some(_) => self.find_controller(node),
            None => {}
        }
        self.contact_controller(node);
    }

    fn contact_controller(&mut self, node: NodeId) {
        let now_ms = self.now_ms;
        let hides = self.plan.bug == Some(Bug::HidesUncleanShutdown);
        let Some(broker) = self.broker_mut(node) else {
            return;
        };
        let id = broker.next_request();
        broker.contact = Some((id, now_ms));
        let request = if let Some(epoch) = broker.epoch {
            let request = BrokerHeartbeatRequest {
                broker_id: node,
                broker_epoch: epoch,
                current_metadata_offset: broker.image.last_offset,
                want_fence: !broker.published,
                want_shut_down: broker.leaving_since_ms.is_some(),
                ..BrokerHeartbeatRequest::default()
            };
            ControllerRequest::Heartbeat(request)
        } else {
            let known = broker.image.cluster.broker(node).map(|known| known.epoch);
            let previous = known.filter(|_| hides).unwrap_or(broker.previous_epoch);
            ControllerRequest::Register(registration(node, broker.incarnation, previous))
        };
        let to = broker.controller;
        self.send(node, to, Message::ToController(id, request));
    }

    pub(super) fn on_controller_answer(
        &mut self,
        node: NodeId,
        request: RequestId,
        answer: ControllerAnswer,
    ) -> Checked {
        let Some(broker) = self.broker_mut(node) else {
            return Ok(());
        };
        if broker.contact.is_some_and(|(id, _)| id == request) {
            broker.contact = None;
        } else if broker
            .altering
            .as_ref()
            .is_none_or(|(id, _)| *id != request)
        {
            return Ok(());
        }
        match answer {
            ControllerAnswer::NotController => {
                self.find_controller(node);
                let altering = self.broker(node).and_then(|b| b.altering.as_ref());
                if altering.is_some_and(|(id, _)| *id == request) {
                    return self.alter_partition_failed(node, ErrorCode::NotController);
                }
            }
            ControllerAnswer::Registered(response) => {
                if response.error_code == 0 {
                    broker.epoch = Some(response.broker_epoch);
                    self.note(format_args!(
                        "broker {node} has epoch {}",
                        response.broker_epoch
                    ));
                }
            }
            ControllerAnswer::Heartbeat(response)
                if response.error_code == ErrorCode::StaleBrokerEpoch.code() =>
            {
                // A late registration of the process before this one took its place: register again, as one that may
                // have lost something.
                broker.epoch = None;
                broker.previous_epoch = -1;
            }
            ControllerAnswer::Heartbeat(response) => {
                let stops = broker.leaving_since_ms.is_some();
                if stops && response.error_code == 0 && response.should_shut_down {
                    self.stop_cleanly(node);
                }
            }
            ControllerAnswer::AlterPartition(response) => {
                return self.alter_partition_answered(node, &response);
            }
        }
        Ok(())
    }

    fn enqueue_proposal(&mut self, node: NodeId, index: PartitionIndex, proposal: IsrProposal) {
        self.note(format_args!("{node} proposes for {index}: {proposal:?}"));
        if let Some(broker) = self.broker_mut(node) {
            broker.proposals.insert(index, proposal);
        }
        self.schedule_timer(node, PROPOSE_MS, Timer::Propose);
    }

    pub(super) fn send_proposals(&mut self, node: NodeId) {
        let topic_id = self.committed.topics.iter().next().map(|topic| topic.id);
        let Some(broker) = self.broker_mut(node) else {
            return;
        };
        let (Some(epoch), Some(topic_id)) = (broker.epoch, topic_id) else {
            return;
        };
        if broker.proposals.is_empty() {
            return;
        }
        if broker.altering.is_some() {
            self.schedule_timer(node, PROPOSE_MS, Timer::Propose);
            return;
        }
        let proposals = std::mem::take(&mut broker.proposals);
        let id = broker.next_request();
        let partitions = proposals
            .iter()
            .map(|(index, p)| asked(*index, p))
            .collect();
        broker.altering = Some((id, proposals));
        let data = TopicData::default()
            .with_topic_id(topic_id)
            .with_partitions(partitions);
        let request = AlterPartitionRequest::default()
            .with_broker_id(WireBrokerId(node))
            .with_broker_epoch(epoch)
            .with_topics(vec![data]);
        let to = broker.controller;
        let message = Message::ToController(id, ControllerRequest::AlterPartition(request));
        self.send(node, to, message);
        self.schedule_timer(node, REQUEST_TIMEOUT_MS, Timer::AlterPartition(id));
    }

    pub(super) fn on_alter_partition_timer(&mut self, node: NodeId, request: RequestId) -> Checked {
        let altering = self.broker(node).and_then(|b| b.altering.as_ref());
        if altering.is_some_and(|(id, _)| *id == request) {
            self.find_controller(node);
            return self.alter_partition_failed(node, ErrorCode::RequestTimedOut);
        }
        Ok(())
    }

    fn alter_partition_failed(&mut self, node: NodeId, code: ErrorCode) -> Checked {
        let proposals = self.take_altering(node);
        for (index, proposal) in proposals {
            self.proposal_answered(node, index, &proposal, Err(code))?;
        }
        Ok(())
    }

    fn take_altering(&mut self, node: NodeId) -> BTreeMap<PartitionIndex, IsrProposal> {
        let altering = self.broker_mut(node).and_then(|b| b.altering.take());
        altering.map_or_else(BTreeMap::new, |(_, proposals)| proposals)
    }

    fn alter_partition_answered(
        &mut self,
        node: NodeId,
        response: &AlterPartitionResponse,
    ) -> Checked {
        let proposals = self.take_altering(node);
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let answers: BTreeMap<_, _> = partitions.map(|p| (p.partition_index, p)).collect();
        for (index, proposal) in proposals {
            let whole = ErrorCode::try_from_code(response.error_code);
            let answer = match (whole, answers.get(&index)) {
                (Some(code), _) => Err(code),
                (None, None) => Err(ErrorCode::UnknownServerError),
                (None, Some(data)) => match ErrorCode::try_from_code(data.error_code) {
                    Some(code) => Err(code),
                    None => Ok(CommittedIsr {
                        leader_epoch: data.leader_epoch,
                        partition_epoch: data.partition_epoch,
                        isr: data.isr.iter().map(|id| id.0).collect(),
                    }),
                },
            };
            self.proposal_answered(
                node,
                index,
                &proposal,
                answer.as_ref().map_err(|code| *code),
            )?;
        }
        Ok(())
    }

    fn proposal_answered(
        &mut self,
        node: NodeId,
        index: PartitionIndex,
        proposal: &IsrProposal,
        answer: Result<&CommittedIsr, ErrorCode>,
    ) -> Checked {
        self.with_partition(node, index, |state, log| {
            state.on_alter_partition(proposal, answer, log.next_offset())
        })
    }

    /// Syncs everything, says so in the clean-shutdown file, and ends; then the machine reboots.
    fn stop_cleanly(&mut self, node: NodeId) {
        let forgets_sync = self.plan.bug == Some(Bug::StopsCleanlyWithoutSync);
        let epoch = self.broker(node).and_then(|broker| broker.epoch);
        self.note(format_args!("broker {node} stops with epoch {epoch:?}"));
        let states = self.broker(node).map(|broker| broker.partitions.clone());
        let disk = self.nodes.get_mut(&node).expect("all nodes exist");
        for (index, log) in &mut disk.logs {
            if let Some(state) = states.as_ref().and_then(|states| states.get(index)) {
                log.checkpointed_high_watermark = state.high_watermark();
            }
            if !forgets_sync {
                log.sync();
            }
        }
        disk.clean_shutdown_epoch = epoch;
        self.end_process(node);
        self.lose_unsynced(node);
        let delay_ms = 50 + self.rng.below(300) as i64;
        self.schedule(delay_ms, Event::Restart(node));
    }
}

fn asked(index: PartitionIndex, proposal: &IsrProposal) -> PartitionData {
    let isr = proposal.isr.iter().map(|(id, epoch)| {
        BrokerState::default()
            .with_broker_id(WireBrokerId(*id))
            .with_broker_epoch(*epoch)
    });
    PartitionData::default()
        .with_partition_index(index)
        .with_leader_epoch(proposal.leader_epoch)
        .with_partition_epoch(proposal.partition_epoch)
        .with_new_isr_with_epochs(isr.collect())
}

fn registration(node: NodeId, incarnation: Uuid, previous_epoch: i64) -> BrokerRegistrationRequest {
    BrokerRegistrationRequest::default()
        .with_broker_id(WireBrokerId(node))
        .with_cluster_id(StrBytes::from_static_str(CLUSTER_ID))
        .with_incarnation_id(incarnation)
        .with_features(features::of_registration())
        .with_log_dirs(vec![Uuid::from_u128(1000 + node as u128)])
        .with_previous_broker_epoch(previous_epoch)
}
