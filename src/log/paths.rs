//! File names of a partition directory.

use std::path::{Path, PathBuf};

use crate::types::{Offset, TopicPartition};

pub const LOG: &str = "log";
pub const INDEX: &str = "index";
pub const TIME_INDEX: &str = "timeindex";
pub const TXN_INDEX: &str = "txnindex";
pub const SNAPSHOT: &str = "snapshot";
/// Renamed so, and removed later.
pub const DELETED: &str = "deleted";
/// Longest file name that every file system takes.
const NAME_MAX: usize = 255;

/// `00000000000000000042.log`
pub fn segment_file(dir: &Path, base_offset: Offset, kind: &str) -> PathBuf {
    dir.join(format!("{base_offset:020}.{kind}"))
}

/// The offset and the suffix of a file that belongs to a segment or snapshot.
pub fn parse_file_name(name: &str) -> Option<(Offset, &str)> {
    let (digits, kind) = name.split_once('.')?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, kind))
}

/// `<topic>-<partition>.<id>-delete`, the topic cut where the name would be too long.
pub fn delete_dir_name(tp: &TopicPartition, id: uuid::Uuid) -> String {
    let suffix = format!("-{}.{}-delete", tp.partition, id.simple());
    let mut topic_len = tp.topic.len().min(NAME_MAX - suffix.len());
    while !tp.topic.is_char_boundary(topic_len) {
        topic_len -= 1;
    }
    format!("{}{suffix}", &tp.topic[..topic_len])
}

/// `<topic>-<partition>.<id>-future`: a replica on its way into another log directory. `None` where no file system would
/// take the name (KAFKA-4893).
pub fn future_dir_name(tp: &TopicPartition, id: uuid::Uuid) -> Option<String> {
    let name = format!("{tp}.{}-future", id.simple());
    (name.len() <= NAME_MAX).then_some(name)
}

/// The partition of a directory of [`future_dir_name`].
pub fn parse_future_dir(name: &str) -> Option<TopicPartition> {
    let (tp, id) = name.strip_suffix("-future")?.rsplit_once('.')?;
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    parse_partition_dir(tp)
}

/// `<topic>-<partition>`; `None` for anything else, directories on their way out or in included.
pub fn parse_partition_dir(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    if topic.is_empty() || partition.is_empty() || !partition.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(TopicPartition::new(topic, partition.parse().ok()?))
}
