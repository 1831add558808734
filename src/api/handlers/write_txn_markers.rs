//! WriteTxnMarkers (key 27), v1-2: a transaction coordinator ends transactions in the partitions led here. Answered when the
//! high watermark has passed the markers.
//! Versions: v1 flexible - v2 transaction version (KIP-1228).

use std::collections::BTreeMap;
use std::time::Duration;

use indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::api::RequestContext;
use crate::partition::Committed;
use crate::protocol::batch::TransactionMarker;
use crate::protocol::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use crate::protocol::{Error, ErrorCode};
use crate::types::{GROUP_METADATA_TOPIC, ProducerId};

/// Codes by producer, topic and partition.
type Answers = IndexMap<ProducerId, IndexMap<StrBytes, BTreeMap<i32, i16>>>;
type Place = (ProducerId, StrBytes, i32);

/// A marker that is not known to be committed.
enum Pending {
    Replication(oneshot::Receiver<Committed>),
    Group(TransactionMarker),
}

pub async fn handle(
    context: RequestContext,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let timeout_ms = context.services.config().request_timeout_ms.max(0);
    let deadline = Instant::now() + Duration::from_millis(timeout_ms as u64);
    let mut answers = Answers::new();
    let mut pending = Vec::new();
    for wanted in &request.markers {
        let marker = marker(wanted);
        for topic in &wanted.topics {
            for index in &topic.partition_indexes {
                let place = (marker.producer_id, topic.name.clone(), *index);
                match append(&context, &topic.name, *index, &marker) {
                    Ok(None) => set(&mut answers, place, 0),
                    Ok(Some(wait)) => pending.push((place, wait)),
                    Err(error) => set(&mut answers, place, error.code()),
                }
            }
        }
    }
    for (place, wait) in pending {
        let code = committed(&context, place.2, wait, deadline).await;
        set(&mut answers, place, code);
    }
    response(answers)
}

fn marker(wanted: &WritableTxnMarker) -> TransactionMarker {
    TransactionMarker {
        producer_id: wanted.producer_id,
        producer_epoch: wanted.producer_epoch,
        coordinator_epoch: wanted.coordinator_epoch,
        commit: wanted.transaction_result,
        transaction_version: wanted.transaction_version,
    }
}

fn append(
    context: &RequestContext,
    topic: &str,
    index: i32,
    marker: &TransactionMarker,
) -> Result<Option<Pending>, Error> {
    let services = &context.services;
    let partition = services
        .replicas
        .find(topic, index)
        .map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
    if topic == GROUP_METADATA_TOPIC {
        return Ok(Some(Pending::Group(*marker)));
    }
    let appended = partition.append_marker(marker, services.clock.wall_ms())?;
    let waiting = partition.wait_high_watermark(appended.last_offset + 1);
    Ok(waiting.map(Pending::Replication))
}

async fn committed(
    context: &RequestContext,
    index: i32,
    pending: Pending,
    deadline: Instant,
) -> i16 {
    match pending {
        Pending::Replication(waiting) => match tokio::time::timeout_at(deadline, waiting).await {
            Ok(Ok(committed)) => committed.err().map_or(0, |error| error.code()),
            Ok(Err(_)) => ErrorCode::NotLeaderOrFollower.code(),
            Err(_) => ErrorCode::RequestTimedOut.code(),
        },
        Pending::Group(marker) => {
            match context.services.groups.end_transaction(index, marker).await {
                Ok(()) => 0,
                // A transaction coordinator knows leaders, not other coordinators.
                Err(
                    ErrorCode::CoordinatorNotAvailable
                    | ErrorCode::CoordinatorLoadInProgress
                    | ErrorCode::NotCoordinator,
                ) => ErrorCode::NotLeaderOrFollower.code(),
                Err(code) => code.code(),
            }
        }
    }
}

fn set(answers: &mut Answers, (producer_id, topic, index): Place, code: i16) {
    let topics = answers.entry(producer_id).or_default();
    topics.entry(topic).or_default().insert(index, code);
}

fn response(answers: Answers) -> WriteTxnMarkersResponse {
    let partition = |(partition_index, error_code)| WritableTxnMarkerPartitionResult {
        partition_index,
        error_code,
    };
    let topic = |(name, partitions): (StrBytes, BTreeMap<i32, i16>)| WritableTxnMarkerTopicResult {
        name,
        partitions: partitions.into_iter().map(partition).collect(),
    };
    let markers = answers
        .into_iter()
        .map(|(producer_id, topics)| WritableTxnMarkerResult {
            producer_id,
            topics: topics.into_iter().map(topic).collect(),
        });
    WriteTxnMarkersResponse {
        markers: markers.collect(),
    }
}
