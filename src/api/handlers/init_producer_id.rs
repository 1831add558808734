//! InitProducerId (key 22), v0-5. Gives an idempotent producer its id and epoch.
//! Transactional ids need the transaction coordinator, which this broker does not have: they are answered with
//! COORDINATOR_NOT_AVAILABLE.
//! Versions: v2 flexible - v3 producer id and epoch of the caller (KIP-360) - v4 PRODUCER_FENCED - v5 KIP-890.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::api::RequestContext;
use crate::protocol::{Error, ErrorCode};

pub async fn handle(
    context: RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    match allocate(&context, &request).await {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(0),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

async fn allocate(context: &RequestContext, request: &InitProducerIdRequest) -> Result<i64, Error> {
    if (request.producer_id.0 == -1) != (request.producer_epoch == -1) {
        return Err(ErrorCode::InvalidRequest.into());
    }
    match request.transactional_id.as_ref().map(|id| id.is_empty()) {
        Some(true) => Err(ErrorCode::InvalidRequest.into()),
        Some(false) => Err(ErrorCode::CoordinatorNotAvailable.into()),
        None => {
            let services = &context.services;
            let broker_id = services.config().node_id;
            let broker_epoch = services
                .image()
                .cluster
                .broker(broker_id)
                .map_or(-1, |b| b.epoch);
            services.producer_ids.next(broker_epoch).await
        }
    }
}
