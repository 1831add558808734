//! Committed offsets: commit, fetch, delete, and their expiry (KIP-211).

use std::sync::Arc;

use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{
    LeaveGroupRequest, LeaveGroupResponse, OffsetDeleteRequest, OffsetDeleteResponse,
};
use tracing::info;

use super::classic_group::{ClassicGroup, ClassicGroupState as State};
use super::hard_state::{Cell, LoggedGroup, Undo};
use super::member::{Reply, wire};
use super::records::{GroupRecord, OffsetAndMetadata};
use super::shard::{GroupShard, View, logged_group, when_committed};
use crate::coordinator::{Effects, Now};
use crate::protocol::error::ErrorCode;
use crate::protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use crate::protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use crate::types::{TimestampMs, Uuid};

/// "No retention time of its own" in an OffsetCommit.
const DEFAULT_RETENTION_TIME: i64 = -1;

impl GroupShard {
    pub(super) fn leave(
        &mut self,
        hard: &View<'_>,
        now: Now,
        effects: &mut Effects<Self>,
        request: LeaveGroupRequest,
        reply: Reply<LeaveGroupResponse>,
    ) {
        let group_id: Arc<str> = (&**request.group_id).into();
        self.revive(hard, &group_id);
        let left = self.with_group(now, effects, &group_id, |g, cx| {
            g.leave(cx, request.members)
        });
        match left {
            Some(members) => {
                let response = LeaveGroupResponse::default().with_members(members);
                when_committed(effects, reply, response);
            }
            None => {
                let _ = reply.send(Err(ErrorCode::UnknownMemberId));
            }
        }
    }

