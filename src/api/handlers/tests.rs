//! Answers about a cluster of several brokers, which the side-by-side cases with one node cannot show.

use std::sync::Arc;

use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, DescribeTopicPartitionsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{describe_topic_partitions, metadata};
use crate::api::Vanished;
use crate::api::cluster_view::ClusterView;
use crate::metadata::{MetadataDelta, MetadataImage};
use crate::protocol::ErrorCode;
use crate::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use crate::protocol::metadata_records::{
    BrokerEndpoint, MetadataRecord, PartitionRecord, RegisterBrokerRecord, TopicRecord,
};
use crate::types::{BrokerId, Uuid};

fn broker(id: BrokerId, listener: &str, fenced: bool) -> MetadataRecord {
    let end_point = BrokerEndpoint {
        name: listener.to_owned(),
        host: format!("host{id}"),
        port: 9092,
        security_protocol: 0,
    };
    let record = RegisterBrokerRecord {
        broker_id: id,
        end_points: vec![end_point],
        fenced,
        log_dirs: vec![Uuid::from_u128(100)],
        ..RegisterBrokerRecord::default()
    };
    record.into()
}

/// Broker 1 is there, 2 is fenced, 3 has another listener, 4 never registered. Topic `a` has three partitions,
/// each led by another broker; `b` has two, `c` one, with a replica in a directory that is offline.
fn view() -> ClusterView {
    let topic = |name: &str, id: u128| TopicRecord {
        name: name.to_owned(),
        topic_id: Uuid::from_u128(id),
    };
    let partition = |topic: u128, index: i32, leader: BrokerId, dir: u128| PartitionRecord {
        partition_id: index,
        topic_id: Uuid::from_u128(topic),
        replicas: vec![1, 2],
        isr: vec![1],
        leader,
        leader_epoch: 5,
        partition_epoch: 0,
        directories: vec![Uuid::from_u128(dir), Uuid::from_u128(100)],
        eligible_leader_replicas: Some(vec![2]),
        ..PartitionRecord::default()
    };
    let records: Vec<MetadataRecord> = vec![
        broker(1, "INSIDE", false),
        broker(2, "INSIDE", true),
        broker(3, "OUTSIDE", false),
        topic("a", 10).into(),
        topic("b", 11).into(),
        topic("c", 12).into(),
        partition(10, 0, 1, 100).into(),
        partition(10, 1, 3, 100).into(),
        partition(10, 2, 4, 100).into(),
        partition(11, 0, 1, 100).into(),
        partition(11, 1, 1, 100).into(),
        partition(12, 0, 1, 999).into(),
    ];
    let mut image = MetadataImage::default();
    let mut delta = MetadataDelta::default();
    for record in &records {
        image
            .apply(record, &mut delta)
            .expect("records of one history");
    }
    ClusterView {
        image: Arc::new(image),
        listener: "INSIDE".into(),
        vanished: Arc::default(),
    }
}

fn codes(version: i16, topic: &str) -> Vec<i16> {
    let shape = metadata::Shape {
        view: view(),
        version,
    };
    let wanted = MetadataRequestTopic {
        name: Some(StrBytes::from_string(topic.to_owned())),
        ..MetadataRequestTopic::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![wanted]),
        ..MetadataRequest::default()
    };
    let (topics, missing) = shape.topics(&request);
    assert!(missing.is_empty());
    let partitions = topics[0].partitions.iter();
    partitions.map(|partition| partition.error_code).collect()
}

#[test]
fn metadata_says_why_a_partition_has_no_leader_or_replica() {
    let leader = ErrorCode::LeaderNotAvailable.code();
    let listener = ErrorCode::ListenerNotFound.code();
    let replica = ErrorCode::ReplicaNotAvailable.code();
    assert_eq!(codes(12, "a"), [0, listener, leader]);
    assert_eq!(codes(6, "a"), [0, listener, leader]);
    assert_eq!(codes(5, "a"), [0, leader, leader]);
    // Only version 0 makes an error of replicas that cannot be reached.
    assert_eq!(codes(0, "a"), [replica, leader, leader]);
}

/// A client that lost its leader asks sooner than anybody can have taken over.
#[test]
fn a_broker_that_vanished_leads_nothing_until_it_registers_again() {
    let code = |vanished_epoch: i64| {
        let vanished = Vanished::default();
        let mut view = view();
        let epoch = view.image.cluster.broker(1).expect("registered").epoch;
        vanished.note(1, epoch + vanished_epoch);
        view.vanished = vanished.now();
        let listed = view.brokers().any(|(broker, _)| broker.id == 1);
        let shape = metadata::Shape { view, version: 12 };
        let (topics, _) = shape.topics(&MetadataRequest {
            topics: None,
            ..MetadataRequest::default()
        });
        let partition = &topics[0].partitions[0];
        assert_eq!(partition.replica_nodes.len(), 2);
        (listed, partition.leader_id.0, partition.error_code)
    };
    assert_eq!(code(0), (false, -1, ErrorCode::LeaderNotAvailable.code()));
    assert_eq!(code(-1), (true, 1, 0), "it was an earlier process");
    let mut view = view();
    let fenced = view.image.cluster.broker(2).expect("registered");
    let vanished = Vanished::default();
    vanished.note(2, fenced.epoch);
    view.vanished = vanished.now();
    assert!(view.broker(2).is_some(), "tools show it as fenced");
}

