//! ApiVersions (key 18), v0-4. Lists the API table and the features; the only API that answers a version it
//! does not know (KIP-511).
//! Versions: v3 flexible, client software name and version (KIP-511), features (KIP-584) - v4 lists features whose
//! minimum is 0.

use kafka_protocol::messages::api_versions_response::{
    ApiVersion, FinalizedFeatureKey, SupportedFeatureKey,
};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::RequestContext;
use crate::api::reply::{Framing, Reply, ResponseFrame};
use crate::api::table::{self, API_TABLE, ApiSpec};
use crate::metadata::features::{KRAFT_VERSION, SUPPORTED_FEATURES};
use crate::protocol::ErrorCode;

pub fn handle(context: &RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    if context.version >= 3
        && !(is_software_name(&request.client_software_name)
            && is_software_name(&request.client_software_version))
    {
        return ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
    }
    let is_controller = context.connection.is_controller;
    let shown = API_TABLE
        .iter()
        .filter(|spec| spec.is_advertised_on(is_controller));
    let response = ApiVersionsResponse::default().with_api_keys(shown.map(listed).collect());
    if context.version < 3 {
        return response;
    }
    let image = context.services.image();
    let supported = SUPPORTED_FEATURES
        .iter()
        .filter(|feature| context.version >= 4 || feature.min_level > 0)
        .map(|feature| {
            SupportedFeatureKey::default()
                .with_name(StrBytes::from_static_str(feature.name))
                .with_min_version(feature.min_level)
                .with_max_version(feature.max_level)
        })
        .collect();
    let finalized = image.features.finalized.iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_string(name.to_string()))
            .with_min_version_level(*level)
            .with_max_version_level(*level)
    });
    // kraft.version is no record of the metadata log: the quorum keeps it. Level 0 is as good as none.
    let level = context.services.quorum.kraft_version();
    let quorum = FinalizedFeatureKey::default()
        .with_name(StrBytes::from_static_str(KRAFT_VERSION))
        .with_min_version_level(level)
        .with_max_version_level(level);
    let mut listed = image.features.finalized.keys();
    let is_listed = listed.any(|name| &**name == KRAFT_VERSION);
    let finalized = finalized.chain((level > 0 && !is_listed).then_some(quorum));
    response
        .with_supported_features(supported)
        .with_finalized_features(finalized.collect())
        .with_finalized_features_epoch(image.last_offset)
}

/// The answer to a version that is not served: version 0, error 35, and one entry, ApiVersions' own range.
pub fn unsupported_version(correlation_id: i32) -> Reply {
    let own = table::lookup(18).into_iter().map(listed).collect();
    let response = ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(own);
    let framing = Framing {
        correlation_id,
        version: 0,
        flexible: false,
    };
    ResponseFrame::encode(framing, &response).map_or(Reply::Close, Reply::Now)
}

fn listed(spec: &ApiSpec) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(spec.key)
        .with_min_version(*spec.advertised.start())
        .with_max_version(*spec.advertised.end())
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`, the rule of KIP-511.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kip_511() {
        for (name, valid) in [
            ("a", true),
            ("apache-kafka-java", true),
            ("4.3.1", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("a b", false),
        ] {
            assert_eq!(is_software_name(name), valid, "{name:?}");
        }
    }
}
