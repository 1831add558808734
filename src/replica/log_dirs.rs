//! Which log directory a partition is in: the one that holds it, the one it is registered in, the one asked for, or the one
//! with the fewest partitions; and what happens to partitions whose directory fails (KIP-112, KIP-858).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::ReplicaManager;
use crate::config::Config;
use crate::log::{Log, LogDir, LogDirs};
use crate::metadata::{MetadataDelta, MetadataImage};
use crate::partition::Partition;
use crate::protocol::ErrorCode;
use crate::types::{TopicPartition, Uuid};

/// Directory ids below this one have a meaning: not known, not chosen, lost (`DirectoryId`).
const FIRST_DIRECTORY_ID: u128 = 100;

/// Directories of replicas that the controller has not been told of, by topic and partition. Bounded by the partitions here.
#[derive(Default)]
pub(super) struct Assignments {
    waiting: Mutex<BTreeMap<(Uuid, i32), Uuid>>,
    added: Notify,
}

impl Assignments {
    pub fn add(&self, topic_id: Uuid, partition: i32, directory: Uuid) {
        let mut waiting = self.waiting.lock().expect("inserting does not panic");
        waiting.insert((topic_id, partition), directory);
        drop(waiting);
        self.added.notify_one();
    }

    async fn take(&self) -> BTreeMap<(Uuid, i32), Uuid> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock().expect("no panic inside"));
            if !taken.is_empty() {
                return taken;
            }
            self.added.notified().await;
        }
    }
}

/// Chooses directories for partitions that are opened together.
pub(super) struct Placement<'a> {
    dirs: &'a LogDirs,
    /// Online directories that take new partitions, and how many they have.
    counts: Vec<(Arc<LogDir>, usize)>,
    replicas: &'a ReplicaManager,
    /// Future logs found at the start: partition, directory and path.
    futures: Vec<(TopicPartition, Arc<LogDir>, PathBuf)>,
    /// The image that this broker started with: its partitions may be in directories that are offline.
    initial: bool,
}

impl Placement<'_> {
    /// `None` where the partition is, or may be, in a directory that is offline.
    pub fn choose(&mut self, tp: &TopicPartition, registered: Uuid) -> Option<Arc<LogDir>> {
        let existing = self.existing(tp);
        let chosen = existing
            .or_else(|| self.abandoned(tp, registered))
            .or_else(|| {
                if let Some(dir) = self.replicas.take_preferred(tp) {
                    return Some(dir);
                }
                let known = registered.as_u128() >= FIRST_DIRECTORY_ID;
                if known && let Some(dir) = self.dirs.with_id(registered) {
                    return Some(Arc::clone(dir)).filter(|dir| !dir.is_offline());
                }
                if (known || self.initial) && !self.dirs.offline().is_empty() {
                    return None;
                }
                let fewest = self.counts.iter().min_by_key(|(_, count)| *count);
                fewest.map(|(dir, _)| Arc::clone(dir))
            })?;
        let counts = self.counts.iter_mut();
        for (_, count) in counts.filter(|(dir, _)| Arc::ptr_eq(dir, &chosen)) {
            *count += 1;
        }
        Some(chosen)
    }

    /// The directory that the replica was being moved into, where the metadata knows it there and the old one has nothing: the
    /// process ended between the two renames of a move, or the old directory failed. The future log becomes the current one.
    fn abandoned(&self, tp: &TopicPartition, registered: Uuid) -> Option<Arc<LogDir>> {
        let known = |dir: &LogDir| dir.directory_id() == Some(registered);
        let mut futures = self.futures.iter();
        let (_, dir, path) = futures.find(|(found, dir, _)| found == tp && known(dir))?;
        match Log::promote_dir(path, tp) {
            Ok(()) => {
                info!(topic_partition = %tp, dir = %dir.path().display(), "recovered an abandoned future log");
                Some(Arc::clone(dir))
            }
            Err(cause) => {
                dir.fail(cause);
                None
            }
        }
    }

    fn existing(&self, tp: &TopicPartition) -> Option<Arc<LogDir>> {
        if let [only] = self.dirs.dirs()
            && self.dirs.offline().is_empty()
        {
            return Some(Arc::clone(only));
        }
        let name = tp.to_string();
        let mut online = self.dirs.online();
        online
            .find(|dir| dir.path().join(&name).is_dir())
            .map(Arc::clone)
    }
}

