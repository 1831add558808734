//! Producer state: Kafka's cases of duplicates, gaps and epochs, and the snapshot files.

use super::super::producer_snapshot;
use super::super::producer_state::{BATCHES_MAX, ProducerState, Verdict};
use super::*;
use crate::protocol::ErrorCode;
use crate::protocol::batch::BatchHeader;

fn header(epoch: i16, sequence: i32, count: i32) -> BatchHeader {
    let mut header = produced(1, epoch, sequence, 1).header;
    header.last_offset_delta = count - 1;
    header
}

/// What the state answers to a batch: `Ok(true)` for a duplicate.
fn verdict(state: &ProducerState, header: &BatchHeader) -> Result<bool, ErrorCode> {
    match state.check(header, AppendOrigin::Client) {
        Ok(verdict) => Ok(verdict != Verdict::Append),
        Err(error) => Err(error.code),
    }
}

#[test]
fn sequences_and_epochs_are_judged_as_kafka_does() {
    const GAP: Result<bool, ErrorCode> = Err(ErrorCode::OutOfOrderSequenceNumber);
    const OLD: Result<bool, ErrorCode> = Err(ErrorCode::InvalidProducerEpoch);
    // (batches that went in, batch that comes, answer), each batch as (epoch, first sequence, records)
    type Case = (
        &'static [(i16, i32, i32)],
        (i16, i32, i32),
        Result<bool, ErrorCode>,
    );
    let cases: &[Case] = &[
        (&[], (0, 0, 1), Ok(false)),
        (&[], (0, 17, 1), Ok(false)),
        (&[(0, 0, 3)], (0, 3, 1), Ok(false)),
        (&[(0, 0, 3)], (0, 0, 3), Ok(true)),
        (&[(0, 0, 3)], (0, 0, 2), GAP),
        (&[(0, 0, 3)], (0, 1, 2), GAP),
        (&[(0, 0, 3)], (0, 4, 1), GAP),
        (&[(0, 0, 3)], (1, 0, 1), Ok(false)),
        (&[(0, 0, 3)], (1, 3, 1), GAP),
        (&[(1, 0, 3)], (0, 3, 1), OLD),
        (&[(1, 0, 3)], (0, 0, 3), OLD),
        (
            &[(0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 3, 1), (0, 4, 1)],
            (0, 0, 1),
            Ok(true),
        ),
        (
            &[
                (0, 0, 1),
                (0, 1, 1),
                (0, 2, 1),
                (0, 3, 1),
                (0, 4, 1),
                (0, 5, 1),
            ],
            (0, 0, 1),
            GAP,
        ),
        (
            &[
                (0, 0, 1),
                (0, 1, 1),
                (0, 2, 1),
                (0, 3, 1),
                (0, 4, 1),
                (0, 5, 1),
            ],
            (0, 1, 1),
            Ok(true),
        ),
        (&[(0, i32::MAX, 1)], (0, 0, 1), Ok(false)),
        (&[(0, i32::MAX, 1)], (0, 1, 1), GAP),
        (&[(0, i32::MAX - 1, 3)], (0, 1, 1), Ok(false)),
        (&[(0, i32::MAX - 1, 3)], (0, i32::MAX - 1, 3), Ok(true)),
        (&[(0, 5, 1), (1, 0, 1)], (1, 1, 1), Ok(false)),
        // A producer without epoch may begin anywhere; its duplicates are found.
        (&[], (-1, 4, 1), Ok(false)),
        (&[(-1, 4, 1)], (-1, 9, 1), Ok(false)),
        (&[(-1, 4, 1)], (-1, 4, 1), Ok(true)),
        (&[(-1, 4, 1)], (2, 6, 1), Ok(false)),
        (&[], (-2, 0, 1), OLD),
    ];
    for (before, next, wanted) in cases {
        let mut state = ProducerState::default();
        let mut offset = 100;
        for (epoch, sequence, count) in *before {
            let mut header = header(*epoch, *sequence, *count);
            header.base_offset = offset;
            offset = header.next_offset();
            state.update(&header);
        }
        let next = header(next.0, next.1, next.2);
        assert_eq!(verdict(&state, &next), *wanted, "{before:?} then {next:?}");
    }
}

