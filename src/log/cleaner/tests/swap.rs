//! Replacements that a crash interrupted: the old segments or the cleaned one, never both, never neither.

use std::fs;

use super::*;

/// A log that was cleaned, the files from before, and from after: what a crash in between may leave is made of them.
struct Fixture {
    dir: tempfile::TempDir,
    config: Arc<TopicConfig>,
    before: BTreeMap<String, Vec<u8>>,
    after: BTreeMap<String, Vec<u8>>,
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(dir.join("topic-0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (name(&path), fs::read(&path).unwrap()))
        .filter(|(name, _)| !name.ends_with(".deleted"))
        .collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

const KINDS: [&str; 3] = ["log", "index", "timeindex"];

impl Fixture {
    /// Segments 0, 2, 4 become one at 0; 6 is active.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), &config(|c| c.segment_bytes = 150));
        for at in 0..7 {
            append(
                &mut log,
                batch(0, &[(&format!("k{}", at % 2), Some(&at.to_string()))]),
            );
        }
        log.flush().unwrap();
        let before = files(dir.path());
        let config = config(|c| c.segment_bytes = 1500);
        log.update_config(config.clone());
        clean_at(&mut log, NOW).unwrap();
        let after = files(dir.path());
        drop(log);
        let fixture = Self {
            dir,
            config,
            before,
            after,
        };
        assert!(fixture.before.contains_key("00000000000000000004.log"));
        assert!(!fixture.after.contains_key("00000000000000000004.log"));
        fixture
    }

    /// Puts these files in the directory, and opens the log.
    fn open_with(&self, left: &BTreeMap<String, Vec<u8>>) -> Log {
        let dir = self.dir.path().join("topic-0");
        fs::remove_dir_all(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
        for (name, bytes) in left {
            fs::write(dir.join(name), bytes).unwrap();
        }
        open(self.dir.path(), &self.config)
    }

    /// The cleaned segment's files with this suffix.
    fn cleaned(&self, suffix: &str) -> BTreeMap<String, Vec<u8>> {
        KINDS
            .iter()
            .map(|kind| format!("00000000000000000000.{kind}"))
            .map(|name| (format!("{name}.{suffix}"), self.after[&name].clone()))
            .collect()
    }

    fn check(&self, left: &BTreeMap<String, Vec<u8>>, records: usize) {
        let log = self.open_with(left);
        let found = contents(&log);
        assert_eq!(found.len(), records, "{:?}", left.keys());
        let latest = latest(&log);
        assert_eq!((latest["k0"].as_str(), latest["k1"].as_str()), ("6", "5"));
        assert_eq!(log.next_offset(), 7);
        drop(log);
        let names: Vec<_> = files(self.dir.path()).into_keys().collect();
        let stray = |name: &&String| name.ends_with("swap") || name.ends_with("cleaned");
        assert_eq!(names.iter().find(stray), None);
    }
}

/// Records before and after: offsets 4 and 5, and 6 in the active segment.
const ALL: usize = 7;
const CLEANED: usize = 3;

#[test]
fn cleaned_files_are_taken_back() {
    let f = Fixture::new();
    let mut left = f.before.clone();
    left.extend(f.cleaned("cleaned"));
    f.check(&left, ALL);
}

#[test]
fn a_rename_to_swap_that_did_not_finish_is_taken_back() {
    let f = Fixture::new();
    // The log has its new name, its indexes not.
    let mut left = f.before.clone();
    let name = "00000000000000000000.log";
    left.insert(format!("{name}.swap"), f.after[name].clone());
    for kind in ["index", "timeindex"] {
        let name = format!("00000000000000000000.{kind}");
        left.insert(format!("{name}.cleaned"), f.after[&name].clone());
    }
    f.check(&left, ALL);
}

#[test]
fn a_swap_is_finished_from_every_point() {
    let f = Fixture::new();
    let mut old: Vec<String> = Vec::new();
    for base in [0, 2, 4] {
        old.extend(KINDS.iter().map(|kind| format!("{base:020}.{kind}")));
    }
    for gone in 0..=old.len() {
        let mut left = f.before.clone();
        left.extend(f.cleaned("swap"));
        for name in &old[..gone] {
            let bytes = left.remove(name).unwrap();
            left.insert(format!("{name}.deleted"), bytes);
        }
        f.check(&left, CLEANED);
    }
    for renamed in 1..=KINDS.len() {
        let mut left = f.after.clone();
        for kind in &KINDS[renamed..] {
            let name = format!("00000000000000000000.{kind}");
            let bytes = left.remove(&name).unwrap();
            left.insert(format!("{name}.swap"), bytes);
        }
        f.check(&left, CLEANED);
    }
}

#[test]
fn what_follows_the_swapped_segment_stays() {
    let f = Fixture::new();
    let mut left = f.before.clone();
    left.extend(f.cleaned("swap"));
    let log = f.open_with(&left);
    assert_eq!(contents(&log).last().unwrap().0, 6);
    assert_eq!(log.segments_count(), 2);
}
