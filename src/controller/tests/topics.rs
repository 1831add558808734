//! CreateTopics, DeleteTopics, CreatePartitions: codes as Apache Kafka 4.3.1 gives them.

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{CreatePartitionsRequest, DeleteTopicsRequest};

use super::*;

#[test]
fn create_topics_answers_with_kafkas_codes() {
    let mut cluster = Cluster::with_brokers(3);
    assert_eq!(cluster.create(topic("exists", 1, 1)), 0);
    assert_eq!(cluster.create(topic("with.dot", 1, 1)), 0);
    let long = "x".repeat(250);
    let longest = "x".repeat(249);
    let assigned = |topic: CreatableTopic, assignments| topic.with_assignments(assignments);
    let manual = |assignments| assigned(topic("manual", -1, -1), assignments);
    let cases: Vec<(CreatableTopic, i16)> = vec![
        (topic("exists", 1, 1), 36),
        // Kafka finds that it exists before that its name collides with itself.
        (topic("with.dot", 1, 1), 36),
        (topic("with_dot", 1, 1), 17),
        (topic("", 1, 1), 17),
        (topic(".", 1, 1), 17),
        (topic("..", 1, 1), 17),
        (topic("a b", 1, 1), 17),
        (topic("\u{e9}", 1, 1), 17),
        (topic(&long, 1, 1), 17),
        (topic(&longest, 1, 1), 0),
        (topic("zero", 0, 1), 37),
        (topic("negative", -2, 1), 37),
        (topic("defaults", -1, -1), 0),
        (topic("rf0", 1, 0), 38),
        (topic("rf-2", 1, -2), 38),
        (topic("rf4", 1, 4), 38),
        (topic("__cluster_metadata", 1, 1), 42),
        (topic("__internal", 1, 1), 0),
        (manual(vec![assignment(0, &[])]), 39),
        (manual(vec![assignment(0, &[1, 1])]), 39),
        (manual(vec![assignment(0, &[9])]), 39),
        (manual(vec![assignment(1, &[1])]), 39),
        (manual(vec![assignment(0, &[1]), assignment(0, &[2])]), 39),
        (
            manual(vec![assignment(0, &[1]), assignment(1, &[1, 2])]),
            39,
        ),
        (
            assigned(topic("both", 1, -1), vec![assignment(0, &[1])]),
            42,
        ),
        (
            assigned(topic("both", -1, 1), vec![assignment(0, &[1])]),
            42,
        ),
        (
            manual(vec![assignment(1, &[2, 3]), assignment(0, &[1, 2])]),
            0,
        ),
    ];
    for (topic, code) in cases {
        let name = topic.name.clone();
        assert_eq!(cluster.create(topic), code, "{name:?}");
    }
    assert_eq!(cluster.partition("manual", 1).replicas, [2, 3]);
    assert_eq!(cluster.partition("manual", 1).leader, 2);
    assert_eq!(cluster.partition("defaults", 0).replicas.len(), 1);
}

#[test]
fn create_topics_checks_configs() {
    let mut cluster = Cluster::with_brokers(1);
    let with = |key, value| topic("configured", 1, 1).with_configs(vec![config(key, value)]);
    for (key, value, code) in [
        ("no.such.key", Some("1"), 40),
        ("retention.ms", Some("soon"), 40),
        ("retention.ms", None, 40),
        ("segment.bytes", Some("1000"), 40),
        ("cleanup.policy", Some(" compact , delete "), 0),
    ] {
        assert_eq!(cluster.create(with(key, value)), code, "{key}={value:?}");
    }
    let configs = cluster.image.configs.topic("configured");
    assert_eq!(
        configs.get("cleanup.policy").map(String::as_str),
        Some(" compact , delete ")
    );
}

