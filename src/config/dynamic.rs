//! Dynamic broker configs: what may be changed while the broker runs, and the settings that result. The values live in the
//! metadata image (ConfigRecords of type BROKER); the order is broker, cluster default, file, table.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::broker_keys::DYNAMIC_ONLY_KEYS;
use super::fields::{Config, Parts};
use super::key::{Key, Mode, Value};
use super::listeners::listener_prefix;
use super::{BROKER_KEYS, TOPIC_SYNONYMS, broker_key, find};
use crate::protocol::{Error, ErrorCode};

/// Keys that are set per listener only (`listener.name.<listener>.<key>`) when set dynamically.
const LISTENER_ONLY: &[&str] = &[
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

/// Numbers of threads that may change by half or double (`DynamicThreadPool`, `DynamicRemoteLogConfig`).
const THREAD_POOLS: &[&str] = &[
    "num.io.threads",
    "num.replica.fetchers",
    "num.recovery.threads.per.data.dir",
    "background.threads",
    "remote.log.reader.threads",
    "remote.log.manager.copier.thread.pool.size",
    "remote.log.manager.expiration.thread.pool.size",
    "remote.log.manager.follower.thread.pool.size",
];

/// What listeners have of their own and the cluster may set for them.
const LISTENER_LIMITS: &[&str] = &[
    "max.connections",
    "max.connection.creation.rate",
    "num.network.threads",
];

/// What may not be above what.
const LOCAL_RETENTION: &[(&str, &str)] = &[
    ("local.retention.ms", "retention.ms"),
    ("local.retention.bytes", "retention.bytes"),
];

/// The only reporter of metrics that Kafka brings along.
const JMX_REPORTER: &str = "org.apache.kafka.common.metrics.JmxReporter";

/// Keys of which only the first that is set counts, by precedence.
const SYNONYMS: &[&[&str]] = &[
    &["log.roll.ms", "log.roll.hours"],
    &["log.roll.jitter.ms", "log.roll.jitter.hours"],
    &[
        "log.retention.ms",
        "log.retention.minutes",
        "log.retention.hours",
    ],
];

/// The key `name` means for a broker resource: a broker key, a dynamic-only key, or either behind a listener prefix.
pub(super) fn dynamic_key(name: &str) -> Option<&'static Key> {
    broker_key(name)
        .or_else(|| find(DYNAMIC_ONLY_KEYS, name))
        .or_else(|| broker_key(listener_base(name)?))
}

/// The part of `listener.name.<listener>.<key>` behind the listener.
pub(super) fn listener_base(name: &str) -> Option<&str> {
    let (_, base) = name.strip_prefix("listener.name.")?.split_once('.')?;
    Some(base)
}

/// All names of the setting `name`, by precedence (`DynamicBrokerConfig.brokerConfigSynonyms`).
pub(super) fn broker_synonyms(name: &str) -> Vec<&str> {
    if name == "log.flush.interval.ms" {
        return vec![name, "log.flush.scheduler.interval.ms"];
    }
    if let Some(group) = SYNONYMS.iter().find(|group| group.contains(&name)) {
        return group.to_vec();
    }
    match listener_base(name) {
        Some(base) => vec![name, base],
        None => vec![name],
    }
}

/// Why `name`=`value` cannot be a dynamic config of one broker or, with `per_broker` false, of the cluster.
fn problem(name: &str, value: &str, per_broker: bool) -> Option<String> {
    let direct = broker_key(name);
    if direct.is_some_and(|key| key.mode == Mode::ReadOnly) {
        return Some(format!("Cannot update these configs dynamically: [{name}]"));
    }
    if LISTENER_ONLY.contains(&name) {
        return Some(format!(
            "These security configs can be dynamically updated only per-listener using the listener prefix: [{name}]"
        ));
    }
    if let Some(invalid) = dynamic_key(name).and_then(|key| key.parse(value).err()) {
        return Some(invalid.to_string());
    }
    let per_broker_only = direct.is_some_and(|key| key.mode == Mode::PerBroker)
        || listener_base(name).is_some_and(|base| !LISTENER_LIMITS.contains(&base));
    if !per_broker && per_broker_only {
        return Some(format!(
            "Cannot update these configs at default cluster level, broker id must be specified: [{name}]"
        ));
    }
    None
}

