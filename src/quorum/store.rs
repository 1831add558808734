//! The metadata log as raft sees it: entries by index over batches by offset.
//!
//! What is in memory is always ahead of the disk: an entry is readable as soon as it is appended, the writer thread makes
//! it durable. Entries stay in memory until they are applied and durable, and some longer, for subscribers.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use tokio::sync::watch;

use super::checkpoint;
use super::control;
use super::sidecar::{Checkpoint, Sidecar};
use super::types::{
    AppliedEntry, CommittedLeaderId, Entry, LogId, Membership, Proposal, StoredMembership, Vote,
    is_sole_voter, leader_epoch, node_id,
};
use super::vote_file::VoteFile;
use super::writer::{Command, Writer};
use crate::clock::Clock;
use crate::log::Log;
use crate::protocol::batch::{BatchBuilder, BatchHeader, Batches, check_crc, parse_header};
use crate::protocol::control_records::ControlRecordType;
use crate::protocol::metadata_records::{MetadataRecord, NoOpRecord, encode_record};
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// Entries kept in memory although they are applied and durable, and their bytes.
const CACHED_ENTRIES_MAX: usize = 4096;
const CACHED_BYTES_MAX: usize = 2 << 20;
/// One read of the log.
const READ_BYTES_MAX: usize = 1 << 20;

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
type Memberships = BTreeMap<u64, (LogId, Membership)>;

/// Where an entry's batch is in the log, and when it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) base_offset: Offset,
    pub(super) last_offset: Offset,
    pub(super) timestamp: TimestampMs,
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

