//! How fast controllers notice that their leader is gone, and how long they wait for each other.
//!
//! What the configuration does not set is faster here than in Kafka, whose followers fetch: openraft's leader sends a heartbeat.
//!
//! | key | meaning here | where it is not set |
//! |---|---|---|
//! | `controller.quorum.fetch.timeout.ms` | silence after which followers elect, at the least | `election.timeout.ms`, else 750 |
//! | `controller.quorum.election.timeout.ms` | the same, where the key above is not set | |
//! | `controller.quorum.election.backoff.max.ms` | what chance adds to that, at most | a third of that |
//! | `controller.quorum.request.timeout.ms` | wait for an answer | 500 for a vote, 2000 (a vote: no longer than the shortest timeout) |
//! | `controller.quorum.retry.backoff.ms` | rest before a connection is made again | 50 |
//!
//! A leader whose process is gone is succeeded sooner ([`super::succession`]).
//!
//! To openraft a silence has two parts. First the leader's lease, as long as its longest election timeout: nobody votes against it, and
//! it refuses to write once a majority was silent for so long, which on a busy machine is soon.
//! Then an election timeout that chance chooses between the shortest and the longest, and after which an election that came to
//! nothing is held again.
//!
//! ```text
//! last heartbeat            lease               shortest      longest timeout
//! |-------------------------------------------------|-----------|===========|
//!                                                           elects in here
//! ```

use std::time::Duration;

use crate::config::Config;
use crate::rpc::Settings;

const SILENCE_MS: u64 = 750;
const HEARTBEAT_INTERVAL_MS: u64 = 100;
/// A vote that takes longer is of no use: the next election has begun.
const VOTE_TIMEOUT: Duration = Duration::from_millis(500);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const CATCH_UP_MAX: Duration = Duration::from_secs(30);
const RETRY_BACKOFF: Duration = Duration::from_millis(50);

/// The times of a voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumTiming {
    /// Of openraft: followers elect after a silence between their sum and twice the second.
    pub election_timeout_min_ms: u64,
    pub election_timeout_max_ms: u64,
    pub heartbeat_interval_ms: u64,
    pub vote_timeout: Duration,
    pub request_timeout: Duration,
    /// No longer than `socket.connection.setup.timeout.ms`, nor than an answer to a vote is worth waiting for.
    pub connect_timeout: Duration,
    pub retry_backoff: Duration,
    /// A leader that a majority has been silent to for longer does not say that it leads (Kafka's check quorum: one and a
    /// half times the fetch timeout).
    pub majority_silence_max: Duration,
    /// How long a new voter may take to catch up, whatever the request allows: no other change of the voters is made meanwhile.
    /// Kafka does not wait for it at all.
    pub catch_up_max: Duration,
}

impl Default for QuorumTiming {
    fn default() -> Self {
        Self::new(None, None, None, None, 2_000)
    }
}

impl QuorumTiming {
    /// As the configuration says, where it says something.
    pub fn of(config: &Config) -> Self {
        let set = |name: &str, value: i32| {
            let name = format!("controller.quorum.{name}.ms");
            let value = u64::try_from(value).ok()?;
            config.is_set(&name).then_some(value)
        };
        let silence = set("fetch.timeout", config.controller_quorum_fetch_timeout_ms);
        let timing = Self::new(
            silence.or_else(|| {
                set(
                    "election.timeout",
                    config.controller_quorum_election_timeout_ms,
                )
            }),
            set(
                "election.backoff.max",
                config.controller_quorum_election_backoff_max_ms,
            ),
            set(
                "request.timeout",
                config.controller_quorum_request_timeout_ms,
            ),
            set("retry.backoff", config.controller_quorum_retry_backoff_ms),
            u64::try_from(config.controller_quorum_fetch_timeout_ms).unwrap_or(0),
        );
        Self {
            connect_timeout: timing
                .vote_timeout
                .min(Settings::of(config).connect_timeout),
            ..timing
        }
    }

    fn new(
        silence_ms: Option<u64>,
        backoff_max_ms: Option<u64>,
        request_timeout_ms: Option<u64>,
        retry_backoff_ms: Option<u64>,
        fetch_timeout_ms: u64,
    ) -> Self {
        // openraft needs room for a heartbeat, and for an answer to a vote, in the shortest timeout, and two different ends of the
        // range.
        let silence_ms = silence_ms.unwrap_or(SILENCE_MS).max(20);
        let spread_ms = backoff_max_ms.unwrap_or(silence_ms / 3).max(1);
        let heartbeat_interval_ms = HEARTBEAT_INTERVAL_MS.min(silence_ms * 2 / 5);
        let min_ms = silence_ms.saturating_sub(spread_ms) / 2;
        let min_ms = min_ms.max(heartbeat_interval_ms * 3 / 2);
        let request_timeout = request_timeout_ms.map(Duration::from_millis);
        Self {
            election_timeout_min_ms: min_ms,
            election_timeout_max_ms: u64::midpoint(silence_ms, spread_ms).max(min_ms + 1),
            heartbeat_interval_ms,
            vote_timeout: request_timeout.unwrap_or(VOTE_TIMEOUT),
            request_timeout: request_timeout.unwrap_or(REQUEST_TIMEOUT),
            connect_timeout: request_timeout.unwrap_or(VOTE_TIMEOUT),
            retry_backoff: retry_backoff_ms.map_or(RETRY_BACKOFF, Duration::from_millis),
            majority_silence_max: Duration::from_millis(fetch_timeout_ms * 3 / 2),
            catch_up_max: CATCH_UP_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_takes_effect_and_nothing_else_changes() {
        let timing = |settings: &[(&str, &str)]| {
            let settings = settings.iter();
            let named = |(key, value): &(&str, &str)| {
                (format!("controller.quorum.{key}.ms"), (*value).to_owned())
            };
            let settings: Vec<_> = settings.map(named).collect();
            QuorumTiming::of(&Config::load(None, &settings).unwrap())
        };
        let ours = QuorumTiming::default();
        assert_eq!(timing(&[]), ours);
        // The shortest and the longest silence, and the heartbeats.
        let silence = |it: QuorumTiming| {
            let (min_ms, max_ms) = (it.election_timeout_min_ms, it.election_timeout_max_ms);
            (min_ms + max_ms, 2 * max_ms, it.heartbeat_interval_ms)
        };
        assert_eq!(silence(ours), (750, 1_000, 100));
        // Kafka's defaults, written down.
        let kafkas = timing(&[
            ("election.timeout", "1000"),
            ("fetch.timeout", "2000"),
            ("election.backoff.max", "1000"),
            ("request.timeout", "2000"),
            ("retry.backoff", "20"),
        ]);
        assert_eq!(silence(kafkas), (2_000, 3_000, 100));
        assert_eq!(kafkas.vote_timeout, Duration::from_secs(2));
        assert_eq!(kafkas.retry_backoff, Duration::from_millis(20));
        let slow = timing(&[("election.timeout", "1000")]);
        assert_eq!(silence(slow), (999, 1_332, 100));
        let quick = timing(&[("fetch.timeout", "250")]);
        assert_eq!(silence(quick), (316, 332, 100));
        let patient = timing(&[("fetch.timeout", "4000")]);
        assert_eq!(patient.majority_silence_max, Duration::from_secs(6));
        // However small, raft must accept it.
        let hasty = timing(&[("fetch.timeout", "0"), ("election.backoff.max", "0")]);
        assert!(hasty.heartbeat_interval_ms < hasty.election_timeout_min_ms);
        assert!(hasty.election_timeout_min_ms < hasty.election_timeout_max_ms);
    }
}