/// Kafka halves or doubles a pool at most; 0 the table refuses.
fn check_threads(name: &str, current: i64, wanted: i64) -> Result<(), String> {
    let bound = if wanted < current / 2 {
        "be at least half"
    } else if wanted > current * 2 {
        "not be greater than double"
    } else {
        return Ok(());
    };
    Err(format!(
        "Dynamic thread count update validation failed for {name}={wanted}, value should {bound} the current value {current}"
    ))
}

impl Config {
    /// Whether `settings`, all dynamic configs of one broker or of the cluster, can be applied. Code 42, as in Kafka
    /// (KAFKA-13609).
    pub fn validate_dynamic(
        &self,
        settings: &BTreeMap<String, String>,
        per_broker: bool,
    ) -> Result<(), Error> {
        let (cluster, broker) = if per_broker {
            (&*self.dynamic_default, settings)
        } else {
            (settings, &*self.dynamic_broker)
        };
        let mut settings = settings.iter();
        let refused = settings
            .find_map(|(name, value)| problem(name, value, per_broker))
            .map_or_else(|| self.check_change(cluster, broker), Err);
        refused.map_err(|why| Error::new(ErrorCode::InvalidRequest, why))
    }

    /// Whether a running broker can change to these dynamic configs.
    fn check_change(
        &self,
        cluster: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let next = self.with_dynamic(cluster, broker).as_started();
        let next = next.map_err(|error| error.what)?;
        for name in THREAD_POOLS {
            let threads = |config: &Config| config.number(name).unwrap_or(1);
            check_threads(name, threads(self), threads(&next))?;
        }
        self.check_cleaner_threads(next.log_cleaner_threads)?;
        let is_changed = |name: &str| self.effective.get(name) != next.effective.get(name);
        let is_log_key =
            |(_, synonyms): &(_, &[(&str, i64)])| synonyms.iter().any(|(name, _)| is_changed(name));
        if TOPIC_SYNONYMS.iter().any(is_log_key) {
            next.check_local_retention()?;
        }
        if is_changed("metric.reporters")
            && let Some(Value::List(classes)) = next.value("metric.reporters")
            && let Some(class) = classes.iter().find(|class| *class != JMX_REPORTER)
        {
            return Err(format!("metric.reporters has {class}, which is not there"));
        }
        self.check_listener_limits(&next)?;
        let is_listener_key = |key: &&Key| {
            key.mode == Mode::PerBroker && key.name != "cordoned.log.dirs"
                || LISTENER_LIMITS.contains(&key.name)
        };
        let mut listener_keys = BROKER_KEYS.iter().filter(is_listener_key);
        if listener_keys.any(|key| is_changed(key.name)) {
            self.check_listener_change(&next)?;
        }
        Ok(())
    }

    /// Kafka halves or doubles the number of cleaner threads at most (`LogCleaner.validateReconfiguration`).
    fn check_cleaner_threads(&self, threads: i32) -> Result<(), String> {
        let current = self.log_cleaner_threads;
        if threads < 1 {
            Err("Log cleaner threads should be at least 1".to_owned())
        } else if threads < current / 2 {
            Err(format!(
                "Log cleaner threads cannot be reduced to less than half the current value {current}"
            ))
        } else if threads > current.saturating_mul(2) {
            Err(format!(
                "Log cleaner threads cannot be increased to more than double the current value {current}"
            ))
        } else {
            Ok(())
        }
    }

    /// Local segments are kept no longer than all (`DynamicLogConfig.validateReconfiguration`); -2 is as long, -1 for ever.
    fn check_local_retention(&self) -> Result<(), String> {
        for (local_name, name) in LOCAL_RETENTION {
            let number = |name: &str| match self.topic_default(name) {
                Some(Value::Number(number)) => number,
                _ => -1,
            };
            let (local, all) = (number(local_name), number(name));
            if all < 0 || local == -2 {
                continue;
            }
            if local == -1 || local > all {
                return Err(format!(
                    "Invalid value {local} for configuration log.{local_name}: Value must not be more than log.{name} property value: {all}"
                ));
            }
        }
        Ok(())
    }

