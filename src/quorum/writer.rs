//! The thread that writes the metadata log and the vote: one write and one sync for everything that waits (group commit).
//!
//! Commands are carried out in the order in which they were sent. The first failure is final: all later commands fail.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use openraft::storage::IOFlushed;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::TypeConfig;
use super::sidecar::Sidecar;
use super::state::State;
use super::store::lock;
use super::types::Vote;
use super::vote_file::VoteFile;
use crate::clock::Clock;
use crate::log::{Log, LogDir, StartOffsetReason, StorageError};
use crate::types::Offset;

/// Commands of one group. The queue itself is bounded by openraft, which has at most its channels' worth in flight.
const GROUP_COMMANDS_MAX: usize = 4096;
const GROUP_BYTES_MAX: usize = 8 << 20;

type Reply = oneshot::Sender<io::Result<()>>;

/// Something to write.
pub(super) enum Command {
    /// Batches that end at `next_offset`. The sidecar, if any, is needed to read them back.
    Append {
        batches: Bytes,
        next_offset: Offset,
        sidecar: Option<Sidecar>,
        flushed: IOFlushed<TypeConfig>,
    },
    Vote {
        vote: Vote,
        sync: bool,
        reply: Reply,
    },
    Truncate {
        offset: Offset,
        reply: Reply,
    },
    /// Drop what is before `offset`; with `restart` drop everything.
    Purge {
        offset: Offset,
        restart: bool,
        sidecar: Sidecar,
        reply: Reply,
    },
    Sidecar {
        sidecar: Sidecar,
        reply: Reply,
    },
    /// Only answer: everything sent before is written then.
    Barrier {
        reply: Reply,
    },
    /// Make the log durable and end.
    Close {
        reply: Reply,
    },
}

