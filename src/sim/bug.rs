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
    /// A follower takes the partitions of a fetch session's answer for those that it asked for, one by one (Redpanda #3336).
    PairsFetchedByOrder,
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
    pub const ALL: [Self; 23] = [
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
        Self::PairsFetchedByOrder,
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

/// Where a planted mistake shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// In the simulator, planted as this bug.
    Simulated(Bug),
    /// In a unit test, which plants it itself: what it is about is not simulated.
    Tested(&'static str),
}

/// The scenarios of other systems' bugs that must each be found when they are put back in.
pub const SCENARIOS: [(&str, Shown); 10] = [
    (
        "S1 truncation by high watermark (KIP-101)",
        Shown::Simulated(Bug::TruncatesToHighWatermark),
    ),
    (
        "S2 two fast fail-overs (KIP-279)",
        Shown::Simulated(Bug::IgnoresDivergence),
    ),
    (
        "S7 recovery point before the sync (KAFKA-10101)",
        Shown::Simulated(Bug::CheckpointsBeforeSync),
    ),
    (
        "S8 last replica standing (KIP-966)",
        Shown::Simulated(Bug::HidesUncleanShutdown),
    ),
    (
        "S11 ISR expansion below the epoch's start",
        Shown::Simulated(Bug::JoinsBelowEpochStart),
    ),
    (
        "S15 late batch behind an abort marker (KAFKA-9144)",
        Shown::Tested("log::tests::transactions::a_late_batch_leaves_no_transaction_hanging"),
    ),
    (
        "S16 delayed end of a transaction ends the next one (KIP-890), as the log sees it",
        Shown::Tested("log::tests::transactions::a_late_marker_ends_no_later_transaction"),
    ),
    (
        "S18 producers' sequences lost with the leader",
        Shown::Simulated(Bug::FollowersForgetProducers),
    ),
    (
        "S22 order of a fetch session's answer (Redpanda #3336)",
        Shown::Simulated(Bug::PairsFetchedByOrder),
    ),
    (
        "acknowledgement in another epoch",
        Shown::Simulated(Bug::AcknowledgesInOtherEpoch),
    ),
];

impl std::str::FromStr for Bug {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
        found.ok_or_else(|| format!("there are {:?}", Self::ALL))
    }
}