/// Whether `cordoned.log.dirs` names the directory of that absolute path: it gets no new partitions (KIP-1066).
pub fn is_cordoned(config: &Config, name: &Path) -> bool {
    let named = |path: &str| path == "*" || std::path::absolute(path).is_ok_and(|p| p == name);
    let mut cordoned = config.cordoned_log_dirs.iter();
    cordoned.any(|path| named(path.trim()))
}

impl ReplicaManager {
    pub(super) fn placement(&self, initial: bool) -> Placement<'_> {
        let dirs = self.log_dirs();
        let config = self.config.load();
        let mut counts: Vec<(Arc<LogDir>, usize)> = dirs
            .online()
            .filter(|dir| !is_cordoned(&config, dir.name()))
            .map(|dir| (Arc::clone(dir), 0))
            .collect();
        if counts.is_empty() {
            // All are cordoned, but the controller wants the replica here: the first takes it.
            counts.extend(dirs.online().next().map(|dir| (Arc::clone(dir), 0)));
        }
        if counts.len() > 1 {
            for partition in self.partitions() {
                // An offline partition counts nowhere.
                let _ = partition.look_at_log(|log| {
                    let here = counts
                        .iter_mut()
                        .find(|(dir, _)| Arc::ptr_eq(dir, log.log_dir()));
                    if let Some((_, count)) = here {
                        *count += 1;
                    }
                });
            }
        }
        let mut futures = Vec::new();
        for dir in dirs.online().filter(|_| initial && dirs.dirs().len() > 1) {
            let found = dir.future_dirs().unwrap_or_default().into_iter();
            futures.extend(found.map(|(tp, path)| (tp, Arc::clone(dir), path)));
        }
        Placement {
            futures,
            dirs,
            counts,
            replicas: self,
            initial,
        }
    }

    /// Partitions in directories that failed answer KAFKA_STORAGE_ERROR from now on. Blocking.
    pub fn take_failed_dirs_offline(&self) {
        let mut taken = 0;
        for partition in self.partitions() {
            let failed = partition.look_at_log(|log| log.log_dir().is_offline());
            if failed == Ok(true) {
                // Only the memory goes: a file of a failed directory is not touched again.
                drop(partition.take_log(ErrorCode::KafkaStorageError));
                taken += 1;
            }
        }
        let dirs = self.log_dirs().offline();
        warn!(
            partitions = taken,
            ?dirs,
            "stopped serving partitions in failed log directories"
        );
    }

    /// Takes note of replicas that are in another directory than the image says.
    pub(super) fn compare_directories(&self, delta: &MetadataDelta, image: &MetadataImage) {
        for (topic_id, change) in &delta.topics_changed {
            let Some(topic) = image.topics.by_id(*topic_id) else {
                continue;
            };
            let Some(hosted) = self.topic(&topic.name).filter(|t| t.id == *topic_id) else {
                continue;
            };
            for index in &change.partitions {
                let Some(registered) = topic.partitions.get(index) else {
                    continue;
                };
                let registered = registered.directory(self.broker_id);
                let tp = TopicPartition::new(Arc::clone(&topic.name), *index);
                if self.note_registered(&tp, registered) {
                    continue;
                }
                let actual = hosted.partition(*index).and_then(|p| directory_id(p));
                if let Some(actual) = actual
                    && registered != actual
                {
                    self.assignments.add(*topic_id, *index, actual);
                }
            }
        }
    }

    /// Resolves with directories of replicas that the controller is to be told of (AssignReplicasToDirs).
    pub async fn take_assignments(&self) -> BTreeMap<(Uuid, i32), Uuid> {
        self.assignments.take().await
    }

    /// Puts back what the controller could not be told, unless there is news since.
    pub fn return_assignments(&self, untold: BTreeMap<(Uuid, i32), Uuid>) {
        let mut waiting = self.assignments.waiting.lock().expect("no panic inside");
        for (key, directory) in untold {
            waiting.entry(key).or_insert(directory);
        }
    }
}

fn directory_id(partition: &Partition) -> Option<Uuid> {
    partition
        .look_at_log(|log| log.log_dir().directory_id())
        .ok()?
}
