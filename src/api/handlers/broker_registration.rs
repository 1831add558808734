//! BrokerRegistration (key 62), v0-4. From a starting broker to the controller.

use kafka_protocol::messages::{BrokerRegistrationRequest, BrokerRegistrationResponse};

use crate::api::RequestContext;

pub async fn handle(
    context: RequestContext,
    request: BrokerRegistrationRequest,
) -> BrokerRegistrationResponse {
    context.controller().broker_registration(request).await
}
