//! ControllerRegistration (key 70), v0. From controllers to the active one (KIP-919).

use kafka_protocol::messages::{ControllerRegistrationRequest, ControllerRegistrationResponse};

use crate::api::RequestContext;

pub async fn handle(
    context: RequestContext,
    request: ControllerRegistrationRequest,
) -> ControllerRegistrationResponse {
    context.controller().controller_registration(request).await
}
