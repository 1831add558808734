//! Dynamic configs of topics, brokers, groups and client metrics: what a request changes, as ConfigRecords (Kafka's
//! `ConfigurationControlManager`). Changes of loggers never come here: brokers apply them themselves.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response as incremental;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};

use super::outcome::{Outcome, Turn};
use crate::config::{self, broker_key, topic_key};
use crate::metadata::{ConfigResource, ConfigResourceType};
use crate::protocol::metadata_records::{ClearElrRecord, ConfigRecord, MetadataRecord};
use crate::protocol::{Error, ErrorCode};

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Longest value that a ConfigRecord takes, in UTF-16 units as Kafka counts.
const VALUE_LENGTH_MAX: usize = i16::MAX as usize;

type Configs = BTreeMap<String, String>;

/// IncrementalAlterConfigs: sets, deletes, appends to and subtracts from single keys.
pub(super) fn incremental_alter_configs(
    turn: &mut Turn<'_>,
    request: &IncrementalAlterConfigsRequest,
) -> Outcome<IncrementalAlterConfigsResponse> {
    let keys = request
        .resources
        .iter()
        .map(|r| (r.resource_type, &*r.resource_name));
    let twice = duplicates(keys);
    let mut records = Vec::new();
    let responses = request.resources.iter().map(|r| {
        let result = resource_of(r.resource_type, &r.resource_name, &twice)
            .and_then(|resource| incremental_records(turn, &resource, r));
        let mut response = incremental::AlterConfigsResourceResponse::default()
            .with_resource_type(r.resource_type)
            .with_resource_name(r.resource_name.clone())
            .with_error_message(None);
        match result {
            Ok(new) => records.extend(new),
            Err(error) => {
                response.error_code = error.code();
                response.error_message = error.text();
            }
        }
        response
    });
    let response = IncrementalAlterConfigsResponse::default().with_responses(responses.collect());
    finish(turn, records, response, request.validate_only)
}

/// AlterConfigs: replaces all dynamic configs of a resource.
pub(super) fn alter_configs(
    turn: &mut Turn<'_>,
    request: &AlterConfigsRequest,
) -> Outcome<AlterConfigsResponse> {
    let keys = request
        .resources
        .iter()
        .map(|r| (r.resource_type, &*r.resource_name));
    let twice = duplicates(keys);
    let mut records = Vec::new();
    let responses = request.resources.iter().map(|r| {
        let result = resource_of(r.resource_type, &r.resource_name, &twice).and_then(|resource| {
            let wanted = r.configs.iter().map(|c| {
                let value = c.value.as_ref().map(ToString::to_string);
                (c.name.to_string(), value)
            });
            replacing_records(turn, &resource, wanted.collect())
        });
        let mut response = AlterConfigsResourceResponse::default()
            .with_resource_type(r.resource_type)
            .with_resource_name(r.resource_name.clone())
            .with_error_message(None);
        match result {
            Ok(new) => records.extend(new),
            Err(error) => {
                response.error_code = error.code();
                response.error_message = error.text();
            }
        }
        response
    });
    let response = AlterConfigsResponse::default().with_responses(responses.collect());
    finish(turn, records, response, request.validate_only)
}

fn finish<R>(
    turn: &Turn<'_>,
    records: Vec<ConfigRecord>,
    response: R,
    validate_only: bool,
) -> Outcome<R> {
    if validate_only {
        return Outcome::unchanged(response);
    }
    let cleared = if elr_enabled(turn) {
        clear_elr(&records)
    } else {
        Vec::new()
    };
    let all = records.into_iter().map(MetadataRecord::from).chain(cleared);
    Outcome::atomic(all.collect(), response)
}

