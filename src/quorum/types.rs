//! The types that openraft is instantiated with: what an entry carries, who a voter is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};

use crate::protocol::batch::BatchBuilder;
use crate::protocol::metadata_records::{MetadataRecord, NoOpRecord, encode_record};
use crate::types::{
    BrokerId, LeaderEpoch, Offset, TimestampMs, Uuid, uuid_from_base64, uuid_to_base64,
};

openraft::declare_raft_types!(
    /// Raft as the metadata log uses it. Terms are leader epochs, of which each names one leader.
    pub TypeConfig:
        D = Proposal,
        R = AppliedEntry,
        NodeId = u64,
        Node = VoterNode,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
);

pub(super) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(super) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(super) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(super) type Membership = openraft::Membership<u64, VoterNode>;
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(super) type CommittedLeaderId = <leader_id_std::LeaderId<u64, u64> as RaftLeaderId>::Committed;

/// The raft id of a replica: its node id, and above it a digest of its metadata log directory, so that a node that lost its disk
/// is somebody else to raft (KIP-853's replica key). Without directory ids (static voters) it is the node id alone. Node ids
/// are not negative.
///
/// ```text
/// 63            32 31         0
/// | CRC-32C of   | node id    |
/// | directory id |            |
/// ```
pub fn raft_id(node_id: BrokerId, directory_id: Uuid) -> u64 {
    let digest = if directory_id.is_nil() {
        0
    } else {
        crc32c::crc32c(directory_id.as_bytes()).max(1)
    };
    u64::from(digest) << 32 | u64::from(node_id.unsigned_abs())
}

pub(super) fn node_id(raft_id: u64) -> BrokerId {
    BrokerId::try_from(raft_id & u64::from(u32::MAX)).unwrap_or(-1)
}

/// The node that leads. A replica with this one's node id and another directory is nobody who could be asked: this node had that
/// directory once, or another process claims to be it.
pub(super) fn leader_node(leader: u64, own_id: u64) -> Option<BrokerId> {
    let is_former = leader != own_id && node_id(leader) == node_id(own_id);
    (!is_former).then(|| node_id(leader))
}

/// The same replicas under the ids that [`raft_id`] gives them.
pub(super) fn renumbered(membership: &Membership) -> Membership {
    let id_of = |id: u64| {
        let node = membership.get_node(&id);
        raft_id(
            node_id(id),
            node.map_or(Uuid::nil(), |node| node.directory_id),
        )
    };
    let configs = membership.get_joint_config().iter();
    let configs = configs.map(|ids| ids.iter().map(|id| id_of(*id)).collect());
    let nodes = membership.nodes();
    let nodes: BTreeMap<u64, VoterNode> =
        nodes.map(|(id, node)| (id_of(*id), node.clone())).collect();
    Membership::new(configs.collect(), nodes).unwrap_or_else(|_| membership.clone())
}

/// Voters by the ids that [`raft_id`] gives them.
pub(super) fn by_raft_id(voters: &BTreeMap<BrokerId, VoterNode>) -> BTreeMap<u64, VoterNode> {
    let voters = voters.iter();
    voters
        .map(|(id, node)| (raft_id(*id, node.directory_id), node.clone()))
        .collect()
}

/// The members as raft knows them, to be changed.
pub(super) fn nodes_of(members: &Membership) -> BTreeMap<u64, VoterNode> {
    let nodes = members.nodes();
    nodes.map(|(id, node)| (*id, node.clone())).collect()
}

/// The voter of this node id, whatever its directory.
pub(super) fn voter_of(members: &Membership, id: BrokerId) -> Option<&VoterNode> {
    let voter = members.voter_ids().find(|voter| node_id(*voter) == id)?;
    members.get_node(&voter)
}

/// Whether `own_id` is the whole quorum: nobody else votes or observes.
pub(super) fn is_sole_voter(members: &Membership, own_id: u64) -> bool {
    members.nodes().count() == 1 && members.voter_ids().all(|id| id == own_id)
}

/// The level of kraft.version: 1 where the voters' directories are known, so that voters can change (KIP-853).
pub(super) fn kraft_version(voters: &Membership) -> i16 {
    let mut ids = voters.voter_ids();
    let is_static = ids.any(|id| {
        voters
            .get_node(&id)
            .is_none_or(|it| it.directory_id.is_nil())
    });
    i16::from(!is_static)
}

pub(super) fn leader_epoch(term: u64) -> LeaderEpoch {
    LeaderEpoch::try_from(term).unwrap_or(LeaderEpoch::MAX)
}

/// A voter of the metadata quorum, as the VotersRecord describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterNode {
    /// Its metadata log directory; zero when unknown.
    #[serde(with = "uuid_text")]
    pub directory_id: Uuid,
    pub endpoints: Vec<VoterEndpoint>,
}

/// Where a voter listens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterEndpoint {
    /// Listener name.
    pub name: String,
    pub host: String,
    pub port: u16,
}

mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Uuid, uuid_from_base64, uuid_to_base64};

    pub(super) fn serialize<S: Serializer>(id: &Uuid, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&uuid_to_base64(*id))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        let text = String::deserialize(from)?;
        uuid_from_base64(&text).ok_or_else(|| D::Error::custom("not a uuid"))
    }
}

/// What a normal entry carries: one batch of metadata records, ready for the log but for its
/// leader epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Where the proposer expects the batch. A log that ends elsewhere stores a no-op instead, so
    /// records that build on a lost proposal never take effect. All logs decide alike, since they
    /// agree on everything before the entry.
    pub base_offset: Offset,
    #[serde(with = "batch_bytes")]
    pub batch: Bytes,
    /// The batch's records where it was built here; spares decoding them again.
    #[serde(skip)]
    pub records: Option<Arc<[MetadataRecord]>>,
    /// Set by the log that stored the no-op, to answer the proposer.
    #[serde(skip)]
    pub rejected: bool,
}

impl Proposal {
    pub(super) fn new(
        base_offset: Offset,
        now_ms: TimestampMs,
        records: Vec<MetadataRecord>,
    ) -> Self {
        let mut batch = BatchBuilder::new().base_offset(base_offset);
        for record in &records {
            batch.append(now_ms, None, Some(&encode_record(record)));
        }
        Self {
            base_offset,
            batch: batch.build(),
            records: Some(records.into()),
            rejected: false,
        }
    }

    /// A batch that says nothing.
    pub(super) fn filler(base_offset: Offset, now_ms: TimestampMs) -> Self {
        let record = MetadataRecord::NoOp(NoOpRecord::default());
        Self::new(base_offset, now_ms, vec![record])
    }
}

mod batch_bytes {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        Vec::<u8>::deserialize(from).map(Bytes::from)
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes for offset {}",
            self.batch.len(),
            self.base_offset
        )
    }
}

/// What the proposer learns when its entry is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedEntry {
    pub last_offset: Offset,
    /// A no-op took the place of the records.
    pub rejected: bool,
}

impl fmt::Display for AppliedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "last offset {}", self.last_offset)
    }
}
