//! An observer's log: what it takes, where it cuts, how it begins anew.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use tempfile::TempDir;

use super::super::checkpoint;
use super::super::tests::{open_log, topic};
use super::super::types::{Membership, VoterNode};
use super::log::ObserverLog;
use crate::protocol::batch::BatchBuilder;
use crate::protocol::metadata_records::encode_record;
use crate::types::{LeaderEpoch, Offset};

fn open(dir: &Path) -> ObserverLog {
    let log = open_log(dir);
    ObserverLog::open(log, &dir.join("__cluster_metadata-0")).unwrap()
}

/// Batches of one record each, from `base_offset` on, with these epochs.
fn batches(base_offset: Offset, epochs: &[LeaderEpoch]) -> Bytes {
    let mut all = BytesMut::new();
    for (at, epoch) in (base_offset..).zip(epochs) {
        let mut batch = BatchBuilder::new().base_offset(at).leader_epoch(*epoch);
        batch.append(at, None, Some(&encode_record(&topic("t"))));
        all.extend_from_slice(&batch.build());
    }
    all.freeze()
}

fn voters() -> Membership {
    let nodes = BTreeMap::from([(1, VoterNode::default())]);
    Membership::new(vec![[1].into()], nodes).unwrap()
}

/// A checkpoint as a leader sends it.
fn received(dir: &TempDir, id: (Offset, LeaderEpoch)) -> std::path::PathBuf {
    checkpoint::write_part(dir.path(), id, 7, &voters(), &[topic("t")]).unwrap()
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    assert_eq!((log.end_offset(), log.last_epoch()), (0, 0));
    assert_eq!(log.append(batches(0, &[1, 1, 3]), 0).unwrap(), 3);
    drop(log);
    let log = open(dir.path());
    assert_eq!((log.end_offset(), log.last_epoch()), (3, 3));
    assert_eq!(log.read(1, 2).unwrap(), batches(1, &[1]));
}

#[test]
fn a_gap_and_damaged_bytes_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append(batches(0, &[1]), 0).unwrap();
    let mut damaged = BytesMut::from(&batches(1, &[1])[..]);
    *damaged.last_mut().unwrap() ^= 1;
    for wrong in [batches(2, &[1]), batches(0, &[1]), damaged.freeze()] {
        let error = log.append(wrong, 0).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        assert_eq!(log.end_offset(), 1);
    }
}

#[test]
fn the_log_is_cut_where_the_leaders_differs_but_never_below_what_is_committed() {
    // Own epochs, what the leader says (epoch, end offset), what is committed, where the log ends then.
    type Case = (
        &'static [LeaderEpoch],
        (LeaderEpoch, Offset),
        Offset,
        Option<Offset>,
    );
    let cases: &[Case] = &[
        (&[1, 1, 2, 2], (1, 2), 0, Some(2)),
        (&[1, 1, 2, 2], (2, 3), 0, Some(3)),
        // The leader had more of epoch 1 than this log.
        (&[1, 1, 3, 3], (1, 9), 2, Some(2)),
        // It knows an epoch between that this log has not: the next fetch says more.
        (&[1, 1, 4, 4], (3, 9), 0, Some(2)),
        (&[2, 2], (1, 5), 0, Some(0)),
        (&[1, 1, 2, 2], (1, 2), 3, None),
    ];
    for (epochs, (epoch, end), committed, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path());
        log.append(batches(0, epochs), 0).unwrap();
        let cut = log.truncate_to_epoch(*epoch, *end, *committed).ok();
        assert_eq!(cut, *expected, "{epochs:?} {epoch} {end}");
        let left = expected.unwrap_or(epochs.len() as Offset);
        assert_eq!(log.end_offset(), left);
        let last = (left as usize).checked_sub(1).map_or(0, |at| epochs[at]);
        assert_eq!(log.last_epoch(), last, "{epochs:?}");
    }
}

#[test]
fn a_snapshot_from_the_leader_takes_the_place_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append(batches(0, &[1, 1]), 0).unwrap();
    let part = received(&dir, (10, 4));
    log.install((10, 4), &part).unwrap();
    let check = |log: &ObserverLog| {
        assert_eq!((log.start_offset(), log.end_offset()), (10, 10));
        assert_eq!(
            (log.last_epoch(), log.newest_checkpoint()),
            (4, Some((10, 4)))
        );
        assert_eq!(log.voters(), Some(&voters()));
    };
    check(&log);
    drop(log);
    let mut log = open(dir.path());
    check(&log);
    // A leader that has less than the snapshot would say so for ever.
    let error = log.truncate_to_epoch(3, 5, 10).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    check(&log);
    log.append(batches(10, &[4, 5]), 0).unwrap();
    // A damaged one does not.
    let part = received(&dir, (20, 5));
    std::fs::write(&part, b"damaged").unwrap();
    assert!(log.install((20, 5), &part).is_err());
    assert_eq!(log.end_offset(), 12);
}

#[test]
fn own_snapshots_trim_the_log_and_two_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    log.append(batches(0, &[1; 8]), 0).unwrap();
    assert!(log.batch_before(9).unwrap().is_none(), "behind the end");
    for end in [2, 4, 6] {
        let info = log.batch_before(end).unwrap().unwrap();
        assert_eq!((info.epoch, info.timestamp_ms), (1, end - 1));
        let part = info.write_part(log.dir(), end, &[topic("t")]).unwrap();
        log.publish((end, 1), &part).unwrap();
    }
    assert_eq!(log.newest_checkpoint(), Some((6, 1)));
    assert_eq!(log.start_offset(), 4);
    assert_eq!(checkpoint::list(log.dir()).unwrap(), [(4, 1), (6, 1)]);
    drop(log);
    let log = open(dir.path());
    assert_eq!(
        (log.end_offset(), log.newest_checkpoint()),
        (8, Some((6, 1)))
    );
}

#[test]
fn a_log_that_no_checkpoint_reaches_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    let part = received(&dir, (10, 4));
    log.install((10, 4), &part).unwrap();
    log.append(batches(10, &[4]), 0).unwrap();
    let checkpoint = log.path_of((10, 4));
    drop(log);
    std::fs::remove_file(checkpoint).unwrap();
    let log = open(dir.path());
    assert_eq!((log.start_offset(), log.end_offset()), (0, 0));
}
