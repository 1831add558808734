//! Creating and deleting topics and partitions.

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::failure;
use super::outcome::{Outcome, Turn};
use crate::protocol::ErrorCode;

/// CreateTopics.
pub(super) fn create_topics(
    _: &mut Turn<'_>,
    request: &CreateTopicsRequest,
) -> Outcome<CreateTopicsResponse> {
    Outcome::unchanged(failure::create_topics(request)(
        ErrorCode::NotController.into(),
    ))
}

/// DeleteTopics.
pub(super) fn delete_topics(
    _: &mut Turn<'_>,
    request: &DeleteTopicsRequest,
) -> Outcome<DeleteTopicsResponse> {
    Outcome::unchanged(failure::delete_topics(request)(
        ErrorCode::NotController.into(),
    ))
}

/// CreatePartitions.
pub(super) fn create_partitions(
    _: &mut Turn<'_>,
    request: &CreatePartitionsRequest,
) -> Outcome<CreatePartitionsResponse> {
    Outcome::unchanged(failure::create_partitions(request)(
        ErrorCode::NotController.into(),
    ))
}
