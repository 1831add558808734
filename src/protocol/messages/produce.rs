//! Produce (key 0), v3-13. Records of a request are slices of its frame.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::protocol::wire::message;

message! {
    ProduceRequest(3..=13, flexible 9) {
        transactional_id: Option<StrBytes>, 3..;
        acks: i16, 0..;
        timeout_ms: i32, 0..;
        topic_data: Vec<TopicProduceData>, 0..;
    }
    TopicProduceData {
        name: StrBytes, ..=12;
        topic_id: Uuid, 13..;
        partition_data: Vec<PartitionProduceData>, 0..;
    }
    PartitionProduceData {
        index: i32, 0..;
        records: Option<Bytes>, 0..;
    }
}

message! {
    ProduceResponse(3..=13, flexible 9) {
        responses: Vec<TopicProduceResponse>, 0..;
        throttle_time_ms: i32, 1..;
        node_endpoints: Vec<NodeEndpoint>, 10.., tag 0;
    }
    TopicProduceResponse {
        name: StrBytes, ..=12;
        topic_id: Uuid, 13..;
        partition_responses: Vec<PartitionProduceResponse>, 0..;
    }
    PartitionProduceResponse {
        index: i32, 0..;
        error_code: i16, 0..;
        base_offset: i64, 0..;
        log_append_time_ms: i64 = -1, 2..;
        log_start_offset: i64 = -1, 5..;
        record_errors: Vec<BatchIndexAndErrorMessage>, 8..;
        error_message: Option<StrBytes>, 8..;
        /// Who leads instead, with NOT_LEADER_OR_FOLLOWER (KIP-951).
        current_leader: LeaderIdAndEpoch, 10.., tag 0;
    }
    BatchIndexAndErrorMessage {
        batch_index: i32, 8..;
        batch_index_error_message: Option<StrBytes>, 8..;
    }
    LeaderIdAndEpoch {
        leader_id: i32 = -1, 10..;
        leader_epoch: i32 = -1, 10..;
    }
    NodeEndpoint {
        node_id: i32, 10..;
        host: StrBytes, 10..;
        port: i32, 10..;
        rack: Option<StrBytes>, 10..;
    }
}