#[test]
fn a_duplicate_answers_with_the_first_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|_| {}));
    let first = append(&mut log, produced(9, 0, 0, 2));
    append(&mut log, produced(9, 0, 2, 1));
    let again = append(&mut log, produced(9, 0, 0, 2));
    assert_eq!(
        (again.first_offset, again.last_offset),
        (first.first_offset, first.last_offset)
    );
    assert!(again.duplicate && again.log_append_time_ms == NOW + 1);
    assert_eq!(log.next_offset(), 3);
    // In one call: the good ones go in, the bad one is told apart.
    let answers = log
        .append_as_leader(
            &[
                produced(9, 0, 3, 1),
                produced(9, 0, 9, 1),
                produced(9, 0, 4, 1),
            ],
            0,
            NOW,
        )
        .unwrap();
    assert_eq!(answers[0].as_ref().unwrap().first_offset, 3);
    assert_eq!(
        answers[1].as_ref().unwrap_err().code,
        ErrorCode::OutOfOrderSequenceNumber
    );
    assert_eq!(answers[2].as_ref().unwrap().first_offset, 4);
}

#[test]
fn producer_state_survives_clean_and_unclean_stops() {
    for clean in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let size = produced(1, 0, 0, 1).size_bytes() as i32;
        let config = config(|c| c.segment_bytes = 3 * size);
        let mut log = open_with(dir.path(), &config);
        for sequence in 0..8 {
            append(&mut log, produced(1, 0, sequence, 1));
            append(&mut log, produced(2, 5, sequence, 1));
        }
        let mut before: Vec<_> = log.active_producers().collect();
        if clean {
            stop_cleanly(log);
        } else {
            drop(log);
        }
        let mut log = open_with(dir.path(), &config);
        let mut after: Vec<_> = log.active_producers().collect();
        before.sort_by_key(|p| p.producer_id);
        after.sort_by_key(|p| p.producer_id);
        assert_eq!(before, after);
        assert!(append(&mut log, produced(2, 5, 7, 1)).duplicate);
        assert_eq!(append(&mut log, produced(1, 0, 8, 1)).first_offset, 16);
        log.truncate_to(4).unwrap();
        assert_eq!(append(&mut log, produced(1, 0, 2, 1)).first_offset, 4);
    }
}

#[test]
fn silent_producers_expire() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|_| {}));
    append(&mut log, produced(1, 0, 0, 1));
    log.remove_expired_producers(NOW + 86_399_999);
    assert_eq!(log.active_producers().count(), 1);
    log.remove_expired_producers(NOW + 86_400_000);
    assert_eq!(log.active_producers().count(), 0);
    assert!(!append(&mut log, produced(1, 0, 5, 1)).duplicate);
}

#[test]
fn transactions_hold_the_stable_offset_until_their_marker_is_replicated() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open_with(dir.path(), &config(|_| {}));
    append(&mut log, batch(3, 1, NOW));
    let mut builder = BatchBuilder::new().producer(1, 0, 0).transactional(true);
    builder.append(NOW, None, None);
    append(&mut log, valid(builder.build()));
    assert_eq!(log.last_stable_offset(4), 3);
    let plain = log
        .append_as_leader(&[produced(1, 0, 1, 1)], 0, NOW)
        .unwrap();
    assert_eq!(
        plain[0].as_ref().unwrap_err().code,
        ErrorCode::InvalidTxnState
    );
    let marker = crate::protocol::batch::control_batch(
        BatchBuilder::new().producer(1, 0, -1).transactional(true),
        NOW,
        1,
        &[0, 0, 0, 0, 0, 7],
    );
    let marker = ValidBatch::internal(marker).unwrap();
    assert_eq!(append(&mut log, marker).first_offset, 4);
    assert_eq!(log.first_undecided_offset(), None);
    assert_eq!(log.last_stable_offset(4), 3, "the marker is not replicated");
    assert_eq!(log.last_stable_offset(5), 5);
    let producer = log.active_producers().next().unwrap();
    assert_eq!((producer.coordinator_epoch, producer.last_sequence), (7, 0));
}

#[test]
fn snapshots_are_kafkas_bytes_and_reject_damage() {
    let mut state = ProducerState::default();
    let empty = producer_snapshot::encode(&state);
    assert_eq!(empty, [0, 1, 0x48, 0x67, 0x4b, 0xc7, 0, 0, 0, 0]);
    for id in 0..3 {
        for sequence in 0..BATCHES_MAX as i32 + 2 {
            let mut header = produced(id, 3, sequence, 1).header;
            header.base_offset = 10 * i64::from(sequence) + id;
            state.update(&header);
        }
    }
    let bytes = producer_snapshot::encode(&state);
    assert_eq!(bytes.len(), 10 + 3 * 46);
    let entries = producer_snapshot::decode(&bytes).unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(
        entries[2].1.last_batch(),
        state.entry(2).unwrap().last_batch()
    );
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        assert!(producer_snapshot::decode(&damaged).is_none(), "byte {at}");
        assert!(
            producer_snapshot::decode(&bytes[..at]).is_none(),
            "{at} bytes"
        );
    }
}
