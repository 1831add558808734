//! Brokers: registration, heartbeats, fencing and controlled shutdown.

use kafka_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    BrokerRegistrationResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
};

use super::outcome::{Outcome, Turn};
use crate::protocol::ErrorCode;

/// When brokers were heard of.
#[derive(Debug, Default)]
pub struct Heartbeats {}

pub(super) fn register_broker(
    _: &mut Turn<'_>,
    _: &BrokerRegistrationRequest,
) -> Outcome<BrokerRegistrationResponse> {
    let response = BrokerRegistrationResponse::default();
    Outcome::unchanged(response.with_error_code(ErrorCode::NotController.code()))
}

pub(super) fn broker_heartbeat(
    _: &mut Turn<'_>,
    _: &BrokerHeartbeatRequest,
) -> Outcome<BrokerHeartbeatResponse> {
    let response = BrokerHeartbeatResponse::default();
    Outcome::unchanged(response.with_error_code(ErrorCode::NotController.code()))
}

pub(super) fn unregister_broker(
    _: &mut Turn<'_>,
    _: &UnregisterBrokerRequest,
) -> Outcome<UnregisterBrokerResponse> {
    let response = UnregisterBrokerResponse::default();
    Outcome::unchanged(response.with_error_code(ErrorCode::NotController.code()))
}
