//! The map of hosted partitions, kept in step with the metadata image.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arc_swap::ArcSwap;
use tracing::{error, info, warn};

use super::alter_log_dirs::Moves;
use super::log_dirs::Assignments;
use super::replication_quota::ReplicationQuotas;
use super::trash::Trash;
use crate::clock::Clock;
use crate::config::{Config, TopicConfig};
use crate::log::{Log, LogDir, LogDirs, OpenParams, StorageError, disk};
use crate::metadata::{
    ConfigResourceType, Images, MetadataDelta, MetadataImage, PartitionRegistration, Publisher,
    TopicImage,
};
use crate::metrics::Metrics;
use crate::partition::{
    BrokerWide, IsrProposals, Partition, PartitionState, ReplicationRules, Timer, Touched,
};
use crate::protocol::{Error, ErrorCode};
use crate::types::{BrokerId, CLUSTER_METADATA_TOPIC, Offset, TimestampMs, TopicPartition, Uuid};

/// A topic with partitions on this broker.
pub struct HostedTopic {
    pub name: Arc<str>,
    pub id: Uuid,
    /// By index; `None` where the partition is not hosted here.
    partitions: Vec<Option<Arc<Partition>>>,
}

#[derive(Default)]
struct Hosted {
    by_name: HashMap<Arc<str>, Arc<HostedTopic>>,
    by_id: HashMap<Uuid, Arc<HostedTopic>>,
}

/// Where handlers find partitions. One per broker.
pub struct ReplicaManager {
    pub(super) broker_id: BrokerId,
    pub(super) config: Arc<ArcSwap<Config>>,
    log_dirs: LogDirs,
    pub(super) clock: Clock,
    metrics: Arc<Metrics>,
    images: Images,
    /// What the partitions share.
    broker_wide: Arc<BrokerWide>,
    /// Of this incarnation's registration; -1 before it.
    broker_epoch: AtomicI64,
    hosted: RwLock<Hosted>,
    pub(super) assignments: Assignments,
    pub(super) moves: Moves,
    pub(super) trash: Trash,
    quotas: ReplicationQuotas,
    /// The fingerprint of what each checkpoint file holds; locked while one is written.
    checkpointed: Mutex<HashMap<CheckpointFile, u64>>,
}

