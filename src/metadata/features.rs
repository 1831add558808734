//! The features of KIP-584 that this release knows, with Kafka 4.3.1's ranges.

use std::collections::BTreeMap;

use kafka_protocol::messages::broker_registration_request::Feature;
use kafka_protocol::protocol::StrBytes;

use super::image::FeaturesImage;

/// Name of the feature whose level decides which metadata records may be written.
pub const METADATA_VERSION: &str = "metadata.version";
/// Name of the feature that the metadata quorum keeps for itself.
pub const KRAFT_VERSION: &str = "kraft.version";
/// Its level: voters are described by records of the log (KIP-853), as in clusters that were formatted with `--standalone`.
pub const KRAFT_VERSION_LEVEL: i16 = 1;
/// Name of the feature behind eligible leader replicas (KIP-966).
pub const ELIGIBLE_LEADER_REPLICAS_VERSION: &str = "eligible.leader.replicas.version";
/// The oldest metadata.version that Kafka 4 understands (3.3-IV3).
pub const METADATA_VERSION_MIN: i16 = 7;
/// The newest metadata.version of Kafka 4.3 (4.3-IV0), which new clusters get.
pub const METADATA_VERSION_LATEST: i16 = 30;

/// The metadata.version that has metadata transactions (3.6-IV1, KIP-868).
pub const TRANSACTIONS_SINCE: i16 = 13;
/// The metadata.version that has records of cordoned log directories (4.3-IV0, KIP-1066).
pub const CORDONED_DIRS_SINCE: i16 = 30;

/// A feature and the levels that this node can work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupportedFeature {
    pub name: &'static str,
    pub min_level: i16,
    pub max_level: i16,
    /// The metadata.version from which on new clusters get a level, for each from 1 on.
    since: &'static [i16],
    /// For each level from 1 on the metadata.version that it needs, where it needs one.
    needs: &'static [i16],
}

/// A feature with the levels from 0 to as many as there are in `since`.
const fn feature(name: &'static str, since: &'static [i16]) -> SupportedFeature {
    SupportedFeature {
        name,
        min_level: 0,
        max_level: since.len() as i16,
        since,
        needs: &[],
    }
}

/// Every feature in Kafka's order, as ApiVersions lists them.
pub const SUPPORTED_FEATURES: &[SupportedFeature] = &[
    SupportedFeature {
        name: METADATA_VERSION,
        min_level: METADATA_VERSION_MIN,
        max_level: METADATA_VERSION_LATEST,
        since: &[],
        needs: &[],
    },
    feature(KRAFT_VERSION, &[21]),
    feature("transaction.version", &[24, 24]),
    feature("group.version", &[22]),
    SupportedFeature {
        needs: &[23],
        ..feature(ELIGIBLE_LEADER_REPLICAS_VERSION, &[26])
    },
    feature("share.version", &[28]),
    feature("streams.version", &[29]),
];

impl SupportedFeature {
    pub fn supports(&self, level: i16) -> bool {
        (self.min_level..=self.max_level).contains(&level)
    }

    /// The level that a new cluster of this metadata.version gets (`Feature.defaultLevel`).
    pub fn default_level(&self, metadata_version: i16) -> i16 {
        let levels = self.since.iter();
        let reached = levels.take_while(|since| **since <= metadata_version);
        reached.count() as i16
    }

    /// The metadata.version that a level depends on.
    pub fn needed_metadata_version(&self, level: i16) -> Option<i16> {
        let at = usize::try_from(level.checked_sub(1)?).ok()?;
        self.needs.get(at).copied()
    }
}

/// The levels that a new cluster of this metadata.version begins with, itself included. Without kraft.version, which the
/// quorum keeps.
pub fn default_levels(metadata_version: i16) -> BTreeMap<&'static str, i16> {
    let others = SUPPORTED_FEATURES.iter();
    let others = others.filter(|it| it.name != METADATA_VERSION && it.name != KRAFT_VERSION);
    let mut levels: BTreeMap<_, _> = others
        .map(|feature| (feature.name, feature.default_level(metadata_version)))
        .collect();
    levels.insert(METADATA_VERSION, metadata_version);
    levels
}

/// The feature's range here, if it is known.
pub fn supported(name: &str) -> Option<&'static SupportedFeature> {
    SUPPORTED_FEATURES.iter().find(|f| f.name == name)
}

/// All of them as a broker tells them when it registers (BrokerRegistration).
pub fn of_registration() -> Vec<Feature> {
    let features = SUPPORTED_FEATURES.iter().map(|feature| {
        Feature::default()
            .with_name(StrBytes::from_static_str(feature.name))
            .with_min_supported_version(feature.min_level)
            .with_max_supported_version(feature.max_level)
    });
    features.collect()
}

impl FeaturesImage {
    /// Names and levels, all above 0.
    pub fn finalized_levels(&self) -> impl Iterator<Item = (&str, i16)> {
        let levels = self.finalized.iter();
        levels.map(|(name, level)| (&**name, *level))
    }

    /// Whether the controller keeps eligible leader replicas.
    pub fn is_elr_enabled(&self) -> bool {
        self.level(ELIGIBLE_LEADER_REPLICAS_VERSION) >= 1
    }
}
