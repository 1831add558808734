//! OffsetForLeaderEpoch (key 23), v2-4. The end offset of a leader epoch, by which consumers and followers find
//! where their log diverges (KIP-101, KIP-320).
//! Versions: v3 replica id - v4 flexible.

use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::api::RequestContext;
use crate::protocol::Error;
use crate::types::{LeaderEpoch, Offset};

pub fn handle(
    context: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let found = end_offset(
                context,
                &topic.topic,
                wanted.partition,
                wanted.current_leader_epoch,
                wanted.leader_epoch,
            );
            let error_code = found.as_ref().err().map_or(0, Error::code);
            let (epoch, offset) = found.unwrap_or((-1, -1));
            EpochEndOffset::default()
                .with_error_code(error_code)
                .with_partition(wanted.partition)
                .with_leader_epoch(epoch)
                .with_end_offset(offset)
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic)
            .with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn end_offset(
    context: &RequestContext,
    topic: &str,
    partition: i32,
    current_leader_epoch: LeaderEpoch,
    leader_epoch: LeaderEpoch,
) -> Result<(LeaderEpoch, Offset), Error> {
    let partition = context.services.replicas.find(topic, partition)?;
    partition.check_leader(current_leader_epoch)?;
    let next_offset = partition.offsets()?.next_offset;
    let end = partition.look_at_log(|log| {
        log.leader_epochs()
            .end_offset_for(leader_epoch, next_offset)
    })?;
    Ok((end.leader_epoch, end.end_offset))
}
