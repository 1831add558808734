//! The loop, the handle and the loader together over a metadata log in memory.

use std::sync::Mutex;
use std::time::Duration;

use kafka_protocol::messages::DeleteTopicsRequest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Clock;
use crate::controller::event_loop::Elections;
use crate::controller::{Controller, ControllerParams, Handle};
use crate::metadata::{Images, Loader, LoaderParams, Publisher, SnapshotPolicy};
use crate::metrics::{Metrics, Scrape};
use crate::protocol::metadata_records::{
    AbortTransactionRecord, BeginTransactionRecord, EndTransactionRecord, TopicRecord,
};
use crate::quorum::{
    BoxFuture, Committed, EndHeld, LeaderAndEpoch, MetaLog, ProposeError, QuorumInfo,
    SnapshotError, VoterEndpoint,
};
use crate::types::LeaderEpoch;

/// A metadata log in memory with one voter. Batches are committed at once, or when the test says so.
pub(super) struct MemoryLog {
    leader: watch::Sender<LeaderAndEpoch>,
    end_held: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    batches: Vec<Committed>,
    end_offset: Offset,
    subscribers: Vec<mpsc::Sender<Committed>>,
    snapshots: Vec<(Offset, Vec<MetadataRecord>)>,
    /// Proposals wait here while the test holds commits back.
    held: Option<Vec<oneshot::Sender<()>>>,
    /// How long a commit takes.
    delay: Duration,
    /// Where other nodes listen.
    endpoint: Option<VoterEndpoint>,
    /// Only so many proposals more are accepted.
    accepted_max: Option<usize>,
}

impl MemoryLog {
    pub(super) fn new(leader_id: Option<BrokerId>) -> Arc<Self> {
        let leader = watch::Sender::new(LeaderAndEpoch {
            leader_id,
            epoch: 1,
        });
        Arc::new(Self {
            leader,
            end_held: Mutex::default(),
            state: Mutex::default(),
        })
    }

    pub(super) fn lead(&self, leader_id: Option<BrokerId>, epoch: LeaderEpoch) {
        self.leader
            .send_replace(LeaderAndEpoch { leader_id, epoch });
    }

    pub(super) fn others_listen_at(&self, endpoint: VoterEndpoint) {
        self.state.lock().expect("state").endpoint = Some(endpoint);
    }

    fn hold_commits(&self) {
        self.state.lock().expect("state").held = Some(Vec::new());
    }

    /// The log takes `count` proposals more, and refuses the next.
    pub(super) fn accept_only(&self, count: usize) {
        self.state.lock().expect("state").accepted_max = Some(count);
    }

    pub(super) fn append(&self, epoch: LeaderEpoch, records: Vec<MetadataRecord>) -> Offset {
        self.state.lock().expect("state").append(epoch, records)
    }

    pub(super) fn batches(&self) -> Vec<Committed> {
        self.state.lock().expect("state").batches.clone()
    }
}

impl State {
    fn append(&mut self, epoch: LeaderEpoch, records: Vec<MetadataRecord>) -> Offset {
        let base_offset = self.end_offset;
        self.end_offset += records.len() as Offset;
        let batch = Committed::Batch {
            base_offset,
            last_offset: self.end_offset - 1,
            epoch,
            append_time_ms: 0,
            records: records.into(),
        };
        self.subscribers
            .retain(|subscriber| subscriber.try_send(batch.clone()).is_ok());
        self.batches.push(batch);
        self.end_offset - 1
    }
}

