//! Listener settings: endpoints, the map from listener names to security protocols, and how they must fit together.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::Config;

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
        None if host.contains(':') => return Err(shape()),
        None => host,
    };
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

/// The addresses in `max.connections.per.ip.overrides` and how many connections each may have; `None` if `text` is no such list.
pub(super) fn parse_ip_overrides(text: &str) -> Option<Vec<(IpAddr, usize)>> {
    let entries = text.split(',').map(str::trim);
    let entries = entries.filter(|entry| !entry.is_empty());
    let parse = |entry: &str| {
        let (ip, count) = entry.rsplit_once(':')?;
        let ip: IpAddr = ip.trim().parse().ok()?;
        Some((ip.to_canonical(), count.trim().parse().ok()?))
    };
    entries.map(parse).collect()
}

impl Config {
    /// How many connections there may be from `ip`.
    pub fn connections_max_from(&self, ip: IpAddr) -> usize {
        let overrides = parse_ip_overrides(&self.max_connections_per_ip_overrides);
        let own = overrides
            .into_iter()
            .flatten()
            .find(|(of, _)| *of == ip.to_canonical());
        own.map_or_else(
            || usize::try_from(self.max_connections_per_ip).unwrap_or(0),
            |(_, count)| count,
        )
    }
}