/// The log store. Shared by openraft's tasks, the subscribers and [`super::OpenraftMetaLog`].
#[derive(Debug)]
pub(super) struct Store {
    pub(super) dir: PathBuf,
    own_id: u64,
    clock: Clock,
    state: Arc<Mutex<State>>,
    log: Arc<Mutex<Log>>,
    writer: Writer,
    progress: watch::Sender<Progress>,
    /// Held while checkpoint files come and go.
    pub(super) checkpointing: tokio::sync::Mutex<()>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

impl Store {
    /// Reads what is on disk: the newest sound checkpoint, and the log behind it. `own_id` tells this replica's id among the
    /// members that the log knows last. Blocking.
    pub(super) fn open(
        mut log: Log,
        dir: &Path,
        own_id: impl FnOnce(&Membership) -> u64,
        clock: Clock,
    ) -> io::Result<Self> {
        let mut sidecar = Sidecar::read(dir)?;
        sidecar.checkpoints.retain(|it| {
            checkpoint::is_valid(&dir.join(checkpoint::file_name(it.end_offset, it.epoch)))
        });
        let mut state = State::default();
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
        if let Some(oldest) = sidecar.checkpoints.first() {
            checkpoint::remove_leftovers(dir, oldest.end_offset)?;
        }
        if log.next_offset() < state.end_offset {
            log.truncate_fully_and_start_at(state.end_offset)
                .map_err(io::Error::other)?;
        }
        if log.log_start_offset() > state.end_offset {
            return Err(invalid(format!(
                "{}: the log starts at {}, but no sound checkpoint reaches that far",
                dir.display(),
                log.log_start_offset()
            )));
        }
        state.sidecar = sidecar;
        state.cached_from = state.first_index;
        state.scan(&log)?;
        let own_id = own_id(state.membership_at(u64::MAX).membership());
        let vote_file = VoteFile::open(dir, own_id)?;
        state.vote = vote_file.vote();
        state.recover_vote(own_id);
        state.flushed_offset = state.end_offset;
        let progress = watch::Sender::new(state.progress());
        let state = Arc::new(Mutex::new(state));
        let log = Arc::new(Mutex::new(log));
        let log_dir = Arc::clone(lock(&log).log_dir());
        let writer = Writer::spawn(
            log_dir,
            dir,
            vote_file,
            Arc::clone(&log),
            Arc::clone(&state),
            clock.clone(),
        )?;
        Ok(Self {
            dir: dir.to_owned(),
            own_id,
            clock,
            state,
            log,
            writer,
            progress,
            checkpointing: tokio::sync::Mutex::new(()),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// This replica's id among the members.
    pub(super) fn own_id(&self) -> u64 {
        self.own_id
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Takes entries into memory and hands their batches to the writer, in one step.
    pub(super) fn append(
        &self,
        entries: impl IntoIterator<Item = Entry>,
        flushed: openraft::storage::IOFlushed<super::TypeConfig>,
    ) -> io::Result<()> {
        let mut state = self.state();
        let mut batches = BytesMut::new();
        let mut needs_sidecar = false;
        for entry in entries {
            needs_sidecar |= entry_needs_sidecar(&entry);
            batches.extend_from_slice(&state.push(entry, self.own_id, &self.clock)?);
        }
        self.writer.send(Command::Append {
            batches: batches.freeze(),
            next_offset: state.end_offset,
            sidecar: needs_sidecar.then(|| state.sidecar.clone()),
            flushed,
        });
        Ok(())
    }

    /// The entries of `start..end` that the log has, each with its place.
    pub(super) async fn entries(&self, start: u64, end: u64) -> io::Result<Vec<(Entry, Place)>> {
        let (places, cached, from_disk) = {
            let state = self.state();
            let start = start.max(state.first_index);
            let end = end.min(state.next_index()).max(start);
            let split = state.cached_from.clamp(start, end);
            let places: Vec<Place> = (start..end)
                .filter_map(|index| Some(state.slot(index)?.place()))
                .collect();
            let cached: Vec<Entry> = (split..end)
                .filter_map(|index| state.slot(index)?.entry.clone())
                .collect();
            (places, cached, state.locate(start, split))
        };
        let mut entries = Vec::new();
        if let Some(located) = from_disk {
            let log = Arc::clone(&self.log);
            let state = Arc::clone(&self.state);
            entries = tokio::task::spawn_blocking(move || read_entries(&log, &state, located))
                .await
                .map_err(io::Error::other)??;
        }
        entries.extend(cached);
        if entries.len() != places.len() {
            return Err(invalid("the metadata log has a hole"));
        }
        Ok(entries.into_iter().zip(places).collect())
    }

    /// Whole batches from `start` on and below `end`, both of them ends of committed batches; at least one.
    pub(super) async fn read_committed(
        &self,
        start: Offset,
        end: Offset,
        bytes_max: usize,
    ) -> io::Result<Bytes> {
        let log = Arc::clone(&self.log);
        if lock(&log).next_offset() < end {
            // A majority may have it before this disk does.
            self.writer.call(|reply| Command::Barrier { reply }).await?;
        }
        tokio::task::spawn_blocking(move || read(&lock(&log), start, end, bytes_max))
            .await
            .map_err(io::Error::other)?
    }

    pub(super) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        let done = {
            let mut state = self.state();
            state.vote = Some(vote);
            // Nobody else relies on what a sole voter promises, and the first entry of its term makes the term durable
            // (see `State::recover_vote`). This saves a sync at every start.
            let sync = !state.is_sole_voter(self.own_id);
            self.writer
                .start(|reply| Command::Vote { vote, sync, reply })
        };
        done.await
    }

    pub(super) async fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        let done = {
            let mut state = self.state();
            let first_dropped = last.map_or(0, |id| id.index + 1).max(state.first_index);
            if first_dropped >= state.next_index() {
                return Ok(());
            }
            let offset = state.truncate_from(first_dropped);
            self.writer
                .start(|reply| Command::Truncate { offset, reply })
        };
        done.await
    }

    /// Drops entries up to `last` from memory and whole segments before it from disk.
    pub(super) async fn purge(&self, last: LogId) -> io::Result<()> {
        let done = {
            let mut state = self.state();
            let Some((offset, restart)) = state.purge(last) else {
                return Ok(());
            };
            let sidecar = state.sidecar.clone();
            self.writer.start(|reply| Command::Purge {
                offset,
                restart,
                sidecar,
                reply,
            })
        };
        done.await
    }

    /// Notes an applied entry and tells who waits for it.
    pub(super) fn apply(&self, entry: &Entry) -> AppliedEntry {
        let (applied, progress) = {
            let mut state = self.state();
            (state.apply(entry), state.progress())
        };
        self.progress.send_replace(progress);
        applied
    }

    /// The state machine jumps to a checkpoint received from the leader.
    pub(super) fn install(&self, checkpoint: Checkpoint) -> Sidecar {
        let (sidecar, progress) = {
            let mut state = self.state();
            state.applied = Some(checkpoint.last_log_id);
            state.applied_membership = checkpoint.membership.clone();
            state.published = checkpoint.end_offset;
            state.sidecar.checkpoints.push(checkpoint);
            (state.sidecar.clone(), state.progress())
        };
        self.progress.send_replace(progress);
        sidecar
    }
}

impl State {
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
            return Some(
                self.slots
                    .front()
                    .map_or(self.end_offset, |slot| slot.base_offset),
            );
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
    fn push(&mut self, entry: Entry, own_id: u64, clock: &Clock) -> io::Result<Bytes> {
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
    fn truncate_from(&mut self, index: u64) -> Offset {
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
    fn purge(&mut self, last: LogId) -> Option<(Offset, bool)> {
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

    fn apply(&mut self, entry: &Entry) -> AppliedEntry {
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

    /// Numbers the batches of the log from `first_index` and `end_offset` on.
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
fn needs_sidecar(membership: &Membership) -> bool {
    let (_, voters) = control::voters(membership);
    control::decode_voters(&voters).as_ref() != Some(membership)
}

fn entry_needs_sidecar(entry: &Entry) -> bool {
    match &entry.payload {
        EntryPayload::Membership(membership) => needs_sidecar(membership),
        EntryPayload::Blank | EntryPayload::Normal(_) => false,
    }
}

/// A run of entries on disk.
struct Located {
    first_index: u64,
    start_offset: Offset,
    end_offset: Offset,
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

fn read_entries(
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
            entries.push(to_entry(&header, batch, index, &lock(state).memberships));
            next_offset = header.next_offset();
            index += 1;
        }
    }
    Ok(entries)
}

fn to_entry(header: &BatchHeader, batch: Bytes, index: u64, memberships: &Memberships) -> Entry {
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
fn place(mut proposal: Proposal, base_offset: Offset, epoch: LeaderEpoch) -> io::Result<Proposal> {
    let header = parse_header(&proposal.batch).map_err(io::Error::other)?;
    if header.size_bytes() != proposal.batch.len() || header.is_control() {
        return Err(invalid("a proposal is not one batch of records"));
    }
    check_crc(&header, &proposal.batch).map_err(io::Error::other)?;
    if proposal.base_offset == base_offset && header.base_offset == base_offset {
        let mut batch = BytesMut::from(&proposal.batch[..]);
        batch[12..16].copy_from_slice(&epoch.to_be_bytes());
        proposal.batch = batch.freeze();
        return Ok(proposal);
    }
    let records: Arc<[MetadataRecord]> =
        Arc::from(vec![MetadataRecord::NoOp(NoOpRecord::default())]);
    let mut batch = BatchBuilder::new()
        .base_offset(base_offset)
        .leader_epoch(epoch);
    batch.append(
        header.max_timestamp,
        None,
        Some(&encode_record(&records[0])),
    );
    Ok(Proposal {
        base_offset,
        batch: batch.build(),
        records: Some(records),
        rejected: true,
    })
}
