//! Finalized feature levels (KIP-584).

use std::collections::BTreeMap;

use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::failure;
use super::outcome::{Outcome, Turn};
use crate::metadata::features::{self, METADATA_VERSION};
use crate::metadata::{ConfigResource, MetadataImage};
use crate::protocol::metadata_records::{ConfigRecord, FeatureLevelRecord, MetadataRecord};
use crate::protocol::{Error, ErrorCode};

const UPGRADE: i8 = 1;
const SAFE_DOWNGRADE: i8 = 2;
const UNSAFE_DOWNGRADE: i8 = 3;
/// Levels of metadata.version that changed what records hold: going below one might lose it (`MetadataVersion`).
const METADATA_CHANGES: &[i16] = &[7, 8, 11, 13, 14, 15, 17, 23, 30];

/// Records of these levels as `kafka-storage format` writes them: metadata.version, then by name what is above 0
/// (`BootstrapMetadata`).
pub fn feature_records(levels: &BTreeMap<&'static str, i16>) -> Vec<MetadataRecord> {
    let others = levels
        .iter()
        .filter(|(name, level)| **name != METADATA_VERSION && **level > 0);
    let version = levels.get_key_value(METADATA_VERSION).into_iter();
    let ordered = version.chain(others);
    ordered
        .map(|(name, level)| level_record(name, *level))
        .collect()
}

/// The first records of a new cluster: what it was formatted with, and where that has eligible leader replicas, the
/// `min.insync.replicas` they need to be the same for all brokers: that of the first active controller's properties
/// (`ActivationRecordsGenerator`).
pub fn bootstrap_records(
    formatted: &[MetadataRecord],
    min_insync_replicas: i32,
) -> Vec<MetadataRecord> {
    let mut records = formatted.to_vec();
    let has_elr = |record: &MetadataRecord| {
        matches!(record, MetadataRecord::FeatureLevel(level)
            if level.name == features::ELIGIBLE_LEADER_REPLICAS_VERSION && level.feature_level > 0)
    };
    if !formatted.iter().any(has_elr) {
        return records;
    }
    let resource = ConfigResource::default_broker();
    let record = ConfigRecord {
        resource_type: resource.kind.code(),
        resource_name: resource.name.to_string(),
        name: "min.insync.replicas".to_string(),
        value: Some(min_insync_replicas.to_string()),
    };
    records.push(record.into());
    records
}

/// UpdateFeatures: all updates or none.
pub(super) fn update_features(
    turn: &mut Turn<'_>,
    request: &UpdateFeaturesRequest,
) -> Outcome<UpdateFeaturesResponse> {
    let mut records = Vec::new();
    for update in &request.feature_updates {
        match update_feature(turn, update) {
            Ok(record) => records.extend(record),
            Err(error) => {
                let why = error.message.unwrap_or_default();
                let message = format!("no feature was updated, because of one: {why}");
                let response = failure::update_features(Error::new(error.code, message));
                return Outcome::unchanged(response);
            }
        }
    }
    if request.validate_only {
        records.clear();
    }
    // Only versions 0 and 1 carry results per feature; the encoder drops them in later ones.
    let results = request.feature_updates.iter();
    let results = results
        .map(|update| UpdatableFeatureResult::default().with_feature(update.feature.clone()));
    let response = UpdateFeaturesResponse::default().with_results(results.collect());
    Outcome::atomic(records, response)
}

/// The upgrade type; v0 has only a flag for downgrades.
fn upgrade_type(update: &FeatureUpdateKey) -> i8 {
    match update.upgrade_type {
        UPGRADE if update.allow_downgrade => SAFE_DOWNGRADE,
        kind => kind,
    }
}

fn update_feature(
    turn: &Turn<'_>,
    update: &FeatureUpdateKey,
) -> Result<Option<MetadataRecord>, Error> {
    let image = turn.image;
    let (name, level): (&str, i16) = (&update.feature, update.max_version_level);
    let refuse = |why: String| {
        let message = format!("{name} cannot get level {level}: {why}");
        Err(Error::new(ErrorCode::InvalidUpdateVersion, message))
    };
    let kind = upgrade_type(update);
    if !matches!(kind, UPGRADE | SAFE_DOWNGRADE | UNSAFE_DOWNGRADE) {
        return refuse("unknown upgrade type".into());
    }
    if level < 0 {
        return refuse("a level cannot be negative".into());
    }
    if let Some(why) = reason_not_supported(image, name, level) {
        return refuse(why);
    }
    let current = match name {
        features::KRAFT_VERSION => turn.kraft_version,
        _ => image.features.level(name),
    };
    if level < current && kind == UPGRADE {
        return refuse("a downgrade needs the upgrade type safe or unsafe downgrade".into());
    }
    if level > current && kind != UPGRADE {
        return refuse("a downgrade cannot lead to a higher level".into());
    }
    if name == features::KRAFT_VERSION {
        if level == current {
            return Ok(None);
        }
        // Kafka can make static voters dynamic. To us a voter with a directory id is another one than without.
        return refuse("the quorum's voters stay static or dynamic, as they were formatted".into());
    }
    if name == METADATA_VERSION && level < current {
        return refuse_lossy_downgrade(current, level, kind)
            .map_or_else(refuse, |()| Ok(Some(level_record(name, level))));
    }
    if name == METADATA_VERSION && level == current {
        return Ok(None);
    }
    Ok(Some(level_record(name, level)))
}

fn level_record(name: &str, feature_level: i16) -> MetadataRecord {
    let name = name.to_string();
    FeatureLevelRecord {
        name,
        feature_level,
    }
    .into()
}

fn refuse_lossy_downgrade(current: i16, level: i16, kind: i8) -> Result<(), String> {
    let undone = METADATA_CHANGES
        .iter()
        .find(|change| (level + 1..=current).contains(change));
    if undone.is_none() {
        return Ok(());
    }
    Err(match kind {
        UNSAFE_DOWNGRADE => "unsafe downgrades are not supported".into(),
        _ => "the downgrade might lose metadata".into(),
    })
}

fn reason_not_supported(image: &MetadataImage, name: &str, level: i16) -> Option<String> {
    let Some(feature) = features::supported(name) else {
        return (level != 0).then(|| "the controller does not know the feature".to_string());
    };
    let in_range = |min: i16, max: i16| level == 0 && min == 0 || (min..=max).contains(&level);
    if !in_range(feature.min_level, feature.max_level) {
        let (min, max) = (feature.min_level, feature.max_level);
        return Some(format!("the controller supports levels {min} to {max}"));
    }
    image.cluster.brokers.values().find_map(|broker| {
        let range = broker
            .supported_features
            .get(name)
            .copied()
            .unwrap_or_default();
        let (min, max) = (range.min, range.max);
        let refused = !in_range(min, max);
        refused.then(|| format!("broker {} supports levels {min} to {max}", broker.id))
    })
}
