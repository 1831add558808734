//! The log against a list in memory: random appends, reads, truncations, retention, restarts and crashes; and damage that must not
//! panic. Compaction has a model of its own, in `cleaner/tests/model.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Records of each batch.
    Append(Vec<u8>),
    Read(u8, u16),
    TruncateTo(u8),
    Start(u8),
    /// `retention.bytes`.
    KeepBytes(u16),
    /// Every record is older than `retention.ms`.
    Expire,
    Flush,
    Reopen,
    /// The machine dies: of the bytes behind the recovery point only a part is left.
    Crash(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(1u8..5, 1..6).prop_map(Step::Append),
        3 => (any::<u8>(), 0u16..2000).prop_map(|(from, bytes)| Step::Read(from, bytes)),
        1 => any::<u8>().prop_map(Step::TruncateTo),
        1 => any::<u8>().prop_map(Step::Start),
        2 => (0u16..3000).prop_map(Step::KeepBytes),
        1 => Just(Step::Expire),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => any::<u16>().prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

/// The batches that should be there: offsets of first and last record.
struct Model {
    batches: Vec<(Offset, Offset)>,
    start: Offset,
    next: Offset,
    sequence: i32,
}

struct Fixture {
    dir: tempfile::TempDir,
    config: Arc<TopicConfig>,
    log: Option<Log>,
    model: Model,
}

impl Fixture {
    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn reopen(&mut self) {
        self.log = None;
        self.log = Some(open_with(self.dir.path(), &self.config));
    }

    /// A batch inside the range 0..=255 becomes an offset at a batch's begin.
    fn boundary(&self, pick: u8) -> Offset {
        let at = usize::from(pick) * (self.model.batches.len() + 1) / 256;
        self.model.batches.get(at).map_or(self.model.next, |b| b.0)
    }

    fn truncate_model(&mut self, to: Offset) {
        self.model.batches.retain(|(first, _)| *first < to);
        self.model.next = to;
        self.model.start = self.model.start.min(to);
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Append(counts) => {
                let mut batches = Vec::new();
                for count in counts {
                    batches.push(produced(1, 0, self.model.sequence, i64::from(*count)));
                    self.model.sequence += i32::from(*count);
                    let last = self.model.next + i64::from(*count) - 1;
                    self.model.batches.push((self.model.next, last));
                    self.model.next = last + 1;
                }
                for answer in self.log().append_as_leader(&batches, 0, NOW).unwrap() {
                    assert!(!answer.unwrap().duplicate);
                }
            }
            Step::Read(pick, bytes) => self.check_read(self.boundary(*pick), usize::from(*bytes)),
            Step::TruncateTo(pick) => {
                let to = self.boundary(*pick).max(self.model.start);
                self.log().truncate_to(to).unwrap();
                checkpoint(self.log());
                self.truncate_model(to);
                self.resume_sequence();
            }
            Step::Start(pick) => {
                let start = self.boundary(*pick);
                let log = self.log();
                log.increment_log_start_offset(start, StartOffsetReason::ClientRecordDeletion)
                    .unwrap();
                if pick % 2 == 0 {
                    log.delete_segments_below_start().unwrap();
                }
                checkpoint(self.log());
                self.model.start = self.model.start.max(start);
                self.forget_below_start();
            }
            Step::KeepBytes(bytes) => self.keep_bytes(i64::from(*bytes)),
            Step::Expire => {
                let next = self.model.next;
                self.retain(TimestampMs::MAX);
                assert_eq!(self.log().log_start_offset(), next);
                self.model.start = next;
                self.forget_below_start();
            }
            Step::Flush => {
                self.log().flush().unwrap();
                checkpoint(self.log());
            }
            Step::Reopen => {
                stop_cleanly(self.log.take().unwrap());
                self.reopen();
            }
            Step::Crash(keep) => self.crash(*keep),
        }
    }

    fn forget_below_start(&mut self) {
        let start = self.model.start;
        self.model.batches.retain(|(_, last)| *last >= start);
    }

    fn retain(&mut self, now_ms: TimestampMs) {
        let next = self.model.next;
        while !self
            .log()
            .delete_old_segments(next, now_ms)
            .unwrap()
            .is_empty()
        {}
        checkpoint(self.log());
    }

    /// Whole segments go from the start, as long as no fewer than `bytes` are left.
    fn keep_bytes(&mut self, bytes: i64) {
        let mut changed = TopicConfig::clone(&self.config);
        changed.retention_bytes = bytes;
        self.log().update_config(Arc::new(changed));
        self.retain(NOW);
        let config = Arc::clone(&self.config);
        self.log().update_config(config);
        let sizes: Vec<i64> = self.segment_files().iter().map(|path| size(path)).collect();
        let (all, first): (i64, i64) = (sizes.iter().sum(), sizes[0]);
        assert!(
            all == 0 || all - first < bytes,
            "{bytes} asked for, {sizes:?} left"
        );
        let start = self.log().log_start_offset();
        if start > self.model.start {
            assert!(all >= bytes, "{bytes} asked for, {sizes:?} left");
            let begins: Vec<Offset> = self.model.batches.iter().map(|b| b.0).collect();
            assert!(start == self.model.next || begins.contains(&start));
        }
        self.model.start = self.model.start.max(start);
        self.forget_below_start();
    }

    fn segment_files(&self) -> Vec<PathBuf> {
        let mut logs: Vec<_> = fs::read_dir(self.dir.path().join("topic-0"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "log"))
            .collect();
        logs.sort();
        logs
    }

    /// Cuts the file with the log's end anywhere behind the recovery point.
    fn crash(&mut self, keep: u16) {
        let recovery_point = self.log().recovery_point();
        self.log = None;
        let logs = self.segment_files();
        let tail = logs.last().unwrap();
        let bytes = fs::read(tail).unwrap();
        let mut durable = 0;
        for batch in Batches::new(bytes.clone().into()) {
            let (header, batch) = batch.unwrap();
            if header.next_offset() <= recovery_point {
                durable += batch.len();
            }
        }
        let cut = durable + (bytes.len() - durable) * usize::from(keep) / usize::from(u16::MAX);
        fs::write(tail, &bytes[..cut]).unwrap();
        self.reopen();
        let next = self.log().next_offset();
        assert!(next >= recovery_point.min(self.model.next));
        assert!(
            self.model
                .batches
                .iter()
                .all(|(first, last)| *last < next || *first >= next)
        );
        self.truncate_model(next);
        self.resume_sequence();
    }

    /// After records were lost the producer goes on where the log says.
    fn resume_sequence(&mut self) {
        let last = self
            .log()
            .active_producers()
            .next()
            .map(|p| p.last_sequence);
        let before = self.model.sequence;
        self.model.sequence = last.map_or(0, |last| last + 1);
        assert!(self.model.sequence <= before);
    }

    fn check_read(&mut self, from: Offset, bytes: usize) {
        let (start, next) = (self.model.start, self.model.next);
        let slice = self.log().read(from, bytes, next, true);
        if from < start || from > next {
            assert!(slice.is_err());
            return;
        }
        let mut wanted = self.model.batches.iter().filter(|(_, last)| *last >= from);
        let slice = slice.unwrap();
        assert_eq!(slice.is_empty(), from == next);
        for batch in Batches::new(slice.read_bytes().unwrap()) {
            let Ok((header, _)) = batch else { break };
            assert_eq!(
                wanted.next(),
                Some(&(header.base_offset, header.last_offset()))
            );
        }
    }

    fn check(&mut self) {
        let (start, next) = (self.model.start, self.model.next);
        assert_eq!(self.log().next_offset(), next);
        assert_eq!(self.log().log_start_offset(), start);
        assert_eq!(read_all(self.log(), start), self.model.batches);
    }
}