    pub(super) fn offset_commit(
        &mut self,
        hard: &View<'_>,
        now: Now,
        effects: &mut Effects<Self>,
        version: i16,
        request: OffsetCommitRequest,
        reply: Reply<OffsetCommitResponse>,
    ) {
        if let Err(code) = self.validate_commit(hard, now, effects, version, &request) {
            let _ = reply.send(Err(code));
            return;
        }
        let group_id: Arc<str> = (&*request.group_id).into();
        let expire_timestamp_ms = (request.retention_time_ms != DEFAULT_RETENTION_TIME)
            .then(|| now.wall_ms.saturating_add(request.retention_time_ms));
        let metadata_max = self.config.offset_metadata_max_bytes.max(0) as usize;
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let name: Arc<str> = (&*topic.name).into();
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let mut response = OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    ..Default::default()
                };
                // Kafka's limit counts UTF-16 units.
                let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
                if metadata.encode_utf16().count() > metadata_max {
                    response.error_code = ErrorCode::OffsetMetadataTooLarge.code();
                } else {
                    let value =
                        committed(topic.topic_id, &partition, now.wall_ms, expire_timestamp_ms);
                    effects.append(GroupRecord::Offset {
                        group_id: group_id.clone(),
                        topic: name.clone(),
                        partition: partition.partition_index,
                        value: Some(value),
                    });
                }
                partitions.push(response);
            }
            topics.push(OffsetCommitResponseTopic {
                name: topic.name,
                topic_id: topic.topic_id,
                partitions,
            });
        }
        let response = OffsetCommitResponse {
            topics,
            ..Default::default()
        };
        when_committed(effects, reply, response);
    }

    fn validate_commit(
        &mut self,
        hard: &View<'_>,
        now: Now,
        effects: &mut Effects<Self>,
        version: i16,
        request: &OffsetCommitRequest,
    ) -> Result<(), ErrorCode> {
        let generation_id = request.generation_id_or_member_epoch;
        if !self.exists(hard, &request.group_id) {
            // A consumer that does not use group membership: its first offset makes the group.
            return match generation_id {
                ..0 => Ok(()),
                _ if version >= 9 => Err(ErrorCode::GroupIdNotFound),
                _ => Err(ErrorCode::IllegalGeneration),
            };
        }
        let instance = request.group_instance_id.as_deref();
        self.with_group(now, effects, &request.group_id, |group, cx| {
            group.validate_offset_commit(&request.member_id, instance, generation_id)?;
            if matches!(group.state(), State::Stable | State::PreparingRebalance) {
                group.reschedule_session(cx, &request.member_id);
            }
            Ok(())
        })
        // Only the log knows the group: it is empty.
        .unwrap_or_else(|| {
            let group = logged_group(hard, &request.group_id).ok_or(ErrorCode::GroupIdNotFound)?;
            group.validate_offset_commit(&request.member_id, instance, generation_id)
        })
    }

    /// Looks at a group, live or logged.
    pub(super) fn inspect<T>(
        &self,
        hard: &View<'_>,
        group_id: &str,
        f: impl FnOnce(&ClassicGroup) -> T,
    ) -> Option<T> {
        if let Some(group) = self.groups.get(group_id) {
            return Some(f(group));
        }
        logged_group(hard, group_id).as_ref().map(f)
    }

    pub(super) fn offset_fetch(
        hard: &View<'_>,
        require_stable: bool,
        request: &OffsetFetchRequestGroup,
    ) -> OffsetFetchResponseGroup {
        let reader = OffsetReader {
            hard,
            group_id: &request.group_id,
            group: hard.state.group(&request.group_id),
            require_stable,
        };
        let topics = match &request.topics {
            Some(topics) => topics.iter().map(|topic| reader.topic(topic)).collect(),
            None => reader.all_topics(),
        };
        OffsetFetchResponseGroup {
            group_id: request.group_id.clone(),
            topics,
            error_code: 0,
        }
    }

    pub(super) fn offset_delete(
        &mut self,
        hard: &View<'_>,
        effects: &mut Effects<Self>,
        request: &OffsetDeleteRequest,
        reply: Reply<OffsetDeleteResponse>,
    ) {
        let group_id: &str = &request.group_id;
        let is_subscribed = self.inspect(hard, group_id, |group| {
            if !group.is(State::Empty) && !group.uses_consumer_protocol() {
                return Err(ErrorCode::NonEmptyGroup);
            }
            Ok(request
                .topics
                .iter()
                .map(|t| group.is_subscribed_to(&t.name))
                .collect::<Vec<_>>())
        });
        let is_subscribed = match is_subscribed.unwrap_or(Err(ErrorCode::GroupIdNotFound)) {
            Ok(is_subscribed) => is_subscribed,
            Err(code) => {
                let _ = reply.send(Err(code));
                return;
            }
        };
        let logged = hard.state.group(group_id);
        let mut topics = Vec::with_capacity(request.topics.len());
        for (topic, is_subscribed) in request.topics.iter().zip(is_subscribed) {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let code = if is_subscribed {
                    ErrorCode::GroupSubscribedToTopic.code()
                } else {
                    0
                };
                if !is_subscribed && logged.is_some_and(|g| g.cell(&topic.name, index).is_some()) {
                    effects.append(tombstone(&group_id.into(), &(&**topic.name).into(), index));
                }
                partitions.push(
                    OffsetDeleteResponsePartition::default()
                        .with_partition_index(index)
                        .with_error_code(code),
                );
            }
            topics.push(
                OffsetDeleteResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions),
            );
        }
        when_committed(
            effects,
            reply,
            OffsetDeleteResponse::default().with_topics(topics),
        );
    }

    pub(super) fn topics_deleted(
        hard: &View<'_>,
        effects: &mut Effects<Self>,
        deleted: &[(Arc<str>, Uuid)],
    ) {
        for (group_id, group) in hard.state.groups() {
            for (name, topic_id) in deleted {
                for (partition, cell) in group.topic(name).into_iter().flatten() {
                    let committed = cell.committed.iter();
                    let mut values = committed.chain(cell.pending.iter().map(|(_, value)| value));
                    // The topic may exist again under this name.
                    if values.any(|v| v.topic_id.is_nil() || v.topic_id == *topic_id) {
                        effects.append(tombstone(group_id, name, *partition));
                    }
                }
            }
        }
        effects.may_split();
    }

    /// Drops offsets whose retention time is over, and groups that have none left and no members.
    pub(super) fn expire_offsets(
        &mut self,
        hard: &View<'_>,
        now: Now,
        effects: &mut Effects<Self>,
    ) {
        let mut expired_groups = Vec::new();
        for (group_id, logged) in hard.state.groups() {
            let retention_ms = self.config.offsets_retention_ms;
            let all_expired = self
                .inspect(hard, group_id, |group| {
                    let expired = expire_group(group, logged, now.wall_ms, retention_ms, effects);
                    expired && group.is(State::Empty)
                })
                .unwrap_or(false);
            if all_expired {
                expired_groups.push(group_id.clone());
            }
        }
        if !effects.records().is_empty() || !expired_groups.is_empty() {
            info!(
                offsets = effects.records().len(),
                groups = expired_groups.len(),
                "expired offsets and groups"
            );
        }
        for group_id in expired_groups {
            self.append_group_tombstone(effects, &group_id);
        }
        // Groups without members need not live: their record says everything.
        self.groups.retain(|group_id, group| {
            let logged = hard
                .state
                .group(group_id)
                .and_then(|logged| logged.metadata.as_ref());
            let is_logged = logged
                .is_some_and(|m| m.members.is_empty() && m.generation_id == group.generation_id);
            !(group.is(State::Empty) && group.pending_join.is_empty() && is_logged)
        });
        effects.may_split();
    }

    pub(super) fn append_group_tombstone(
        &mut self,
        effects: &mut Effects<Self>,
        group_id: &Arc<str>,
    ) {
        effects.append(GroupRecord::Group {
            group_id: group_id.clone(),
            value: None,
        });
        if let Some(group) = self.groups.swap_remove(group_id) {
            self.cancel_timers(&group);
        }
    }
}