impl MetaLog for MemoryLog {
    fn propose(
        &self,
        epoch: LeaderEpoch,
        records: Vec<MetadataRecord>,
    ) -> BoxFuture<'static, Result<Offset, ProposeError>> {
        assert!(self.end_held.try_lock().is_err(), "the end is held");
        if self.leader.borrow().epoch != epoch {
            return Box::pin(std::future::ready(Err(ProposeError::NotLeader)));
        }
        let mut state = self.state.lock().expect("state");
        if let Some(held) = &mut state.held {
            let (release, released) = oneshot::channel();
            held.push(release);
            return Box::pin(async move {
                released.await.ok();
                Err(ProposeError::NotLeader)
            });
        }
        if let Some(accepted) = &mut state.accepted_max {
            match accepted.checked_sub(1) {
                Some(left) => *accepted = left,
                None => return Box::pin(std::future::ready(Err(ProposeError::NotLeader))),
            }
        }
        let last_offset = state.append(epoch, records);
        if state.delay.is_zero() {
            return Box::pin(std::future::ready(Ok(last_offset)));
        }
        let delay = tokio::time::sleep(state.delay);
        Box::pin(async move {
            delay.await;
            Ok(last_offset)
        })
    }

    fn end_offset(&self) -> Offset {
        self.state.lock().expect("state").end_offset
    }

    fn hold_end(&self) -> EndHeld<'_> {
        Some(self.end_held.lock().expect("the end"))
    }

    fn leader(&self) -> watch::Receiver<LeaderAndEpoch> {
        self.leader.subscribe()
    }

    fn endpoint(&self, _: BrokerId) -> Option<VoterEndpoint> {
        self.state.lock().expect("state").endpoint.clone()
    }

    fn subscribe(&self) -> mpsc::Receiver<Committed> {
        let (sender, receiver) = mpsc::channel(10_000);
        let mut state = self.state.lock().expect("state");
        for batch in &state.batches {
            sender.try_send(batch.clone()).expect("room");
        }
        state.subscribers.push(sender);
        receiver
    }

    fn describe(&self) -> QuorumInfo {
        QuorumInfo {
            leader_id: 1,
            leader_epoch: 1,
            high_watermark: self.end_offset(),
            voters: Vec::new(),
            observers: Vec::new(),
        }
    }

    fn write_snapshot(
        &self,
        offset: Offset,
        _: LeaderEpoch,
        records: Vec<MetadataRecord>,
    ) -> BoxFuture<'static, Result<(), SnapshotError>> {
        self.state
            .lock()
            .expect("state")
            .snapshots
            .push((offset, records));
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Notes the deltas.
#[derive(Default)]
struct Recorder(Mutex<Vec<MetadataDelta>>);

impl Publisher for Recorder {
    fn on_update(&self, delta: &MetadataDelta, _: &Arc<MetadataImage>) {
        self.0.lock().expect("deltas").push(delta.clone());
    }
}

