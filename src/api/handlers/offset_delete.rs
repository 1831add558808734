//! OffsetDelete (key 47), v0. Forgets offsets of topics that the group is not subscribed to (KIP-496).

use indexmap::IndexMap;
use indexmap::map::Entry;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse, TopicName};

use crate::api::RequestContext;
use crate::protocol::ErrorCode;

/// Answered topics by name.
type Answers = IndexMap<TopicName, OffsetDeleteResponseTopic>;

pub async fn handle(
    context: RequestContext,
    mut request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let missing = take_missing(&context, &mut request);
    let mut response = context.services.groups.offset_delete(request).await;
    if response.error_code != 0 {
        return response;
    }
    let mut answers = missing;
    for topic in std::mem::take(&mut response.topics) {
        match answers.entry(topic.name.clone()) {
            Entry::Occupied(entry) => entry.into_mut().partitions.extend(topic.partitions),
            Entry::Vacant(entry) => {
                entry.insert(topic);
            }
        }
    }
    response.topics = answers.into_values().collect();
    response
}

/// Removes what does not exist from the request and answers it.
fn take_missing(context: &RequestContext, request: &mut OffsetDeleteRequest) -> Answers {
    let image = context.services.images.load();
    let mut answered = Answers::new();
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
            let name = topic.name.clone();
            let answer = answered.entry(name.clone()).or_default();
            answer.name = name;
            answer.partitions.extend(missing);
        }
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    answered
}
