//! Topics that come into being because somebody asked for them: by Metadata, or FindCoordinator for internal ones.
//!
//! The asker is not kept waiting. It is told UNKNOWN_TOPIC_OR_PARTITION, which clients retry, while the controller
//! works (`DefaultAutoTopicCreationManager`).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tracing::{info, warn};

use crate::config::{Config, validate_topic_name};
use crate::controller;
use crate::protocol::ErrorCode;
use crate::types::{GROUP_METADATA_TOPIC, TRANSACTION_STATE_TOPIC};

/// Creates topics in the background, each once at a time. Cheap to clone.
#[derive(Clone)]
pub struct TopicCreation {
    controller: controller::Handle,
    in_flight: Arc<Mutex<HashSet<TopicName>>>,
}

impl TopicCreation {
    pub fn new(controller: controller::Handle) -> Self {
        Self {
            controller,
            in_flight: Arc::default(),
        }
    }

    /// Starts the creation of `topics` and says what to answer for each of them.
    pub fn start(&self, config: &Config, topics: &[TopicName]) -> Vec<ErrorCode> {
        let mut creatable = Vec::new();
        let codes = topics.iter().map(|topic| {
            if validate_topic_name(topic).is_err() {
                return ErrorCode::InvalidTopicException;
            }
            if self.lock().insert(topic.clone()) {
                creatable.push(creatable_topic(config, topic));
            }
            ErrorCode::UnknownTopicOrPartition
        });
        let codes = codes.collect();
        if !creatable.is_empty() {
            let request = CreateTopicsRequest::default()
                .with_timeout_ms(config.request_timeout_ms)
                .with_topics(creatable);
            tokio::spawn(self.clone().create(request));
        }
        codes
    }

    async fn create(self, request: CreateTopicsRequest) {
        let names: Vec<TopicName> = request.topics.iter().map(|t| t.name.clone()).collect();
        let response = self.controller.create_topics(request).await;
        for result in response.topics {
            let topic = result.name.as_str();
            match ErrorCode::try_from_code(result.error_code) {
                None => info!(topic, "created topic on request"),
                // Somebody else was faster.
                Some(ErrorCode::TopicAlreadyExists) => {}
                Some(code) => {
                    let message = result.error_message.as_deref();
                    warn!(
                        topic,
                        ?code,
                        message,
                        "topic could not be created on request"
                    );
                }
            }
        }
        let mut in_flight = self.lock();
        for name in &names {
            in_flight.remove(name);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<TopicName>> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Internal topics have their own settings, others the broker's defaults.
fn creatable_topic(config: &Config, name: &TopicName) -> CreatableTopic {
    let topic = CreatableTopic::default().with_name(name.clone());
    match name.as_str() {
        GROUP_METADATA_TOPIC => topic
            .with_num_partitions(config.offsets_topic_num_partitions)
            .with_replication_factor(config.offsets_topic_replication_factor)
            .with_configs(configs(&[
                ("cleanup.policy", "compact"),
                ("compression.type", "producer"),
                (
                    "segment.bytes",
                    &config.offsets_topic_segment_bytes.to_string(),
                ),
            ])),
        TRANSACTION_STATE_TOPIC => topic
            .with_num_partitions(config.transaction_state_log_num_partitions)
            .with_replication_factor(config.transaction_state_log_replication_factor)
            .with_configs(configs(&[
                ("cleanup.policy", "compact"),
                ("compression.type", "uncompressed"),
                (
                    "min.insync.replicas",
                    &config.transaction_state_log_min_isr.to_string(),
                ),
                (
                    "segment.bytes",
                    &config.transaction_state_log_segment_bytes.to_string(),
                ),
                ("unclean.leader.election.enable", "false"),
            ])),
        _ => topic.with_num_partitions(-1).with_replication_factor(-1),
    }
}

fn configs(settings: &[(&'static str, &str)]) -> Vec<CreatableTopicConfig> {
    let config = |(name, value): &(&'static str, &str)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_string((*value).to_owned())))
    };
    settings.iter().map(config).collect()
}
