//! Mistakes that can be planted, to see that the oracle notices: scenarios that other systems got wrong, put back in.

/// One mistake. The simulated shells ask for it where they would go right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A restarted replica cuts its log at its own high watermark (KIP-101).
    TruncatesToHighWatermark,
    /// Followers do not tell the epoch of their last record, so that diverging logs go unnoticed (KIP-279).
    IgnoresDivergence,
    /// The clean-shutdown file is written before the logs are synced.
    StopsCleanlyWithoutSync,
    /// The recovery point is checkpointed before the log is synced (KAFKA-10101).
    CheckpointsBeforeSync,
    /// A broker that crashed claims that it stopped in order (KIP-966, KAFKA-18106).
    HidesUncleanShutdown,
    /// A restarted broker takes up what the metadata had for it before the controller knew of its restart.
    LeadsBeforeRegistration,
    /// A leader counts whoever fetches as caught up: in sync, and for the high watermark.
    CountsFetchersAsCaughtUp,
    /// A follower joins the ISR at the leader's high watermark, whatever that one found when it took over.
    JoinsBelowEpochStart,
    /// Consumers are shown what is not committed.
    ShowsUncommitted,
    /// acks=all is answered when the leader has the records.
    AcknowledgesBeforeCommit,
    /// Waiting producers are answered by offset, whatever leader epoch it was reached in.
    AcknowledgesInOtherEpoch,
    /// Followers do not keep producers' sequences, so that a retry after a fail-over is stored twice.
    FollowersForgetProducers,
    /// A follower appends the answer to a fetch of an older leader epoch.
    AppendsStaleFetches,
    /// The controller takes an ISR that was proposed for an older partition epoch (KIP-497).
    AcceptsStaleIsr,
    /// The controller fences a broker and leaves it in the ISR.
    FencesWithoutShrinking,
    /// A controller that was deposed goes on committing.
    DeposedControllerCommits,
    /// A broker takes an answer to a request for metadata that it has repeated since.
    AppliesMetadataTwice,
    /// Sessions, lag times and periodic tasks go by the time of day.
    TimesOutByWallClock,
    /// A voter that lost its disk votes on as if it were the same replica (KIP-853).
    LostDiskKeepsItsVote,
    /// The leader takes a change of the voters before the last one is committed.
    ChangesVotersAtOnce,
    /// The leader counts the majority of the voters that it began with.
    CountsFormerMajority,
    /// A candidate counts the votes of voters that were removed.
    CountsRemovedVoters,
}

impl Bug {
    pub const ALL: [Self; 22] = [
        Self::TruncatesToHighWatermark,
        Self::IgnoresDivergence,
        Self::StopsCleanlyWithoutSync,
        Self::CheckpointsBeforeSync,
        Self::HidesUncleanShutdown,
        Self::LeadsBeforeRegistration,
        Self::CountsFetchersAsCaughtUp,
        Self::JoinsBelowEpochStart,
        Self::ShowsUncommitted,
        Self::AcknowledgesBeforeCommit,
        Self::AcknowledgesInOtherEpoch,
        Self::FollowersForgetProducers,
        Self::AppendsStaleFetches,
        Self::AcceptsStaleIsr,
        Self::FencesWithoutShrinking,
        Self::DeposedControllerCommits,
        Self::AppliesMetadataTwice,
        Self::TimesOutByWallClock,
        Self::LostDiskKeepsItsVote,
        Self::ChangesVotersAtOnce,
        Self::CountsFormerMajority,
        Self::CountsRemovedVoters,
    ];
}

impl std::str::FromStr for Bug {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
        found.ok_or_else(|| format!("there are {:?}", Self::ALL))
    }
}