/// Handle of the writer thread. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    commands: Option<Sender<Command>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn spawn(
        log_dir: Arc<LogDir>,
        dir: &Path,
        vote_file: VoteFile,
        log: Arc<Mutex<Log>>,
        state: Arc<Mutex<State>>,
        clock: Clock,
    ) -> io::Result<Self> {
        let (commands, queue) = channel();
        let job = Job {
            log_dir,
            dir: dir.to_owned(),
            vote_file,
            log,
            state,
            clock,
            group: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("metadata-log-writer".into())
            .spawn(move || job.run(&queue))?;
        Ok(Self {
            commands: Some(commands),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a command. When the thread is gone, the command's reply is dropped, which its waiter sees.
    pub(super) fn send(&self, command: Command) {
        let Some(commands) = &self.commands else {
            return;
        };
        if let Err(failed) = commands.send(command)
            && let Command::Append { flushed, .. } = failed.0
        {
            flushed.io_completed(Err(closed()));
        }
    }

    /// Queues a command now; the future is its reply.
    pub(super) fn start(
        &self,
        command: impl FnOnce(Reply) -> Command,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let (reply, done) = oneshot::channel();
        self.send(command(reply));
        async move { done.await.unwrap_or_else(|_| Err(closed())) }
    }

    pub(super) async fn call(&self, command: impl FnOnce(Reply) -> Command) -> io::Result<()> {
        self.start(command).await
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

fn closed() -> io::Error {
    io::Error::other("the metadata log is closed")
}

type Waiting = (Bytes, Offset, IOFlushed<TypeConfig>);

struct Job {
    /// Goes offline with the metadata log, whichever file failed.
    log_dir: Arc<LogDir>,
    dir: PathBuf,
    vote_file: VoteFile,
    log: Arc<Mutex<Log>>,
    state: Arc<Mutex<State>>,
    clock: Clock,
    /// Appends that wait for the next write.
    group: Vec<Waiting>,
}

impl Job {
    fn run(mut self, queue: &Receiver<Command>) {
        while let Ok(first) = queue.recv() {
            let mut command = Some(first);
            let mut bytes = 0;
            while let Some(next) = command.take() {
                if let Command::Append { batches, .. } = &next {
                    bytes += batches.len();
                }
                if let Command::Close { reply } = next {
                    self.commit();
                    let closed = self.attempt(|job| {
                        lock(&job.log).flush().map_err(io::Error::other)?;
                        job.vote_file.write_quorum_state()
                    });
                    let _ = reply.send(closed);
                    return;
                }
                self.take(next);
                if self.group.len() < GROUP_COMMANDS_MAX && bytes < GROUP_BYTES_MAX {
                    command = queue.try_recv().ok();
                }
            }
            self.commit();
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Append {
                batches,
                next_offset,
                sidecar,
                flushed,
            } => {
                if let Some(sidecar) = sidecar
                    && let Err(error) = self.attempt(|job| sidecar.write(&job.dir))
                {
                    flushed.io_completed(Err(error));
                    return;
                }
                self.group.push((batches, next_offset, flushed));
            }
            Command::Vote { vote, sync, reply } => {
                self.commit();
                let saved = self.attempt(|job| job.vote_file.save(vote, sync));
                let ok = saved.is_ok();
                let _ = reply.send(saved);
                if ok && let Err(error) = self.vote_file.write_quorum_state() {
                    warn!(%error, "quorum-state could not be rewritten");
                }
            }
            Command::Truncate { offset, reply } => {
                self.commit();
                let done = self
                    .attempt(|job| lock(&job.log).truncate_to(offset).map_err(io::Error::other));
                let _ = reply.send(done);
            }
            Command::Purge {
                offset,
                restart,
                sidecar,
                reply,
            } => {
                self.commit();
                let _ = reply.send(self.attempt(|job| job.purge(offset, restart, &sidecar)));
            }
            Command::Sidecar { sidecar, reply } => {
                self.commit();
                let _ = reply.send(self.attempt(|job| sidecar.write(&job.dir)));
            }
            Command::Barrier { reply } => {
                self.commit();
                let _ = reply.send(self.attempt(|_| Ok(())));
            }
            Command::Close { reply } => drop(reply),
        }
    }

    /// Writes and syncs the group, then tells everybody in it.
    fn commit(&mut self) {
        if self.group.is_empty() {
            return;
        }
        let group = std::mem::take(&mut self.group);
        let written = self.attempt(|job| job.write(&group));
        for (_, _, flushed) in group {
            flushed.io_completed(written.as_ref().copied().map_err(copy_of));
        }
    }

    fn write(&mut self, group: &[Waiting]) -> io::Result<()> {
        let batches = if let [(batches, ..)] = group {
            batches.clone()
        } else {
            let mut all = BytesMut::new();
            for (batches, ..) in group {
                all.extend_from_slice(batches);
            }
            all.freeze()
        };
        let now_ms = self.clock.wall_ms();
        let job = {
            let mut log = lock(&self.log);
            log.append_as_follower(batches, now_ms)
                .map_err(io::Error::other)?;
            log.begin_flush()
        };
        if let Some(job) = job {
            job.run().map_err(io::Error::other)?;
            lock(&self.log).finish_flush(&job);
        }
        if let Some((_, next_offset, _)) = group.last() {
            let mut state = lock(&self.state);
            state.flushed_offset = (*next_offset).min(state.end_offset());
        }
        Ok(())
    }

    fn purge(&mut self, offset: Offset, restart: bool, sidecar: &Sidecar) -> io::Result<()> {
        sidecar.write(&self.dir)?;
        let mut log = lock(&self.log);
        if restart {
            log.truncate_fully_and_start_at(offset)
        } else {
            log.increment_log_start_offset(offset, StartOffsetReason::SnapshotGenerated)
                .and_then(|()| log.delete_segments_below_start())
        }
        .map_err(io::Error::other)?;
        for path in log.take_deleted_files() {
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// Does something unless an earlier attempt failed, and latches failure.
    fn attempt(&mut self, action: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        lock(&self.state).check()?;
        action(self).inspect_err(|cause| {
            error!(dir = %self.dir.display(), error = %cause, "the metadata log failed");
            lock(&self.state).failed = Some(cause.to_string().into());
            let copy = copy_of(cause);
            self.log_dir
                .fail(StorageError::io("write metadata log in", &self.dir, copy));
        })
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
