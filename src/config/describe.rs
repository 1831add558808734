//! What DescribeConfigs shows: every setting of a resource with its value, where the value comes from, and the chain of
//! synonyms behind it (Kafka's `ConfigHelper`).

use std::collections::BTreeMap;

use super::dynamic::{broker_synonyms, dynamic_key};
use super::key::{Key, Kind, Mode, Value};
use super::{
    BROKER_KEYS, CLIENT_METRICS_KEYS, Config, GROUP_KEYS, TOPIC_KEYS, TOPIC_SYNONYMS, broker_key,
    client_metrics_key, docs, group_key, topic_key,
};

/// Where a value comes from; the numbers are those of DescribeConfigs responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    DynamicTopic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    DynamicBrokerLogger = 6,
    ClientMetrics = 7,
    Group = 8,
}

/// One more place that gives, or would give, the setting its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: String,
    /// `None` when the setting is sensitive.
    pub value: Option<String>,
    pub source: ConfigSource,
}

/// One setting of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// `None` when the setting is null or sensitive.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub is_sensitive: bool,
    pub is_read_only: bool,
    /// By precedence; the first gives the value.
    pub synonyms: Vec<ConfigSynonym>,
    /// `ConfigType` on the wire; 0 for a setting that no table knows.
    pub config_type: i8,
    pub documentation: Option<&'static str>,
}

impl Config {
    /// The settings of a topic whose own are `own`.
    pub fn describe_topic(&self, own: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
        names(TOPIC_KEYS, own)
            .map(|name| {
                let key = topic_key(name);
                let value = own
                    .get(name)
                    .and_then(|text| key?.parse(text).ok())
                    .or_else(|| self.topic_default(name))
                    .or_else(|| key?.default_value());
                let server = TOPIC_SYNONYMS
                    .binary_search_by(|(topic, _)| topic.cmp(&name))
                    .ok()
                    .map(|at| TOPIC_SYNONYMS[at].1[0].0);
                let synonyms = server.map_or_else(Vec::new, |server| self.synonyms(server));
                entry(name, key, value, own, ConfigSource::DynamicTopic, synonyms)
            })
            .collect()
    }

    /// The settings of a consumer, share or streams group whose own are `own`.
    pub fn describe_group(&self, own: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
        names(GROUP_KEYS, own)
            .map(|name| {
                let key = group_key(name);
                let server = format!("group.{name}");
                let value = own
                    .get(name)
                    .and_then(|text| key?.parse(text).ok())
                    .or_else(|| self.value(&server))
                    .or_else(|| key?.default_value());
                let synonyms = if broker_key(&server).is_some() {
                    self.synonyms(&server)
                } else {
                    default_synonym(name, key)
                };
                entry(name, key, value, own, ConfigSource::Group, synonyms)
            })
            .collect()
    }

    /// The settings of this broker.
    pub fn describe_broker(&self) -> Vec<ConfigEntry> {
        names(BROKER_KEYS, &self.effective)
            .map(|name| {
                let value = match broker_key(name) {
                    Some(_) => self.value(name).map(|value| value.to_string()),
                    None => self.effective.get(name).cloned(),
                };
                broker_entry(name, value, self.synonyms(name))
            })
            .collect()
    }

    /// The cluster-wide dynamic broker settings: only what is set.
    pub fn describe_cluster_default(&self) -> Vec<ConfigEntry> {
        self.dynamic_default
            .iter()
            .map(|(name, value)| {
                let mut synonyms = self.synonyms(name);
                synonyms.retain(|s| s.source == ConfigSource::DynamicDefaultBroker);
                broker_entry(name, Some(value.clone()), synonyms)
            })
            .collect()
    }

