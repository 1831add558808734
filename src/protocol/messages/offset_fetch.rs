//! OffsetFetch (key 9), v1-10: one group up to v7, many from v8; v10 has topic ids (KIP-848).

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::protocol::wire::message;

message! {
    OffsetFetchRequest(1..=10, flexible 6) {
        group_id: StrBytes, ..=7;
        /// Null asks for all.
        topics: Option<Vec<OffsetFetchRequestTopic>> = Some(Vec::new()), ..=7, null 2..;
        groups: Vec<OffsetFetchRequestGroup>, 8..;
        require_stable: bool, 7..;
    }
    OffsetFetchRequestTopic {
        name: StrBytes, ..=7;
        partition_indexes: Vec<i32>, ..=7;
    }
    OffsetFetchRequestGroup {
        group_id: StrBytes, 8..;
        member_id: Option<StrBytes>, 9..;
        member_epoch: i32 = -1, 9..;
        /// Null asks for all.
        topics: Option<Vec<OffsetFetchRequestTopics>> = Some(Vec::new()), 8..;
    }
    OffsetFetchRequestTopics {
        name: StrBytes, 8..=9;
        topic_id: Uuid, 10..;
        partition_indexes: Vec<i32>, 8..;
    }
}

message! {
    OffsetFetchResponse(1..=10, flexible 6) {
        throttle_time_ms: i32, 3..;
        topics: Vec<OffsetFetchResponseTopic>, ..=7;
        error_code: i16, 2..=7;
        groups: Vec<OffsetFetchResponseGroup>, 8..;
    }
    OffsetFetchResponseTopic {
        name: StrBytes, ..=7;
        partitions: Vec<OffsetFetchResponsePartition>, ..=7;
    }
    OffsetFetchResponsePartition {
        partition_index: i32, ..=7;
        committed_offset: i64, ..=7;
        committed_leader_epoch: i32 = -1, 5..=7;
        metadata: Option<StrBytes> = Some(StrBytes::new()), ..=7;
        error_code: i16, ..=7;
    }
    OffsetFetchResponseGroup {
        group_id: StrBytes, 8..;
        topics: Vec<OffsetFetchResponseTopics>, 8..;
        error_code: i16, 8..;
    }
    OffsetFetchResponseTopics {
        name: StrBytes, 8..=9;
        topic_id: Uuid, 10..;
        partitions: Vec<OffsetFetchResponsePartitions>, 8..;
    }
    OffsetFetchResponsePartitions {
        partition_index: i32, 8..;
        committed_offset: i64, 8..;
        committed_leader_epoch: i32 = -1, 8..;
        metadata: Option<StrBytes> = Some(StrBytes::new()), 8..;
        error_code: i16, 8..;
    }
}
