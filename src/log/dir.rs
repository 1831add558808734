//! Log directories: the lock, who they belong to, what they hold, checkpoints, and the latch that takes one offline for good
//! after a failed write or sync.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::FlockOperation;
use tracing::{error, warn};

use super::checkpoint::{
    CLEAN_SHUTDOWN, Checkpoint, META_PROPERTIES, MetaProperties, format_clean_shutdown,
    format_offsets, parse_clean_shutdown, parse_offsets, read_file, replace_file, sync_dir,
};
use super::disk;
use super::error::StorageError;
use super::paths::{parse_future_dir, parse_partition_dir};
use super::recovery::RecoveryState;
use crate::types::{Offset, TopicPartition, Uuid};

/// Directories that Kafka deletes in the background end in this.
pub const DELETE_DIR_SUFFIX: &str = "-delete";
/// Directories of logs whose topic is gone, put aside and kept.
pub const STRAY_DIR_SUFFIX: &str = "-stray";
const LOCK: &str = ".lock";
/// The first records of a cluster, as `storage format` leaves them (`quorum`).
const BOOTSTRAP_CHECKPOINT: &str = "bootstrap.checkpoint";

/// Names that mean nothing are told one by one up to here.
const UNKNOWN_MAX: usize = 10;

type OfflineHook = Box<dyn Fn(&LogDir) + Send + Sync>;

/// One directory of `log.dirs`, locked by this process.
pub struct LogDir {
    path: PathBuf,
    /// The path as the settings have it, made absolute: what tools are shown and ask for.
    name: PathBuf,
    _lock: File,
    meta: OnceLock<MetaProperties>,
    /// The broker epoch of the last stop, where that was clean.
    clean_shutdown: Option<i64>,
    recovery_points: BTreeMap<TopicPartition, Offset>,
    log_start_offsets: BTreeMap<TopicPartition, Offset>,
    high_watermarks: BTreeMap<TopicPartition, Offset>,
    cleaner_checkpoints: BTreeMap<TopicPartition, Offset>,
    offline: AtomicBool,
    on_offline: OnceLock<OfflineHook>,
    /// Checkpoint files are replaced one writer at a time. Holds the offsets that truncations lowered since the last whole
    /// write: whoever is collecting them for the next one may have seen the old ones.
    writing: Mutex<BTreeMap<Checkpoint, BTreeMap<TopicPartition, Offset>>>,
    /// Recovery points that flushes moved and that no checkpoint has yet.
    raised: Mutex<BTreeMap<TopicPartition, Offset>>,
    /// Logs that were deleted and of which checkpoint files may still tell: not those that are named here.
    forgotten: Mutex<BTreeMap<TopicPartition, BTreeSet<Checkpoint>>>,
    recovery: RecoveryState,
    /// Names that mean nothing, so far.
    unknown: AtomicUsize,
}

