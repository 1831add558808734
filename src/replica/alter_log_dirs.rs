//! Replicas that move from one log directory of this broker into another (AlterReplicaLogDirs, KIP-113, KIP-858).
//!
//! ```text
//! copying --(caught up)--> telling --(the metadata names the new directory)--> told --(caught up)--> replaced
//!    any --(cancelled, topic deleted)--> deleted          any --(directory failed)--> left as it is
//! ```
//!
//! While a replica is copied, producers and consumers use the old log. The controller is told of the new directory before it
//! is taken into use, so that a failure in between never leaves a replica in a directory that nobody knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tracing::{error, info, warn};

use super::ReplicaManager;
use super::log_dirs::is_cordoned;
use crate::config::Value;
use crate::log::{AppendError, CopyStep, Log, LogDir, StorageError};
use crate::metadata::{MetadataDelta, MetadataImage};
use crate::partition::{Partition, Replaced};
use crate::protocol::{Error, ErrorCode};
use crate::types::{Offset, TimestampMs, TopicPartition, Uuid};

/// Bytes that are copied at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Directories remembered for partitions that are not here yet; more are not.
const PREFERRED_MAX: usize = 100_000;
const RATE_KEY: &str = "replica.alter.log.dirs.io.max.bytes.per.second";
const THREADS_KEY: &str = "num.replica.alter.log.dirs.threads";

const COPYING: u8 = 0;
const TELLING: u8 = 1;
const TOLD: u8 = 2;

/// One replica on its way.
struct Move {
    partition: Arc<Partition>,
    target: Arc<LogDir>,
    phase: AtomicU8,
    started: AtomicBool,
    /// Something changed that the copier may wait for.
    changed: Notify,
    /// `None` once it has replaced the old log, or was given up.
    future: Mutex<Option<Log>>,
}

/// The moves under way, by partition. Bounded by the partitions here.
#[derive(Default)]
pub(super) struct Moves {
    moving: Mutex<BTreeMap<TopicPartition, Arc<Move>>>,
    added: Notify,
    /// Moves begin and are cancelled one at a time: nobody opens a future log twice.
    altering: Mutex<()>,
    /// Monotonic time from which on the next chunk keeps the rate.
    free_at_ms: Mutex<i64>,
    /// Where partitions shall go that are not here yet.
    preferred: Mutex<BTreeMap<TopicPartition, Arc<LogDir>>>,
}

/// A future log as DescribeLogDirs shows it.
pub struct FutureReplica {
    pub topic_partition: TopicPartition,
    /// The directory that it is in.
    pub log_dir: PathBuf,
    pub size_bytes: u64,
    /// Records that it lacks.
    pub offset_lag: Offset,
}

/// What one step of a copier came to.
enum Step {
    Copied(usize),
    CaughtUp,
    Replaced(PathBuf),
    Over,
}

impl Move {
    fn future(&self) -> MutexGuard<'_, Option<Log>> {
        self.future.lock().expect("a panic while copying is a bug")
    }

    /// Copies one chunk, or replaces the old log where that may be done. Blocking.
    fn step(&self, now_ms: TimestampMs) -> Result<Step, AppendError> {
        let mut slot = self.future();
        let Some(future) = slot.as_mut() else {
            return Ok(Step::Over);
        };
        let Ok(step) = self
            .partition
            .with_log(|log| log.copy_step(future, CHUNK_BYTES))
        else {
            // The partition is offline or gone.
            return Ok(Step::Over);
        };
        match step? {
            CopyStep::Truncate(offset) => future.truncate_to(offset)?,
            CopyStep::Restart(offset) => future.truncate_fully_and_start_at(offset)?,
            CopyStep::Skip(offset) => future.skip_to(offset)?,
            CopyStep::Append(slice, log_start_offset) => {
                let records = slice.read_bytes();
                let records =
                    records.map_err(|e| StorageError::io("read", self.target.path(), e))?;
                let size_bytes = records.len();
                future.append_copied(records, log_start_offset, now_ms)?;
                return Ok(Step::Copied(size_bytes));
            }
            CopyStep::CaughtUp if self.phase.load(Ordering::Acquire) == TOLD => {
                // Most of it without the partition's lock.
                future.flush()?;
                let future = slot.take().expect("it was there");
                return Ok(match self.partition.replace_log(future) {
                    Replaced::Old(old) => Step::Replaced(old),
                    Replaced::NotYet(future) => {
                        *slot = Some(*future);
                        Step::Copied(0)
                    }
                    Replaced::Failed(error) => return Err(error.into()),
                });
            }
            CopyStep::CaughtUp => return Ok(Step::CaughtUp),
        }
        Ok(Step::Copied(0))
    }
}

