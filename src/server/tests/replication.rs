//! A broker and a follower in this process, over real sockets: the follower has its own logs, follows the broker's metadata
//! and fetches like a broker of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::broker_registration_request::Listener;
use kafka_protocol::messages::create_topics_request::CreatableReplicaAssignment;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, BrokerRegistrationRequest, DeleteRecordsRequest,
    DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    IncrementalAlterConfigsRequest,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::Services;
use crate::log::LogDirs;
use crate::metadata::features;
use crate::metadata::{
    ConfigResourceType, MetadataDelta, MetadataImage, PartitionRegistration, Publisher,
};
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::protocol::ErrorCode;
use crate::protocol::messages::broker_heartbeat::BrokerHeartbeatRequest;
use crate::replica::{Fetchers, ReplicaManager};
use crate::server::dynamic_config::DynamicConfig;
use crate::types::random_uuid;

const FOLLOWER: i32 = 2;
/// The end of a test that hangs.
const PATIENCE: Duration = Duration::from_secs(40);

/// Broker 2: replica manager and fetchers, without listeners of its own.
struct Follower {
    replicas: Arc<ReplicaManager>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Follower {
    /// Follows the metadata until it is stopped.
    fn start(services: &Arc<Services>, broker_epoch: i64, dir: &Path) -> Self {
        let stop = CancellationToken::new();
        let dirs = LogDirs::open(&[dir.to_owned()], dir).expect("directory");
        let config = Arc::new(ArcSwap::from(services.config()));
        let metrics = Arc::new(Metrics::new());
        let replicas = Arc::new(ReplicaManager::new(
            FOLLOWER,
            Arc::clone(&config),
            dirs,
            services.clock.clone(),
            Arc::clone(&metrics),
            services.images.clone(),
        ));
        replicas.set_broker_epoch(broker_epoch);
        let fetchers = Fetchers::new(
            Arc::clone(&replicas),
            Arc::clone(&config),
            services.images.clone(),
            services.clock.clone(),
            stop.clone(),
        );
        let dynamic = DynamicConfig {
            broker_id: FOLLOWER,
            config,
        };
        let following = follow(
            Arc::clone(services),
            vec![
                Arc::new(dynamic),
                Arc::<ReplicaManager>::clone(&replicas),
                Arc::new(fetchers),
            ],
        );
        tokio::spawn(stop.clone().run_until_cancelled_owned(following));
        Self {
            replicas,
            metrics,
            stop,
        }
    }

    /// Stops fetching; the broker's session goes on.
    fn stop(self) {
        self.stop.cancel();
        self.replicas.close(-1);
    }
}

/// Broker 2 registers, is unfenced, and heartbeats as long as the runtime lives. Gives its broker epoch.
async fn register(services: &Arc<Services>) -> i64 {
    let registration = registration(&services.cluster_id);
    let registered = services.controller.broker_registration(registration).await;
    assert_eq!(registered.error_code, 0);
    tokio::spawn(heartbeats(Arc::clone(services), registered.broker_epoch));
    let mut changes = services.images.watch();
    while !services.image().cluster.is_alive(FOLLOWER) {
        changes.changed().await.expect("the broker runs");
    }
    registered.broker_epoch
}

async fn follow(services: Arc<Services>, publishers: Vec<Arc<dyn Publisher>>) {
    let mut changes = services.images.watch();
    let mut known = Arc::new(MetadataImage::default());
    loop {
        changes.borrow_and_update();
        let image = services.image();
        let mut delta = MetadataDelta::between(&known, &image);
        delta.initial = known.last_offset < 0;
        for publisher in &publishers {
            publisher.on_update(&delta, &image);
        }
        known = image;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn heartbeats(services: Arc<Services>, broker_epoch: i64) {
    loop {
        let request = BrokerHeartbeatRequest {
            broker_id: FOLLOWER,
            broker_epoch,
            current_metadata_offset: services.image().last_offset.max(broker_epoch),
            ..BrokerHeartbeatRequest::default()
        };
        services.controller.broker_heartbeat(request).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn registration(cluster_id: &str) -> BrokerRegistrationRequest {
    let listener = Listener::default()
        .with_name(StrBytes::from_static_str("PLAINTEXT"))
        .with_host(StrBytes::from_static_str("127.0.0.1"))
        .with_port(1);
    BrokerRegistrationRequest::default()
        .with_broker_id(BrokerId(FOLLOWER))
        .with_cluster_id(StrBytes::from_string(cluster_id.to_owned()))
        .with_incarnation_id(random_uuid())
        .with_listeners(vec![listener])
        .with_features(features::of_registration())
        .with_log_dirs(vec![random_uuid()])
        .with_previous_broker_epoch(-1)
}

/// The leading broker, with settings that make lag show soon.
fn leader() -> Fixture {
    Fixture::start_with(&[
        ("node.id", "1"),
        ("replica.lag.time.max.ms", "1000"),
        ("replica.fetch.wait.max.ms", "100"),
        ("broker.session.timeout.ms", "60000"),
        ("replica.fetch.max.bytes", "20000"),
    ])
}

impl Fixture {
    fn services(&self) -> Arc<Services> {
        Arc::clone(&self.broker.as_ref().expect("it runs").services)
    }

    fn register_follower(&self) -> i64 {
        self.runtime.block_on(register(&self.services()))
    }

    fn start_follower(&self, broker_epoch: i64, dir: &Path) -> Follower {
        let _runtime = self.runtime.enter();
        Follower::start(&self.services(), broker_epoch, dir)
    }

    /// A topic of one partition that brokers 1 and 2 hold.
    fn create_replicated_topic(&self, name: &'static str) {
        self.create_topic_on(name, &[1, FOLLOWER]);
    }

    fn create_topic_on(&self, name: &'static str, brokers: &[i32]) {
        let assignment = CreatableReplicaAssignment::default()
            .with_partition_index(0)
            .with_broker_ids(brokers.iter().copied().map(BrokerId).collect());
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(name)))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![assignment]);
        let create = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let mut stream = self.connect();
        stream.write_all(&request(&create, 4, 1)).expect("sent");
        let created = CreateTopicsResponse::decode(&mut response(&mut stream).1, 4);
        assert_eq!(created.expect("response").topics[0].error_code, 0);
    }

    fn reassign(&self, topic: &'static str, brokers: &[i32]) {
        let brokers = brokers.iter().copied().map(BrokerId).collect();
        let partition = ReassignablePartition::default().with_replicas(Some(brokers));
        let topic = ReassignableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(topic)))
            .with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let services = self.services();
        let asked = services.controller.alter_partition_reassignments(request);
        assert_eq!(self.runtime.block_on(asked).error_code, 0);
    }

