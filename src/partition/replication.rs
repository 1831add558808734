//! A hosted partition between its leader and its followers: transitions, fetches of followers, and what followers append and
//! cut. The rules are in `state.rs` and `truncation.rs`; this is their shell over the log.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tracing::{info, warn};

use super::flush::FlushNeed;
use super::isr::{CommittedIsr, IsrProposal};
use super::proposals::ProposedIsr;
use super::remote_replica::FollowerFetch;
use super::state::{ActiveEpochs, Effects, ReplicationRules, Transition};
use super::truncation::{OutOfRange, out_of_range, truncation};
use super::{Inner, Partition, PartitionState, ReadRequest, ReadResult, Timer, online};
use crate::log::{AppendError, EpochEndOffset, Log, StartOffsetReason};
use crate::metadata::PartitionRegistration;
use crate::protocol::batch::parse_header;
use crate::protocol::{Error, ErrorCode};
use crate::types::{BrokerId, LeaderEpoch, NO_LEADER_EPOCH, Offset, TimestampMs};

/// Where a follower goes on fetching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerPosition {
    pub leader: BrokerId,
    pub leader_epoch: LeaderEpoch,
    /// The follower's log end offset.
    pub fetch_offset: Offset,
    /// Epoch of its last record; -1 when it has none.
    pub last_fetched_epoch: LeaderEpoch,
    pub log_start_offset: Offset,
}

/// What a leader sent with one partition's records.
#[derive(Clone, Debug)]
pub struct Replicated {
    /// Of the request: what its answer is good for.
    pub leader_epoch: LeaderEpoch,
    pub fetch_offset: Offset,
    pub records: Bytes,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
}

/// Why a follower did not append.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendAsFollowerError {
    /// The leadership or the log changed since the fetch was sent: its answer is void.
    #[error("the answer is to a fetch of another leader epoch or offset")]
    Stale,
    #[error("{0}")]
    Failed(Error),
}

