//! Listener settings: endpoints, the map from listener names to security protocols, and how they must fit together.

use std::collections::BTreeMap;
use std::fmt;

use super::key::Value;
use super::{Config, broker_key};

/// How a listener authenticates and encrypts; the numbers are those of registration records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    Plaintext = 0,
    Ssl = 1,
    SaslPlaintext = 2,
    SaslSsl = 3,
}

impl SecurityProtocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// The number in registration requests and records.
    pub fn id(self) -> i16 {
        self as i16
    }

    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Plaintext,
            Self::Ssl,
            Self::SaslPlaintext,
            Self::SaslSsl,
        ]
        .into_iter()
        .find(|p| p.name().eq_ignore_ascii_case(text))
    }
}

/// One listener: `NAME://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Upper case, as Kafka normalises it.
    pub listener_name: String,
    pub security_protocol: SecurityProtocol,
    /// Empty means every interface (in `listeners` only).
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.listener_name, self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.listener_name, self.host, self.port)
        }
    }
}

/// Parses `listener.security.protocol.map`.
pub(super) fn parse_protocol_map(text: &str) -> Result<BTreeMap<String, SecurityProtocol>, String> {
    let mut map = BTreeMap::new();
    for pair in super::key::split_list(text) {
        let (name, protocol) = pair
            .split_once(':')
            .ok_or_else(|| format!("\"{pair}\" is not NAME:PROTOCOL"))?;
        let protocol = SecurityProtocol::parse(protocol.trim()).ok_or_else(|| {
            format!("\"{protocol}\" is not one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL")
        })?;
        map.insert(name.trim().to_ascii_uppercase(), protocol);
    }
    Ok(map)
}

/// Parses one `NAME://host:port`; the protocol comes from `map`.
pub(super) fn parse_endpoint(
    text: &str,
    map: &BTreeMap<String, SecurityProtocol>,
) -> Result<Endpoint, String> {
    let shape = || format!("\"{text}\" is not NAME://host:port");
    let (name, address) = text.split_once("://").ok_or_else(shape)?;
    let (host, port) = address.rsplit_once(':').ok_or_else(shape)?;
    let name_fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || !name.chars().all(name_fits) {
        return Err(shape());
    }
    let port: u16 = port
        .parse()
        .map_err(|_| format!("\"{port}\" in \"{text}\" is not a port (0 to 65535)"))?;
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6,
        None => host,
    };
    if !host.chars().all(is_host_char) {
        return Err(shape());
    }
    let name = name.to_ascii_uppercase();
    let security_protocol = *map.get(&name).ok_or_else(|| {
        format!(
            "no security protocol is defined for listener {name} in listener.security.protocol.map"
        )
    })?;
    Ok(Endpoint {
        listener_name: name,
        security_protocol,
        host: host.to_owned(),
        port,
    })
}

/// The hosts in `max.connections.per.ip.overrides` and how many connections each may have; `None` if `text` is no such list.
pub(super) fn parse_ip_overrides(text: &str) -> Option<Vec<(String, i32)>> {
    let text = text.trim_end_matches([',', ' ']);
    if text.is_empty() {
        return Some(Vec::new());
    }
    let parse = |entry: &str| {
        let (host, count) = entry.rsplit_once(':')?;
        let host = host.trim();
        let fits = host.chars().all(is_host_char);
        Some((host.to_owned(), count.trim().parse().ok()?)).filter(|_| fits)
    };
    text.split(',').map(parse).collect()
}

/// What host names and addresses are made of (`Utils.validHostPattern`).
fn is_host_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-%._:".contains(c)
}

/// What the settings of one listener's own begin with.
pub(super) fn listener_prefix(listener: &str) -> String {
    format!("listener.name.{}.", listener.to_ascii_lowercase())
}

impl Config {
    /// The number that a key holds for one listener: its own, else that of all.
    pub fn listener_number(&self, listener: &str, name: &str) -> Option<i64> {
        let own = self.effective.get(&(listener_prefix(listener) + name));
        match own.and_then(|text| broker_key(name)?.parse(text).ok()) {
            Some(Value::Number(number)) => Some(number),
            _ => self.number(name),
        }
    }

    /// How many connections there may be from hosts with limits of their own.
    pub fn connections_max_by_host(&self) -> impl Iterator<Item = (String, usize)> {
        let overrides = parse_ip_overrides(&self.max_connections_per_ip_overrides);
        let count = |(host, count)| (host, usize::try_from(count).unwrap_or(0));
        overrides.into_iter().flatten().map(count)
    }
}
