//! Where followers cut their logs.

use crate::log::{EpochEndOffset, LeaderEpochCache};
use crate::partition::truncation::{
    OutOfRange, Truncation, diverging_epoch, out_of_range, truncation,
};
use crate::protocol::ErrorCode;
use crate::types::{LeaderEpoch, Offset};

/// Epochs of a log with their start offsets, and its end.
type Epochs<'a> = (&'a [(LeaderEpoch, Offset)], Offset);

/// Kafka's `LeaderEpochFileCache.endOffsetFor`, written down once more.
fn end_offset_for((entries, next_offset): Epochs<'_>, epoch: LeaderEpoch) -> EpochEndOffset {
    let floor = entries.iter().rev().find(|(e, _)| *e <= epoch);
    let higher = entries.iter().find(|(e, _)| *e > epoch);
    let (leader_epoch, end_offset) = match (floor, higher) {
        (Some((found, _)), None) if *found == epoch => (epoch, next_offset),
        (_, None) => (-1, -1),
        (found, Some((_, start))) => (found.map_or(epoch, |(e, _)| *e), *start),
    };
    EpochEndOffset {
        leader_epoch,
        end_offset,
    }
}

/// Fetches until the logs agree; gives every cut.
fn cuts(leader: Epochs<'_>, follower: Epochs<'_>, high_watermark: Offset) -> Vec<Truncation> {
    let (mut epochs, mut next_offset) = (follower.0.to_vec(), follower.1);
    let mut cuts = Vec::new();
    while let Some((last_epoch, _)) = epochs.last().copied() {
        let told = end_offset_for(leader, last_epoch);
        if told.leader_epoch == last_epoch && told.end_offset >= next_offset {
            break;
        }
        let own = |epoch| end_offset_for((&epochs, next_offset), epoch);
        let cut = truncation(told, own, next_offset, high_watermark);
        next_offset = cut.offset;
        epochs.retain(|(_, start)| *start < next_offset);
        cuts.push(cut);
        assert!(cuts.len() < 10, "the loop ends: {cuts:?}");
    }
    cuts
}

fn offsets(cuts: &[Truncation]) -> Vec<Offset> {
    cuts.iter().map(|cut| cut.offset).collect()
}

/// Rule: truncation
#[test]
fn follower_keeps_what_its_leader_has_whatever_its_high_watermark() {
    // S1, KIP-101: the follower restarts with a stale high watermark; nothing is cut.
    assert_eq!(cuts((&[(0, 0)], 20), (&[(0, 0)], 20), 5), []);
}

/// Rule: truncation
#[test]
fn old_leader_cuts_what_the_new_one_never_got() {
    let cuts = cuts((&[(0, 0), (1, 15)], 30), (&[(0, 0)], 20), 15);
    assert_eq!(offsets(&cuts), [15]);
    assert!(cuts[0].is_complete);
}

/// Rule: truncation
#[test]
fn two_fast_failovers_are_unwound_epoch_by_epoch() {
    // S2, KIP-279: the follower wrote in epoch 1, of which the leader of epoch 2 never heard.
    let leader: Epochs<'_> = (&[(0, 0), (2, 10)], 30);
    assert_eq!(offsets(&cuts(leader, (&[(0, 0), (1, 12)], 20), 10)), [10]);
    // The leader's epoch 3 is unknown here: first down to the end of epoch 2, then on.
    let leader: Epochs<'_> = (&[(0, 0), (3, 10), (6, 20)], 40);
    let cuts = cuts(leader, (&[(0, 0), (2, 8), (4, 16)], 25), 8);
    assert_eq!(offsets(&cuts), [16, 8]);
    assert_eq!([cuts[0].is_complete, cuts[1].is_complete], [false, true]);
}

#[test]
fn follower_that_is_behind_cuts_nothing() {
    assert_eq!(cuts((&[(0, 0), (4, 40)], 60), (&[(0, 0)], 40), 40), []);
}

#[test]
fn leader_without_epochs_has_the_follower_cut_to_its_high_watermark() {
    let unknown = EpochEndOffset {
        leader_epoch: -1,
        end_offset: -1,
    };
    let own = |epoch| end_offset_for((&[(0, 0)], 20), epoch);
    let cut = truncation(unknown, own, 20, 7);
    assert_eq!((cut.offset, cut.is_complete), (7, true));
}

/// Rule: diverging-epoch
#[test]
fn a_leader_tells_where_the_logs_part() {
    let mut epochs = LeaderEpochCache::default();
    for (epoch, start) in [(0, 10), (2, 20), (5, 30)] {
        epochs.assign(epoch, start);
    }
    let parts = |leader_epoch, end_offset| {
        Ok(Some(EpochEndOffset {
            leader_epoch,
            end_offset,
        }))
    };
    let unknown = Err(ErrorCode::OffsetOutOfRange);
    // Fetch offset and the epoch of the record before it; the leader's log is 10 to 40.
    for (fetch_offset, epoch, expected) in [
        (40, 5, Ok(None)),
        (35, 5, Ok(None)),
        (30, 2, Ok(None)),
        (31, 2, parts(2, 30)),
        (25, 1, parts(0, 20)),
        (15, 0, Ok(None)),
        (41, 5, parts(5, 40)),
        (40, 6, unknown),
        (9, 0, unknown),
    ] {
        let found = diverging_epoch(&epochs, (10, 40), fetch_offset, epoch);
        let found = found.map_err(|error| error.code);
        assert_eq!(found, expected, "{fetch_offset} in epoch {epoch}");
    }
}

#[test]
fn truncation_never_goes_beyond_the_log() {
    let leader = EpochEndOffset {
        leader_epoch: 3,
        end_offset: 500,
    };
    let own = |epoch| end_offset_for((&[(3, 0)], 20), epoch);
    assert_eq!(truncation(leader, own, 20, 20).offset, 20);
}

/// Rule: out-of-range
#[test]
fn offset_out_of_range() {
    // (follower's end, leader's start, leader's end)
    for (next_offset, start, end, expected) in [
        (100, 0, 80, OutOfRange::TruncateTo(80)),
        (100, 150, 300, OutOfRange::StartAt(150)),
        (100, 0, 300, OutOfRange::FetchAgain),
        (100, 100, 100, OutOfRange::FetchAgain),
    ] {
        assert_eq!(out_of_range(next_offset, start, end), expected);
    }
}