/// A checkpoint file: its log directory and its name.
type CheckpointFile = (PathBuf, &'static str);

/// A partition to open: what the image says of it.
struct Assigned {
    topic_partition: TopicPartition,
    topic_id: Uuid,
    registration: Arc<PartitionRegistration>,
    config: Arc<TopicConfig>,
}

impl ReplicaManager {
    pub fn new(
        broker_id: BrokerId,
        config: Arc<ArcSwap<Config>>,
        log_dirs: LogDirs,
        clock: Clock,
        metrics: Arc<Metrics>,
        images: Images,
    ) -> Self {
        let quotas = ReplicationQuotas::new(&config.load());
        Self {
            broker_id,
            config,
            log_dirs,
            clock,
            metrics,
            images,
            broker_wide: Arc::default(),
            broker_epoch: AtomicI64::new(-1),
            hosted: RwLock::default(),
            assignments: Assignments::default(),
            moves: Moves::default(),
            trash: Trash::default(),
            quotas,
            checkpointed: Mutex::default(),
        }
    }

    /// How fast replicas that are throttled go out and come in.
    pub fn quotas(&self) -> &ReplicationQuotas {
        &self.quotas
    }

    pub fn log_dirs(&self) -> &LogDirs {
        &self.log_dirs
    }

    pub fn broker_id(&self) -> BrokerId {
        self.broker_id
    }

    /// Broker epoch of this incarnation; -1 before the controller gave one.
    pub fn broker_epoch(&self) -> i64 {
        self.broker_epoch.load(Ordering::Relaxed)
    }

    /// The controller registered this incarnation.
    pub fn set_broker_epoch(&self, broker_epoch: i64) {
        self.broker_epoch.store(broker_epoch, Ordering::Relaxed);
    }

    pub(super) fn checkpointed(&self) -> MutexGuard<'_, HashMap<CheckpointFile, u64>> {
        self.checkpointed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many threads open and close the logs of a directory.
    pub(super) fn threads_per_dir(&self) -> usize {
        self.config.load().num_recovery_threads_per_data_dir.max(2) as usize
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What leaders here ask the controller for.
    pub fn isr_proposals(&self) -> &IsrProposals {
        &self.broker_wide.isr_proposals
    }

    /// What timers have to look at.
    pub(super) fn touched(&self) -> &Touched {
        &self.broker_wide.touched
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Hosted> {
        self.hosted
            .read()
            .expect("the map is changed without panics")
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Hosted> {
        self.hosted
            .write()
            .expect("the map is changed without panics")
    }

    /// The partition, NOT_LEADER_OR_FOLLOWER for one of other brokers, UNKNOWN_TOPIC_OR_PARTITION, or KAFKA_STORAGE_ERROR
    /// where its log directory failed.
    pub fn find(&self, topic: &str, partition: i32) -> Result<Arc<Partition>, Error> {
        let hosted = self.read();
        let found = hosted
            .by_name
            .get(topic)
            .and_then(|topic| topic.partition(partition));
        if found.is_some() {
            return online(found);
        }
        let image = self.images.load();
        let topic = image.topics.by_name(topic);
        match topic.and_then(|topic| topic.partitions.get(&partition)) {
            Some(_) => Err(ErrorCode::NotLeaderOrFollower.into()),
            None => Err(ErrorCode::UnknownTopicOrPartition.into()),
        }
    }

    /// The partition, NOT_LEADER_OR_FOLLOWER for one of other brokers, UNKNOWN_TOPIC_ID, or UNKNOWN_TOPIC_OR_PARTITION for
    /// an index that the topic lacks.
    pub fn find_by_id(&self, topic_id: Uuid, partition: i32) -> Result<Arc<Partition>, Error> {
        let hosted = self.read();
        let topic = hosted.by_id.get(&topic_id);
        let found = topic.and_then(|topic| topic.partition(partition));
        if found.is_some() {
            return online(found);
        }
        let image = self.images.load();
        match image.topics.by_id(topic_id) {
            Some(known) if known.partitions.contains_key(&partition) => {
                Err(ErrorCode::NotLeaderOrFollower.into())
            }
            None if topic.is_none() => Err(ErrorCode::UnknownTopicId.into()),
            _ => Err(ErrorCode::UnknownTopicOrPartition.into()),
        }
    }

    /// The hosted topic of that name.
    pub fn topic(&self, name: &str) -> Option<Arc<HostedTopic>> {
        self.read().by_name.get(name).cloned()
    }

    /// Every hosted partition, in no order.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        let hosted = self.read();
        hosted
            .by_name
            .values()
            .flat_map(|topic| topic.partitions.iter().flatten())
            .cloned()
            .collect()
    }

    /// Whether partitions that this broker should have are all here: topics deleted from the directory otherwise.
    fn assigned<'a>(
        &'a self,
        topic: &'a TopicImage,
        image: &'a MetadataImage,
    ) -> impl Iterator<Item = Assigned> + 'a {
        let config = self.topic_config(&topic.name, image);
        topic
            .partitions
            .iter()
            .filter(|(_, r)| r.replicas.contains(&self.broker_id))
            .map(move |(index, registration)| Assigned {
                topic_partition: TopicPartition::new(Arc::clone(&topic.name), *index),
                topic_id: topic.id,
                registration: Arc::clone(registration),
                config: Arc::clone(&config),
            })
    }

    fn topic_config(&self, topic: &str, image: &MetadataImage) -> Arc<TopicConfig> {
        Arc::new(TopicConfig::resolve(
            &self.config.load(),
            &image.configs.topic(topic),
        ))
    }

    /// Opens the logs of `assigned` and publishes the partitions. Of one that cannot be opened clients get
    /// KAFKA_STORAGE_ERROR, and the operator the reason.
    fn open(&self, assigned: Vec<Assigned>, initial: bool, image: &MetadataImage) {
        let threads = self.threads_per_dir();
        let mut by_dir: Vec<(Arc<LogDir>, Vec<Assigned>)> = Vec::new();
        let mut opened = Vec::with_capacity(assigned.len());
        let mut placement = self.placement(initial);
        for partition in assigned {
            let registered = partition.registration.directory(self.broker_id);
            let Some(dir) = placement.choose(&partition.topic_partition, registered) else {
                error!(topic_partition = %partition.topic_partition, "log directory is offline");
                opened.push(self.start_offline(&partition));
                continue;
            };
            match by_dir
                .iter_mut()
                .find(|(known, _)| Arc::ptr_eq(known, &dir))
            {
                Some((_, partitions)) => partitions.push(partition),
                None => by_dir.push((dir, vec![partition])),
            }
        }
        for (dir, partitions) in by_dir {
            opened.extend(dir.open_logs(&partitions, threads, &|assigned| {
                self.open_one(&dir, assigned, image)
            }));
        }
        self.publish(opened);
    }

    fn open_one(
        &self,
        dir: &Arc<LogDir>,
        assigned: &Assigned,
        image: &MetadataImage,
    ) -> Arc<Partition> {
        let tp = &assigned.topic_partition;
        let open = || Log::open(self.open_params(dir, assigned));
        let log = open().or_else(|error| match error {
            StorageError::OtherTopic { .. } => {
                put_stray_aside(dir, tp);
                open()
            }
            other => Err(other),
        });
        match log {
            Ok(log) => self.start(dir, assigned, log, image),
            Err(error) => {
                error!(topic_partition = %tp, %error, "log cannot be opened");
                self.start_offline(assigned)
            }
        }
    }

    fn open_params(&self, dir: &Arc<LogDir>, assigned: &Assigned) -> OpenParams {
        let (tp, config) = (&assigned.topic_partition, &assigned.config);
        self.params(dir, tp.clone(), assigned.topic_id, Arc::clone(config))
    }

    pub(super) fn params(
        &self,
        dir: &Arc<LogDir>,
        topic_partition: TopicPartition,
        topic_id: Uuid,
        config: Arc<TopicConfig>,
    ) -> OpenParams {
        OpenParams {
            dir: Arc::clone(dir),
            topic_partition,
            topic_id: Some(topic_id),
            config,
            producer_id_expiration_ms: i64::from(self.config.load().producer_id_expiration_ms),
            now_ms: self.clock.wall_ms(),
        }
    }

    fn start(
        &self,
        dir: &LogDir,
        assigned: &Assigned,
        log: Log,
        image: &MetadataImage,
    ) -> Arc<Partition> {
        let checkpointed = dir.high_watermark(&assigned.topic_partition).unwrap_or(0);
        let high_watermark = checkpointed.clamp(log.log_start_offset(), log.next_offset());
        let state = self.new_state(&assigned.config, high_watermark);
        let metrics = self.metrics.topic(&assigned.topic_partition.topic);
        let partition = Partition::new(
            assigned.topic_partition.clone(),
            assigned.topic_id,
            log,
            state,
            Arc::clone(&assigned.config),
            metrics,
            Arc::clone(&self.broker_wide),
        );
        self.apply(&partition, &assigned.registration, image);
        partition
    }

    fn new_state(&self, config: &TopicConfig, high_watermark: Offset) -> PartitionState {
        let rules = ReplicationRules {
            min_insync_replicas: config.min_insync_replicas.max(0) as usize,
            replica_lag_time_max_ms: self.config.load().replica_lag_time_max_ms,
        };
        PartitionState::new(self.broker_id, high_watermark, rules)
    }

    fn start_offline(&self, assigned: &Assigned) -> Arc<Partition> {
        let state = self.new_state(&assigned.config, 0);
        let metrics = self.metrics.topic(&assigned.topic_partition.topic);
        Partition::offline(
            assigned.topic_partition.clone(),
            assigned.topic_id,
            state,
            Arc::clone(&assigned.config),
            metrics,
        )
    }

    fn apply(
        &self,
        partition: &Partition,
        registration: &PartitionRegistration,
        image: &MetadataImage,
    ) {
        let now_ms = self.clock.monotonic_ms();
        let active = |id| active_epoch(image, id);
        if let Err(error) = partition.apply(registration, now_ms, &active) {
            error!(topic_partition = %partition.topic_partition, %error, "cannot change leadership");
        }
    }

    fn publish(&self, partitions: Vec<Arc<Partition>>) {
        let mut by_topic: BTreeMap<Uuid, Vec<Arc<Partition>>> = BTreeMap::new();
        for partition in partitions.iter().map(Arc::clone) {
            by_topic
                .entry(partition.topic_id)
                .or_default()
                .push(partition);
        }
        let mut hosted = self.write();
        for (id, partitions) in by_topic {
            let name = Arc::clone(&partitions[0].topic_partition.topic);
            let mut all = hosted
                .by_id
                .get(&id)
                .map(|topic| topic.partitions.clone())
                .unwrap_or_default();
            for partition in partitions {
                let index = partition.topic_partition.partition as usize;
                if all.len() <= index {
                    all.resize(index + 1, None);
                }
                all[index] = Some(partition);
            }
            let topic = Arc::new(HostedTopic {
                name: Arc::clone(&name),
                id,
                partitions: all,
            });
            hosted.by_id.insert(id, Arc::clone(&topic));
            hosted.by_name.insert(name, topic);
        }
        drop(hosted);
        for partition in &partitions {
            partition.published();
        }
    }

    /// The topic is gone: its partitions stop, their directories are renamed now and removed later.
    fn remove(&self, topic_id: Uuid) {
        let mut hosted = self.write();
        let Some(topic) = hosted.by_id.remove(&topic_id) else {
            return;
        };
        if hosted
            .by_name
            .get(&topic.name)
            .is_some_and(|same| same.id == topic_id)
        {
            hosted.by_name.remove(&topic.name);
        }
        drop(hosted);
        for partition in topic.partitions.iter().flatten() {
            self.cancel_move(&partition.topic_partition);
            if let Some(log) = partition.take_log(ErrorCode::UnknownTopicOrPartition) {
                self.delete_log(&partition.topic_partition, log);
            }
        }
        self.metrics.remove_topic(&topic.name);
        info!(topic = %topic.name, %topic_id, "topic deleted");
    }

    /// The partition was reassigned to other brokers: this replica stops and its directory goes as that of a deleted topic.
    fn stop_replica(&self, topic_id: Uuid, index: i32) {
        let mut hosted = self.write();
        let Some(topic) = hosted.by_id.get(&topic_id).cloned() else {
            return;
        };
        let Some(partition) = topic.partition(index).cloned() else {
            return;
        };
        let left = topic.partitions.iter().map(|hosted| {
            let stays = hosted
                .as_ref()
                .filter(|hosted| !Arc::ptr_eq(hosted, &partition));
            stays.cloned()
        });
        let left = Arc::new(HostedTopic {
            name: Arc::clone(&topic.name),
            id: topic_id,
            partitions: left.collect(),
        });
        if left.partitions().next().is_some() {
            hosted
                .by_name
                .insert(Arc::clone(&left.name), Arc::clone(&left));
            hosted.by_id.insert(topic_id, left);
        } else {
            hosted.by_name.remove(&topic.name);
            hosted.by_id.remove(&topic_id);
        }
        drop(hosted);
        self.cancel_move(&partition.topic_partition);
        if let Some(log) = partition.take_log(ErrorCode::NotLeaderOrFollower) {
            self.delete_log(&partition.topic_partition, log);
        }
        info!(topic_partition = %partition.topic_partition, "replica removed");
    }

    pub(super) fn delete_log(&self, topic_partition: &TopicPartition, mut log: Log) {
        match log.rename_for_delete() {
            Ok(path) => self.trash.add(self.dir_delete_due_ms(), [path]),
            Err(error) => error!(%topic_partition, %error, "log cannot be deleted"),
        }
    }

    /// When a directory that is renamed now may go. The broker's delay counts, not the topic's (Kafka's `deleteLogs`).
    pub(super) fn dir_delete_due_ms(&self) -> i64 {
        let defaults = TopicConfig::resolve(&self.config.load(), &BTreeMap::new());
        self.clock.monotonic_ms() + defaults.file_delete_delay_ms.max(0)
    }

    /// Directories that an earlier process renamed and did not come to remove: they go after the delay.
    pub fn collect_deleted_dirs(&self) {
        for dir in self.log_dirs.dirs() {
            match dir.deleted_dirs() {
                Ok(found) => self.trash.add(self.dir_delete_due_ms(), found),
                Err(error) => error!(dir = %dir.path().display(), %error, "cannot be listed"),
            }
        }
    }

    /// Takes the files that the partition's log let go of; they may be removed after the topic's `file.delete.delay.ms`.
    pub(super) fn collect_deleted(&self, partition: &Partition) {
        let now_ms = self.clock.monotonic_ms();
        // A closed log has nothing to remove.
        if let Ok((files, delay_ms)) = partition.take_deleted_files() {
            self.trash.add(now_ms + delay_ms.max(0), files);
        }
    }

    /// Closes files that nobody read lately; takes files that were let go of since the last call.
    pub fn release_idle_files(&self) {
        for partition in self.touched().take(Timer::ReleaseFiles) {
            partition.release_idle_files();
            self.collect_deleted(&partition);
        }
    }

    pub fn trash(&self) -> &Trash {
        &self.trash
    }

    /// Forgets producers that were silent for `producer.id.expiration.ms`.
    pub fn remove_expired_producers(&self, now_ms: TimestampMs) {
        for partition in self.partitions() {
            // A closed log has no producers.
            let _ = partition.remove_expired_producers(now_ms);
        }
    }

    /// Directories of partitions that no topic of the image has: the topic was deleted while this broker was
    /// down. They are put aside under Kafka's name for them, and kept.
    fn put_strays_aside(&self, image: &MetadataImage) {
        for dir in self.log_dirs.online() {
            let found = dir.partition_dirs().unwrap_or_default();
            let strays = found.iter().filter(|tp| {
                let registration = image.topics.partition(tp);
                &*tp.topic != CLUSTER_METADATA_TOPIC
                    && !registration.is_some_and(|r| r.replicas.contains(&self.broker_id))
            });
            for stray in strays {
                put_stray_aside(dir, stray);
            }
        }
    }

    fn update_configs(&self, delta: &MetadataDelta, image: &MetadataImage) {
        for resource in &delta.configs_changed {
            match resource.kind {
                ConfigResourceType::Topic => {
                    if let Some(topic) = self.topic(&resource.name) {
                        topic.update_config(&self.topic_config(&topic.name, image));
                    }
                }
                // Broker settings are the defaults of every topic.
                ConfigResourceType::Broker => {
                    self.quotas.update(&self.config.load());
                    let topics: Vec<_> = self.read().by_name.values().cloned().collect();
                    for topic in topics {
                        topic.update_config(&self.topic_config(&topic.name, image));
                    }
                }
                _ => {}
            }
        }
    }
}

/// The broker's epoch, if it may be in sync: registered, not fenced, not shutting down.
fn active_epoch(image: &MetadataImage, id: BrokerId) -> Option<i64> {
    let broker = image.cluster.broker(id)?;
    image.cluster.is_active(id).then_some(broker.epoch)
}

/// Renames a partition's directory to `<topic>-<partition>.<id>-stray`.
fn put_stray_aside(dir: &LogDir, stray: &TopicPartition) {
    let name = stray.to_string();
    let aside = format!("{name}.{}-stray", Uuid::new_v4().simple());
    match disk::rename(&dir.path().join(&name), &dir.path().join(aside)) {
        Ok(()) => warn!(topic_partition = %stray, "stray log: no such topic, put aside"),
        Err(error) => error!(topic_partition = %stray, %error, "stray log cannot be renamed"),
    }
}

/// A found partition that can be used.
fn online(found: Option<&Arc<Partition>>) -> Result<Arc<Partition>, Error> {
    match found {
        Some(partition) if partition.is_offline() => Err(ErrorCode::KafkaStorageError.into()),
        Some(partition) => Ok(Arc::clone(partition)),
        None => Err(ErrorCode::UnknownTopicOrPartition.into()),
    }
}

impl HostedTopic {
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)?.as_ref()
    }

    pub fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.iter().flatten()
    }

    fn update_config(&self, config: &Arc<TopicConfig>) {
        for partition in self.partitions() {
            partition.update_config(Arc::clone(config));
        }
    }
}

