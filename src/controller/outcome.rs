//! What the pure handlers take and return.

use std::sync::Arc;

use super::batches::needs_transaction;
use super::cluster_control::Heartbeats;
use super::rng::Rng;
use crate::config::Config;
use crate::metadata::MetadataImage;
use crate::protocol::metadata_records::MetadataRecord;
use crate::types::{BrokerId, Offset};

/// What a handler works on. Everything that differs from run to run is in here: handlers have no clock and no randomness.
pub struct Turn<'a> {
    /// The newest state, including what is proposed but not committed yet.
    pub image: &'a MetadataImage,
    pub settings: &'a Settings,
    /// Monotonic time.
    pub now_ms: i64,
    /// The offset that the first record of this turn will get.
    pub next_offset: Offset,
    /// The quorum's level of kraft.version.
    pub kraft_version: i16,
    pub rng: &'a mut Rng,
    /// When brokers were heard of; lost with the leadership, rebuilt by the next leader.
    pub heartbeats: &'a mut Heartbeats,
}

impl Turn<'_> {
    /// The offset of the last of this turn's `count` records.
    pub fn last_offset(&self, count: usize) -> Offset {
        let brackets = if needs_transaction(self.image, count) {
            2
        } else {
            0
        };
        self.next_offset + (count + brackets) as Offset - 1
    }
}

/// The static part of what a controller knows.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node_id: BrokerId,
    pub cluster_id: Arc<str>,
    pub config: Arc<Config>,
    /// What a new cluster begins with: the records that the node was formatted with.
    pub formatted: Arc<[MetadataRecord]>,
}

/// Records to append and the response to give once they are committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<R> {
    pub records: Vec<MetadataRecord>,
    pub response: R,
    /// More records than fit one batch are refused.
    pub is_atomic: bool,
}

impl<R> Outcome<R> {
    pub fn new(records: Vec<MetadataRecord>, response: R) -> Self {
        Self {
            records,
            response,
            is_atomic: false,
        }
    }

    /// What a user asked for: how much that is may have no bound but one batch (`MAX_RECORDS_PER_USER_OP`).
    pub fn atomic(records: Vec<MetadataRecord>, response: R) -> Self {
        Self {
            records,
            response,
            is_atomic: true,
        }
    }

    /// An outcome that changes nothing.
    pub fn unchanged(response: R) -> Self {
        Self::new(Vec::new(), response)
    }
}
