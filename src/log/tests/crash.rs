//! Power cuts: the log is driven over a recorded disk, and after every single operation of that run the power goes. What is
//! left must open, hold every record that was flushed, and no record that was not appended.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::io::Errno;

use super::disk_recorder::{Deaf, Op, Recorder, Survival, forget_index_truncation, random};
use super::*;
use crate::protocol::batch::BatchHeader;

/// What a log may and must hold at one time: offsets of batches, and their bytes' checksum.
#[derive(Clone, Default, PartialEq)]
struct Promise {
    /// Every batch that was appended and not truncated away by then.
    batches: BTreeMap<Offset, (Offset, u32)>,
    /// Below this everything was flushed and acknowledged.
    durable: Offset,
    start: Offset,
}

/// A log on a recorded disk, and what it promised before which operation.
struct Run {
    dir: tempfile::TempDir,
    config: Arc<TopicConfig>,
    recorder: Recorder,
    log: Option<Log>,
    now: Promise,
    /// Operations at the time, and what held from then on.
    promises: Vec<(usize, Promise)>,
    sequence: i32,
}

impl Run {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut TopicConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(|c| {
            c.segment_bytes = 500;
            c.index_interval_bytes = 100;
            change(c);
        });
        let recorder = Recorder::watch(dir.path());
        let log = Some(open_with(dir.path(), &config));
        Self {
            dir,
            config,
            recorder,
            log,
            now: Promise::default(),
            promises: vec![(0, Promise::default())],
            sequence: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    /// From the next operation on the promise is this.
    fn promise(&mut self) {
        let at = self.recorder.ops_count();
        self.promises.push((at, self.now.clone()));
    }

    fn append(&mut self, count: i64) {
        let batch = produced(1, 0, self.sequence, count);
        self.sequence += count as i32;
        let first = self.log().next_offset();
        self.now
            .batches
            .insert(first, (first + count - 1, batch.header.crc));
        self.promise();
        append(self.log(), batch);
    }

    fn flush(&mut self) {
        self.log().flush().unwrap();
        self.now.durable = self.log().next_offset();
        self.promise();
        checkpoint(self.log());
    }

    fn truncate(&mut self, offset: Offset) {
        self.now.durable = self.now.durable.min(offset);
        self.promise();
        self.log().truncate_to(offset).unwrap();
        checkpoint(self.log());
        self.now.batches.retain(|first, _| *first < offset);
        self.promise();
        let last = self.log().active_producers().next();
        self.sequence = last.map_or(0, |producer| producer.last_sequence + 1);
    }

    fn start_at(&mut self, offset: Offset) {
        self.now.start = offset;
        self.promise();
        let log = self.log();
        log.increment_log_start_offset(offset, StartOffsetReason::ClientRecordDeletion)
            .unwrap();
        log.delete_segments_below_start().unwrap();
        checkpoint(log);
    }

    /// All records get too old at once: the active segment is rolled, and what was before it goes.
    fn expire(&mut self) {
        let end = self.log().next_offset();
        self.now.start = end;
        self.promise();
        while !self
            .log()
            .delete_old_segments(end, TimestampMs::MAX)
            .unwrap()
            .is_empty()
        {}
        assert_eq!(self.log().log_start_offset(), end);
    }

    /// The first complaint about the index files that the stop left: the start after it would mend some.
    fn restart(&mut self) -> Result<(), String> {
        self.now.durable = self.log().next_offset();
        let log = self.log.take().unwrap();
        stop_cleanly(log);
        self.promise();
        let left = check_indexes(&self.dir.path().join("topic-0"));
        self.log = Some(open_with(self.dir.path(), &self.config));
        left
    }

    /// What holds when the power goes behind `ops` operations: the last promises before and the first after count both,
    /// since the operations in between lead from one to the other.
    fn bounds(&self, ops: usize) -> (&Promise, &Promise) {
        let next = self.promises.partition_point(|(at, _)| *at <= ops);
        let last = &self.promises[next - 1].1;
        let coming = self.promises.get(next).map_or(last, |(_, promise)| promise);
        (last, coming)
    }

    /// The first complaint about any crash.
    fn crash_everywhere(&self) -> Result<(), String> {
        for ops in 0..=self.recorder.ops_count() {
            let seeds = (0..2).map(|seed| Survival::Some(seed * 1000 + ops as u64));
            for survival in [Survival::Nothing, Survival::Everything]
                .into_iter()
                .chain(seeds)
            {
                let target = tempfile::tempdir().unwrap();
                self.recorder.crash(ops, survival, target.path());
                self.check(target.path(), ops)
                    .map_err(|e| format!("crash behind operation {ops}, {survival:?}: {e}"))?;
            }
        }
        Ok(())
    }

    fn check(&self, path: &Path, ops: usize) -> Result<(), String> {
        let dir = LogDir::open(path).map_err(|e| e.to_string())?;
        let mut log = Log::open(params(&dir, &self.config)).map_err(|e| e.to_string())?;
        let (last, coming) = self.bounds(ops);
        let durable = last.durable.min(coming.durable);
        if log.next_offset() < durable {
            return Err(format!("ends at {} below {durable}", log.next_offset()));
        }
        if log.log_start_offset() > last.start.max(coming.start) {
            return Err(format!("starts at {}", log.log_start_offset()));
        }
        check_content(&log, last)?;
        check_lookups(&log)?;
        // It goes on from there.
        let next = log.next_offset();
        let info = append(&mut log, batch(1, 1, NOW));
        if info.first_offset != next {
            return Err(format!("went on at {}", info.first_offset));
        }
        log.close(true).map_err(|e| e.to_string())?;
        check_indexes(&path.join("topic-0"))
    }
}

fn check_content(log: &Log, promise: &Promise) -> Result<(), String> {
    let mut next = log.log_start_offset();
    for (first, last, crc) in read_batches(log, next)? {
        let wanted = promise.batches.get(&first);
        if wanted != Some(&(last, crc)) {
            return Err(format!("phantom {first}..={last}, wanted {wanted:?}"));
        }
        if first > next {
            return Err(format!("gap before {first}"));
        }
        next = last + 1;
    }
    if next != log.next_offset() {
        return Err(format!("read to {next} of {}", log.next_offset()));
    }
    Ok(())
}

fn read_batches(log: &Log, mut from: Offset) -> Result<Vec<(Offset, Offset, u32)>, String> {
    let mut found = Vec::new();
    loop {
        let slice = log
            .read(from, 1 << 20, log.next_offset(), true)
            .map_err(|e| e.to_string())?;
        for batch in Batches::new(slice.read_bytes().unwrap()) {
            let (header, bytes) = batch.map_err(|e| format!("behind {from}: {e:?}"))?;
            crate::protocol::batch::check_crc(&header, &bytes).unwrap();
            found.push((header.base_offset, header.last_offset(), header.crc));
            from = header.next_offset();
        }
        if slice.is_empty() {
            return Ok(found);
        }
    }
}

/// Every offset is found through the index files as a walk finds it.
fn check_lookups(log: &Log) -> Result<(), String> {
    for offset in log.log_start_offset()..log.next_offset() {
        let slice = log.read(offset, 1, log.next_offset(), true).unwrap();
        let bytes = slice.read_bytes().unwrap();
        let found = parse_header(&bytes).map_err(|e| format!("offset {offset}: {e:?}"))?;
        if found.base_offset > offset || found.last_offset() < offset {
            return Err(format!("offset {offset} leads to {}", found.base_offset));
        }
    }
    Ok(())
}

/// Every entry of every index file points at a batch that is there.
fn check_indexes(partition: &Path) -> Result<(), String> {
    let files = fs::read_dir(partition).unwrap();
    for path in files.map(|entry| entry.unwrap().path()) {
        if path.extension().is_none_or(|kind| kind != "log") {
            continue;
        }
        let base: Offset = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let mut batches = BTreeMap::new();
        let mut at = 0;
        for batch in Batches::new(fs::read(&path).unwrap().into()) {
            let (header, bytes) = batch.map_err(|e| format!("segment {base}: {e:?}"))?;
            batches.insert(at, header);
            at += bytes.len();
        }
        let entries = fs::read(path.with_extension("index")).unwrap_or_default();
        for entry in entries.chunks_exact(8) {
            let offset = base + i64::from(u32::from_be_bytes(entry[..4].try_into().unwrap()));
            let position = u32::from_be_bytes(entry[4..].try_into().unwrap()) as usize;
            if batches.get(&position).map(BatchHeader::last_offset) != Some(offset) {
                return Err(format!("index of {base}: {offset} is not at {position}"));
            }
        }
        let entries = fs::read(path.with_extension("timeindex")).unwrap_or_default();
        for entry in entries.chunks_exact(12) {
            let timestamp = i64::from_be_bytes(entry[..8].try_into().unwrap());
            let offset = base + i64::from(u32::from_be_bytes(entry[8..].try_into().unwrap()));
            let is_there =
                |h: &BatchHeader| h.max_timestamp == timestamp && h.last_offset() == offset;
            // An empty segment has one entry that stands for none.
            if timestamp >= 0 && !batches.values().any(is_there) {
                return Err(format!("time index of {base}: no {timestamp} at {offset}"));
            }
        }
    }
    Ok(())
}

/// Appends, rolls, flushes, truncates into a closed segment, moves the start, restarts, expires; about 250 operations.
fn full_run(mut run: Run, deaf: Option<Deaf>) -> Run {
    if let Some(deaf) = deaf {
        run.recorder.plant(deaf);
    }
    for count in [1, 2, 3, 1, 5, 2, 4] {
        run.append(count);
    }
    run.flush();
    for count in [3, 1, 2, 2] {
        run.append(count);
    }
    run.truncate(6);
    for count in [2, 2, 2, 2, 2, 2] {
        run.append(count);
    }
    run.flush();
    run.start_at(6);
    run.append(1);
    run.restart().unwrap();
    for count in [4, 4, 4, 4, 4] {
        run.append(count);
    }
    run.flush();
    run.append(1);
    run.expire();
    run.append(2);
    run.flush();
    run
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_that_was_flushed() {
    full_run(Run::new(), None).crash_everywhere().unwrap();
    let preallocated = Run::with(|c| c.preallocate = true);
    full_run(preallocated, None).crash_everywhere().unwrap();
}

#[test]
fn planted_bugs_are_found_by_power_cuts() {
    let bugs: [(&str, Deaf); 2] = [
        ("no directory sync", |op| matches!(op, Op::SyncDir(_))),
        (
            "acknowledged before the sync",
            |op| matches!(op, Op::Sync(path) if path.extension().is_some_and(|e| e == "log")),
        ),
    ];
    for (name, deaf) in bugs {
        let found = full_run(Run::new(), Some(deaf)).crash_everywhere();
        assert!(found.is_err(), "{name} was not found");
    }
}

/// A truncation and a clean stop.
fn truncating_run(forgets: bool) -> (Run, Result<(), String>) {
    let mut run = Run::new();
    for count in [1, 2, 3, 1, 5, 2, 4, 3] {
        run.append(count);
    }
    run.flush();
    forget_index_truncation(forgets);
    run.truncate(7);
    // Hides the end of the log from the check that a start makes.
    run.append(1);
    let left = run.restart();
    forget_index_truncation(false);
    (run, left)
}

#[test]
fn an_index_that_a_truncation_forgot_is_found() {
    let (run, left) = truncating_run(false);
    left.unwrap();
    run.crash_everywhere().unwrap();
    let (run, left) = truncating_run(true);
    let found = left.unwrap_err();
    assert!(found.contains("index of 0"), "{found}");
    // What the stop left is found out and mended by the start after it.
    run.crash_everywhere().unwrap();
}

/// Any order of steps, from a seed.
fn random_run(seed: u64) -> Run {
    let mut run = Run::with(|c| c.preallocate = seed.is_multiple_of(3));
    let mut state = seed;
    for _ in 0..25 {
        let step = random(&mut state);
        let (start, next) = (run.now.start, run.log().next_offset());
        let batches: Vec<Offset> = run.now.batches.keys().copied().collect();
        let boundary = batches.get((step >> 8) as usize % batches.len().max(1));
        match step % 16 {
            0 => run.flush(),
            1 => run.restart().unwrap(),
            2 => {
                if let Some(to) = boundary.filter(|to| **to > start) {
                    run.truncate(*to);
                }
            }
            3 if run.now.durable == next => {
                if let Some(to) = boundary.filter(|to| **to > start) {
                    run.start_at(*to);
                }
            }
            4 if step & 0x300 == 0 => run.expire(),
            more => run.append(1 + (more % 4) as i64),
        }
    }
    run
}

#[test]
fn power_cuts_at_any_operation_of_random_runs_lose_nothing_that_was_flushed() {
    for seed in 0..6 {
        let found = random_run(seed).crash_everywhere();
        assert!(found.is_ok(), "seed {seed}: {found:?}");
    }
}

#[test]
fn a_failed_operation_takes_the_directory_offline_and_keeps_what_was_flushed() {
    for errno in [Errno::IO, Errno::NOSPC] {
        for after in 0..30 {
            let mut run = Run::new();
            run.append(3);
            run.flush();
            let before = run.recorder.ops_count();
            run.recorder.fail_in(after, errno);
            let mut failed = false;
            for count in [5, 5, 5, 5] {
                let batch = produced(1, 0, run.sequence, count);
                run.sequence += count as i32;
                let log = run.log();
                failed |= log.append_as_leader(&[batch], 0, NOW).is_err();
                failed |= log.flush().is_err();
                if failed {
                    break;
                }
            }
            run.recorder.heal();
            let log = run.log.take().unwrap();
            assert_eq!(failed, log.log_dir().is_offline(), "after {after}");
            assert!(failed || run.recorder.ops_count() - before <= after);
            drop(log);
            let log = open_with(run.dir.path(), &run.config);
            assert_eq!(read_all(&log, 0)[0], (0, 2));
        }
    }
}

#[test]
fn a_topic_created_anew_does_not_inherit_the_checkpoints_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(|_| {});
    for restarted in [false, true] {
        let mut log = open_with(dir.path(), &config);
        append(&mut log, batch(50, 1, NOW));
        log.flush().unwrap();
        log.increment_log_start_offset(40, StartOffsetReason::ClientRecordDeletion)
            .unwrap();
        log.delete_segments_below_start().unwrap();
        checkpoint(&log);
        log.rename_for_delete().unwrap();
        let mut log_dir = log.log_dir().clone();
        drop(log);
        if restarted {
            drop(log_dir);
            log_dir = LogDir::open(dir.path()).unwrap();
        }
        let mut log = Log::open(params(&log_dir, &config)).unwrap();
        append(&mut log, batch(3, 1, NOW));
        drop((log, log_dir));
        // Killed before any checkpoint was written.
        let mut log = open_with(dir.path(), &config);
        assert_eq!((log.log_start_offset(), log.next_offset()), (0, 3));
        log.rename_for_delete().unwrap();
    }
}

#[test]
fn a_rolled_segment_is_checkpointed_when_its_flush_is_done() {
    let mut run = Run::new();
    for _ in 0..12 {
        run.append(2);
        if let Some(job) = run
            .log()
            .flush_due()
            .then(|| run.log().begin_flush())
            .flatten()
        {
            job.run().unwrap();
            run.log().finish_flush(&job);
            job.log_dir().write_recovery_points().unwrap();
        }
    }
    let active = run.log().recovery_point();
    assert!(active > 0);
    run.log = None;
    let dir = LogDir::open(run.dir.path()).unwrap();
    assert_eq!(dir.recovery_point(&TopicPartition::new("topic", 0)), active);
}
