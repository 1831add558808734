//! AddRaftVoter (key 80), v0-1; v1 came with 4.2 (answers before the commit).

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::protocol::wire::message;

message! {
    AddRaftVoterRequest(0..=1, flexible 0) {
        cluster_id: Option<StrBytes>, 0..;
        timeout_ms: i32, 0..;
        voter_id: i32, 0..;
        voter_directory_id: Uuid, 0..;
        listeners: Vec<Listener>, 0..;
        /// Whether to answer when the new voters are committed, not when they are written.
        ack_when_committed: bool = true, 1..;
    }
    Listener {
        name: StrBytes, 0..;
        host: StrBytes, 0..;
        port: u16, 0..;
    }
}

message! {
    AddRaftVoterResponse(0..=1, flexible 0) {
        throttle_time_ms: i32, 0..;
        error_code: i16, 0..;
        error_message: Option<StrBytes>, 0..;
    }
}
