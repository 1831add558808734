//! Levels of the log lines, by logger: the settings of BROKER_LOGGER resources (KIP-412). They live in this process only. A
//! logger is a module of the crate, its path written with dots; `root` is what has no level of its own.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::protocol::{Error, ErrorCode};

/// The name of the logger above all others.
pub const ROOT: &str = "root";

/// Loggers that exist; a level may be set on these only.
const NAMES: &[&str] = &[
    "ottla",
    "ottla.admin",
    "ottla.api",
    "ottla.config",
    "ottla.controller",
    "ottla.coordinator",
    "ottla.group",
    "ottla.log",
    "ottla.metadata",
    "ottla.partition",
    "ottla.quorum",
    "ottla.replica",
    "ottla.server",
    "openraft",
    ROOT,
];

static LEVELS: RwLock<BTreeMap<&'static str, LevelFilter>> = RwLock::new(BTreeMap::new());

/// Kafka's names of levels; FATAL is as high as ERROR here.
fn parse_level(text: &str) -> Option<LevelFilter> {
    Some(match text {
        "TRACE" => LevelFilter::TRACE,
        "DEBUG" => LevelFilter::DEBUG,
        "INFO" => LevelFilter::INFO,
        "WARN" => LevelFilter::WARN,
        "ERROR" | "FATAL" => LevelFilter::ERROR,
        _ => return None,
    })
}

fn level_of(levels: &BTreeMap<&'static str, LevelFilter>, logger: &str) -> LevelFilter {
    let mut name = logger;
    loop {
        if let Some(level) = levels.get(name) {
            return *level;
        }
        match name.rsplit_once('.') {
            Some((parent, _)) => name = parent,
            None => break,
        }
    }
    // openraft tells every heartbeat at INFO, and at WARN ten times a second of each replica that is away.
    let default = if logger.starts_with("openraft") {
        LevelFilter::ERROR
    } else {
        LevelFilter::INFO
    };
    levels.get(ROOT).copied().unwrap_or(default)
}

/// Every logger and its level in force, as DescribeConfigs shows them.
pub fn loggers() -> Vec<(&'static str, String)> {
    let levels = LEVELS.read().unwrap_or_else(PoisonError::into_inner);
    let text = |name: &&'static str| (*name, level_of(&levels, name).to_string().to_uppercase());
    NAMES.iter().map(text).collect()
}

/// One change of a logger: its level, or `None` to go back to the one above.
pub type LoggerChange<'a> = (&'a str, Option<&'a str>);

/// Applies `changes`, all or none; with `validate_only` none. An unknown logger or level is INVALID_CONFIG, and the root
/// logger always has a level (INVALID_REQUEST).
pub fn set_loggers(changes: &[LoggerChange<'_>], validate_only: bool) -> Result<(), Error> {
    let mut checked = Vec::new();
    for (name, level) in changes {
        let Some(name) = NAMES.iter().find(|known| *known == name) else {
            let text = format!("Logger {name} does not exist!");
            return Err(Error::new(ErrorCode::InvalidConfig, text));
        };
        let level = match level {
            Some(text) => Some(parse_level(text).ok_or_else(|| {
                let text = format!("Cannot set the log level of {name} to {text} as it is not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN");
                Error::new(ErrorCode::InvalidConfig, text)
            })?),
            None if *name == ROOT => {
                let text = format!("Removing the log level of the {ROOT} logger is not allowed");
                return Err(Error::new(ErrorCode::InvalidRequest, text));
            }
            None => None,
        };
        checked.push((*name, level));
    }
    if validate_only || checked.is_empty() {
        return Ok(());
    }
    let mut levels = LEVELS.write().unwrap_or_else(PoisonError::into_inner);
    for (name, level) in checked {
        match level {
            Some(level) => levels.insert(name, level),
            None => levels.remove(name),
        };
    }
    drop(levels);
    tracing::callsite::rebuild_interest_cache();
    Ok(())
}

/// The filter of the log lines. Each call site asks once and again after a change, so a line that is off costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct LoggerFilter;

impl LoggerFilter {
    fn is_on(metadata: &Metadata<'_>) -> bool {
        let logger = metadata.target().replace("::", ".");
        let levels = LEVELS.read().unwrap_or_else(PoisonError::into_inner);
        *metadata.level() <= level_of(&levels, &logger)
    }
}

impl<S: Subscriber> Layer<S> for LoggerFilter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::is_on(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        Self::is_on(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = LEVELS.read().unwrap_or_else(PoisonError::into_inner);
        NAMES.iter().map(|name| level_of(&levels, name)).max()
    }
}
