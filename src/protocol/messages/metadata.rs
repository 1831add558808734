//! The request of Metadata (key 3), v0-13. The crate takes null topics in v0 too, where Kafka closes the connection.

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::protocol::wire::message;

message! {
    MetadataRequest(0..=13, flexible 9) {
        /// Null asks for all; in v0 none do.
        topics: Option<Vec<MetadataRequestTopic>> = Some(Vec::new()), 0.., null 1..;
        allow_auto_topic_creation: bool = true, 4..;
        include_cluster_authorized_operations: bool, 8..=10;
        include_topic_authorized_operations: bool, 8..;
    }
    MetadataRequestTopic {
        topic_id: Uuid, 10..;
        name: Option<StrBytes>, 0.., null 10..;
    }
}
