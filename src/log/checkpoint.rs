//! The small text files beside the logs: offset checkpoints, leader epochs, `partition.metadata`, `meta.properties`,
//! `.kafka_cleanshutdown`. Each is replaced whole: written beside, synced, renamed over.
//!
//! ```text
//! checkpoint            leader-epoch-checkpoint   partition.metadata     .kafka_cleanshutdown
//! 0                     0                         version: 0             {"version":0,"brokerEpoch":7}
//! <count>               <count>                   topic_id: <base64>
//! <topic> <part> <off>  <epoch> <start offset>
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk;
use super::error::StorageError;
use crate::types::{LeaderEpoch, Offset, TopicPartition, Uuid, uuid_from_base64, uuid_to_base64};

pub const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
pub const PARTITION_METADATA: &str = "partition.metadata";
pub const META_PROPERTIES: &str = "meta.properties";
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";

/// The offset checkpoints of a log directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checkpoint {
    RecoveryPoint,
    LogStartOffset,
    HighWatermark,
    /// Up to where compaction got.
    Cleaner,
}

impl Checkpoint {
    pub(super) const ALL: [Self; 4] = [
        Self::RecoveryPoint,
        Self::LogStartOffset,
        Self::HighWatermark,
        Self::Cleaner,
    ];

    pub fn file_name(self) -> &'static str {
        match self {
            Self::RecoveryPoint => "recovery-point-offset-checkpoint",
            Self::LogStartOffset => "log-start-offset-checkpoint",
            Self::HighWatermark => "replication-offset-checkpoint",
            Self::Cleaner => "cleaner-offset-checkpoint",
        }
    }

    /// What follows where the file cannot be read.
    pub(super) fn when_lost(self) -> &'static str {
        match self {
            Self::RecoveryPoint => {
                "after an unclean stop logs are recovered from their first segment on"
            }
            Self::LogStartOffset => {
                "logs start with their first segment, records that were deleted there are back"
            }
            Self::HighWatermark => "consumers wait until replicas agree on the high watermarks",
            Self::Cleaner => "compacted logs are cleaned from their start on",
        }
    }
}

/// Makes creations, renames and deletions in `dir` durable.
pub fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    disk::sync_dir(dir).map_err(|e| StorageError::io("sync directory", dir, e))
}

/// Replaces `dir/name` by `content`. Without `sync` only the process may die, not the machine.
pub fn replace_file(
    dir: &Path,
    name: &str,
    content: &[u8],
    sync: bool,
) -> Result<(), StorageError> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}.tmp"));
    let write = || -> io::Result<()> {
        let file = disk::write_file(&temporary, content)?;
        if sync {
            disk::sync_data(&file)?;
        }
        disk::rename(&temporary, &path)
    };
    write().map_err(|e| StorageError::io("write", &path, e))?;
    if sync { sync_dir(dir) } else { Ok(()) }
}

/// `None` where there is no such file.
pub fn read_file(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StorageError::io("read", path, e)),
    }
}

/// Parses version 0, a count, and that many lines. `None` for anything else.
fn parse_entries<T>(text: &[u8], line: impl FnMut(&str) -> Option<T>) -> Option<Vec<T>> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    if lines.next()?.trim() != "0" {
        return None;
    }
    let count: usize = lines.next()?.trim().parse().ok()?;
    let entries = lines
        .filter(|text| !text.is_empty())
        .map(line)
        .collect::<Option<Vec<T>>>()?;
    (entries.len() == count).then_some(entries)
}

pub fn format_offsets<'a>(
    offsets: impl ExactSizeIterator<Item = (&'a TopicPartition, Offset)>,
) -> String {
    let mut out = format!("0\n{}\n", offsets.len());
    for (tp, offset) in offsets {
        let _ = writeln!(out, "{} {} {offset}", tp.topic, tp.partition);
    }
    out
}

