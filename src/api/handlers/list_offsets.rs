//! ListOffsets (key 2), v1-11. Offsets by timestamp, or by one of the special values: -1 latest, -2 earliest,
//! -3 of the largest timestamp (KIP-734), -4 earliest local, -5 latest tiered, -6 earliest not yet tiered.
//! Versions: v2 isolation level - v4 leader epochs (KIP-320) - v6 flexible - v7 -3 - v8 -4 - v9 -5 - v10 timeout
//! (KIP-1075) - v11 -6 (KIP-1023).

use std::collections::{HashMap, HashSet};

use crate::api::RequestContext;
use crate::log::Wanted;
use crate::partition::{Isolation, Partition};
use crate::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use crate::protocol::{Error, ErrorCode};
use crate::types::{LeaderEpoch, NO_LEADER_EPOCH, NO_TIMESTAMP, Offset, TimestampMs};

const LATEST: TimestampMs = -1;
const EARLIEST: TimestampMs = -2;
const MAX_TIMESTAMP: TimestampMs = -3;
const EARLIEST_LOCAL: TimestampMs = -4;
const LATEST_TIERED: TimestampMs = -5;
const EARLIEST_PENDING_UPLOAD: TimestampMs = -6;

/// What was found: timestamp, offset, and the epoch that the record was written in.
type Found = (TimestampMs, Offset, LeaderEpoch);
const NOTHING: Found = (NO_TIMESTAMP, -1, NO_LEADER_EPOCH);

pub fn handle(context: &RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut seen = HashSet::new();
    let mut twice = HashMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.name.clone(), partition.partition_index);
            if !seen.insert(key.clone()) {
                twice.insert(key, false);
            }
        }
    }
    let reader = match (request.replica_id, request.isolation_level) {
        (0.., _) => Isolation::LogEnd,
        (_, 1) => Isolation::ReadCommitted,
        _ => Isolation::ReadUncommitted,
    };
    let topics = request
        .topics
        .iter()
        .map(|topic| ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions: topic
                .partitions
                .iter()
                .filter_map(|wanted| {
                    let index = wanted.partition_index;
                    if let Some(answered) = twice.get_mut(&(topic.name.clone(), index)) {
                        // A partition that is there twice gets one answer.
                        let again = std::mem::replace(answered, true);
                        return (!again)
                            .then(|| answer(index, Err(ErrorCode::InvalidRequest.into())));
                    }
                    let found = find(context, &topic.name, wanted, reader);
                    Some(answer(index, found))
                })
                .collect(),
        })
        .collect();
    ListOffsetsResponse {
        throttle_time_ms: 0,
        topics,
    }
}

fn answer(partition_index: i32, found: Result<Found, Error>) -> ListOffsetsPartitionResponse {
    let error_code = found.as_ref().err().map_or(0, Error::code);
    let (timestamp, offset, leader_epoch) = found.unwrap_or(NOTHING);
    ListOffsetsPartitionResponse {
        partition_index,
        error_code,
        timestamp,
        offset,
        leader_epoch,
    }
}

fn find(
    context: &RequestContext,
    topic: &str,
    wanted: &ListOffsetsPartition,
    reader: Isolation,
) -> Result<Found, Error> {
    let partition = context
        .services
        .replicas
        .find(topic, wanted.partition_index)?;
    let first_version = match wanted.timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => 1,
    };
    if context.version < first_version || wanted.timestamp < EARLIEST_PENDING_UPLOAD {
        return Err(ErrorCode::UnsupportedVersion.into());
    }
    partition.check_leader(wanted.current_leader_epoch)?;
    let found = special(&partition, wanted.timestamp, reader);
    found.map_err(|error| match error.code {
        ErrorCode::OffsetNotAvailable if context.version < 5 => {
            ErrorCode::LeaderNotAvailable.into()
        }
        _ => error,
    })
}

fn special(
    partition: &Partition,
    timestamp: TimestampMs,
    reader: Isolation,
) -> Result<Found, Error> {
    let offsets = partition.offsets()?;
    let end = match reader {
        Isolation::ReadUncommitted => offsets.high_watermark,
        Isolation::ReadCommitted => offsets.last_stable_offset,
        Isolation::LogEnd => offsets.next_offset,
    };
    // A new leader's high watermark may be behind what clients saw already (KIP-207). Followers ask for the log end.
    let check_known = || match reader {
        Isolation::LogEnd => Ok(()),
        Isolation::ReadUncommitted | Isolation::ReadCommitted => partition.check_offsets_known(),
    };
    match timestamp {
        LATEST => {
            check_known()?;
            Ok((NO_TIMESTAMP, end, offsets.leader_epoch))
        }
        EARLIEST | EARLIEST_LOCAL => {
            let start = offsets.log_start_offset;
            let epoch = partition.look_at_log(|log| log.leader_epochs().epoch_for_offset(start))?;
            Ok((NO_TIMESTAMP, start, epoch.unwrap_or(NO_LEADER_EPOCH)))
        }
        // Nothing is tiered: no latest tiered offset, and nothing is waiting to be.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Ok(NOTHING),
        _ => {
            let wanted = match timestamp {
                MAX_TIMESTAMP => Wanted::Largest,
                timestamp => Wanted::AtLeast(timestamp),
            };
            let found = partition.search_timestamp(wanted)?;
            let Some(found) = found.filter(|found| found.offset < end) else {
                check_known()?;
                return Ok(NOTHING);
            };
            let epoch = found.leader_epoch.unwrap_or(NO_LEADER_EPOCH);
            Ok((found.timestamp, found.offset, epoch))
        }
    }
}
