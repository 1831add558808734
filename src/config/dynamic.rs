//! Dynamic broker configs: what may be changed while the broker runs, and the settings that result. The values live in the
//! metadata image (ConfigRecords of type BROKER); the order is broker, cluster default, file, table.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::broker_keys::DYNAMIC_ONLY_KEYS;
use super::fields::{Config, Parts};
use super::key::{Key, Mode, Value};
use super::{broker_key, find};
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

/// Numbers of threads that may change by half or double.
const THREAD_POOLS: &[&str] = &[
    "num.io.threads",
    "num.replica.fetchers",
    "num.recovery.threads.per.data.dir",
    "background.threads",
];

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
    let limits = [
        "max.connections",
        "max.connection.creation.rate",
        "num.network.threads",
    ];
    let per_broker_only = direct.is_some_and(|key| key.mode == Mode::PerBroker)
        || listener_base(name).is_some_and(|base| !limits.contains(&base));
    if !per_broker && per_broker_only {
        return Some(format!(
            "Cannot update these configs at default cluster level, broker id must be specified: [{name}]"
        ));
    }
    None
}

impl Config {
    /// Whether `settings`, all dynamic configs of one broker or of the cluster, can be applied. Code 42, as in Kafka
    /// (KAFKA-13609).
    pub fn validate_dynamic(
        &self,
        settings: &BTreeMap<String, String>,
        per_broker: bool,
    ) -> Result<(), Error> {
        for (name, value) in settings {
            if let Some(why) = problem(name, value, per_broker) {
                return Err(Error::new(ErrorCode::InvalidRequest, why));
            }
        }
        let next = if per_broker {
            self.with_dynamic(&self.dynamic_default, settings)
        } else {
            self.with_dynamic(settings, &self.dynamic_broker)
        };
        next.check_together()
            .map_err(|error| Error::new(ErrorCode::InvalidRequest, error.what))?;
        self.check_thread_pools(&next)?;
        self.check_cleaner_threads(next.log_cleaner_threads)
    }

    /// Kafka halves or doubles a pool at most (`DynamicThreadPool.validateReconfiguration`); 0 the table refuses.
    fn check_thread_pools(&self, next: &Config) -> Result<(), Error> {
        for name in THREAD_POOLS {
            let threads = |config: &Config| match config.value(name) {
                Some(Value::Number(threads)) => threads,
                _ => 1,
            };
            let (current, wanted) = (threads(self), threads(next));
            let bound = if wanted < current / 2 {
                "be at least half"
            } else if wanted > current * 2 {
                "not be greater than double"
            } else {
                continue;
            };
            let why = format!(
                "Dynamic thread count update validation failed for {name}={wanted}, value should {bound} the current value {current}"
            );
            return Err(Error::new(ErrorCode::InvalidRequest, why));
        }
        Ok(())
    }

    /// Kafka halves or doubles the number of cleaner threads at most (`LogCleaner.validateReconfiguration`).
    fn check_cleaner_threads(&self, threads: i32) -> Result<(), Error> {
        let current = self.log_cleaner_threads;
        let why = if threads == current {
            return Ok(());
        } else if threads < 1 {
            "Log cleaner threads should be at least 1".to_owned()
        } else if threads < current / 2 {
            format!(
                "Log cleaner threads cannot be reduced to less than half the current value {current}"
            )
        } else if threads > current * 2 {
            format!(
                "Log cleaner threads cannot be increased to more than double the current value {current}"
            )
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorCode::InvalidRequest, why))
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
        config
    }
}