fn size(path: &Path) -> i64 {
    fs::metadata(path).unwrap().len() as i64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_list_of_batches(steps in steps(), segment_batches in 2i32..8, interval in 0i32..400) {
        let dir = tempfile::tempdir().unwrap();
        let config = config(|c| {
            c.segment_bytes = segment_batches * 120;
            c.index_interval_bytes = interval;
        });
        let log = Some(open_with(dir.path(), &config));
        let model = Model { batches: Vec::new(), start: 0, next: 0, sequence: 0 };
        let mut fixture = Fixture { dir, config, log, model };
        for step in &steps {
            fixture.apply(step);
            fixture.check();
        }
    }

    #[test]
    fn damaged_files_never_panic(
        file in 0usize..16,
        changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..8),
        clean in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let config = config(|c| {
            c.segment_bytes = 400;
            c.index_interval_bytes = 0;
        });
        let mut log = open_with(dir.path(), &config);
        for sequence in 0..12 {
            append(&mut log, produced(1, 0, sequence, 1));
        }
        if clean {
            stop_cleanly(log);
        } else {
            drop(log);
        }
        let mut files: Vec<_> = fs::read_dir(dir.path().join("topic-0"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let path = &files[file % files.len()];
        let mut bytes = fs::read(path).unwrap();
        for (at, value) in changes {
            let len = bytes.len().max(1);
            match bytes.get_mut(usize::from(at) % len) {
                Some(byte) => *byte = value,
                None => bytes.push(value),
            }
        }
        fs::write(path, bytes).unwrap();
        let log_dir = LogDir::open(dir.path()).unwrap();
        if let Ok(mut log) = Log::open(params(&log_dir, &config)) {
            // No checksum covers the base offset: a damaged one may end the log anywhere.
            for from in (log.log_start_offset()..=log.next_offset()).take(100) {
                let _ = log.read(from, 1000, log.next_offset(), true);
                let _ = log.search_timestamp(Wanted::AtLeast(NOW + from));
            }
            let _ = log.search_timestamp(Wanted::Largest);
            let _ = log.append_as_leader(&[batch(1, 1, NOW)], 1, NOW);
            let _ = log.truncate_to(5);
            let _ = log.close(true);
        }
    }
}
