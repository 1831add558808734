//! Checkpoints: written, found again, trimmed behind, and survived when damaged.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::super::{Committed, MetaLog, SnapshotError, checkpoint};
use super::{collect, copy_dir, open_voter, topic, topics, wait_for_leader};
use crate::protocol::metadata_records::MetadataRecord;

fn checkpoints(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir.join("__cluster_metadata-0"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "checkpoint"))
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_begins_with_the_newest_sound_checkpoint() {
    let dir = TempDir::new().unwrap();
    let log = open_voter(dir.path()).await;
    let epoch = wait_for_leader(&log, 1).await;
    let base = log.end_offset();
    let mut state = Vec::new();
    for name in ["a", "b", "c"] {
        log.propose(epoch, topics(&[name, name])).await.unwrap();
        state.extend(topics(&[name, name]));
        let end = log.end_offset();
        assert_eq!(
            log.write_snapshot(end - 1, epoch, state.clone()).await,
            Err(SnapshotError::BadOffset(end - 1)),
            "in the middle of a batch"
        );
        log.write_snapshot(end, epoch, state.clone()).await.unwrap();
        assert!(
            log.write_snapshot(end, epoch, state.clone()).await.is_err(),
            "twice"
        );
    }
    log.propose(epoch, topics(&["d"])).await.unwrap();
    let expected: Vec<_> = [base + 4, base + 6]
        .map(|end| checkpoint::file_name(end, epoch))
        .into();
    let found = checkpoints(dir.path());
    let names: Vec<_> = found
        .iter()
        .map(|it| it.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, expected);
    log.shutdown().await.unwrap();
    let damaged = TempDir::new().unwrap();
    copy_dir(dir.path(), damaged.path());
    let mut bytes = fs::read(&found[1]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let newest = checkpoints(damaged.path()).pop().unwrap();
    fs::write(newest, bytes).unwrap();
    drop(log);

    for (copy, offset, held) in [(dir.path(), base + 6, 6), (damaged.path(), base + 4, 4)] {
        let copied = TempDir::new().unwrap();
        copy_dir(copy, copied.path());
        let log = open_voter(copied.path()).await;
        let epoch = wait_for_leader(&log, 1).await;
        let mut subscriber = log.subscribe();
        let Some(Committed::Snapshot {
            offset: at,
            records,
            ..
        }) = subscriber.recv().await
        else {
            panic!("no snapshot first")
        };
        assert_eq!((at, records.len()), (offset, held));
        let names = collect(&mut log.subscribe(), 7).await;
        assert_eq!(names, ["a", "a", "b", "b", "c", "c", "d"]);
        log.propose(epoch, topics(&["e"])).await.unwrap();
        assert_eq!(collect(&mut log.subscribe(), 8).await.pop().unwrap(), "e");
    }
}

#[test]
fn a_checkpoint_is_whole_or_nothing() {
    let dir = TempDir::new().unwrap();
    let records: Vec<MetadataRecord> = (0..3000).map(|i| topic(&i.to_string())).collect();
    let membership = super::super::types::Membership::default();
    let path = checkpoint::write_part(dir.path(), (10, 2), 5, &membership, &records).unwrap();
    assert!(checkpoint::is_valid(&path));
    assert_eq!(checkpoint::read_records(&path).unwrap(), records);
    let bytes = fs::read(&path).unwrap();
    for cut in (0..bytes.len()).rev().step_by(997).chain([bytes.len() - 1]) {
        if cut < bytes.len() - 1 || cut == bytes.len() - 1 {
            fs::write(&path, &bytes[..cut]).unwrap();
            assert!(!checkpoint::is_valid(&path), "cut at {cut}");
        }
    }
    checkpoint::remove_leftovers(dir.path(), 0).unwrap();
    assert!(!path.exists());
    assert_eq!(
        checkpoint::parse_file_name(&checkpoint::file_name(7, 3)),
        Some((7, 3))
    );
    assert_eq!(checkpoint::parse_file_name("bootstrap.checkpoint"), None);
}