impl std::fmt::Debug for LogDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogDir")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl LogDir {
    /// Creates the directory where needed, locks it, reads its checkpoints and takes note of (and removes) the clean
    /// shutdown file.
    pub fn open(path: &Path) -> Result<Arc<Self>, StorageError> {
        fs::create_dir_all(path).map_err(|e| StorageError::io("create", path, e))?;
        let name = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let path = path
            .canonicalize()
            .map_err(|e| StorageError::io("resolve", path, e))?;
        let lock = lock(&path)?;
        let checkpoint = |kind| read_checkpoint(&path, kind);
        let clean_path = path.join(CLEAN_SHUTDOWN);
        let clean_shutdown = read_file(&clean_path)?.map(|text| parse_clean_shutdown(&text));
        let meta = OnceLock::new();
        if let Some(found) = MetaProperties::read(&path)? {
            let _ = meta.set(found);
        }
        let dir = Self {
            recovery_points: checkpoint(Checkpoint::RecoveryPoint)?,
            log_start_offsets: checkpoint(Checkpoint::LogStartOffset)?,
            high_watermarks: checkpoint(Checkpoint::HighWatermark)?,
            cleaner_checkpoints: checkpoint(Checkpoint::Cleaner)?,
            _lock: lock,
            meta,
            clean_shutdown,
            offline: AtomicBool::new(false),
            on_offline: OnceLock::new(),
            writing: Mutex::default(),
            raised: Mutex::default(),
            forgotten: Mutex::default(),
            recovery: RecoveryState::default(),
            unknown: AtomicUsize::new(0),
            path,
            name,
        };
        if clean_shutdown.is_some() {
            disk::remove_file(&clean_path)
                .map_err(|e| StorageError::io("remove", &clean_path, e))?;
            sync_dir(&dir.path)?;
        }
        dir.look_for_unknown()?;
        Ok(Arc::new(dir))
    }

    fn look_for_unknown(&self) -> Result<(), StorageError> {
        let failed = |e| StorageError::io("list", &self.path, e);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_dir = entry.file_type().map_err(failed)?.is_dir();
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let is_known = if is_dir {
                is_known_dir(name)
            } else {
                is_known_file(name)
            };
            if !is_known {
                self.warn_of_unknown(&entry.path());
            }
        }
        Ok(())
    }

    /// Says that a file or directory is none of a log's, the first few times.
    pub(super) fn warn_of_unknown(&self, path: &Path) {
        match self.unknown.fetch_add(1, Ordering::Relaxed) {
            ..UNKNOWN_MAX => {
                warn!(path = %path.display(), "no file or directory of a log, ignoring it");
            }
            UNKNOWN_MAX => {
                warn!(dir = %self.path.display(), "ignoring more names that are no log's, not told one by one");
            }
            _ => {}
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configured path, absolute.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// `None` before [`LogDir::format`].
    pub fn meta_properties(&self) -> Option<&MetaProperties> {
        self.meta.get()
    }

    pub fn directory_id(&self) -> Option<Uuid> {
        self.meta.get()?.directory_id
    }

    /// Writes `meta.properties` of a directory that has none.
    pub fn format(&self, meta: MetaProperties, date: &str) -> Result<(), StorageError> {
        meta.write(&self.path, date)?;
        let _ = self.meta.set(meta);
        Ok(())
    }

    pub fn had_clean_shutdown(&self) -> bool {
        self.clean_shutdown.is_some()
    }

    /// The broker epoch before the last clean stop; -1 after any other (KIP-966).
    pub fn previous_broker_epoch(&self) -> i64 {
        self.clean_shutdown.unwrap_or(-1)
    }

    /// As checkpointed before this process started.
    pub fn recovery_point(&self, tp: &TopicPartition) -> Offset {
        self.recovery_points.get(tp).copied().unwrap_or(0)
    }

    /// As checkpointed before this process started.
    pub fn log_start_offset(&self, tp: &TopicPartition) -> Offset {
        self.log_start_offsets.get(tp).copied().unwrap_or(0)
    }

    /// As checkpointed before this process started.
    pub fn high_watermark(&self, tp: &TopicPartition) -> Option<Offset> {
        self.high_watermarks.get(tp).copied()
    }

    /// As checkpointed before this process started.
    pub fn cleaner_checkpoint(&self, tp: &TopicPartition) -> Option<Offset> {
        self.cleaner_checkpoints.get(tp).copied()
    }

    pub fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    /// Called once, by whoever sees the failure, from any thread.
    pub fn on_offline(&self, hook: impl Fn(&LogDir) + Send + Sync + 'static) {
        let _ = self.on_offline.set(Box::new(hook));
    }

    /// Latches the directory offline because of `cause`, and passes the error on.
    pub fn fail(&self, cause: StorageError) -> StorageError {
        if !self.offline.swap(true, Ordering::Relaxed) {
            error!(dir = %self.path.display(), error = %cause, "stopping serving logs in log directory");
            if let Some(hook) = self.on_offline.get() {
                hook(self);
            }
        }
        cause
    }

    pub(super) fn check_online(&self) -> Result<(), StorageError> {
        if self.is_offline() {
            return Err(StorageError::Offline {
                dir: self.path.clone(),
            });
        }
        Ok(())
    }

    /// Free and total bytes of the file system (DescribeLogDirs).
    pub fn space_bytes(&self) -> Result<(u64, u64), StorageError> {
        let stat = rustix::fs::statvfs(&self.path)
            .map_err(|e| StorageError::io("stat", &self.path, e.into()))?;
        Ok((
            stat.f_bavail.saturating_mul(stat.f_frsize),
            stat.f_blocks.saturating_mul(stat.f_frsize),
        ))
    }

    /// Replaces one checkpoint file.
    pub fn write_checkpoint(
        &self,
        kind: Checkpoint,
        offsets: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), StorageError> {
        self.check_online()?;
        let mut writing = lock_map(&self.writing);
        let lowered = writing.remove(&kind).unwrap_or_default();
        let text = format_offsets(offsets.iter().map(|(tp, offset)| {
            let lowered = lowered.get(tp).copied().unwrap_or(Offset::MAX);
            (tp, lowered.min(*offset))
        }));
        replace_file(&self.path, kind.file_name(), text.as_bytes(), true)
            .map_err(|e| self.fail(e))?;
        lock_map(&self.forgotten).retain(|tp, clean| {
            if !offsets.contains_key(tp) {
                clean.insert(kind);
            }
            clean.len() < Checkpoint::ALL.len()
        });
        Ok(())
    }

    /// Makes the checkpointed offset of `tp` durable at `offset` where it is higher. A truncation calls it before it takes
    /// bytes away: behind a power cut the checkpoint must not vouch for what is gone.
    pub(super) fn lower_checkpoint(
        &self,
        kind: Checkpoint,
        tp: &TopicPartition,
        offset: Offset,
    ) -> Result<(), StorageError> {
        let mut writing = lock_map(&self.writing);
        if kind == Checkpoint::RecoveryPoint {
            lock_map(&self.raised).remove(tp);
        }
        writing.entry(kind).or_default().insert(tp.clone(), offset);
        let mut offsets = self.written(kind)?;
        match offsets.get_mut(tp) {
            Some(written) if *written > offset => *written = offset,
            _ => return Ok(()),
        }
        self.replace(kind, &offsets)
    }

    /// A flush moved the recovery point of `tp`. Called under the log's lock; [`LogDir::write_recovery_points`] does the rest.
    pub(super) fn raise_recovery_point(&self, tp: &TopicPartition, offset: Offset) {
        lock_map(&self.raised).insert(tp.clone(), offset);
    }

    /// Writes recovery points that flushes moved, ahead of the timer: rolled segments need not be read at the next start. One
    /// write serves everybody who came before it.
    pub fn write_recovery_points(&self) -> Result<(), StorageError> {
        let _writing = lock_map(&self.writing);
        let raised = std::mem::take(&mut *lock_map(&self.raised));
        if raised.is_empty() || self.is_offline() {
            return Ok(());
        }
        let mut offsets = self.written(Checkpoint::RecoveryPoint)?;
        offsets.extend(raised);
        self.replace(Checkpoint::RecoveryPoint, &offsets)
    }

    /// The log of `tp` was deleted.
    pub(super) fn forget(&self, tp: &TopicPartition) {
        lock_map(&self.raised).remove(tp);
        lock_map(&self.forgotten).insert(tp.clone(), BTreeSet::new());
    }

    /// A log is about to be created: takes what the checkpoint files say of an older one of that name out of them, or
    /// a crash would bring the old one's start and recovery point upon the new one.
    pub(super) fn before_create(&self, tp: &TopicPartition) -> Result<(), StorageError> {
        let known =
            self.recovery_points.contains_key(tp) || self.log_start_offsets.contains_key(tp);
        if !known && !lock_map(&self.forgotten).contains_key(tp) {
            return Ok(());
        }
        let _writing = lock_map(&self.writing);
        let mut gone = std::mem::take(&mut *lock_map(&self.forgotten));
        gone.insert(tp.clone(), BTreeSet::new());
        for kind in Checkpoint::ALL {
            let mut offsets = self.written(kind)?;
            let count = offsets.len();
            offsets.retain(|tp, _| !gone.contains_key(tp));
            if offsets.len() < count {
                self.replace(kind, &offsets)?;
            }
        }
        Ok(())
    }

    fn written(&self, kind: Checkpoint) -> Result<BTreeMap<TopicPartition, Offset>, StorageError> {
        read_checkpoint(&self.path, kind).map_err(|e| self.fail(e))
    }

    fn replace(
        &self,
        kind: Checkpoint,
        offsets: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), StorageError> {
        let text = format_offsets(offsets.iter().map(|(tp, offset)| (tp, *offset)));
        replace_file(&self.path, kind.file_name(), text.as_bytes(), true).map_err(|e| self.fail(e))
    }

    /// The last thing a clean stop writes.
    pub fn write_clean_shutdown(&self, broker_epoch: i64) -> Result<(), StorageError> {
        self.check_online()?;
        let text = format_clean_shutdown(broker_epoch);
        replace_file(&self.path, CLEAN_SHUTDOWN, text.as_bytes(), true).map_err(|e| self.fail(e))
    }

    /// One `syncfs` instead of a sync a file: how a stop with thousands of logs stays short.
    pub fn sync_file_system(&self) -> Result<(), StorageError> {
        self.check_online()?;
        disk::sync_file_system(&self.path)
            .map_err(|e| self.fail(StorageError::io("sync file system of", &self.path, e)))
    }

    fn entries(&self) -> Result<Vec<(String, PathBuf)>, StorageError> {
        let failed = |e| StorageError::io("list", &self.path, e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
            {
                found.push((name, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The partitions that have a directory here, `__cluster_metadata` included.
    pub fn partition_dirs(&self) -> Result<Vec<TopicPartition>, StorageError> {
        Ok(self
            .entries()?
            .iter()
            .filter_map(|(name, _)| parse_partition_dir(name))
            .collect())
    }

    /// Directories of replicas on their way into this one: partition and path.
    pub fn future_dirs(&self) -> Result<Vec<(TopicPartition, PathBuf)>, StorageError> {
        let found = self.entries()?.into_iter();
        Ok(found
            .filter_map(|(name, path)| Some((parse_future_dir(&name)?, path)))
            .collect())
    }

    /// Directories of topics that were deleted before the process ended.
    pub fn deleted_dirs(&self) -> Result<Vec<PathBuf>, StorageError> {
        let mut found = self.entries()?;
        found.retain(|(name, _)| name.ends_with(DELETE_DIR_SUFFIX));
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    /// What the start still has to do here.
    pub fn recovery(&self) -> &RecoveryState {
        &self.recovery
    }

    /// Opens logs with `open`, one for each of `items`, on `threads` threads, which also help each other with large ones.
    /// What becomes of each log is made there and then: ten thousand logs in a list beside it would be megabytes.
    pub fn open_logs<A: Sync, T: Send>(
        &self,
        items: &[A],
        threads: usize,
        open: &(dyn Fn(&A) -> T + Sync),
    ) -> Vec<T> {
        let idle = &self.recovery.idle_threads;
        let remaining = &self.recovery.remaining_logs;
        remaining.fetch_add(items.len(), Ordering::Relaxed);
        idle.store(
            threads.saturating_sub(items.len().max(1)),
            Ordering::Relaxed,
        );
        let open_one = |item: &A| {
            let made = open(item);
            remaining.fetch_sub(1, Ordering::Relaxed);
            made
        };
        let opened = on_threads(items, threads, &open_one, &|| {
            idle.fetch_add(1, Ordering::Relaxed);
        });
        idle.store(0, Ordering::Relaxed);
        opened
    }

    /// Closes logs with `close`, one for each of `items`, on `threads` threads: each makes a few files, and waits for the
    /// disk to find places for them.
    pub fn close_logs<A: Sync, T: Send>(
        &self,
        items: &[A],
        threads: usize,
        close: &(dyn Fn(&A) -> T + Sync),
    ) -> Vec<T> {
        on_threads(items, threads, close, &|| ())
    }
}

/// What `f` makes of each of `items`, in no order, on up to `threads` threads. Each calls `ended` when nothing is left to do.
fn on_threads<A: Sync, T: Send>(
    items: &[A],
    threads: usize,
    f: &(dyn Fn(&A) -> T + Sync),
    ended: &(dyn Fn() + Sync),
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let workers = threads.min(items.len()).max(1);
    let all = Mutex::new(Vec::with_capacity(items.len()));
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let made = f(item);
            all.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(made);
        }
        ended();
    };
    if workers == 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
    }
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn is_known_dir(name: &str) -> bool {
    // Of a file system, and of Kafka's tiered storage.
    let foreign = ["lost+found", "remote-log-index-cache"];
    parse_partition_dir(name).is_some()
        || parse_future_dir(name).is_some()
        || name.ends_with(DELETE_DIR_SUFFIX)
        || name.ends_with(STRAY_DIR_SUFFIX)
        || foreign.contains(&name)
}

fn is_known_file(name: &str) -> bool {
    // What a write that was cut short leaves.
    let whole = name.strip_suffix(".tmp").or(name.strip_suffix(".part"));
    let name = whole.unwrap_or(name);
    let others = [LOCK, META_PROPERTIES, CLEAN_SHUTDOWN, BOOTSTRAP_CHECKPOINT];
    others.contains(&name) || Checkpoint::ALL.iter().any(|kind| kind.file_name() == name)
}

/// A missing or damaged file counts as empty.
fn read_checkpoint(
    dir: &Path,
    kind: Checkpoint,
) -> Result<BTreeMap<TopicPartition, Offset>, StorageError> {
    let path = dir.join(kind.file_name());
    let text = read_file(&path)?;
    let offsets = text.as_deref().and_then(parse_offsets);
    if text.is_some() && offsets.is_none() {
        warn!(path = %path.display(), "damaged checkpoint, counts as empty: {}", kind.when_lost());
    }
    Ok(offsets.unwrap_or_default())
}

/// The maps are changed by single calls that leave them whole.
fn lock_map<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes `.lock`. Kafka's lock is a POSIX record lock, which does not keep out a second broker in the same process; the
/// flock does.
fn lock(dir: &Path) -> Result<File, StorageError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|e| StorageError::io("open", &path, e))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .and_then(|()| rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive))
        .map_err(|_| StorageError::Unusable {
            path,
            reason: "another process is using this log directory".into(),
        })?;
    Ok(file)
}