impl ClassicGroup {
    pub(super) fn validate_offset_commit(
        &self,
        member_id: &str,
        group_instance_id: Option<&str>,
        generation_id: i32,
    ) -> Result<(), ErrorCode> {
        // Administrators and consumers without membership may commit while nobody else does.
        if generation_id < 0 && self.is(State::Empty) {
            return Ok(());
        }
        if generation_id < 0 && member_id.is_empty() && group_instance_id.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.validate_member(member_id, group_instance_id)?;
        if generation_id != self.generation_id {
            return Err(ErrorCode::IllegalGeneration);
        }
        // It knows the generation but has no assignment yet.
        if self.is(State::CompletingRebalance) {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }
}

fn committed(
    topic_id: Uuid,
    partition: &OffsetCommitRequestPartition,
    now_ms: TimestampMs,
    expire_timestamp_ms: Option<TimestampMs>,
) -> OffsetAndMetadata {
    OffsetAndMetadata {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch.max(-1),
        metadata: partition
            .committed_metadata
            .as_deref()
            .unwrap_or_default()
            .into(),
        commit_timestamp_ms: now_ms,
        expire_timestamp_ms,
        topic_id,
        record_offset: -1,
    }
}

pub(super) fn tombstone(group_id: &Arc<str>, topic: &Arc<str>, partition: i32) -> GroupRecord {
    GroupRecord::Offset {
        group_id: group_id.clone(),
        topic: topic.clone(),
        partition,
        value: None,
    }
}

/// Appends tombstones for a group's expired offsets. True when it has no others.
fn expire_group(
    group: &ClassicGroup,
    logged: &LoggedGroup,
    now_ms: TimestampMs,
    retention_ms: i64,
    effects: &mut Effects<GroupShard>,
) -> bool {
    let since = |offset: &OffsetAndMetadata| {
        if group.protocol_type.is_none() || !group.is(State::Empty) {
            offset.commit_timestamp_ms
        } else {
            // All offsets of a group live until it has been empty for long enough.
            group
                .state_timestamp_ms
                .unwrap_or(offset.commit_timestamp_ms)
        }
    };
    let is_stable_consumer_group = group.uses_consumer_protocol()
        && group.subscribed_topics.is_some()
        && group.is(State::Stable);
    let mut all_expired = true;
    for (topic, partitions) in logged.topics() {
        let may_expire =
            (group.protocol_type.is_none() || group.is(State::Empty) || is_stable_consumer_group)
                && !group.is_subscribed_to(topic);
        for (partition, cell) in partitions {
            let expired =
                cell.committed
                    .as_ref()
                    .is_some_and(|offset| match offset.expire_timestamp_ms {
                        Some(at_ms) => now_ms >= at_ms,
                        None => now_ms - since(offset) >= retention_ms,
                    });
            if may_expire && expired && cell.pending.is_empty() {
                effects.append(tombstone(&group.group_id, topic, *partition));
            } else {
                all_expired = false;
            }
        }
    }
    all_expired
}

/// Reads a group's offsets: the committed ones, or with "require stable" all.
struct OffsetReader<'a> {
    hard: &'a View<'a>,
    group_id: &'a str,
    group: Option<&'a LoggedGroup>,
    require_stable: bool,
}

