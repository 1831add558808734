//! The configs of one topic, typed: broker defaults with the topic's own settings on top (Kafka's `LogConfig`).

use std::collections::BTreeMap;

use super::key::{InvalidValue, Value};
use super::{Config, TOPIC_SYNONYMS, topic_key};

/// What happens to old segments; neither, one, or both may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub compact: bool,
    pub delete: bool,
}

/// Which clock stamps records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What the broker stores: `Producer` keeps each batch as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerCompressionType {
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Whether a list of throttled replicas names this one: `*`, or `partition:broker` (`TopicConfigHandler`).
pub fn is_throttled_replica(list: &[String], partition: i32, broker_id: i32) -> bool {
    let is_this = |item: &String| match item.trim().split_once(':') {
        Some((p, b)) => p.parse() == Ok(partition) && b.parse() == Ok(broker_id),
        None => item.trim() == "*",
    };
    list.iter().any(is_this)
}

/// All configs of a topic. Units are in the names; bounds are those of the key table.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_type: BrokerCompressionType,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    /// Records between forced flushes; `i64::MAX` leaves flushing to the operating system.
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub follower_replication_throttled_replicas: Vec<String>,
    pub index_interval_bytes: i32,
    pub leader_replication_throttled_replicas: Vec<String>,
    /// -2 means the value of `retention_bytes`.
    pub local_retention_bytes: i64,
    /// -2 means the value of `retention_ms`.
    pub local_retention_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    pub remote_log_copy_disable: bool,
    pub remote_log_delete_on_disable: bool,
    pub remote_storage_enable: bool,
    /// Negative means no limit.
    pub retention_bytes: i64,
    /// -1 means no limit.
    pub retention_ms: i64,
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self::from_lookup(&|_| None)
    }
}

impl TopicConfig {
    /// The effective configs of a topic whose own settings are `overrides`. A setting that does not parse (it cannot get
    /// in through the API) is left out.
    pub fn resolve(config: &Config, overrides: &BTreeMap<String, String>) -> Self {
        Self::from_lookup(&|name| {
            overrides
                .get(name)
                .and_then(|text| topic_key(name)?.parse(text).ok())
                .or_else(|| config.topic_default(name))
        })
    }

    /// As [`TopicConfig::resolve`], but an unknown name or bad value is an error.
    pub fn parse(
        config: &Config,
        overrides: &BTreeMap<String, String>,
    ) -> Result<Self, InvalidValue> {
        for (name, text) in overrides {
            if let Some(key) = topic_key(name) {
                key.parse(text)?;
            }
        }
        Ok(Self::resolve(config, overrides))
    }

    /// Age at which a segment is rolled: compacted logs must not hold records back for longer than they may stay dirty.
    pub fn segment_ms_max(&self) -> i64 {
        if self.cleanup_policy.compact && self.max_compaction_lag_ms > 0 {
            self.segment_ms.min(self.max_compaction_lag_ms)
        } else {
            self.segment_ms
        }
    }

