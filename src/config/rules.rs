//! The rules that span several keys: what `KafkaConfig.validateValues` and the constructors of Kafka's config classes refuse,
//! at the start as in a dynamic change. The rules of roles and quorum are in `roles`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::fields::Config;
use super::key::Value;
use super::listeners::{Endpoint, SecurityProtocol, parse_ip_overrides};
use super::load::ConfigError;
use super::resource_keys::GROUP_KEYS;
use super::{TopicConfig, split_list};

/// The value of the first key may not be above that of the second.
const AT_MOST: &[(&str, &str)] = &[
    ("replica.fetch.wait.max.ms", "replica.socket.timeout.ms"),
    ("replica.fetch.wait.max.ms", "replica.lag.time.max.ms"),
    ("group.share.max.size", "group.share.max.share.sessions"),
];

/// The value of the first key must be below that of the second, unless that one is negative and so means never.
const BELOW: &[(&str, &str)] = &[
    (
        "group.consumer.heartbeat.interval.ms",
        "group.consumer.session.timeout.ms",
    ),
    (
        "group.share.heartbeat.interval.ms",
        "group.share.session.timeout.ms",
    ),
    (
        "group.streams.heartbeat.interval.ms",
        "group.streams.session.timeout.ms",
    ),
    (
        "connection.failed.authentication.delay.ms",
        "connections.max.idle.ms",
    ),
];

/// Bytes that each cleaner thread needs more than.
const DEDUPE_BYTES_PER_THREAD: i64 = 1024 * 1024;

fn refused(what: impl Into<String>, next_step: impl Into<String>) -> Result<(), ConfigError> {
    Err(ConfigError::new(what, next_step))
}

impl Config {
    pub(super) fn check_together(&self) -> Result<(), ConfigError> {
        self.check_listeners()?;
        self.check_roles()?;
        self.check_order()?;
        self.check_network()?;
        self.check_logs()?;
        self.check_group_protocols()
    }

    /// The number that a broker key holds.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// Why a group cannot have `value` for its key `name` under the bounds that the broker's own keys set:
    /// `group.<family>.min.<rest>` and `group.<family>.max.<rest>`.
    pub(super) fn out_of_group_bounds(&self, name: &str, value: i64) -> Option<String> {
        let (family, rest) = name.split_once('.')?;
        let rest = rest.strip_prefix("num.").unwrap_or(rest);
        let (min, max) = (
            format!("group.{family}.min.{rest}"),
            format!("group.{family}.max.{rest}"),
        );
        if self.number(&min).is_some_and(|least| value < least) {
            return Some(format!("{name} must be greater than or equal to {min}"));
        }
        if self.number(&max).is_some_and(|most| value > most) {
            return Some(format!("{name} must be less than or equal to {max}"));
        }
        None
    }

    fn check_order(&self) -> Result<(), ConfigError> {
        let pair = |(a, b): &(&str, &str)| Some((self.number(a)?, self.number(b)?));
        for names @ (low, high) in AT_MOST {
            if pair(names).is_some_and(|(a, b)| a > b) {
                return refused(format!("{low} is above {high}"), format!("lower {low}"));
            }
        }
        for names @ (low, high) in BELOW {
            if pair(names).is_some_and(|(a, b)| b >= 0 && a >= b) {
                return refused(
                    format!("{low} must be below {high}"),
                    format!("lower {low}"),
                );
            }
        }
        for key in GROUP_KEYS {
            let broker_key = format!("group.{}", key.name);
            let value = self.number(&broker_key);
            if let Some(why) = value.and_then(|value| self.out_of_group_bounds(key.name, value)) {
                let next = format!("set {broker_key}, or its bounds, so that it lies between them");
                return refused(format!("group.{why}"), next);
            }
        }
        Ok(())
    }

    fn check_group_protocols(&self) -> Result<(), ConfigError> {
        let protocols = &self.group_coordinator_rebalance_protocols;
        if !protocols.iter().any(|protocol| protocol == "classic") {
            return refused(
                "group.coordinator.rebalance.protocols lacks classic, which cannot be disabled",
                "add classic to group.coordinator.rebalance.protocols",
            );
        }
        match self.value("group.share.assignors") {
            Some(Value::List(assignors)) if assignors.len() != 1 => refused(
                "group.share.assignors must contain exactly one assignor",
                "set group.share.assignors=simple",
            ),
            _ => Ok(()),
        }
    }

    fn check_network(&self) -> Result<(), ConfigError> {
        if self.queued_max_request_bytes > 0
            && self.queued_max_request_bytes < i64::from(self.socket_request_max_bytes)
        {
            return refused(
                "queued.max.request.bytes is below socket.request.max.bytes: one request could never be taken",
                "raise queued.max.request.bytes",
            );
        }
        let Some(overrides) = parse_ip_overrides(&self.max_connections_per_ip_overrides) else {
            return refused(
                "max.connections.per.ip.overrides is not a list of HOST:COUNT",
                "write the hosts with the number of connections each may have, such as 10.0.0.1:100,host.example:200",
            );
        };
        if self.max_connections_per_ip == 0 && overrides.is_empty() {
            return refused(
                "max.connections.per.ip=0 lets nobody in",
                "set max.connections.per.ip.overrides as well, or raise max.connections.per.ip",
            );
        }
        Ok(())
    }

