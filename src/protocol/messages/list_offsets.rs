//! ListOffsets (key 2), v1-11; v11 came with 4.2 (KIP-1023).

use kafka_protocol::protocol::StrBytes;

use crate::protocol::wire::message;

message! {
    ListOffsetsRequest(1..=11, flexible 6) {
        replica_id: i32, 0..;
        isolation_level: i8, 2..;
        topics: Vec<ListOffsetsTopic>, 0..;
        timeout_ms: i32, 10..;
    }
    ListOffsetsTopic {
        name: StrBytes, 0..;
        partitions: Vec<ListOffsetsPartition>, 0..;
    }
    ListOffsetsPartition {
        partition_index: i32, 0..;
        current_leader_epoch: i32 = -1, 4..;
        timestamp: i64, 0..;
    }
}

message! {
    ListOffsetsResponse(1..=11, flexible 6) {
        throttle_time_ms: i32, 2..;
        topics: Vec<ListOffsetsTopicResponse>, 0..;
    }
    ListOffsetsTopicResponse {
        name: StrBytes, 0..;
        partitions: Vec<ListOffsetsPartitionResponse>, 0..;
    }
    ListOffsetsPartitionResponse {
        partition_index: i32, 0..;
        error_code: i16, 0..;
        timestamp: i64 = -1, 1..;
        offset: i64 = -1, 1..;
        leader_epoch: i32 = -1, 4..;
    }
}