    fn delete_topic(&self, name: &'static str) {
        let names = vec![TopicName(StrBytes::from_static_str(name))];
        let delete = DeleteTopicsRequest::default()
            .with_topic_names(names)
            .with_timeout_ms(10_000);
        let mut stream = self.connect();
        stream.write_all(&request(&delete, 3, 1)).expect("sent");
        let deleted = DeleteTopicsResponse::decode(&mut response(&mut stream).1, 3);
        assert_eq!(deleted.expect("response").responses[0].error_code, 0);
    }

    /// DeleteRecords up to `offset`: code and low watermark.
    pub(super) fn delete_records(
        &self,
        topic: &'static str,
        offset: i64,
        timeout_ms: i32,
    ) -> (i16, i64) {
        let partition = DeleteRecordsPartition::default().with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(topic)))
            .with_partitions(vec![partition]);
        let delete = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(timeout_ms);
        let mut stream = self.connect();
        stream.write_all(&request(&delete, 1, 1)).expect("sent");
        let deleted = DeleteRecordsResponse::decode(&mut response(&mut stream).1, 1);
        let deleted = deleted.expect("response");
        let partition = &deleted.topics[0].partitions[0];
        (partition.error_code, partition.low_watermark)
    }

    /// Sets one config of a topic or, under an empty name, of all brokers.
    fn set(&self, (kind, name): (ConfigResourceType, &'static str), key: &'static str, to: &str) {
        let config = AlterableConfig::default()
            .with_name(StrBytes::from_static_str(key))
            .with_value(Some(StrBytes::from_string(to.to_owned())));
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind as i8)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let services = self.services();
        let asked = services.controller.incremental_alter_configs(request);
        assert_eq!(self.runtime.block_on(asked).responses[0].error_code, 0);
    }

    /// The value of a metric as its line in `/metrics` begins.
    fn metric(&self, line: &str) -> f64 {
        let text = self.runtime.block_on(self.services().metrics.encode());
        let mut values = text
            .lines()
            .filter_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        let value = values.next().unwrap_or_else(|| panic!("no metric {line}"));
        value.parse().expect("a number")
    }

    fn registration(&self, topic: &str) -> PartitionRegistration {
        let image = self.services().image();
        let topic = image.topics.by_name(topic).expect("created");
        PartitionRegistration::clone(&topic.partitions[&0])
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn content(partition: &Partition) -> Bytes {
    let read = partition.with_log(|log| {
        let slice = log.read(0, usize::MAX, i64::MAX, true).expect("readable");
        slice.read_bytes().expect("readable")
    });
    read.expect("open")
}

/// Rule: acks-all
#[test]
fn follower_copies_its_leader_and_acks_all_waits_for_it() {
    let broker = leader();
    let dir = tempfile::tempdir().expect("temporary directory");
    let epoch = broker.register_follower();
    let follower = broker.start_follower(epoch, dir.path());
    broker.create_replicated_topic("copied");
    let mut stream = broker.connect();
    for sent in 0..20 {
        stream
            .write_all(&produce("copied", "value", sent))
            .expect("sent");
        assert_eq!(produced_offset(response(&mut stream).1), i64::from(sent));
        let copy = follower.replicas.find("copied", 0).expect("hosted");
        let next_offset = copy.offsets().expect("open").next_offset;
        assert!(
            next_offset > i64::from(sent),
            "acknowledged before it was copied"
        );
    }
    let copy = follower.replicas.find("copied", 0).expect("hosted");
    wait_until("the follower knows the high watermark", || {
        copy.offsets().expect("open").high_watermark == 20
    });
    let original = broker.services().replicas.find("copied", 0).expect("led");
    assert_eq!(content(&copy), content(&original));
    assert_eq!(broker.registration("copied").isr, [1, FOLLOWER]);
}

/// Rule: isr-shrink
#[test]
fn follower_that_is_gone_leaves_the_isr_and_comes_back() {
    let broker = leader();
    let dir = tempfile::tempdir().expect("temporary directory");
    let epoch = broker.register_follower();
    let follower = broker.start_follower(epoch, dir.path());
    broker.create_replicated_topic("lagging");
    let mut stream = broker.connect();
    stream.write_all(&produce("lagging", "a", 1)).expect("sent");
    assert_eq!(produced_offset(response(&mut stream).1), 0);
    follower.stop();
    // Waits until the follower is out of the ISR, then is on all that are in it.
    stream.write_all(&produce("lagging", "b", 2)).expect("sent");
    assert_eq!(produced_offset(response(&mut stream).1), 1);
    assert_eq!(broker.registration("lagging").isr, [1]);
    let counts = |name| broker.metric(&format!("kafka_server_replicamanager_{name}")) as i64;
    assert_eq!(counts("underreplicatedpartitions"), 1);
    assert_eq!(counts("atminisrpartitioncount"), 1);
    assert_eq!(counts("isrshrinks_total"), 1);
    assert_eq!(counts("isrexpands_total"), 0);
    let follower = broker.start_follower(epoch, dir.path());
    wait_until("the follower is in sync again", || {
        broker.registration("lagging").isr == [1, FOLLOWER]
    });
    let copy = follower.replicas.find("lagging", 0).expect("hosted");
    assert_eq!(copy.offsets().expect("open").next_offset, 2);
    assert_eq!(counts("underreplicatedpartitions"), 0);
    wait_until("the leader knows that it was taken", || {
        counts("isrexpands_total") == 1
    });
    assert_eq!(counts("isrshrinks_total"), 1);
    assert!(broker.metric("kafka_server_brokertopicmetrics_replicationbytesout_total") > 0.0);
}

#[test]
fn deleted_records_are_gone_from_all_replicas_or_the_request_times_out() {
    let broker = leader();
    let dir = tempfile::tempdir().expect("temporary directory");
    let epoch = broker.register_follower();
    let follower = broker.start_follower(epoch, dir.path());
    broker.create_replicated_topic("cut");
    let mut stream = broker.connect();
    for sent in 0..3 {
        stream.write_all(&produce("cut", "a", sent)).expect("sent");
        assert_eq!(produced_offset(response(&mut stream).1), i64::from(sent));
    }
    assert_eq!(broker.delete_records("cut", 2, 20_000), (0, 2));
    let copy = follower.replicas.find("cut", 0).expect("hosted");
    assert_eq!(copy.offsets().expect("open").log_start_offset, 2);
    follower.stop();
    // It is alive and does not fetch: nobody knows whether it has deleted.
    let timed_out = broker.delete_records("cut", 3, 100);
    assert_eq!(timed_out, (ErrorCode::RequestTimedOut.code(), 2));
    // What all have deleted before is answered at once.
    assert_eq!(broker.delete_records("cut", 1, 0), (0, 2));
}

/// Rule: topic-deletion
#[test]
fn log_of_a_topic_that_was_deleted_and_created_again_is_put_aside() {
    // Once its broker was down meanwhile, and else it was there.
    let broker = leader();
    let dir = tempfile::tempdir().expect("temporary directory");
    let epoch = broker.register_follower();
    let mut stream = broker.connect();
    let mut follower = broker.start_follower(epoch, dir.path());
    for (round, stop) in [false, true, false].into_iter().enumerate() {
        broker.create_replicated_topic("twice");
        for sent in 0..=round as i32 {
            stream
                .write_all(&produce("twice", "a", sent))
                .expect("sent");
            assert_eq!(produced_offset(response(&mut stream).1), i64::from(sent));
        }
        if stop {
            follower.stop();
            broker.delete_topic("twice");
            broker.create_replicated_topic("twice");
            follower = broker.start_follower(epoch, dir.path());
            stream.write_all(&produce("twice", "b", 0)).expect("sent");
            assert_eq!(produced_offset(response(&mut stream).1), 0);
        }
        let copy = follower.replicas.find("twice", 0).expect("hosted");
        let led = broker.services().replicas.find("twice", 0).expect("led");
        assert_eq!(content(&copy), content(&led));
        broker.delete_topic("twice");
    }
    let entries = std::fs::read_dir(dir.path()).expect("listed");
    let names = entries.filter_map(|entry| entry.expect("listed").file_name().into_string().ok());
    assert_eq!(names.filter(|name| name.ends_with("-stray")).count(), 1);
}

#[test]
fn fetchers_follow_their_number_while_they_run() {
    let broker = leader();
    let dir = tempfile::tempdir().expect("temporary directory");
    let epoch = broker.register_follower();
    let _follower = broker.start_follower(epoch, dir.path());
    broker.create_replicated_topic("spread");
    let mut stream = broker.connect();
    for (sent, fetchers) in ["2", "4", "2", "1"].into_iter().enumerate() {
        let key = "num.replica.fetchers";
        broker.set((ConfigResourceType::Broker, ""), key, fetchers);
        let sent = sent as i32;
        stream
            .write_all(&produce("spread", "a", sent))
            .expect("sent");
        // acks=all: the follower fetches on.
        assert_eq!(produced_offset(response(&mut stream).1), i64::from(sent));
    }
    assert_eq!(broker.registration("spread").isr, [1, FOLLOWER]);
}

/// Rule: acks-all
#[test]
fn min_insync_replicas_changes_live() {
    let broker = leader();
    let dir = tempfile::tempdir().expect("temporary directory");
    let epoch = broker.register_follower();
    let follower = broker.start_follower(epoch, dir.path());
    broker.create_replicated_topic("guarded");
    let mut stream = broker.connect();
    let mut code = |sent| {
        let produce = produce("guarded", "a", sent);
        stream.write_all(&produce).expect("sent");
        produced(response(&mut stream).1).0
    };
    assert_eq!(code(1), 0);
    follower.stop();
    // Waits until the follower is out of the ISR.
    assert_eq!(code(2), 0);
    let topic = (ConfigResourceType::Topic, "guarded");
    broker.set(topic, "min.insync.replicas", "2");
    wait_until("one replica is not enough", || {
        code(3) == ErrorCode::NotEnoughReplicas.code()
    });
    broker.set(topic, "min.insync.replicas", "1");
    wait_until("one replica is enough", || code(4) == 0);
}

#[test]
fn replica_that_was_reassigned_stops_and_its_directory_goes() {
    let broker = leader();
    let dir = tempfile::tempdir().expect("temporary directory");
    let epoch = broker.register_follower();
    let follower = broker.start_follower(epoch, dir.path());
    broker.create_replicated_topic("moved");
    let mut stream = broker.connect();
    stream.write_all(&produce("moved", "a", 1)).expect("sent");
    assert_eq!(produced_offset(response(&mut stream).1), 0);
    broker.reassign("moved", &[1]);
    wait_until("the replica is gone", || {
        let found = follower.replicas.find("moved", 0).map(|_| ());
        found.is_err_and(|error| error.code == ErrorCode::NotLeaderOrFollower)
    });
    wait_until("its directory is renamed", || {
        !dir.path().join("moved-0").exists()
    });
    stream.write_all(&produce("moved", "b", 2)).expect("sent");
    assert_eq!(produced_offset(response(&mut stream).1), 1);
}

#[test]
fn bytes_of_a_reassignment_are_counted_and_failed_partitions_too() {
    let broker = leader();
    let dir = tempfile::tempdir().expect("temporary directory");
    let epoch = broker.register_follower();
    let follower = broker.start_follower(epoch, dir.path());
    broker.create_topic_on("added", &[1]);
    broker.create_replicated_topic("both");
    let mut stream = broker.connect();
    let mut send = |topic: &'static str, sent| {
        let produce = produce(topic, &"x".repeat(1000), sent);
        stream.write_all(&produce).expect("sent");
        assert_eq!(produced_offset(response(&mut stream).1), i64::from(sent));
    };
    send("both", 0);
    let counts = || {
        let copied = &follower.metrics.replication;
        let sent = "kafka_server_brokertopicmetrics_reassignmentbytesout_total";
        let taken = copied
            .reassigned_in
            .load(std::sync::atomic::Ordering::Relaxed);
        (broker.metric(sent) as u64, taken)
    };
    assert_eq!(counts(), (0, 0));
    // What is read for the new replica is damaged, and mended after a while.
    send("added", 0);
    let path = broker.dir.path();
    let path = path.join("added-0/00000000000000000000.log");
    let sound = std::fs::read(&path).expect("readable");
    let mut damaged = sound.clone();
    *damaged.last_mut().expect("a record") ^= 1;
    std::fs::write(&path, damaged).expect("writable");
    broker.reassign("added", &[1, FOLLOWER]);
    let failed = || {
        let text = broker.runtime.block_on(follower.metrics.encode());
        text.contains("failedpartitionscount{clientId=\"Replica\"} 1")
    };
    wait_until("a partition has failed", failed);
    std::fs::write(&path, sound).expect("writable");
    wait_until("the new replica is in sync", || {
        broker.registration("added").isr == [1, FOLLOWER]
    });
    assert!(!failed());
    let (sent, taken) = counts();
    assert!(sent >= 1000 && taken >= 1000, "{sent} and {taken}");
    // Both brokers hear a little later that it is over.
    let mut next = 0;
    wait_until("what is produced then does not count", || {
        next += 1;
        let before = counts();
        send("added", next);
        counts() == before
    });
}

