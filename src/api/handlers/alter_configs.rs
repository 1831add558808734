//! AlterConfigs (key 33), v0-2: replaces all dynamic configs of a resource. Deprecated since Kafka 2.3 for
//! IncrementalAlterConfigs, and still what old admin clients send. This broker checks what only it can check, and the
//! controller does the rest.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use crate::api::RequestContext;
use crate::config::Config;
use crate::metadata::ConfigResourceType;
use crate::protocol::{Error, ErrorCode};
use crate::types::BrokerId;

pub async fn handle(context: RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
    if context.connection.is_controller {
        // The broker that was asked first has done its checks.
        return context.controller().alter_configs(request).await;
    }
    let config = context.services.config();
    let keys = request.resources.iter();
    let twice = named_twice(keys.map(|r| (r.resource_type, &*r.resource_name)));
    let (mut answers, mut forwarded) = (Vec::new(), Vec::new());
    for resource in request.resources {
        let Err(error) = preprocess(&config, &resource, &twice) else {
            answers.push(None);
            forwarded.push(resource);
            continue;
        };
        let answer = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_code(error.code())
            .with_error_message(error.text());
        answers.push(Some(answer));
    }
    if !forwarded.is_empty() {
        let request = AlterConfigsRequest::default()
            .with_validate_only(request.validate_only)
            .with_resources(forwarded);
        let answer = context.controller().alter_configs(request).await;
        fill(&mut answers, answer.responses);
    }
    let responses = answers.into_iter().flatten();
    AlterConfigsResponse::default().with_responses(responses.collect())
}

/// Puts what the controller answered, in the order of the request, where this broker had nothing to say.
pub(super) fn fill<R>(answers: &mut [Option<R>], forwarded: Vec<R>) {
    let open = answers.iter_mut().filter(|answer| answer.is_none());
    for (answer, forwarded) in open.zip(forwarded) {
        *answer = Some(forwarded);
    }
}

fn preprocess(
    config: &Config,
    resource: &AlterConfigsResource,
    twice: &BTreeSet<(i8, String)>,
) -> Result<(), Error> {
    check_resource(
        (resource.resource_type, &resource.resource_name),
        twice,
        resource
            .configs
            .iter()
            .map(|c| (&*c.name, c.value.is_none())),
    )?;
    match ConfigResourceType::from_code(resource.resource_type) {
        Some(ConfigResourceType::Broker) => {
            let wanted: BTreeMap<String, String> = resource
                .configs
                .iter()
                .filter_map(|c| Some((c.name.to_string(), c.value.as_ref()?.to_string())))
                .collect();
            check_broker(config, &resource.resource_name, &wanted)
        }
        Some(ConfigResourceType::BrokerLogger) | None => Err(unknown_type(resource.resource_type)),
        Some(_) => Ok(()),
    }
}

pub(super) fn invalid_request(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest, message.into())
}

pub(super) fn unknown_type(kind: i8) -> Error {
    invalid_request(format!("Unknown resource type {kind}"))
}

/// Resources that a request names more than once.
pub(super) fn named_twice<'a>(
    resources: impl Iterator<Item = (i8, &'a str)>,
) -> BTreeSet<(i8, String)> {
    let mut seen = BTreeSet::new();
    let again = resources.filter(|key| !seen.insert(*key));
    again.map(|(kind, name)| (kind, name.to_owned())).collect()
}

/// The checks that every kind of resource gets; `keys` are names, and whether a value is missing.
pub(super) fn check_resource<'a>(
    (kind, name): (i8, &str),
    twice: &BTreeSet<(i8, String)>,
    keys: impl Iterator<Item = (&'a str, bool)>,
) -> Result<(), Error> {
    if twice.contains(&(kind, name.to_owned())) {
        return Err(invalid_request("Each resource must appear at most once."));
    }
    let mut seen = BTreeSet::new();
    let mut null = Vec::new();
    for (key, is_null) in keys {
        if !seen.insert(key) {
            return Err(invalid_request("Error due to duplicate config keys"));
        }
        if is_null {
            null.push(key);
        }
    }
    if !null.is_empty() {
        let keys = null.join(", ");
        return Err(invalid_request(format!(
            "Null value not supported for : {keys}"
        )));
    }
    Ok(())
}

/// Whether this broker (or, for `""`, any) could run with exactly these dynamic configs.
pub(super) fn check_broker(
    config: &Config,
    name: &str,
    wanted: &BTreeMap<String, String>,
) -> Result<(), Error> {
    if !name.is_empty() {
        check_node_id(name, config.node_id, "Node")?;
    }
    config.validate_dynamic(wanted, !name.is_empty())
}

/// A broker answers for itself only.
pub(super) fn check_node_id(name: &str, node_id: BrokerId, what: &str) -> Result<(), Error> {
    let id: BrokerId = name
        .parse()
        .map_err(|_| invalid_request(format!("{what} id must be an integer, but it is: {name}")))?;
    if id != node_id {
        return Err(invalid_request(format!(
            "Unexpected broker id, expected {node_id}, but received {name}"
        )));
    }
    Ok(())
}
