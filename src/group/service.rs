//! The handle that API handlers and the broker's metadata updates use: checks what needs no group, sends the rest to
//! the group's partition, and turns errors into each API's form.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use indexmap::IndexMap;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest, SyncGroupResponse,
};
use tokio::sync::oneshot;

use super::admin::{DEAD, GroupFilter, NO_AUTHORIZED_OPERATIONS};
use super::classic_group::{join_error, sync_error};
use super::config::GroupConfig;
use super::member::{Protocol, Reply, wire};
use super::rebalance::{JoinRequest, SyncRequest};
use super::shard::{GroupShard, Operation};
use super::{ClientInfo, operation_error, partition_for};
use crate::clock::Clock;
use crate::coordinator::{PartitionWriter, Runtime, RuntimeConfig};
use crate::protocol::batch::TransactionMarker;
use crate::protocol::error::ErrorCode;
use crate::protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use crate::protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchResponseGroup};
use crate::types::{GROUP_METADATA_TOPIC, LeaderEpoch, Uuid};

/// Cheap handle to the coordinator of all groups whose `__consumer_offsets` partition this broker leads.
#[derive(Clone)]
pub struct GroupCoordinator {
    runtime: Arc<Runtime<GroupShard>>,
    config: Arc<GroupConfig>,
    /// Set once: groups must not move while members hold sessions.
    partitions_count: Arc<OnceLock<i32>>,
}

/// The broker side.
impl GroupCoordinator {
    /// Must be called within a tokio runtime: the event loops run there.
    pub fn new(config: GroupConfig, writer: Arc<dyn PartitionWriter>, clock: Clock) -> Self {
        let config = Arc::new(config);
        let runtime_config = RuntimeConfig {
            write_timeout_ms: config.offsets_commit_timeout_ms,
            compression: config.offsets_topic_compression,
            load_bytes: config.offsets_load_buffer_bytes,
        };
        let shard_config = config.clone();
        let runtime = Runtime::new(
            GROUP_METADATA_TOPIC,
            runtime_config,
            writer,
            clock,
            move |_| GroupShard::new(shard_config.clone()),
        );
        Self {
            runtime,
            config,
            partitions_count: Arc::default(),
        }
    }

    /// How many partitions `__consumer_offsets` has. The first call counts; before it the configured number does.
    pub fn set_partitions_count(&self, count: i32) {
        self.partitions_count.get_or_init(|| count);
    }

    /// The partition of `__consumer_offsets` that holds `group_id`.
    pub fn partition_for(&self, group_id: &str) -> i32 {
        let configured = &self.config.offsets_topic_num_partitions;
        partition_for(group_id, *self.partitions_count.get().unwrap_or(configured))
    }

    /// This broker became leader of the partition in `leader_epoch`: loads it and starts its event loop.
    pub fn on_elected(&self, partition: i32, leader_epoch: LeaderEpoch) {
        self.runtime.on_elected(partition, leader_epoch);
    }

    /// This broker is no longer leader of the partition, as of `leader_epoch` (`None`: it is deleted).
    pub fn on_resigned(&self, partition: i32, leader_epoch: Option<LeaderEpoch>) {
        self.runtime.on_resigned(partition, leader_epoch);
    }

    /// Ends a transaction in one partition of `__consumer_offsets`: the offsets it has pending are committed or dropped.
    pub async fn end_transaction(
        &self,
        partition: i32,
        marker: TransactionMarker,
    ) -> Result<(), ErrorCode> {
        let end = |reply| Operation::EndTransaction(marker, reply);
        self.call_partition(partition, end).await
    }

    /// Drops the offsets committed for topics that no longer exist. Returns at once.
    pub fn on_topics_deleted(&self, topics: &[(Arc<str>, Uuid)]) {
        if topics
            .iter()
            .any(|(name, _)| &**name == GROUP_METADATA_TOPIC)
        {
            self.runtime.shutdown();
        }
        let topics: Arc<[(Arc<str>, Uuid)]> = topics.into();
        self.runtime
            .broadcast(move || Operation::TopicsDeleted(topics.clone()));
    }

    /// Stops all event loops; parked requests end in `NotCoordinator`.
    pub fn shutdown(&self) {
        self.runtime.shutdown();
    }

    /// Sends an operation to the group's partition and waits for its answer.
    async fn call<T>(
        &self,
        group_id: &str,
        operation: impl FnOnce(Reply<T>) -> Operation,
    ) -> Result<T, ErrorCode> {
        self.call_partition(self.partition_for(group_id), operation)
            .await
    }

    async fn call_partition<T>(
        &self,
        partition: i32,
        operation: impl FnOnce(Reply<T>) -> Operation,
    ) -> Result<T, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        self.runtime.submit(partition, operation(reply)).await;
        // A dropped reply: the event loop has ended, or a newer request took the place of this one.
        answer
            .await
            .unwrap_or(Err(ErrorCode::NotCoordinator))
            .map_err(operation_error)
    }
}

