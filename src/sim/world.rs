//! The world of one run: time, the queue of events, the nodes and what they have on disk.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::{Arc, OnceLock};

use super::broker::Broker;
use super::bug::Bug;
use super::client::Producer;
use super::consumer::Consumer;
use super::controller::Active;
use super::messages::{Event, Message, Timer};
use super::network::{Fate, Network};
use super::oracle::{Checked, Oracle, Violation};
use super::quorum::Quorum;
use super::replica_log::ReplicaLog;
use super::trace::Trace;
use super::{NodeId, PartitionIndex};
use crate::config::Config;
use crate::controller::{Rng, Settings, feature_records};
use crate::metadata::MetadataImage;
use crate::metadata::features;
use crate::partition::PartitionState;
use crate::types::Uuid;

/// All nodes of the bigger world. The smaller one has the first three.
const NODES: [NodeId; 5] = [1, 2, 3, 4, 5];
/// Who votes at first.
const VOTERS: [NodeId; 3] = [1, 2, 3];
pub const CLUSTER_ID: &str = "simulated-cluster";
/// Faults strike until then.
const FAULTS_UNTIL_MS: i64 = 4_000;
/// Everything must have healed by then.
const END_MS: i64 = 20_000;
/// When the first voter comes or goes.
const FIRST_CHANGE_MS: i64 = 500;
/// More events than any story takes.
const EVENTS_MAX: u64 = 100_000;
/// How often the end looks whether all is well.
const SETTLE_MS: i64 = 100;

/// What a seed decides at the start.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub partitions: i32,
    pub min_insync_replicas: usize,
    pub nodes: &'static [NodeId],
    /// The brokers that have the partitions.
    pub hosts: [NodeId; 3],
    /// Voters come and go, and lose their disks; consensus is modelled node by node. Else all nodes vote, and stay.
    pub changes_voters: bool,
    pub bug: Option<Bug>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The invariant that broke, if one did.
    pub violation: Option<Violation>,
    /// Two runs of a seed have the same.
    pub trace_hash: u64,
    /// Empty unless asked for.
    pub trace: String,
    /// Records that were acknowledged, all of them checked.
    pub acknowledged: usize,
    pub events: u64,
}

/// A process on a node: its broker and, while elected, its controller.
pub struct Process {
    /// Which of the node's processes.
    pub number: u64,
    /// What its monotonic clock shows beyond the world's time: each process counts from a point of its own.
    clock_offset_ms: i64,
    pub broker: Broker,
    pub controller: Option<Active>,
}

/// A machine.
#[derive(Default)]
pub struct Node {
    pub logs: BTreeMap<PartitionIndex, ReplicaLog>,
    /// What the clean-shutdown file says.
    pub clean_shutdown_epoch: Option<i64>,
    process: Option<Process>,
    processes: u64,
    frozen_until_ms: i64,
    /// How far the machine's wall clock is off. [`Fault::ClockJump`](super::faults::Fault) sets it.
    pub wall_offset_ms: i64,
    /// It crashed, and is not back in all ISRs.
    pub is_recovering: bool,
    /// A power failure took records that are not all back.
    pub lost_records: bool,
    /// The controller has yet to hear of the crash.
    pub is_unregistered: bool,
}

impl Node {
    pub fn logs_and_process(
        &mut self,
    ) -> (&mut BTreeMap<PartitionIndex, ReplicaLog>, Option<&Process>) {
        (&mut self.logs, self.process.as_ref())
    }
}

struct Scheduled {
    at_ms: i64,
    sequence: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.sequence).cmp(&(other.at_ms, other.sequence))
    }
}

/// Everything there is.
pub struct World {
    pub now_ms: i64,
    pub rng: Rng,
    pub plan: Plan,
    pub network: Network,
    pub quorum: Quorum,
    /// What is committed, as an image.
    pub committed: MetadataImage,
    /// The same after each batch.
    pub images: Vec<MetadataImage>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub clients: Vec<Producer>,
    pub consumers: Vec<Consumer>,
    pub oracle: Oracle,
    pub settings: Arc<Settings>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    trace: Trace,
}

/// Runs the seed's story to its end, or to the first broken invariant.
pub fn run(seed: u64, bug: Option<Bug>, keeps_trace: bool) -> Outcome {
    let mut world = World::new(seed, bug, keeps_trace);
    let mut events = 0;
    let result = world.live(&mut events);
    let violation = result.err();
    if let Some(violation) = &violation {
        world.note(format_args!("VIOLATION {}", violation.0));
    }
    Outcome {
        violation,
        trace_hash: world.trace.hash(),
        acknowledged: world.oracle.acknowledged,
        trace: world.trace.into_text(),
        events,
    }
}

