//! Keys of older Kafka versions, of Java plug-ins, and of what Kafka has and this broker does without: what is ignored with a
//! warning, and what must stop the start, because going on would widen access or lose data.

use std::collections::BTreeMap;

/// Ignored with a warning: a trailing or leading `*` matches the rest.
const IGNORED: &[(&str, &str)] = &[
    ("zookeeper.*", "there is no ZooKeeper"),
    (
        "inter.broker.protocol.version",
        "the metadata version takes its place since Kafka 4.0",
    ),
    (
        "log.message.format.version",
        "only message format v2 exists since Kafka 4.0",
    ),
    (
        "*.downconversion.enable",
        "only message format v2 exists since Kafka 4.0",
    ),
    (
        "metric.reporters",
        "metrics are at /metrics of ottla.http.listener",
    ),
    (
        "kafka.metrics.reporters",
        "metrics are at /metrics of ottla.http.listener",
    ),
    (
        "auto.include.jmx.reporter",
        "metrics are at /metrics of ottla.http.listener",
    ),
    ("password.encoder.*", "it belonged to ZooKeeper"),
    ("control.plane.listener.name", "it belonged to ZooKeeper"),
    ("confluent.*", "it is not Apache Kafka's"),
    ("ssl.provider", "there is no JVM"),
    ("ssl.protocol", "TLS 1.2 and 1.3 are negotiated"),
    ("ssl.secure.random.implementation", "there is no JVM"),
    ("ssl.keymanager.algorithm", "there is no JVM"),
    ("ssl.trustmanager.algorithm", "there is no JVM"),
    ("background.threads", "there are no such threads"),
    (
        "queued.max.requests",
        "requests wait in their connection, not in one queue; queued.max.request.bytes bounds what they hold beyond 128 KiB each connection",
    ),
    (
        "metadata.max.idle.interval.ms",
        "nothing is written to the metadata log while nothing changes",
    ),
    (
        "metadata.max.retention.*",
        "two snapshots of the metadata are kept, with the log since the older one",
    ),
    (
        "*.purgatory.purge.interval.requests",
        "there is no purgatory",
    ),
    (
        "group.coordinator.append.linger.ms",
        "what a turn of the coordinator decided is appended at once, together",
    ),
    (
        "controller.quorum.append.linger.ms",
        "what comes while the metadata log is written goes into its next write",
    ),
    (
        "server.max.startup.time.ms",
        "a start takes as long as recovery takes, and says how far it is",
    ),
    ("broker.id.generation.enable", "it belonged to ZooKeeper"),
    ("reserved.broker.max.id", "it belonged to ZooKeeper"),
    (
        "log.message.timestamp.difference.max.ms",
        "use log.message.timestamp.before.max.ms and .after.max.ms",
    ),
];

/// Classes that restrict access or decide placement: an unknown one cannot be ignored.
const REFUSED_CLASSES: &[&str] = &[
    "create.topic.policy.class.name",
    "alter.config.policy.class.name",
    "client.quota.callback.class",
    "sasl.server.callback.handler.class",
];

/// Why `name` is ignored, if it is.
pub(super) fn ignored(name: &str) -> Option<&'static str> {
    IGNORED
        .iter()
        .find(|(pattern, _)| match pattern.split_once('*') {
            Some(("", suffix)) => name.ends_with(suffix),
            Some((prefix, _)) => name.starts_with(prefix),
            None => name == *pattern,
        })
        .map(|(_, why)| *why)
}

/// The first setting that must stop the start: key, and why.
pub(super) fn refused(settings: &BTreeMap<String, String>) -> Option<(String, String)> {
    for (name, value) in settings {
        let base = name
            .rsplit_once("listener.name.")
            .map_or(name.as_str(), |(_, rest)| rest);
        let value = value.trim();
        if value.is_empty() {
            continue;
        }
        let class = REFUSED_CLASSES
            .iter()
            .any(|class| base == *class || base.ends_with(&format!(".{class}")));
        if class {
            return Some((
                name.clone(),
                format!(
                    "the Java class {value} cannot be loaded, and going on without it would widen access"
                ),
            ));
        }
        if base == "authorizer.class.name" {
            return Some((
                name.clone(),
                "authorisation is not built yet, and going on without it would let everybody in"
                    .to_owned(),
            ));
        }
    }
    if settings.contains_key("zookeeper.connect") && settings.contains_key("process.roles") {
        return Some((
            "zookeeper.connect".to_owned(),
            "process.roles and zookeeper.connect are both set: this is a file of a migration that was never finished".to_owned(),
        ));
    }
    None
}
