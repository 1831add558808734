//! Batches of the metadata log on disk as entries of raft, and a proposal as the batch that it becomes.

use std::io;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;

use super::control;
use super::state::{Memberships, State, needs_sidecar};
use super::store::{invalid, lock};
use super::types::{CommittedLeaderId, Entry, LogId, Membership, Proposal};
use crate::log::Log;
use crate::protocol::batch::{BatchHeader, Batches, check_crc, parse_header};
use crate::protocol::control_records::ControlRecordType;
use crate::types::{LeaderEpoch, Offset};

/// One read of the log.
pub(super) const READ_BYTES_MAX: usize = 1 << 20;

pub(super) fn entry_needs_sidecar(entry: &Entry) -> bool {
    match &entry.payload {
        EntryPayload::Membership(membership) => needs_sidecar(membership),
        EntryPayload::Blank | EntryPayload::Normal(_) => false,
    }
}

/// A run of entries on disk.
pub(super) struct Located {
    pub(super) first_index: u64,
    pub(super) start_offset: Offset,
    pub(super) end_offset: Offset,
}

pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::from(term), index)
}

/// Whole batches from `start` on; never empty.
pub(super) fn read(log: &Log, start: Offset, end: Offset, bytes_max: usize) -> io::Result<Bytes> {
    let slice = log
        .read(start, bytes_max, end, true)
        .map_err(io::Error::other)?;
    let bytes = slice.read_bytes()?;
    // The last batch may be cut; the next read begins with it.
    let mut whole = 0;
    while let Some(header) = bytes.get(whole..).and_then(|rest| parse_header(rest).ok())
        && whole + header.size_bytes() <= bytes.len()
    {
        whole += header.size_bytes();
    }
    if whole == 0 {
        return Err(invalid(format!(
            "the metadata log cannot be read at offset {start}"
        )));
    }
    Ok(bytes.slice(..whole))
}

pub(super) fn read_entries(
    log: &Mutex<Log>,
    state: &Mutex<State>,
    located: Located,
) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut next_offset = located.start_offset;
    let mut index = located.first_index;
    while next_offset < located.end_offset {
        let bytes = read(&lock(log), next_offset, located.end_offset, READ_BYTES_MAX)?;
        for batch in Batches::new(bytes) {
            let (header, batch) = batch.map_err(io::Error::other)?;
            if header.base_offset != next_offset || header.next_offset() > located.end_offset {
                return Err(invalid("the metadata log changed while it was read"));
            }
            check_crc(&header, &batch).map_err(io::Error::other)?;
            entries.push(to_entry(&header, batch, index, lock(state).memberships()));
            next_offset = header.next_offset();
            index += 1;
        }
    }
    Ok(entries)
}

pub(super) fn to_entry(
    header: &BatchHeader,
    batch: Bytes,
    index: u64,
    memberships: &Memberships,
) -> Entry {
    let term = u64::try_from(header.partition_leader_epoch).unwrap_or(0);
    let payload = if !header.is_control() {
        EntryPayload::Normal(Proposal {
            base_offset: header.base_offset,
            batch,
            records: None,
            rejected: false,
        })
    } else if let Some((_, membership)) = memberships.get(&index) {
        EntryPayload::Membership(membership.clone())
    } else {
        EntryPayload::Blank
    };
    Entry {
        log_id: log_id(term, index),
        payload,
    }
}

/// The membership in a control batch with a VotersRecord.
pub(super) fn membership_of(header: &BatchHeader, batch: &[u8]) -> Option<Membership> {
    if !header.is_control() {
        return None;
    }
    let records = control::decode(header, batch)?;
    let (_, voters) = records
        .iter()
        .find(|(kind, _)| *kind == ControlRecordType::KRaftVoters)?;
    control::decode_voters(voters)
}

/// Gives a proposal its leader epoch; one that expected to be elsewhere becomes a no-op.
pub(super) fn place(
    mut proposal: Proposal,
    base_offset: Offset,
    epoch: LeaderEpoch,
) -> io::Result<Proposal> {
    let header = parse_header(&proposal.batch).map_err(io::Error::other)?;
    if header.size_bytes() != proposal.batch.len() || header.is_control() {
        return Err(invalid("a proposal is not one batch of records"));
    }
    check_crc(&header, &proposal.batch).map_err(io::Error::other)?;
    if proposal.base_offset != base_offset || header.base_offset != base_offset {
        proposal = Proposal::filler(base_offset, header.max_timestamp);
        proposal.rejected = true;
    }
    let mut batch = BytesMut::from(&proposal.batch[..]);
    batch[12..16].copy_from_slice(&epoch.to_be_bytes());
    proposal.batch = batch.freeze();
    Ok(proposal)
}
