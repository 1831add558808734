//! How many files logs keep open.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// The bound on open files of active segments, over all tests; 0 leaves it at what the process may open.
pub static KEPT_MAX: AtomicUsize = AtomicUsize::new(0);

/// Descriptors of this process that lead into `dir`, but for its lock.
fn open_files(dir: &Path) -> usize {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|target| target.starts_with(dir) && !target.ends_with(".lock"))
        .count()
}

fn release_idle_files(logs: &[Log]) {
    for log in logs {
        log.release_idle_files();
    }
}

#[test]
fn idle_logs_keep_no_files_open_and_busy_ones_no_more_than_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let log_dir = LogDir::open(&path).unwrap();
    let config = config(|_| {});
    let open = |partition: i32| OpenParams {
        topic_partition: TopicPartition::new("topic", partition),
        ..params(&log_dir, &config)
    };
    let mut logs: Vec<Log> = (0..300).map(|p| Log::open(open(p)).unwrap()).collect();
    assert_eq!(open_files(&path), 0, "nothing was written");
    KEPT_MAX.store(50, Ordering::Relaxed);
    for round in 0..3 {
        for log in &mut logs {
            append(log, batch(1, 10, NOW));
            assert_eq!(read_all(log, round).len(), 1);
        }
        let open = open_files(&path);
        assert!(open <= 50, "{open} files are open");
    }
    for _ in 0..2 {
        release_idle_files(&logs);
    }
    assert!(open_files(&path) <= 25, "half of the room is for the busy");
    KEPT_MAX.store(0, Ordering::Relaxed);
    append(&mut logs[0], batch(1, 10, NOW));
    for _ in 0..3 {
        release_idle_files(&logs);
    }
    assert!(open_files(&path) > 0, "what no sync covered stays open");
    for log in &mut logs {
        log.flush().unwrap();
    }
    for _ in 0..2 {
        release_idle_files(&logs);
    }
    assert_eq!(open_files(&path), 0);
    append(&mut logs[0], batch(1, 10, NOW));
    assert_eq!(open_files(&path), 1);
    for log in logs {
        assert_eq!(read_all(&log, 0).len() as i64, log.next_offset());
        drop(log);
    }
    assert_eq!(open_files(&path), 0);
}
