//! The keys of topics, groups and client-metrics subscriptions as Apache Kafka 4.3.1 has them, each
//! table sorted by name.

use super::key::Kind::{Boolean, Double, Int, List, Long, String};
use super::key::Mode::ClusterWide;
use super::key::Valid::{
    Any, AtLeast, Between, BetweenF, GzipLevel, ListOf, OneOf, ShareOffsetReset, ThrottledReplicas,
};
use super::key::{Empty::MayBeEmpty, Key, k};

#[rustfmt::skip] // one key, one line
pub(super) static TOPIC_KEYS: &[Key] = &[
    k("cleanup.policy", List, Some("delete"), ListOf(&["compact", "delete"], MayBeEmpty), ClusterWide),
    k("compression.gzip.level", Int, Some("-1"), GzipLevel, ClusterWide),
    k("compression.lz4.level", Int, Some("9"), Between(1, 17), ClusterWide),
    k("compression.type", String, Some("producer"), OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), ClusterWide),
    k("compression.zstd.level", Int, Some("3"), Between(-131_072, 22), ClusterWide),
    k("delete.retention.ms", Long, Some("86400000"), AtLeast(0), ClusterWide),
    k("file.delete.delay.ms", Long, Some("60000"), AtLeast(0), ClusterWide),
    k("flush.messages", Long, Some("9223372036854775807"), AtLeast(1), ClusterWide),
    k("flush.ms", Long, Some("9223372036854775807"), AtLeast(0), ClusterWide),
    k("follower.replication.throttled.replicas", List, Some(""), ThrottledReplicas, ClusterWide),
    k("index.interval.bytes", Int, Some("4096"), AtLeast(0), ClusterWide),
    k("internal.segment.bytes", Int, None, Any, ClusterWide).internal(),
    k("leader.replication.throttled.replicas", List, Some(""), ThrottledReplicas, ClusterWide),
    k("local.retention.bytes", Long, Some("-2"), AtLeast(-2), ClusterWide),
    k("local.retention.ms", Long, Some("-2"), AtLeast(-2), ClusterWide),
    k("max.compaction.lag.ms", Long, Some("9223372036854775807"), AtLeast(1), ClusterWide),
    k("max.message.bytes", Int, Some("1048588"), AtLeast(0), ClusterWide),
    k("message.timestamp.after.max.ms", Long, Some("3600000"), AtLeast(0), ClusterWide),
    k("message.timestamp.before.max.ms", Long, Some("9223372036854775807"), AtLeast(0), ClusterWide),
    k("message.timestamp.type", String, Some("CreateTime"), OneOf(&["CreateTime", "LogAppendTime"]), ClusterWide),
    k("min.cleanable.dirty.ratio", Double, Some("0.5"), BetweenF(0.0, 1.0), ClusterWide),
    k("min.compaction.lag.ms", Long, Some("0"), AtLeast(0), ClusterWide),
    k("min.insync.replicas", Int, Some("1"), AtLeast(1), ClusterWide),
    k("preallocate", Boolean, Some("false"), Any, ClusterWide),
    k("remote.log.copy.disable", Boolean, Some("false"), Any, ClusterWide),
    k("remote.log.delete.on.disable", Boolean, Some("false"), Any, ClusterWide),
    k("remote.storage.enable", Boolean, Some("false"), Any, ClusterWide),
    k("retention.bytes", Long, Some("-1"), Any, ClusterWide),
    k("retention.ms", Long, Some("604800000"), AtLeast(-1), ClusterWide),
    k("segment.bytes", Int, Some("1073741824"), AtLeast(1_048_576), ClusterWide),
    k("segment.index.bytes", Int, Some("10485760"), AtLeast(4), ClusterWide),
    k("segment.jitter.ms", Long, Some("0"), AtLeast(0), ClusterWide),
    k("segment.ms", Long, Some("604800000"), AtLeast(1), ClusterWide),
    k("unclean.leader.election.enable", Boolean, Some("false"), Any, ClusterWide),
];

#[rustfmt::skip] // one key, one line
pub(super) static GROUP_KEYS: &[Key] = &[
    k("consumer.assignment.interval.ms", Int, Some("1000"), AtLeast(0), ClusterWide),
    k("consumer.heartbeat.interval.ms", Int, Some("5000"), AtLeast(1), ClusterWide),
    k("consumer.session.timeout.ms", Int, Some("45000"), AtLeast(1), ClusterWide),
    k("share.assignment.interval.ms", Int, Some("1000"), AtLeast(0), ClusterWide),
    k("share.auto.offset.reset", String, Some("latest"), ShareOffsetReset, ClusterWide),
    k("share.delivery.count.limit", Int, Some("5"), AtLeast(2), ClusterWide),
    k("share.heartbeat.interval.ms", Int, Some("5000"), AtLeast(1), ClusterWide),
    k("share.isolation.level", String, Some("read_uncommitted"), OneOf(&["read_committed", "read_uncommitted"]), ClusterWide),
    k("share.partition.max.record.locks", Int, Some("2000"), AtLeast(100), ClusterWide),
    k("share.record.lock.duration.ms", Int, Some("30000"), AtLeast(1000), ClusterWide),
    k("share.renew.acknowledge.enable", Boolean, Some("true"), Any, ClusterWide),
    k("share.session.timeout.ms", Int, Some("45000"), AtLeast(1), ClusterWide),
    k("streams.assignment.interval.ms", Int, Some("1000"), AtLeast(0), ClusterWide),
    k("streams.heartbeat.interval.ms", Int, Some("5000"), AtLeast(1), ClusterWide),
    k("streams.initial.rebalance.delay.ms", Int, Some("3000"), AtLeast(0), ClusterWide),
    k("streams.num.standby.replicas", Int, Some("0"), AtLeast(0), ClusterWide),
    k("streams.session.timeout.ms", Int, Some("45000"), AtLeast(1), ClusterWide),
];

#[rustfmt::skip] // one key, one line
pub(super) static CLIENT_METRICS_KEYS: &[Key] = &[
    k("interval.ms", Int, Some("300000"), Any, ClusterWide),
    k("match", List, Some(""), ListOf(&[], MayBeEmpty), ClusterWide),
    k("metrics", List, Some(""), ListOf(&[], MayBeEmpty), ClusterWide),
];