/// A changed minimum makes the remembered eligible leaders meaningless (KIP-966): of the topic, or of all for `""`.
fn clear_elr(records: &[ConfigRecord]) -> Vec<MetadataRecord> {
    let changed = records.iter().filter(|r| r.name == MIN_INSYNC_REPLICAS);
    let cleared = changed.map(|r| {
        let topic = r.resource_type == ConfigResourceType::Topic.code();
        let topic_name = if topic {
            r.resource_name.clone()
        } else {
            String::new()
        };
        MetadataRecord::from(ClearElrRecord { topic_name })
    });
    cleared.collect()
}

fn elr_enabled(turn: &Turn<'_>) -> bool {
    turn.image
        .features
        .level("eligible.leader.replicas.version")
        > 0
}

fn duplicates<'a>(resources: impl Iterator<Item = (i8, &'a str)>) -> BTreeSet<(i8, String)> {
    let mut seen = BTreeSet::new();
    resources
        .filter(|(kind, name)| !seen.insert((*kind, (*name).to_owned())))
        .map(|(kind, name)| (kind, name.to_owned()))
        .collect()
}

fn invalid_request(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest, message.into())
}

fn invalid_config(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidConfig, message.into())
}

/// The resource that a request names; not a logger, and not one that is named twice.
fn resource_of(
    kind: i8,
    name: &str,
    twice: &BTreeSet<(i8, String)>,
) -> Result<ConfigResource, Error> {
    if twice.contains(&(kind, name.to_owned())) {
        return Err(invalid_request("Each resource must appear at most once."));
    }
    match ConfigResourceType::from_code(kind) {
        Some(kind) if kind != ConfigResourceType::BrokerLogger => {
            Ok(ConfigResource::new(kind, name))
        }
        _ => Err(Error::new(
            ErrorCode::UnsupportedVersion,
            format!("Unknown resource type {kind}."),
        )),
    }
}

fn incremental_records(
    turn: &Turn<'_>,
    resource: &ConfigResource,
    request: &AlterConfigsResource,
) -> Result<Vec<ConfigRecord>, Error> {
    let current = turn.image.configs.of(resource);
    let mut wanted = BTreeMap::new();
    for change in &request.configs {
        let name = change.name.to_string();
        let old = current.get(&name).cloned();
        let operand = change.value.as_ref().map(ToString::to_string);
        let new = match change.config_operation {
            0 => operand,
            1 => None,
            2 | 3 => {
                let append = change.config_operation == 2;
                let operand = operand.unwrap_or_default();
                Some(edit_list(
                    resource.kind,
                    &name,
                    old.as_deref(),
                    &operand,
                    append,
                )?)
            }
            // Kafka trips over a null here.
            _ => return Err(ErrorCode::UnknownServerError.into()),
        };
        wanted.insert(name, new);
    }
    let altered = records_for(resource, &current, wanted);
    check(turn, resource, &current, &altered)?;
    Ok(altered)
}

/// Records that make `wanted` the whole of the resource's configs.
fn replacing_records(
    turn: &Turn<'_>,
    resource: &ConfigResource,
    mut wanted: BTreeMap<String, Option<String>>,
) -> Result<Vec<ConfigRecord>, Error> {
    let current = turn.image.configs.of(resource);
    for name in current.keys() {
        wanted.entry(name.clone()).or_insert(None);
    }
    let altered = records_for(resource, &current, wanted);
    check(turn, resource, &current, &altered)?;
    Ok(altered)
}

/// One record a key that changes. Brokers get one for unchanged keys too: setting the same path again reloads the file
/// behind it (KAFKA-14136).
fn records_for(
    resource: &ConfigResource,
    current: &Configs,
    wanted: BTreeMap<String, Option<String>>,
) -> Vec<ConfigRecord> {
    let broker = resource.kind == ConfigResourceType::Broker;
    wanted
        .into_iter()
        .filter(|(name, value)| broker || current.get(name) != value.as_ref())
        .map(|(name, value)| ConfigRecord {
            resource_type: resource.kind.code(),
            resource_name: resource.name.to_string(),
            name,
            value,
        })
        .collect()
}