/// Of three seeds two are of partitions on three nodes, as they always were; the third is of five nodes whose voters change. And
/// which of its world it is.
fn world_of(seed: u64) -> (bool, u64) {
    match seed % 3 {
        2 => (true, seed / 3),
        first => (false, seed / 3 * 2 + first),
    }
}

fn settings() -> Arc<Settings> {
    static SETTINGS: OnceLock<Arc<Settings>> = OnceLock::new();
    let load = || {
        let keys = [
            ("broker.session.timeout.ms", "500"),
            ("broker.heartbeat.interval.ms", "100"),
            ("leader.imbalance.check.interval.seconds", "1"),
        ];
        let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Arc::new(Settings {
            node_id: 1,
            cluster_id: CLUSTER_ID.into(),
            config: Arc::new(Config::load(None, &keys).expect("these settings are valid")),
            formatted: feature_records(&features::default_levels(
                features::METADATA_VERSION_LATEST,
            ))
            .into(),
        })
    };
    Arc::clone(SETTINGS.get_or_init(load))
}

impl World {
    fn new(seed: u64, bug: Option<Bug>, keeps_trace: bool) -> Self {
        let (changes_voters, of_world) = world_of(seed);
        let mut rng = Rng::new([
            of_world | 1 << 63,
            0x9E37_79B9,
            of_world.rotate_left(17) | 1,
            7,
        ]);
        for _ in 0..8 {
            rng.next_u64();
        }
        let plan = Plan {
            partitions: 1 + rng.below(2) as i32,
            // With one replica enough for acks=all, no machine may lose anything: a quarter of the seeds.
            min_insync_replicas: if rng.below(4) == 0 { 1 } else { 2 },
            nodes: if changes_voters { &NODES } else { &VOTERS },
            hosts: if changes_voters {
                [[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 1]][rng.below(4)]
            } else {
                VOTERS
            },
            changes_voters,
            bug,
        };
        let network = Network::new([0, 0, 5, 30][rng.below(4)]);
        let mut world = Self {
            now_ms: 0,
            plan,
            network,
            quorum: Quorum::new(plan.nodes, &VOTERS),
            committed: MetadataImage::default(),
            images: Vec::new(),
            nodes: BTreeMap::new(),
            clients: Vec::new(),
            consumers: Vec::new(),
            oracle: Oracle::new(plan.min_insync_replicas),
            settings: settings(),
            queue: BinaryHeap::new(),
            sequence: 0,
            trace: Trace::new(keeps_trace),
            rng,
        };
        world.note(format_args!("seed {seed}: {plan:?}"));
        world.begin();
        world
    }

    fn begin(&mut self) {
        for node in self.plan.nodes.iter().copied() {
            let machine = Node {
                wall_offset_ms: self.rng.below(1_000_000) as i64,
                ..Node::default()
            };
            self.nodes.insert(node, machine);
            self.start_process(node);
        }
        self.schedule(0, Event::Quorum);
        if self.plan.changes_voters {
            self.schedule(FIRST_CHANGE_MS, Event::ChangeVoters);
        }
        for index in 0..3 {
            let partition = index % self.plan.partitions;
            let records = 30 + self.rng.below(60);
            self.clients.push(Producer::new(partition, records));
            self.schedule(300, Event::Client(index as usize));
        }
        for partition in 0..self.plan.partitions {
            self.consumers.push(Consumer::new(partition));
            self.schedule(300, Event::Consumer(partition as usize));
        }
        self.schedule_faults(FAULTS_UNTIL_MS);
    }

    fn live(&mut self, events: &mut u64) -> Checked {
        let mut settles_at_ms = FAULTS_UNTIL_MS;
        while let Some(Reverse(next)) = self.queue.pop() {
            self.now_ms = next.at_ms;
            if self.now_ms >= settles_at_ms {
                if settles_at_ms == FAULTS_UNTIL_MS {
                    self.heal();
                }
                settles_at_ms = self.now_ms + SETTLE_MS;
                let settled = self.settled();
                if settled.is_ok() || self.now_ms >= END_MS {
                    return settled;
                }
            }
            *events += 1;
            if *events >= EVENTS_MAX {
                return Err(Violation(format!(
                    "Progress: {EVENTS_MAX} events and no end"
                )));
            }
            self.step(next.event)?;
            self.check_step()?;
        }
        Ok(())
    }

    /// From now on nothing fails any more.
    fn heal(&mut self) {
        self.note(format_args!("all is healed"));
        self.network.heal();
        self.network.lost_per_mille = 0;
        for node in self.plan.nodes.iter().copied() {
            self.nodes
                .get_mut(&node)
                .expect("all exist")
                .frozen_until_ms = 0;
            self.start_process(node);
        }
    }

