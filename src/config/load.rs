//! Loading: key table defaults, then the file, then `--override`; checked, and turned into a `Config` or into an error that
//! says what to change. Called by `cli`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::magic::Tagged;
use figment::value::{Dict, Map, Value as FigmentValue};
use figment::{Figment, Metadata, Profile, Provider};

use super::fields::{Config, Parts, effective_value};
use super::key::Value;
use super::listeners::{Endpoint, SecurityProtocol, parse_endpoint, parse_protocol_map};
use super::{BROKER_KEYS, broker_key, legacy, properties, providers, split_list};

/// Why the node cannot start with these settings, for a person: what, where, why, and what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{what}\n  {next_step}")]
pub struct ConfigError {
    pub what: String,
    pub next_step: String,
}

impl ConfigError {
    pub(super) fn new(what: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            next_step: next_step.into(),
        }
    }
}

/// What a node without a file runs with: what Kafka's own `config/server.properties` says of roles, places and replicas.
const NO_FILE: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
    (
        "advertised.listeners",
        "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
    ),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    ("log.dirs", "/tmp/kraft-combined-logs"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
];

/// One source of settings for figment: a flat dictionary, because Kafka's keys contain dots.
struct Layer {
    name: String,
    pairs: Vec<(String, String)>,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = self
            .pairs
            .iter()
            .map(|(key, value)| (key.clone(), FigmentValue::from(value.clone())))
            .collect();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// A setting and where it came from.
type Settings = BTreeMap<String, (String, String)>;

impl Config {
    /// Loads `file` (none: the built-in single node) with `overrides` on top.
    pub fn load(
        file: Option<&Path>,
        overrides: &[(String, String)],
    ) -> Result<Config, ConfigError> {
        let base = match file {
            Some(path) => Layer {
                name: path.display().to_string(),
                pairs: read_properties(path)?,
            },
            None => built_in(overrides),
        };
        Self::from_layers(base, overrides)
    }

    /// As [`Config::load`], from the text of a properties file: for tests and tools.
    pub fn parse(
        properties_text: &str,
        overrides: &[(String, String)],
    ) -> Result<Config, ConfigError> {
        let base = Layer {
            name: "server.properties".to_owned(),
            pairs: properties::parse(properties_text),
        };
        Self::from_layers(base, overrides)
    }

    fn from_layers(base: Layer, overrides: &[(String, String)]) -> Result<Config, ConfigError> {
        let mut settings = merge(base, overrides)?;
        let mut originals: BTreeMap<String, String> = settings
            .iter()
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect();
        providers::resolve(&mut originals).map_err(|(key, why)| {
            let next = "correct the reference, or write the value itself";
            ConfigError::new(format!("{key}: {why}"), next)
        })?;
        for (key, (value, _)) in &mut settings {
            value.clone_from(&originals[key]);
        }
        if let Some((key, why)) = legacy::refused(&originals) {
            let source = settings.get(&key).map_or("", |(_, source)| source);
            return Err(ConfigError::new(
                format!("{key} in {source} cannot be honoured: {why}"),
                format!("remove {key}"),
            ));
        }
        complete(&mut originals)?;
        let mut warnings = Vec::new();
        for (key, (value, source)) in &settings {
            check(key, value, source, &mut warnings)?;
        }
        let mut config = Config::build(Parts {
            originals: Arc::new(originals.clone()),
            ..parts(originals)?
        });
        config.warnings = warnings;
        config.check_together()?;
        config.check_log_defaults()?;
        Ok(config)
    }

    /// What a node would be that started with the settings of this one, the dynamic ones too.
    pub(super) fn as_started(&self) -> Result<Config, ConfigError> {
        let config = Config::build(Parts {
            originals: Arc::clone(&self.originals),
            dynamic_default: Arc::clone(&self.dynamic_default),
            dynamic_broker: Arc::clone(&self.dynamic_broker),
            ..parts((*self.effective).clone())?
        });
        config.check_together()?;
        Ok(config)
    }
}

fn read_properties(path: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(properties::parse(&properties::decode(&bytes))),
        Err(error) => Err(ConfigError::new(
            format!("cannot read {}: {error}", path.display()),
            "give the path of a server.properties, or no path to run with built-in settings",
        )),
    }
}

