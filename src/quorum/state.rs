//! What the metadata log has in memory: where each entry is, the entries themselves while somebody may want them, the members, and
//! how far all of it is applied. Behind the store's mutex; reads the disk only when it is opened.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;

use super::control;
use super::entries::{Located, READ_BYTES_MAX, log_id, membership_of, place, read, to_entry};
use super::sidecar::{Checkpoint, Sidecar};
use super::store::invalid;
use super::types::{
    AppliedEntry, Entry, LogId, Membership, StoredMembership, Vote, is_sole_voter, leader_epoch,
    node_id,
};
use crate::clock::Clock;
use crate::log::Log;
use crate::protocol::batch::{Batches, check_crc, parse_header};
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// Entries kept in memory although they are applied and durable, and their bytes.
const CACHED_ENTRIES_MAX: usize = 4096;
const CACHED_BYTES_MAX: usize = 2 << 20;

/// One entry of the log: where its batch is, and the entry itself while it is in memory.
#[derive(Debug)]
struct Slot {
    base_offset: Offset,
    last_offset: Offset,
    term: u64,
    timestamp: TimestampMs,
    size_bytes: usize,
    entry: Option<Entry>,
}

/// Memberships by the index of their entry.
pub(super) type Memberships = BTreeMap<u64, (LogId, Membership)>;

/// Where an entry's batch is in the log, and when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) base_offset: Offset,
    pub(super) last_offset: Offset,
    pub(super) timestamp: TimestampMs,
}

/// Entries that follow each other: those that only the disk has, and those behind them.
pub(super) struct Run {
    pub(super) places: Vec<Place>,
    pub(super) on_disk: Option<Located>,
    pub(super) cached: Vec<Entry>,
}

impl Slot {
    fn place(&self) -> Place {
        Place {
            base_offset: self.base_offset,
            last_offset: self.last_offset,
            timestamp: self.timestamp,
        }
    }
}

/// Everything about the log that changes, behind one mutex.
#[derive(Debug, Default)]
pub(super) struct State {
    first_index: u64,
    slots: VecDeque<Slot>,
    /// Slots from this index on hold their entry.
    cached_from: u64,
    cached_bytes: usize,
    purged: Option<LogId>,
    /// Log end offset, of what is in memory.
    end_offset: Offset,
    /// Everything below is durable.
    pub(super) flushed_offset: Offset,
    vote: Option<Vote>,
    memberships: Memberships,
    pub(super) sidecar: Sidecar,
    /// Checkpoints up to this end offset have their file.
    pub(super) published: Offset,
    applied: Option<LogId>,
    applied_membership: StoredMembership,
    /// Set for good by the first failed write.
    pub(super) failed: Option<Arc<str>>,
}

/// How far the log is applied, hence committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Index of the next entry to be applied.
    pub(super) next_index: u64,
    pub(super) high_watermark: Offset,
    /// Term of the last applied entry.
    pub(super) term: u64,
}

impl State {
    /// An empty log behind the newest checkpoint, or behind what was purged last.
    pub(super) fn behind(sidecar: &Sidecar) -> Self {
        let mut state = Self::default();
        if let Some(newest) = sidecar.checkpoints.last() {
            state.purged = Some(newest.last_log_id);
            state.first_index = newest.last_log_id.index + 1;
            state.end_offset = newest.end_offset;
            state.applied = Some(newest.last_log_id);
            state.applied_membership = newest.membership.clone();
            state.published = newest.end_offset;
        } else if let Some((log_id, next_offset)) = sidecar.purged {
            state.purged = Some(log_id);
            state.first_index = log_id.index + 1;
            state.end_offset = next_offset;
        }
        state
    }

    /// Takes in what the log has from there on.
    pub(super) fn load(&mut self, sidecar: Sidecar, log: &Log) -> io::Result<()> {
        self.sidecar = sidecar;
        self.cached_from = self.first_index;
        self.scan(log)?;
        self.flushed_offset = self.end_offset;
        Ok(())
    }

    /// Takes the vote that is on disk, and what the log makes of it.
    pub(super) fn restore_vote(&mut self, vote: Option<Vote>, own_id: u64) {
        self.vote = vote;
        self.recover_vote(own_id);
    }

    pub(super) fn set_vote(&mut self, vote: Vote) {
        self.vote = Some(vote);
    }

