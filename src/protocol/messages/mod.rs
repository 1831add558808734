//! Client and inter-broker messages that the codec crate lacks in their Kafka 4.3.1 versions, and the hot ones.
//!
//! Everything else goes through the crate. Names are those of Kafka's schemas, one file an API.

pub mod add_raft_voter;
pub mod broker_heartbeat;
pub mod describe_log_dirs;
pub mod fetch;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_fetch;
pub mod produce;
pub mod write_txn_markers;

#[cfg(test)]
mod tests;
