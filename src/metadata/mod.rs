//! The metadata of the cluster: an immutable image made of committed records, what changed between two images, and the loader
//! that follows the metadata log and tells the rest of the broker.

mod apply;
mod delta;
pub mod features;
mod image;
mod images;
mod loader;
pub mod releases;
mod snapshot;
mod topics;

pub use apply::{ApplyError, DIRECTORY_UNASSIGNED, NO_LEADER_CHANGE, unchanged_partition};
pub use delta::{MetadataDelta, TopicDelta};
pub use image::{
    BrokerRegistration, ClusterImage, ConfigResource, ConfigResourceType, ConfigsImage,
    ControllerRegistration, Endpoint, FeaturesImage, MetadataImage, ProducerIdsImage,
    SecurityImage, VersionRange,
};
pub use images::{Images, Publisher};
pub use loader::{Loader, LoaderParams, SnapshotPolicy};
pub use topics::{LeaderRecoveryState, NO_LEADER, PartitionRegistration, TopicImage, TopicsImage};

#[cfg(test)]
mod tests;
