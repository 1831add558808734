//! The active controller: one event loop that turns requests into metadata records and answers once they are committed.
//!
//! The `*_control` files are pure: they look at the image, the request and the time ([`Turn`]), and return records and a
//! response ([`Outcome`]). Only [`Handle`] and the event loop know of tasks and channels.

mod batches;
mod broker_watch;
mod cluster_control;
mod configuration_control;
mod controllers_control;
mod directory_control;
mod event_loop;
mod failure;
mod feature_control;
mod handle;
mod outcome;
mod partition_change;
mod partition_control;
mod periodic_control;
mod placement;
mod producer_id_control;
mod reassignment_control;
mod remote;
mod rng;
mod topic_control;

pub use broker_watch::BrokerTasks;
pub use event_loop::{Controller, ControllerParams};
pub use feature_control::{bootstrap_records, feature_records};
pub use handle::Handle;
pub use outcome::{Outcome, Settings, Turn};
pub use remote::{Caller, Remote};
pub use rng::Rng;

/// The handlers themselves, for who runs them without the event loop: the simulator.
pub mod pure {
    pub use super::cluster_control::{
        Heartbeats, broker_heartbeat, fence_stale_broker, register_broker,
    };
    pub use super::partition_control::alter_partition;
    pub use super::periodic_control::Periodic;
    pub use super::topic_control::create_topics;
}

#[cfg(test)]
mod tests;
