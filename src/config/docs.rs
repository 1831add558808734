//! One line about each key that people set most, in our own words; DescribeConfigs gives them to clients that ask.

/// Sorted by name.
#[rustfmt::skip] // one key, one line
static DOCS: &[(&str, &str)] = &[
    ("advertised.listeners", "Addresses that clients and other nodes are told to connect to."),
    ("auto.create.topics.enable", "Whether a metadata request for an unknown topic creates it."),
    ("cleanup.policy", "What happens to old segments: delete them, compact them, both, or (empty) keep them."),
    ("compression.type", "Codec that the broker stores with; producer keeps every batch as it came."),
    ("connections.max.idle.ms", "Connections without a request for this long are closed."),
    ("consumer.heartbeat.interval.ms", "How often members of the consumer group send heartbeats."),
    ("consumer.session.timeout.ms", "A member of the consumer group without a heartbeat for this long is removed."),
    ("default.replication.factor", "Replicas of topics created without a number of their own."),
    ("delete.retention.ms", "How long a compacted topic keeps its tombstones."),
    ("delete.topic.enable", "Whether topics can be deleted."),
    ("file.delete.delay.ms", "How long a deleted segment stays on disk."),
    ("flush.messages", "Records after which the log is forced to disk; 1 means before every answer."),
    ("flush.ms", "Time after which the log is forced to disk."),
    ("group.initial.rebalance.delay.ms", "How long an empty group waits for more members before its first rebalance."),
    ("group.max.session.timeout.ms", "Longest session timeout that a classic member may ask for."),
    ("group.min.session.timeout.ms", "Shortest session timeout that a classic member may ask for."),
    ("index.interval.bytes", "Bytes of log between two entries of the offset index."),
    ("listeners", "Addresses that this node listens on, as NAME://host:port."),
    ("log.dirs", "Directories that hold the partitions."),
    ("log.retention.hours", "Hours after which segments are deleted; the minutes and ms forms win."),
    ("max.compaction.lag.ms", "Longest time that a record may stay out of compaction."),
    ("max.connections", "Connections that this broker takes in all."),
    ("max.connections.per.ip", "Connections that this broker takes from one address."),
    ("max.message.bytes", "Largest record batch that the topic takes, as sent."),
    ("message.max.bytes", "Largest record batch that topics take unless they say otherwise."),
    ("message.timestamp.after.max.ms", "How far ahead of the broker's clock a record's timestamp may be."),
    ("message.timestamp.before.max.ms", "How far behind the broker's clock a record's timestamp may be."),
    ("message.timestamp.type", "Whether records carry the producer's time or that of the append."),
    ("min.cleanable.dirty.ratio", "Share of uncompacted bytes at which compaction starts."),
    ("min.compaction.lag.ms", "Shortest time that a record stays out of compaction."),
    ("min.insync.replicas", "In-sync replicas that a write with acks=all needs."),
    ("node.id", "This node's number in the cluster."),
    ("num.partitions", "Partitions of topics created without a number of their own."),
    ("offsets.retention.minutes", "How long offsets of an empty group are kept."),
    ("ottla.http.listener", "Where /metrics, /healthz and /readyz are served, as host:port; empty switches it off."),
    ("preallocate", "Whether a new segment's file gets its full size at once."),
    ("process.roles", "What this node is: broker, controller, or both."),
    ("retention.bytes", "Bytes of a partition above which old segments are deleted; -1 means no limit."),
    ("retention.ms", "Time after which old segments are deleted; -1 means never."),
    ("segment.bytes", "Size at which a new segment is started."),
    ("segment.index.bytes", "Largest size of a segment's index."),
    ("segment.jitter.ms", "Random part taken off segment.ms, so that segments do not all roll at once."),
    ("segment.ms", "Time after which a new segment is started."),
    ("socket.request.max.bytes", "Largest request that is taken."),
    ("transactional.id.expiration.ms", "How long an idle transactional id is remembered."),
    ("unclean.leader.election.enable", "Whether a replica that lags may become leader, losing records."),
];

/// The line about `name`, if there is one.
pub(super) fn of(name: &str) -> Option<&'static str> {
    let at = DOCS.binary_search_by(|(key, _)| key.cmp(&name)).ok()?;
    Some(DOCS[at].1)
}

#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    DOCS.iter().map(|(name, _)| *name)
}
