//! One task per subscriber of an observer's log: sends what is committed, at the subscriber's pace, from the newest checkpoint on.

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::error;

use super::super::checkpoint;
use super::super::store::lock;
use super::super::{Committed, subscriber};
use super::Inner;
use crate::protocol::batch::{Batches, check_crc};
use crate::types::Offset;

/// Feeds a subscriber until it goes away. A log that cannot be read ends the feed, which the subscriber sees.
pub(super) fn start(inner: &Arc<Inner>) -> mpsc::Receiver<Committed> {
    let (out, subscription) = mpsc::channel(subscriber::QUEUE_MAX);
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        let stop = inner.stop.clone();
        if let Some(Err(error)) = stop.run_until_cancelled(feed(&inner, &out)).await {
            error!(%error, "committed metadata cannot be read");
        }
    });
    subscription
}

async fn feed(inner: &Arc<Inner>, out: &mpsc::Sender<Committed>) -> io::Result<()> {
    let mut committed = inner.high_watermark.subscribe();
    let mut next_offset = None;
    loop {
        let high_watermark = *committed.borrow_and_update();
        let start = lock(&inner.log).start_offset();
        let mut next = match next_offset {
            Some(next) if next >= start => next,
            _ => match catch_up(inner, out).await? {
                Some(next) => next,
                None => return Ok(()),
            },
        };
        while next < high_watermark {
            let Some(batches) = read(inner, next, high_watermark).await? else {
                // Trimmed meanwhile: the loop starts over with the checkpoint.
                break;
            };
            for batch in batches {
                if let Committed::Batch { last_offset, .. } = &batch {
                    next = last_offset + 1;
                }
                if out.send(batch).await.is_err() {
                    return Ok(());
                }
            }
        }
        next_offset = Some(next);
        if next < high_watermark {
            continue;
        }
        tokio::select! {
            changed = committed.changed() => if changed.is_err() { return Ok(()) },
            () = out.closed() => return Ok(()),
        }
    }
}

/// Sends the newest checkpoint, if there is one. Returns where to go on; `None` when the subscriber is gone.
async fn catch_up(inner: &Inner, out: &mpsc::Sender<Committed>) -> io::Result<Option<Offset>> {
    let (newest, start) = {
        let log = lock(&inner.log);
        let newest = log.newest_checkpoint().map(|id| (id, log.path_of(id)));
        (newest, log.start_offset())
    };
    let Some(((offset, epoch), path)) = newest else {
        return Ok(Some(start));
    };
    let records = tokio::task::spawn_blocking(move || checkpoint::read_records(&path))
        .await
        .map_err(io::Error::other)??;
    let snapshot = Committed::Snapshot {
        offset,
        epoch,
        records: records.into(),
    };
    let sent = out.send(snapshot).await.is_ok();
    Ok(sent.then_some(offset))
}

/// Batches from `start` on; `None` when the log begins behind it by now.
async fn read(
    inner: &Arc<Inner>,
    start: Offset,
    end: Offset,
) -> io::Result<Option<Vec<Committed>>> {
    let inner = Arc::clone(inner);
    tokio::task::spawn_blocking(move || {
        let bytes = {
            let log = lock(&inner.log);
            if start < log.start_offset() {
                return Ok(None);
            }
            log.read(start, end)?
        };
        let mut batches = Vec::new();
        for batch in Batches::new(bytes) {
            let (header, batch) = batch.map_err(io::Error::other)?;
            check_crc(&header, &batch).map_err(io::Error::other)?;
            let mut records = Vec::new();
            if !header.is_control() {
                checkpoint::decode_records(&header, &batch, &mut records)?;
            }
            batches.push(Committed::Batch {
                base_offset: header.base_offset,
                last_offset: header.last_offset(),
                epoch: header.partition_leader_epoch,
                append_time_ms: header.max_timestamp,
                records: records.into(),
            });
        }
        Ok(Some(batches))
    })
    .await
    .map_err(io::Error::other)?
}
