//! Consensus as seen from outside: batches that are committed, and the one node that may commit more. Where voters change, also
//! what each node has of the log; `membership.rs` says what happens to it. Openraft has tests of its own; here leaders and voters
//! change at bad moments.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::NodeId;
use crate::protocol::metadata_records::MetadataRecord;
use crate::quorum::pure::Voters;
use crate::types::{LeaderEpoch, Offset, Uuid};

/// One batch of the metadata log.
#[derive(Clone, Debug)]
pub struct Entry {
    pub epoch: LeaderEpoch,
    /// None if it is the quorum's own: a leader's first, a change of the voters.
    pub records: Arc<[MetadataRecord]>,
    /// Who votes from here on.
    pub voters: Arc<Voters>,
}

/// One committed batch.
#[derive(Clone, Debug)]
pub struct Batch {
    pub entry: Entry,
    pub last_offset: Offset,
}

/// A node's metadata directory.
#[derive(Debug)]
pub struct Replica {
    pub directory_id: Uuid,
    /// Empty where the voters stay.
    pub log: Vec<Entry>,
}

impl Replica {
    /// How far its log goes: whose goes further does not vote for it.
    pub fn end(&self) -> (LeaderEpoch, usize) {
        let last = self.log.last();
        (last.map_or(0, |last| last.epoch), self.log.len())
    }

    /// Whether it has the first `count` entries of the other one's log: of each epoch there is one log.
    pub fn agrees(&self, other: &Self, count: usize) -> bool {
        let epoch = |replica: &Self| replica.log.get(count - 1).map(|entry| entry.epoch);
        count == 0 || epoch(other).is_some() && epoch(self) == epoch(other)
    }

    /// Takes the other one's log for its own.
    pub fn copy(&mut self, other: &[Entry]) {
        let mut shared = self.log.len().min(other.len());
        while shared > 0 && self.log[shared - 1].epoch != other[shared - 1].epoch {
            shared -= 1;
        }
        self.log.truncate(shared);
        self.log.extend_from_slice(&other[shared..]);
    }
}

/// The committed metadata log, and its leader.
#[derive(Debug)]
pub struct Quorum {
    batches: Vec<Batch>,
    pub leader: Option<NodeId>,
    pub epoch: LeaderEpoch,
    /// Since when a majority does not hear the leader.
    pub silent_since_ms: Option<i64>,
    first_voters: Arc<Voters>,
    pub replicas: BTreeMap<NodeId, Replica>,
}

impl Quorum {
    /// An empty log.
    pub fn new(nodes: &[NodeId], voters: &[NodeId]) -> Self {
        let replica = |node: NodeId| Replica {
            directory_id: directory_id(node, 0),
            log: Vec::new(),
        };
        let voters = voters.iter().map(|node| (*node, directory_id(*node, 0)));
        Self {
            batches: Vec::new(),
            leader: None,
            epoch: 0,
            silent_since_ms: None,
            first_voters: Arc::new(Voters::first(voters)),
            replicas: nodes.iter().map(|node| (*node, replica(*node))).collect(),
        }
    }

    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    pub fn leads(&self, node: NodeId, epoch: LeaderEpoch) -> bool {
        self.leader == Some(node) && self.epoch == epoch
    }

    /// Returns the offset of the entry's last record.
    pub fn commit(&mut self, entry: Entry) -> Offset {
        let end = self.batches.last().map_or(-1, |batch| batch.last_offset);
        let last_offset = end + entry.records.len().max(1) as Offset;
        self.batches.push(Batch { entry, last_offset });
        last_offset
    }

    /// The voters that are committed.
    pub fn voters(&self) -> &Arc<Voters> {
        let last = self.batches.last();
        last.map_or(&self.first_voters, |batch| &batch.entry.voters)
    }

    /// The voters as `node` knows them: they count as soon as they are in its log.
    pub fn voters_of(&self, node: NodeId) -> &Arc<Voters> {
        let last = self.replicas[&node].log.last();
        last.map_or(&self.first_voters, |entry| &entry.voters)
    }

    /// The node comes back with another, empty disk.
    pub fn lose_disk(&mut self, node: NodeId) {
        if let Some(replica) = self.replicas.get_mut(&node) {
            let number = replica.directory_id.as_u128() >> 32;
            replica.directory_id = directory_id(node, number + 1);
            replica.log.clear();
        }
    }
}

fn directory_id(node: NodeId, number: u128) -> Uuid {
    Uuid::from_u128(number << 32 | u128::from(node.unsigned_abs()))
}
