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