fn built_in(overrides: &[(String, String)]) -> Layer {
    let set = |key: &str| overrides.iter().any(|(name, _)| name == key);
    let listeners = set("listeners");
    Layer {
        name: "built-in settings".to_owned(),
        pairs: NO_FILE
            .iter()
            // Addresses of other listeners would be advertised otherwise.
            .filter(|(key, _)| !(listeners && *key == "advertised.listeners"))
            .filter(|(key, _)| !(listeners && *key == "inter.broker.listener.name"))
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn merge(base: Layer, overrides: &[(String, String)]) -> Result<Settings, ConfigError> {
    let command_line = Layer {
        name: "--override".to_owned(),
        pairs: overrides.to_vec(),
    };
    let figment = Figment::from(base).merge(command_line);
    let values: BTreeMap<String, Tagged<String>> = figment
        .extract()
        .map_err(|error| ConfigError::new(error.to_string(), "report this as a bug"))?;
    let mut settings = Settings::new();
    for (key, tagged) in values {
        let source = figment
            .get_metadata(tagged.tag())
            .map_or_else(String::new, |m| m.name.to_string());
        settings.insert(key, (tagged.into_inner(), source));
    }
    Ok(settings)
}

/// Fills in what follows from other settings: both names of the node id, and the roles and controller listener of files
/// that were written before or without KRaft.
fn complete(originals: &mut BTreeMap<String, String>) -> Result<(), ConfigError> {
    if originals.contains_key("zookeeper.connect") && !originals.contains_key("process.roles") {
        return Err(ConfigError::new(
            "this is the file of a ZooKeeper cluster: it has zookeeper.connect and no process.roles",
            "remove zookeeper.connect and set process.roles=broker,controller and node.id",
        ));
    }
    match (originals.get("node.id"), originals.get("broker.id")) {
        (Some(node), None) => {
            let node = node.clone();
            originals.insert("broker.id".to_owned(), node);
        }
        (None, Some(broker)) => {
            let broker = broker.clone();
            originals.insert("node.id".to_owned(), broker);
        }
        (Some(node), Some(broker)) if node.trim() != broker.trim() => {
            return Err(ConfigError::new(
                format!("node.id is {node} and broker.id is {broker}"),
                "they are two names of one thing: remove broker.id",
            ));
        }
        (Some(_), Some(_)) => {}
        (None, None) => {
            return Err(ConfigError::new(
                "node.id is missing",
                "set node.id to a number of at least 0 that no other node of the cluster has",
            ));
        }
    }
    for (key, value) in [
        ("process.roles", "broker,controller"),
        ("controller.listener.names", "CONTROLLER"),
    ] {
        originals
            .entry(key.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    Ok(())
}

/// Checks one setting against its key, and collects a warning when there is no such key.
fn check(
    name: &str,
    value: &str,
    source: &str,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    if let Some(why) = legacy::ignored(name) {
        warnings.push(format!("{name} in {source} is ignored: {why}"));
    }
    let base = name
        .strip_prefix("listener.name.")
        .and_then(|rest| rest.split_once('.'))
        .map_or(name, |(_, base)| base);
    match broker_key(base).or_else(|| broker_key(base.split_once('.').map_or(base, |(_, b)| b))) {
        Some(key) if key.name == name || name != base => match key.parse(value) {
            Ok(taken) => {
                if matches!(&taken, Value::List(list) if list.len() < split_list(value).len()) {
                    warnings.push(format!(
                        "{name} in {source} has values twice, which count once"
                    ));
                }
                Ok(())
            }
            Err(invalid) => Err(ConfigError::new(
                format!("{name}={} in {source}: {}", invalid.value, invalid.reason),
                format!("set {name} to {}", invalid.allowed),
            )),
        },
        _ if legacy::ignored(name).is_some() || name.starts_with("config.providers.") => Ok(()),
        _ => {
            let nearest =
                nearest(name).map_or_else(String::new, |n| format!("; did you mean {n}?"));
            warnings.push(format!(
                "unknown key {name} in {source} is ignored{nearest}"
            ));
            Ok(())
        }
    }
}

/// The known key that is the fewest edits away, if that is near enough to be a slip.
fn nearest(name: &str) -> Option<&'static str> {
    BROKER_KEYS
        .iter()
        .map(|key| (edit_distance(name, key.name), key.name))
        .min()
        .filter(|(distance, _)| *distance <= name.len() / 3)
        .map(|(_, key)| key)
}

/// Levenshtein distance, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

fn text(settings: &BTreeMap<String, String>, name: &str) -> Option<String> {
    match effective_value(settings, name)? {
        Value::Text(text) => Some(text),
        other => Some(other.to_string()),
    }
}

fn list(settings: &BTreeMap<String, String>, name: &str) -> Option<Vec<String>> {
    match effective_value(settings, name)? {
        Value::List(list) => Some(list),
        _ => None,
    }
}

/// Reads the settings that depend on each other: listeners and directories.
fn parts(effective: BTreeMap<String, String>) -> Result<Parts, ConfigError> {
    let map = protocol_map(&effective)?;
    let endpoints = |name: &str| -> Result<Vec<Endpoint>, ConfigError> {
        list(&effective, name)
            .unwrap_or_default()
            .iter()
            .map(|text| parse_endpoint(text, &map))
            .collect::<Result<_, _>>()
            .map_err(|why| {
                ConfigError::new(
                    format!("{name}={}: {why}", effective.get(name).map_or("", |v| v)),
                    "write NAME://host:port, and name every listener in listener.security.protocol.map",
                )
            })
    };
    let listeners = endpoints("listeners")?;
    let controllers = list(&effective, "controller.listener.names").unwrap_or_default();
    let set = endpoints("advertised.listeners")?;
    let advertised_listeners = advertised(&listeners, set, &controllers);
    let protocol = text(&effective, "security.inter.broker.protocol").unwrap_or_default();
    let inter_broker_listener_name = text(&effective, "inter.broker.listener.name")
        .unwrap_or(protocol)
        .to_ascii_uppercase();
    let log_dirs: Vec<PathBuf> = list(&effective, "log.dirs")
        .or_else(|| list(&effective, "log.dir"))
        .unwrap_or_default()
        .into_iter()
        .map(PathBuf::from)
        .collect();
    let metadata_log_dir = match (text(&effective, "metadata.log.dir"), log_dirs.first()) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Some(first)) => first.clone(),
        (None, None) => {
            return Err(ConfigError::new(
                "log.dirs is empty",
                "set log.dirs to the directory that shall hold the data",
            ));
        }
    };
    Ok(Parts {
        listeners,
        advertised_listeners,
        listener_security_protocol_map: map,
        inter_broker_listener_name,
        log_dirs,
        metadata_log_dir,
        effective,
        ..Parts::default()
    })
}

/// The map as set; or its default with the controller listeners as PLAINTEXT, unless TLS or SASL is in use.
fn protocol_map(
    effective: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, SecurityProtocol>, ConfigError> {
    const NAME: &str = "listener.security.protocol.map";
    let map_text = text(effective, NAME).unwrap_or_default();
    let mut map = parse_protocol_map(&map_text).map_err(|why| {
        ConfigError::new(
            format!("{NAME}={map_text}: {why}"),
            "write NAME:PROTOCOL,NAME:PROTOCOL,...",
        )
    })?;
    if !effective.contains_key(NAME) {
        let controllers = list(effective, "controller.listener.names").unwrap_or_default();
        let listeners = list(effective, "listeners").unwrap_or_default();
        let names = listeners
            .iter()
            .map(|l| l.split_once(':').map_or(l.as_str(), |(name, _)| name));
        let secured = |name: &str| {
            SecurityProtocol::parse(name).is_some_and(|p| p != SecurityProtocol::Plaintext)
        };
        if !names
            .chain(controllers.iter().map(String::as_str))
            .any(secured)
        {
            for name in controllers {
                map.insert(name.to_ascii_uppercase(), SecurityProtocol::Plaintext);
            }
        }
    }
    Ok(map)
}

/// What is advertised: as set, else the listener itself, with this host's name for every interface. What is set leaves out
/// no listener of controllers.
fn advertised(listeners: &[Endpoint], set: Vec<Endpoint>, controllers: &[String]) -> Vec<Endpoint> {
    let explicit = !set.is_empty();
    let mut all = set;
    for listener in listeners {
        let name = &listener.listener_name;
        let is_controller = controllers.iter().any(|it| it.eq_ignore_ascii_case(name));
        let is_set = all.iter().any(|it| it.listener_name == *name);
        if is_set || explicit && !is_controller {
            continue;
        }
        let mut endpoint = listener.clone();
        if explicit && endpoint.host == "0.0.0.0" {
            endpoint.host.clear();
        }
        all.push(endpoint);
    }
    for endpoint in &mut all {
        if endpoint.host.is_empty() {
            endpoint.host = host_name();
        }
    }
    all
}

/// This machine's name, as Java's `InetAddress.getLocalHost` starts from.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