    /// What each listener has of `LISTENER_LIMITS` (`ListenerConnectionQuota`, `DataPlaneAcceptor`).
    fn check_listener_limits(&self, next: &Config) -> Result<(), String> {
        let is_open = |name: &str| self.broker_listeners().any(|it| it.listener_name == name);
        let kept = next.broker_listeners();
        for listener in kept.filter(|it| is_open(&it.listener_name)) {
            for name in LISTENER_LIMITS {
                let limit = |config: &Config| config.listener_number(&listener.listener_name, name);
                let (Some(current), Some(wanted)) = (limit(self), limit(next)) else {
                    continue;
                };
                if *name == "num.network.threads" {
                    check_threads(name, current, wanted)?;
                } else if current != wanted && wanted <= 0 {
                    return Err(format!("Invalid {name} {wanted}"));
                }
            }
        }
        Ok(())
    }

    /// Listeners come and go by their names; one that stays keeps its settings (`DynamicListenerConfig`).
    fn check_listener_change(&self, next: &Config) -> Result<(), String> {
        let is_open = |config: &Config, name: &str| {
            let mut listeners = config.listeners.iter();
            listeners.any(|it| it.listener_name == name)
        };
        for advertised in self.advertised_broker_listeners() {
            let name = &advertised.listener_name;
            if !is_open(next, name) {
                return Err(format!(
                    "Advertised listeners must be a subset of listeners, which lacks {name}"
                ));
            }
        }
        let kept = next.listeners.iter();
        for listener in kept.filter(|it| is_open(self, &it.listener_name)) {
            let name = &listener.listener_name;
            if self.fixed_listener_settings(name) != next.fixed_listener_settings(name) {
                return Err(format!(
                    "Configs cannot be updated dynamically for existing listener {name}, restart broker or create a new listener for update"
                ));
            }
            let protocol =
                |config: &Config| config.listener_security_protocol_map.get(name).copied();
            if protocol(self) != protocol(next) {
                return Err(format!(
                    "Security protocol cannot be updated for existing listener {name}"
                ));
            }
        }
        Ok(())
    }

    /// The settings of a listener's own that do not change while it is open.
    fn fixed_listener_settings(&self, listener: &str) -> BTreeMap<&str, &str> {
        let prefix = listener_prefix(listener);
        let own = self.effective.iter().filter_map(|(name, value)| {
            let base = name.strip_prefix(&prefix)?;
            let may_change = LISTENER_ONLY.contains(&base) || LISTENER_LIMITS.contains(&base);
            (!may_change).then_some((base, &**value))
        });
        own.collect()
    }

    /// Drops what cannot be a dynamic config of one broker or of the cluster, with a log line: it may come from another
    /// version.
    pub fn retain_usable_dynamic(settings: &mut BTreeMap<String, String>, per_broker: bool) {
        settings.retain(|name, value| match problem(name, value, per_broker) {
            Some(why) => {
                tracing::error!("dynamic config {name} is ignored: {why}");
                false
            }
            None => true,
        });
    }

