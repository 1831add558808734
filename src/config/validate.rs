//! Rules for the settings that clients give to topics, groups and client-metrics subscriptions, with Kafka's error codes.

use std::collections::BTreeMap;

use super::{
    Config, InvalidValue, Key, TopicConfig, Value, client_metrics_key, group_key, java, topic_key,
};
use crate::protocol::{Error, ErrorCode};

impl From<InvalidValue> for Error {
    fn from(invalid: InvalidValue) -> Self {
        Error::new(ErrorCode::InvalidConfig, invalid.to_string())
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(ErrorCode::InvalidConfig, message.into()))
}

/// Kafka's rules for topic names; code 17.
pub fn validate_topic_name(name: &str) -> Result<(), Error> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let why = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => "'.' or '..' is not allowed".to_owned(),
        _ if name.len() > 249 => format!("'{name}' is longer than 249 characters"),
        _ if !name.bytes().all(fits) => {
            format!(
                "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
            )
        }
        _ => return Ok(()),
    };
    Err(Error::new(
        ErrorCode::InvalidTopicException,
        format!("Topic name is invalid: {why}"),
    ))
}

/// Whether a topic may have exactly `configs` as its own settings (`LogConfig.validate`). Code 40 otherwise.
/// `existing` are those that it has now: remote storage cannot be turned off carelessly.
pub fn validate_topic_configs(
    config: &Config,
    existing: &BTreeMap<String, String>,
    configs: &BTreeMap<String, String>,
) -> Result<(), Error> {
    for (name, value) in configs {
        match topic_key(name) {
            Some(key) => key.parse(value)?,
            None => return invalid(format!("Unknown topic config name: {name}")),
        };
    }
    let topic = TopicConfig::resolve(config, configs);
    if topic.min_compaction_lag_ms > topic.max_compaction_lag_ms {
        return invalid(format!(
            "min.compaction.lag.ms ({}) is above max.compaction.lag.ms ({})",
            topic.min_compaction_lag_ms, topic.max_compaction_lag_ms
        ));
    }
    let was_remote = existing
        .get("remote.storage.enable")
        .is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if topic.remote_storage_enable {
        // Tiered storage is not built: as in a Kafka where it is switched off.
        return invalid(
            "Tiered storage is disabled in this broker: the topic cannot have remote storage",
        );
    }
    if was_remote && !topic.remote_log_delete_on_disable {
        return invalid(
            "Remote storage is disabled only together with remote.log.delete.on.disable=true",
        );
    }
    Ok(())
}

/// Whether a group may have exactly `configs` (`GroupConfig.validate`).
pub fn validate_group_configs(
    config: &Config,
    configs: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let values = parse_all("group", group_key, configs)?;
    for (name, value) in &values {
        if let Value::Number(value) = value
            && let Some(why) = config.out_of_group_bounds(name, *value)
        {
            return invalid(why);
        }
    }
    for family in ["consumer", "share", "streams"] {
        let number = |what: &str| {
            let name = format!("{family}.{what}");
            match values.get(&*name) {
                Some(Value::Number(own)) => Some(*own),
                _ => config.number(&format!("group.{name}")),
            }
        };
        if number("heartbeat.interval.ms") >= number("session.timeout.ms") {
            return invalid(format!(
                "{family}.session.timeout.ms must be greater than {family}.heartbeat.interval.ms"
            ));
        }
    }
    Ok(())
}

/// Whether a client-metrics subscription may have exactly `configs` (`ClientMetricsConfigs.validate`).
pub fn validate_client_metrics_configs(
    name: &str,
    configs: &BTreeMap<String, String>,
) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            "Subscription name can't be empty",
        ));
    }
    let mut names = configs.keys();
    if let Some(name) = names.find(|name| client_metrics_key(name).is_none()) {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            format!("Unknown client metrics configuration: {name}"),
        ));
    }
    let values = parse_all("client metrics", client_metrics_key, configs)?;
    if let Some(Value::Number(interval)) = values.get("interval.ms")
        && !(100..=3_600_000).contains(interval)
    {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            format!(
                "Invalid value {interval} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
            ),
        ));
    }
    if let Some(Value::List(patterns)) = values.get("match")
        && let Some(pattern) = patterns.iter().find(|pattern| !is_match(pattern))
    {
        return invalid(format!("Illegal client matching pattern: {pattern}"));
    }
    Ok(())
}

