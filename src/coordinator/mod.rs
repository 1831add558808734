//! The runtime that coordinators share: one event loop per led partition of an internal topic.
//!
//! A coordinator keeps its state in a partition as records. The runtime loads them on election, runs the
//! coordinator's pure handlers one after the other, appends what they return as one batch and releases the replies
//! once the high watermark has passed it. The group coordinator uses it now, transactions and newer groups later.

mod executor;
mod loader;
mod runtime;
mod shard;
#[cfg(test)]
pub(crate) mod test_log;
#[cfg(test)]
mod tests;
mod timers;

use bytes::Bytes;
use tokio::sync::watch;

#[cfg(test)]
pub(crate) use executor::Executor;
pub use executor::RuntimeConfig;
#[cfg(test)]
pub(crate) use loader::load;
pub use runtime::Runtime;
pub use shard::{Effects, EncodedRecord, HardState, HardView, Now, RecordOrigin, Shard};
pub use timers::Timers;

use crate::protocol::batch::TransactionMarker;
use crate::protocol::error::Error;
use crate::types::{LeaderEpoch, Offset, TopicPartition};

/// The internal topic's partitions as a coordinator sees them; implemented over the replica manager.
///
/// All calls may touch the disk for a moment but never wait for replication.
pub trait PartitionWriter: Send + Sync + 'static {
    /// Appends one record batch as leader of `leader_epoch`. Answers the next offset (log end) behind it;
    /// `NotLeaderOrFollower` when this broker no longer leads in that epoch.
    fn append(
        &self,
        tp: &TopicPartition,
        leader_epoch: LeaderEpoch,
        batch: Bytes,
    ) -> Result<Offset, Error>;

    /// Appends the end of a transaction in the same way.
    fn append_marker(
        &self,
        tp: &TopicPartition,
        leader_epoch: LeaderEpoch,
        marker: &TransactionMarker,
    ) -> Result<Offset, Error>;

    /// Whole batches from the one that holds `from` on, up to about `max_bytes` but at least one; empty at the end.
    fn read(&self, tp: &TopicPartition, from: Offset, max_bytes: usize) -> Result<Bytes, Error>;

    /// Log start offset and next offset (log end).
    fn offsets(&self, tp: &TopicPartition) -> Result<(Offset, Offset), Error>;

    /// Follows the high watermark.
    fn high_watermark(&self, tp: &TopicPartition) -> Result<watch::Receiver<Offset>, Error>;
}
