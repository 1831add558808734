//! What keys and values are printed as: text, numbers, or the records of an internal topic as JSON.

use std::fmt::Write as _;

use bytes::Bytes;

use super::{DumpError, DumpLogArgs, STRING_DECODER};
use crate::protocol::batch::Record;
use crate::protocol::consumer_protocol::{
    CONSUMER_PROTOCOL_TYPE, assignment_json, subscription_json,
};
use crate::protocol::group_records::{GroupMetadataValue, GroupRecordKey, GroupRecordValue};
use crate::protocol::json;
use crate::protocol::metadata_records::decode_record_and_version;
use crate::protocol::newer_group_records;
use crate::protocol::share_records::{ShareGroupKey, ShareSnapshotValue, ShareUpdateValue};
use crate::protocol::transaction_records::{TransactionLogKey, TransactionLogValue};
use crate::protocol::wire::DecodeError;

/// What Kafka prints for a record without value.
const DELETED: &str = "<DELETE>";

pub(super) enum Decoder {
    Plain { key: Plain, value: Plain },
    Offsets,
    TransactionLog,
    ClusterMetadata,
    ShareGroupState,
}

/// Kafka's own decoder classes that print something readable.
#[derive(Clone, Copy)]
pub(super) enum Plain {
    String,
    Integer,
    Long,
}

impl Plain {
    fn named(class: Option<&String>) -> Result<Self, DumpError> {
        match class.map_or(STRING_DECODER, String::as_str) {
            STRING_DECODER => Ok(Self::String),
            "org.apache.kafka.tools.api.IntegerDecoder" => Ok(Self::Integer),
            "org.apache.kafka.tools.api.LongDecoder" => Ok(Self::Long),
            other => Err(DumpError::Refused(format!(
                "the decoder class {other} cannot be loaded: there is no JVM here. \
                 Use String-, Integer- or LongDecoder of org.apache.kafka.tools.api, or kafka-dump-log.sh of Apache Kafka"
            ))),
        }
    }

    fn decode(self, bytes: &[u8]) -> Result<String, DumpError> {
        let wrong = || DumpError::Refused(format!("{} bytes are not a number", bytes.len()));
        Ok(match self {
            Self::String => java_string(bytes),
            Self::Integer => {
                i32::from_be_bytes(*bytes.first_chunk().ok_or_else(wrong)?).to_string()
            }
            Self::Long => i64::from_be_bytes(*bytes.first_chunk().ok_or_else(wrong)?).to_string(),
        })
    }
}

/// Key and value as they are printed; `None` is left out.
type Printed = (Option<String>, Option<String>);

impl Decoder {
    pub(super) fn chosen(args: &DumpLogArgs) -> Result<Self, DumpError> {
        Ok(if args.offsets_decoder {
            Self::Offsets
        } else if args.transaction_log_decoder {
            Self::TransactionLog
        } else if args.cluster_metadata_decoder {
            Self::ClusterMetadata
        } else if args.remote_log_metadata_decoder {
            return Err(DumpError::Refused(
                "--remote-log-metadata-decoder: there is no tiered storage".to_owned(),
            ));
        } else if args.share_group_state_decoder {
            Self::ShareGroupState
        } else {
            Self::Plain {
                key: Plain::named(args.key_decoder_class.as_ref())?,
                value: Plain::named(args.value_decoder_class.as_ref())?,
            }
        })
    }

    pub(super) fn decode(&self, record: &Record) -> Result<Printed, DumpError> {
        match self {
            Self::Plain { key, value } => {
                let print = |plain: &Plain, bytes: &Option<Bytes>| {
                    bytes.as_ref().map(|bytes| plain.decode(bytes)).transpose()
                };
                Ok((print(key, &record.key)?, print(value, &record.value)?))
            }
            Self::ClusterMetadata => Ok((None, Some(cluster_metadata(record)))),
            Self::Offsets => coordinator(record, offsets),
            Self::TransactionLog => coordinator(record, transaction_log),
            Self::ShareGroupState => coordinator(record, share_group_state),
        }
    }
}

fn cluster_metadata(record: &Record) -> String {
    let value = record.value.clone().unwrap_or_default();
    match decode_record_and_version(value) {
        Ok((decoded, version)) => format!(
            r#"{{"type":"{}","version":{version},"data":{}}}"#,
            record_type_name(decoded.name()),
            decoded.to_json(version)
        ),
        Err(error) => format!("Error at {}, skipping. {error}", record.offset),
    }
}

/// `RegisterBrokerRecord` is `REGISTER_BROKER_RECORD`.
fn record_type_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (at, c) in name.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

/// A key of a coordinator's log: its type and body, and how its value looks.
struct CoordinatorRecord {
    kind: i16,
    key: String,
    /// `None` where there is no value: the key is deleted.
    value: Option<(i16, String)>,
}

