//! Tests of the config manager: codes as Apache Kafka 4.3.1 gives them, and what the records lead to.

use std::sync::Arc;

use kafka_protocol::messages::alter_configs_request as replace;
use kafka_protocol::messages::incremental_alter_configs_request as change;
use kafka_protocol::protocol::StrBytes;

use super::*;
use crate::config::Config;
use crate::controller::cluster_control::Heartbeats;
use crate::controller::{Rng, Settings};
use crate::metadata::{MetadataDelta, MetadataImage};
use crate::protocol::metadata_records::{FeatureLevelRecord, TopicRecord};
use crate::types::Uuid;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// A cluster with the topic `t`, to which requests are applied one after the other.
struct Cluster {
    image: MetadataImage,
    settings: Settings,
}

impl Cluster {
    fn new() -> Self {
        let config = Config::load(None, &[]).unwrap();
        let mut cluster = Self {
            image: MetadataImage::default(),
            settings: Settings {
                node_id: 1,
                cluster_id: "c".into(),
                config: Arc::new(config),
                formatted: [].into(),
            },
        };
        cluster.apply(&[TopicRecord {
            name: "t".to_owned(),
            topic_id: Uuid::from_u128(7),
        }
        .into()]);
        cluster
    }

    fn apply(&mut self, records: &[MetadataRecord]) {
        for record in records {
            self.image
                .apply(record, &mut MetadataDelta::default())
                .unwrap();
        }
    }

    fn turn<R>(&mut self, run: impl FnOnce(&mut Turn<'_>) -> Outcome<R>) -> Outcome<R> {
        let outcome = run(&mut Turn {
            image: &self.image,
            settings: &self.settings,
            now_ms: 0,
            next_offset: 0,
            kraft_version: 1,
            rng: &mut Rng::new([1; 4]),
            heartbeats: &mut Heartbeats::default(),
        });
        self.apply(&outcome.records);
        outcome
    }

    /// Changes one key; the code.
    fn alter(&mut self, kind: i8, name: &str, op: i8, key: &str, value: Option<&str>) -> i16 {
        let config = change::AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(op)
            .with_value(value.map(text));
        let resource = change::AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let outcome = self.turn(|turn| incremental_alter_configs(turn, &request));
        outcome.response.responses[0].error_code
    }

    fn replace(&mut self, name: &str, pairs: &[(&str, &str)], validate_only: bool) -> i16 {
        let configs = pairs.iter().map(|(k, v)| {
            let config = replace::AlterableConfig::default().with_name(text(k));
            config.with_value(Some(text(v)))
        });
        let resource = replace::AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(name))
            .with_configs(configs.collect());
        let request = AlterConfigsRequest::default()
            .with_resources(vec![resource])
            .with_validate_only(validate_only);
        let outcome = self.turn(|turn| alter_configs(turn, &request));
        assert!(!validate_only || outcome.records.is_empty());
        outcome.response.responses[0].error_code
    }

