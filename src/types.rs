//! Vocabulary that every layer shares: offsets, epochs, ids and topic partitions, in Kafka's words.

use std::fmt;
use std::sync::Arc;

pub use uuid::Uuid;

/// Position of a record in a partition. "Next" offsets (log end, high watermark) are exclusive ends.
pub type Offset = i64;
/// Generation of a partition's leadership; grows with every election.
pub type LeaderEpoch = i32;
/// Node id of a broker or controller.
pub type BrokerId = i32;
/// Id of an idempotent or transactional producer.
pub type ProducerId = i64;
/// Epoch that fences older incarnations of a producer.
pub type ProducerEpoch = i16;
/// Wall-clock milliseconds since the Unix epoch, as in record timestamps.
pub type TimestampMs = i64;

/// The leader epoch of a batch nobody has led yet, and of answers that know none.
pub const NO_LEADER_EPOCH: LeaderEpoch = -1;
/// The producer id of a batch that is not idempotent.
pub const NO_PRODUCER_ID: ProducerId = -1;
/// The epoch of a batch without a producer.
pub const NO_PRODUCER_EPOCH: ProducerEpoch = -1;
/// The timestamp of a record or answer without one.
pub const NO_TIMESTAMP: TimestampMs = -1;

/// Topic id of `__cluster_metadata`: `Uuid.ONE_UUID` in Kafka.
pub const CLUSTER_METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);
/// Name of the metadata log's topic.
pub const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";
/// Name of the topic that holds committed offsets and group metadata.
pub const GROUP_METADATA_TOPIC: &str = "__consumer_offsets";
/// Name of the topic that holds the state of transactional ids.
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";

/// Whether clients may not produce to `topic` and tools hide it (Kafka's `Topic.isInternal`).
pub fn is_internal_topic(topic: &str) -> bool {
    matches!(
        topic,
        GROUP_METADATA_TOPIC | TRANSACTION_STATE_TOPIC | "__share_group_state"
    )
}

/// A partition of a topic, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

/// `topic-partition`, the form of directory names and log lines.
impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Kafka's text form of a UUID: 22 characters of unpadded URL-safe base64 (`Uuid.toString`).
pub fn uuid_to_base64(id: Uuid) -> String {
    let mut text = String::with_capacity(22);
    for chunk in id.as_bytes().chunks(3) {
        let word =
            chunk.iter().fold(0u32, |acc, b| acc << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            text.push(char::from(BASE64_URL[(word >> (18 - 6 * i)) as usize & 63]));
        }
    }
    text
}

/// Parses [`uuid_to_base64`]'s form; `None` for any other text.
pub fn uuid_from_base64(text: &str) -> Option<Uuid> {
    let text = text.trim_end_matches('=').as_bytes();
    if text.len() != 22 {
        return None;
    }
    let mut value: u128 = 0;
    for (i, c) in text.iter().enumerate() {
        let digit = BASE64_URL.iter().position(|b| b == c)? as u128;
        // 22 digits carry 132 bits: the last four are padding.
        value = if i == 21 {
            value << 2 | digit >> 4
        } else {
            value << 6 | digit
        };
    }
    Some(Uuid::from_u128(value))
}

/// A random id that Kafka would accept: its text never starts with a dash (`Uuid.randomUuid`).
pub fn random_uuid() -> Uuid {
    loop {
        let id = Uuid::new_v4();
        if id.as_u128() > 1 && !uuid_to_base64(id).starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_text_round_trips_and_matches_kafka() {
        // `Uuid.ONE_UUID` and a cluster id from Kafka's documentation.
        assert_eq!(uuid_to_base64(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        for _ in 0..100 {
            let id = random_uuid();
            assert_eq!(uuid_from_base64(&uuid_to_base64(id)), Some(id));
        }
        assert_eq!(uuid_from_base64("short"), None);
        assert_eq!(uuid_from_base64("AAAAAAAAAAAAAAAAAAAA*Q"), None);
    }
}