    fn from_lookup(lookup: &dyn Fn(&str) -> Option<Value>) -> Self {
        let f = Fields(lookup);
        let policy = f.list("cleanup.policy");
        Self {
            cleanup_policy: CleanupPolicy {
                compact: policy.iter().any(|p| p == "compact"),
                delete: policy.iter().any(|p| p == "delete"),
            },
            compression_gzip_level: f.int("compression.gzip.level"),
            compression_lz4_level: f.int("compression.lz4.level"),
            compression_type: match f.text("compression.type").as_str() {
                "uncompressed" => BrokerCompressionType::Uncompressed,
                "gzip" => BrokerCompressionType::Gzip,
                "snappy" => BrokerCompressionType::Snappy,
                "lz4" => BrokerCompressionType::Lz4,
                "zstd" => BrokerCompressionType::Zstd,
                _ => BrokerCompressionType::Producer,
            },
            compression_zstd_level: f.int("compression.zstd.level"),
            delete_retention_ms: f.long("delete.retention.ms"),
            file_delete_delay_ms: f.long("file.delete.delay.ms"),
            flush_messages: f.long("flush.messages"),
            flush_ms: f.long("flush.ms"),
            follower_replication_throttled_replicas: f
                .list("follower.replication.throttled.replicas"),
            index_interval_bytes: f.int("index.interval.bytes"),
            leader_replication_throttled_replicas: f.list("leader.replication.throttled.replicas"),
            local_retention_bytes: f.long("local.retention.bytes"),
            local_retention_ms: f.long("local.retention.ms"),
            max_compaction_lag_ms: f.long("max.compaction.lag.ms"),
            max_message_bytes: f.int("max.message.bytes"),
            message_timestamp_after_max_ms: f.long("message.timestamp.after.max.ms"),
            message_timestamp_before_max_ms: f.long("message.timestamp.before.max.ms"),
            message_timestamp_type: match f.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_cleanable_dirty_ratio: f.double("min.cleanable.dirty.ratio"),
            min_compaction_lag_ms: f.long("min.compaction.lag.ms"),
            min_insync_replicas: f.int("min.insync.replicas"),
            preallocate: f.boolean("preallocate"),
            remote_log_copy_disable: f.boolean("remote.log.copy.disable"),
            remote_log_delete_on_disable: f.boolean("remote.log.delete.on.disable"),
            remote_storage_enable: f.boolean("remote.storage.enable"),
            retention_bytes: f.long("retention.bytes"),
            retention_ms: f.long("retention.ms"),
            // Tests of Kafka roll small segments with the internal key; it wins when it is set.
            segment_bytes: match lookup("internal.segment.bytes") {
                Some(Value::Number(bytes)) => bytes as i32,
                _ => f.int("segment.bytes"),
            },
            segment_index_bytes: f.int("segment.index.bytes"),
            segment_jitter_ms: f.long("segment.jitter.ms"),
            segment_ms: f.long("segment.ms"),
            unclean_leader_election_enable: f.boolean("unclean.leader.election.enable"),
        }
    }
}

/// Reads topic values out of a lookup that falls back to the key table's defaults.
struct Fields<'a>(&'a dyn Fn(&str) -> Option<Value>);

impl Fields<'_> {
    fn value(&self, name: &str) -> Value {
        (self.0)(name)
            .or_else(|| topic_key(name)?.default_value())
            .expect("every topic key read here has a default")
    }

    fn long(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Number(n) => n,
            other => unreachable!("{name} is a number, not {other:?}"),
        }
    }

    fn int(&self, name: &str) -> i32 {
        self.long(name) as i32
    }

    fn double(&self, name: &str) -> f64 {
        match self.value(name) {
            Value::Double(n) => n,
            other => unreachable!("{name} is a double, not {other:?}"),
        }
    }

    fn boolean(&self, name: &str) -> bool {
        self.value(name) == Value::Boolean(true)
    }

    fn text(&self, name: &str) -> String {
        self.value(name).to_string()
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::List(list) => list,
            other => unreachable!("{name} is a list, not {other:?}"),
        }
    }
}

impl Config {
    /// The broker's default for a topic key, from the first of its synonyms that is set; `None` leaves the table's.
    pub(super) fn topic_default(&self, topic_name: &str) -> Option<Value> {
        let (_, synonyms) = TOPIC_SYNONYMS
            .iter()
            .find(|(name, _)| *name == topic_name)?;
        synonyms.iter().find_map(|(broker_name, factor)| {
            match self.value(broker_name)? {
                // Whatever is below zero means no limit.
                Value::Number(n) if n < 0 && topic_name == "retention.ms" => {
                    Some(Value::Number(-1))
                }
                Value::Number(n) => Some(Value::Number(n.saturating_mul(*factor))),
                value => Some(value),
            }
        })
    }
}
