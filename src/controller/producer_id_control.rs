//! Blocks of producer ids.

use kafka_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};

use super::outcome::{Outcome, Turn};
use crate::protocol::ErrorCode;

/// AllocateProducerIds.
pub(super) fn allocate_producer_ids(
    _: &mut Turn<'_>,
    _: &AllocateProducerIdsRequest,
) -> Outcome<AllocateProducerIdsResponse> {
    let response = AllocateProducerIdsResponse::default();
    Outcome::unchanged(response.with_error_code(ErrorCode::NotController.code()))
}
