//! openraft's own suite on the store.
//!
//! Some of its tests want a snapshot at once of a state machine that was fed without a log. Here the controller brings the
//! snapshots, so the suite gets a state machine that makes empty ones up.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::Stream;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, RaftSnapshotBuilder, Snapshot, StorageError};
use tempfile::TempDir;

use super::super::TypeConfig;
use super::super::log_storage::LogStore;
use super::super::state_machine::StateMachine;
use super::super::types::{LogId, SnapshotMeta, StoredMembership};
use super::open_store;

#[derive(Clone)]
struct WithSnapshots {
    inner: StateMachine,
    installed: Arc<Mutex<Option<SnapshotMeta>>>,
}

type Empty = SnapshotOf<TypeConfig, ()>;

impl WithSnapshots {
    fn set(&self, meta: &SnapshotMeta) {
        let mut installed = self
            .installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *installed = Some(meta.clone());
    }
}

impl RaftSnapshotBuilder<TypeConfig> for WithSnapshots {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<Empty, io::Error> {
        let (last_log_id, last_membership) = self.inner.applied_state().await?;
        let meta = SnapshotMeta {
            last_log_id,
            last_membership,
        };
        self.set(&meta);
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for WithSnapshots {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.inner.applied_state().await
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        self.inner.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> Result<(), io::Error> {
        self.set(meta);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Empty>, io::Error> {
        let installed = self
            .installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(installed
            .clone()
            .map(|meta| Snapshot { meta, snapshot: () }))
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, WithSnapshots, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, WithSnapshots), StorageError<TypeConfig>> {
        let dir = TempDir::new().unwrap();
        let store = open_store(dir.path());
        let state_machine = WithSnapshots {
            inner: StateMachine(store.clone()),
            installed: Arc::default(),
        };
        Ok((dir, LogStore(store), state_machine))
    }
}

type S = Suite<TypeConfig, LogStore, WithSnapshots, Builder, TempDir>;

macro_rules! suite {
    ($($name:ident)*) => {
        $(#[tokio::test]
        async fn $name() {
            let (_dir, log, state_machine) = Builder.build().await.unwrap();
            S::$name(log, state_machine).await.unwrap();
        })*
    };
}

suite! {
    last_membership_in_log_initial
    last_membership_in_log
    last_membership_in_log_multi_step
    get_membership_initial
    get_membership_from_log_and_empty_sm
    get_membership_from_empty_log_and_sm
    get_membership_from_log_le_sm_last_applied
    get_membership_from_log_gt_sm_last_applied_1
    get_membership_from_log_gt_sm_last_applied_2
    get_initial_state_without_init
    get_initial_state_membership_from_empty_log_and_sm
    get_initial_state_membership_from_sm_inlog_is_smaller
    get_initial_state_membership_from_log_insm_is_smaller
    get_initial_state_with_state
    get_initial_state_last_log_gt_sm
    get_initial_state_last_log_lt_sm
    get_initial_state_inverted_log_order
    get_initial_state_conflict_at_same_index
    get_initial_state_log_ids
    get_initial_state_re_apply_committed
    save_vote
    get_log_entries
    limited_get_log_entries
    leader_bounded_stream
    entries_stream
    try_get_log_entry
    log_reader_reads_new_entries
    initial_logs
    get_log_state
    get_log_id
    last_id_in_log
    last_applied_state
    purge_logs_upto_0
    purge_logs_upto_5
    purge_logs_upto_20
    delete_logs_after_11
    delete_logs_after_5
    delete_logs_after_0
    delete_logs_after_none
    append_to_log
    snapshot_meta_optional
    apply_single
    apply_multiple
}
