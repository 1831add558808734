//! What a config key is: name, type, default, allowed values, who may change it. The tables are made of these.

use std::collections::BTreeSet;
use std::fmt;

use super::java;

/// A config value's type; the numbers on the wire are [`Kind::wire_type`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    /// Never shown to clients or in logs.
    Password,
}

impl Kind {
    /// `ConfigType` of DescribeConfigs responses.
    pub fn wire_type(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Short => 4,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
            Kind::Class => 8,
            Kind::Password => 9,
        }
    }
}

/// How a broker key may be changed while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    ReadOnly,
    PerBroker,
    ClusterWide,
}

/// Whether a list may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    MayBeEmpty,
    NotEmpty,
}

/// What values a key takes beyond those that its type allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Valid {
    Any,
    AtLeast(i64),
    /// Both ends included.
    Between(i64, i64),
    BetweenF(f64, f64),
    OneOf(&'static [&'static str]),
    OneOfIgnoreCase(&'static [&'static str]),
    /// A list of these elements, or of any if there are none here. What is there twice counts once.
    ListOf(&'static [&'static str], Empty),
    NonEmpty,
    /// -1 or 1 to 9.
    GzipLevel,
    /// `*`, `none`, or `partition:broker` pairs.
    ThrottledReplicas,
    /// `earliest`, `latest` or `by_duration:<ISO 8601 duration>`.
    ShareOffsetReset,
}

/// One row of a key table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// `None` is Kafka's null: not set.
    pub default: Option<&'static str>,
    pub valid: Valid,
    pub mode: Mode,
    /// Kafka does not list internal keys in DescribeConfigs unless they are set.
    pub internal: bool,
}

/// Shorthand for the tables.
pub(super) const fn k(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    valid: Valid,
    mode: Mode,
) -> Key {
    Key {
        name,
        kind,
        default,
        valid,
        mode,
        internal: false,
    }
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Boolean(bool),
    Number(i64),
    Double(f64),
    Text(String),
    List(Vec<String>),
}

impl fmt::Display for Value {
    /// The text that Kafka shows for a parsed value (`ConfigDef.convertToString`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(value) => write!(f, "{value}"),
            Value::Number(value) => write!(f, "{value}"),
            Value::Double(value) => f.write_str(&java::show_double(*value)),
            Value::Text(value) => f.write_str(value),
            Value::List(values) => f.write_str(&values.join(",")),
        }
    }
}

/// Why a value does not fit its key; `allowed` tells what would.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("Invalid value {value} for configuration {name}: {reason}")]
pub struct InvalidValue {
    pub name: String,
    pub value: String,
    pub reason: String,
    pub allowed: String,
}

impl Key {
    pub(super) const fn internal(mut self) -> Self {
        self.internal = true;
        self
    }

    /// Passwords are sensitive, and nothing else.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// The default as a value; `None` when the key has none.
    pub fn default_value(&self) -> Option<Value> {
        self.default
            .map(|text| self.parse(text).expect("defaults fit their keys (tested)"))
    }

    /// Parses and checks `text` as Kafka's `ConfigDef` does.
    pub fn parse(&self, text: &str) -> Result<Value, InvalidValue> {
        let mut value = self.parse_type(text)?;
        if let (Valid::ListOf(..), Value::List(list)) = (self.valid, &mut value) {
            let mut seen = BTreeSet::new();
            list.retain(|item| seen.insert(item.clone()));
        }
        match self.check(&value) {
            Ok(()) => Ok(value),
            Err(reason) => Err(self.invalid(text, reason)),
        }
    }

    fn invalid(&self, text: &str, reason: impl Into<String>) -> InvalidValue {
        InvalidValue {
            name: self.name.to_owned(),
            value: if self.is_sensitive() {
                "[hidden]".to_owned()
            } else {
                text.to_owned()
            },
            reason: reason.into(),
            allowed: self.allowed(),
        }
    }

