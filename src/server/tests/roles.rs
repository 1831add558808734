//! A controller and a broker apart, both in this process, over real sockets.

use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;

use super::super::Broker;
use super::Duration;
use crate::api::Services;
use crate::config::Config;
use crate::controller::Caller;
use crate::log::{LogDir, MetaProperties, StorageError};
use crate::protocol::ErrorCode;
use crate::protocol::principal::Principal;
use crate::quorum::{VoterEndpoint, VoterNode, write_voters};
use crate::types::random_uuid;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{CreateTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

const CLUSTER: &str = "ZpqXTJ0rQ5yDYsQ9d1JxAg";
const PATIENCE: Duration = Duration::from_secs(40);

/// Directories of the cluster: node 1 is the controller, node 2 the broker.
struct Dirs([TempDir; 2]);

impl Dirs {
    fn metadata(&self, node: usize) -> std::path::PathBuf {
        self.0[node].path().join("__cluster_metadata-0")
    }

    fn new() -> Self {
        let new = |id| {
            let dir = tempfile::tempdir().expect("temporary directory");
            format(dir.path(), id);
            dir
        };
        Self([new(1), new(2)])
    }

    fn controller(&self) -> Node {
        let settings = [
            ("node.id", "1"),
            ("process.roles", "controller"),
            ("listeners", "CONTROLLER://127.0.0.1:0"),
            ("advertised.listeners", "CONTROLLER://127.0.0.1:0"),
            ("controller.quorum.bootstrap.servers", "127.0.0.1:0"),
            ("metadata.log.max.record.bytes.between.snapshots", "200"),
        ];
        Node::start(self.0[0].path(), &settings)
    }

    fn broker(&self, controller: &Node) -> Node {
        self.broker_with(controller, &[])
    }

    fn broker_with(&self, controller: &Node, more: &[(&str, &str)]) -> Node {
        let address = controller.broker.addresses()[0].1.to_string();
        let mut settings = vec![
            ("node.id", "2"),
            ("process.roles", "broker"),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("advertised.listeners", "PLAINTEXT://127.0.0.1:0"),
            ("controller.quorum.bootstrap.servers", &address),
        ];
        settings.extend_from_slice(more);
        Node::start(self.0[1].path(), &settings)
    }
}

fn format(dir: &Path, node_id: i32) {
    let directory_id = random_uuid();
    if node_id == 1 {
        // As `storage format --standalone`.
        let voter = VoterNode {
            directory_id,
            endpoints: vec![VoterEndpoint {
                name: "CONTROLLER".into(),
                host: "127.0.0.1".into(),
                port: 0,
            }],
        };
        write_voters(dir, &[(node_id, voter)].into(), 0).expect("written");
    }
    let meta = MetaProperties {
        cluster_id: CLUSTER.into(),
        node_id,
        directory_id: Some(directory_id),
    };
    let dir = LogDir::open(dir).expect("a directory");
    dir.format(meta, "today").expect("formatted");
}

/// Settings in full, over the directory `dir`.
fn config(dir: &Path, settings: &[(&str, &str)]) -> Config {
    let mut all = vec![
        ("log.dirs".to_owned(), dir.display().to_string()),
        ("ottla.http.listener".to_owned(), String::new()),
        (
            "inter.broker.listener.name".to_owned(),
            "PLAINTEXT".to_owned(),
        ),
    ];
    let settings = settings.iter();
    all.extend(settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    Config::load(None, &all).expect("settings of the test")
}

/// A node and its threads, which end with it.
struct Node {
    runtime: tokio::runtime::Runtime,
    broker: Broker,
}

impl Node {
    fn start(dir: &Path, settings: &[(&str, &str)]) -> Self {
        let config = config(dir, settings);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads");
        let broker = runtime
            .block_on(Broker::start(config))
            .expect("the node starts");
        Self { runtime, broker }
    }

    fn services(&self) -> &Services {
        &self.broker.services
    }

    fn stop(self) {
        self.runtime.block_on(self.broker.shutdown());
    }

    fn create_topic(&self, name: &str) {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_string(name.to_owned())))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000);
        let created = self.services().controller.create_topics(request);
        let response = self.runtime.block_on(created);
        assert_eq!(response.topics[0].error_code, 0, "{name}");
    }

    /// The value of a metric as its line in `/metrics` begins.
    fn metric(&self, line: &str) -> i64 {
        let text = self.runtime.block_on(self.services().metrics.encode());
        let mut values = text
            .lines()
            .filter_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        let value = values.next().unwrap_or_else(|| panic!("no metric {line}"));
        value.parse::<f64>().expect("a number") as i64
    }

    /// Waits until the image that this node serves from has the topic.
    fn wait_for_topic(&self, name: &str) {
        let images = &self.services().images;
        let mut changes = images.watch();
        self.runtime.block_on(async {
            let end = tokio::time::Instant::now() + PATIENCE;
            while images.current().topics.id_of(name).is_none() {
                let changed = tokio::time::timeout_at(end, changes.changed()).await;
                changed
                    .expect("the topic arrives")
                    .expect("the images live");
            }
        });
    }
}

