//! Tests of the control managers and of the event loop.

mod brokers;
mod event_loop;
mod large_operations;
mod partition_changes;
mod periodic;
mod placement;
mod reassignments;
mod remote;
mod replay;
mod topics;

use std::sync::Arc;

use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, BrokerRegistrationRequest, CreateTopicsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::cluster_control::{self, Heartbeats};
use super::outcome::{Outcome, Settings, Turn};
use super::rng::Rng;
use super::{feature_control, topic_control};
use crate::config::Config;
use crate::metadata::features;
use crate::metadata::{MetadataDelta, MetadataImage, PartitionRegistration};
use crate::protocol::messages::broker_heartbeat::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse,
};
use crate::protocol::metadata_records::MetadataRecord;
use crate::types::{BrokerId, Offset, Uuid};

const CLUSTER_ID: &str = "test-cluster";

fn settings() -> Settings {
    Settings {
        node_id: 1,
        cluster_id: CLUSTER_ID.into(),
        config: Arc::new(Config::load(None, &[]).expect("the built-in configuration")),
        formatted: newest_features().into(),
    }
}

fn newest_features() -> Vec<MetadataRecord> {
    feature_control::feature_records(&features::default_levels(features::METADATA_VERSION_LATEST))
}

fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_string()))
}

fn topic(text: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(text))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
}

fn config(key: &'static str, value: Option<&'static str>) -> CreatableTopicConfig {
    CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str(key))
        .with_value(value.map(StrBytes::from_static_str))
}

fn assignment(partition: i32, brokers: &[BrokerId]) -> CreatableReplicaAssignment {
    CreatableReplicaAssignment::default()
        .with_partition_index(partition)
        .with_broker_ids(brokers.iter().copied().map(WireBrokerId).collect())
}

fn create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(1000)
}

fn registration(id: BrokerId, incarnation: u128) -> BrokerRegistrationRequest {
    BrokerRegistrationRequest::default()
        .with_broker_id(WireBrokerId(id))
        .with_cluster_id(StrBytes::from_static_str(CLUSTER_ID))
        .with_incarnation_id(Uuid::from_u128(incarnation))
        .with_features(features::of_registration())
        .with_log_dirs(vec![Uuid::from_u128(1000 + id as u128)])
        .with_previous_broker_epoch(-1)
}

/// A controller without its loop: every outcome is committed at once.
struct Cluster {
    image: MetadataImage,
    settings: Settings,
    heartbeats: Heartbeats,
    rng: Rng,
    now_ms: i64,
    kraft_version: i16,
    /// All records ever written.
    log: Vec<MetadataRecord>,
}

impl Cluster {
    /// A formatted cluster without brokers.
    fn new() -> Self {
        let mut cluster = Self {
            image: MetadataImage::default(),
            settings: settings(),
            heartbeats: Heartbeats::default(),
            rng: Rng::new([1, 2, 3, 4]),
            now_ms: 0,
            kraft_version: 1,
            log: Vec::new(),
        };
        let records = feature_control::bootstrap_records(&newest_features(), 1);
        cluster.commit(records);
        cluster
    }

    /// A cluster whose brokers 1 to `count` are unfenced.
    fn with_brokers(count: BrokerId) -> Self {
        let mut cluster = Self::new();
        for id in 1..=count {
            let epoch = cluster
                .register(registration(id, id as u128))
                .expect("registers");
            let response = cluster.heartbeat(id, epoch, |request| request);
            assert!(!response.is_fenced, "a caught-up broker is unfenced");
        }
        cluster
    }

    fn commit(&mut self, records: Vec<MetadataRecord>) {
        for record in records {
            let mut changes = MetadataDelta::default();
            self.image.apply(&record, &mut changes).expect("fits");
            self.image.last_offset += 1;
            self.log.push(record);
        }
    }

    fn run<R>(&mut self, operate: impl FnOnce(&mut Turn<'_>) -> Outcome<R>) -> R {
        let mut turn = Turn {
            image: &self.image,
            settings: &self.settings,
            now_ms: self.now_ms,
            next_offset: self.image.next_offset(),
            kraft_version: self.kraft_version,
            rng: &mut self.rng,
            heartbeats: &mut self.heartbeats,
        };
        let outcome = operate(&mut turn);
        self.commit(outcome.records);
        outcome.response
    }

    fn register(&mut self, request: BrokerRegistrationRequest) -> Result<i64, i16> {
        let response = self.run(|turn| cluster_control::register_broker(turn, &request));
        match response.error_code {
            0 => Ok(response.broker_epoch),
            code => Err(code),
        }
    }

    /// A heartbeat of a broker that has applied everything.
    fn heartbeat(
        &mut self,
        id: BrokerId,
        epoch: i64,
        adapt: impl FnOnce(BrokerHeartbeatRequest) -> BrokerHeartbeatRequest,
    ) -> BrokerHeartbeatResponse {
        let request = BrokerHeartbeatRequest {
            broker_id: id,
            broker_epoch: epoch,
            current_metadata_offset: self.image.last_offset,
            ..BrokerHeartbeatRequest::default()
        };
        let request = adapt(request);
        self.run(|turn| cluster_control::broker_heartbeat(turn, &request))
    }

    fn epoch(&self, id: BrokerId) -> i64 {
        self.image.cluster.broker(id).expect("registered").epoch
    }

    /// Creates one topic; its error code.
    fn create(&mut self, topic: CreatableTopic) -> i16 {
        let request = create(vec![topic]);
        let response = self.run(|turn| topic_control::create_topics(turn, &request));
        response.topics[0].error_code
    }

    fn partition(&self, topic: &str, index: i32) -> &PartitionRegistration {
        let topic = self.image.topics.by_name(topic).expect("exists");
        topic.partitions.get(&index).expect("exists")
    }

    /// Has broker `id` ask to be fenced.
    fn fence(&mut self, id: BrokerId) {
        let epoch = self.epoch(id);
        self.heartbeat(id, epoch, |request| BrokerHeartbeatRequest {
            want_fence: true,
            ..request
        });
    }

    /// Lets sessions expire until nobody is stale.
    fn expire(&mut self) {
        loop {
            let records =
                self.run(|turn| Outcome::unchanged(cluster_control::fence_stale_broker(turn)));
            if records.is_empty() {
                return;
            }
            self.commit(records);
        }
    }

    fn last_offset(&self) -> Offset {
        self.image.last_offset
    }
}
