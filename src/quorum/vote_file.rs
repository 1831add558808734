//! The vote on disk: what this node promised, which must never go back.
//!
//! `raft-vote` is the truth: two slots written in turn, so that a torn write leaves the older one, and a vote costs one
//! sync of a file that exists. `quorum-state` is Kafka's form of the same, for its tools and for a directory that Kafka
//! wrote; it is rewritten after the vote is durable, and wins only where its epoch is higher.
//!
//! ```text
//! slot: 0 magic u32 | 4 sequence u64 | 12 term u64 | 20 node u64 | 28 committed u8 | 29 crc32c u32 of 0..29
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::types::{Vote, leader_epoch, node_id, raft_id};
use crate::types::{BrokerId, LeaderEpoch, Uuid, uuid_from_base64, uuid_to_base64};

const VOTE_FILE: &str = "raft-vote";
const QUORUM_STATE_FILE: &str = "quorum-state";
const MAGIC: u32 = 0x4f54_5631;
const SLOT_SIZE: usize = 33;
/// One sector each, so that one torn write cannot touch both.
const SLOT_DISTANCE: u64 = 4096;

/// The open vote file.
#[derive(Debug)]
pub(super) struct VoteFile {
    dir: PathBuf,
    file: File,
    sequence: u64,
    vote: Option<Vote>,
}

/// Kafka's QuorumStateData version 1, as its JSON converter writes it.
#[derive(Serialize, Deserialize)]
struct QuorumState {
    #[serde(rename = "leaderId")]
    leader_id: BrokerId,
    #[serde(rename = "leaderEpoch")]
    leader_epoch: LeaderEpoch,
    #[serde(rename = "votedId")]
    voted_id: BrokerId,
    #[serde(rename = "votedDirectoryId", default)]
    voted_directory_id: String,
    data_version: i16,
}

impl QuorumState {
    fn read(dir: &Path) -> Option<Self> {
        let text = fs::read(dir.join(QUORUM_STATE_FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

impl VoteFile {
    /// Opens (or creates) the vote file of the metadata log in `dir`.
    pub(super) fn open(dir: &Path, own_id: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(VOTE_FILE))?;
        let newest = [0, SLOT_DISTANCE]
            .iter()
            .filter_map(|at| read_slot(&file, *at))
            .max_by_key(|(sequence, _)| *sequence);
        let (sequence, mut vote) =
            newest.map_or((0, None), |(sequence, vote)| (sequence, Some(vote)));
        if let Some(kafkas) = read_quorum_state(dir, own_id)
            && vote.as_ref().is_none_or(|vote| term(vote) < term(&kafkas))
        {
            vote = Some(kafkas);
        }
        Ok(Self {
            dir: dir.to_owned(),
            file,
            sequence,
            vote,
        })
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        self.vote
    }

    /// Makes `vote` durable if `sync` says so, but not that it is committed: that only adds to a promise which is durable already
    /// that a quorum made it too, and a restarted node elects anew anyway.
    pub(super) fn save(&mut self, vote: Vote, sync: bool) -> io::Result<()> {
        let promised = self.vote.is_some_and(|old| old.leader_id == vote.leader_id);
        if promised {
            self.vote = Some(vote);
            return Ok(());
        }
        self.sequence += 1;
        let at = (self.sequence % 2) * SLOT_DISTANCE;
        self.file
            .write_all_at(&encode_slot(self.sequence, &vote), at)?;
        if sync {
            self.file.sync_data()?;
        }
        self.vote = Some(vote);
        Ok(())
    }

    /// Rewrites Kafka's copy. Not synced: it is not what this node starts from.
    pub(super) fn write_quorum_state(&self) -> io::Result<()> {
        let Some(vote) = self.vote else {
            return Ok(());
        };
        let node = node_id(vote.leader_id.voted_for);
        let epoch = leader_epoch(term(&vote));
        if vote.committed {
            write_quorum_state(&self.dir, node, epoch, -1)
        } else {
            write_quorum_state(&self.dir, -1, epoch, node)
        }
    }
}

/// Writes Kafka's file: who leads in `leader_epoch`, and whom this node voted for; -1 for nobody.
pub(super) fn write_quorum_state(
    dir: &Path,
    leader_id: BrokerId,
    leader_epoch: LeaderEpoch,
    voted_id: BrokerId,
) -> io::Result<()> {
    let state = QuorumState {
        leader_id,
        leader_epoch,
        voted_id,
        voted_directory_id: uuid_to_base64(Uuid::nil()),
        data_version: 1,
    };
    let text = serde_json::to_vec(&state).map_err(io::Error::other)?;
    let temporary = dir.join("quorum-state.tmp");
    fs::write(&temporary, text)?;
    fs::rename(&temporary, dir.join(QUORUM_STATE_FILE))
}

/// The epoch in Kafka's file; 0 without one.
pub(super) fn read_epoch(dir: &Path) -> LeaderEpoch {
    QuorumState::read(dir).map_or(0, |state| state.leader_epoch.max(0))
}

fn term(vote: &Vote) -> u64 {
    vote.leader_id.term
}

fn encode_slot(sequence: u64, vote: &Vote) -> [u8; SLOT_SIZE] {
    let mut slot = [0; SLOT_SIZE];
    slot[..4].copy_from_slice(&MAGIC.to_be_bytes());
    slot[4..12].copy_from_slice(&sequence.to_be_bytes());
    slot[12..20].copy_from_slice(&vote.leader_id.term.to_be_bytes());
    slot[20..28].copy_from_slice(&vote.leader_id.voted_for.to_be_bytes());
    slot[28] = u8::from(vote.committed);
    let crc = crc32c::crc32c(&slot[..29]);
    slot[29..].copy_from_slice(&crc.to_be_bytes());
    slot
}

/// `None` for a slot that was never or not wholly written.
fn read_slot(file: &File, at: u64) -> Option<(u64, Vote)> {
    let mut slot = [0; SLOT_SIZE];
    file.read_exact_at(&mut slot, at).ok()?;
    let long = |at: usize| Some(u64::from_be_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_be_bytes(slot.get(at..at + 4)?.try_into().ok()?));
    if word(0)? != MAGIC || word(29)? != crc32c::crc32c(&slot[..29]) {
        return None;
    }
    let (term, node) = (long(12)?, long(20)?);
    let vote = if slot[28] == 1 {
        Vote::new_committed(term, node)
    } else {
        Vote::new(term, node)
    };
    Some((long(4)?, vote))
}

/// The vote in Kafka's file; an epoch without a vote or leader counts as a vote for this node.
fn read_quorum_state(dir: &Path, own_id: u64) -> Option<Vote> {
    let state = QuorumState::read(dir)?;
    let term = u64::try_from(state.leader_epoch).ok()?;
    let node = match (state.voted_id, state.leader_id) {
        (voted, _) if voted >= 0 => {
            let directory_id = uuid_from_base64(&state.voted_directory_id);
            raft_id(voted, directory_id.unwrap_or(Uuid::nil()))
        }
        // Where the leader keeps its log is not in the file: the vote is spent all the same.
        (_, leader) if leader >= 0 => raft_id(leader, Uuid::nil()),
        _ => own_id,
    };
    Some(Vote::new(term, node))
}