/// APPEND and SUBTRACT: the list after the change. Elements are compared as they stand, blanks included.
fn edit_list(
    kind: ConfigResourceType,
    name: &str,
    old: Option<&str>,
    operand: &str,
    append: bool,
) -> Result<String, Error> {
    // Kafka's controller knows the types of these two kinds only.
    let find = match kind {
        ConfigResourceType::Topic => topic_key,
        ConfigResourceType::Broker => broker_key,
        _ => |_: &str| None,
    };
    let key = find(name)
        .filter(|_| config::is_list(find, name))
        .ok_or_else(|| {
            let what = if append { "APPEND" } else { "SUBTRACT" };
            invalid_config(format!(
                "Can't {what} to key {name} because its type is not LIST."
            ))
        })?;
    let old = old.or(key.default).unwrap_or_default();
    let mut list: Vec<&str> = old.split(',').filter(|part| !part.is_empty()).collect();
    for part in operand.split(',') {
        let at = list.iter().position(|have| *have == part);
        match (append, at) {
            (true, None) => list.push(part),
            (false, Some(at)) => drop(list.remove(at)),
            _ => {}
        }
    }
    Ok(list.join(","))
}

/// Whether the resource may have the configs that `altered` leads to.
fn check(
    turn: &Turn<'_>,
    resource: &ConfigResource,
    current: &Configs,
    altered: &[ConfigRecord],
) -> Result<(), Error> {
    let mut next = current.clone();
    for record in altered {
        if resource.kind == ConfigResourceType::Broker {
            check_broker_record(turn, record)?;
        }
        match &record.value {
            None => {
                next.remove(&record.name);
            }
            Some(value) if value.encode_utf16().count() > VALUE_LENGTH_MAX => {
                return Err(invalid_config(format!(
                    "The configuration value cannot be added because it exceeds the maximum value size of {VALUE_LENGTH_MAX} bytes."
                )));
            }
            Some(value) => {
                next.insert(record.name.clone(), value.clone());
            }
        }
    }
    let name = &*resource.name;
    let settings = &turn.settings.config;
    match resource.kind {
        ConfigResourceType::Topic => {
            if name.is_empty() {
                return Err(invalid_request("Default topic resources are not allowed."));
            }
            config::validate_topic_name(name)?;
            config::validate_topic_configs(settings, current, &next)?;
            if turn.image.topics.by_name(name).is_none() {
                return Err(Error::new(
                    ErrorCode::UnknownTopicOrPartition,
                    format!("The topic '{name}' does not exist."),
                ));
            }
            Ok(())
        }
        ConfigResourceType::Broker => check_broker_name(turn, name),
        ConfigResourceType::Group if name.is_empty() => {
            Err(invalid_request("Default group resources are not allowed."))
        }
        ConfigResourceType::Group => config::validate_group_configs(settings, &next),
        ConfigResourceType::ClientMetrics => config::validate_client_metrics_configs(name, &next),
        ConfigResourceType::BrokerLogger => Err(invalid_request("Unknown resource type 8")),
    }
}

fn check_broker_name(turn: &Turn<'_>, name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Ok(());
    }
    let id: i32 = name
        .parse()
        .map_err(|_| invalid_request("Unable to parse broker name as a base 10 number."))?;
    if id < 0 {
        return Err(invalid_request("Invalid negative broker ID."));
    }
    if turn.image.cluster.broker(id).is_none() && id != turn.settings.node_id {
        return Err(Error::new(
            ErrorCode::BrokerIdNotRegistered,
            format!("No node with id {id} found."),
        ));
    }
    Ok(())
}

/// With eligible leader replicas there is one minimum for the whole cluster, and it is always set (KIP-966).
fn check_broker_record(turn: &Turn<'_>, record: &ConfigRecord) -> Result<(), Error> {
    if record.name != MIN_INSYNC_REPLICAS || !elr_enabled(turn) {
        return Ok(());
    }
    if !record.resource_name.is_empty() {
        return Err(invalid_config(
            "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
        ));
    }
    if record.value.is_none() {
        return Err(invalid_config(
            "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
