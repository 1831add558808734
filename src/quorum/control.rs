//! Control batches of the metadata log: leader changes, voters, and the frame of a checkpoint.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::types::{Membership, VoterEndpoint, VoterNode, kraft_version, node_id, raft_id};
use crate::metadata::features::KRAFT_VERSION_LEVEL;
use crate::protocol::batch::{BatchBuilder, BatchHeader, Record, Records};
use crate::protocol::control_records::{
    self, ControlRecordType, KRaftVersionFeature, KRaftVersionRecord, LeaderChangeMessage,
    SnapshotFooterRecord, SnapshotHeaderRecord, Voter, VoterRecord, VotersRecord,
};
use crate::protocol::wire::EncodeError;
use crate::types::{BrokerId, LeaderEpoch, Offset, TimestampMs};

/// Control batches are tiny; one that inflates to more is not ours.
const INFLATED_BYTES_MAX: usize = 1 << 20;

/// A control record: its type and value.
pub(super) type ControlRecord = (ControlRecordType, Bytes);

/// A batch of control records.
pub(super) fn batch(
    base_offset: Offset,
    epoch: LeaderEpoch,
    now_ms: TimestampMs,
    records: &[ControlRecord],
) -> Bytes {
    let mut builder = BatchBuilder::new()
        .base_offset(base_offset)
        .leader_epoch(epoch)
        .control(true);
    for (kind, value) in records {
        builder.append(now_ms, Some(&kind.to_key()), Some(value));
    }
    builder.build()
}

/// The control records of a batch; `None` when one is malformed.
pub(super) fn decode(header: &BatchHeader, batch: &[u8]) -> Option<Vec<ControlRecord>> {
    Records::new(header, batch, INFLATED_BYTES_MAX)
        .ok()?
        .map(|record| {
            let Record { key, value, .. } = record.ok()?;
            Some((ControlRecordType::from_key(&key?).ok()?, value?))
        })
        .collect()
}

fn encode(write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    write(&mut out).expect("ids, host names and ports fit their fields");
    out.freeze()
}

/// Version 0, which is all that Kafka writes and its tools read. All voters are reported as granting: openraft does not
/// tell which did.
pub(super) fn leader_change(leader_id: BrokerId, membership: &Membership) -> ControlRecord {
    let voters: Vec<Voter> = by_node_id(membership)
        .into_iter()
        .map(|id| Voter {
            voter_id: node_id(id),
            ..Voter::default()
        })
        .collect();
    let change = LeaderChangeMessage {
        version: 0,
        leader_id,
        granting_voters: voters.clone(),
        voters,
    };
    (
        ControlRecordType::LeaderChange,
        encode(|out| change.encode(out, 0)),
    )
}

/// The voters as Kafka's records list them.
fn by_node_id(membership: &Membership) -> Vec<u64> {
    let mut voters: Vec<u64> = membership.voter_ids().collect();
    voters.sort_unstable_by_key(|id| node_id(*id));
    voters
}

/// The level that goes with `membership`.
pub(super) fn kraft_version_of(membership: &Membership) -> ControlRecord {
    let record = KRaftVersionRecord {
        version: 0,
        kraft_version: kraft_version(membership),
    };
    (
        ControlRecordType::KRaftVersion,
        encode(|out| record.encode(out, 0)),
    )
}

/// The voters of `membership`.
pub(super) fn voters(membership: &Membership) -> ControlRecord {
    let unknown = VoterNode::default();
    let voter = |id: u64| {
        let node = membership.get_node(&id).unwrap_or(&unknown);
        let endpoint = |it: &VoterEndpoint| control_records::VoterEndpoint {
            name: it.name.clone(),
            host: it.host.clone(),
            port: it.port,
        };
        VoterRecord {
            voter_id: node_id(id),
            voter_directory_id: node.directory_id,
            endpoints: node.endpoints.iter().map(endpoint).collect(),
            kraft_version_feature: KRaftVersionFeature {
                min_supported_version: 0,
                max_supported_version: KRAFT_VERSION_LEVEL,
            },
        }
    };
    let record = VotersRecord {
        version: 0,
        voters: by_node_id(membership).into_iter().map(voter).collect(),
    };
    (
        ControlRecordType::KRaftVoters,
        encode(|out| record.encode(out, 0)),
    )
}

/// The membership of a VotersRecord; `None` when malformed.
pub(super) fn decode_voters(value: &Bytes) -> Option<Membership> {
    let record = VotersRecord::decode(&mut value.clone(), 0).ok()?;
    let nodes: BTreeMap<u64, VoterNode> = record
        .voters
        .into_iter()
        .map(|voter| {
            let endpoint = |it: control_records::VoterEndpoint| VoterEndpoint {
                name: it.name,
                host: it.host,
                port: it.port,
            };
            let node = VoterNode {
                directory_id: voter.voter_directory_id,
                endpoints: voter.endpoints.into_iter().map(endpoint).collect(),
            };
            (raft_id(voter.voter_id, node.directory_id), node)
        })
        .collect();
    let voters = nodes.keys().copied().collect();
    Membership::new(vec![voters], nodes).ok()
}

/// First record of a checkpoint.
pub(super) fn snapshot_header(last_contained_ms: TimestampMs) -> ControlRecord {
    let record = SnapshotHeaderRecord {
        version: 0,
        last_contained_log_timestamp: last_contained_ms,
    };
    (
        ControlRecordType::SnapshotHeader,
        encode(|out| record.encode(out, 0)),
    )
}

/// Last record of a checkpoint.
pub(super) fn snapshot_footer() -> ControlRecord {
    let record = SnapshotFooterRecord { version: 0 };
    (
        ControlRecordType::SnapshotFooter,
        encode(|out| record.encode(out, 0)),
    )
}