    fn step(&mut self, event: Event) -> Checked {
        match event {
            Event::Deliver { from, to, message } => return self.deliver(from, to, message),
            Event::Timer {
                node,
                process,
                timer,
            } => {
                if self.process_number(node) == Some(process) {
                    return self.on_timer(node, process, timer);
                }
            }
            Event::Commit {
                node,
                process,
                epoch,
            } => {
                if self.process_number(node) == Some(process) {
                    return self.on_commit(node, epoch);
                }
            }
            Event::Quorum => return self.on_quorum_tick(),
            Event::ChangeVoters => return self.on_change_voters(),
            Event::Client(index) => self.on_client_timer(index),
            Event::Consumer(index) => self.on_consumer_timer(index),
            Event::Fault(fault) if self.now_ms < FAULTS_UNTIL_MS => self.on_fault(fault),
            Event::Fault(_) => {}
            Event::Restart(node) => self.start_process(node),
            Event::Resume(node) => self.note(format_args!("{node} goes on")),
            Event::HealNetwork => self.network.heal(),
        }
        Ok(())
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: Message) -> Checked {
        if to < 0 {
            return self.on_client_message(to, message);
        }
        if self.process_number(to).is_none() {
            return Ok(());
        }
        if self.is_frozen(to) {
            let delay_ms = self.nodes[&to].frozen_until_ms - self.now_ms;
            self.schedule(delay_ms, Event::Deliver { from, to, message });
            return Ok(());
        }
        match message {
            Message::ToController(id, request) => self.on_controller_request(to, from, id, request),
            Message::FromController(id, answer) => {
                return self.on_controller_answer(to, id, answer);
            }
            Message::FollowMetadata(applied) => self.on_follow_metadata(to, from, applied),
            Message::Metadata { from, to: end } => return self.on_metadata(to, from, end),
            Message::Fetch(request, fetch) => return self.on_fetch(to, from, request, fetch),
            Message::Fetched(request, response) => {
                return self.on_fetched(to, from, request, response);
            }
            Message::Produce(request, produce) => {
                return self.on_produce(to, from, request, produce);
            }
            Message::Consume(request, consume) => self.on_consume(to, from, request, consume),
            Message::Produced(..) | Message::Consumed(..) => {}
        }
        Ok(())
    }

    fn on_timer(&mut self, node: NodeId, process: u64, timer: Timer) -> Checked {
        if self.is_frozen(node) {
            let delay_ms = self.nodes[&node].frozen_until_ms - self.now_ms;
            let event = Event::Timer {
                node,
                process,
                timer,
            };
            self.schedule(delay_ms, event);
            return Ok(());
        }
        match timer {
            Timer::FollowMetadata => self.on_follow_timer(node),
            Timer::Heartbeat => self.on_heartbeat_timer(node),
            Timer::ReplicaTick => return self.on_replica_timer(node),
            Timer::Fetch(leader) => self.on_fetch_timer(node, leader),
            Timer::FetchMore(leader) => self.fetch(node, leader),
            Timer::Flush => self.on_flush_timer(node),
            Timer::Controller => return self.on_controller_timer(node),
            Timer::Propose => self.send_proposals(node),
            Timer::AlterPartition(request) => return self.on_alter_partition_timer(node, request),
        }
        Ok(())
    }

