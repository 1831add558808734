//! What the pure handlers take and return.

use std::sync::Arc;

use crate::config::Config;
use crate::metadata::MetadataImage;

/// What a handler may look at.
pub struct Context<'a> {
    /// The newest state, which includes what is proposed but not committed yet.
    pub image: &'a MetadataImage,
    /// The controller's own static configuration.
    pub config: &'a Arc<Config>,
    /// Monotonic time.
    pub now_ms: i64,
}