#[test]
fn create_topics_returns_id_counts_and_effective_configs() {
    let mut cluster = Cluster::with_brokers(2);
    let wanted = topic("t", 3, 2).with_configs(vec![config("retention.ms", Some("5000"))]);
    let request = create(vec![wanted]).with_validate_only(true);
    let before = cluster.last_offset();
    let response = cluster.run(|turn| topic_control::create_topics(turn, &request));
    assert_eq!(
        cluster.last_offset(),
        before,
        "validate only writes nothing"
    );
    let request = request.with_validate_only(false);
    let created = cluster.run(|turn| topic_control::create_topics(turn, &request));
    for result in [&response.topics[0], &created.topics[0]] {
        assert_eq!((result.num_partitions, result.replication_factor), (3, 2));
        let configs = result.configs.as_ref().expect("configs");
        let retention = configs
            .iter()
            .find(|c| &*c.name == "retention.ms")
            .expect("listed");
        assert_eq!(
            (retention.value.as_deref(), retention.config_source),
            (Some("5000"), 1)
        );
        assert!(configs.is_sorted_by(|a, b| a.name < b.name));
        let min_isr = configs.iter().find(|c| &*c.name == "min.insync.replicas");
        assert_eq!(
            min_isr.expect("listed").config_source,
            3,
            "from the cluster's default"
        );
    }
    assert_eq!(
        cluster.image.topics.id_of("t"),
        Some(created.topics[0].topic_id)
    );
    let failed = create(vec![topic("t", 3, 2)]);
    let failed = cluster.run(|turn| topic_control::create_topics(turn, &failed));
    let failed = &failed.topics[0];
    assert_eq!(
        (
            failed.error_code,
            failed.num_partitions,
            failed.replication_factor
        ),
        (36, -1, -1)
    );
    assert_eq!(failed.configs.as_ref().map(Vec::len), Some(0));
}

/// Rule: whole-operations
#[test]
fn one_bad_topic_does_not_hold_up_the_others() {
    let mut cluster = Cluster::with_brokers(1);
    let request = create(vec![
        topic("twice", 1, 1),
        topic("good", 1, 1),
        topic("twice", 1, 1),
        topic("bad name", 1, 1),
    ]);
    let response = cluster.run(|turn| topic_control::create_topics(turn, &request));
    let codes: Vec<_> = response
        .topics
        .iter()
        .map(|t| (&**t.name, t.error_code))
        .collect();
    assert_eq!(codes, [("good", 0), ("bad name", 17), ("twice", 42)]);
    assert_eq!(cluster.image.topics.len(), 1);
}

/// Rule: whole-operations
#[test]
fn too_many_partitions_fail_the_whole_request() {
    let mut cluster = Cluster::with_brokers(1);
    for count in [10_001, 10_000] {
        let request = create(vec![topic("small", 1, 1), topic("huge", count - 1, 1)]);
        let response = cluster.run(|turn| topic_control::create_topics(turn, &request));
        let codes: Vec<i16> = response.topics.iter().map(|t| t.error_code).collect();
        assert_eq!(codes, [44, 44], "{count}");
    }
    assert!(cluster.image.topics.is_empty());
    assert_eq!(cluster.create(topic("large", 9_990, 1)), 0);
}

#[test]
fn topics_need_an_active_broker() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.create(topic("t", 1, 1)), 38);
    cluster.register(registration(1, 1)).expect("registers");
    assert_eq!(
        cluster.create(topic("t", 1, 1)),
        38,
        "a fenced broker does not count"
    );
    let manual = topic("t", -1, -1).with_assignments(vec![assignment(0, &[1])]);
    assert_eq!(cluster.create(manual), 39);
}

fn delete(cluster: &mut Cluster, topics: Vec<DeleteTopicState>) -> Vec<(Option<String>, i16)> {
    let request = DeleteTopicsRequest::default().with_topics(topics);
    let response = cluster.run(|turn| topic_control::delete_topics(turn, &request));
    let results = response.responses.iter();
    results
        .map(|r| (r.name.as_ref().map(|n| n.to_string()), r.error_code))
        .collect()
}

#[test]
fn delete_topics_takes_names_and_ids() {
    let mut cluster = Cluster::with_brokers(1);
    for topic_name in ["a", "b", "c", "d"] {
        assert_eq!(cluster.create(topic(topic_name, 1, 1)), 0);
    }
    let id_of = |cluster: &Cluster, topic: &str| cluster.image.topics.id_of(topic).expect("exists");
    let (a, b, c) = (
        id_of(&cluster, "a"),
        id_of(&cluster, "b"),
        id_of(&cluster, "c"),
    );
    let by_id = |id| {
        DeleteTopicState::default()
            .with_name(None)
            .with_topic_id(id)
    };
    let by_name = |text: &str| DeleteTopicState::default().with_name(Some(name(text)));
    let some = |text: &str| Some(text.to_string());
    let cases = vec![
        (vec![by_id(Uuid::nil())], vec![(None, 42)]),
        (vec![by_name("a").with_topic_id(a)], vec![(some("a"), 42)]),
        (vec![by_name("nope")], vec![(some("nope"), 3)]),
        (vec![by_id(Uuid::from_u128(77))], vec![(None, 100)]),
        (vec![by_name("a"), by_name("a")], vec![(some("a"), 42)]),
        (vec![by_id(a), by_id(a)], vec![(None, 42)]),
        (vec![by_id(c), by_name("c")], vec![(some("c"), 42)]),
        (
            vec![by_id(a), by_name("b")],
            vec![(some("a"), 0), (some("b"), 0)],
        ),
    ];
    for (topics, mut expected) in cases {
        let mut results = delete(&mut cluster, topics.clone());
        results.sort();
        expected.sort();
        assert_eq!(results, expected, "{topics:?}");
    }
    assert!(cluster.image.topics.by_id(b).is_none());
    assert_eq!(cluster.image.topics.len(), 2);
    let request = DeleteTopicsRequest::default().with_topic_names(vec![name("d"), name("e")]);
    let response = cluster.run(|turn| topic_control::delete_topics(turn, &request));
    let mut codes: Vec<i16> = response.responses.iter().map(|r| r.error_code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 3]);
}

