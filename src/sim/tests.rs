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

/// Rule: truncation, retries
#[test]
fn planted_bugs_are_found() {
    // Those that show early; `simulate --bugs` looks for all.
    for bug in [
        Bug::TruncatesToHighWatermark,
        Bug::LeadsBeforeRegistration,
        Bug::CountsFetchersAsCaughtUp,
        Bug::AcknowledgesBeforeCommit,
        Bug::FollowersForgetProducers,
        Bug::FencesWithoutShrinking,
    ] {
        let found = (0..100).any(|seed| run(seed, Some(bug), false).violation.is_some());
        assert!(found, "{bug:?} goes unnoticed");
    }
}
