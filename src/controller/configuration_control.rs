//! Dynamic configs of topics, brokers, groups and client metrics.

use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::failure;
use super::outcome::{Outcome, Turn};
use crate::protocol::ErrorCode;

/// IncrementalAlterConfigs: sets, deletes, appends to and subtracts from single keys.
pub(super) fn incremental_alter_configs(
    _: &mut Turn<'_>,
    request: &IncrementalAlterConfigsRequest,
) -> Outcome<IncrementalAlterConfigsResponse> {
    Outcome::unchanged(failure::incremental_alter_configs(request)(
        ErrorCode::NotController.into(),
    ))
}

/// AlterConfigs: replaces all dynamic configs of a resource.
pub(super) fn alter_configs(
    _: &mut Turn<'_>,
    request: &AlterConfigsRequest,
) -> Outcome<AlterConfigsResponse> {
    Outcome::unchanged(failure::alter_configs(request)(
        ErrorCode::NotController.into(),
    ))
}