/// Rule: observers
#[test]
fn a_broker_apart_follows_the_controller_and_is_listed_as_observer() {
    let dirs = Dirs::new();
    let controller = dirs.controller();
    let broker = dirs.broker(&controller);
    broker.create_topic("apart");
    broker.wait_for_topic("apart");
    assert_eq!(broker.services().replicas.partitions().len(), 1);
    let hosted = controller.services().replicas.partitions();
    assert!(hosted.is_empty(), "a controller hosts nothing");
    let followed = broker.services().image().last_offset;
    let metadata = broker.services().replicas.log_dirs().metadata();
    let end = Instant::now() + PATIENCE;
    loop {
        let info = controller.services().quorum.describe();
        let [observer] = &info.observers[..] else {
            panic!("{:?}", info.observers);
        };
        assert_eq!((info.leader_id, observer.replica_id), (1, 2));
        assert_eq!(Some(observer.replica_directory_id), metadata.directory_id());
        if observer.log_end_offset > followed {
            break;
        }
        assert!(Instant::now() < end, "the broker's fetch does not arrive");
        std::thread::sleep(Duration::from_millis(10));
    }
    broker.stop();
    controller.stop();
}

#[test]
fn each_role_tells_how_far_it_has_applied_the_metadata() {
    let dirs = Dirs::new();
    let controller = dirs.controller();
    let broker = dirs.broker(&controller);
    let applied = "last_applied_record_offset";
    let of_broker = || broker.metric(&format!("kafka_server_brokermetadatametrics_{applied}"));
    let of_controller =
        || controller.metric("kafka_controller_kafkacontroller_lastappliedrecordoffset");
    let (before, led) = (of_broker(), of_controller());
    broker.create_topic("applied");
    broker.wait_for_topic("applied");
    controller.wait_for_topic("applied");
    assert!(of_broker() > before && of_controller() > led);
    for (node, state, kind, raft) in [
        (
            &controller,
            "leader",
            "kafkacontroller_lastappliedrecord",
            "kafka_controller_",
        ),
        (
            &broker,
            "observer",
            "brokermetadatametrics_last_applied_record_",
            "kafka_server_",
        ),
    ] {
        let family = format!("{raft}{kind}");
        let now_ms = node.services().clock.wall_ms();
        let age_ms = now_ms - node.metric(&format!("{family}timestamp"));
        assert!((0..60_000).contains(&age_ms), "{state}: {age_ms}");
        let lag = if state == "leader" { "lagms" } else { "lag_ms" };
        assert_eq!(node.metric(&format!("{family}{lag}")), 0, "{state}");
        let state = format!("kafka_server_raftmetrics_current_state{{current_state=\"{state}\"}}");
        assert_eq!(node.metric(&state), 1);
        assert_eq!(node.metric("kafka_server_raftmetrics_number_of_voters"), 1);
        let high_watermark = node.metric("kafka_server_raftmetrics_high_watermark");
        let end = node.metric("kafka_server_raftmetrics_log_end_offset");
        assert!(end >= high_watermark, "{end} {high_watermark}");
    }
    assert_eq!(
        controller.metric("kafka_server_raftmetrics_number_of_observers"),
        1
    );
    let committed = "kafka_controller_kafkacontroller_lastcommittedrecordoffset";
    let applied = of_controller();
    assert!(controller.metric(committed) >= applied);
    broker.stop();
    controller.stop();
}

/// Rule: forwarding
#[test]
fn a_client_keeps_its_name_on_the_way_to_the_controller() {
    let dirs = Dirs::new();
    let controller = dirs.controller();
    let broker = dirs.broker(&controller);
    let caller = |address: IpAddr| Caller {
        principal: Principal {
            name: StrBytes::from_static_str("alice"),
            ..Principal::anonymous()
        },
        address,
        client_id: None,
    };
    let handle = &broker.services().controller;
    let handle = handle.on_behalf_of(caller(IpAddr::from([10, 0, 0, 7])));
    let topic = CreatableTopic::default().with_name(TopicName(StrBytes::from_static_str("hers")));
    let topic = topic.with_num_partitions(1).with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(30_000);
    let answer = |request: &CreateTopicsRequest| {
        let created = handle.create_topics(request.clone());
        broker.runtime.block_on(created).topics[0].error_code
    };
    assert_eq!(answer(&request), 0);
    assert_eq!(answer(&request), ErrorCode::TopicAlreadyExists.code());
    let metrics = controller.services().metrics.encode();
    let metrics = controller.runtime.block_on(metrics);
    let envelopes = metrics.lines().find(|line| {
        line.starts_with("kafka_network_requestmetrics_requests_total")
            && line.contains("request=\"Envelope\"")
    });
    let envelopes = envelopes.unwrap_or_else(|| panic!("no envelope came: {metrics}"));
    assert!(
        envelopes.ends_with(" 2") || envelopes.ends_with(" 2.0"),
        "{envelopes}"
    );
    broker.stop();
    controller.stop();
}