/// Membership.
impl GroupCoordinator {
    pub async fn join_group(
        &self,
        client: ClientInfo,
        version: i16,
        request: JoinGroupRequest,
    ) -> JoinGroupResponse {
        let member_id = request.member_id.clone();
        let mut response = match self.validate_join(&request) {
            Ok(()) => {
                let request = join_request(client, version, request);
                let group_id = request.group_id.clone();
                self.call(&group_id, |reply| Operation::Join(Box::new(request), reply))
                    .await
            }
            Err(code) => Err(code),
        }
        .unwrap_or_else(|code| join_error(&member_id, code));
        if version < 7 {
            response.protocol_name.get_or_insert_default();
        } else {
            response.protocol_name = response.protocol_name.filter(|name| !name.is_empty());
        }
        response
    }

    fn validate_join(&self, request: &JoinGroupRequest) -> Result<(), ErrorCode> {
        require_group_id(&request.group_id)?;
        let allowed = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if allowed.contains(&request.session_timeout_ms) {
            Ok(())
        } else {
            Err(ErrorCode::InvalidSessionTimeout)
        }
    }

    pub async fn sync_group(&self, request: SyncGroupRequest) -> SyncGroupResponse {
        let answer = match require_group_id(&request.group_id) {
            Ok(()) => {
                let request = sync_request(request);
                let group_id = request.group_id.clone();
                self.call(&group_id, |reply| Operation::Sync(Box::new(request), reply))
                    .await
            }
            Err(code) => Err(code),
        };
        answer.unwrap_or_else(sync_error)
    }

    pub async fn heartbeat(&self, request: HeartbeatRequest) -> HeartbeatResponse {
        let answer = match require_group_id(&request.group_id) {
            Ok(()) => {
                let partition = self.partition_for(&request.group_id);
                self.call_partition(partition, |reply| {
                    Operation::Heartbeat(Box::new(request), reply)
                })
                .await
            }
            Err(code) => Err(code),
        };
        let code = match answer {
            // Its session restarts when the group is loaded: nothing to worry the member about.
            Ok(()) | Err(ErrorCode::CoordinatorLoadInProgress) => 0,
            Err(code) => code.code(),
        };
        HeartbeatResponse::default().with_error_code(code)
    }

    /// `request.members` must be filled for every version (below 3 with the one member).
    pub async fn leave_group(&self, request: LeaveGroupRequest) -> LeaveGroupResponse {
        if let Err(code) = require_group_id(&request.group_id) {
            return LeaveGroupResponse::default().with_error_code(code.code());
        }
        let members = request.members.clone();
        let partition = self.partition_for(&request.group_id);
        let leave = |reply| Operation::Leave(Box::new(request), reply);
        match self.call_partition(partition, leave).await {
            Ok(response) => response,
            Err(code @ ErrorCode::UnknownMemberId) => {
                let unknown = members.into_iter().map(|member| {
                    MemberResponse::default()
                        .with_member_id(member.member_id)
                        .with_group_instance_id(member.group_instance_id)
                        .with_error_code(code.code())
                });
                LeaveGroupResponse::default().with_members(unknown.collect())
            }
            Err(code) => LeaveGroupResponse::default().with_error_code(code.code()),
        }
    }
}

/// Offsets.
impl GroupCoordinator {
    /// Topics must exist; each carries its name and its id, in the answer as well.
    pub async fn offset_commit(
        &self,
        version: i16,
        request: OffsetCommitRequest,
    ) -> OffsetCommitResponse {
        let asked = commit_error(&request, 0);
        let partition = self.partition_for(&request.group_id);
        let commit = |reply| Operation::OffsetCommit(version, Box::new(request), reply);
        match self.call_partition(partition, commit).await {
            Ok(response) => response,
            Err(code) => {
                let mut response = asked;
                for topic in &mut response.topics {
                    for partition in &mut topic.partitions {
                        partition.error_code = code.code();
                    }
                }
                response
            }
        }
    }

    /// One group of an OffsetFetch; `topics: None` means all. Names must be filled where ids came in.
    pub async fn offset_fetch(
        &self,
        request: OffsetFetchRequestGroup,
        require_stable: bool,
    ) -> OffsetFetchResponseGroup {
        let group_id = request.group_id.clone();
        let partition = self.partition_for(&group_id);
        let fetch = |reply| Operation::OffsetFetch(require_stable, Box::new(request), reply);
        match self.call_partition(partition, fetch).await {
            Ok(response) => response,
            Err(code) => OffsetFetchResponseGroup {
                group_id,
                topics: Vec::new(),
                error_code: code.code(),
            },
        }
    }

