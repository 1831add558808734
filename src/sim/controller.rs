//! A node's controller: the real handlers over a speculative image, as the controller's event loop runs them, above the
//! modelled quorum.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::{BrokerId as WireBrokerId, CreateTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::NodeId;
use super::bug::Bug;
use super::messages::{ControllerAnswer, ControllerRequest, Event, Message, RequestId, Timer};
use super::oracle::{Checked, Violation};
use super::quorum::Entry;
use super::world::{Plan, World};
use crate::controller::pure::{self, Heartbeats, Periodic};
use crate::controller::{Rng, Turn};
use crate::metadata::{MetadataDelta, MetadataImage};
use crate::protocol::metadata_records::{ConfigRecord, MetadataRecord};
use crate::quorum::pure::Voters;
use crate::types::LeaderEpoch;

/// How often a controller looks for stale brokers and periodic tasks.
const TICK_MS: i64 = 40;
/// How often voters look whether they hear their leader.
const QUORUM_TICK_MS: i64 = 50;
/// How long they wait for it.
const ELECTION_TIMEOUT_MS: i64 = 250;

/// The controller of a node that was elected, until it notices that it is not any more.
pub struct Active {
    pub(super) epoch: LeaderEpoch,
    /// Includes what is proposed.
    image: MetadataImage,
    heartbeats: Heartbeats,
    periodic: Periodic,
    rng: Rng,
    in_flight: VecDeque<Proposal>,
    /// When it was elected and when it last accepted a broker's word, by the world's clock.
    since_ms: i64,
    heard_ms: BTreeMap<NodeId, i64>,
}

/// What is on its way to a majority, and the answer that waits for it and all before.
struct Proposal {
    entry: Option<Entry>,
    reply: Option<(NodeId, RequestId, ControllerAnswer)>,
}

impl Active {
    /// Whether the oldest proposal is an entry of the log.
    pub(super) fn proposes_entry(&self) -> bool {
        let first = self.in_flight.front();
        first.is_some_and(|proposal| proposal.entry.is_some())
    }
}

impl World {
    pub(super) fn on_quorum_tick(&mut self) -> Checked {
        self.schedule(QUORUM_TICK_MS, Event::Quorum);
        // A leader that was restarted is one no more, and one that was removed hands over.
        let leads = |leader| self.has_majority(leader, 0) && self.active(leader).is_some();
        let hands_over = self.quorum.leader.is_some_and(|id| !self.is_voter(id));
        if let Some(leader) = self.quorum.leader.filter(|id| leads(*id) && !hands_over) {
            self.quorum.silent_since_ms = None;
            self.replicate(leader);
            return self.check_rivals(leader);
        }
        let since_ms = *self.quorum.silent_since_ms.get_or_insert(self.now_ms);
        let waits = self.quorum.leader.is_some() && !hands_over;
        if waits && self.now_ms - since_ms < ELECTION_TIMEOUT_MS {
            return Ok(());
        }
        let nodes = self.plan.nodes;
        let first = self.rng.below(nodes.len());
        let mut candidates = (0..nodes.len()).map(|at| nodes[(first + at) % nodes.len()]);
        let Some(elected) = candidates.find(|node| self.wins_election(*node, None)) else {
            return Ok(());
        };
        if !self.plan.changes_voters {
            self.commit_orphans()?;
        }
        self.quorum.epoch += 1;
        self.quorum.leader = Some(elected);
        self.quorum.silent_since_ms = None;
        if self.plan.changes_voters {
            self.take_over(elected)?;
        }
        self.activate(elected);
        Ok(())
    }

    /// Some of what the old leader proposed may have reached the new one: then it is committed, whoever was told.
    fn commit_orphans(&mut self) -> Checked {
        let leader = self.quorum.leader;
        let Some(active) = leader.and_then(|leader| self.active(leader)) else {
            return Ok(());
        };
        let proposals = active.in_flight.iter();
        let orphans: Vec<_> = proposals.filter_map(|it| it.entry.clone()).collect();
        let survive = self.rng.below(orphans.len() + 1);
        for entry in orphans.into_iter().take(survive) {
            self.commit(entry)?;
        }
        Ok(())
    }

