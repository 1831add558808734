//! ListConfigResources (key 74), v0-1. Names of the resources that configs can be asked of: v0 client-metrics subscriptions
//! (KIP-714), v1 any kinds (KIP-1142).

use kafka_protocol::messages::list_config_resources_response::ConfigResource as Listed;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::RequestContext;
use crate::metadata::{ConfigResourceType, MetadataImage};
use crate::protocol::ErrorCode;

/// In the order in which Kafka answers.
const ALL: [ConfigResourceType; 5] = [
    ConfigResourceType::Group,
    ConfigResourceType::ClientMetrics,
    ConfigResourceType::BrokerLogger,
    ConfigResourceType::Broker,
    ConfigResourceType::Topic,
];

pub fn handle(
    context: &RequestContext,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let supported: &[ConfigResourceType] = match context.version {
        0 => &[ConfigResourceType::ClientMetrics],
        _ => &ALL,
    };
    let wanted = &request.resource_types;
    let known = |code: &i8| supported.iter().any(|kind| kind.code() == *code);
    if !wanted.iter().all(known) {
        return ListConfigResourcesResponse::default()
            .with_error_code(ErrorCode::UnsupportedVersion.code());
    }
    let image = context.services.image();
    let kinds = supported
        .iter()
        .filter(|kind| wanted.is_empty() || wanted.contains(&kind.code()));
    let listed = kinds.flat_map(|kind| {
        names(&image, *kind, &context.connection.listener)
            .into_iter()
            .map(|name| {
                Listed::default()
                    .with_resource_type(kind.code())
                    .with_resource_name(StrBytes::from_string(name))
            })
    });
    ListConfigResourcesResponse::default().with_config_resources(listed.collect())
}

fn names(image: &MetadataImage, kind: ConfigResourceType, listener: &str) -> Vec<String> {
    match kind {
        ConfigResourceType::Topic => image
            .topics
            .names_from("")
            .map(ToString::to_string)
            .collect(),
        ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => image
            .cluster
            .alive_brokers()
            .filter(|broker| broker.listener(listener).is_some())
            .map(|broker| broker.id.to_string())
            .collect(),
        ConfigResourceType::Group | ConfigResourceType::ClientMetrics => image
            .configs
            .resources
            .keys()
            .filter(|resource| resource.kind == kind)
            .map(|resource| resource.name.to_string())
            .collect(),
    }
}
