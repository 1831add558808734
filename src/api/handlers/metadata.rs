//! Metadata (key 3), v0-13. Brokers, and the partitions of topics; topics that are missing may be created on the way.
//! Versions: v1 controller, racks; null means all topics - v2 cluster id - v4 auto-creation is asked for - v5 offline
//! replicas - v7 leader epochs - v8-10 authorized operations - v9 flexible - v10 topic ids (KIP-516) - v12 null names -
//! v13 top-level error (KIP-1102).

use std::collections::HashSet;

use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId as WireBrokerId, MetadataResponse, TopicName};

use crate::api::RequestContext;
use crate::api::cluster_view::{
    CLUSTER_OPERATIONS, ClusterView, TOPIC_OPERATIONS, broker_ids, text,
};
use crate::config::validate_topic_name;
use crate::metadata::{PartitionRegistration, TopicImage};
use crate::protocol::ErrorCode;
use crate::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use crate::types::{BrokerId, Uuid, is_internal_topic};

pub fn handle(context: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    if context.version < 12 && request.topics.iter().flatten().any(is_from_the_future) {
        return refuse(context.version, &request, ErrorCode::InvalidRequest);
    }
    let mut asked = request.topics.iter().flatten();
    let by_id = asked.clone().any(|topic| !topic.topic_id.is_nil());
    if !by_id && asked.any(|topic| topic.name.is_none()) {
        // Kafka stumbles over a null name here and says so.
        return refuse(context.version, &request, ErrorCode::UnknownServerError);
    }
    let shape = Shape {
        view: ClusterView::new(context),
        version: context.version,
    };
    let (mut topics, missing) = shape.topics(&request);
    topics.extend(answer_missing(
        context,
        missing,
        request.allow_auto_topic_creation,
    ));
    if context.version >= 8 && request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.name.is_some()) {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let brokers = shape.view.brokers().filter(|(broker, _)| !broker.fenced);
    let brokers = brokers.map(|(broker, endpoint)| {
        MetadataResponseBroker::default()
            .with_node_id(WireBrokerId(broker.id))
            .with_host(text(&endpoint.host))
            .with_port(i32::from(endpoint.port))
            .with_rack(broker.rack.as_deref().map(text))
    });
    let mut response = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(text(&context.services.cluster_id)))
        .with_controller_id(shape.view.controller_id())
        .with_topics(topics);
    if (8..=10).contains(&context.version) && request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    response
}

/// Before version 12 topics are asked for by name, although 10 and 11 have a place for ids.
fn is_from_the_future(topic: &MetadataRequestTopic) -> bool {
    topic.name.is_none() || !topic.topic_id.is_nil()
}

fn refuse(version: i16, request: &MetadataRequest, code: ErrorCode) -> MetadataResponse {
    let topics = request.topics.iter().flatten().map(|topic| {
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(topic.name.clone().unwrap_or_default())))
            .with_topic_id(topic.topic_id)
            .with_error_code(code.code())
    });
    let response = MetadataResponse::default().with_topics(topics.collect());
    let top_level = if version >= 13 { code.code() } else { 0 };
    response.with_error_code(top_level)
}

/// Answers for topics that are not there (yet).
fn answer_missing(
    context: &RequestContext,
    names: Vec<TopicName>,
    create: bool,
) -> impl Iterator<Item = MetadataResponseTopic> + use<> {
    let config = context.services.config();
    // Versions below 4 have no flag, and its default is to create.
    let codes: Vec<ErrorCode> = if create && config.auto_create_topics_enable {
        context.services.topic_creation.start(&config, &names)
    } else {
        let code = |name: &TopicName| match validate_topic_name(name) {
            Ok(()) => ErrorCode::UnknownTopicOrPartition,
            Err(error) => error.code,
        };
        names.iter().map(code).collect()
    };
    names.into_iter().zip(codes).map(|(name, code)| {
        let is_internal = is_internal_topic(&name);
        MetadataResponseTopic::default()
            .with_name(Some(name))
            .with_is_internal(is_internal)
            .with_error_code(code.code())
    })
}