pub(super) struct Node {
    log: Arc<MemoryLog>,
    pub(super) handle: Handle,
    pub(super) images: Images,
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Node {
    pub(super) fn start(log: Arc<MemoryLog>, record_bytes_max: i64) -> Self {
        Self::start_as(None, log, record_bytes_max)
    }

    fn start_as(
        registers_as: Option<(BrokerId, Uuid)>,
        log: Arc<MemoryLog>,
        record_bytes_max: i64,
    ) -> Self {
        let images = Images::new();
        let recorder = Arc::new(Recorder::default());
        let shutdown = CancellationToken::new();
        let metrics = controller_metrics();
        let handle = Controller::start(ControllerParams {
            settings: settings(),
            log: Arc::<MemoryLog>::clone(&log),
            images: images.clone(),
            clock: Clock::system(),
            metrics: Arc::clone(&metrics),
            shutdown: shutdown.clone(),
        });
        Loader::start(LoaderParams {
            log: Arc::<MemoryLog>::clone(&log),
            images: images.clone(),
            publishers: vec![Arc::<Recorder>::clone(&recorder)],
            snapshots: SnapshotPolicy {
                record_bytes_max,
                interval_ms: 0,
            },
            registers_as,
            shutdown: shutdown.clone(),
        });
        Self {
            log,
            handle,
            images,
            recorder,
            metrics,
            shutdown,
        }
    }

    /// Registers a broker and has it unfenced; returns its epoch.
    pub(super) async fn join(&self, broker_id: BrokerId, incarnation: u128) -> i64 {
        let request = registration(broker_id, incarnation);
        let registered = self.handle.broker_registration(request).await;
        assert_eq!(registered.error_code, 0);
        let request = BrokerHeartbeatRequest {
            broker_id,
            broker_epoch: registered.broker_epoch,
            current_metadata_offset: self.images.current().last_offset,
            ..BrokerHeartbeatRequest::default()
        };
        let response = self.handle.broker_heartbeat(request).await;
        assert_eq!((response.error_code, response.is_fenced), (0, false));
        assert!(
            self.images.current().cluster.is_alive(broker_id),
            "applied when answered"
        );
        registered.broker_epoch
    }

    pub(super) async fn create(&self, topic: CreatableTopic) -> i16 {
        let request = create(vec![topic]).with_timeout_ms(5_000);
        self.handle.create_topics(request).await.topics[0].error_code
    }
}

/// Rule: controller-failover
#[tokio::test]
async fn topics_live_through_a_restart_of_the_controller() {
    let log = MemoryLog::new(Some(1));
    let node = Node::start(Arc::clone(&log), i64::MAX);
    node.join(1, 1).await;
    assert_eq!(node.create(topic("t", 2, 1)).await, 0);
    assert_eq!(node.create(topic("t", 2, 1)).await, 36);
    assert_eq!(node.create(topic("doomed", 1, 1)).await, 0);
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![name("doomed")])
        .with_timeout_ms(5_000);
    assert_eq!(
        node.handle.delete_topics(request).await.responses[0].error_code,
        0
    );
    let before = node.images.current();
    drop(node);
    let node = Node::start(log, i64::MAX);
    let after = node.images.wait_for(before.last_offset).await;
    assert_eq!(after, before);
    let deltas = node.recorder.0.lock().expect("deltas").clone();
    assert_eq!(deltas.len(), 1, "all that was there comes as one delta");
    assert!(deltas[0].initial && deltas[0].topics_changed.values().all(|t| &*t.name == "t"));
    assert_eq!(node.create(topic("t", 2, 1)).await, 36);
}

/// Found by the simulator: a restarted broker took up a leadership that the metadata still gave its former process.
/// Rule: unfencing
#[tokio::test]
async fn nothing_is_published_before_the_broker_is_registered() {
    let log = MemoryLog::new(Some(1));
    let node = Node::start(Arc::clone(&log), i64::MAX);
    node.join(1, 1).await;
    assert_eq!(node.create(topic("t", 2, 1)).await, 0);
    let end = node.images.current().last_offset;
    drop(node);
    let node = Node::start_as(Some((1, Uuid::from_u128(2))), log, i64::MAX);
    node.images.wait_for_loaded(end).await;
    assert!(node.recorder.0.lock().expect("deltas").is_empty());
    assert_eq!(node.images.current().last_offset, -1);
    node.join(1, 2).await;
    let deltas = node.recorder.0.lock().expect("deltas").clone();
    assert!(deltas[0].initial && deltas[0].brokers_changed.contains(&1));
    assert_eq!(deltas[0].topics_changed.len(), 1, "with all there was");
}

/// Rule: committed-first
#[tokio::test]
async fn requests_wait_for_a_leader_and_are_refused_by_others() {
    let log = MemoryLog::new(None);
    let node = Node::start(Arc::clone(&log), i64::MAX);
    let waiting = tokio::spawn({
        let handle = node.handle.clone();
        async move {
            handle
                .broker_registration(registration(1, 1))
                .await
                .error_code
        }
    });
    tokio::task::yield_now().await;
    log.lead(Some(1), 2);
    assert_eq!(waiting.await.expect("answered"), 0);
    log.lead(Some(2), 3);
    let timeout = Duration::from_secs(5);
    let refused = tokio::time::timeout(timeout, node.create(topic("t", 1, 1))).await;
    assert_eq!(refused.expect("at once"), 41);
}