    // ---- time and messages -----------------------------------------------------------------------------------------

    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.note(self.now_ms, what);
    }

    pub fn schedule(&mut self, delay_ms: i64, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Scheduled {
            at_ms: self.now_ms + delay_ms.max(0),
            sequence: self.sequence,
            event,
        }));
    }

    pub fn schedule_timer(&mut self, node: NodeId, delay_ms: i64, timer: Timer) {
        if let Some(process) = self.process_number(node) {
            let event = Event::Timer {
                node,
                process,
                timer,
            };
            self.schedule(delay_ms, event);
        }
    }

    pub fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        match self.network.fate(from, to, &mut self.rng) {
            Fate::Lost => {}
            Fate::DelayMs(delay_ms) => {
                self.schedule(delay_ms, Event::Deliver { from, to, message });
            }
        }
    }

    /// What the monotonic clock of the node's process shows: it never jumps.
    pub fn local_ms(&self, node: NodeId) -> i64 {
        if self.plan.bug == Some(Bug::TimesOutByWallClock) {
            return self.wall_ms(node);
        }
        let process = self.nodes[&node].process.as_ref();
        self.now_ms + process.map_or(0, |process| process.clock_offset_ms)
    }

    /// What the machine takes for the time of day.
    pub fn wall_ms(&self, node: NodeId) -> i64 {
        self.now_ms + self.nodes[&node].wall_offset_ms
    }

    // ---- nodes and processes ---------------------------------------------------------------------------------------

    fn node_mut(&mut self, node: NodeId) -> &mut Node {
        self.nodes.get_mut(&node).expect("all nodes exist")
    }

    pub fn process_mut(&mut self, node: NodeId) -> Option<&mut Process> {
        self.node_mut(node).process.as_mut()
    }

    pub fn process_number(&self, node: NodeId) -> Option<u64> {
        self.nodes
            .get(&node)?
            .process
            .as_ref()
            .map(|process| process.number)
    }

    pub fn broker(&self, node: NodeId) -> Option<&Broker> {
        self.nodes
            .get(&node)?
            .process
            .as_ref()
            .map(|process| &process.broker)
    }

    pub fn broker_mut(&mut self, node: NodeId) -> Option<&mut Broker> {
        self.process_mut(node).map(|process| &mut process.broker)
    }

    pub fn active(&self, node: NodeId) -> Option<&Active> {
        self.nodes.get(&node)?.process.as_ref()?.controller.as_ref()
    }

    pub fn active_mut(&mut self, node: NodeId) -> Option<&mut Active> {
        self.process_mut(node)?.controller.as_mut()
    }

    pub fn log_mut(&mut self, node: NodeId, index: PartitionIndex) -> &mut ReplicaLog {
        self.node_mut(node).logs.entry(index).or_default()
    }

    pub fn state_and_log(
        &mut self,
        node: NodeId,
        index: PartitionIndex,
    ) -> Option<(&mut PartitionState, &mut ReplicaLog)> {
        let node = self.nodes.get_mut(&node)?;
        let broker = &mut node.process.as_mut()?.broker;
        let state = broker.partitions.get_mut(&index)?;
        Some((state, node.logs.entry(index).or_default()))
    }

    fn is_frozen(&self, node: NodeId) -> bool {
        self.nodes[&node].frozen_until_ms > self.now_ms
    }

    pub fn is_running(&self, node: NodeId) -> bool {
        self.nodes[&node].process.is_some() && !self.is_frozen(node)
    }

    pub fn freeze(&mut self, node: NodeId, until_ms: i64) {
        let delay_ms = until_ms - self.now_ms;
        self.node_mut(node).frozen_until_ms = until_ms;
        self.schedule(delay_ms, Event::Resume(node));
    }

    /// Whether there was a process to end.
    pub fn end_process(&mut self, node: NodeId) -> bool {
        self.note(format_args!("{node} ends"));
        let disk = self.node_mut(node);
        disk.frozen_until_ms = 0;
        disk.process.take().is_some()
    }

    /// The machine loses power: of each log some of what was not synced.
    pub fn lose_unsynced(&mut self, node: NodeId) {
        if !self.plan.hosts.contains(&node) {
            return;
        }
        for index in 0..self.plan.partitions {
            let unsynced = self.log_mut(node, index).unsynced_count();
            let lost = self.rng.below(unsynced + 1);
            if lost > 0 {
                self.note(format_args!(
                    "{node} loses {lost} of {unsynced} entries of {index}"
                ));
                let machine = self.nodes.get_mut(&node).expect("all nodes exist");
                machine.lost_records = true;
                let log = machine.logs.entry(index).or_default();
                log.lose_unsynced(lost);
                self.oracle.power_failed(index, node, log);
            }
        }
    }

    fn start_process(&mut self, node: NodeId) {
        let incarnation = Uuid::from_u128(u128::from(self.rng.next_u64()) << 64 | 1 << 20);
        let cuts = self.plan.bug == Some(Bug::TruncatesToHighWatermark);
        // Ours counts from its start, as `Clock` does; from anywhere else nothing may differ.
        let clock_offset_ms = match self.rng.below(2) {
            0 => -self.now_ms,
            _ => self.rng.below(1_000_000) as i64,
        };
        // A follower for which there is no room fetches without a session.
        let session_slots = [1, 1000][self.rng.below(2)];
        let disk = self.node_mut(node);
        if disk.process.is_some() {
            return;
        }
        for log in disk.logs.values_mut() {
            log.recover();
            if cuts {
                log.truncate_to(log.checkpointed_high_watermark.min(log.next_offset()));
            }
        }
        disk.processes += 1;
        let previous_epoch = disk.clean_shutdown_epoch.take().unwrap_or(-1);
        disk.process = Some(Process {
            number: disk.processes,
            clock_offset_ms,
            broker: Broker::new(
                node,
                disk.processes,
                incarnation,
                previous_epoch,
                session_slots,
            ),
            controller: None,
        });
        self.note(format_args!(
            "{node} starts, its last epoch was {previous_epoch}"
        ));
        self.start_broker_timers(node);
    }

    /// The controller knows of the node's new process: that it crashed is no secret any more.
    pub fn registration_committed(&mut self, node: NodeId) {
        self.node_mut(node).is_unregistered = false;
    }
}
