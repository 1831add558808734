//! The features that this release knows and the levels it supports: those of Apache Kafka 4.3.1 (KIP-584, KIP-1022).
//! ApiVersions lists them; the controller finalises levels within them.

/// A feature and its range of levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupportedFeature {
    pub name: &'static str,
    pub min_level: i16,
    pub max_level: i16,
}

const fn feature(name: &'static str, min_level: i16, max_level: i16) -> SupportedFeature {
    SupportedFeature {
        name,
        min_level,
        max_level,
    }
}

/// In Kafka's order.
pub const SUPPORTED_FEATURES: &[SupportedFeature] = &[
    feature("metadata.version", 7, 30),
    feature("kraft.version", 0, 1),
    feature("transaction.version", 0, 2),
    feature("group.version", 0, 1),
    feature("eligible.leader.replicas.version", 0, 1),
    feature("share.version", 0, 1),
    feature("streams.version", 0, 1),
];