#[test]
fn metadata_shows_replicas_of_fenced_brokers_and_failed_directories_as_offline() {
    let shape = metadata::Shape {
        view: view(),
        version: 12,
    };
    let all = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let (topics, _) = shape.topics(&all);
    let offline = |topic: usize| topics[topic].partitions[0].offline_replicas.clone();
    assert_eq!(offline(0), [WireBrokerId(2)]);
    assert_eq!(offline(2), [WireBrokerId(1), WireBrokerId(2)]);
    assert_eq!(topics[0].partitions[0].replica_nodes.len(), 2);
}

#[test]
fn metadata_takes_ids_before_names_and_each_topic_once() {
    let shape = metadata::Shape {
        view: view(),
        version: 12,
    };
    let by_id = |id: u128| MetadataRequestTopic {
        topic_id: Uuid::from_u128(id),
        name: None,
    };
    let by_name = |name: &'static str| MetadataRequestTopic {
        topic_id: Uuid::nil(),
        name: Some(StrBytes::from_static_str(name)),
    };
    let found = |wanted: Vec<MetadataRequestTopic>| {
        let request = MetadataRequest {
            topics: Some(wanted),
            ..MetadataRequest::default()
        };
        let (topics, missing) = shape.topics(&request);
        let name = |topic: Option<TopicName>| topic.map_or_else(String::new, |t| t.to_string());
        let found: Vec<String> = topics.into_iter().map(|topic| name(topic.name)).collect();
        (found.join(","), missing.len())
    };
    assert_eq!(
        found(vec![by_id(11), by_name("a"), by_id(11)]),
        ("b".into(), 0)
    );
    assert_eq!(found(vec![by_id(99)]), (String::new(), 0));
    let names = vec![by_name("c"), by_name("x"), by_name("c"), by_name("x")];
    assert_eq!(found(names), ("c".into(), 1));
    assert_eq!(found(Vec::new()), (String::new(), 0));
}

/// Pages of `limit` partitions as "topic:partitions..", and the cursor behind each.
fn pages(topics: &[&'static str], limit: i32) -> Vec<String> {
    let name = |name: &'static str| TopicName(StrBytes::from_static_str(name));
    let topics: Vec<TopicRequest> = topics
        .iter()
        .map(|topic| TopicRequest::default().with_name(name(topic)))
        .collect();
    let view = view();
    let mut pages = Vec::new();
    let mut cursor = None;
    loop {
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(topics.clone())
            .with_response_partition_limit(limit)
            .with_cursor(cursor.take());
        let response = describe_topic_partitions::describe(&view, request, 2000);
        let described = response.topics.iter().map(|topic| {
            let name = topic.name.as_ref().map_or("", |name| name.as_str());
            let partitions = topic.partitions.iter();
            let indexes: Vec<_> = partitions.map(|p| p.partition_index.to_string()).collect();
            format!("{name}:{}", indexes.join("."))
        });
        pages.push(described.collect::<Vec<_>>().join(" "));
        let Some(next) = response.next_cursor else {
            return pages;
        };
        let from = Cursor::default().with_topic_name(next.topic_name);
        cursor = Some(from.with_partition_index(next.partition_index));
        assert!(pages.len() < 20, "{pages:?}");
    }
}

#[test]
fn describe_topic_partitions_pages_meet_without_gap_or_overlap() {
    assert_eq!(pages(&[], 2000), ["a:0.1.2 b:0.1 c:0"]);
    assert_eq!(pages(&[], 3), ["a:0.1.2", "b:0.1 c:0"]);
    assert_eq!(pages(&[], 2), ["a:0.1", "a:2 b:0", "b:1 c:0"]);
    assert_eq!(pages(&["c", "a"], 2), ["a:0.1", "a:2 c:0"]);
    // A limit below one means one.
    assert_eq!(pages(&["b"], -5), ["b:0", "b:1"]);
    // A missing topic takes no room, but is where a full page may stop.
    assert_eq!(pages(&["a", "aa", "b"], 3), ["a:0.1.2", "aa: b:0.1"]);
}

#[test]
fn describe_topic_partitions_refuses_a_foreign_cursor() {
    let cursor = |topic: &'static str, partition| {
        let cursor = Cursor::default().with_topic_name(TopicName(StrBytes::from_static_str(topic)));
        Some(cursor.with_partition_index(partition))
    };
    let code = |topics: Vec<TopicRequest>, cursor: Option<Cursor>| {
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(topics)
            .with_cursor(cursor);
        let response = describe_topic_partitions::describe(&view(), request, 2000);
        response.topics.first().map(|topic| topic.error_code)
    };
    let a = || vec![TopicRequest::default().with_name(TopicName(StrBytes::from_static_str("a")))];
    assert_eq!(code(a(), cursor("a", 1)), Some(0));
    assert_eq!(code(a(), cursor("b", 0)), Some(42));
    assert_eq!(code(a(), cursor("a", -1)), Some(42));
    assert_eq!(code(Vec::new(), cursor("b", 1)), Some(0));
    // Behind the last partition there is nothing, and no overflow.
    assert_eq!(code(a(), cursor("a", i32::MAX)), Some(0));
}