    /// The places that give the broker setting `name` a value, by precedence.
    fn synonyms(&self, name: &str) -> Vec<ConfigSynonym> {
        let names = broker_synonyms(name);
        let is_sensitive = dynamic_key(name).is_none_or(Key::is_sensitive);
        let mut all = Vec::new();
        let layers = [
            (&self.dynamic_broker, ConfigSource::DynamicBroker),
            (&self.dynamic_default, ConfigSource::DynamicDefaultBroker),
            (&self.originals, ConfigSource::StaticBroker),
        ];
        for (layer, source) in layers {
            for name in &names {
                if let Some(value) = layer.get(*name) {
                    all.push(ConfigSynonym {
                        name: (*name).to_owned(),
                        value: (!is_sensitive).then(|| value.clone()),
                        source,
                    });
                }
            }
        }
        for name in &names {
            all.extend(default_synonym(name, broker_key(name)));
        }
        // A setting is not explained by names that come before it: log.retention.hours by log.retention.ms.
        let first = all.iter().position(|s| s.name == name).unwrap_or(all.len());
        all.split_off(first)
    }
}

/// The settings of a client-metrics subscription whose own are `own`.
pub fn describe_client_metrics(own: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
    names(CLIENT_METRICS_KEYS, own)
        .map(|name| {
            let key = client_metrics_key(name);
            let value = own
                .get(name)
                .and_then(|text| key?.parse(text).ok())
                .or_else(|| key?.default_value());
            entry(
                name,
                key,
                value,
                own,
                ConfigSource::ClientMetrics,
                Vec::new(),
            )
        })
        .collect()
}

/// The names to show: all of the table but internal ones, and whatever else is set.
fn names<'a>(
    table: &'static [Key],
    set: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = &'a str> {
    let shown = |name: &str| {
        table
            .binary_search_by(|key| key.name.cmp(name))
            .is_ok_and(|at| !table[at].internal)
    };
    table
        .iter()
        .filter(|key| !key.internal)
        .map(|key| key.name)
        .chain(
            set.keys()
                .map(String::as_str)
                .filter(move |name| !shown(name)),
        )
}

fn default_synonym(name: &str, key: Option<&Key>) -> Vec<ConfigSynonym> {
    let Some(default) = key.and_then(|key| key.default) else {
        return Vec::new();
    };
    let sensitive = key.is_none_or(Key::is_sensitive);
    vec![ConfigSynonym {
        name: name.to_owned(),
        value: (!sensitive).then(|| default.to_owned()),
        source: ConfigSource::Default,
    }]
}

/// An entry of a resource that has settings of its own on top of the broker's.
fn entry(
    name: &str,
    key: Option<&'static Key>,
    value: Option<Value>,
    own: &BTreeMap<String, String>,
    own_source: ConfigSource,
    mut synonyms: Vec<ConfigSynonym>,
) -> ConfigEntry {
    let is_sensitive = key.is_none_or(Key::is_sensitive);
    let value = value
        .map(|value| value.to_string())
        .filter(|_| !is_sensitive);
    if own.contains_key(name) {
        synonyms.insert(
            0,
            ConfigSynonym {
                name: name.to_owned(),
                value: value.clone(),
                source: own_source,
            },
        );
    }
    ConfigEntry {
        name: name.to_owned(),
        value,
        source: synonyms.first().map_or(ConfigSource::Default, |s| s.source),
        is_sensitive,
        is_read_only: false,
        synonyms,
        config_type: key.map_or(0, |key| key.kind.wire_type()),
        documentation: docs::of(name),
    }
}

fn broker_entry(name: &str, value: Option<String>, synonyms: Vec<ConfigSynonym>) -> ConfigEntry {
    let key = dynamic_key(name);
    let is_sensitive = key.is_none_or(Key::is_sensitive);
    // A listener's own copy of a key is dynamic only under its full name, which no table holds.
    let is_dynamic = key.is_some_and(|key| key.name == name && key.mode != Mode::ReadOnly);
    ConfigEntry {
        name: name.to_owned(),
        value: value.filter(|_| !is_sensitive),
        source: synonyms.first().map_or(ConfigSource::Default, |s| s.source),
        is_sensitive,
        is_read_only: !is_dynamic,
        synonyms,
        config_type: key.map_or(0, |key| key.kind.wire_type()),
        documentation: docs::of(name),
    }
}

/// Whether APPEND and SUBTRACT work on `name` of the resource kind that `find` knows.
pub fn is_list(find: fn(&str) -> Option<&'static Key>, name: &str) -> bool {
    find(name).is_some_and(|key| key.kind == Kind::List)
}