impl From<Error> for AppendAsFollowerError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Partition {
    /// Takes over a registration from the metadata image. A new leader starts its epoch at the log end.
    pub fn apply(
        &self,
        registration: &PartitionRegistration,
        now_ms: i64,
        active: ActiveEpochs<'_>,
    ) -> Result<Transition, Error> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let log = online(&mut inner.log)?;
        let next_offset = log.next_offset();
        inner
            .state
            .clamp_high_watermark(log.log_start_offset(), next_offset);
        let mut transition = Transition::Stale;
        let before = inner.state.isr().changes();
        inner.on_event(|state, next_offset| {
            let high_watermark = state.high_watermark();
            transition = state.apply(registration, next_offset, now_ms, active);
            Effects {
                high_watermark_moved: state.high_watermark() > high_watermark,
                // Replicas may have been taken away.
                low_watermark_moved: true,
                proposal: None,
            }
        });
        self.broker
            .isr_proposals
            .count(before, inner.state.isr().changes());
        match transition {
            Transition::Stale => {}
            Transition::Follower { .. } => {
                inner.flush.unseen_bytes = 0;
                inner.waiters.fail(&ErrorCode::NotLeaderOrFollower.into());
            }
            Transition::Leader { is_new_epoch } => {
                if is_new_epoch {
                    let log = online(&mut inner.log)?;
                    log.assign_epoch(registration.leader_epoch, next_offset)?;
                }
            }
        }
        Ok(transition)
    }

    /// Brokers came, went, or were fenced.
    pub fn brokers_changed(&self, active: ActiveEpochs<'_>) {
        let mut inner = self.look();
        let event =
            |state: &mut PartitionState, next_offset| state.on_brokers_changed(next_offset, active);
        let proposal = self.on_event(&mut inner, event);
        drop(inner);
        self.propose(proposal);
    }

    /// Looks for followers that lag; call it every half `replica.lag.time.max.ms`.
    pub fn tick(&self, now_ms: i64) {
        let mut inner = self.look();
        // Without followers time changes nothing.
        if !inner.state.has_followers() {
            return;
        }
        self.broker.touched.keep(self, Timer::ShrinkIsr);
        let proposal = self.on_event(&mut inner, |state, next_offset| {
            state.on_tick(next_offset, now_ms)
        });
        drop(inner);
        self.propose(proposal);
    }

    /// The controller answered a proposal of this partition. An unknown error has it sent again.
    pub fn alter_partition_answered(
        &self,
        proposal: &IsrProposal,
        answer: Result<&CommittedIsr, ErrorCode>,
    ) {
        if answer.is_err() {
            self.broker.isr_proposals.failed.fetch_add(1, Relaxed);
        }
        let mut inner = self.lock();
        let before = inner.state.isr().changes();
        let again = inner
            .on_event(|state, next_offset| state.on_alter_partition(proposal, answer, next_offset));
        self.broker
            .isr_proposals
            .count(before, inner.state.isr().changes());
        drop(inner);
        self.propose(again);
    }

    /// As [`Inner::on_event`], for events that come to idle partitions, too: without effects they are nothing to the timers.
    fn on_event(
        &self,
        inner: &mut Inner,
        event: impl FnOnce(&mut PartitionState, Offset) -> Effects,
    ) -> Option<IsrProposal> {
        inner.on_event(|state, next_offset| {
            let effects = event(state, next_offset);
            if effects != Effects::default() {
                self.broker.touched.touch(self);
            }
            effects
        })
    }

    fn propose(&self, proposal: Option<IsrProposal>) {
        let Some(proposal) = proposal else { return };
        info!(tp = %self.topic_partition, isr = ?proposal.isr, "proposing in-sync replicas");
        self.broker.isr_proposals.push(ProposedIsr {
            topic_partition: self.topic_partition.clone(),
            topic_id: self.topic_id,
            proposal,
        });
    }

    /// A follower fetches: reads for it, and takes note of where it is. Answers whether the high watermark is news to it.
    pub fn read_as_leader(
        &self,
        request: &ReadRequest,
        fetch: &FollowerFetch,
    ) -> Result<(ReadResult, bool), Error> {
        let mut inner = self.look();
        inner.state.check_leader(request.current_leader_epoch)?;
        let follows = inner
            .state
            .check_replica(fetch.replica_id, fetch.broker_epoch);
        follows.map_err(|error| match error.code {
            // Without an epoch nobody can say which of the two is behind (`followerReplicaOrThrow`).
            ErrorCode::UnknownLeaderEpoch if request.current_leader_epoch < 0 => {
                ErrorCode::NotLeaderOrFollower.into()
            }
            _ => error,
        })?;
        // Before the read: what is appended behind it must not keep the follower from being in sync.
        let next_offset = online(&mut inner.log)?.next_offset();
        let told = inner.state.told_high_watermark(fetch.replica_id);
        // A file may be opened.
        self.broker.touched.keep(self, Timer::ReleaseFiles);
        let read = inner.read(request);
        if let Err(error) = &read
            && error.code == ErrorCode::KafkaStorageError
        {
            inner.fail(&self.topic_partition, error);
        }
        let mut result = read?;
        if result.diverging_epoch.is_some() {
            return Ok((result, false));
        }
        let proposal = self.on_event(&mut inner, |state, _| {
            state.on_follower_fetch(fetch, next_offset)
        });
        result.high_watermark = inner.state.high_watermark();
        inner.state.tell_high_watermark(fetch.replica_id);
        let news = result.high_watermark > told;
        drop(inner);
        self.propose(proposal);
        Ok((result, news))
    }

    /// Who leads, or -1, and in which epoch.
    pub fn leader_and_epoch(&self) -> (BrokerId, LeaderEpoch) {
        let state = &self.look().state;
        (state.leader(), state.leader_epoch())
    }

    /// Where a consumer should rather read `offset`: see [`PartitionState::preferred_read_replica`].
    pub fn preferred_read_replica(
        &self,
        offset: Offset,
        is_near: &dyn Fn(BrokerId) -> bool,
    ) -> Option<BrokerId> {
        self.look().state.preferred_read_replica(offset, is_near)
    }

    /// Where this follower fetches; `None` while it leads, or nobody does.
    pub fn follower_position(&self) -> Option<FollowerPosition> {
        let mut inner = self.look();
        let (leader, leader_epoch) = (inner.state.leader(), inner.state.leader_epoch());
        if inner.state.is_leader() || leader < 0 {
            return None;
        }
        let log = online(&mut inner.log).ok()?;
        Some(FollowerPosition {
            leader,
            leader_epoch,
            fetch_offset: log.next_offset(),
            last_fetched_epoch: log
                .leader_epochs()
                .latest_epoch()
                .unwrap_or(NO_LEADER_EPOCH),
            log_start_offset: log.log_start_offset(),
        })
    }

    /// Appends what the leader sent, if the fetch still stands; takes over its high watermark and log start.
    pub fn append_as_follower(
        self: &Arc<Self>,
        replicated: Replicated,
        now_ms: TimestampMs,
    ) -> Result<(), AppendAsFollowerError> {
        let mut inner = self.lock();
        let need = inner.append_as_follower(replicated, now_ms);
        if let Err(AppendAsFollowerError::Failed(error)) = &need
            && error.code == ErrorCode::KafkaStorageError
        {
            inner.fail(&self.topic_partition, error);
        }
        drop(inner);
        self.flush_as_needed(need?);
        Ok(())
    }

    /// The leader's log differs from this one (`divergingEpoch`): cuts what the leader never had.
    pub fn truncate_to_leader(
        &self,
        leader_epoch: LeaderEpoch,
        diverging: EpochEndOffset,
    ) -> Result<(), AppendAsFollowerError> {
        let mut inner = self.lock();
        let high_watermark = inner.state.high_watermark();
        let log = inner.following(leader_epoch, None)?;
        let next_offset = log.next_offset();
        let own_end = |epoch| log.leader_epochs().end_offset_for(epoch, next_offset);
        let cut = truncation(diverging, own_end, next_offset, high_watermark);
        info!(tp = %self.topic_partition, ?diverging, offset = cut.offset, "log diverges from its leader's");
        inner.truncate(self, cut.offset)
    }

    /// The leader does not have the offset that this follower wants (OFFSET_OUT_OF_RANGE).
    pub fn reset_to_leader(
        &self,
        leader_epoch: LeaderEpoch,
        leader_log_start: Offset,
        leader_next_offset: Offset,
    ) -> Result<(), AppendAsFollowerError> {
        let mut inner = self.lock();
        let log = inner.following(leader_epoch, None)?;
        let next_offset = log.next_offset();
        match out_of_range(next_offset, leader_log_start, leader_next_offset) {
            OutOfRange::TruncateTo(offset) => {
                warn!(tp = %self.topic_partition, next_offset, leader_next_offset, "the leader's log is shorter: truncating");
                inner.truncate(self, offset)
            }
            OutOfRange::StartAt(offset) => {
                warn!(tp = %self.topic_partition, next_offset, leader_log_start, "the leader's log starts later: starting anew");
                log.truncate_fully_and_start_at(offset)
                    .map_err(Error::from)?;
                inner.state.clamp_high_watermark(offset, offset);
                Ok(())
            }
            OutOfRange::FetchAgain => Ok(()),
        }
    }
}

