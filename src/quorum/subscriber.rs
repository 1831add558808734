//! One task per subscriber: reads what is committed at the subscriber's pace and waits, without polling, for more.

use std::io;
use std::sync::Arc;

use openraft::EntryPayload;
use tokio::sync::mpsc;
use tracing::error;

use super::Committed;
use super::checkpoint;
use super::state::Place;
use super::store::Store;
use super::types::{Entry, Proposal, leader_epoch};
use crate::protocol::batch::parse_header;
use crate::protocol::metadata_records::MetadataRecord;

/// What a subscriber may be behind before its task waits.
pub(super) const QUEUE_MAX: usize = 64;
const READ_ENTRIES_MAX: u64 = 256;

/// Feeds a subscriber until it goes away. A log that cannot be read ends the feed, which the subscriber sees.
pub(super) async fn run(store: Arc<Store>, out: mpsc::Sender<Committed>) {
    if let Err(error) = feed(&store, &out).await {
        error!(%error, "committed metadata cannot be read");
    }
}

async fn feed(store: &Store, out: &mpsc::Sender<Committed>) -> io::Result<()> {
    let mut progress = store.progress();
    let mut next_index = None;
    loop {
        let committed = progress.borrow_and_update().next_index;
        let mut next = match next_index {
            Some(next) if next >= store.state().first_index() => next,
            _ => match catch_up(store, out).await? {
                Some(next) => next,
                None => return Ok(()),
            },
        };
        while next < committed {
            let end = committed.min(next + READ_ENTRIES_MAX);
            let entries = store.entries(next, end).await?;
            if entries
                .first()
                .is_none_or(|(entry, _)| entry.log_id.index != next)
            {
                // Trimmed meanwhile: the loop starts over with the checkpoint.
                break;
            }
            for (entry, place) in entries {
                if out.send(to_committed(entry, place)?).await.is_err() {
                    return Ok(());
                }
                next += 1;
            }
        }
        next_index = Some(next);
        if next < committed {
            continue;
        }
        tokio::select! {
            changed = progress.changed() => if changed.is_err() { return Ok(()) },
            () = out.closed() => return Ok(()),
        }
    }
}

/// Sends the newest checkpoint, if there is one. Returns the index to go on from; `None` when the subscriber is gone.
async fn catch_up(store: &Store, out: &mpsc::Sender<Committed>) -> io::Result<Option<u64>> {
    let (newest, first_index) = {
        let state = store.state();
        (state.newest_checkpoint().cloned(), state.first_index())
    };
    let Some(newest) = newest else {
        return Ok(Some(first_index));
    };
    let name = checkpoint::file_name(newest.end_offset, newest.epoch);
    let path = store.dir.join(name);
    let records = tokio::task::spawn_blocking(move || checkpoint::read_records(&path))
        .await
        .map_err(io::Error::other)??;
    let snapshot = Committed::Snapshot {
        offset: newest.end_offset,
        epoch: newest.epoch,
        records: records.into(),
    };
    let sent = out.send(snapshot).await.is_ok();
    Ok(sent.then_some(newest.last_log_id.index + 1))
}

fn to_committed(entry: Entry, place: Place) -> io::Result<Committed> {
    let records = match entry.payload {
        EntryPayload::Blank | EntryPayload::Membership(_) => Arc::from(Vec::new()),
        EntryPayload::Normal(proposal) => match proposal.records {
            Some(records) => records,
            None => decode(&proposal)?.into(),
        },
    };
    Ok(Committed::Batch {
        base_offset: place.base_offset,
        last_offset: place.last_offset,
        epoch: leader_epoch(entry.log_id.leader_id.term),
        append_time_ms: place.timestamp,
        records,
    })
}

fn decode(proposal: &Proposal) -> io::Result<Vec<MetadataRecord>> {
    let header = parse_header(&proposal.batch).map_err(io::Error::other)?;
    let mut records = Vec::new();
    checkpoint::decode_records(&header, &proposal.batch, &mut records)?;
    Ok(records)
}
