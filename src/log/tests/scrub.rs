//! Tests of the check that the scrubber and `ottla dump-log --verify` make.

use std::fs;
use std::os::unix::fs::FileExt;

use super::*;
use crate::log::paths::{INDEX, LOG, TIME_INDEX, segment_file};
use crate::log::scrub::{ScrubTarget, SegmentCheck, check_segment};

/// A log of several segments, stopped cleanly. Returns its closed segments.
fn segments(dir: &Path) -> Vec<ScrubTarget> {
    let config = config(|c| {
        c.segment_bytes = 4000;
        c.index_interval_bytes = 300;
    });
    let mut log = open_with(dir, &config);
    for at in 0..60 {
        append(&mut log, batch(3, 50, NOW + at * 10));
    }
    let targets = log.segments_to_scrub();
    assert!(targets.len() > 2, "{targets:?}");
    assert!(targets.iter().all(|target| log.still_has(target)));
    stop_cleanly(log);
    targets
}

fn check(target: &ScrubTarget) -> SegmentCheck {
    check_segment(&target.path, target.base_offset, false, |_| true)
        .unwrap()
        .unwrap()
}

/// Flips a bit at `position` of the segment's file of this kind.
fn flip(target: &ScrubTarget, kind: &str, position: u64) {
    let path = segment_file(target.path.parent().unwrap(), target.base_offset, kind);
    let file = fs::OpenOptions::new().read(true).write(true).open(path);
    let file = file.unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 4], position).unwrap();
}

/// What is found after a bit was flipped: how many findings, and the words of the first.
fn found(kind: &str, position: u64) -> (u64, String) {
    let dir = tempfile::tempdir().unwrap();
    let target = &segments(dir.path())[1];
    assert!(check(target).is_sound());
    flip(target, kind, position);
    let check = check(target);
    let first = check.findings.first();
    let first = first.map(|finding| finding.what.clone());
    (check.findings_count, first.unwrap_or_default())
}

#[test]
fn sound_segments_have_no_findings() {
    let dir = tempfile::tempdir().unwrap();
    for target in segments(dir.path()) {
        let check = check(&target);
        assert!(check.is_sound(), "{:?}", check.findings);
        assert_eq!(check.bytes, target.size);
        assert!(check.batches > 5);
    }
}

#[test]
fn every_kind_of_damage_is_found() {
    let (count, what) = found(LOG, 100);
    assert_eq!(count, 1);
    assert!(what.starts_with("stored crc"), "{what}");
    // The offset of the second entry, and the position of the third.
    let (count, what) = found(INDEX, 8 + 3);
    assert_eq!(count, 1);
    assert!(what.starts_with("the index has offset"), "{what}");
    assert_eq!(found(INDEX, 16 + 7).0, 1);
    let (count, what) = found(TIME_INDEX, 7);
    assert_eq!(count, 1);
    assert!(what.starts_with("the time index has timestamp"), "{what}");
}

#[test]
fn a_torn_end_and_what_points_behind_it_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let target = &segments(dir.path())[1];
    let file = fs::OpenOptions::new().write(true).open(&target.path);
    file.unwrap().set_len(1000).unwrap();
    let check = check(target);
    let what: Vec<_> = check.findings.iter().map(|f| f.what.as_str()).collect();
    assert!(what[0].ends_with("bytes that are no batch"), "{what:?}");
    assert!(
        what.iter().any(|w| w.ends_with("behind the end")),
        "{what:?}"
    );
}

#[test]
fn the_caller_may_end_a_check_early() {
    let dir = tempfile::tempdir().unwrap();
    let target = &segments(dir.path())[0];
    let mut seen = 0;
    let ended = check_segment(&target.path, target.base_offset, false, |bytes| {
        seen += bytes;
        false
    });
    assert_eq!(ended.unwrap(), None);
    assert!(seen > 0 && seen < target.size);
}