impl Inner {
    /// The log of a follower in `leader_epoch` whose log ends at `fetch_offset`.
    fn following(
        &mut self,
        leader_epoch: LeaderEpoch,
        fetch_offset: Option<Offset>,
    ) -> Result<&mut Log, AppendAsFollowerError> {
        if self.state.is_leader() || self.state.leader_epoch() != leader_epoch {
            return Err(AppendAsFollowerError::Stale);
        }
        let log = online(&mut self.log)?;
        if fetch_offset.is_some_and(|offset| offset != log.next_offset()) {
            return Err(AppendAsFollowerError::Stale);
        }
        Ok(log)
    }

    fn append_as_follower(
        &mut self,
        replicated: Replicated,
        now_ms: TimestampMs,
    ) -> Result<FlushNeed, AppendAsFollowerError> {
        let log = self.following(replicated.leader_epoch, Some(replicated.fetch_offset))?;
        let size_before = log.size_bytes();
        let records = up_to_epoch(replicated.records, replicated.leader_epoch);
        if !records.is_empty() {
            append(log, records, now_ms)?;
        }
        let reason = StartOffsetReason::LeaderOffsetIncrement;
        log.increment_log_start_offset(replicated.log_start_offset, reason)
            .map_err(Error::from)?;
        let (log_start_offset, next_offset) = (log.log_start_offset(), log.next_offset());
        let bytes = log.size_bytes().saturating_sub(size_before);
        let need = self.appended(bytes);
        let high_watermark = self.state.high_watermark();
        self.state
            .clamp_high_watermark(log_start_offset, next_offset);
        if self
            .state
            .on_replicated(replicated.high_watermark, next_offset)
        {
            self.high_watermark_moved(high_watermark, next_offset);
        }
        Ok(need)
    }

    fn truncate(
        &mut self,
        partition: &Partition,
        offset: Offset,
    ) -> Result<(), AppendAsFollowerError> {
        let high_watermark = self.state.high_watermark();
        if offset < high_watermark {
            warn!(tp = %partition.topic_partition, offset, high_watermark, "truncating below the high watermark");
        }
        let log = online(&mut self.log)?;
        log.truncate_to(offset).map_err(Error::from)?;
        let (log_start_offset, next_offset) = (log.log_start_offset(), log.next_offset());
        self.state
            .clamp_high_watermark(log_start_offset, next_offset);
        self.flush.unseen_bytes = 0;
        Ok(())
    }

    pub(super) fn update_rules(&mut self) {
        self.state.set_rules(ReplicationRules {
            min_insync_replicas: self.config.min_insync_replicas.max(0) as usize,
            replica_lag_time_max_ms: self.lag_time_max_ms,
        });
    }
}

/// A follower whose log is empty may have to begin inside a batch, where its leader's log starts: it takes the batch whole.
fn append(log: &mut Log, records: Bytes, now_ms: TimestampMs) -> Result<(), Error> {
    let failed = |error| match error {
        AppendError::Invalid(error) => error,
        AppendError::UnexpectedOffset { .. } => {
            Error::new(ErrorCode::CorruptMessage, "offsets go back")
        }
        AppendError::Storage(cause) => cause.into(),
    };
    match log.append_as_follower(records.clone(), now_ms) {
        Ok(_) => Ok(()),
        Err(AppendError::UnexpectedOffset { found, .. })
            if log.log_start_offset() == log.next_offset() =>
        {
            log.truncate_fully_and_start_at(found)?;
            log.append_as_follower(records, now_ms)
                .map(|_| ())
                .map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Batches of later leader epochs are not for a follower of this one (KAFKA-18723).
fn up_to_epoch(records: Bytes, leader_epoch: LeaderEpoch) -> Bytes {
    let mut at = 0;
    while let Ok(header) = parse_header(&records[at..]) {
        if header.partition_leader_epoch > leader_epoch {
            return records.slice(..at);
        }
        match at.checked_add(header.size_bytes()) {
            Some(next) if next < records.len() => at = next,
            _ => break,
        }
    }
    records
}
