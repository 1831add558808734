//! The records of `__consumer_offsets`: committed offsets and classic groups, in Kafka's schemas.
//!
//! A key is the record type as int16 and the body in version 0; a value is its version as int16 and the body
//! (`CoordinatorRecordSerde`). Types of the newer group protocols are recognised and skipped.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::wire::{Decode, DecodeError, EncodeError, Reader, Version, message};

/// The int16 in front of a key or value has no flexible form.
const PLAIN: Version = Version {
    number: 0,
    flexible: false,
};
/// Record types 0 and 1 have the same body; Kafka writes 1 and reads both.
const LEGACY_OFFSET_COMMIT: i16 = 0;
const OFFSET_COMMIT: i16 = 1;
const GROUP_METADATA: i16 = 2;
/// The newest type that Kafka 4.3 has (streams groups); 3 and up belong to the newer group protocols.
const LAST_TYPE: i16 = 23;

/// What a record of `__consumer_offsets` is about.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRecordKey {
    OffsetCommit(OffsetCommitKey),
    GroupMetadata(GroupMetadataKey),
    /// A type of the consumer, share or streams group protocols.
    Other(i16),
}

impl GroupRecordKey {
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut buf = BytesMut::with_capacity(64);
        match self {
            Self::OffsetCommit(key) => {
                buf.put_i16(OFFSET_COMMIT);
                key.encode(&mut buf, 0)?;
            }
            Self::GroupMetadata(key) => {
                buf.put_i16(GROUP_METADATA);
                key.encode(&mut buf, 0)?;
            }
            Self::Other(kind) => return Err(EncodeError::UnknownVersion(*kind)),
        }
        Ok(buf.freeze())
    }

    pub fn decode(key: &Bytes) -> Result<Self, DecodeError> {
        let (kind, mut body) = split(key)?;
        match kind {
            LEGACY_OFFSET_COMMIT | OFFSET_COMMIT => {
                OffsetCommitKey::decode(&mut body, 0).map(Self::OffsetCommit)
            }
            GROUP_METADATA => GroupMetadataKey::decode(&mut body, 0).map(Self::GroupMetadata),
            3..=LAST_TYPE => Ok(Self::Other(kind)),
            _ => Err(DecodeError::UnknownType(i32::from(kind))),
        }
    }
}

/// The state that a record sets; a record without value removes its key.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRecordValue {
    OffsetCommit(OffsetCommitValue),
    GroupMetadata(GroupMetadataValue),
    Other,
}

impl GroupRecordValue {
    /// Writes the value in `version` of its schema.
    pub fn encode(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut buf = BytesMut::with_capacity(128);
        buf.put_i16(version);
        match self {
            Self::OffsetCommit(value) => value.encode(&mut buf, version)?,
            Self::GroupMetadata(value) => value.encode(&mut buf, version)?,
            Self::Other => return Err(EncodeError::UnknownVersion(version)),
        }
        Ok(buf.freeze())
    }

    /// Reads the value that belongs to `key`.
    pub fn decode(key: &GroupRecordKey, value: &Bytes) -> Result<Self, DecodeError> {
        let (version, mut body) = split(value)?;
        match key {
            GroupRecordKey::OffsetCommit(_) => {
                OffsetCommitValue::decode(&mut body, version).map(Self::OffsetCommit)
            }
            GroupRecordKey::GroupMetadata(_) => {
                GroupMetadataValue::decode(&mut body, version).map(Self::GroupMetadata)
            }
            GroupRecordKey::Other(_) => Ok(Self::Other),
        }
    }
}

/// The leading int16 and what follows.
pub(super) fn split(bytes: &Bytes) -> Result<(i16, Bytes), DecodeError> {
    let mut reader = Reader::new(bytes);
    let number = i16::read(&mut reader, PLAIN)?;
    Ok((number, bytes.slice(reader.position()..)))
}

message! {
    OffsetCommitKey(0..=0) {
        group: String, 0..;
        topic: String, 0..;
        partition: i32, 0..;
    }
}

message! {
    OffsetCommitValue(0..=4, flexible 4) {
        offset: i64, 0..;
        leader_epoch: i32 = -1, 3..;
        metadata: String, 0..;
        commit_timestamp: i64, 0..;
        expire_timestamp: i64 = -1, 1..=1;
        topic_id: Uuid, 4.., tag 0;
    }
}

message! {
    GroupMetadataKey(0..=0) {
        group: String, 0..;
    }
}

message! {
    /// A classic group with its members.
    GroupMetadataValue(0..=4, flexible 4) {
        protocol_type: String, 0..;
        generation: i32, 0..;
        protocol: Option<String>, 0..;
        leader: Option<String>, 0..;
        current_state_timestamp: i64 = -1, 2..;
        members: Vec<MemberMetadata>, 0..;
    }
    MemberMetadata {
        member_id: String, 0..;
        group_instance_id: Option<String>, 3..;
        client_id: String, 0..;
        client_host: String, 0..;
        rebalance_timeout: i32 = -1, 1..;
        session_timeout: i32, 0..;
        subscription: Bytes, 0..;
        assignment: Bytes, 0..;
    }
}
