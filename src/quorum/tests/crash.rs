//! What a crash leaves: any prefix of the log's last writes, torn votes, half-written checkpoints.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

use openraft::EntryPayload;
use tempfile::TempDir;

use super::super::store::Store;
use super::super::types::{Membership, Vote, raft_id};
use super::super::vote_file::VoteFile;
use super::{append, copy_dir, entry, node, normal, open_log, open_store};
use crate::clock::Clock;

const SEGMENT: &str = "__cluster_metadata-0/00000000000000000000.log";

#[tokio::test]
async fn a_log_cut_at_any_byte_reopens_as_a_prefix() {
    let dir = TempDir::new().unwrap();
    let store = open_store(dir.path());
    let mut ends = vec![0];
    for index in 0..4 {
        let base = store.state().end_offset();
        append(&store, vec![normal(1, index, base, &["a", "b"])]).await;
        ends.push(fs::metadata(dir.path().join(SEGMENT)).unwrap().len());
    }
    let crashed = TempDir::new().unwrap();
    copy_dir(dir.path(), crashed.path());
    let segment = fs::read(crashed.path().join(SEGMENT)).unwrap();
    for cut in 0..=segment.len() {
        fs::write(crashed.path().join(SEGMENT), &segment[..cut]).unwrap();
        let reopened = open_store(crashed.path());
        let whole = ends.iter().rposition(|end| *end <= cut as u64).unwrap() as u64;
        assert_eq!(reopened.state().next_index(), whole, "cut at {cut}");
        assert_eq!(
            reopened.state().end_offset(),
            whole as i64 * 2,
            "cut at {cut}"
        );
        let entries = reopened.entries(0, u64::MAX).await.unwrap();
        assert_eq!(entries.len() as u64, whole);
        append(&reopened, vec![normal(2, whole, whole as i64 * 2, &["c"])]).await;
        drop(reopened);
        let again = open_store(crashed.path());
        assert_eq!(again.state().next_index(), whole + 1, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_log_that_needs_no_recovery_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open_store(dir.path());
    append(&store, vec![normal(1, 0, 0, &["orders"])]).await;
    append(&store, vec![normal(1, 1, 1, &["bills"])]).await;
    drop(store);
    let log = open_log(dir.path());
    let mut segment = fs::read(dir.path().join(SEGMENT)).unwrap();
    let at = segment.windows(6).position(|it| it == b"orders").unwrap();
    segment[at] = b'O';
    fs::write(dir.path().join(SEGMENT), &segment).unwrap();
    let metadata = dir.path().join("__cluster_metadata-0");
    let refused = Store::open(log, &metadata, |_| 1, Clock::system()).err();
    let refused = refused.expect("a topic of another name").to_string();
    assert!(refused.contains("damaged at offset 0"), "{refused}");
}

#[tokio::test]
async fn truncated_entries_stay_away() {
    let dir = TempDir::new().unwrap();
    let store = open_store(dir.path());
    let [one, two] = [1, 2].map(|id| raft_id(id, node(1).directory_id));
    let voters = Membership::new(vec![[one].into()], BTreeMap::from([(one, node(1))])).unwrap();
    // Joint memberships do not fit a VotersRecord: the sidecar must bring them back, and only for the entry it knows.
    let joint = Membership::new(
        vec![[one].into(), [one, two].into()],
        BTreeMap::from([(one, node(1)), (two, node(2))]),
    );
    let joint = joint.unwrap();
    append(
        &store,
        vec![entry(1, 0, EntryPayload::Membership(voters.clone()))],
    )
    .await;
    append(
        &store,
        vec![entry(1, 1, EntryPayload::Membership(joint.clone()))],
    )
    .await;
    append(&store, vec![entry(1, 2, EntryPayload::Blank)]).await;
    drop(store);
    let store = open_store(dir.path());
    assert_eq!(*store.state().membership_at(9).membership(), joint);
    let first = store.state().entry_before(2).unwrap().0;
    store.truncate_after(Some(first)).await.unwrap();
    assert_eq!(*store.state().membership_at(9).membership(), voters);
    append(
        &store,
        vec![entry(2, 1, EntryPayload::Membership(voters.clone()))],
    )
    .await;
    drop(store);
    let store = open_store(dir.path());
    assert_eq!(*store.state().membership_at(9).membership(), voters);
    assert_eq!(store.state().next_index(), 2);
}

#[tokio::test]
async fn a_vote_survives_and_a_torn_one_leaves_the_older() {
    let dir = TempDir::new().unwrap();
    let store = open_store(dir.path());
    store.save_vote(Vote::new(4, 1)).await.unwrap();
    store.save_vote(Vote::new(5, 2)).await.unwrap();
    drop(store);
    let metadata = dir.path().join("__cluster_metadata-0");
    let store = open_store(dir.path());
    assert_eq!(store.state().vote(), Some(Vote::new(5, 2)));
    drop(store);
    // The next vote would go to the other slot; the crash tears it.
    let mut votes = VoteFile::open(&metadata, 1).unwrap();
    fs::remove_file(metadata.join("quorum-state")).unwrap();
    votes.save(Vote::new(6, 1), true).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(metadata.join("raft-vote"))
        .unwrap();
    file.write_all_at(&[0xff; 5], 4096 + 14).unwrap();
    assert_eq!(
        VoteFile::open(&metadata, 1).unwrap().vote(),
        Some(Vote::new(5, 2))
    );
}

#[tokio::test]
async fn kafkas_quorum_state_counts_where_it_is_newer() {
    let dir = TempDir::new().unwrap();
    let text = r#"{"leaderId":3,"leaderEpoch":7,"votedId":-1,"votedDirectoryId":"AAAAAAAAAAAAAAAAAAAAAA","data_version":1}"#;
    fs::write(dir.path().join("quorum-state"), text).unwrap();
    let mut votes = VoteFile::open(dir.path(), 1).unwrap();
    assert_eq!(votes.vote(), Some(Vote::new(7, 3)));
    votes.save(Vote::new_committed(8, 1), true).unwrap();
    votes.write_quorum_state().unwrap();
    let written = fs::read_to_string(dir.path().join("quorum-state")).unwrap();
    assert_eq!(written, text.replace("d\":3", "d\":1").replace(":7", ":8"));
}

#[tokio::test]
async fn a_sole_voter_never_reuses_a_term_in_its_log() {
    let dir = TempDir::new().unwrap();
    let store = open_store(dir.path());
    let alone = Membership::new(vec![[1].into()], BTreeMap::from([(1, node(1))])).unwrap();
    append(&store, vec![entry(3, 0, EntryPayload::Membership(alone))]).await;
    drop(store);
    assert_eq!(open_store(dir.path()).state().vote(), Some(Vote::new(3, 1)));
}
