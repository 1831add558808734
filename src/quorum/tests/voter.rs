//! One voter: proposals, restarts, subscribers, speed.

use std::time::{Duration, Instant};

use openraft::EntryPayload;
use tempfile::TempDir;

use super::super::types::AppliedEntry;
use super::super::{MetaLog, ProposeError, RECORDS_PER_BATCH_MAX};
use super::{append, collect, entry, normal, open_store, open_voter, topics, wait_for_leader};
use crate::protocol::metadata_records::{MetadataRecord, NoOpRecord};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sole_voter_leads_at_once_and_remembers() {
    let dir = TempDir::new().unwrap();
    let mut named = Vec::new();
    for round in 0..3 {
        let started = Instant::now();
        let log = open_voter(dir.path()).await;
        let epoch = wait_for_leader(&log, 1).await;
        let leading = started.elapsed();
        assert_eq!(epoch, round + 1);
        let base = log.end_offset();
        let names = [format!("a{round}"), format!("b{round}")];
        let records = topics(&[&names[0], &names[1]]);
        assert_eq!(log.propose(epoch, records).await, Ok(base + 1));
        println!(
            "round {round}: leads after {leading:?}, committed after {:?}",
            started.elapsed()
        );
        // No election timeout was waited for: the shortest is 250 ms.
        assert!(leading < Duration::from_millis(200), "{leading:?}");
        named.extend(names);
        let (mut one, mut two) = (log.subscribe(), log.subscribe());
        assert_eq!(collect(&mut one, named.len()).await, named);
        assert_eq!(collect(&mut two, named.len()).await, named);
        let info = log.describe();
        assert_eq!((info.leader_id, info.leader_epoch), (1, epoch));
        assert_eq!(info.high_watermark, base + 2);
        assert_eq!(info.voters.len(), 1);
        assert_eq!(info.voters[0].log_end_offset, base + 2);
        if round % 2 == 0 {
            log.shutdown().await.unwrap();
        }
        drop((one, two));
        drop(log);
        wait_until_released(dir.path()).await;
    }
}

/// The directory is free when the last task of a dropped log has ended.
async fn wait_until_released(dir: &std::path::Path) {
    let started = Instant::now();
    while crate::log::LogDir::open(dir).is_err() {
        assert!(
            started.elapsed() < super::PATIENCE,
            "the directory stays locked"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_are_ordered_and_bad_ones_refused() {
    let dir = TempDir::new().unwrap();
    let log = open_voter(dir.path()).await;
    let epoch = wait_for_leader(&log, 1).await;
    let base = log.end_offset();
    assert_eq!(
        log.propose(epoch, Vec::new()).await,
        Err(ProposeError::BadSize)
    );
    let many = vec![MetadataRecord::NoOp(NoOpRecord::default()); RECORDS_PER_BATCH_MAX + 1];
    assert_eq!(log.propose(epoch, many).await, Err(ProposeError::BadSize));
    assert_eq!(
        log.propose(epoch + 1, topics(&["x"])).await,
        Err(ProposeError::NotLeader)
    );
    assert_eq!(
        log.propose(epoch - 1, topics(&["x"])).await,
        Err(ProposeError::NotLeader)
    );
    // Offsets follow the order of the calls, not of the polls; a dropped future's records are committed too.
    let first = log.propose(epoch, topics(&["a", "b"]));
    drop(log.propose(epoch, topics(&["c"])));
    let third = log.propose(epoch, topics(&["d"]));
    assert_eq!(log.end_offset(), base + 4);
    assert_eq!(third.await, Ok(base + 3));
    assert_eq!(first.await, Ok(base + 1));
    assert_eq!(collect(&mut log.subscribe(), 4).await, ["a", "b", "c", "d"]);
}

/// Rule: deposed-controller
#[tokio::test]
async fn a_proposal_at_the_wrong_offset_becomes_a_no_op() {
    let dir = TempDir::new().unwrap();
    let store = open_store(dir.path());
    append(
        &store,
        vec![entry(1, 0, EntryPayload::Blank), normal(1, 1, 2, &["lost"])],
    )
    .await;
    append(&store, vec![normal(1, 2, 2, &["fits"])]).await;
    let entries = store.entries(0, 9).await.unwrap();
    let applied: Vec<_> = entries
        .iter()
        .map(|(entry, _)| store.apply(entry))
        .collect();
    let expect = |last_offset, rejected| AppliedEntry {
        last_offset,
        rejected,
    };
    assert_eq!(
        applied,
        [expect(0, false), expect(1, true), expect(2, false)]
    );
    drop(store);
    let store = open_store(dir.path());
    let EntryPayload::Normal(no_op) = &store.entries(1, 2).await.unwrap()[0].0.payload else {
        panic!("not a normal entry")
    };
    assert_eq!((no_op.base_offset, no_op.rejected), (1, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proposals_share_syncs() {
    const PROPOSALS: usize = 5000;
    let dir = TempDir::new().unwrap();
    let log = open_voter(dir.path()).await;
    let epoch = wait_for_leader(&log, 1).await;
    let mut subscriber = log.subscribe();
    let started = Instant::now();
    let proposals: Vec<_> = (0..PROPOSALS)
        .map(|_| log.propose(epoch, topics(&["t"])))
        .collect();
    for proposal in proposals {
        proposal.await.unwrap();
    }
    let took = started.elapsed();
    println!("{:.0} proposals/s", PROPOSALS as f64 / took.as_secs_f64());
    assert_eq!(collect(&mut subscriber, PROPOSALS).await.len(), PROPOSALS);
    // Entries left memory by now; a late subscriber reads them from disk.
    assert_eq!(
        collect(&mut log.subscribe(), PROPOSALS).await.len(),
        PROPOSALS
    );
}