/// Rule: leader-hints
#[test]
fn answers_of_another_broker_name_the_leader() {
    // KIP-951: the topic is on broker 2 only; broker 1 knows where that listens.
    let broker = leader();
    let dir = tempfile::tempdir().expect("temporary directory");
    let epoch = broker.register_follower();
    let _follower = broker.start_follower(epoch, dir.path());
    broker.create_topic_on("elsewhere", &[FOLLOWER]);
    let mut stream = broker.connect();
    let mut body = BytesMut::new();
    produce_request("elsewhere", "value")
        .encode(&mut body, 12)
        .expect("request");
    let framed = frame((PRODUCE.0, 12), 1, true, &body);
    stream.write_all(&framed).expect("sent");
    let mut body = response(&mut stream).1.split_off(1);
    let refused = ProduceResponse::decode(&mut body, 12).expect("response");
    let partition = &refused.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, ErrorCode::NotLeaderOrFollower.code());
    assert_eq!(partition.current_leader.leader_id, FOLLOWER);
    assert_eq!(partition.current_leader.leader_epoch, 0);
    let [endpoint] = &refused.node_endpoints[..] else {
        panic!("one leader: {:?}", refused.node_endpoints);
    };
    let found = (endpoint.node_id, endpoint.host.as_str(), endpoint.port);
    assert_eq!(found, (FOLLOWER, "127.0.0.1", 1));
}