    pub(super) fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    /// The entries of `start..end` that the log has.
    pub(super) fn run(&self, start: u64, end: u64) -> Run {
        let start = start.max(self.first_index);
        let end = end.min(self.next_index()).max(start);
        let split = self.cached_from.clamp(start, end);
        let places = (start..end).filter_map(|index| Some(self.slot(index)?.place()));
        let cached = (split..end).filter_map(|index| self.slot(index)?.entry.clone());
        Run {
            places: places.collect(),
            on_disk: self.locate(start, split),
            cached: cached.collect(),
        }
    }

    /// Jumps to a checkpoint received from the leader.
    pub(super) fn install(&mut self, checkpoint: Checkpoint) {
        self.applied = Some(checkpoint.last_log_id);
        self.applied_membership = checkpoint.membership.clone();
        self.published = checkpoint.end_offset;
        self.sidecar.checkpoints.push(checkpoint);
    }

    pub(super) fn next_index(&self) -> u64 {
        self.first_index + self.slots.len() as u64
    }

    pub(super) fn first_index(&self) -> u64 {
        self.first_index
    }

    pub(super) fn end_offset(&self) -> Offset {
        self.end_offset
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        self.vote
    }

    /// Where the log begins, behind the last entry that was dropped.
    pub(super) fn start_offset(&self) -> Offset {
        let first = self.slots.front();
        first.map_or(self.end_offset, |slot| slot.base_offset)
    }

    /// The newest epoch of the log that is not above `epoch`, and the offset behind it.
    pub(super) fn end_of_epoch(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let term = u64::try_from(epoch).unwrap_or(0);
        let behind = self.slots.partition_point(|slot| slot.term <= term);
        if let Some(last) = behind.checked_sub(1).and_then(|at| self.slots.get(at)) {
            return (leader_epoch(last.term), last.last_offset + 1);
        }
        let purged = self.purged.map_or(0, |id| id.leader_id.term);
        (leader_epoch(purged), self.start_offset())
    }

    pub(super) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    pub(super) fn last_log_id(&self) -> Option<LogId> {
        let Some(last) = self.slots.back() else {
            return self.purged;
        };
        Some(log_id(last.term, self.next_index() - 1))
    }

    pub(super) fn applied(&self) -> (Option<LogId>, StoredMembership) {
        (self.applied, self.applied_membership.clone())
    }

    pub(super) fn newest_checkpoint(&self) -> Option<&Checkpoint> {
        let mut newest_first = self.sidecar.checkpoints.iter().rev();
        newest_first.find(|it| it.end_offset <= self.published)
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        let at = usize::try_from(index.checked_sub(self.first_index)?).ok()?;
        self.slots.get(at)
    }

    /// Whether `own_id` is the whole quorum, by the newest membership in the log, committed or not.
    pub(super) fn is_sole_voter(&self, own_id: u64) -> bool {
        let newest = self.membership_at(u64::MAX);
        is_sole_voter(newest.membership(), own_id)
    }

    /// A sole voter's vote may be lost in a crash, but not the entries of its term: the term is not used again, also when the
    /// quorum has grown in it.
    fn recover_vote(&mut self, own_id: u64) {
        let logged = self.last_log_id().map_or(0, |id| id.leader_id.term);
        let voted = self.vote.map_or(0, |vote| vote.leader_id.term);
        if logged > voted {
            self.vote = Some(Vote::new(logged, own_id));
        }
    }