impl ReplicaManager {
    fn moving(&self) -> MutexGuard<'_, BTreeMap<TopicPartition, Arc<Move>>> {
        self.moves
            .moving
            .lock()
            .expect("the map is changed without panics")
    }

    /// AlterReplicaLogDirs for one partition: `name` is the absolute path of one of `log.dirs`, `registered` the directory
    /// that the metadata has for the replica. Blocking.
    pub fn alter_log_dir(
        &self,
        tp: &TopicPartition,
        name: &Path,
        registered: Uuid,
    ) -> Result<(), Error> {
        let _altering = self.moves.altering.lock().expect("no panic inside");
        let config = self.config.load();
        if !Log::has_future_name(tp) {
            return Err(Error::new(
                ErrorCode::InvalidTopicException,
                "the topic name is too long",
            ));
        }
        let is_configured = |path: &PathBuf| std::path::absolute(path).is_ok_and(|p| p == name);
        if !config.log_dirs.iter().any(is_configured) {
            return Err(ErrorCode::LogDirNotFound.into());
        }
        let target = self.log_dirs().named(name).filter(|dir| !dir.is_offline());
        let target = Arc::clone(target.ok_or(ErrorCode::KafkaStorageError)?);
        if is_cordoned(&config, name) {
            let message = format!("log directory {} is cordoned", name.display());
            return Err(Error::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        let partition = match self.find(&tp.topic, tp.partition) {
            Ok(partition) => partition,
            Err(error) if error.code == ErrorCode::KafkaStorageError => return Err(error),
            Err(error) => {
                let mut preferred = self.moves.preferred.lock().expect("no panic inside");
                if preferred.len() < PREFERRED_MAX {
                    preferred.insert(tp.clone(), target);
                }
                // Another broker's, or nobody's.
                return Err(match error.code {
                    ErrorCode::NotLeaderOrFollower => ErrorCode::ReplicaNotAvailable.into(),
                    _ => error,
                });
            }
        };
        let elsewhere = |under_way: &Arc<Move>| !Arc::ptr_eq(&under_way.target, &target);
        let other = self.moving().get(tp).is_some_and(elsewhere);
        if other {
            self.cancel_move(tp);
        }
        let current = partition.look_at_log(|log| Arc::clone(log.log_dir()))?;
        if Arc::ptr_eq(&current, &target) || self.moving().contains_key(tp) {
            return Ok(());
        }
        if !self.log_dirs().offline().is_empty() {
            // A future log of this partition may be in a directory that is offline: two would be one too many.
            let message = "a replica cannot be moved while a log directory is offline";
            return Err(Error::new(ErrorCode::KafkaStorageError, message));
        }
        self.begin_move(&partition, &target, registered)?;
        Ok(())
    }

    fn begin_move(
        &self,
        partition: &Arc<Partition>,
        target: &Arc<LogDir>,
        registered: Uuid,
    ) -> Result<(), StorageError> {
        let tp = &partition.topic_partition;
        let config = partition.config();
        let params = self.params(target, tp.clone(), partition.topic_id, config);
        let future = Log::open_future(params)?;
        info!(topic_partition = %tp, to = %target.name().display(), offset = future.next_offset(), "moving replica to another log directory");
        let is_told = target.directory_id() == Some(registered);
        let new = Arc::new(Move {
            partition: Arc::clone(partition),
            target: Arc::clone(target),
            phase: AtomicU8::new(if is_told { TOLD } else { COPYING }),
            started: AtomicBool::new(false),
            changed: Notify::new(),
            future: Mutex::new(Some(future)),
        });
        self.moving().insert(tp.clone(), new);
        self.moves.added.notify_one();
        Ok(())
    }

    /// Runs the copiers; ends never. One for each directory at the same time, or `num.replica.alter.log.dirs.threads`.
    pub async fn move_replicas(self: Arc<Self>) {
        let threads = match self.config.load().value(THREADS_KEY) {
            Some(Value::Number(threads)) => threads.max(1) as usize,
            _ => self.log_dirs().dirs().len(),
        };
        let permits = Arc::new(Semaphore::new(threads));
        loop {
            self.moves.added.notified().await;
            let new: Vec<_> = self.moving().values().cloned().collect();
            for new in new {
                if !new.started.swap(true, Ordering::Relaxed) {
                    tokio::spawn(Arc::clone(&self).copy(new, Arc::clone(&permits)));
                }
            }
        }
    }

    async fn copy(self: Arc<Self>, moving: Arc<Move>, permits: Arc<Semaphore>) {
        let tp = moving.partition.topic_partition.clone();
        loop {
            let permit = permits.acquire().await;
            let (step, now_ms) = (Arc::clone(&moving), self.clock.wall_ms());
            let step = tokio::task::spawn_blocking(move || step.step(now_ms)).await;
            drop(permit);
            match step {
                Ok(Ok(Step::Copied(size_bytes))) => self.throttle_moves(size_bytes as u64).await,
                Ok(Ok(Step::CaughtUp)) => {
                    self.tell(&moving);
                    moving.changed.notified().await;
                }
                Ok(Ok(Step::Replaced(old))) => {
                    let replicas = Arc::clone(&self);
                    let finish = move || replicas.finish_move(&moving, old);
                    if tokio::task::spawn_blocking(finish).await.is_err() {
                        error!(topic_partition = %tp, "the log left behind was not deleted");
                    }
                    return;
                }
                Ok(Ok(Step::Over)) => return,
                Ok(Err(error)) => {
                    error!(topic_partition = %tp, %error, "replica cannot be moved, it stays where it is");
                    self.give_up(&moving);
                    return;
                }
                Err(_) => {
                    self.give_up(&moving);
                    return;
                }
            }
        }
    }

    async fn throttle_moves(&self, size_bytes: u64) {
        let rate = match self.config.load().value(RATE_KEY) {
            Some(Value::Number(rate)) => rate as f64,
            _ => f64::MAX,
        };
        let now_ms = self.clock.monotonic_ms();
        let sleep_ms = {
            let mut free_at_ms = self.moves.free_at_ms.lock().expect("no panic inside");
            let pause_ms = size_bytes as f64 * 1000.0 / rate.max(1.0);
            *free_at_ms = (*free_at_ms).max(now_ms) + pause_ms as i64;
            *free_at_ms - now_ms
        };
        if sleep_ms > 0 {
            tokio::time::sleep(Duration::from_millis(sleep_ms as u64)).await;
        }
    }

    /// Has the controller told of the new directory, once.
    fn tell(&self, moving: &Move) {
        let first =
            moving
                .phase
                .compare_exchange(COPYING, TELLING, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok()
            && let Some(directory) = moving.target.directory_id()
        {
            let partition = &moving.partition;
            let index = partition.topic_partition.partition;
            self.assignments.add(partition.topic_id, index, directory);
        }
    }

    fn finish_move(&self, moving: &Arc<Move>, old: PathBuf) {
        let tp = &moving.partition.topic_partition;
        self.forget(moving);
        self.trash.add(self.dir_delete_due_ms(), [old]);
        // What is known of the log is to be found in its new directory.
        self.write_log_offsets();
        self.write_high_watermarks();
        info!(topic_partition = %tp, "replica moved to another log directory");
    }

    fn forget(&self, moving: &Arc<Move>) {
        let mut all = self.moving();
        let tp = &moving.partition.topic_partition;
        if all.get(tp).is_some_and(|known| Arc::ptr_eq(known, moving)) {
            all.remove(tp);
        }
    }

    /// Ends a move that failed; the future log stays on disk. Metadata that was changed already is set right again.
    fn give_up(&self, moving: &Arc<Move>) {
        self.forget(moving);
        moving.future().take();
        if moving.phase.load(Ordering::Acquire) != COPYING {
            self.assign_current(&moving.partition);
        }
    }

    fn assign_current(&self, partition: &Partition) {
        let current = partition.look_at_log(|log| log.log_dir().directory_id());
        if let Ok(Some(directory)) = current {
            let index = partition.topic_partition.partition;
            self.assignments.add(partition.topic_id, index, directory);
        }
    }

    /// Ends a move and deletes the future log: another directory was asked for, or the topic deleted. Blocking.
    pub(super) fn cancel_move(&self, tp: &TopicPartition) {
        let Some(cancelled) = self.moving().remove(tp) else {
            return;
        };
        let future = cancelled.future().take();
        cancelled.changed.notify_one();
        let Some(future) = future else {
            return;
        };
        info!(topic_partition = %tp, to = %cancelled.target.name().display(), "replica stays in its log directory");
        self.delete_log(tp, future);
        if cancelled.phase.load(Ordering::Acquire) != COPYING {
            self.assign_current(&cancelled.partition);
        }
    }

    /// The directory that was asked for before the partition came here.
    pub(super) fn take_preferred(&self, tp: &TopicPartition) -> Option<Arc<LogDir>> {
        let mut preferred = self.moves.preferred.lock().expect("no panic inside");
        preferred.remove(tp).filter(|dir| !dir.is_offline())
    }

    /// Whether the replica's directory in the metadata is that of a move, and not to be corrected.
    pub(super) fn note_registered(&self, tp: &TopicPartition, registered: Uuid) -> bool {
        let all = self.moving();
        let Some(moving) = all.get(tp) else {
            return false;
        };
        if moving.target.directory_id() == Some(registered) {
            moving.phase.store(TOLD, Ordering::Release);
            moving.changed.notify_one();
        }
        moving.phase.load(Ordering::Acquire) != COPYING
    }

    /// Future logs as they stand.
    pub fn future_replicas(&self) -> Vec<FutureReplica> {
        let all: Vec<_> = self.moving().values().cloned().collect();
        let described = all.iter().filter_map(|moving| {
            let future = moving.future();
            let future = future.as_ref()?;
            let end = moving.partition.look_at_log(Log::next_offset);
            Some(FutureReplica {
                topic_partition: moving.partition.topic_partition.clone(),
                log_dir: moving.target.path().to_owned(),
                size_bytes: future.size_bytes(),
                offset_lag: end.map_or(-1, |end| end - future.next_offset()),
            })
        });
        described.collect()
    }

    /// Takes up what an earlier process was moving: future logs on disk. Those of no partition here are deleted.
    pub(super) fn resume_moves(&self, delta: &MetadataDelta, image: &MetadataImage) {
        if !delta.initial {
            return;
        }
        let _altering = self.moves.altering.lock().expect("no panic inside");
        for dir in self.log_dirs().online() {
            for (tp, path) in dir.future_dirs().unwrap_or_default() {
                let registered = image.topics.partition(&tp);
                let registered = registered.map_or(Uuid::nil(), |p| p.directory(self.broker_id));
                let resumed = match self.find(&tp.topic, tp.partition) {
                    Ok(partition) => {
                        let here = partition.look_at_log(|log| Arc::ptr_eq(log.log_dir(), dir));
                        if here == Ok(false) {
                            let begun = self.begin_move(&partition, dir, registered);
                            begun
                                .inspect_err(
                                    |error| warn!(%tp, %error, "future log cannot be opened"),
                                )
                                .is_ok()
                        } else {
                            false
                        }
                    }
                    // Its current log may come back.
                    Err(error) => error.code == ErrorCode::KafkaStorageError,
                };
                if !resumed {
                    info!(path = %path.display(), "deleting a future log that belongs to no replica");
                    if let Err(error) = crate::log::delete(&path) {
                        warn!(%error, "future log cannot be deleted");
                    }
                }
            }
        }
    }

    /// Ends all moves for a stop: the next process goes on with them.
    pub(super) fn close_moves(&self) {
        let all = std::mem::take(&mut *self.moving());
        for (tp, moving) in all {
            if let Some(mut future) = moving.future().take()
                && let Err(error) = future.close(false)
            {
                warn!(topic_partition = %tp, %error, "future log not closed cleanly");
            }
        }
    }
}