    /// These settings with the dynamic ones of the cluster and of this broker on top. What cannot be applied is left
    /// out.
    #[must_use]
    pub fn with_dynamic(
        &self,
        cluster: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Config {
        let usable = |settings: &BTreeMap<String, String>, per_broker: bool| {
            let mut usable = settings.clone();
            Self::retain_usable_dynamic(&mut usable, per_broker);
            usable
        };
        let (cluster, broker) = (usable(cluster, false), usable(broker, true));
        let mut effective = (*self.originals).clone();
        for (name, value) in cluster.iter().chain(&broker) {
            let same = SYNONYMS.iter().find(|group| group.contains(&name.as_str()));
            for synonym in same.into_iter().flat_map(|group| group.iter()) {
                effective.remove(*synonym);
            }
            effective.insert(name.clone(), value.clone());
        }
        let mut config = Config::build(Parts {
            listeners: self.listeners.clone(),
            advertised_listeners: self.advertised_listeners.clone(),
            listener_security_protocol_map: self.listener_security_protocol_map.clone(),
            inter_broker_listener_name: self.inter_broker_listener_name.clone(),
            log_dirs: self.log_dirs.clone(),
            metadata_log_dir: self.metadata_log_dir.clone(),
            originals: self.originals.clone(),
            dynamic_default: Arc::new(cluster),
            dynamic_broker: Arc::new(broker),
            effective,
        });
        config.warnings.clone_from(&self.warnings);
        let is_dynamic = |it: &Config| it.dynamic_broker.contains_key("listeners");
        if is_dynamic(self) || is_dynamic(&config) {
            match config.as_started() {
                Ok(wanted) => config.take_listeners(wanted),
                Err(error) => {
                    tracing::error!(%error, "the dynamic config listeners is not applied");
                }
            }
        }
        config
    }

    /// What is open stays where it is.
    fn take_listeners(&mut self, wanted: Config) {
        let open = std::mem::replace(&mut self.listeners, wanted.listeners);
        for listener in &mut self.listeners {
            let mut open = open.iter();
            if let Some(open) = open.find(|it| it.listener_name == listener.listener_name) {
                listener.clone_from(open);
            }
        }
        self.listener_security_protocol_map = wanted.listener_security_protocol_map;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "\
        node.id=1\nlog.dirs=/a,/b\n\
        listeners=PLAINTEXT://:9092,SPARE://:9094,CONTROLLER://:9093\n\
        advertised.listeners=PLAINTEXT://h:9092\n\
        controller.quorum.bootstrap.servers=h:9093\n\
        listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SPARE:PLAINTEXT,NEW:PLAINTEXT\n\
        listener.name.spare.num.network.threads=8\n\
        log.retention.ms=1000\nlog.retention.bytes=1000\n";

    /// Changes that are taken, and such that are not, of a broker and of the cluster.
    const ANYWHERE: &[(&str, &str)] = &[
        ("num.io.threads=16", "num.io.threads=17"),
        ("num.io.threads=4", "num.io.threads=3"),
        ("num.network.threads=6", "num.network.threads=7"),
        ("remote.log.reader.threads=5", "remote.log.reader.threads=4"),
        (
            "metric.reporters=org.apache.kafka.common.metrics.JmxReporter",
            "metric.reporters=com.example.Reporter",
        ),
        ("log.local.retention.ms=1000", "log.local.retention.ms=1001"),
        ("log.local.retention.ms=-2", "log.local.retention.ms=-1"),
        (
            "log.local.retention.bytes=999",
            "log.local.retention.bytes=1001",
        ),
        (
            "log.retention.ms=-5|log.local.retention.ms=-1",
            "log.retention.ms=0",
        ),
        ("max.connections=1", "max.connections=0"),
        (
            "listener.name.plaintext.max.connection.creation.rate=1",
            "listener.name.plaintext.max.connection.creation.rate=0",
        ),
        (
            "group.consumer.assignment.interval.ms=15000",
            "group.consumer.assignment.interval.ms=15001",
        ),
    ];

    #[test]
    fn kafka_refuses_these_changes_and_takes_their_neighbours() {
        let config = Config::parse(NODE, &[]).unwrap();
        let is_taken = |change: &str, per_broker| {
            let pairs = change.split('|').map(|pair| pair.split_once('=').unwrap());
            let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let checked = config.validate_dynamic(&pairs.collect(), per_broker);
            checked
                .inspect_err(|error| assert_eq!(error.code(), 42))
                .is_ok()
        };
        for (good, bad) in ANYWHERE {
            for per_broker in [true, false] {
                assert!(is_taken(good, per_broker), "{good}");
                assert!(!is_taken(bad, per_broker), "{bad}");
            }
        }
        for (good, bad) in [
            ("cordoned.log.dirs=/b", "cordoned.log.dirs=/c"),
            (
                "principal.builder.class=org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder",
                "principal.builder.class=com.example.Builder",
            ),
            (
                "listener.name.spare.num.network.threads=16",
                "listener.name.spare.num.network.threads=17",
            ),
            (
                "listeners=PLAINTEXT://:9092,CONTROLLER://:9093,NEW://:9095",
                "listeners=PLAINTEXT://:9092,CONTROLLER://:9093,OTHER://:9095",
            ),
            (
                "listeners=PLAINTEXT://:9092,CONTROLLER://:9093",
                "listeners=SPARE://:9094,CONTROLLER://:9093",
            ),
            (
                "listeners=PLAINTEXT://:1,CONTROLLER://:9093",
                "listeners=PLAINTEXT://:9092,SPARE://:9094",
            ),
            (
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SPARE:PLAINTEXT,MORE:SSL",
                "listener.security.protocol.map=PLAINTEXT:SSL,CONTROLLER:PLAINTEXT,SPARE:PLAINTEXT",
            ),
            (
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SPARE:PLAINTEXT",
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT",
            ),
            (
                "listener.name.plaintext.connections.max.reauth.ms=5",
                "listener.name.plaintext.connections.max.reauth.ms=5|max.connections=7",
            ),
        ] {
            assert!(is_taken(good, true), "{good}");
            assert!(!is_taken(bad, true), "{bad}");
        }
    }
}