    pub(super) fn check(&self) -> io::Result<()> {
        match &self.failed {
            Some(reason) => Err(io::Error::other(reason.to_string())),
            None => Ok(()),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let next_index = self.applied.map_or(0, |id| id.index + 1);
        let high_watermark = match self.applied.and_then(|id| self.slot(id.index)) {
            Some(slot) => slot.last_offset + 1,
            None => self
                .sidecar
                .checkpoints
                .iter()
                .rfind(|it| Some(it.last_log_id) == self.applied)
                .map_or(0, |it| it.end_offset),
        };
        Progress {
            next_index,
            high_watermark,
            term: self.applied.map_or(0, |id| id.leader_id.term),
        }
    }

    /// The offset behind entry `index`, where the log has it.
    pub(super) fn offset_after(&self, index: u64) -> Option<Offset> {
        if self.purged.is_some_and(|id| id.index == index) {
            return Some(self.start_offset());
        }
        self.slot(index).map(|slot| slot.last_offset + 1)
    }

    /// The entry whose batch ends right before `offset`, and its time.
    pub(super) fn entry_before(&self, offset: Offset) -> Option<(LogId, TimestampMs)> {
        let at = self
            .slots
            .binary_search_by_key(&(offset - 1), |slot| slot.last_offset)
            .ok()?;
        let slot = self.slots.get(at)?;
        Some((
            log_id(slot.term, self.first_index + at as u64),
            slot.timestamp,
        ))
    }

    /// The membership in force after entry `index`.
    pub(super) fn membership_at(&self, index: u64) -> StoredMembership {
        if let Some((_, (id, membership))) = self.memberships.range(..=index).next_back() {
            return StoredMembership::new(Some(*id), membership.clone());
        }
        self.newest_checkpoint()
            .map(|it| it.membership.clone())
            .unwrap_or_default()
    }

    /// Adds an entry and returns its batch.
    pub(super) fn push(&mut self, entry: Entry, own_id: u64, clock: &Clock) -> io::Result<Bytes> {
        self.check()?;
        let LogId { index, leader_id } = entry.log_id;
        if self.slots.is_empty() && self.purged.is_none() {
            self.first_index = index;
            self.cached_from = index;
        }
        if index != self.next_index() {
            return Err(invalid(format!("entry {index} is not the next of the log")));
        }
        let epoch = leader_epoch(leader_id.term);
        let base_offset = self.end_offset;
        let (batch, payload) = match entry.payload {
            EntryPayload::Blank => {
                let leader = self.leader_of(leader_id.term).unwrap_or(own_id);
                let voters = self.membership_at(index);
                let change = control::leader_change(node_id(leader), voters.membership());
                let batch = control::batch(base_offset, epoch, clock.wall_ms(), &[change]);
                (batch, EntryPayload::Blank)
            }
            EntryPayload::Membership(membership) => {
                if needs_sidecar(&membership) {
                    let exact = (entry.log_id, membership.clone());
                    self.sidecar.memberships.insert(index, exact);
                }
                // The level is said once, with the first voters (`LeaderState.appendVotersRecord`).
                let level = (base_offset == 0).then(|| control::kraft_version_of(&membership));
                let records: Vec<_> = level
                    .into_iter()
                    .chain([control::voters(&membership)])
                    .collect();
                let batch = control::batch(base_offset, epoch, clock.wall_ms(), &records);
                self.memberships
                    .insert(index, (entry.log_id, membership.clone()));
                (batch, EntryPayload::Membership(membership))
            }
            EntryPayload::Normal(proposal) => {
                let proposal = place(proposal, base_offset, epoch)?;
                (proposal.batch.clone(), EntryPayload::Normal(proposal))
            }
        };
        let header = parse_header(&batch).map_err(io::Error::other)?;
        self.end_offset = header.next_offset();
        self.cached_bytes += batch.len();
        self.slots.push_back(Slot {
            base_offset,
            last_offset: header.last_offset(),
            term: leader_id.term,
            timestamp: header.max_timestamp,
            size_bytes: batch.len(),
            entry: Some(Entry {
                log_id: entry.log_id,
                payload,
            }),
        });
        Ok(batch)
    }

    fn leader_of(&self, term: u64) -> Option<u64> {
        let leader = self.vote?.leader_id;
        (leader.term == term).then_some(leader.voted_for)
    }

    /// Drops entries from `index` on; returns the new end offset.
    pub(super) fn truncate_from(&mut self, index: u64) -> Offset {
        while self.next_index() > index
            && let Some(slot) = self.slots.pop_back()
        {
            self.end_offset = slot.base_offset;
            if slot.entry.is_some() {
                self.cached_bytes -= slot.size_bytes;
            }
        }
        self.cached_from = self.cached_from.min(index);
        self.flushed_offset = self.flushed_offset.min(self.end_offset);
        self.memberships.split_off(&index);
        self.end_offset
    }

    /// Drops entries up to `last`. Returns the new first offset, and whether the log must start over there because it
    /// ends before (a checkpoint came from the leader); `None` if there is nothing to drop.
    pub(super) fn purge(&mut self, last: LogId) -> Option<(Offset, bool)> {
        if last.index < self.first_index && self.purged.is_some() {
            return None;
        }
        while self.first_index <= last.index
            && let Some(slot) = self.slots.pop_front()
        {
            self.first_index += 1;
            if slot.entry.is_some() {
                self.cached_bytes -= slot.size_bytes;
            }
        }
        let mut restart = false;
        if self.slots.is_empty() {
            let checkpoint = self.newest_checkpoint();
            let end_offset = checkpoint.map_or(0, |it| it.end_offset);
            restart = end_offset > self.end_offset;
            self.end_offset = self.end_offset.max(end_offset);
            self.first_index = last.index + 1;
        }
        self.cached_from = self.cached_from.max(self.first_index);
        self.purged = Some(last);
        let offset = self
            .slots
            .front()
            .map_or(self.end_offset, |slot| slot.base_offset);
        self.sidecar.purged = Some((last, offset));
        self.sidecar
            .memberships
            .retain(|index, _| *index > last.index);
        Some((offset, restart))
    }

    pub(super) fn apply(&mut self, entry: &Entry) -> AppliedEntry {
        self.applied = Some(entry.log_id);
        let mut rejected = false;
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(proposal) => rejected = proposal.rejected,
            EntryPayload::Membership(membership) => {
                self.applied_membership =
                    StoredMembership::new(Some(entry.log_id), membership.clone());
            }
        }
        let last_offset = self
            .slot(entry.log_id.index)
            .map_or(-1, |slot| slot.last_offset);
        self.evict(entry.log_id.index);
        AppliedEntry {
            last_offset,
            rejected,
        }
    }

