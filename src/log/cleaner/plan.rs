//! Which logs are to be cleaned, up to where, and which segments become one (Kafka's `LogCleanerManager`, `LogToClean`,
//! `Cleaner.groupSegmentsBySize`). Pure: a log describes its segments, `select.rs` fills that in.

use crate::types::{Offset, TimestampMs};

/// A segment that is no longer written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceSegment {
    pub base_offset: Offset,
    pub size: u64,
}

/// Up to where a log may be cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanableRange {
    /// Everything below was cleaned before.
    pub first_dirty_offset: Offset,
    /// The begin of the first segment that stays as it is.
    pub first_uncleanable_offset: Offset,
}

/// A log as the choice of the next one sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogToClean {
    pub range: CleanableRange,
    pub clean_bytes: u64,
    pub cleanable_bytes: u64,
    /// By how much `max.compaction.lag.ms` is exceeded; 0 if it is not.
    pub compaction_delay_ms: i64,
}

impl LogToClean {
    pub fn total_bytes(&self) -> u64 {
        self.clean_bytes + self.cleanable_bytes
    }

    pub fn cleanable_ratio(&self) -> f64 {
        match self.total_bytes() {
            0 => 0.0,
            total => self.cleanable_bytes as f64 / total as f64,
        }
    }

    /// Whether the log is dirty enough, or has waited too long.
    pub fn is_due(&self, min_cleanable_dirty_ratio: f64) -> bool {
        (self.compaction_delay_ms > 0 && self.cleanable_bytes > 0)
            || self.cleanable_ratio() > min_cleanable_dirty_ratio
    }
}

/// Where the dirty section begins: the checkpoint, unless the log does not reach there or begins behind it.
pub fn first_dirty_offset(
    checkpoint: Option<Offset>,
    log_start_offset: Offset,
    log_end_offset: Offset,
) -> Offset {
    match checkpoint {
        Some(offset) if (log_start_offset..=log_end_offset).contains(&offset) => offset,
        _ => log_start_offset,
    }
}

/// The segments from the one that holds `offset` on: the index of the first.
pub fn floor_index(segments: &[SourceSegment], offset: Offset) -> usize {
    segments
        .partition_point(|s| s.base_offset <= offset)
        .saturating_sub(1)
}

/// Measures the log whose closed segments are `segments`; `limit` is the lowest of the last stable offset, the active
/// segment's begin and the first segment inside `min.compaction.lag.ms`.
pub fn measure(
    segments: &[SourceSegment],
    active_base_offset: Offset,
    first_dirty_offset: Offset,
    limit: Offset,
    compaction_delay_ms: i64,
) -> LogToClean {
    let uncleanable = limit.max(first_dirty_offset);
    let first_uncleanable_offset = if uncleanable >= active_base_offset || segments.is_empty() {
        active_base_offset
    } else {
        segments[floor_index(segments, uncleanable)].base_offset
    };
    let size = |segments: &[SourceSegment]| segments.iter().map(|s| s.size).sum();
    let end_of = |offset| segments.partition_point(|s| s.base_offset < offset);
    let to = end_of(first_uncleanable_offset);
    let from = if first_dirty_offset >= first_uncleanable_offset {
        to
    } else {
        floor_index(segments, first_dirty_offset)
    };
    LogToClean {
        range: CleanableRange {
            first_dirty_offset,
            first_uncleanable_offset,
        },
        clean_bytes: size(&segments[..end_of(first_dirty_offset)]),
        cleanable_bytes: size(&segments[from..to]),
        compaction_delay_ms,
    }
}

/// By how much the oldest dirty segment has waited longer than `max_compaction_lag_ms`, given the first timestamp of each.
pub fn compaction_delay_ms(
    first_timestamps: impl IntoIterator<Item = TimestampMs>,
    max_compaction_lag_ms: i64,
    now_ms: TimestampMs,
) -> i64 {
    let clean_until_ms = now_ms.saturating_sub(max_compaction_lag_ms.max(0));
    first_timestamps
        .into_iter()
        .filter(|timestamp| *timestamp > 0)
        .min()
        .map_or(0, |earliest| clean_until_ms.saturating_sub(earliest).max(0))
}

/// A segment with the sizes of its indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizedSegment {
    pub source: SourceSegment,
    pub index_bytes: u64,
    pub time_index_bytes: u64,
}

/// Splits segments into runs that each fit one segment, by what they hold before cleaning: sizes, indexes, offsets.
pub fn group_by_size(
    segments: &[SizedSegment],
    segment_bytes_max: u64,
    index_bytes_max: u64,
    first_uncleanable_offset: Offset,
) -> Vec<Vec<SourceSegment>> {
    let mut groups: Vec<Vec<SourceSegment>> = Vec::new();
    let (mut log, mut index, mut time_index) = (0, 0, 0);
    for (at, segment) in segments.iter().enumerate() {
        let last_offset = segments
            .get(at + 1)
            .map_or(first_uncleanable_offset, |next| next.source.base_offset)
            - 1;
        let fits = |group: &Vec<SourceSegment>| {
            let relative = last_offset - group[0].base_offset;
            log + segment.source.size <= segment_bytes_max
                && index + segment.index_bytes <= index_bytes_max
                && time_index + segment.time_index_bytes <= index_bytes_max
                && (segment.source.size == 0 || relative <= i64::from(i32::MAX))
        };
        if let Some(group) = groups.last_mut().filter(|group| fits(group)) {
            group.push(segment.source);
        } else {
            groups.push(vec![segment.source]);
            (log, index, time_index) = (0, 0, 0);
        }
        log += segment.source.size;
        index += segment.index_bytes;
        time_index += segment.time_index_bytes;
    }
    groups
}