    fn parse_type(&self, text: &str) -> Result<Value, InvalidValue> {
        let trimmed = java::trim(text);
        let number = |low: i64, high: i64, what: &str| {
            trimmed
                .parse::<i64>()
                .ok()
                .filter(|n| (low..=high).contains(n))
                .map(Value::Number)
                .ok_or_else(|| self.invalid(text, format!("Not a number of type {what}")))
        };
        match self.kind {
            Kind::Boolean if trimmed.eq_ignore_ascii_case("true") => Ok(Value::Boolean(true)),
            Kind::Boolean if trimmed.eq_ignore_ascii_case("false") => Ok(Value::Boolean(false)),
            Kind::Boolean => Err(self.invalid(text, "Expected value to be either true or false")),
            Kind::Short => number(i64::from(i16::MIN), i64::from(i16::MAX), "SHORT"),
            Kind::Int => number(i64::from(i32::MIN), i64::from(i32::MAX), "INT"),
            Kind::Long => number(i64::MIN, i64::MAX, "LONG"),
            Kind::Double => java::parse_double(trimmed)
                .map(Value::Double)
                .ok_or_else(|| self.invalid(text, "Not a number of type DOUBLE")),
            Kind::String | Kind::Class | Kind::Password => Ok(Value::Text(trimmed.to_owned())),
            Kind::List => Ok(Value::List(split_list(text))),
        }
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        let range = |ok: bool, text: String| if ok { Ok(()) } else { Err(text) };
        match (self.valid, value) {
            (Valid::AtLeast(low), Value::Number(n)) => {
                range(*n >= low, format!("Value must be at least {low}"))
            }
            (Valid::Between(low, high), Value::Number(n)) => {
                range(*n >= low, format!("Value must be at least {low}"))?;
                range(*n <= high, format!("Value must be no more than {high}"))
            }
            // NaN is neither below nor above.
            (Valid::BetweenF(low, high), Value::Double(n)) => range(
                !(*n < low || *n > high),
                format!("Value must be between {low} and {high}"),
            ),
            (Valid::GzipLevel, Value::Number(n)) => range(
                *n == -1 || (1..=9).contains(n),
                "Value must be between 1 and 9 or equal to -1".to_owned(),
            ),
            (Valid::OneOf(all), Value::Text(text)) => one_of(all, text),
            (Valid::OneOfIgnoreCase(all), Value::Text(text)) => range(
                all.iter().any(|one| one.eq_ignore_ascii_case(text)),
                format!(
                    "String must be one of (case insensitive): {}",
                    all.join(", ")
                ),
            ),
            (Valid::NonEmpty, Value::Text(text)) => {
                range(!text.is_empty(), "String must be non-empty".to_owned())
            }
            (Valid::ListOf(all, empty), Value::List(list)) => check_list(all, empty, list),
            (Valid::ThrottledReplicas, Value::List(list)) => range(
                is_throttled_replicas(list),
                "expected *, none or [partitionId]:[brokerId],...".to_owned(),
            ),
            (Valid::ShareOffsetReset, Value::Text(text)) => range(
                matches!(text.as_str(), "latest" | "earliest")
                    || text.strip_prefix("by_duration:").is_some_and(is_duration),
                "expected latest, earliest or by_duration:PnDTnHnMn.nS".to_owned(),
            ),
            _ => Ok(()),
        }
    }

    /// What the key takes, for error messages.
    pub fn allowed(&self) -> String {
        match self.valid {
            Valid::AtLeast(low) => format!("a number of at least {low}"),
            Valid::Between(low, high) => format!("a number from {low} to {high}"),
            Valid::BetweenF(low, high) => format!("a number from {low} to {high}"),
            Valid::GzipLevel => "-1, or 1 to 9".to_owned(),
            Valid::OneOf(all) | Valid::OneOfIgnoreCase(all) => format!("one of {}", all.join(", ")),
            Valid::ListOf(all, _) if !all.is_empty() => format!("a list of {}", all.join(", ")),
            Valid::ThrottledReplicas => "*, none or partition:broker,...".to_owned(),
            Valid::ShareOffsetReset => "latest, earliest or by_duration:<duration>".to_owned(),
            Valid::Any | Valid::NonEmpty | Valid::ListOf(..) => match self.kind {
                Kind::Boolean => "true or false",
                Kind::Short | Kind::Int | Kind::Long => "a whole number",
                Kind::Double => "a number",
                Kind::List => "a list separated by commas",
                Kind::String | Kind::Class | Kind::Password => "a text",
            }
            .to_owned(),
        }
    }
}

/// Splits as Kafka does: around commas, blanks trimmed; nothing but blanks is the empty list.
pub fn split_list(text: &str) -> Vec<String> {
    let text = java::trim(text);
    if text.is_empty() {
        return Vec::new();
    }
    let parts = text.split(',').map(java::trim);
    parts.map(str::to_owned).collect()
}

fn one_of(all: &[&str], text: &str) -> Result<(), String> {
    if all.contains(&text) {
        return Ok(());
    }
    Err(format!("String must be one of: {}", all.join(", ")))
}

fn check_list(all: &[&str], empty: Empty, list: &[String]) -> Result<(), String> {
    if list.is_empty() && empty == Empty::NotEmpty {
        return Err("the list must not be empty".to_owned());
    }
    for item in list {
        if item.is_empty() {
            return Err("values must not be empty".to_owned());
        }
        if !all.is_empty() {
            one_of(all, item)?;
        }
    }
    Ok(())
}

fn is_throttled_replicas(list: &[String]) -> bool {
    let text = list.join(",");
    let text = text.trim();
    if text == "*" || text == "none" || text.is_empty() {
        return true;
    }
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    text.split(',').all(|pair| {
        pair.split_once(':')
            .is_some_and(|(partition, broker)| number(partition) && number(broker))
    })
}

/// A positive ISO 8601 duration of days and time, as `java.time.Duration` reads it.
fn is_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['P', 'p']) else {
        return false;
    };
    let (date, time) = match rest.split_once(['T', 't']) {
        Some((_, "")) => return false,
        Some((date, time)) => (date, time),
        None => (rest, ""),
    };
    let mut seen = false;
    let mut positive = false;
    let mut part = |text: &mut &str, unit: char| {
        if let Some(end) = text.find([unit, unit.to_ascii_lowercase()]) {
            let number = &text[..end];
            *text = &text[end + 1..];
            seen = true;
            let whole = unit != 'S' && number.contains('.');
            return match number.parse::<f64>() {
                Ok(n) if n >= 0.0 && !whole => {
                    positive |= n > 0.0;
                    true
                }
                _ => false,
            };
        }
        true
    };
    let (mut date, mut time) = (date, time);
    let ok = part(&mut date, 'D')
        && part(&mut time, 'H')
        && part(&mut time, 'M')
        && part(&mut time, 'S');
    ok && seen && positive && date.is_empty() && time.is_empty()
}