    fn check_logs(&self) -> Result<(), ConfigError> {
        let defaults = TopicConfig::resolve(self, &BTreeMap::new());
        if defaults.segment_ms < 1 || defaults.segment_jitter_ms < 0 {
            return refused(
                "log.roll.ms is below 1, or log.roll.jitter.ms below 0",
                "set log.roll.ms to the milliseconds after which a new segment starts",
            );
        }
        if defaults.retention_ms == 0 {
            return refused(
                "log.retention.ms is neither negative nor at least 1",
                "set log.retention.ms to -1 to keep records for ever",
            );
        }
        let threads = i64::from(self.log_cleaner_threads);
        let each = self.log_cleaner_dedupe_buffer_size.checked_div(threads);
        if each.is_none_or(|bytes| bytes <= DEDUPE_BYTES_PER_THREAD) {
            return refused(
                "log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread, of which there is one at least",
                "raise log.cleaner.dedupe.buffer.size, or lower log.cleaner.threads",
            );
        }
        if self.is_broker() {
            self.check_cordoned_log_dirs()?;
        }
        if self.value("remote.log.storage.system.enable") == Some(Value::Boolean(true)) {
            return refused(
                "remote.log.storage.system.enable=true: tiered storage is not built yet",
                "remove remote.log.storage.system.enable",
            );
        }
        Ok(())
    }

    /// `*` alone, or directories of this broker (KIP-1066).
    fn check_cordoned_log_dirs(&self) -> Result<(), ConfigError> {
        let cordoned = &self.cordoned_log_dirs;
        if cordoned.len() == 1 && cordoned[0] == "*" {
            return Ok(());
        }
        let is_own = |name: &String| self.log_dirs.iter().any(|dir| dir.as_os_str() == &**name);
        match cordoned.iter().find(|name| !is_own(name)) {
            None => Ok(()),
            Some(name) => refused(
                format!("cordoned.log.dirs has {name}, which is not in log.dirs"),
                "name directories of log.dirs, or * alone",
            ),
        }
    }

    /// What a broker's topics cannot have as their defaults (`LogConfig`). In a dynamic change Kafka does not look at it.
    pub(super) fn check_log_defaults(&self) -> Result<(), ConfigError> {
        let defaults = TopicConfig::resolve(self, &BTreeMap::new());
        if !self.is_broker() {
            return Ok(());
        }
        if defaults.min_compaction_lag_ms > defaults.max_compaction_lag_ms {
            return refused(
                "log.cleaner.min.compaction.lag.ms is above log.cleaner.max.compaction.lag.ms",
                "lower log.cleaner.min.compaction.lag.ms",
            );
        }
        if defaults.flush_ms < 0 {
            return refused(
                "log.flush.interval.ms, or log.flush.scheduler.interval.ms in its place, is negative",
                "remove log.flush.interval.ms to leave flushing to the operating system",
            );
        }
        Ok(())
    }

    fn check_listeners(&self) -> Result<(), ConfigError> {
        for (i, one) in self.listeners.iter().enumerate() {
            for other in &self.listeners[..i] {
                if one.listener_name == other.listener_name {
                    return refused(
                        format!("listeners names {} twice", one.listener_name),
                        "give every listener its own name",
                    );
                }
                if one.port != 0 && one.port == other.port && !are_both_families(one, other) {
                    return refused(
                        format!("listeners has port {} twice", one.port),
                        "give every listener its own port",
                    );
                }
            }
            if one.security_protocol != SecurityProtocol::Plaintext {
                return refused(
                    format!(
                        "listener {} uses {}, which is not built yet",
                        one.listener_name,
                        one.security_protocol.name()
                    ),
                    "use PLAINTEXT inside a network you trust",
                );
            }
        }
        for endpoint in &self.advertised_listeners {
            if endpoint.host == "0.0.0.0" {
                return refused(
                    format!("advertised.listeners has {endpoint}, to which nobody can connect"),
                    "set advertised.listeners to an address that clients can reach",
                );
            }
        }
        let set = self.originals.get("advertised.listeners");
        for text in set.map_or_else(Vec::new, |set| split_list(set)) {
            let name = text.split_once("://").map_or("", |(name, _)| name);
            let known = self
                .listeners
                .iter()
                .any(|l| l.listener_name.eq_ignore_ascii_case(name));
            if !known && !self.is_controller_listener(name) {
                return refused(
                    format!("advertised.listeners has {text}, but listeners has no {name}"),
                    "advertise only what listeners opens",
                );
            }
        }
        Ok(())
    }
}

