//! A whole cluster in one thread, from one seed: brokers and controllers with their real state machines, over a network that
//! loses, delays and reorders, disks that lose what was not synced, processes that die and freeze. After every step the
//! oracle compares what happened with what may happen. `src/bin/simulate.rs` runs many seeds; the same seed gives the same run.
//!
//! | real | model |
//! |---|---|
//! | `partition::PartitionState`, truncation, `log::LeaderEpochCache`, `log::ProducerState` | a log is a list of entries and how much of it is synced |
//! | the controller's handlers, `metadata::MetadataImage` | consensus: a list of committed batches and who may append to it |
//! | `quorum::VoterChange`: who may come or go, who votes then | votes, and what each node has of the metadata log |
//! | `replica::FetchSession`, `replica::SessionCache` | connections, and what is sent over them |
//!
//! ```text
//!   faults.rs --> World (world.rs): time, events --> broker.rs, fetching.rs   each node's broker
//!                        |                       --> controller.rs            each node's controller
//!                        |                       --> membership.rs            voters, elections, lost disks
//!                        |                       --> client.rs                idempotent producers, acks=all
//!                        `--> Oracle (oracle.rs): the invariants
//! ```

mod broker;
mod bug;
mod checks;
mod client;
mod consumer;
mod controller;
mod faults;
mod fetching;
mod membership;
mod messages;
mod network;
mod oracle;
mod quorum;
mod replica_log;
mod trace;
mod world;

#[cfg(test)]
mod tests;

pub use bug::{Bug, SCENARIOS, Shown};
pub use oracle::Violation;
pub use world::{Outcome, run};

use crate::types::BrokerId;

/// A node runs a broker and a controller, as `process.roles=broker,controller`. Who is no voter observes the metadata log.
type NodeId = BrokerId;

/// Index of a partition of the one topic.
type PartitionIndex = i32;