/// Rule: topic-deletion
#[test]
fn a_topic_created_again_is_another_topic() {
    let mut cluster = Cluster::with_brokers(1);
    let configured = topic("t.x", 2, 1).with_configs(vec![config("retention.ms", Some("1"))]);
    assert_eq!(cluster.create(configured), 0);
    let first = cluster.image.topics.id_of("t.x").expect("exists");
    let state = DeleteTopicState::default().with_name(Some(name("t.x")));
    assert_eq!(delete(&mut cluster, vec![state])[0].1, 0);
    assert!(
        cluster.image.configs.topic("t.x").is_empty(),
        "its configs went with it"
    );
    assert_eq!(
        cluster.create(topic("t_x", 1, 1)),
        0,
        "nor does its name collide any more"
    );
    assert_eq!(cluster.create(topic("t.x", 1, 1)), 17);
    let state = DeleteTopicState::default().with_name(Some(name("t_x")));
    assert_eq!(delete(&mut cluster, vec![state])[0].1, 0);
    assert_eq!(cluster.create(topic("t.x", 1, 1)), 0);
    assert_ne!(cluster.image.topics.id_of("t.x"), Some(first));
    assert_eq!(
        cluster
            .image
            .topics
            .by_name("t.x")
            .expect("exists")
            .partitions
            .len(),
        1
    );
}

#[test]
fn create_partitions_only_adds() {
    let mut cluster = Cluster::with_brokers(3);
    assert_eq!(cluster.create(topic("t", 2, 2)), 0);
    let assigned = |brokers: &[&[BrokerId]]| {
        let assignments = brokers.iter().map(|brokers| {
            let ids = brokers.iter().copied().map(WireBrokerId).collect();
            CreatePartitionsAssignment::default().with_broker_ids(ids)
        });
        Some(assignments.collect::<Vec<_>>())
    };
    for (topic_name, count, assignments, code) in [
        ("nope", 3, None, 3),
        ("t", 2, None, 37),
        ("t", 1, None, 37),
        ("t", -1, None, 37),
        ("t", 3, assigned(&[]), 39),
        ("t", 3, assigned(&[&[1, 2], &[1, 2]]), 39),
        ("t", 3, assigned(&[&[1]]), 39),
        ("t", 3, assigned(&[&[1, 9]]), 39),
        ("t", 20_000, None, 44),
        ("t", 3, assigned(&[&[3, 1]]), 0),
        ("t", 5, None, 0),
    ] {
        let wanted = CreatePartitionsTopic::default()
            .with_name(name(topic_name))
            .with_count(count)
            .with_assignments(assignments);
        let request = CreatePartitionsRequest::default().with_topics(vec![wanted]);
        let response = cluster.run(|turn| topic_control::create_partitions(turn, &request));
        assert_eq!(response.results[0].error_code, code, "{topic_name} {count}");
    }
    assert_eq!(cluster.partition("t", 2).replicas, [3, 1]);
    assert_eq!(cluster.partition("t", 4).replicas.len(), 2);
    let twice = CreatePartitionsTopic::default()
        .with_name(name("t"))
        .with_count(9);
    let request = CreatePartitionsRequest::default().with_topics(vec![twice.clone(), twice]);
    let response = cluster.run(|turn| topic_control::create_partitions(turn, &request));
    assert_eq!(
        response
            .results
            .iter()
            .map(|r| r.error_code)
            .collect::<Vec<_>>(),
        [42]
    );
}