/// One port serves two listeners if one has an IPv4 address and the other an IPv6 address.
fn are_both_families(one: &Endpoint, other: &Endpoint) -> bool {
    let address = |endpoint: &Endpoint| endpoint.host.parse::<IpAddr>();
    match (address(one), address(other)) {
        (Ok(one), Ok(other)) => one.is_ipv4() != other.is_ipv4(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings that are taken, and such that are not.
    const CASES: &[(&str, &str)] = &[
        (
            "group.consumer.heartbeat.interval.ms=15000",
            "group.consumer.heartbeat.interval.ms=15001",
        ),
        (
            "group.share.session.timeout.ms=45000",
            "group.share.session.timeout.ms=44999",
        ),
        (
            "group.streams.assignment.interval.ms=15000",
            "group.streams.assignment.interval.ms=15001",
        ),
        (
            "group.streams.num.standby.replicas=2",
            "group.streams.num.standby.replicas=3",
        ),
        (
            "group.share.min.delivery.count.limit=5",
            "group.share.delivery.count.limit=3\ngroup.share.min.delivery.count.limit=4",
        ),
        (
            "group.share.max.record.lock.duration.ms=30000",
            "group.share.record.lock.duration.ms=60001",
        ),
        (
            "group.share.partition.max.record.locks=4000",
            "group.share.partition.max.record.locks=4001",
        ),
        (
            "group.share.max.share.sessions=200",
            "group.share.max.share.sessions=199",
        ),
        (
            "group.consumer.min.session.timeout.ms=5001\ngroup.consumer.session.timeout.ms=5001",
            "group.consumer.min.session.timeout.ms=5000\ngroup.consumer.session.timeout.ms=5000",
        ),
        (
            "group.coordinator.rebalance.protocols=classic",
            "group.coordinator.rebalance.protocols=consumer",
        ),
        (
            "group.consumer.assignors=range",
            "group.consumer.assignors=com.example.Assignor",
        ),
        ("group.share.assignors=simple", "group.share.assignors=own"),
        (
            "offsets.topic.compression.codec=4",
            "offsets.topic.compression.codec=7",
        ),
        (
            "share.coordinator.state.topic.compression.codec=4",
            "share.coordinator.state.topic.compression.codec=-1",
        ),
        ("connections.max.idle.ms=101", "connections.max.idle.ms=100"),
        ("connections.max.idle.ms=-1", "connections.max.idle.ms=0"),
        (
            "metrics.recording.level=debug",
            "metrics.recording.level=loud",
        ),
        ("log.retention.ms=-2", "log.retention.ms=0"),
        ("log.flush.interval.ms=0", "log.flush.interval.ms=-1"),
        ("log.cleaner.threads=1", "log.cleaner.threads=0"),
        (
            "log.cleaner.enable=false",
            "log.cleaner.enable=false\nlog.cleaner.dedupe.buffer.size=1048576",
        ),
        (
            "log.cleaner.max.compaction.lag.ms=5\nlog.cleaner.min.compaction.lag.ms=5",
            "log.cleaner.max.compaction.lag.ms=5\nlog.cleaner.min.compaction.lag.ms=6",
        ),
        (
            "max.connections.per.ip.overrides=host.example:5 , ::1:6,",
            "max.connections.per.ip.overrides=host.example",
        ),
        (
            "max.connections.per.ip=0\nmax.connections.per.ip.overrides=a:1",
            "max.connections.per.ip=0",
        ),
        (
            "max.connections.per.ip.overrides=a:-1",
            "max.connections.per.ip.overrides=a b:1",
        ),
        ("cordoned.log.dirs=/tmp/x", "cordoned.log.dirs=/tmp/y"),
        ("cordoned.log.dirs=*", "cordoned.log.dirs=*,/tmp/x"),
        (
            "listeners=A://127.0.0.1:1,B://[::1]:1",
            "listeners=A://127.0.0.1:1,B://localhost:1",
        ),
        (
            "listeners=A://::1:1,B://127.0.0.1:1",
            "listeners=A://::1:1,B://[::2]:1",
        ),
        (
            "group.min.session.timeout.ms=9\ngroup.max.session.timeout.ms=8",
            "group.max.size=0",
        ),
    ];

    fn load(settings: &str) -> Result<Config, ConfigError> {
        Config::parse(&format!("node.id=1\nlog.dirs=/tmp/x\n{settings}"), &[])
    }

    #[test]
    fn kafka_refuses_these_and_takes_their_neighbours() {
        for (good, bad) in CASES {
            const MAP: &str =
                "listener.security.protocol.map=A:PLAINTEXT,B:PLAINTEXT,PLAINTEXT:PLAINTEXT\n";
            let with_map = |settings: &str| match settings.strip_prefix("listeners=") {
                Some(_) => load(&format!("{MAP}inter.broker.listener.name=A\n{settings}")),
                None => load(settings),
            };
            if let Err(error) = with_map(good) {
                panic!("{good}: {error}");
            }
            assert!(with_map(bad).is_err(), "{bad}");
        }
    }
}