    /// Forgets entries that are applied and durable, while there are too many.
    fn evict(&mut self, applied: u64) {
        while self.is_cache_full() && self.cached_from <= applied {
            let oldest = self.slot(self.cached_from);
            if oldest.is_none_or(|slot| slot.last_offset >= self.flushed_offset) {
                return;
            }
            self.forget_oldest();
        }
    }

    fn is_cache_full(&self) -> bool {
        self.next_index() - self.cached_from > CACHED_ENTRIES_MAX as u64
            || self.cached_bytes > CACHED_BYTES_MAX
    }

    fn forget_oldest(&mut self) {
        let at = (self.cached_from - self.first_index) as usize;
        if let Some(slot) = self.slots.get_mut(at)
            && slot.entry.take().is_some()
        {
            self.cached_bytes -= slot.size_bytes;
        }
        self.cached_from += 1;
    }

    /// The last entry of each term in `first..=last`.
    pub(super) fn key_log_ids(&self, first: u64, last: u64) -> Vec<LogId> {
        let mut ids: Vec<LogId> = Vec::new();
        for index in first..=last {
            let Some(slot) = self.slot(index) else {
                continue;
            };
            match ids.last_mut() {
                Some(id) if id.leader_id.term == slot.term => id.index = index,
                _ => ids.push(log_id(slot.term, index)),
            }
        }
        ids
    }

    fn locate(&self, start: u64, end: u64) -> Option<Located> {
        let first = self.slot(start)?;
        let last = self.slot(end.checked_sub(1)?)?;
        (start < end).then_some(Located {
            first_index: start,
            start_offset: first.base_offset,
            end_offset: last.last_offset + 1,
        })
    }

    /// Numbers the batches of the log from `first_index` and `end_offset` on. A damaged one stops the start, as it does
    /// Kafka's: records that were never written must not be applied.
    fn scan(&mut self, log: &Log) -> io::Result<()> {
        let log_end = log.next_offset();
        while self.end_offset < log_end {
            for batch in Batches::new(read(log, self.end_offset, log_end, READ_BYTES_MAX)?) {
                let (header, batch) = batch.map_err(io::Error::other)?;
                if header.base_offset != self.end_offset {
                    return Err(invalid(format!(
                        "the metadata log has a gap at offset {}",
                        self.end_offset
                    )));
                }
                check_crc(&header, &batch).map_err(|error| {
                    invalid(format!(
                        "the metadata log is damaged at offset {}: {error}",
                        self.end_offset
                    ))
                })?;
                let term = u64::try_from(header.partition_leader_epoch).unwrap_or(0);
                let id = log_id(term, self.next_index());
                if let Some(membership) = membership_of(&header, &batch) {
                    let exact = self.sidecar.memberships.get(&id.index);
                    let exact = exact.filter(|(of, _)| *of == id).cloned();
                    self.memberships
                        .insert(id.index, exact.unwrap_or((id, membership)));
                }
                self.cached_bytes += batch.len();
                self.slots.push_back(Slot {
                    base_offset: header.base_offset,
                    last_offset: header.last_offset(),
                    term,
                    timestamp: header.max_timestamp,
                    size_bytes: batch.len(),
                    entry: Some(to_entry(&header, batch, id.index, &self.memberships)),
                });
                while self.is_cache_full() {
                    self.forget_oldest();
                }
                self.end_offset = header.next_offset();
            }
        }
        Ok(())
    }
}

/// Whether a VotersRecord cannot say all of `membership`.
pub(super) fn needs_sidecar(membership: &Membership) -> bool {
    let (_, voters) = control::voters(membership);
    control::decode_voters(&voters).as_ref() != Some(membership)
}