pub fn parse_offsets(text: &[u8]) -> Option<BTreeMap<TopicPartition, Offset>> {
    // The partitions of a topic stand together and share its name.
    let mut topic: Arc<str> = "".into();
    let entries = parse_entries(text, |line| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        if *topic != *name {
            topic = name.into();
        }
        let tp = TopicPartition::new(Arc::clone(&topic), fields.next()?.parse().ok()?);
        let offset = fields.next()?.parse().ok()?;
        fields.next().is_none().then_some((tp, offset))
    })?;
    Some(entries.into_iter().collect())
}

pub fn format_epochs(entries: &[(LeaderEpoch, Offset)]) -> String {
    let mut out = format!("0\n{}\n", entries.len());
    for (epoch, offset) in entries {
        let _ = writeln!(out, "{epoch} {offset}");
    }
    out
}

pub fn parse_epochs(text: &[u8]) -> Option<Vec<(LeaderEpoch, Offset)>> {
    parse_entries(text, |line| {
        let (epoch, offset) = line.split_once(' ')?;
        Some((epoch.parse().ok()?, offset.trim().parse().ok()?))
    })
}

pub fn format_partition_metadata(topic_id: Uuid) -> String {
    format!("version: 0\ntopic_id: {}", uuid_to_base64(topic_id))
}

pub fn parse_partition_metadata(text: &[u8]) -> Option<Uuid> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    if lines.next()?.strip_prefix("version:")?.trim() != "0" {
        return None;
    }
    uuid_from_base64(lines.next()?.strip_prefix("topic_id:")?.trim())
}

/// Who a log directory belongs to (`meta.properties`, version 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    pub cluster_id: String,
    pub node_id: i32,
    pub directory_id: Option<Uuid>,
}

impl MetaProperties {
    /// The file as Java's `Properties.store` leaves it; `date` is its comment line.
    pub fn format(&self, date: &str) -> String {
        let directory = self
            .directory_id
            .map(|id| format!("directory.id={}\n", uuid_to_base64(id)))
            .unwrap_or_default();
        format!(
            "#\n#{date}\nnode.id={}\n{directory}version=1\ncluster.id={}\n",
            self.node_id, self.cluster_id
        )
    }

    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let value = |name: &str| {
            text.lines()
                .filter_map(|line| line.trim().split_once('='))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim())
        };
        if value("version")? != "1" {
            return None;
        }
        let directory_id = match value("directory.id") {
            Some(text) => Some(uuid_from_base64(text)?),
            None => None,
        };
        Some(Self {
            cluster_id: value("cluster.id")?.to_owned(),
            node_id: value("node.id")?.parse().ok()?,
            directory_id,
        })
    }

    /// `Ok(None)` for a directory that nobody formatted.
    pub fn read(dir: &Path) -> Result<Option<Self>, StorageError> {
        let path = dir.join(META_PROPERTIES);
        let Some(text) = read_file(&path)? else {
            return Ok(None);
        };
        Self::parse(&text).map(Some).ok_or(StorageError::Unusable {
            path,
            reason: "not a meta.properties file of version 1".into(),
        })
    }

    /// Creates the directory where needed and writes the file. `date` is a comment for people.
    pub fn write(&self, dir: &Path, date: &str) -> Result<(), StorageError> {
        fs::create_dir_all(dir).map_err(|e| StorageError::io("create", dir, e))?;
        replace_file(dir, META_PROPERTIES, self.format(date).as_bytes(), true)
    }
}

#[derive(Serialize, Deserialize)]
struct CleanShutdown {
    version: i32,
    #[serde(rename = "brokerEpoch")]
    broker_epoch: Option<i64>,
}

pub fn format_clean_shutdown(broker_epoch: i64) -> String {
    let content = CleanShutdown {
        version: 0,
        broker_epoch: Some(broker_epoch),
    };
    serde_json::to_string(&content).expect("a struct of numbers serializes")
}

/// The broker epoch of the last clean stop; -1 where the file does not tell.
pub fn parse_clean_shutdown(text: &[u8]) -> i64 {
    serde_json::from_slice::<CleanShutdown>(text)
        .ok()
        .and_then(|content| content.broker_epoch)
        .unwrap_or(-1)
}