/// Rule: committed-first
#[tokio::test]
async fn what_is_not_committed_is_forgotten() {
    let log = MemoryLog::new(Some(1));
    let node = Node::start(Arc::clone(&log), i64::MAX);
    node.join(1, 1).await;
    log.hold_commits();
    let requests = ["a", "b"].map(|topic_name| {
        let handle = node.handle.clone();
        let request = create(vec![topic(topic_name, 1, 1)]).with_timeout_ms(60_000);
        tokio::spawn(async move { handle.create_topics(request).await.topics[0].error_code })
    });
    while log
        .state
        .lock()
        .expect("state")
        .held
        .as_ref()
        .map_or(0, Vec::len)
        < 2
    {
        tokio::task::yield_now().await;
    }
    log.state.lock().expect("state").held = None;
    for request in requests {
        assert_eq!(request.await.expect("answered"), 41);
    }
    assert_eq!(node.create(topic("a", 1, 1)).await, 41, "the epoch is over");
    log.lead(Some(1), 2);
    assert_eq!(
        node.create(topic("a", 1, 1)).await,
        0,
        "it was never created"
    );
}

/// A metric of a controller, as `/metrics` has it.
async fn metric(metrics: &Arc<Metrics>, name: &str) -> i64 {
    let text = metrics.encode().await;
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {name}"));
    value.parse::<f64>().expect("a number") as i64
}

fn controller_metrics() -> Arc<Metrics> {
    let metrics = Arc::new(Metrics::new());
    let weak = Arc::downgrade(&metrics);
    metrics.add_source(move || {
        let mut scrape = Scrape::default();
        if let Some(metrics) = weak.upgrade() {
            metrics.controller.collect(&mut scrape);
        }
        std::future::ready(scrape)
    });
    metrics
}

#[tokio::test]
async fn operations_and_commits_are_measured() {
    let log = MemoryLog::new(Some(1));
    let node = Node::start(Arc::clone(&log), i64::MAX);
    node.join(1, 1).await;
    let queued = "kafka_controller_controllereventmanager_eventqueuetimems_count";
    let before = metric(&node.metrics, queued).await;
    assert!(before >= 2, "registration and heartbeat: {before}");
    log.state.lock().expect("state").delay = Duration::from_millis(30);
    assert_eq!(node.create(topic("t", 1, 1)).await, 0);
    assert!(metric(&node.metrics, queued).await > before);
    let processed = "kafka_controller_controllereventmanager_eventqueueprocessingtimems_count";
    assert!(metric(&node.metrics, processed).await >= 3);
    let committed = "kafka_server_raftmetrics_commit_latency_max";
    assert!(metric(&node.metrics, committed).await >= 30);
    let started = "kafka_controller_kafkacontroller_eventqueueoperationsstartedcount";
    assert!(metric(&node.metrics, started).await >= 3);
}

#[tokio::test]
async fn elections_last_from_no_leader_to_the_next() {
    let metrics = controller_metrics();
    let mut elections = Elections::default();
    for (leader, now_ms) in [
        (None, 0),
        (Some(1), 50),
        (None, 100),
        (None, 120),
        (Some(2), 350),
        (None, 400),
        (Some(2), 450),
    ] {
        elections.heard(leader, now_ms, &metrics.controller);
    }
    let latency = "kafka_server_raftmetrics_election_latency";
    assert_eq!(metric(&metrics, &format!("{latency}_max")).await, 250);
    assert_eq!(metric(&metrics, &format!("{latency}_avg")).await, 150);
    let elected = "kafka_controller_kafkacontroller_newactivecontrollerscount";
    assert_eq!(metric(&metrics, elected).await, 2);
}

#[tokio::test]
async fn timeouts_are_kafkas() {
    let node = Node::start(MemoryLog::new(Some(1)), i64::MAX);
    node.join(1, 1).await;
    for timeout_ms in [0, -1] {
        let request = create(vec![topic("t", 1, 1)]).with_timeout_ms(timeout_ms);
        assert_eq!(
            node.handle.create_topics(request).await.topics[0].error_code,
            7
        );
    }
    node.log.hold_commits();
    let request = create(vec![topic("t", 1, 1)]).with_timeout_ms(20);
    assert_eq!(
        node.handle.create_topics(request).await.topics[0].error_code,
        7
    );
}

