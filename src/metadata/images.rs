//! Where the newest image can be had: the loader puts it there, everybody else reads it without a lock.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::delta::MetadataDelta;
use super::image::MetadataImage;
use crate::types::Offset;

/// Follows the metadata. Called on the loader's task, one batch after the other; must not block for long and must not panic.
pub trait Publisher: Send + Sync + 'static {
    /// `image` is the state after `delta`. The first call (`delta.initial`) covers everything committed before.
    fn on_update(&self, delta: &MetadataDelta, image: &Arc<MetadataImage>);
}

/// The newest images of this process; cloning gives the same cell.
#[derive(Clone)]
pub struct Images(Arc<Cells>);

struct Cells {
    loaded: Cell,
    current: Cell,
}

struct Cell {
    image: ArcSwap<MetadataImage>,
    last_offset: watch::Sender<Offset>,
}

impl Cell {
    fn new() -> Self {
        let image = ArcSwap::from_pointee(MetadataImage::default());
        Self {
            image,
            last_offset: watch::Sender::new(-1),
        }
    }

    fn store(&self, image: &Arc<MetadataImage>) {
        self.image.store(Arc::clone(image));
        self.last_offset.send_replace(image.last_offset);
    }

    async fn wait_for(&self, offset: Offset) -> Arc<MetadataImage> {
        let mut last_offset = self.last_offset.subscribe();
        // The sender lives in the same cell as `self`.
        let reached = last_offset.wait_for(|last| *last >= offset).await;
        drop(reached);
        self.image.load_full()
    }
}

impl Default for Images {
    fn default() -> Self {
        Self::new()
    }
}

impl Images {
    /// Empty images at offset -1.
    pub fn new() -> Self {
        let (loaded, current) = (Cell::new(), Cell::new());
        Self(Arc::new(Cells { loaded, current }))
    }

    /// The newest image that all publishers have seen: topics in it have their logs. What handlers answer from.
    pub fn current(&self) -> Arc<MetadataImage> {
        self.0.current.image.load_full()
    }

    /// [`Images::current`] without touching the reference count; not to be held across an await.
    pub fn load(&self) -> Guard<Arc<MetadataImage>> {
        self.0.current.image.load()
    }

    /// The last offset of [`Images::current`], to wait for changes with.
    pub fn watch(&self) -> watch::Receiver<Offset> {
        self.0.current.last_offset.subscribe()
    }

    /// Resolves as soon as [`Images::current`] covers `offset`.
    pub async fn wait_for(&self, offset: Offset) -> Arc<MetadataImage> {
        self.0.current.wait_for(offset).await
    }

    /// The newest committed image, which publishers may still be working on. The controller starts from it.
    pub fn loaded(&self) -> Arc<MetadataImage> {
        self.0.loaded.image.load_full()
    }

    /// Resolves as soon as [`Images::loaded`] covers `offset`.
    pub async fn wait_for_loaded(&self, offset: Offset) -> Arc<MetadataImage> {
        self.0.loaded.wait_for(offset).await
    }

    pub(super) fn set_loaded(&self, image: &Arc<MetadataImage>) {
        self.0.loaded.store(image);
    }

    pub(super) fn set_current(&self, image: &Arc<MetadataImage>) {
        self.0.current.store(image);
    }
}
