//! DescribeConfigs (key 32), v1-4. Settings of topics, this broker (or, for `""`, the cluster-wide dynamic ones), loggers,
//! groups and client-metrics subscriptions. Versions: v2 nothing new - v3 documentation and types - v4 flexible.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::alter_configs::{check_node_id, invalid_request};
use crate::api::RequestContext;
use crate::config::{self, Config, ConfigEntry, ConfigSource};
use crate::metadata::{ConfigResource, ConfigResourceType, MetadataImage};
use crate::protocol::{Error, ErrorCode};

pub fn handle(
    context: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let (image, config) = (context.services.image(), context.services.config());
    // Kafka sorts resources by who may see them before it looks at any: one unknown type fails them all.
    let unknown = request.resources.iter().find(|r| kind(r).is_none());
    let failure = unknown.map(|r| {
        let (kind, name) = (r.resource_type, &r.resource_name);
        invalid_request(format!(
            "Unexpected resource type {kind} for resource {name}"
        ))
    });
    let results = request.resources.iter().map(|resource| {
        let described = match &failure {
            Some(error) => Err(error.clone()),
            None => describe(&image, &config, resource),
        };
        result(&request, resource, described)
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn kind(resource: &DescribeConfigsResource) -> Option<ConfigResourceType> {
    ConfigResourceType::from_code(resource.resource_type)
}

fn describe(
    image: &MetadataImage,
    config: &Config,
    resource: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntry>, Error> {
    let name = &*resource.resource_name;
    let kind = kind(resource).ok_or_else(|| invalid_request("Unknown resource type"))?;
    let own = image.configs.of(&ConfigResource::new(kind, name));
    match kind {
        ConfigResourceType::Topic => {
            config::validate_topic_name(name)?;
            if image.topics.by_name(name).is_none() {
                return Err(ErrorCode::UnknownTopicOrPartition.into());
            }
            Ok(config.describe_topic(&own))
        }
        ConfigResourceType::Broker if name.is_empty() => Ok(config.describe_cluster_default()),
        ConfigResourceType::Broker => {
            check_node_id(name, config.node_id, "Broker")?;
            Ok(config.describe_broker())
        }
        ConfigResourceType::BrokerLogger => {
            if name.is_empty() {
                return Err(invalid_request("Broker id must not be empty"));
            }
            check_node_id(name, config.node_id, "Broker")?;
            Ok(loggers())
        }
        ConfigResourceType::ClientMetrics if name.is_empty() => Err(invalid_request(
            "Client metrics subscription name must not be empty",
        )),
        ConfigResourceType::ClientMetrics => Ok(config::describe_client_metrics(&own)),
        ConfigResourceType::Group if name.is_empty() => {
            Err(invalid_request("Group name must not be empty"))
        }
        ConfigResourceType::Group => Ok(config.describe_group(&own)),
    }
}

fn loggers() -> Vec<ConfigEntry> {
    let entry = |(name, level): (&str, String)| ConfigEntry {
        name: name.to_owned(),
        value: Some(level),
        source: ConfigSource::DynamicBrokerLogger,
        is_sensitive: false,
        is_read_only: false,
        synonyms: Vec::new(),
        config_type: 0,
        documentation: None,
    };
    config::loggers().into_iter().map(entry).collect()
}

fn result(
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
    described: Result<Vec<ConfigEntry>, Error>,
) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone());
    match described {
        Ok(entries) => {
            let wanted = resource.configuration_keys.as_deref().unwrap_or_default();
            let shown = entries.into_iter().filter(|entry| {
                wanted.is_empty() || wanted.iter().any(|name| **name == *entry.name)
            });
            result
                .with_error_message(Some(StrBytes::default()))
                .with_configs(shown.map(|entry| wire(request, entry)).collect())
        }
        Err(error) => {
            let message = error.message.as_deref().unwrap_or("");
            result
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(message.to_owned())))
        }
    }
}

fn wire(request: &DescribeConfigsRequest, entry: ConfigEntry) -> DescribeConfigsResourceResult {
    let synonyms = if request.include_synonyms {
        entry.synonyms
    } else {
        Vec::new()
    };
    let synonyms = synonyms.into_iter().map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_string(synonym.name))
            .with_value(synonym.value.map(StrBytes::from_string))
            .with_source(synonym.source as i8)
    });
    let documentation = entry
        .documentation
        .filter(|_| request.include_documentation);
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_string(entry.name))
        .with_value(entry.value.map(StrBytes::from_string))
        .with_read_only(entry.is_read_only)
        .with_config_source(entry.source as i8)
        .with_is_sensitive(entry.is_sensitive)
        .with_synonyms(synonyms.collect())
        .with_config_type(entry.config_type)
        .with_documentation(documentation.map(StrBytes::from_static_str))
}
