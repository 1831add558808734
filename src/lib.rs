//! Ottla: a broker that speaks Apache Kafka's wire protocol. The map is in `ARCHITECTURE.md`.

pub mod admin;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod controller;
pub mod coordinator;
pub mod group;
pub mod log;
pub mod metadata;
pub mod metrics;
pub mod partition;
pub mod protocol;
pub mod quorum;
pub mod replica;
pub mod rpc;
pub mod server;
pub mod sim;
#[cfg(test)]
mod tidy;
pub mod types;
