//! IncrementalAlterConfigs (key 44), v0-1: changes single configs of a resource (KIP-339). Loggers are changed here and now
//! (KIP-412); of broker configs this broker checks whether it could run with them; the controller does the rest.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::alter_configs::{
    check_broker, check_node_id, check_resource, fill, invalid_request, named_twice, unknown_type,
};
use crate::api::RequestContext;
use crate::config::{self, Config, broker_key, is_list};
use crate::metadata::{ConfigResource, ConfigResourceType, MetadataImage};
use crate::protocol::{Error, ErrorCode};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// What becomes of a resource that is not refused.
#[derive(PartialEq)]
enum Preprocessed {
    Forward,
    Done,
}

pub async fn handle(
    context: RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let controller = context.controller();
    if context.connection.is_controller {
        // The broker that was asked first has done its checks.
        return controller.incremental_alter_configs(request).await;
    }
    let (image, config) = (context.services.image(), context.services.config());
    let keys = request.resources.iter();
    let twice = named_twice(keys.map(|r| (r.resource_type, &*r.resource_name)));
    let (mut answers, mut forwarded) = (Vec::new(), Vec::new());
    for resource in request.resources {
        let preprocessed = preprocess(&image, &config, &resource, &twice, request.validate_only);
        if preprocessed == Ok(Preprocessed::Forward) {
            answers.push(None);
            forwarded.push(resource);
            continue;
        }
        let error = preprocessed.err();
        let answer = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_code(error.as_ref().map_or(0, Error::code))
            .with_error_message(error.as_ref().and_then(Error::text));
        answers.push(Some(answer));
    }
    if !forwarded.is_empty() {
        let request = IncrementalAlterConfigsRequest::default()
            .with_validate_only(request.validate_only)
            .with_resources(forwarded);
        let answer = controller.incremental_alter_configs(request).await;
        fill(&mut answers, answer.responses);
    }
    let responses = answers.into_iter().flatten();
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn preprocess(
    image: &MetadataImage,
    config: &Config,
    resource: &AlterConfigsResource,
    twice: &BTreeSet<(i8, String)>,
    validate_only: bool,
) -> Result<Preprocessed, Error> {
    let name = &*resource.resource_name;
    let keys = resource.configs.iter();
    check_resource(
        (resource.resource_type, name),
        twice,
        keys.map(|c| (&*c.name, c.value.is_none() && c.config_operation != DELETE)),
    )?;
    match ConfigResourceType::from_code(resource.resource_type) {
        Some(ConfigResourceType::BrokerLogger) => {
            change_loggers(config, resource, validate_only)?;
            Ok(Preprocessed::Done)
        }
        Some(ConfigResourceType::Broker) => {
            if !name.is_empty() {
                check_node_id(name, config.node_id, "Node")?;
            }
            let broker = ConfigResource::new(ConfigResourceType::Broker, name);
            let mut wanted = (*image.configs.of(&broker)).clone();
            Config::retain_usable_dynamic(&mut wanted, !name.is_empty());
            apply(&mut wanted, resource)?;
            check_broker(config, name, &wanted)?;
            Ok(Preprocessed::Forward)
        }
        Some(_) => Ok(Preprocessed::Forward),
        None => Err(unknown_type(resource.resource_type)),
    }
}

/// The broker's configs after the change, for a check; the controller makes its own for the records.
fn apply(
    wanted: &mut BTreeMap<String, String>,
    request: &AlterConfigsResource,
) -> Result<(), Error> {
    for change in &request.configs {
        let name = change.name.to_string();
        let value = change.value.as_deref().unwrap_or_default();
        match change.config_operation {
            SET => drop(wanted.insert(name, value.to_owned())),
            DELETE => drop(wanted.remove(&name)),
            operation @ (APPEND | SUBTRACT) => {
                if !is_list(broker_key, &name) {
                    return Err(Error::new(
                        ErrorCode::InvalidConfig,
                        format!(
                            "Config value append or subtract is not allowed for config key: {name}"
                        ),
                    ));
                }
                let default = broker_key(&name)
                    .and_then(|key| key.default)
                    .unwrap_or_default();
                let old = wanted.get(&name).map_or(default, String::as_str);
                let operand: Vec<&str> = value.split(',').collect();
                let mut list: Vec<&str> = old.split(',').filter(|part| !part.is_empty()).collect();
                if operation == APPEND {
                    let new = operand.into_iter().filter(|part| !list.contains(part));
                    let new: Vec<&str> = new.collect();
                    list.extend(new);
                } else {
                    list.retain(|part| !operand.contains(part));
                }
                let list = list.join(",");
                wanted.insert(name, list);
            }
            other => return Err(invalid_request(format!("Unknown operations type {other}"))),
        }
    }
    Ok(())
}

fn change_loggers(
    config: &Config,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Error> {
    check_node_id(&resource.resource_name, config.node_id, "Node")?;
    let mut changes = Vec::with_capacity(resource.configs.len());
    for change in &resource.configs {
        let level = match change.config_operation {
            SET => change.value.as_deref(),
            DELETE => None,
            other => {
                return Err(invalid_request(format!(
                    "operation {other} is not allowed for the BROKER_LOGGER resource"
                )));
            }
        };
        changes.push((&*change.name, level));
    }
    config::set_loggers(&changes, validate_only)
}
