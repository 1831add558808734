//! OffsetCommit (key 8), v2-10; v10 has topic ids (KIP-848).

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::protocol::wire::message;

message! {
    OffsetCommitRequest(2..=10, flexible 8) {
        group_id: StrBytes, 0..;
        generation_id_or_member_epoch: i32 = -1, 1..;
        member_id: StrBytes, 1..;
        group_instance_id: Option<StrBytes>, 7..;
        retention_time_ms: i64 = -1, 2..=4;
        topics: Vec<OffsetCommitRequestTopic>, 0..;
    }
    OffsetCommitRequestTopic {
        name: StrBytes, ..=9;
        topic_id: Uuid, 10..;
        partitions: Vec<OffsetCommitRequestPartition>, 0..;
    }
    OffsetCommitRequestPartition {
        partition_index: i32, 0..;
        committed_offset: i64, 0..;
        committed_leader_epoch: i32 = -1, 6..;
        committed_metadata: Option<StrBytes>, 0..;
    }
}

message! {
    OffsetCommitResponse(2..=10, flexible 8) {
        throttle_time_ms: i32, 3..;
        topics: Vec<OffsetCommitResponseTopic>, 0..;
    }
    OffsetCommitResponseTopic {
        name: StrBytes, ..=9;
        topic_id: Uuid, 10..;
        partitions: Vec<OffsetCommitResponsePartition>, 0..;
    }
    OffsetCommitResponsePartition {
        partition_index: i32, 0..;
        error_code: i16, 0..;
    }
}