    pub async fn offset_delete(&self, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
        let answer = match require_group_id(&request.group_id) {
            Ok(()) => {
                let partition = self.partition_for(&request.group_id);
                let delete = |reply| Operation::OffsetDelete(Box::new(request), reply);
                self.call_partition(partition, delete).await
            }
            Err(code) => Err(code),
        };
        answer.unwrap_or_else(|code| OffsetDeleteResponse::default().with_error_code(code.code()))
    }
}

/// Administration.
impl GroupCoordinator {
    pub async fn list_groups(&self, request: ListGroupsRequest) -> ListGroupsResponse {
        let filter = Arc::new(GroupFilter::new(&request));
        let mut groups = Vec::new();
        for partition in self.runtime.partitions() {
            let list = |reply| Operation::List(filter.clone(), reply);
            match self.call_partition(partition, list).await {
                Ok(listed) => groups.extend(listed),
                Err(ErrorCode::NotCoordinator) => {}
                Err(code) => return ListGroupsResponse::default().with_error_code(code.code()),
            }
        }
        ListGroupsResponse::default().with_groups(groups)
    }

    pub async fn describe_groups(&self, version: i16, groups: Vec<GroupId>) -> Vec<DescribedGroup> {
        let mut described = Vec::with_capacity(groups.len());
        for (partition, ids) in self.by_partition(&groups) {
            let describe = |reply| Operation::Describe(version, ids.clone(), reply);
            match self.call_partition(partition, describe).await {
                Ok(groups) => described.extend(groups),
                Err(code) => described.extend(ids.iter().map(|id| {
                    DescribedGroup::default()
                        .with_group_id(GroupId(wire(id)))
                        .with_group_state(wire(if code == ErrorCode::GroupIdNotFound {
                            DEAD
                        } else {
                            ""
                        }))
                        .with_error_code(code.code())
                        .with_authorized_operations(NO_AUTHORIZED_OPERATIONS)
                })),
            }
        }
        described
    }

    pub async fn delete_groups(&self, groups: Vec<GroupId>) -> Vec<DeletableGroupResult> {
        let mut results = Vec::with_capacity(groups.len());
        for (partition, ids) in self.by_partition(&groups) {
            let delete = |reply| Operation::Delete(ids.clone(), reply);
            match self.call_partition(partition, delete).await {
                Ok(deleted) => results.extend(deleted),
                Err(code) => results.extend(ids.iter().map(|id| {
                    DeletableGroupResult::default()
                        .with_group_id(GroupId(wire(id)))
                        .with_error_code(code.code())
                })),
            }
        }
        results
    }

    fn by_partition(&self, groups: &[GroupId]) -> IndexMap<i32, Vec<Arc<str>>> {
        let mut by_partition: IndexMap<_, Vec<_>> = IndexMap::new();
        for group_id in groups {
            let ids = by_partition
                .entry(self.partition_for(group_id))
                .or_default();
            ids.push(shared(group_id));
        }
        by_partition
    }
}

/// Every partition of a commit with this code.
fn commit_error(request: &OffsetCommitRequest, error_code: i16) -> OffsetCommitResponse {
    let topics = request
        .topics
        .iter()
        .map(|topic| OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code,
                })
                .collect(),
        });
    OffsetCommitResponse {
        throttle_time_ms: 0,
        topics: topics.collect(),
    }
}

fn require_group_id(group_id: &str) -> Result<(), ErrorCode> {
    if group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    Ok(())
}

/// Group state must not keep request frames alive: what goes into it is copied.
fn shared(text: &str) -> Arc<str> {
    text.into()
}

fn join_request(client: ClientInfo, version: i16, request: JoinGroupRequest) -> JoinRequest {
    let instance = request.group_instance_id.as_deref();
    let prefix = instance.unwrap_or(&client.client_id);
    let new_member_id = format!("{prefix}-{}", Uuid::new_v4()).into();
    JoinRequest {
        version,
        group_id: shared(&request.group_id),
        member_id: shared(&request.member_id),
        new_member_id,
        group_instance_id: instance.map(shared),
        protocol_type: shared(&request.protocol_type),
        protocols: request
            .protocols
            .iter()
            .map(|protocol| Protocol {
                name: shared(&protocol.name),
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            })
            .collect(),
        session_timeout_ms: request.session_timeout_ms,
        // Version 0 knows the session timeout only.
        rebalance_timeout_ms: match version {
            0 => request.session_timeout_ms,
            _ => request.rebalance_timeout_ms,
        },
        client,
    }
}

fn sync_request(request: SyncGroupRequest) -> SyncRequest {
    SyncRequest {
        group_id: shared(&request.group_id),
        member_id: shared(&request.member_id),
        group_instance_id: request.group_instance_id.as_deref().map(shared),
        generation_id: request.generation_id,
        protocol_type: request.protocol_type.as_deref().map(shared),
        protocol_name: request.protocol_name.as_deref().map(shared),
        assignments: request
            .assignments
            .iter()
            .map(|a| (shared(&a.member_id), Bytes::copy_from_slice(&a.assignment)))
            .collect(),
    }
}
