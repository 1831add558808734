//! How a follower's log comes to agree with its leader's: by leader epochs, never by its own high watermark (KIP-101,
//! KIP-279, KIP-595). Pure; after Kafka's `AbstractFetcherThread`.

use crate::log::{EpochEndOffset, LeaderEpochCache};
use crate::protocol::{Error, ErrorCode};
use crate::types::{LeaderEpoch, NO_LEADER_EPOCH, Offset};

/// Where a follower cuts its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncation {
    pub offset: Offset,
    /// Whether the logs agree below `offset`; if not, the next fetch finds an earlier divergence.
    pub is_complete: bool,
}

/// Works out the cut after the leader told where the follower's last epoch, or the largest one below it, ends in the
/// leader's log (`divergingEpoch`, OffsetForLeaderEpoch). `own_end` looks an epoch up in the follower's log.
pub fn truncation(
    leader: EpochEndOffset,
    own_end: impl Fn(LeaderEpoch) -> EpochEndOffset,
    next_offset: Offset,
    high_watermark: Offset,
) -> Truncation {
    if leader.end_offset < 0 {
        // The leader has no epochs at all: the high watermark is all there is.
        return cut(high_watermark, next_offset, true);
    }
    if leader.leader_epoch == NO_LEADER_EPOCH {
        return cut(leader.end_offset, next_offset, true);
    }
    let own = own_end(leader.leader_epoch);
    if own.end_offset < 0 {
        return cut(leader.end_offset, next_offset, true);
    }
    if own.leader_epoch == leader.leader_epoch {
        return cut(own.end_offset.min(leader.end_offset), next_offset, true);
    }
    // The leader's epoch is unknown here: cut to the end of the largest epoch below it and ask again.
    cut(own.end_offset, next_offset, false)
}

fn cut(offset: Offset, next_offset: Offset, is_complete: bool) -> Truncation {
    Truncation {
        offset: offset.min(next_offset),
        is_complete,
    }
}

/// What a follower does whose fetch offset the leader's log does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfRange {
    /// The leader's log ends earlier (an unclean election): cut.
    TruncateTo(Offset),
    /// The leader's log starts later: drop everything and go on there.
    StartAt(Offset),
    /// The leader's log has the offset by now.
    FetchAgain,
}

/// Decides after OFFSET_OUT_OF_RANGE, given both ends of the leader's log (`fetchOffsetAndTruncate`).
pub fn out_of_range(
    next_offset: Offset,
    leader_log_start: Offset,
    leader_next_offset: Offset,
) -> OutOfRange {
    if leader_next_offset < next_offset {
        OutOfRange::TruncateTo(leader_next_offset)
    } else if leader_log_start > next_offset {
        OutOfRange::StartAt(leader_log_start)
    } else {
        OutOfRange::FetchAgain
    }
}

/// Where a leader's log and its follower's part, by the epoch of the follower's last record; `None` where they do not
/// (`Partition.readRecords`). `log` is the leader's: its start and its end.
pub fn diverging_epoch(
    epochs: &LeaderEpochCache,
    log: (Offset, Offset),
    fetch_offset: Offset,
    last_fetched_epoch: LeaderEpoch,
) -> Result<Option<EpochEndOffset>, Error> {
    let (log_start_offset, next_offset) = log;
    let end = epochs.end_offset_for(last_fetched_epoch, next_offset);
    if end.end_offset < 0 || end.leader_epoch == NO_LEADER_EPOCH || fetch_offset < log_start_offset
    {
        return Err(ErrorCode::OffsetOutOfRange.into());
    }
    let diverges = end.leader_epoch < last_fetched_epoch || end.end_offset < fetch_offset;
    Ok(diverges.then_some(end))
}
