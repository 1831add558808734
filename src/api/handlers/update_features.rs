//! UpdateFeatures (key 57), v0-2. Finalises feature levels (KIP-584); the controller decides.
//! Versions: v1 upgrade types and dry runs - v2 all features or none, without results of their own (KIP-1022).

use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::RequestContext;

pub async fn handle(
    context: RequestContext,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let updates = request.feature_updates.iter();
    let features: Vec<StrBytes> = updates.map(|update| update.feature.clone()).collect();
    let response = context.controller().update_features(request).await;
    if response.error_code != 0 {
        return response.with_results(Vec::new());
    }
    let response = response.with_error_message(None);
    if context.version >= 2 {
        return response.with_results(Vec::new());
    }
    let results = features.into_iter().map(|feature| {
        UpdatableFeatureResult::default()
            .with_feature(feature)
            .with_error_message(Some(StrBytes::from_static_str("NONE")))
    });
    response.with_results(results.collect())
}
