//! Settings: the one table of config keys, loading them from file and command line, the typed views that the modules read,
//! and what DescribeConfigs and AlterConfigs need to know of them.

mod broker_keys;
mod describe;
mod docs;
mod dynamic;
mod fields;
mod java;
mod key;
mod legacy;
mod listeners;
mod load;
mod loggers;
mod properties;
mod providers;
mod resource_keys;
mod roles;
mod rules;
mod topic;
mod validate;

use broker_keys::BROKER_KEYS;
use resource_keys::{CLIENT_METRICS_KEYS, GROUP_KEYS, TOPIC_KEYS};

pub use describe::{ConfigEntry, ConfigSource, ConfigSynonym, describe_client_metrics, is_list};
pub use fields::{Config, parse_server, parse_voter};
pub use key::{InvalidValue, Key, Kind, Mode, Valid, Value, split_list};
pub use listeners::{Endpoint, SecurityProtocol};
pub use load::ConfigError;
pub use loggers::{LoggerChange, LoggerFilter, ROOT as ROOT_LOGGER, loggers, set_loggers};
pub use properties::parse as parse_properties;
pub use topic::{
    BrokerCompressionType, CleanupPolicy, TimestampType, TopicConfig, is_throttled_replica,
};
pub use validate::{
    validate_client_metrics_configs, validate_group_configs, validate_topic_configs,
    validate_topic_name,
};

/// Milliseconds in a minute and in an hour: what a broker synonym is multiplied with to become the topic's value.
const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// Topic key to broker keys that are its default, first that is set wins (`ServerTopicConfigSynonyms`). Sorted.
static TOPIC_SYNONYMS: &[(&str, &[(&str, i64)])] = &[
    ("cleanup.policy", &[("log.cleanup.policy", 1)]),
    ("compression.gzip.level", &[("compression.gzip.level", 1)]),
    ("compression.lz4.level", &[("compression.lz4.level", 1)]),
    ("compression.type", &[("compression.type", 1)]),
    ("compression.zstd.level", &[("compression.zstd.level", 1)]),
    (
        "delete.retention.ms",
        &[("log.cleaner.delete.retention.ms", 1)],
    ),
    (
        "file.delete.delay.ms",
        &[("log.segment.delete.delay.ms", 1)],
    ),
    ("flush.messages", &[("log.flush.interval.messages", 1)]),
    (
        "flush.ms",
        &[
            ("log.flush.interval.ms", 1),
            ("log.flush.scheduler.interval.ms", 1),
        ],
    ),
    ("index.interval.bytes", &[("log.index.interval.bytes", 1)]),
    ("local.retention.bytes", &[("log.local.retention.bytes", 1)]),
    ("local.retention.ms", &[("log.local.retention.ms", 1)]),
    (
        "max.compaction.lag.ms",
        &[("log.cleaner.max.compaction.lag.ms", 1)],
    ),
    ("max.message.bytes", &[("message.max.bytes", 1)]),
    (
        "message.timestamp.after.max.ms",
        &[("log.message.timestamp.after.max.ms", 1)],
    ),
    (
        "message.timestamp.before.max.ms",
        &[("log.message.timestamp.before.max.ms", 1)],
    ),
    (
        "message.timestamp.type",
        &[("log.message.timestamp.type", 1)],
    ),
    (
        "min.cleanable.dirty.ratio",
        &[("log.cleaner.min.cleanable.ratio", 1)],
    ),
    (
        "min.compaction.lag.ms",
        &[("log.cleaner.min.compaction.lag.ms", 1)],
    ),
    ("min.insync.replicas", &[("min.insync.replicas", 1)]),
    ("preallocate", &[("log.preallocate", 1)]),
    ("retention.bytes", &[("log.retention.bytes", 1)]),
    (
        "retention.ms",
        &[
            ("log.retention.ms", 1),
            ("log.retention.minutes", MINUTE_MS),
            ("log.retention.hours", HOUR_MS),
        ],
    ),
    ("segment.bytes", &[("log.segment.bytes", 1)]),
    ("segment.index.bytes", &[("log.index.size.max.bytes", 1)]),
    (
        "segment.jitter.ms",
        &[
            ("log.roll.jitter.ms", 1),
            ("log.roll.jitter.hours", HOUR_MS),
        ],
    ),
    (
        "segment.ms",
        &[("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)],
    ),
    (
        "unclean.leader.election.enable",
        &[("unclean.leader.election.enable", 1)],
    ),
];

fn find(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    let at = keys.binary_search_by(|key| key.name.cmp(name)).ok()?;
    Some(&keys[at])
}

/// The broker key `name`, if there is one.
pub fn broker_key(name: &str) -> Option<&'static Key> {
    find(BROKER_KEYS, name)
}

/// The topic key `name`, if there is one.
pub fn topic_key(name: &str) -> Option<&'static Key> {
    find(TOPIC_KEYS, name)
}

/// The group key `name`, if there is one.
pub fn group_key(name: &str) -> Option<&'static Key> {
    find(GROUP_KEYS, name)
}

/// The key `name` of a client-metrics subscription, if there is one.
pub fn client_metrics_key(name: &str) -> Option<&'static Key> {
    find(CLIENT_METRICS_KEYS, name)
}

#[cfg(test)]
mod tests;
