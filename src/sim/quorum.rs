//! Consensus as seen from outside: batches that are committed, who has them on disk, who votes, and the one node that may commit
//! more. Openraft has tests of its own; here leaders and voters change at bad moments. What happens to it is in `membership.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::NodeId;
use crate::protocol::metadata_records::MetadataRecord;
use crate::quorum::pure::Voters;
use crate::types::{LeaderEpoch, Offset, Uuid};

/// One committed batch.
#[derive(Clone, Debug)]
pub struct Batch {
    pub records: Arc<[MetadataRecord]>,
    pub last_offset: Offset,
}

/// A node's metadata directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk {
    pub directory_id: Uuid,
    /// How many of the committed batches it has.
    pub held: usize,
}

/// The committed metadata log, its voters and their leader.
#[derive(Debug)]
pub struct Quorum {
    batches: Vec<Batch>,
    pub leader: Option<NodeId>,
    pub epoch: LeaderEpoch,
    /// Since when a majority does not hear the leader.
    pub silent_since_ms: Option<i64>,
    pub voters: Voters,
    pub disks: BTreeMap<NodeId, Disk>,
}

impl Quorum {
    /// An empty log.
    pub fn new(nodes: &[NodeId], voters: &[NodeId]) -> Self {
        let disk = |node: NodeId| Disk {
            directory_id: directory_id(node, 0),
            held: 0,
        };
        let replicas = voters.iter().map(|node| (*node, directory_id(*node, 0)));
        Self {
            batches: Vec::new(),
            leader: None,
            epoch: 0,
            silent_since_ms: None,
            voters: Voters::first(replicas),
            disks: nodes.iter().map(|node| (*node, disk(*node))).collect(),
        }
    }

    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    pub fn leads(&self, node: NodeId, epoch: LeaderEpoch) -> bool {
        self.leader == Some(node) && self.epoch == epoch
    }

    /// An empty batch is one of the quorum's own.
    pub fn commit(&mut self, records: Vec<MetadataRecord>) -> &Batch {
        let end = self.batches.last().map_or(-1, |batch| batch.last_offset);
        self.batches.push(Batch {
            last_offset: end + records.len().max(1) as Offset,
            records: records.into(),
        });
        self.batches.last().expect("pushed above")
    }

    /// Whether the node votes with the disk that it was added with.
    pub fn is_voter(&self, node: NodeId) -> bool {
        let own = (node, self.disks[&node].directory_id);
        self.voters.replicas().contains(&own)
    }

    /// The node comes back with another, empty disk.
    pub fn lose_disk(&mut self, node: NodeId) {
        let disk = self.disks.entry(node).or_default();
        let number = disk.directory_id.as_u128() >> 32;
        *disk = Disk {
            directory_id: directory_id(node, number + 1),
            held: 0,
        };
    }
}

fn directory_id(node: NodeId, number: u128) -> Uuid {
    Uuid::from_u128(number << 32 | u128::from(node.unsigned_abs()))
}
