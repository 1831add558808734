//! The running broker: listeners, connections, the wiring of all parts, start and stop.

mod broker;
mod connection;
mod coordinator_log;
pub mod lifecycle;
mod listener;
mod maintenance;

pub use broker::{Broker, StartError};