/// Whether `text` is `selector=regex`. Java's `split` forgets the `=` at the end.
fn is_match(text: &str) -> bool {
    const SELECTORS: &[&str] = &[
        "client_instance_id",
        "client_id",
        "client_software_name",
        "client_software_version",
        "client_source_address",
        "client_source_port",
    ];
    let mut parts = text.trim_end_matches('=').split('=');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(selector), Some(regex), None) => {
            SELECTORS.contains(&java::trim(selector)) && java::is_pattern(java::trim(regex))
        }
        _ => false,
    }
}

fn parse_all(
    what: &str,
    find: fn(&str) -> Option<&'static Key>,
    configs: &BTreeMap<String, String>,
) -> Result<BTreeMap<&'static str, Value>, Error> {
    let mut values = BTreeMap::new();
    for (name, text) in configs {
        let Some(key) = find(name) else {
            return invalid(format!("Unknown {what} config name: {name}"));
        };
        values.insert(key.name, key.parse(text)?);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(settings: &str) -> BTreeMap<String, String> {
        let pairs = settings
            .split('|')
            .map(|pair| pair.split_once(':').unwrap());
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn groups_stay_within_what_the_broker_allows() {
        const NODE: &str = "\
            node.id=1\nlog.dirs=/a\ngroup.consumer.max.session.timeout.ms=99999\n\
            group.consumer.heartbeat.interval.ms=9000\ngroup.consumer.min.session.timeout.ms=9000\n";
        let config = Config::parse(NODE, &[]).unwrap();
        let code = |settings: &str| {
            validate_group_configs(&config, &configs(settings)).map_err(|error| error.code())
        };
        for (good, bad) in [
            (
                "streams.num.standby.replicas:2",
                "streams.num.standby.replicas:100",
            ),
            (
                "consumer.session.timeout.ms:99999",
                "consumer.session.timeout.ms:100000",
            ),
            // The heartbeat interval is the broker's.
            (
                "consumer.session.timeout.ms:9001",
                "consumer.session.timeout.ms:9000",
            ),
            (
                "consumer.assignment.interval.ms:15000",
                "consumer.assignment.interval.ms:15001",
            ),
            (
                "share.heartbeat.interval.ms:5000",
                "share.heartbeat.interval.ms:4999",
            ),
            (
                "share.record.lock.duration.ms:60000",
                "share.record.lock.duration.ms:60001",
            ),
            (
                "share.delivery.count.limit:10",
                "share.delivery.count.limit:11",
            ),
            (
                "share.partition.max.record.locks:4000",
                "share.partition.max.record.locks:4001",
            ),
            (
                "streams.initial.rebalance.delay.ms:0",
                "streams.initial.rebalance.delay.ms:-1",
            ),
            ("share.isolation.level:read_committed", "no.such.key:1"),
        ] {
            assert_eq!(code(good), Ok(()), "{good}");
            assert_eq!(code(bad), Err(40), "{bad}");
        }
    }

    #[test]
    fn client_metrics_subscriptions_have_patterns_that_java_compiles() {
        let code = |settings: &str| {
            validate_client_metrics_configs("s", &configs(settings)).map_err(|error| error.code())
        };
        for good in [
            "match:",
            "match:client_id=a.*, client_source_port=90[0-9]+",
            "match:client_id=a=",
            "match: client_id =(?!a)",
            "metrics:org.apache.kafka.,org.apache.kafka.",
            "interval.ms:100",
            "interval.ms:3600000",
        ] {
            assert_eq!(code(good), Ok(()), "{good}");
        }
        for (bad, refused) in [
            ("match:client_id=[", 40),
            ("match:client_id=", 40),
            ("match:client_id", 40),
            ("match:client_id=a=b", 40),
            ("match:client_id=(?=a)", 40),
            ("match:client_name=a", 40),
            ("match:=", 40),
            ("metrics:a,,b", 40),
            ("interval.ms:x", 40),
            ("interval.ms:99", 42),
            ("interval.ms:3600001", 42),
            ("no.such.key:1", 42),
        ] {
            assert_eq!(code(bad), Err(refused), "{bad}");
        }
        let unnamed = validate_client_metrics_configs("", &BTreeMap::new());
        assert_eq!(unnamed.map_err(|error| error.code()), Err(42));
    }
}