    fn topic(&self, key: &str) -> Option<String> {
        self.image.configs.topic("t").get(key).cloned()
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

#[test]
fn single_keys_are_set_deleted_appended_to_and_subtracted_from() {
    let mut cluster = Cluster::new();
    let mut t = |op, key: &str, value| {
        let code = cluster.alter(TOPIC, "t", op, key, value);
        (code, cluster.topic(key))
    };
    let some = |v: &str| Some(v.to_owned());
    assert_eq!(t(SET, "retention.ms", Some("5")), (0, some("5")));
    assert_eq!(t(DELETE, "retention.ms", None), (0, None));
    assert_eq!(t(DELETE, "no.such.key", None), (0, None));
    assert_eq!(t(SET, "no.such.key", Some("1")), (40, None));
    assert_eq!(t(SET, "retention.ms", Some("x")), (40, None));
    assert_eq!(t(APPEND, "retention.ms", Some("1")), (40, None));
    // The default is what is appended to.
    assert_eq!(
        t(APPEND, "cleanup.policy", Some("compact")),
        (0, some("delete,compact"))
    );
    assert_eq!(
        t(APPEND, "cleanup.policy", Some("compact")),
        (0, some("delete,compact"))
    );
    assert_eq!(
        t(SUBTRACT, "cleanup.policy", Some("delete")),
        (0, some("compact"))
    );
    assert_eq!(
        t(SUBTRACT, "cleanup.policy", Some("delete")),
        (0, some("compact"))
    );
    assert_eq!(
        t(SUBTRACT, "cleanup.policy", Some("compact")),
        (0, some(""))
    );
    assert_eq!(t(9, "cleanup.policy", Some("compact")).0, -1);
}

#[test]
fn resources_are_checked() {
    let mut cluster = Cluster::new();
    let mut alter =
        |kind, name: &str, key: &str, value: &str| cluster.alter(kind, name, SET, key, Some(value));
    assert_eq!(alter(TOPIC, "other", "retention.ms", "1"), 3);
    assert_eq!(alter(TOPIC, "", "retention.ms", "1"), 42);
    assert_eq!(alter(TOPIC, "a b", "retention.ms", "1"), 17);
    assert_eq!(alter(BROKER, "", "num.io.threads", "4"), 0);
    assert_eq!(alter(BROKER, "1", "num.io.threads", "4"), 0);
    assert_eq!(alter(BROKER, "9", "num.io.threads", "4"), 102);
    assert_eq!(alter(BROKER, "x", "num.io.threads", "4"), 42);
    assert_eq!(alter(BROKER, "1", "no.such.key", "4"), 0);
    assert_eq!(alter(GROUP, "g", "consumer.session.timeout.ms", "46000"), 0);
    assert_eq!(alter(GROUP, "g", "consumer.session.timeout.ms", "1"), 40);
    assert_eq!(alter(GROUP, "", "consumer.session.timeout.ms", "46000"), 42);
    assert_eq!(alter(16, "s", "interval.ms", "1000"), 0);
    assert_eq!(alter(16, "s", "interval.ms", "1"), 42);
    assert_eq!(alter(16, "s", "match", "nonsense"), 40);
    assert_eq!(alter(8, "1", "root", "DEBUG"), 35);
    assert_eq!(alter(77, "1", "a", "b"), 35);
    assert_eq!(alter(BROKER, "", "broker.rack", &"x".repeat(32768)), 40);
}

#[test]
fn alter_configs_replaces_everything() {
    let mut cluster = Cluster::new();
    assert_eq!(
        cluster.replace("t", &[("retention.ms", "5"), ("segment.ms", "9")], false),
        0
    );
    assert_eq!(cluster.replace("t", &[("retention.ms", "6")], true), 0);
    assert_eq!(cluster.topic("retention.ms").as_deref(), Some("5"));
    assert_eq!(cluster.replace("t", &[("retention.ms", "6")], false), 0);
    assert_eq!(cluster.topic("retention.ms").as_deref(), Some("6"));
    assert_eq!(cluster.topic("segment.ms"), None);
    assert_eq!(cluster.replace("t", &[("retention.ms", "-7")], false), 40);
    assert_eq!(cluster.replace("t", &[], false), 0);
    assert_eq!(cluster.topic("retention.ms"), None);
}

#[test]
fn a_resource_named_twice_fails_twice_and_the_others_go_on() {
    let mut cluster = Cluster::new();
    let resource = |kind, name| {
        change::AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
    };
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
        resource(TOPIC, "t"),
        resource(BROKER, ""),
        resource(TOPIC, "t"),
    ]);
    let outcome = cluster.turn(|turn| incremental_alter_configs(turn, &request));
    let codes: Vec<i16> = outcome
        .response
        .responses
        .iter()
        .map(|r| r.error_code)
        .collect();
    assert_eq!(codes, [42, 0, 42]);
}

/// Rule: elr
#[test]
fn eligible_leader_replicas_guard_the_minimum() {
    let mut cluster = Cluster::new();
    cluster.apply(&[FeatureLevelRecord {
        name: "eligible.leader.replicas.version".to_owned(),
        feature_level: 1,
    }
    .into()]);
    let name = MIN_INSYNC_REPLICAS;
    assert_eq!(cluster.alter(BROKER, "1", SET, name, Some("2")), 40);
    assert_eq!(cluster.alter(BROKER, "", SET, name, Some("2")), 0);
    assert_eq!(cluster.alter(BROKER, "", DELETE, name, None), 40);
    let config = change::AlterableConfig::default()
        .with_name(text(name))
        .with_value(Some(text("2")));
    let resource = change::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("t"))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let outcome = cluster.turn(|turn| incremental_alter_configs(turn, &request));
    let cleared = ClearElrRecord {
        topic_name: "t".to_owned(),
    };
    assert_eq!(outcome.records.len(), 2);
    assert_eq!(outcome.records[1], cleared.into());
}
