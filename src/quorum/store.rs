//! The metadata log as raft sees it: entries by index over batches by offset.
//!
//! What is in memory is always ahead of the disk: an entry is readable as soon as it is appended, the writer thread makes
//! it durable. Entries stay in memory until they are applied and durable, and some longer, for subscribers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::checkpoint;
use super::entries::{entry_needs_sidecar, read, read_entries};
use super::sidecar::{Checkpoint, Sidecar};
use super::state::{Place, Progress, Run, State};
use super::types::{AppliedEntry, Entry, LogId, Membership, Vote};
use super::vote_file::VoteFile;
use super::writer::{Command, Writer};
use crate::clock::Clock;
use crate::log::Log;
use crate::types::Offset;

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
        let mut state = State::behind(&sidecar);
        if let Some(oldest) = sidecar.checkpoints.first() {
            checkpoint::remove_leftovers(dir, oldest.end_offset)?;
        }
        if log.next_offset() < state.end_offset() {
            log.truncate_fully_and_start_at(state.end_offset())
                .map_err(io::Error::other)?;
        }
        if log.log_start_offset() > state.end_offset() {
            return Err(invalid(format!(
                "{}: the log starts at {}, but no sound checkpoint reaches that far",
                dir.display(),
                log.log_start_offset()
            )));
        }
        state.load(sidecar, &log)?;
        let own_id = own_id(state.membership_at(u64::MAX).membership());
        let vote_file = VoteFile::open(dir, own_id)?;
        state.restore_vote(vote_file.vote(), own_id);
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
            next_offset: state.end_offset(),
            sidecar: needs_sidecar.then(|| state.sidecar.clone()),
            flushed,
        });
        Ok(())
    }

    /// The entries of `start..end` that the log has, each with its place.
    pub(super) async fn entries(&self, start: u64, end: u64) -> io::Result<Vec<(Entry, Place)>> {
        let Run {
            places,
            on_disk,
            cached,
        } = self.state().run(start, end);
        let mut entries = Vec::new();
        if let Some(located) = on_disk {
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
            state.set_vote(vote);
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
            let first_dropped = last.map_or(0, |id| id.index + 1).max(state.first_index());
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
            state.install(checkpoint);
            (state.sidecar.clone(), state.progress())
        };
        self.progress.send_replace(progress);
        sidecar
    }
}
