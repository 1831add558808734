//! CreateTopics (key 19), v2-7. The controller decides; from v5 on the answer shows the configs that the topic got.
//! Versions: v4 defaults for -1 (KIP-464) - v5 flexible, configs (KIP-525) - v7 topic ids.

use std::collections::BTreeMap;

use kafka_protocol::messages::create_topics_response::CreatableTopicConfigs;
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};

use crate::api::RequestContext;
use crate::api::cluster_view::text;
use crate::config::{Config, ConfigEntry};

const CONFIGS_FROM: i16 = 5;

pub async fn handle(context: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let own: BTreeMap<TopicName, BTreeMap<String, String>> = request
        .topics
        .iter()
        .map(|topic| {
            let set = topic.configs.iter().filter_map(|config| {
                Some((config.name.to_string(), config.value.as_ref()?.to_string()))
            });
            (topic.name.clone(), set.collect())
        })
        .collect();
    let mut response = context.controller().create_topics(request).await;
    if context.version >= CONFIGS_FROM {
        let config = context.services.config();
        for topic in response
            .topics
            .iter_mut()
            .filter(|topic| topic.error_code == 0)
        {
            let own = own.get(&topic.name);
            topic.configs = own.map(|own| topic_configs(&config, own));
        }
    }
    response
}

/// Every config of a topic. Its own values are shown as they were sent, not as DescribeConfigs shows them.
fn topic_configs(config: &Config, own: &BTreeMap<String, String>) -> Vec<CreatableTopicConfigs> {
    let shown = config.describe_topic(own).into_iter();
    shown.map(|entry| topic_config(entry, own)).collect()
}

fn topic_config(entry: ConfigEntry, own: &BTreeMap<String, String>) -> CreatableTopicConfigs {
    let value = own.get(&entry.name).cloned().or(entry.value);
    CreatableTopicConfigs::default()
        .with_name(text(&entry.name))
        .with_value(value.as_deref().filter(|_| !entry.is_sensitive).map(text))
        .with_read_only(entry.is_read_only)
        .with_config_source(entry.source as i8)
        .with_is_sensitive(entry.is_sensitive)
}
