//! Blocks of producer ids (KIP-730): brokers hand out single ids of their blocks.

use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, ProducerId as WireProducerId,
};

use super::cluster_control::check_broker_epoch;
use super::outcome::{Outcome, Turn};
use crate::protocol::metadata_records::ProducerIdsRecord;
use crate::protocol::{Error, ErrorCode};
use crate::types::ProducerId;

/// Ids of one block (`ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
const BLOCK_SIZE: i32 = 1000;

/// AllocateProducerIds: the next block.
pub(super) fn allocate_producer_ids(
    turn: &mut Turn<'_>,
    request: &AllocateProducerIdsRequest,
) -> Outcome<AllocateProducerIdsResponse> {
    match next_block(turn, request) {
        Ok((start, record)) => {
            let response = AllocateProducerIdsResponse::default()
                .with_producer_id_start(WireProducerId(start))
                .with_producer_id_len(BLOCK_SIZE);
            Outcome::new(vec![record.into()], response)
        }
        Err(error) => {
            let response = AllocateProducerIdsResponse::default();
            Outcome::unchanged(response.with_error_code(error.code()))
        }
    }
}

fn next_block(
    turn: &Turn<'_>,
    request: &AllocateProducerIdsRequest,
) -> Result<(ProducerId, ProducerIdsRecord), Error> {
    let broker_id = request.broker_id.0;
    check_broker_epoch(turn.image, broker_id, request.broker_epoch)?;
    let start = turn.image.producer_ids.next_producer_id;
    let next = start.checked_add(i64::from(BLOCK_SIZE));
    let next_producer_id = next.ok_or(ErrorCode::UnknownServerError)?;
    let record = ProducerIdsRecord {
        broker_id,
        broker_epoch: request.broker_epoch,
        next_producer_id,
    };
    Ok((start, record))
}