fn named_topic(topic_name: &str, id: u128) -> MetadataRecord {
    let topic = TopicRecord {
        name: topic_name.to_string(),
        topic_id: Uuid::from_u128(id),
    };
    topic.into()
}

/// Rule: metadata-transactions
#[tokio::test]
async fn metadata_transactions_count_when_they_end() {
    let log = MemoryLog::new(Some(2));
    let node = Node::start(Arc::clone(&log), 1);
    let append = |records| log.state.lock().expect("state").append(1, records);
    let begin = || BeginTransactionRecord::default().into();
    let offset = append(vec![begin(), named_topic("a", 7)]);
    let image = node.images.wait_for(offset).await;
    assert!(image.topics.is_empty(), "not yet");
    assert!(
        log.state.lock().expect("state").snapshots.is_empty(),
        "half of it is no snapshot"
    );
    append(vec![
        named_topic("b", 8),
        EndTransactionRecord::default().into(),
    ]);
    let offset = append(vec![
        begin(),
        named_topic("c", 9),
        AbortTransactionRecord::default().into(),
    ]);
    let image = node.images.wait_for(offset).await;
    let names: Vec<&str> = image.topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["a", "b"]);
}

/// Rule: snapshots
#[tokio::test]
async fn a_snapshot_that_comes_later_is_published_as_what_differs() {
    let log = MemoryLog::new(Some(2));
    let node = Node::start(Arc::clone(&log), i64::MAX);
    let offset = {
        let mut state = log.state.lock().expect("state");
        state.append(1, vec![named_topic("kept", 7), named_topic("gone", 8)])
    };
    node.images.wait_for(offset).await;
    {
        let mut state = log.state.lock().expect("state");
        state.end_offset = 100;
        let snapshot = Committed::Snapshot {
            offset: 100,
            epoch: 1,
            records: vec![named_topic("kept", 7), named_topic("new", 9)].into(),
        };
        for subscriber in &state.subscribers {
            subscriber.try_send(snapshot.clone()).expect("room");
        }
    }
    let image = node.images.wait_for(99).await;
    assert_eq!((image.topics.len(), image.last_offset), (2, 99));
    let delta = node
        .recorder
        .0
        .lock()
        .expect("deltas")
        .last()
        .expect("one")
        .clone();
    assert!(!delta.initial);
    assert_eq!(
        delta
            .topics_deleted
            .values()
            .map(|n| &**n)
            .collect::<Vec<_>>(),
        ["gone"]
    );
    let changed: Vec<_> = delta
        .topics_changed
        .values()
        .map(|t| (&*t.name, t.created))
        .collect();
    assert_eq!(changed, [("new", true)]);
}

/// Rule: snapshots
#[tokio::test]
async fn snapshots_are_written_by_size_and_hold_everything() {
    let node = Node::start(MemoryLog::new(Some(1)), 2_000);
    node.join(1, 1).await;
    for number in 0..40 {
        assert_eq!(node.create(topic(&format!("t{number}"), 3, 1)).await, 0);
    }
    let snapshots = std::mem::take(&mut node.log.state.lock().expect("state").snapshots);
    assert!(snapshots.len() > 1, "wrote {} snapshots", snapshots.len());
    let (offset, records) = snapshots.last().expect("one");
    let mut restored = MetadataImage::default();
    for record in records {
        restored
            .apply(record, &mut MetadataDelta::default())
            .expect("fits");
    }
    let mut replayed = MetadataImage::default();
    for batch in &node.log.state.lock().expect("state").batches {
        match batch {
            Committed::Batch {
                records,
                last_offset,
                ..
            } if last_offset < offset => {
                for record in &**records {
                    replayed
                        .apply(record, &mut MetadataDelta::default())
                        .expect("fits");
                }
            }
            _ => {}
        }
    }
    assert_eq!(restored, replayed);
}
