//! Rules for the settings that clients give to topics, groups and client-metrics subscriptions, with Kafka's error codes.

use std::collections::BTreeMap;

use super::{
    Config, InvalidValue, Key, TopicConfig, Value, client_metrics_key, group_key, topic_key,
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
    let number = |name: &str| match values.get(name) {
        Some(Value::Number(n)) => Some(*n),
        _ => match group_key(name)?.default_value()? {
            Value::Number(n) => Some(n),
            _ => None,
        },
    };
    for (name, value) in &values {
        let Value::Number(value) = value else {
            continue;
        };
        let Some((family, rest)) = name.split_once('.') else {
            continue;
        };
        for (bound, least) in [("min", true), ("max", false)] {
            let broker = format!("group.{family}.{bound}.{rest}");
            let Some(Value::Number(limit)) = config.value(&broker) else {
                continue;
            };
            if (least && *value < limit) || (!least && *value > limit) {
                let side = if least { "at least" } else { "at most" };
                return invalid(format!("{name} must be {side} {broker} ({limit})"));
            }
        }
    }
    for family in ["consumer", "share", "streams"] {
        let heartbeat = number(&format!("{family}.heartbeat.interval.ms"));
        let session = number(&format!("{family}.session.timeout.ms"));
        if heartbeat >= session {
            return invalid(format!(
                "{family}.session.timeout.ms must be above {family}.heartbeat.interval.ms"
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
    let values = match parse_all("client metrics", client_metrics_key, configs) {
        Err(error)
            if configs
                .keys()
                .any(|name| client_metrics_key(name).is_none()) =>
        {
            return Err(Error {
                code: ErrorCode::InvalidRequest,
                ..error
            });
        }
        other => other?,
    };
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
    if let Some(Value::List(patterns)) = values.get("match") {
        const SELECTORS: &[&str] = &[
            "client_instance_id",
            "client_id",
            "client_software_name",
            "client_software_version",
            "client_source_address",
            "client_source_port",
        ];
        for pattern in patterns {
            let known = pattern.split_once('=').is_some_and(|(selector, regex)| {
                SELECTORS.contains(&selector.trim()) && !regex.contains('=')
            });
            if !known {
                return invalid(format!("Illegal client matching pattern: {pattern}"));
            }
        }
    }
    Ok(())
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
