//! Keeps this controller registered with the active one, which may be itself (Kafka's `ControllerRegistrationManager`, KIP-919):
//! the metadata then tell where it listens and which features it can work with.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ParseResponseErrorCode;
use kafka_protocol::messages::ControllerRegistrationRequest;
use kafka_protocol::messages::controller_registration_request::{Feature, Listener};
use kafka_protocol::protocol::StrBytes;
use tracing::{info, warn};

use crate::api::Services;
use crate::config::Config;
use crate::metadata::MetadataImage;
use crate::metadata::features::{METADATA_VERSION, SUPPORTED_FEATURES};
use crate::types::{BrokerId, Uuid, random_uuid};

/// Rest after a registration that was not accepted; doubles.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_mins(2);

/// Registers whenever the metadata do not have this process; never ends.
pub(super) async fn keep_registered(services: Arc<Services>) {
    let request = registration(&services.config(), random_uuid());
    let mut changes = services.images.watch();
    let mut leader = services.quorum.leader();
    let mut retry = RETRY_MIN;
    loop {
        changes.mark_unchanged();
        let image = services.images.current();
        let can_register = image.features.level(METADATA_VERSION) > 0;
        if !can_register || is_registered(&image, request.controller_id, request.incarnation_id) {
            retry = RETRY_MIN;
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        }
        leader.mark_unchanged();
        let controller = &services.controller;
        let response = controller.controller_registration(request.clone()).await;
        if let Some(code) = response.error_code.err() {
            warn!(
                ?code,
                "this controller could not be registered, trying again"
            );
            retry = match tokio::time::timeout(retry, leader.changed()).await {
                // Another controller may think otherwise.
                Ok(Ok(())) => RETRY_MIN,
                Ok(Err(_)) => return,
                Err(_) => (2 * retry).min(RETRY_MAX),
            };
            continue;
        }
        retry = RETRY_MIN;
        info!("the active controller has registered this one");
        let images = &services.images;
        let (id, incarnation_id) = (request.controller_id, request.incarnation_id);
        let seen = changes.wait_for(|_| is_registered(&images.current(), id, incarnation_id));
        // Should it be lost after all, the loop begins again.
        let _ = tokio::time::timeout(RETRY_MAX, seen).await;
    }
}

fn is_registered(image: &MetadataImage, id: BrokerId, incarnation_id: Uuid) -> bool {
    let known = image.cluster.controllers.get(&id);
    known.is_some_and(|known| known.incarnation_id == incarnation_id)
}

/// How this process introduces itself.
fn registration(config: &Config, incarnation_id: Uuid) -> ControllerRegistrationRequest {
    let advertised = config.advertised_listeners.iter();
    let listeners = advertised
        .filter(|endpoint| config.is_controller_listener(&endpoint.listener_name))
        .map(|endpoint| {
            let host = if endpoint.host.is_empty() {
                "localhost"
            } else {
                &endpoint.host
            };
            Listener::default()
                .with_name(StrBytes::from_string(endpoint.listener_name.clone()))
                .with_host(StrBytes::from_string(host.to_owned()))
                .with_port(endpoint.port)
                .with_security_protocol(endpoint.security_protocol.id())
        });
    let features = SUPPORTED_FEATURES.iter().map(|feature| {
        Feature::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_supported_version(feature.min_level)
            .with_max_supported_version(feature.max_level)
    });
    ControllerRegistrationRequest::default()
        .with_controller_id(config.node_id)
        .with_incarnation_id(incarnation_id)
        .with_listeners(listeners.collect())
        .with_features(features.collect())
}
