//! Controllers: how they introduce themselves (`ClusterControlManager.registerController`, KIP-919).

use kafka_protocol::messages::{ControllerRegistrationRequest, ControllerRegistrationResponse};
use kafka_protocol::protocol::StrBytes;

use super::outcome::{Outcome, Turn};
use crate::metadata::features::METADATA_VERSION;
use crate::protocol::ErrorCode;
use crate::protocol::metadata_records::{
    ControllerEndpoint, ControllerFeature, RegisterControllerRecord,
};

/// The metadata.version that has records of controllers (3.7-IV0).
const REGISTRATIONS_SINCE: i16 = 15;

/// ControllerRegistration: a controller process introduces itself, whether it leads or not.
pub fn register_controller(
    turn: &mut Turn<'_>,
    request: &ControllerRegistrationRequest,
) -> Outcome<ControllerRegistrationResponse> {
    let response = ControllerRegistrationResponse::default();
    if turn.image.features.level(METADATA_VERSION) < REGISTRATIONS_SINCE {
        let message = "the metadata.version has no registrations of controllers";
        return Outcome::unchanged(
            response
                .with_error_code(ErrorCode::UnsupportedVersion.code())
                .with_error_message(Some(StrBytes::from_static_str(message))),
        );
    }
    let end_points = request.listeners.iter().map(|listener| ControllerEndpoint {
        name: listener.name.to_string(),
        host: listener.host.to_string(),
        port: listener.port,
        security_protocol: listener.security_protocol,
    });
    let features = request.features.iter().map(|feature| ControllerFeature {
        name: feature.name.to_string(),
        min_supported_version: feature.min_supported_version,
        max_supported_version: feature.max_supported_version,
    });
    let record = RegisterControllerRecord {
        controller_id: request.controller_id,
        incarnation_id: request.incarnation_id,
        zk_migration_ready: false,
        end_points: end_points.collect(),
        features: features.collect(),
    };
    Outcome::new(vec![record.into()], response)
}
