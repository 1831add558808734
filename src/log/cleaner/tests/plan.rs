//! What is cleaned, up to where, and which segments are put together.

use super::*;
use crate::log::cleaner::plan::{
    SizedSegment, SourceSegment, compaction_delay_ms, first_dirty_offset, group_by_size, measure,
};

/// Segments of 100 bytes with these base offsets.
fn segments(bases: &[Offset]) -> Vec<SourceSegment> {
    let segment = |base: &Offset| SourceSegment {
        base_offset: *base,
        size: 100,
    };
    bases.iter().map(segment).collect()
}

#[test]
fn the_dirty_section_begins_at_a_checkpoint_inside_the_log() {
    assert_eq!(first_dirty_offset(None, 5, 50), 5);
    assert_eq!(first_dirty_offset(Some(20), 5, 50), 20);
    assert_eq!(first_dirty_offset(Some(50), 5, 50), 50);
    assert_eq!(first_dirty_offset(Some(51), 5, 50), 5, "beyond the end");
    assert_eq!(first_dirty_offset(Some(4), 5, 50), 5, "before the start");
}

#[test]
fn whole_segments_below_the_limit_are_cleanable() {
    let all = segments(&[0, 10, 20]);
    for (first_dirty, limit, end, clean, cleanable) in [
        (0, 30, 30, 0, 300),
        (10, 30, 30, 100, 200),
        (0, 25, 20, 0, 200),
        (0, 20, 20, 0, 200),
        (0, 5, 0, 0, 0),
        (20, 10, 20, 200, 0),
        // A segment that is dirty in part counts twice, as in Kafka.
        (15, 30, 30, 200, 200),
        (30, 30, 30, 300, 0),
    ] {
        let found = measure(&all, 30, first_dirty, limit, 0);
        assert_eq!(
            found.range.first_uncleanable_offset, end,
            "{first_dirty} {limit}"
        );
        assert_eq!(
            (found.clean_bytes, found.cleanable_bytes),
            (clean, cleanable),
            "{first_dirty} {limit}"
        );
    }
    let none = measure(&[], 0, 0, 0, 0);
    assert_eq!((none.total_bytes(), none.cleanable_ratio()), (0, 0.0));
}

#[test]
fn a_log_is_due_when_it_is_dirty_or_has_waited() {
    let half = measure(&segments(&[0, 10]), 20, 10, 20, 0);
    assert!(!half.is_due(0.5), "the ratio must be exceeded");
    assert!(half.is_due(0.49));
    let waited = LogToClean {
        compaction_delay_ms: 1,
        ..half
    };
    assert!(waited.is_due(1.0));
    let clean = measure(&segments(&[0, 10]), 20, 20, 20, 1);
    assert!(!clean.is_due(0.0), "nothing is dirty");
}

#[test]
fn the_delay_is_that_of_the_oldest_dirty_segment() {
    assert_eq!(compaction_delay_ms([500, 300], 100, 1000), 600);
    assert_eq!(compaction_delay_ms([900], 100, 1000), 0);
    assert_eq!(compaction_delay_ms([-1, 0], 100, 1000), 0, "no timestamps");
    assert_eq!(compaction_delay_ms([], 100, 1000), 0);
    assert_eq!(compaction_delay_ms([1], i64::MAX, 1000), 0);
}

fn bases(groups: &[Vec<SourceSegment>]) -> Vec<Vec<Offset>> {
    let bases = |group: &Vec<SourceSegment>| group.iter().map(|s| s.base_offset).collect();
    groups.iter().map(bases).collect()
}

fn sized(sources: &[SourceSegment], index_bytes: u64) -> Vec<SizedSegment> {
    let sized = |source: &SourceSegment| SizedSegment {
        source: *source,
        index_bytes,
        time_index_bytes: index_bytes * 2,
    };
    sources.iter().map(sized).collect()
}

#[test]
fn segments_are_grouped_up_to_the_size_of_one() {
    let all = sized(&segments(&[0, 10, 20, 30, 40]), 10);
    let group = |bytes, index| bases(&group_by_size(&all, bytes, index, 50));
    assert_eq!(group(100, 1000), [[0], [10], [20], [30], [40]]);
    assert_eq!(group(250, 1000), [vec![0, 10], vec![20, 30], vec![40]]);
    assert_eq!(group(10_000, 1000), [[0, 10, 20, 30, 40]]);
    // By the time index, which is twice as long.
    assert_eq!(group(10_000, 60), [vec![0, 10, 20], vec![30, 40]]);
    assert_eq!(group(50, 1000).len(), 5, "one that is too long stays alone");
    assert!(group_by_size(&[], 100, 100, 0).is_empty());
}

#[test]
fn a_group_spans_no_more_offsets_than_an_index_can_tell() {
    let far = i64::from(i32::MAX);
    let all = sized(&segments(&[0, 10, far]), 0);
    assert_eq!(
        bases(&group_by_size(&all, 1000, 1000, far + 1)),
        [[0, 10, far]]
    );
    assert_eq!(
        bases(&group_by_size(&all, 1000, 1000, far + 2)),
        [vec![0, 10], vec![far]]
    );
    // Empty segments are taken in all the same, or one would be left every 2^31 offsets.
    let mut all = sized(&segments(&[0, far * 2]), 0);
    all[1].source.size = 0;
    assert_eq!(
        bases(&group_by_size(&all, 1000, 1000, far * 3)),
        [[0, far * 2]]
    );
}
