//! The coordinator's records in memory: committed offsets and group metadata, as `__consumer_offsets` holds them.

use std::sync::Arc;

use bytes::Bytes;

use crate::types::{LeaderEpoch, Offset, TimestampMs, Uuid};

/// One record of `__consumer_offsets`; no value is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRecord {
    Offset {
        group_id: Arc<str>,
        topic: Arc<str>,
        partition: i32,
        value: Option<OffsetAndMetadata>,
    },
    Group {
        group_id: Arc<str>,
        value: Option<Arc<GroupMetadata>>,
    },
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    pub offset: Offset,
    /// -1 when the client did not know it.
    pub leader_epoch: LeaderEpoch,
    pub metadata: Box<str>,
    pub commit_timestamp_ms: TimestampMs,
    /// Only commits with a retention time of their own (versions 2 to 4) have one.
    pub expire_timestamp_ms: Option<TimestampMs>,
    /// Nil when the record was written before ids were stored.
    pub topic_id: Uuid,
    /// Where the record stands; -1 before it is replayed. Decides between transactional and plain commits.
    pub record_offset: Offset,
}

/// The last generation of a classic group that reached the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMetadata {
    /// `None` for groups that only commit offsets; empty on disk.
    pub protocol_type: Option<Arc<str>>,
    pub generation_id: i32,
    pub protocol_name: Option<Arc<str>>,
    pub leader_id: Option<Arc<str>>,
    pub state_timestamp_ms: Option<TimestampMs>,
    pub members: Vec<MemberMetadata>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    pub member_id: Arc<str>,
    pub group_instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}
