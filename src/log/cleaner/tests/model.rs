//! Random records, tombstones and cleanings against a list in memory; the power goes at any operation of a cleaning. Whatever
//! happened, every key has the value it should have, and nothing is there that was not appended.

use proptest::prelude::*;

use super::*;
use crate::log::Checkpoint;
use crate::log::tests::disk_recorder::{Deaf, Op, Recorder, Survival};

#[derive(Clone, Debug)]
enum Step {
    /// Keys, and whether there is a value, of one batch.
    Append(Vec<(u8, bool)>),
    Flush,
    /// So much later.
    Clean(u16),
    /// The power goes in the middle of a cleaning: how far it got, and what survives.
    CleanAndCrash(u16, u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (0u8..6, prop::bool::weighted(0.7));
    let step = prop_oneof![
        8 => prop::collection::vec(record, 1..6).prop_map(Step::Append),
        1 => Just(Step::Flush),
        2 => (0u16..3000).prop_map(Step::Clean),
        2 => (any::<u16>(), any::<u64>()).prop_map(|(at, seed)| Step::CleanAndCrash(at, seed)),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// A log on a recorded disk, and all that was ever appended to it.
struct Fixture {
    dir: tempfile::TempDir,
    recorder: Recorder,
    config: Arc<TopicConfig>,
    log: Option<Log>,
    appended: BTreeMap<Offset, (String, Option<String>)>,
    durable: Offset,
    now_ms: TimestampMs,
    /// What the disk does not hear of.
    deaf: Option<Deaf>,
}

impl Fixture {
    fn new(deaf: Option<Deaf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(|c| {
            c.segment_bytes = 400;
            c.index_interval_bytes = 100;
            c.delete_retention_ms = 1000;
        });
        let recorder = Recorder::watch(dir.path());
        let log = open(dir.path(), &config);
        let mut fixture = Self {
            dir,
            recorder,
            config,
            log: Some(log),
            appended: BTreeMap::new(),
            durable: 0,
            now_ms: NOW,
            deaf,
        };
        fixture.plant();
        fixture
    }

    fn plant(&mut self) {
        if let Some(deaf) = self.deaf {
            self.recorder.plant(deaf);
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Append(records) => self.append(records),
            Step::Flush => self.flush(),
            Step::Clean(later_ms) => {
                self.now_ms += i64::from(*later_ms);
                let now_ms = self.now_ms;
                clean_at(self.log(), now_ms);
            }
            Step::CleanAndCrash(at, seed) => {
                let before = self.recorder.ops_count();
                let now_ms = self.now_ms;
                clean_at(self.log(), now_ms);
                let after = self.recorder.ops_count();
                let ops = before + (after - before) * usize::from(*at) / usize::from(u16::MAX);
                self.crash(ops, *seed);
            }
            Step::Restart => {
                drop(self.log.take());
                self.log = Some(open(self.dir.path(), &self.config));
            }
        }
    }

    fn append(&mut self, records: &[(u8, bool)]) {
        let mut texts = Vec::new();
        for (offset, (key, has_value)) in (self.log().next_offset()..).zip(records) {
            let value = has_value.then(|| format!("v{offset}"));
            texts.push((format!("k{key}"), value.clone()));
            self.appended.insert(offset, (format!("k{key}"), value));
        }
        let pairs: Vec<_> = texts
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_deref()))
            .collect();
        append(self.log(), batch(0, &pairs));
    }

    fn flush(&mut self) {
        self.log().flush().unwrap();
        let log = self.log.as_ref().unwrap();
        let tp = log.topic_partition().clone();
        let point = [(tp.clone(), log.recovery_point())].into();
        let dir = log.log_dir();
        dir.write_checkpoint(Checkpoint::RecoveryPoint, &point)
            .unwrap();
        if let Some(clean) = log.cleaner_checkpoint() {
            dir.write_checkpoint(Checkpoint::Cleaner, &[(tp, clean)].into())
                .unwrap();
        }
        self.durable = self.log().next_offset();
    }

    fn crash(&mut self, ops: usize, seed: u64) {
        let survival = match seed % 4 {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            _ => Survival::Some(seed),
        };
        let target = tempfile::tempdir().unwrap();
        self.recorder.crash(ops, survival, target.path());
        self.log = None;
        self.dir = target;
        self.recorder = Recorder::watch(self.dir.path());
        self.plant();
        self.log = Some(open(self.dir.path(), &self.config));
        let next = self.log().next_offset();
        assert!(
            next >= self.durable,
            "ends at {next} below {}",
            self.durable
        );
        self.appended.retain(|offset, _| *offset < next);
        self.durable = next;
        self.flush();
    }

    fn check(&self) {
        let log = self.log.as_ref().unwrap();
        let mut wanted = BTreeMap::new();
        for (key, value) in self.appended.values() {
            match value {
                Some(value) => wanted.insert(key.clone(), value.clone()),
                None => wanted.remove(key),
            };
        }
        let found = contents(log);
        assert!(found.is_sorted_by(|a, b| a.0 < b.0), "{found:?}");
        for (offset, key, value) in found {
            assert_eq!(
                self.appended.get(&offset),
                Some(&(key, value)),
                "at {offset}"
            );
        }
        assert_eq!(latest(log), wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..ProptestConfig::default() })]

    #[test]
    fn every_key_keeps_its_value_whatever_happens(steps in steps()) {
        let mut fixture = Fixture::new(None);
        for step in &steps {
            fixture.apply(step);
            fixture.check();
        }
    }
}

/// Whether some crash in the middle of a cleaning shows: records lost or back again.
fn shows(deaf: Option<Deaf>) -> bool {
    (0..=20u16).any(|at| {
        (0..3).any(|seed| {
            let result = std::panic::catch_unwind(|| {
                let mut fixture = Fixture::new(deaf);
                for _ in 0..8 {
                    fixture.append(&[(0, true), (1, true), (2, true)]);
                }
                fixture.append(&[(3, true)]);
                fixture.append(&[(0, true)]);
                fixture.flush();
                fixture.apply(&Step::CleanAndCrash(u16::MAX / 20 * at, seed));
                fixture.check();
            });
            result.is_err()
        })
    })
}

#[test]
fn planted_bugs_of_the_replacement_show() {
    assert!(!shows(None));
    // The cleaned segment is not synced.
    assert!(shows(Some(
        |op| matches!(op, Op::Sync(path) if path.to_string_lossy().ends_with(".log.cleaned"))
    )));
    // Renames are not made durable in their order.
    assert!(shows(Some(
        |op| matches!(op, Op::SyncDir(path) if path.ends_with("topic-0"))
    )));
}
