//! OffsetDelete (key 47), v0. Forgets offsets of topics that the group is not subscribed to (KIP-496).

use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use crate::api::RequestContext;
use crate::protocol::ErrorCode;

pub async fn handle(
    context: RequestContext,
    mut request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let missing = take_missing(&context, &mut request);
    let mut response = context.services.groups.offset_delete(request).await;
    if response.error_code != 0 {
        return response;
    }
    let found = std::mem::replace(&mut response.topics, missing);
    for topic in found {
        match response
            .topics
            .iter_mut()
            .find(|other| other.name == topic.name)
        {
            Some(other) => other.partitions.extend(topic.partitions),
            None => response.topics.push(topic),
        }
    }
    response
}

/// Removes what does not exist from the request and answers it.
fn take_missing(
    context: &RequestContext,
    request: &mut OffsetDeleteRequest,
) -> Vec<OffsetDeleteResponseTopic> {
    let image = context.services.images.load();
    let mut answered = Vec::new();
    for topic in &mut request.topics {
        let known = image.topics.by_name(&topic.name);
        let is_missing =
            |index: i32| !known.is_some_and(|topic| topic.partitions.contains_key(&index));
        let missing = topic
            .partitions
            .extract_if(.., |p| is_missing(p.partition_index));
        let missing: Vec<_> = missing
            .map(|partition| {
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
            })
            .collect();
        if !missing.is_empty() || known.is_none() {
            answered.push(
                OffsetDeleteResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(missing),
            );
        }
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    answered
}
