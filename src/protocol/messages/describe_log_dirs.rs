//! DescribeLogDirs (key 35), v1-5; v5 came with 4.3 (cordoned log directories).

use kafka_protocol::protocol::StrBytes;

use crate::protocol::wire::message;

message! {
    DescribeLogDirsRequest(1..=5, flexible 2) {
        /// Null asks for all.
        topics: Option<Vec<DescribableLogDirTopic>>, 0..;
    }
    DescribableLogDirTopic {
        topic: StrBytes, 0..;
        partitions: Vec<i32>, 0..;
    }
}

message! {
    DescribeLogDirsResponse(1..=5, flexible 2) {
        throttle_time_ms: i32, 0..;
        error_code: i16, 3..;
        results: Vec<DescribeLogDirsResult>, 0..;
    }
    DescribeLogDirsResult {
        error_code: i16, 0..;
        log_dir: StrBytes, 0..;
        topics: Vec<DescribeLogDirsTopic>, 0..;
        total_bytes: i64 = -1, 4..;
        usable_bytes: i64 = -1, 4..;
        is_cordoned: bool, 5..;
    }
    DescribeLogDirsTopic {
        name: StrBytes, 0..;
        partitions: Vec<DescribeLogDirsPartition>, 0..;
    }
    DescribeLogDirsPartition {
        partition_index: i32, 0..;
        partition_size: i64, 0..;
        offset_lag: i64, 0..;
        is_future_key: bool, 0..;
    }
}
