//! A few seeds of each kind; `src/bin/simulate.rs` runs thousands.

use super::{Bug, run};

/// Rule: follower-high-watermark, deposed-controller
#[test]
fn no_invariant_breaks() {
    for seed in 0..40 {
        let outcome = run(seed, None, false);
        if let Some(violation) = outcome.violation {
            let trace = run(seed, None, true).trace;
            panic!("seed {seed}: {}\n{trace}", violation.0);
        }
        assert!(outcome.acknowledged > 50, "seed {seed} tells something");
    }
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 0..5 {
        let (first, second) = (run(seed, None, true), run(seed, None, false));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert!(!first.trace.is_empty() && second.trace.is_empty());
    }
    assert_ne!(
        run(1, None, false).trace_hash,
        run(2, None, false).trace_hash
    );
}

/// Of every third seed's world: its voters change.
#[test]
fn voters_come_and_go_and_lose_their_disks() {
    let traces: String = (0..16)
        .map(|nth| run(nth * 3 + 2, None, true).trace)
        .collect();
    for event in [
        "proposes voters [1, 2, 3, 4] instead of [1, 2, 3]",
        "proposes voters [1, 2] instead of [1, 2, 3]",
        "loses its metadata disk",
    ] {
        assert!(traces.contains(event), "never: {event}");
    }
}

/// Rule: fencing
#[test]
fn wall_clocks_jump_and_sessions_last() {
    let traces: String = (0..8).map(|seed| run(seed, None, true).trace).collect();
    assert!(traces.contains("has its clock set by -"), "never back");
    let steps = traces.matches("has its clock set by ").count();
    assert!(steps > 3, "{steps} steps");
}

#[test]
fn planted_bugs_of_membership_are_found() {
    for (bug, invariant) in [
        (Bug::ChangesVotersAtOnce, "SingleVoterChange"),
        (Bug::CountsRemovedVoters, "LeaderCompleteness"),
    ] {
        assert_eq!(found(bug, (2..100).step_by(3)), invariant, "{bug:?}");
    }
}

/// Rule: fencing, fetch-session, retries, truncation
#[test]
fn planted_bugs_are_found() {
    // Those that show early; `simulate --bugs` looks for all.
    for (bug, invariant) in [
        (Bug::TruncatesToHighWatermark, "CommittedStays"),
        (Bug::CheckpointsBeforeSync, "RecoveryPoint"),
        (Bug::PairsFetchedByOrder, "Progress"),
        (Bug::CountsFetchersAsCaughtUp, "LeaderCandidateCompleteness"),
        (Bug::ShowsUncommitted, "ConsistentRead"),
        (Bug::AcknowledgesBeforeCommit, "NoAcknowledgedRecordLost"),
        (Bug::FollowersForgetProducers, "ExactlyOnce"),
        (Bug::FencesWithoutShrinking, "NoFencedMember"),
        (Bug::AppliesMetadataTwice, "MetadataLogMatching"),
        (Bug::TimesOutByWallClock, "HonestSessions"),
    ] {
        assert_eq!(found(bug, 0..100), invariant, "{bug:?}");
    }
}

/// The invariant that breaks first.
fn found(bug: Bug, mut seeds: impl Iterator<Item = u64>) -> String {
    let violation = seeds.find_map(|seed| run(seed, Some(bug), false).violation);
    let what = violation.map_or_else(String::new, |violation| violation.0);
    what.split(':').next().unwrap_or_default().to_owned()
}