/// What a dead process sent may be worked off after the living one has registered.
#[test]
fn a_broker_whose_place_was_taken_registers_anew() {
    let fixture = Fixture::start_with(&[("node.id", "1"), ("broker.heartbeat.interval.ms", "50")]);
    let services = fixture.services();
    let epoch_of = |services: &Services| services.replicas.broker_epoch();
    let first = epoch_of(&services);
    let registered = services.image().cluster.broker(1).cloned();
    let dirs = registered.expect("it is registered").log_dirs.clone();
    let late = registration(&services.cluster_id)
        .with_broker_id(BrokerId(1))
        .with_log_dirs(dirs);
    fixture.runtime.block_on(async {
        let response = services.controller.broker_registration(late).await;
        assert_eq!(response.error_code, 0);
        assert!(response.broker_epoch > first);
        let mut changes = services.images.watch();
        let back = async {
            while epoch_of(&services) <= response.broker_epoch
                || !services.image().cluster.is_alive(1)
            {
                changes.changed().await.expect("the broker runs");
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), back).await;
        assert!(waited.is_ok(), "it stays without a place");
    });
}

/// Copies 200 kB at 100 kB a second to a new replica and gives the time it took; `rate` and `replicas` are the configs.
fn throttled_copy(rate: &'static str, replicas: &'static str, listed: &str) -> Duration {
    let broker = leader();
    let dir = tempfile::tempdir().expect("temporary directory");
    let epoch = broker.register_follower();
    let follower = broker.start_follower(epoch, dir.path());
    broker.create_topic_on("throttled", &[1]);
    broker.create_replicated_topic("free");
    let mut stream = broker.connect();
    for sent in 0..20 {
        let produce = produce("throttled", &"x".repeat(10_000), sent);
        stream.write_all(&produce).expect("sent");
        assert_eq!(produced_offset(response(&mut stream).1), i64::from(sent));
    }
    broker.set((ConfigResourceType::Broker, ""), rate, "100000");
    broker.set((ConfigResourceType::Topic, "throttled"), replicas, listed);
    broker.set((ConfigResourceType::Topic, "free"), replicas, "0:3,7:1");
    let began = Instant::now();
    broker.reassign("throttled", &[1, FOLLOWER]);
    // Others are not held up meanwhile: neither those that no list names nor those in sync.
    for sent in 0..5 {
        stream.write_all(&produce("free", "y", sent)).expect("sent");
        assert_eq!(produced_offset(response(&mut stream).1), i64::from(sent));
    }
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    wait_until("the new replica is in sync", || {
        broker.registration("throttled").isr == [1, FOLLOWER]
    });
    let took = began.elapsed();
    let copy = follower.replicas.find("throttled", 0).expect("hosted");
    assert_eq!(copy.offsets().expect("open").next_offset, 20);
    // In sync it is not held back any more, though the rate is far above the quota.
    broker.set((ConfigResourceType::Broker, ""), rate, "1");
    for sent in 20..25 {
        let now = Instant::now();
        let produce = produce("throttled", "z", sent);
        stream.write_all(&produce).expect("sent");
        assert_eq!(produced_offset(response(&mut stream).1), i64::from(sent));
        assert!(
            now.elapsed() < Duration::from_secs(1),
            "{:?}",
            now.elapsed()
        );
    }
    took
}

/// Rule: throttle
#[test]
fn throttle_holds_replicas_that_are_out_of_sync_to_the_rate_and_no_others() {
    // KIP-73, at the leader and at the follower; nobody is named, nothing is throttled.
    let leaders = (
        "leader.replication.throttled.rate",
        "leader.replication.throttled.replicas",
    );
    let followers = (
        "follower.replication.throttled.rate",
        "follower.replication.throttled.replicas",
    );
    for ((rate, replicas), listed) in [(leaders, "0:1"), (followers, "*")] {
        let took = throttled_copy(rate, replicas, listed);
        // The first second's worth comes at once.
        assert!(took > Duration::from_millis(900), "{rate}: {took:?}");
    }
    let took = throttled_copy(leaders.0, leaders.1, "0:2,1:1");
    assert!(took < Duration::from_millis(900), "{took:?}");
}
