//! Who the log directories belong to: reads their `meta.properties`, formats the directories of a new node. And what follows
//! when one fails while the broker runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

use super::broker::StartError;
use crate::clock::date_text;
use crate::config::Config;
use crate::controller::feature_records;
use crate::log::{LogDir, LogDirs, MetaProperties, StorageError};
use crate::metadata::features;
use crate::protocol::metadata_records::MetadataRecord;
use crate::quorum::{self, own_voter};
use crate::replica::ReplicaManager;
use crate::types::{
    CLUSTER_METADATA_TOPIC, TimestampMs, TopicPartition, Uuid, random_uuid, uuid_to_base64,
};

/// The cluster's id. Checks that all directories belong to one cluster and to this node. A node on empty disks just starts: its
/// directories are formatted. One that is empty beside others is not: a disk may be missing that holds its data; nor is one
/// with logs: under a new cluster id they would be a stranger's.
pub fn identify(
    config: &Config,
    dirs: &LogDirs,
    now_ms: TimestampMs,
) -> Result<String, StartError> {
    let known = dirs.all().find_map(|dir| dir.meta_properties());
    let cluster_id = known.map_or_else(
        || uuid_to_base64(random_uuid()),
        |meta| meta.cluster_id.clone(),
    );
    let orphan = dirs.all().find(|dir| known.is_none() && has_logs(dir));
    if let Some(dir) = orphan.filter(|_| config.is_alone()) {
        let reason = "has logs, but no meta.properties, which says whose they are: put it back, or take the logs away";
        return Err(refuse(dir, reason.into()));
    }
    let mut ids = BTreeSet::new();
    for dir in dirs.all() {
        match dir.meta_properties() {
            Some(meta) => check(config, dirs, dir, &cluster_id, meta)?,
            None if known.is_some() => {
                return Err(refuse(
                    dir,
                    "has no meta.properties, although other log directories of this node do: mount what is missing, or make it \
                     a new one with `ottla storage format --ignore-formatted`"
                        .into(),
                ));
            }
            None if !config.is_alone() => {
                return Err(refuse(
                    dir,
                    "is not formatted: nodes of one cluster need the same cluster id, so run `ottla storage format` with it first"
                        .into(),
                ));
            }
            None => {
                let meta = MetaProperties {
                    cluster_id: cluster_id.clone(),
                    node_id: config.node_id,
                    directory_id: Some(random_uuid()),
                };
                info!(dir = %dir.path().display(), cluster_id, "formatting new log directory");
                if Arc::ptr_eq(dir, dirs.metadata()) {
                    write_first_voter(config, dir, meta.directory_id, now_ms)?;
                }
                dir.format(meta, &date_text(now_ms))?;
            }
        }
        if dir.directory_id().is_some_and(|id| !ids.insert(id)) {
            let reason = "has the directory.id of another of log.dirs: one is a copy of the other";
            return Err(refuse(dir, reason.into()));
        }
    }
    check_duplicates(dirs)?;
    Ok(cluster_id)
}

/// No partition may be in two directories: it would be a guess which one has what was acknowledged (Kafka's `LogManager`).
fn check_duplicates(dirs: &LogDirs) -> Result<(), StartError> {
    let mut holders: BTreeMap<TopicPartition, &Arc<LogDir>> = BTreeMap::new();
    for dir in dirs.online() {
        // A directory that cannot be listed goes offline when it is used.
        for tp in dir.partition_dirs().unwrap_or_default() {
            let Some(other) = holders.insert(tp.clone(), dir) else {
                continue;
            };
            let reason = format!(
                "has a log of {tp}, as {} has: the broker once ran without one of log.dirs, or Apache Kafka ended while one was \
                 replacing the other. Compare them with `ottla dump-log` and move one of the two away",
                other.name().display()
            );
            return Err(refuse(dir, reason));
        }
    }
    Ok(())
}

/// The records that a new cluster begins with: what `storage format`, Kafka's or ours, wrote into the directory of the metadata
/// log; the newest features where nobody formatted it.
pub fn formatted_records(dirs: &LogDirs) -> Result<Vec<MetadataRecord>, StartError> {
    let dir = dirs.metadata();
    let read = quorum::read_bootstrap(dir.path()).map_err(|error| {
        let reason = format!("has a bootstrap.checkpoint that cannot be read: {error}");
        refuse(dir, reason)
    })?;
    let Some(records) = read else {
        let newest = features::default_levels(features::METADATA_VERSION_LATEST);
        return Ok(feature_records(&newest));
    };
    for record in &records {
        if let MetadataRecord::FeatureLevel(level) = record
            && !features::supported(&level.name).is_some_and(|it| it.supports(level.feature_level))
        {
            let (name, level) = (&level.name, level.feature_level);
            let reason = format!(
                "was formatted with {name}={level}, which this release does not have: format it anew with an older \
                 --release-version"
            );
            return Err(refuse(dir, reason));
        }
    }
    Ok(records)
}

