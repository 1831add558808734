//! The running broker: listeners, connections, the wiring of all parts, start and stop.

mod broker;
mod broker_watch;
mod closing_order;
mod connection;
mod connection_quota;
mod controller_registration;
mod coordinator_log;
mod dynamic_config;
mod gauges;
mod isr_channel;
pub mod lifecycle;
mod listener;
mod maintenance;
mod replica_gauges;
mod request_memory;
mod sockets;
mod storage;

#[cfg(test)]
mod tests;

pub use broker::{Broker, StartError};