impl OffsetReader<'_> {
    fn topic(&self, topic: &OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
        let partitions = topic.partition_indexes.iter().map(|&index| {
            let cell = self.cell(&topic.name, index);
            let same_topic = |offset: &OffsetAndMetadata| {
                offset.topic_id.is_nil()
                    || topic.topic_id.is_nil()
                    || offset.topic_id == topic.topic_id
            };
            self.partition(index, &cell, same_topic)
        });
        OffsetFetchResponseTopics {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: partitions.collect(),
        }
    }

    fn all_topics(&self) -> Vec<OffsetFetchResponseTopics> {
        let mut topics = Vec::new();
        for (name, partitions) in self.group.iter().flat_map(|group| group.topics()) {
            let partitions: Vec<_> = partitions
                .keys()
                .map(|&index| (index, self.cell(name, index)))
                .filter(|(_, cell)| cell.committed.is_some())
                .map(|(index, cell)| self.partition(index, &cell, |_| true))
                .collect();
            if !partitions.is_empty() {
                topics.push(OffsetFetchResponseTopics {
                    name: wire(name),
                    topic_id: Uuid::nil(),
                    partitions,
                });
            }
        }
        topics
    }

    fn partition(
        &self,
        index: i32,
        cell: &Cell,
        is_valid: impl Fn(&OffsetAndMetadata) -> bool,
    ) -> OffsetFetchResponsePartitions {
        let none = OffsetFetchResponsePartitions {
            partition_index: index,
            committed_offset: -1,
            ..Default::default()
        };
        if self.require_stable && !cell.pending.is_empty() {
            return OffsetFetchResponsePartitions {
                error_code: ErrorCode::UnstableOffsetCommit.code(),
                ..none
            };
        }
        match &cell.committed {
            Some(offset) if is_valid(offset) => OffsetFetchResponsePartitions {
                committed_offset: offset.offset,
                committed_leader_epoch: offset.leader_epoch,
                metadata: Some(wire(&offset.metadata)),
                ..none
            },
            _ => none,
        }
    }

    /// What is not committed yet is taken back, unless the answer waits for it.
    fn cell(&self, topic: &str, partition: i32) -> Cell {
        if !self.require_stable {
            let here = (self.group_id, topic, partition);
            for undo in self.hard.uncommitted() {
                match undo {
                    Undo::Cell {
                        place: (group_id, topic, partition),
                        previous,
                        ..
                    } if (&**group_id, &**topic, *partition) == here => return previous.clone(),
                    Undo::Group { group_id, previous } if &**group_id == self.group_id => {
                        let cell = previous.as_ref().and_then(|g| g.cell(topic, partition));
                        return cell.cloned().unwrap_or_default();
                    }
                    _ => {}
                }
            }
        }
        self.group
            .and_then(|group| group.cell(topic, partition))
            .cloned()
            .unwrap_or_default()
    }
}