/// Whether a log was ever written here. A start that was cut short leaves the first voters, no log.
fn has_logs(dir: &LogDir) -> bool {
    let is_segment = |file: std::io::Result<std::fs::DirEntry>| {
        file.is_ok_and(|file| file.file_name().to_string_lossy().ends_with(".log"))
    };
    // A directory that cannot be listed goes offline when it is used.
    let mut partitions = dir.partition_dirs().unwrap_or_default().into_iter();
    partitions.any(|tp| {
        std::fs::read_dir(dir.path().join(tp.to_string()))
            .is_ok_and(|mut files| files.any(is_segment))
    })
}

/// Makes a controller without configured voters the only one of its quorum, as `storage format --standalone` does.
fn write_first_voter(
    config: &Config,
    dir: &LogDir,
    directory_id: Option<Uuid>,
    now_ms: TimestampMs,
) -> Result<(), StorageError> {
    if !config.is_controller() || !config.controller_quorum_voters.is_empty() {
        return Ok(());
    }
    let own = own_voter(config, directory_id.unwrap_or(Uuid::nil()));
    let voters = BTreeMap::from([(config.node_id, own)]);
    quorum::write_voters(dir.path(), &voters, now_ms)
        .map_err(|error| StorageError::io("write the first voters in", dir.path(), error))
}

fn refuse(dir: &LogDir, reason: String) -> StartError {
    StartError::Format {
        dir: dir.name().display().to_string(),
        reason,
    }
}

fn check(
    config: &Config,
    dirs: &LogDirs,
    dir: &Arc<LogDir>,
    cluster_id: &str,
    meta: &MetaProperties,
) -> Result<(), StartError> {
    if meta.node_id != config.node_id {
        let reason = format!(
            "belongs to node {}, but node.id is {}: correct node.id or log.dirs",
            meta.node_id, config.node_id
        );
        return Err(refuse(dir, reason));
    }
    if meta.cluster_id != cluster_id {
        let reason = format!(
            "belongs to cluster {}, but another of log.dirs to {cluster_id}: take the stranger out of log.dirs",
            meta.cluster_id
        );
        return Err(refuse(dir, reason));
    }
    let metadata_log = format!("{CLUSTER_METADATA_TOPIC}-0");
    if !Arc::ptr_eq(dir, dirs.metadata()) && dir.path().join(&metadata_log).exists() {
        let reason = format!(
            "has a metadata log ({metadata_log}), but metadata.log.dir is {}: correct metadata.log.dir",
            dirs.metadata().name().display()
        );
        return Err(refuse(dir, reason));
    }
    Ok(())
}

/// Tells of directories that fail; counts them.
#[derive(Clone)]
pub struct DirFailures(watch::Receiver<u32>);

impl DirFailures {
    /// Listens to all of `dirs`.
    pub fn of(dirs: &LogDirs) -> Self {
        let (failures, receiver) = watch::channel(0);
        for dir in dirs.all() {
            let failures = failures.clone();
            dir.on_offline(move |_| failures.send_modify(|count| *count += 1));
        }
        Self(receiver)
    }

    /// Resolves when another directory failed.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // All directories are closed: no more failures.
            std::future::pending::<()>().await;
        }
    }

    /// Resolves with the reason when the node cannot go on without what failed.
    pub async fn fatal(mut self, dirs: LogDirs) -> String {
        loop {
            if let Some(reason) = dirs.fatal_failure() {
                return reason;
            }
            self.changed().await;
        }
    }

    /// Takes the partitions of failed directories offline.
    pub async fn follow(mut self, replicas: Arc<ReplicaManager>) {
        loop {
            self.changed().await;
            let replicas = Arc::clone(&replicas);
            let taken = tokio::task::spawn_blocking(move || replicas.take_failed_dirs_offline());
            if taken.await.is_err() {
                warn!("partitions of a failed log directory were not taken offline");
            }
        }
    }
}
