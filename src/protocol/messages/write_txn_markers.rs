//! WriteTxnMarkers (key 27), v1-2; v2 came with 4.2 (KIP-1228).

use kafka_protocol::protocol::StrBytes;

use crate::protocol::wire::message;

message! {
    WriteTxnMarkersRequest(1..=2, flexible 1) {
        markers: Vec<WritableTxnMarker>, 0..;
    }
    WritableTxnMarker {
        producer_id: i64, 0..;
        producer_epoch: i16, 0..;
        /// True commits, false aborts.
        transaction_result: bool, 0..;
        topics: Vec<WritableTxnMarkerTopic>, 0..;
        coordinator_epoch: i32, 0..;
        transaction_version: i8, 2..;
    }
    WritableTxnMarkerTopic {
        name: StrBytes, 0..;
        partition_indexes: Vec<i32>, 0..;
    }
}

message! {
    WriteTxnMarkersResponse(1..=2, flexible 1) {
        markers: Vec<WritableTxnMarkerResult>, 0..;
    }
    WritableTxnMarkerResult {
        producer_id: i64, 0..;
        topics: Vec<WritableTxnMarkerTopicResult>, 0..;
    }
    WritableTxnMarkerTopicResult {
        name: StrBytes, 0..;
        partitions: Vec<WritableTxnMarkerPartitionResult>, 0..;
    }
    WritableTxnMarkerPartitionResult {
        partition_index: i32, 0..;
        error_code: i16, 0..;
    }
}
