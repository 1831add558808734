//! OffsetFetch (key 9), v1-10. How far groups have read.
//! Versions: v2 null topics for all, error of the group - v5 leader epoch - v6 flexible - v7 require stable (KIP-447) -
//! v8 many groups (KIP-709) - v9 the newer group protocol - v10 topic ids.

use crate::api::RequestContext;
use crate::protocol::ErrorCode;
use crate::protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

pub async fn handle(context: RequestContext, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if context.version >= 8 {
        let mut response = OffsetFetchResponse::default();
        for group in request.groups {
            response
                .groups
                .push(fetch_group(&context, group, request.require_stable).await);
        }
        return response;
    }
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..Default::default()
        });
        topics.collect()
    });
    let asked = OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics,
        ..Default::default()
    };
    let mut group = fetch_group(&context, asked.clone(), request.require_stable).await;
    if context.version < 2 && group.error_code != 0 {
        // There is no place for the group's error: every partition has it.
        group.topics = failed_topics(asked.topics.unwrap_or_default(), group.error_code);
    }
    single(group)
}

async fn fetch_group(
    context: &RequestContext,
    mut group: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let by_id = context.version >= 10;
    let is_all = group.topics.is_none();
    let mut unknown = Vec::new();
    if let Some(topics) = group.topics.as_mut().filter(|_| by_id) {
        let image = context.services.images.load();
        for topic in topics.iter_mut() {
            if let Some(name) = image.topics.name_of(topic.topic_id) {
                topic.name = name.to_string().into();
            }
        }
        unknown = topics
            .extract_if(.., |topic| topic.name.is_empty())
            .collect();
    }
    let mut response = context
        .services
        .groups
        .offset_fetch(group, require_stable)
        .await;
    if response.error_code != 0 {
        return response;
    }
    response
        .topics
        .extend(failed_topics(unknown, ErrorCode::UnknownTopicId.code()));
    if by_id && is_all {
        let image = context.services.images.load();
        response.topics.retain_mut(|topic| {
            topic.topic_id = image.topics.id_of(&topic.name).unwrap_or_default();
            // Without an id there is no way to tell which topic it was.
            !topic.topic_id.is_nil()
        });
    }
    response
}

fn failed_topics(
    topics: Vec<OffsetFetchRequestTopics>,
    error_code: i16,
) -> Vec<OffsetFetchResponseTopics> {
    let failed = topics.into_iter().map(|topic| OffsetFetchResponseTopics {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic
            .partition_indexes
            .into_iter()
            .map(|partition_index| OffsetFetchResponsePartitions {
                partition_index,
                committed_offset: -1,
                error_code,
                ..Default::default()
            })
            .collect(),
    });
    failed.collect()
}

/// The form of versions below 8.
fn single(group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let topics = group
        .topics
        .into_iter()
        .map(|topic| OffsetFetchResponseTopic {
            name: topic.name,
            partitions: topic
                .partitions
                .into_iter()
                .map(|partition| OffsetFetchResponsePartition {
                    partition_index: partition.partition_index,
                    committed_offset: partition.committed_offset,
                    committed_leader_epoch: partition.committed_leader_epoch,
                    metadata: partition.metadata,
                    error_code: partition.error_code,
                })
                .collect(),
        });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: group.error_code,
        ..Default::default()
    }
}
