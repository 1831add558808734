//! Responses to requests that failed as a whole: every part of the request gets the same error, as Kafka's `getErrorResponse` does.

use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::incremental_alter_configs_response as incremental;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    ElectLeadersRequest, ElectLeadersResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, TopicName, UpdateFeaturesResponse,
};

use crate::protocol::Error;
use crate::protocol::messages::broker_heartbeat::BrokerHeartbeatResponse;

pub(super) fn broker_heartbeat(error: &Error) -> BrokerHeartbeatResponse {
    BrokerHeartbeatResponse {
        error_code: error.code(),
        ..BrokerHeartbeatResponse::default()
    }
}

/// Answers a CreateTopics request with one error; so do the functions below with theirs.
pub(super) fn create_topics(
    request: &CreateTopicsRequest,
) -> impl FnOnce(Error) -> CreateTopicsResponse + use<> {
    let names: Vec<TopicName> = request.topics.iter().map(|t| t.name.clone()).collect();
    |error| {
        let failed = names.into_iter().map(|name| topic_failed(name, &error));
        CreateTopicsResponse::default().with_topics(failed.collect())
    }
}

/// The result of a topic that was not created.
pub(super) fn topic_failed(name: TopicName, error: &Error) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(error.code())
        .with_error_message(error.text())
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}

pub(super) fn delete_topics(
    request: &DeleteTopicsRequest,
) -> impl FnOnce(Error) -> DeleteTopicsResponse + use<> {
    let by_name = request.topic_names.iter().map(|name| {
        let result = DeletableTopicResult::default();
        result.with_name(Some(name.clone()))
    });
    let by_state = request.topics.iter().map(|topic| {
        let result = DeletableTopicResult::default().with_name(topic.name.clone());
        result.with_topic_id(topic.topic_id)
    });
    let topics: Vec<_> = by_name.chain(by_state).collect();
    |error| {
        let failed = topics.into_iter();
        let failed = failed.map(|result| result.with_error_code(error.code()));
        DeleteTopicsResponse::default().with_responses(failed.collect())
    }
}

pub(super) fn create_partitions(
    request: &CreatePartitionsRequest,
) -> impl FnOnce(Error) -> CreatePartitionsResponse + use<> {
    let names: Vec<TopicName> = request.topics.iter().map(|t| t.name.clone()).collect();
    |error| {
        let failed = names.into_iter().map(|name| {
            let result = CreatePartitionsTopicResult::default().with_name(name);
            let result = result.with_error_code(error.code());
            result.with_error_message(error.text())
        });
        CreatePartitionsResponse::default().with_results(failed.collect())
    }
}

pub(super) fn incremental_alter_configs(
    request: &IncrementalAlterConfigsRequest,
) -> impl FnOnce(Error) -> IncrementalAlterConfigsResponse + use<> {
    let resources = request.resources.iter();
    let resources = resources.map(|r| (r.resource_type, r.resource_name.clone()));
    let resources: Vec<_> = resources.collect();
    |error| {
        let failed = resources.into_iter().map(|(kind, name)| {
            incremental::AlterConfigsResourceResponse::default()
                .with_resource_type(kind)
                .with_resource_name(name)
                .with_error_code(error.code())
                .with_error_message(error.text())
        });
        IncrementalAlterConfigsResponse::default().with_responses(failed.collect())
    }
}

pub(super) fn alter_configs(
    request: &AlterConfigsRequest,
) -> impl FnOnce(Error) -> AlterConfigsResponse + use<> {
    let resources = request.resources.iter();
    let resources = resources.map(|r| (r.resource_type, r.resource_name.clone()));
    let resources: Vec<_> = resources.collect();
    |error| {
        let failed = resources.into_iter().map(|(kind, name)| {
            AlterConfigsResourceResponse::default()
                .with_resource_type(kind)
                .with_resource_name(name)
                .with_error_code(error.code())
                .with_error_message(error.text())
        });
        AlterConfigsResponse::default().with_responses(failed.collect())
    }
}

/// The code stands in the response as well.
pub(super) fn elect_leaders(
    request: &ElectLeadersRequest,
) -> impl FnOnce(Error) -> ElectLeadersResponse + use<> {
    let topics = request.topic_partitions.iter().flatten();
    let topics: Vec<_> = topics
        .map(|t| (t.topic.clone(), t.partitions.clone()))
        .collect();
    |error| {
        let failed = topics.into_iter().map(|(topic, partitions)| {
            let partitions = partitions.into_iter().map(|partition| {
                PartitionResult::default()
                    .with_partition_id(partition)
                    .with_error_code(error.code())
                    .with_error_message(error.text())
            });
            ReplicaElectionResult::default()
                .with_topic(topic)
                .with_partition_result(partitions.collect())
        });
        ElectLeadersResponse::default()
            .with_replica_election_results(failed.collect())
            .with_error_code(error.code())
    }
}

/// The code stands in the response as well.
pub(super) fn alter_partition_reassignments(
    request: &AlterPartitionReassignmentsRequest,
) -> impl FnOnce(Error) -> AlterPartitionReassignmentsResponse + use<> {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter();
        let partitions: Vec<_> = partitions.map(|p| p.partition_index).collect();
        (topic.name.clone(), partitions)
    });
    let topics: Vec<_> = topics.collect();
    |error| {
        let failed = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|partition| {
                ReassignablePartitionResponse::default()
                    .with_partition_index(partition)
                    .with_error_code(error.code())
                    .with_error_message(error.text())
            });
            ReassignableTopicResponse::default()
                .with_name(name)
                .with_partitions(partitions.collect())
        });
        AlterPartitionReassignmentsResponse::default()
            .with_responses(failed.collect())
            .with_error_code(error.code())
            .with_error_message(error.text())
    }
}

pub(super) fn update_features(error: Error) -> UpdateFeaturesResponse {
    UpdateFeaturesResponse::default()
        .with_error_code(error.code())
        .with_error_message(error.text())
}