impl Publisher for ReplicaManager {
    fn on_update(&self, delta: &MetadataDelta, image: &Arc<MetadataImage>) {
        if delta.initial {
            self.put_strays_aside(image);
        }
        for topic_id in delta.topics_deleted.keys() {
            self.remove(*topic_id);
        }
        let mut new = Vec::new();
        for (topic_id, change) in &delta.topics_changed {
            let Some(topic) = image.topics.by_id(*topic_id) else {
                continue;
            };
            let hosted = self
                .topic(&topic.name)
                .filter(|hosted| hosted.id == *topic_id);
            for (index, registration) in &topic.partitions {
                let is_here = registration.replicas.contains(&self.broker_id);
                if !is_here && change.partitions.contains(index) {
                    self.stop_replica(*topic_id, *index);
                }
            }
            for assigned in self.assigned(topic, image) {
                let index = assigned.topic_partition.partition;
                if !change.partitions.contains(&index) {
                    continue;
                }
                match hosted.as_ref().and_then(|topic| topic.partition(index)) {
                    Some(partition) if partition.is_offline() => {}
                    Some(partition) => self.apply(partition, &assigned.registration, image),
                    None => new.push(assigned),
                }
            }
        }
        if !new.is_empty() {
            self.open(new, delta.initial, image);
        }
        if !delta.brokers_changed.is_empty() {
            for partition in self.partitions() {
                partition.brokers_changed(&|id| active_epoch(image, id));
            }
        }
        self.resume_moves(delta, image);
        self.compare_directories(delta, image);
        self.update_configs(delta, image);
    }
}