/// How topics look to a client in a version.
pub(super) struct Shape {
    pub view: ClusterView,
    pub version: i16,
}

impl Shape {
    /// The topics asked for, and the names that there is no topic for.
    pub fn topics(
        &self,
        request: &MetadataRequest,
    ) -> (Vec<MetadataResponseTopic>, Vec<TopicName>) {
        let image = &self.view.image.topics;
        let wanted = match &request.topics {
            Some(topics) if !(topics.is_empty() && self.version == 0) => topics,
            _ => {
                let all = image.iter().map(|topic| self.topic(topic));
                return (all.collect(), Vec::new());
            }
        };
        let ids = unique(wanted.iter().map(|topic| topic.topic_id));
        let ids: Vec<Uuid> = ids.filter(|id| !id.is_nil()).collect();
        if !ids.is_empty() {
            // With an id anywhere, names are not looked at.
            let by_id = ids.into_iter().map(|id| match image.by_id(id) {
                Some(topic) => self.topic(topic),
                None => MetadataResponseTopic::default()
                    .with_name(None)
                    .with_topic_id(id)
                    .with_error_code(ErrorCode::UnknownTopicId.code()),
            });
            return (by_id.collect(), Vec::new());
        }
        let names = wanted.iter().filter_map(|topic| topic.name.clone());
        let (mut found, mut missing) = (Vec::with_capacity(wanted.len()), Vec::new());
        for name in unique(names) {
            match image.by_name(&name) {
                Some(topic) => found.push(self.topic(topic)),
                None => missing.push(TopicName(name)),
            }
        }
        (found, missing)
    }

    fn topic(&self, topic: &TopicImage) -> MetadataResponseTopic {
        let partitions = topic.partitions.iter();
        let partitions = partitions.map(|(index, partition)| self.partition(*index, partition));
        MetadataResponseTopic::default()
            .with_name(Some(TopicName(text(&topic.name))))
            .with_topic_id(topic.id)
            .with_is_internal(is_internal_topic(&topic.name))
            .with_partitions(partitions.collect())
    }

    fn partition(
        &self,
        index: i32,
        partition: &PartitionRegistration,
    ) -> MetadataResponsePartition {
        let replicas = self.replicas(&partition.replicas);
        let isr = self.replicas(&partition.isr);
        let leader = self.view.leader(partition);
        let all_available =
            replicas.len() == partition.replicas.len() && isr.len() == partition.isr.len();
        let leader_is_known = self.view.broker(partition.leader).is_some();
        let error_code = match leader {
            Some(_) if all_available => 0,
            Some(_) => ErrorCode::ReplicaNotAvailable.code(),
            None if leader_is_known && self.version >= 6 => ErrorCode::ListenerNotFound.code(),
            None => ErrorCode::LeaderNotAvailable.code(),
        };
        MetadataResponsePartition::default()
            .with_error_code(error_code)
            .with_partition_index(index)
            .with_leader_id(WireBrokerId(leader.unwrap_or(-1)))
            .with_leader_epoch(partition.leader_epoch)
            .with_replica_nodes(replicas)
            .with_isr_nodes(isr)
            .with_offline_replicas(self.view.offline_replicas(partition))
    }

    /// Version 0 leaves out brokers that cannot be reached, and has an error instead.
    fn replicas(&self, ids: &[BrokerId]) -> Vec<WireBrokerId> {
        if self.version > 0 {
            return broker_ids(ids);
        }
        let reachable = ids.iter().filter(|id| self.view.is_reachable(**id));
        reachable.copied().map(WireBrokerId).collect()
    }
}

/// Without later duplicates.
fn unique<T: Clone + Eq + std::hash::Hash>(
    items: impl Iterator<Item = T>,
) -> impl Iterator<Item = T> {
    let mut seen = HashSet::new();
    items.filter(move |item| seen.insert(item.clone()))
}
