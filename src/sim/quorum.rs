//! Consensus as seen from outside: batches that are committed, and the one node that may commit more. Openraft has tests of
//! its own; here it only matters that leaders change at bad moments.

use std::sync::Arc;

use super::NodeId;
use crate::protocol::metadata_records::MetadataRecord;
use crate::types::{LeaderEpoch, Offset};

/// One committed batch.
#[derive(Clone, Debug)]
pub struct Batch {
    pub records: Arc<[MetadataRecord]>,
    pub last_offset: Offset,
}

/// The committed metadata log and its leader.
#[derive(Debug, Default)]
pub struct Quorum {
    batches: Vec<Batch>,
    pub leader: Option<NodeId>,
    pub epoch: LeaderEpoch,
    /// Since when a majority does not hear the leader.
    pub silent_since_ms: Option<i64>,
}

impl Quorum {
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    pub fn leads(&self, node: NodeId, epoch: LeaderEpoch) -> bool {
        self.leader == Some(node) && self.epoch == epoch
    }

    pub fn commit(&mut self, records: Vec<MetadataRecord>) -> &Batch {
        let end = self.batches.last().map_or(-1, |batch| batch.last_offset);
        self.batches.push(Batch {
            last_offset: end + records.len() as Offset,
            records: records.into(),
        });
        self.batches.last().expect("pushed above")
    }
}