    fn activate(&mut self, node: NodeId) {
        let epoch = self.quorum.epoch;
        self.note(format_args!("controller {node} is active in epoch {epoch}"));
        let image = self.committed.clone();
        let now_ms = self.local_ms(node);
        let settings = Arc::clone(&self.settings);
        let seed = self.rng.next_u64() | 1;
        let fresh = image.is_empty();
        let active = Active {
            epoch,
            heartbeats: Heartbeats::start(&image, now_ms),
            periodic: Periodic::start(&settings, now_ms),
            image,
            rng: Rng::new([seed; 4]),
            in_flight: VecDeque::new(),
            since_ms: self.now_ms,
            heard_ms: BTreeMap::new(),
        };
        if let Some(process) = self.process_mut(node) {
            process.controller = Some(active);
        }
        if fresh {
            let settings = &self.settings;
            let min_insync_replicas = settings.config.min_insync_replicas;
            let records =
                crate::controller::bootstrap_records(&settings.formatted, min_insync_replicas);
            self.propose(node, records, None);
        }
        self.schedule_timer(node, TICK_MS, Timer::Controller);
    }

    /// Lets a handler look at the newest state.
    fn turn<R>(
        &mut self,
        node: NodeId,
        decide: impl FnOnce(&mut Turn<'_>, &mut Periodic) -> R,
    ) -> Option<R> {
        let now_ms = self.local_ms(node);
        let settings = Arc::clone(&self.settings);
        let active = self.active_mut(node)?;
        let mut turn = Turn {
            image: &active.image,
            settings: &settings,
            now_ms,
            next_offset: active.image.next_offset(),
            kraft_version: 1,
            rng: &mut active.rng,
            heartbeats: &mut active.heartbeats,
        };
        Some(decide(&mut turn, &mut active.periodic))
    }

    fn propose(
        &mut self,
        node: NodeId,
        records: Vec<MetadataRecord>,
        reply: Option<(NodeId, RequestId, ControllerAnswer)>,
    ) {
        let Some(active) = self.active_mut(node) else {
            return;
        };
        let mut changes = MetadataDelta::default();
        for record in &records {
            active
                .image
                .apply(record, &mut changes)
                .expect("a handler's records fit the image that it saw");
        }
        active.image.last_offset += records.len() as i64;
        let entry = if records.is_empty() {
            None
        } else {
            self.append_entry(node, records.into(), None)
        };
        self.enqueue(node, entry, reply);
    }

    /// The voters are an entry of the log as well.
    pub(super) fn propose_voters(&mut self, node: NodeId, voters: Arc<Voters>) {
        let entry = self.append_entry(node, Arc::new([]), Some(voters));
        if let Some(active) = self.active_mut(node) {
            active.image.last_offset += 1;
        }
        self.enqueue(node, entry, None);
    }

    fn enqueue(
        &mut self,
        node: NodeId,
        entry: Option<Entry>,
        reply: Option<(NodeId, RequestId, ControllerAnswer)>,
    ) {
        if let Some(active) = self.active_mut(node) {
            let epoch = active.epoch;
            active.in_flight.push_back(Proposal { entry, reply });
            self.schedule_commit(node, epoch);
        }
    }

    fn schedule_commit(&mut self, node: NodeId, epoch: LeaderEpoch) {
        let delay_ms = 1 + self.rng.below(8) as i64;
        if let Some(process) = self.process_number(node) {
            self.schedule(
                delay_ms,
                Event::Commit {
                    node,
                    process,
                    epoch,
                },
            );
        }
    }

    pub(super) fn on_commit(&mut self, node: NodeId, epoch: LeaderEpoch) -> Checked {
        let deposed = !self.quorum.leads(node, epoch);
        if self.active(node).is_none_or(|active| active.epoch != epoch) {
            return Ok(());
        }
        if deposed && self.plan.bug != Some(Bug::DeposedControllerCommits) {
            self.resign(node);
            return Ok(());
        }
        if !deposed && !self.reaches_majority(node) {
            self.schedule_commit(node, epoch);
            return Ok(());
        }
        let proposal = self
            .active_mut(node)
            .and_then(|active| active.in_flight.pop_front());
        let Some(proposal) = proposal else {
            return Ok(());
        };
        if let Some(entry) = proposal.entry {
            self.commit(entry)?;
        }
        if let Some((to, request, answer)) = proposal.reply {
            self.send(node, to, Message::FromController(request, answer));
        }
        let active = self.active(node).filter(|it| it.in_flight.is_empty());
        active.filter(|_| !deposed).map_or(Ok(()), |active| {
            let who = format_args!("controller {node}");
            self.check_image(who, &active.image, self.images.len())
        })
    }

    fn resign(&mut self, node: NodeId) {
        self.note(format_args!("controller {node} resigns"));
        if let Some(process) = self.process_mut(node) {
            process.controller = None;
        }
    }

    /// An entry is on a majority: it is part of the history for good.
    pub(super) fn commit(&mut self, entry: Entry) -> Checked {
        self.check_voters(&entry.voters)?;
        let mut changes = MetadataDelta::default();
        let mut registered = Vec::new();
        for record in &*entry.records {
            if let MetadataRecord::RegisterBroker(broker) = record {
                self.registration_committed(broker.broker_id);
                registered.push(broker.broker_id);
            }
            if let Err(reason) = self.committed.apply(record, &mut changes) {
                return Err(Violation(format!(
                    "MetadataLog: committed {record:?} does not fit: {reason}"
                )));
            }
        }
        self.committed.epoch = entry.epoch;
        self.committed.last_offset = self.quorum.commit(entry);
        self.images.push(self.committed.clone());
        self.check_registrations(&changes, &registered)
    }

    /// Checks what a batch changed; all partitions where brokers came or went. Those in `registered` are new processes.
    fn check_registrations(&mut self, changes: &MetadataDelta, registered: &[NodeId]) -> Checked {
        let all = !changes.brokers_changed.is_empty();
        let image = self.committed.clone();
        for topic in image.topics.iter() {
            for (index, registration) in &topic.partitions {
                let changed = changes
                    .topics_changed
                    .get(&topic.id)
                    .is_some_and(|topic| topic.partitions.contains(index));
                if changed {
                    self.note(format_args!(
                        "committed {index}: leader {} epoch {}/{} isr {:?} elr {:?}",
                        registration.leader,
                        registration.leader_epoch,
                        registration.partition_epoch,
                        registration.isr,
                        registration.elr
                    ));
                }
                if changed || all {
                    let oracle = &mut self.oracle;
                    oracle.registered(*index, registration, &image, registered)?;
                }
            }
        }
        self.find_healed();
        Ok(())
    }

    pub(super) fn on_controller_request(
        &mut self,
        node: NodeId,
        from: NodeId,
        request_id: RequestId,
        request: ControllerRequest,
    ) {
        let bug = self.plan.bug;
        let decided = self.turn(node, |turn, _| match request {
            ControllerRequest::Register(request) => {
                let outcome = pure::register_broker(turn, &request);
                (
                    outcome.records,
                    ControllerAnswer::Registered(outcome.response),
                )
            }
            ControllerRequest::Heartbeat(request) => {
                let outcome = pure::broker_heartbeat(turn, &request);
                (
                    outcome.records,
                    ControllerAnswer::Heartbeat(outcome.response),
                )
            }
            ControllerRequest::AlterPartition(mut request) => {
                if bug == Some(Bug::AcceptsStaleIsr) {
                    accept_stale(turn.image, &mut request);
                }
                let outcome = pure::alter_partition(turn, &request);
                (
                    outcome.records,
                    ControllerAnswer::AlterPartition(outcome.response),
                )
            }
        });
        if let Some((records, answer)) = decided {
            self.note_contact(node, from, &answer);
            self.propose(node, records, Some((from, request_id, answer)));
        } else {
            let answer = ControllerAnswer::NotController;
            self.send(node, from, Message::FromController(request_id, answer));
        }
    }

    fn note_contact(&mut self, node: NodeId, from: NodeId, answer: &ControllerAnswer) {
        let is_accepted = match answer {
            ControllerAnswer::Registered(response) => response.error_code == 0,
            ControllerAnswer::Heartbeat(response) => response.error_code == 0,
            ControllerAnswer::NotController | ControllerAnswer::AlterPartition(_) => false,
        };
        let now_ms = self.now_ms;
        if let Some(active) = self.active_mut(node).filter(|_| is_accepted) {
            active.heard_ms.insert(from, now_ms);
        }
    }

    pub(super) fn on_controller_timer(&mut self, node: NodeId) -> Checked {
        if self.active(node).is_none() {
            return Ok(());
        }
        self.schedule_timer(node, TICK_MS, Timer::Controller);
        let unfenced = self.unfenced(node);
        while let Some(mut records) = self.turn(node, |turn, _| pure::fence_stale_broker(turn)) {
            if records.is_empty() {
                break;
            }
            if self.plan.bug == Some(Bug::FencesWithoutShrinking) {
                records.retain(|record| !matches!(record, MetadataRecord::PartitionChange(_)));
            }
            self.propose(node, records, None);
        }
        self.check_sessions(node, &unfenced)?;
        let records = self.turn(node, |turn, periodic| periodic.run(turn));
        if let Some(records) = records.filter(|records| !records.is_empty()) {
            self.propose(node, records, None);
        }
        self.create_topic_once(node);
        Ok(())
    }

    fn unfenced(&self, node: NodeId) -> Vec<NodeId> {
        let cluster = self.active(node).map(|active| &active.image.cluster);
        let is_alive = |id: &NodeId| cluster.is_some_and(|cluster| cluster.is_alive(*id));
        self.plan.nodes.iter().copied().filter(is_alive).collect()
    }

    /// HonestSessions: of those that were `unfenced` exactly they are fenced that the controller did not hear for a session.
    fn check_sessions(&self, node: NodeId, unfenced: &[NodeId]) -> Checked {
        let Some(active) = self.active(node) else {
            return Ok(());
        };
        let session_ms = i64::from(self.settings.config.broker_session_timeout_ms);
        for id in unfenced {
            let heard_ms = active.heard_ms.get(id).unwrap_or(&active.since_ms);
            let silent_ms = self.now_ms - heard_ms;
            let is_fenced = !active.image.cluster.is_alive(*id);
            if is_fenced != (silent_ms >= session_ms) {
                return Err(Violation(format!(
                    "HonestSessions: controller {node} has fenced {id}: {is_fenced}, {silent_ms} ms after it heard it"
                )));
            }
        }
        Ok(())
    }

    /// The topic is created as soon as all brokers are there.
    fn create_topic_once(&mut self, node: NodeId) {
        let plan = self.plan;
        let records = self.turn(node, |turn, _| {
            let image = turn.image;
            let mut hosts = plan.hosts.iter();
            let all = hosts.all(|id| image.cluster.is_active(*id));
            if !all || !image.topics.is_empty() {
                return Vec::new();
            }
            let mut records = pure::create_topics(turn, &creation(plan)).records;
            let minimum = ConfigRecord {
                resource_type: 2,
                resource_name: TOPIC.into(),
                name: "min.insync.replicas".into(),
                value: Some(plan.min_insync_replicas.to_string()),
            };
            records.push(minimum.into());
            records
        });
        if let Some(records) = records.filter(|records| !records.is_empty()) {
            self.propose(node, records, None);
        }
    }
}

const TOPIC: &str = "t";

fn creation(plan: Plan) -> CreateTopicsRequest {
    let assignments = (0..plan.partitions).map(|index| {
        let mut replicas: Vec<_> = plan.hosts.into_iter().map(WireBrokerId).collect();
        replicas.rotate_left(index as usize % plan.hosts.len());
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(replicas)
    });
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments(assignments.collect());
    CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(1000)
}

/// The planted bug: as if the check of the partition epoch were missing.
fn accept_stale(
    image: &MetadataImage,
    request: &mut kafka_protocol::messages::AlterPartitionRequest,
) {
    for topic in &mut request.topics {
        for asked in &mut topic.partitions {
            let known = image.topics.by_id(topic.topic_id);
            if let Some(known) = known.and_then(|t| t.partitions.get(&asked.partition_index)) {
                asked.partition_epoch = known.partition_epoch;
            }
        }
    }
}
