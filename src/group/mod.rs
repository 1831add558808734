//! Consumer groups: membership, rebalances and committed offsets, kept in `__consumer_offsets`.
//!
//! The API handlers call [`GroupCoordinator`]; the broker tells it which partitions it leads.

mod admin;
mod classic_group;
mod codec;
mod config;
mod hard_state;
mod member;
mod offsets;
mod rebalance;
mod records;
mod service;
mod shard;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::protocol::error::ErrorCode;

pub use config::GroupConfig;
pub use service::GroupCoordinator;

/// Who sends a request, as group records and DescribeGroups show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Empty when the client gave none.
    pub client_id: Arc<str>,
    /// Kafka's form: `/` and the address, `/127.0.0.1`.
    pub client_host: Arc<str>,
}

/// Kafka's placement: the absolute value of Java's string hash, modulo the partition count.
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    let hash = group_id.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // `Utils.abs` maps Integer.MIN_VALUE to 0.
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

/// What clients are told when an append to the internal topic failed: only codes that make them act right.
fn operation_error(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::NetworkException => ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge
        | ErrorCode::RecordListTooLarge
        | ErrorCode::InvalidFetchSize => ErrorCode::UnknownServerError,
        other => other,
    }
}
