//! Between the coordinator's records and their bytes in `__consumer_offsets`.

use std::sync::Arc;

use bytes::Bytes;

use super::records::{GroupMetadata, GroupRecord, MemberMetadata, OffsetAndMetadata};
use crate::coordinator::EncodedRecord;
use crate::protocol::error::{Error, ErrorCode};
use crate::protocol::group_records::{
    GroupMetadataKey, GroupMetadataValue, GroupRecordKey, GroupRecordValue,
    MemberMetadata as MemberValue, OffsetCommitKey, OffsetCommitValue,
};

/// What Kafka 4.3 writes. Version 1 of offsets is the only one with an expiry time of its own, 4 has topic ids.
const OFFSET_VERSION: i16 = 4;
const OFFSET_WITH_EXPIRY_VERSION: i16 = 1;
const GROUP_VERSION: i16 = 3;

pub(super) fn encode(record: &GroupRecord) -> EncodedRecord {
    let (key, value) = match record {
        GroupRecord::Offset {
            group_id,
            topic,
            partition,
            value,
        } => {
            let key = GroupRecordKey::OffsetCommit(OffsetCommitKey {
                group: group_id.to_string(),
                topic: topic.to_string(),
                partition: *partition,
            });
            let version = match value {
                Some(offset) if offset.expire_timestamp_ms.is_some() => OFFSET_WITH_EXPIRY_VERSION,
                _ => OFFSET_VERSION,
            };
            let value = value
                .as_ref()
                .map(|offset| GroupRecordValue::OffsetCommit(offset_value(offset)));
            (key, value.map(|value| (value, version)))
        }
        GroupRecord::Group { group_id, value } => {
            let key = GroupRecordKey::GroupMetadata(GroupMetadataKey {
                group: group_id.to_string(),
            });
            let value = value
                .as_ref()
                .map(|group| GroupRecordValue::GroupMetadata(group_value(group)));
            (key, value.map(|value| (value, GROUP_VERSION)))
        }
    };
    EncodedRecord {
        key: key.encode().expect("key types of our own are known"),
        value: value.map(|(value, version)| {
            value
                .encode(version)
                .expect("the version carries the value")
        }),
    }
}

/// `None` for types of the newer group protocols and unknown ones.
pub(super) fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<GroupRecord>, Error> {
    let Ok(key) = GroupRecordKey::decode(&key) else {
        return Ok(None);
    };
    let value = value
        .map(|value| GroupRecordValue::decode(&key, &value))
        .transpose()
        .map_err(|error| Error::new(ErrorCode::CorruptMessage, error.to_string()))?;
    Ok(match (key, value) {
        (GroupRecordKey::OffsetCommit(key), value) => Some(GroupRecord::Offset {
            group_id: key.group.into(),
            topic: key.topic.into(),
            partition: key.partition,
            value: match value {
                Some(GroupRecordValue::OffsetCommit(value)) => Some(offset(value)),
                _ => None,
            },
        }),
        (GroupRecordKey::GroupMetadata(key), value) => Some(GroupRecord::Group {
            group_id: key.group.into(),
            value: match value {
                Some(GroupRecordValue::GroupMetadata(value)) => Some(Arc::new(group(value))),
                _ => None,
            },
        }),
        (GroupRecordKey::Other(_), _) => None,
    })
}

fn offset_value(offset: &OffsetAndMetadata) -> OffsetCommitValue {
    OffsetCommitValue {
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata.to_string(),
        commit_timestamp: offset.commit_timestamp_ms,
        expire_timestamp: offset.expire_timestamp_ms.unwrap_or(-1),
        topic_id: offset.topic_id,
    }
}

fn offset(value: OffsetCommitValue) -> OffsetAndMetadata {
    OffsetAndMetadata {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: value.metadata.into(),
        commit_timestamp_ms: value.commit_timestamp,
        expire_timestamp_ms: (value.expire_timestamp != -1).then_some(value.expire_timestamp),
        topic_id: value.topic_id,
        record_offset: -1,
    }
}

fn group_value(group: &GroupMetadata) -> GroupMetadataValue {
    let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
    GroupMetadataValue {
        protocol_type: group
            .protocol_type
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        generation: group.generation_id,
        protocol: text(&group.protocol_name),
        leader: text(&group.leader_id),
        current_state_timestamp: group.state_timestamp_ms.unwrap_or(-1),
        members: group
            .members
            .iter()
            .map(|member| MemberValue {
                member_id: member.member_id.to_string(),
                group_instance_id: text(&member.group_instance_id),
                client_id: member.client_id.to_string(),
                client_host: member.client_host.to_string(),
                rebalance_timeout: member.rebalance_timeout_ms,
                session_timeout: member.session_timeout_ms,
                subscription: member.subscription.clone(),
                assignment: member.assignment.clone(),
            })
            .collect(),
    }
}

fn group(value: GroupMetadataValue) -> GroupMetadata {
    let timestamp_ms = value.current_state_timestamp;
    GroupMetadata {
        protocol_type: Some(value.protocol_type)
            .filter(|t| !t.is_empty())
            .map(Into::into),
        generation_id: value.generation,
        protocol_name: value.protocol.map(Into::into),
        leader_id: value.leader.map(Into::into),
        state_timestamp_ms: (timestamp_ms != -1).then_some(timestamp_ms),
        members: value
            .members
            .into_iter()
            .map(|member| MemberMetadata {
                member_id: member.member_id.into(),
                group_instance_id: member.group_instance_id.map(Into::into),
                client_id: member.client_id.into(),
                client_host: member.client_host.into(),
                rebalance_timeout_ms: member.rebalance_timeout,
                session_timeout_ms: member.session_timeout,
                subscription: member.subscription,
                assignment: member.assignment,
            })
            .collect(),
    }
}
