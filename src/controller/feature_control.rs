//! Finalized feature levels.

use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::failure;
use super::outcome::{Outcome, Turn};
use crate::protocol::ErrorCode;

/// UpdateFeatures.
pub(super) fn update_features(
    _: &mut Turn<'_>,
    _: &UpdateFeaturesRequest,
) -> Outcome<UpdateFeaturesResponse> {
    Outcome::unchanged(failure::update_features(ErrorCode::NotController.into()))
}