fn coordinator(
    record: &Record,
    decode: fn(&Bytes, Option<&Bytes>) -> Result<CoordinatorRecord, DecodeError>,
) -> Result<Printed, DumpError> {
    let offset = record.offset;
    let Some(key) = &record.key else {
        return Err(DumpError::Refused(format!(
            "Failed to decode message at offset {offset} using the specified decoder (message had a missing key)"
        )));
    };
    Ok(match decode(key, record.value.as_ref()) {
        Ok(CoordinatorRecord { kind, key, value }) => {
            let value = value.map_or(DELETED.to_owned(), |(version, data)| {
                format!(r#"{{"version":"{version}","data":{data}}}"#)
            });
            let key = format!(r#"{{"type":"{kind}","data":{key}}}"#);
            (Some(key), Some(value))
        }
        Err(DecodeError::UnknownType(kind)) => {
            let text = format!("Unknown record type {kind} at offset {offset}, skipping.");
            (Some(text), None)
        }
        Err(error) => {
            let text = format!("Error at offset {offset}, skipping. {error}");
            (Some(text), None)
        }
    })
}

/// The int16 in front of a key or a value.
fn leading_number(bytes: &Bytes) -> Result<i16, DecodeError> {
    let number = bytes.first_chunk().ok_or(DecodeError::Truncated)?;
    Ok(i16::from_be_bytes(*number))
}

fn offsets(key: &Bytes, value: Option<&Bytes>) -> Result<CoordinatorRecord, DecodeError> {
    let kind = leading_number(key)?;
    let decoded = GroupRecordKey::decode(key)?;
    let key = match &decoded {
        GroupRecordKey::OffsetCommit(key) => json::text(key, 0),
        GroupRecordKey::GroupMetadata(key) => json::text(key, 0),
        GroupRecordKey::Other(kind) => newer_group_records::key_json(*kind, &mut key.slice(2..))?,
    };
    let value = match value {
        None => None,
        Some(value) => {
            let version = leading_number(value)?;
            let data = match GroupRecordValue::decode(&decoded, value)? {
                GroupRecordValue::OffsetCommit(value) => json::text(&value, version),
                GroupRecordValue::GroupMetadata(value) => group_metadata(&value, version),
                GroupRecordValue::Other => {
                    newer_group_records::value_json(kind, &mut value.slice(2..), version)?
                }
            };
            Some((version, data))
        }
    };
    Ok(CoordinatorRecord { kind, key, value })
}

/// A classic group; what the members of a consumer group said of themselves is shown instead of its bytes.
fn group_metadata(group: &GroupMetadataValue, version: i16) -> String {
    let mut text = json::text(group, version);
    if group.protocol_type != CONSUMER_PROTOCOL_TYPE {
        return text;
    }
    // The bytes are base64, which holds no quote: the first match behind the last replacement is the field.
    let mut from = 0;
    for member in &group.members {
        let fields = [
            (
                "subscription",
                &member.subscription,
                subscription_json(&member.subscription),
            ),
            (
                "assignment",
                &member.assignment,
                assignment_json(&member.assignment),
            ),
        ];
        for (name, bytes, readable) in fields {
            let shown = format!(r#""{name}":{}"#, json::text(bytes, version));
            let Some(at) = text[from..].find(&shown) else {
                continue;
            };
            let at = from + at;
            let new = readable.map_or(shown.clone(), |json| format!(r#""{name}":{json}"#));
            text.replace_range(at..at + shown.len(), &new);
            from = at + new.len();
        }
    }
    text
}

fn transaction_log(key: &Bytes, value: Option<&Bytes>) -> Result<CoordinatorRecord, DecodeError> {
    let kind = leading_number(key)?;
    let key = json::text(&TransactionLogKey::from_record(key)?, 0);
    let value = match value {
        None => None,
        Some(value) => {
            let version = leading_number(value)?;
            let decoded = TransactionLogValue::from_record(value)?;
            Some((version, transaction_state(decoded, version)))
        }
    };
    Ok(CoordinatorRecord { kind, key, value })
}

/// The client's transaction version stands last in Kafka's schema; ours has tagged fields in the order of their tags.
fn transaction_state(mut value: TransactionLogValue, version: i16) -> String {
    let client_version = std::mem::take(&mut value.client_transaction_version);
    let mut text = json::text(&value, version);
    if client_version != 0 {
        text.pop();
        let _ = write!(text, r#","clientTransactionVersion":{client_version}}}"#);
    }
    text
}

fn share_group_state(key: &Bytes, value: Option<&Bytes>) -> Result<CoordinatorRecord, DecodeError> {
    let kind = leading_number(key)?;
    if !matches!(kind, 0 | 1) {
        return Err(DecodeError::UnknownType(i32::from(kind)));
    }
    let key = json::text(&ShareGroupKey::decode(&mut key.slice(2..), 0)?, 0);
    let value = match value {
        None => None,
        Some(value) => {
            let version = leading_number(value)?;
            let mut body = value.slice(2..);
            let data = if kind == 0 {
                json::text(&ShareSnapshotValue::decode(&mut body, version)?, version)
            } else {
                json::text(&ShareUpdateValue::decode(&mut body, version)?, version)
            };
            Some((version, data))
        }
    };
    Ok(CoordinatorRecord { kind, key, value })
}

/// Bytes as Java's `new String(bytes, UTF_8)` has them: an encoded surrogate, whole or cut short, is one mistake there; to
/// Rust each of its bytes is.
pub fn java_string(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest
        .windows(2)
        .position(|two| matches!(two, [0xED, 0xA0..=0xBF]))
    {
        text.push_str(&String::from_utf8_lossy(&rest[..at]));
        text.push(char::REPLACEMENT_CHARACTER);
        let is_whole = matches!(rest.get(at + 2), Some(0x80..=0xBF));
        rest = &rest[at + 2 + usize::from(is_whole)..];
    }
    text.push_str(&String::from_utf8_lossy(rest));
    text
}
