//! Leaders and in-sync replicas of partitions.

use kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, ElectLeadersRequest, ElectLeadersResponse,
};

use super::outcome::{Outcome, Turn};
use crate::protocol::ErrorCode;

/// AlterPartition.
pub(super) fn alter_partition(
    _: &mut Turn<'_>,
    _: &AlterPartitionRequest,
) -> Outcome<AlterPartitionResponse> {
    let response = AlterPartitionResponse::default();
    Outcome::unchanged(response.with_error_code(ErrorCode::NotController.code()))
}

/// ElectLeaders.
pub(super) fn elect_leaders(
    _: &mut Turn<'_>,
    _: &ElectLeadersRequest,
) -> Outcome<ElectLeadersResponse> {
    let response = ElectLeadersResponse::default();
    Outcome::unchanged(response.with_error_code(ErrorCode::NotController.code()))
}