#[test]
fn a_controller_registers_with_the_address_that_it_listens_on() {
    let dirs = Dirs::new();
    let controller = dirs.controller();
    let port = controller.broker.addresses()[0].1.port();
    let end = Instant::now() + PATIENCE;
    loop {
        let image = controller.services().image();
        if let Some(known) = image.cluster.controllers.get(&1) {
            let listener = &known.listeners[0];
            assert_eq!((&*listener.name, listener.port), ("CONTROLLER", port));
            break;
        }
        assert!(Instant::now() < end, "the controller does not register");
        std::thread::sleep(Duration::from_millis(10));
    }
    controller.stop();
}

#[test]
fn a_broker_that_finds_no_controller_in_time_says_what_is_missing() {
    let dirs = Dirs::new();
    let settings = [
        ("node.id", "2"),
        ("process.roles", "broker"),
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("advertised.listeners", "PLAINTEXT://127.0.0.1:0"),
        // Nobody listens there.
        ("controller.quorum.bootstrap.servers", "127.0.0.1:1"),
        ("initial.broker.registration.timeout.ms", "300"),
    ];
    let config = config(dirs.0[1].path(), &settings);
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let Err(error) = runtime.block_on(Broker::start(config)) else {
        panic!("it started");
    };
    let said = error.to_string();
    for word in [
        "initial.broker.registration.timeout.ms",
        "300",
        "no active controller",
    ] {
        assert!(said.contains(word), "{said}");
    }
}

/// Rule: observers
#[test]
fn a_broker_with_an_empty_metadata_directory_begins_with_a_snapshot() {
    let dirs = Dirs::new();
    let controller = dirs.controller();
    let broker = dirs.broker(&controller);
    let names: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
    for name in &names {
        broker.create_topic(name);
    }
    broker.stop();
    // The second snapshot trims the log: from then on the first records are in snapshots only.
    let end = Instant::now() + PATIENCE;
    while checkpoints(&dirs.metadata(0)) < 2 {
        assert!(Instant::now() < end, "the controller writes no snapshots");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::remove_dir_all(dirs.metadata(1)).expect("removed");
    let broker = dirs.broker(&controller);
    assert!(
        checkpoints(&dirs.metadata(1)) > 0,
        "no snapshot was fetched"
    );
    let image = broker.services().image();
    for name in &names {
        assert!(image.topics.id_of(name).is_some(), "{name}");
    }
    drop(image);
    // And once more, from what is here.
    broker.stop();
    let broker = dirs.broker(&controller);
    broker.create_topic("again");
    broker.wait_for_topic("again");
    broker.stop();
    controller.stop();
}

fn checkpoints(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let is_checkpoint = |name: &std::ffi::OsStr| {
        Path::new(name)
            .extension()
            .is_some_and(|extension| extension == "checkpoint")
    };
    entries
        .filter(|it| is_checkpoint(&it.as_ref().expect("an entry").file_name()))
        .count()
}

/// Rule: failed-directory
#[test]
fn a_broker_ends_when_no_controller_hears_of_its_failed_directory() {
    let dirs = Dirs::new();
    let controller = dirs.controller();
    let more = [(); 2].map(|()| {
        let dir = tempfile::tempdir().expect("temporary directory");
        format(dir.path(), 2);
        dir
    });
    let all = [&dirs.0[1], &more[0], &more[1]].map(|dir| dir.path().display().to_string());
    let all = all.join(",");
    let settings = [
        ("log.dirs", all.as_str()),
        ("log.dir.failure.timeout.ms", "300"),
        ("broker.heartbeat.interval.ms", "50"),
    ];
    let broker = dirs.broker_with(&controller, &settings);
    let fail = |dir: usize| {
        let dir = &broker.services().replicas.log_dirs().dirs()[dir];
        dir.fail(StorageError::Unusable {
            path: dir.path().to_owned(),
            reason: "the test says so".into(),
        });
    };
    let ends_within = |wait: Duration| {
        let ended = async { tokio::time::timeout(wait, broker.broker.failed()).await };
        broker.runtime.block_on(ended).ok()
    };
    fail(1);
    let wait = Duration::from_secs(1);
    assert_eq!(ends_within(wait), None, "the controller is told");
    controller.stop();
    assert_eq!(ends_within(wait), None, "nothing is left to be told");
    fail(2);
    let reason = ends_within(PATIENCE).expect("nobody hears of it");
    assert!(reason.contains("log.dir.failure.timeout.ms"), "{reason}");
}
