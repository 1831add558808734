//! Keeps the broker's settings in step with the dynamic broker configuration in the metadata image.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::metadata::{
    ConfigResource, ConfigResourceType, MetadataDelta, MetadataImage, Publisher,
};
use crate::types::BrokerId;

/// Publishes a new `Config` whenever a broker setting changes.
pub struct DynamicConfig {
    pub broker_id: BrokerId,
    pub config: Arc<ArcSwap<Config>>,
}

impl Publisher for DynamicConfig {
    fn on_update(&self, delta: &MetadataDelta, image: &Arc<MetadataImage>) {
        if delta
            .configs_changed
            .iter()
            .any(|resource| resource.kind == ConfigResourceType::Broker)
        {
            let cluster = image.configs.of(&ConfigResource::default_broker());
            let own = image.configs.of(&ConfigResource::broker(self.broker_id));
            self.config
                .store(Arc::new(self.config.load().with_dynamic(&cluster, &own)));
        }
    }
}
