//! Tests of the image and what is built from it.

use std::time::Duration;

use super::{Images, MetadataImage};

#[tokio::test]
async fn waiting_for_an_image_ends_when_it_is_published() {
    let images = Images::new();
    let waiting = tokio::spawn({
        let images = images.clone();
        async move { images.wait_for(3).await.last_offset }
    });
    for last_offset in [1, 5] {
        let image = MetadataImage {
            last_offset,
            ..MetadataImage::default()
        };
        images.set_loaded(&image.clone().into());
        images.set_current(&image.into());
    }
    let reached = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    assert_eq!(reached.expect("in time").expect("no panic"), 5);
    assert_eq!(images.loaded().last_offset, 5);
    assert_eq!(images.load().next_offset(), 6);
}
