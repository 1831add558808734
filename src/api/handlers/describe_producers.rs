//! DescribeProducers (key 61), v0. The idempotent producers that a replica remembers, leader or follower (KIP-664).

use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeProducersResponse, ProducerId as WireProducerId,
};

use crate::api::RequestContext;
use crate::api::cluster_view::text;
use crate::config::validate_topic_name;
use crate::log::ActiveProducer;
use crate::protocol::{Error, ErrorCode};

pub fn handle(
    context: &RequestContext,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let image = context.services.image();
    let topics = request.topics.into_iter().map(|topic| {
        let checked = validate_topic_name(&topic.name).and_then(|()| {
            let unknown = || Error::new(ErrorCode::UnknownTopicOrPartition, "no such topic");
            image
                .topics
                .by_name(&topic.name)
                .map(|_| ())
                .ok_or_else(unknown)
        });
        let partitions = topic.partition_indexes.iter().map(|index| {
            let producers = checked
                .clone()
                .and_then(|()| producers(context, &topic.name, *index));
            partition_response(*index, producers)
        });
        let partitions = partitions.collect();
        TopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn producers(
    context: &RequestContext,
    topic: &str,
    index: i32,
) -> Result<Vec<ActiveProducer>, Error> {
    let partition = context.services.replicas.find(topic, index)?;
    partition.look_at_log(|log| log.active_producers().collect())
}

fn partition_response(
    index: i32,
    producers: Result<Vec<ActiveProducer>, Error>,
) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(index);
    match producers {
        Ok(producers) => {
            response.with_active_producers(producers.iter().map(producer_state).collect())
        }
        Err(error) => response
            .with_error_code(error.code())
            .with_error_message(error.message.as_deref().map(text)),
    }
}

fn producer_state(producer: &ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(WireProducerId(producer.producer_id))
        .with_producer_epoch(i32::from(producer.producer_epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_timestamp)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.current_txn_start_offset)
}
