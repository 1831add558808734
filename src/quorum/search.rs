//! What is said while no leader of the metadata quorum is found: who was asked and what came of it. Once after some seconds, again at
//! growing intervals, and once when a leader is found. A node that cannot start for want of one says nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::LeaderAndEpoch;
use super::store::lock;
use super::types::VoterEndpoint;

/// Several elections.
const FIRST_WORD: Duration = Duration::from_secs(5);
const INTERVAL_MAX: Duration = Duration::from_mins(5);
/// Addresses that are remembered; more than any quorum has.
const ASKED_MAX: usize = 64;

/// Who was asked since there was a leader, and what came of it last. Bound: [`ASKED_MAX`].
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<BTreeMap<String, String>>);

impl Asked {
    pub(super) fn note(&self, at: &VoterEndpoint, outcome: impl Into<String>) {
        let mut asked = lock(&self.0);
        let at = format!("{}:{}", at.host, at.port);
        if asked.len() < ASKED_MAX || asked.contains_key(&at) {
            asked.insert(at, outcome.into());
        }
    }

    fn forget(&self) {
        lock(&self.0).clear();
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let asked = lock(&self.0);
        let asked = asked.iter().map(|(at, outcome)| {
            if outcome.contains(at) {
                return outcome.clone();
            }
            format!("{at}: {outcome}")
        });
        let asked: Vec<String> = asked.collect();
        if asked.is_empty() {
            return "nobody".to_owned();
        }
        asked.join("; ")
    }
}

/// Speaks until `stop`, or until nobody tells of leaders any more.
pub(super) async fn run(
    mut leader: watch::Receiver<LeaderAndEpoch>,
    asked: Arc<Asked>,
    stop: CancellationToken,
) {
    stop.run_until_cancelled(tell(&mut leader, &asked)).await;
}

async fn tell(leader: &mut watch::Receiver<LeaderAndEpoch>, asked: &Asked) {
    while leader.wait_for(|it| it.leader_id.is_none()).await.is_ok() {
        asked.forget();
        let since = Instant::now();
        let mut silence = FIRST_WORD;
        let found = loop {
            let found = leader.wait_for(|it| it.leader_id.is_some());
            match timeout_at(since + silence, found).await {
                Ok(Ok(found)) => break *found,
                Ok(Err(_)) => return,
                Err(_) => {}
            }
            warn!(
                elapsed_s = silence.as_secs(),
                asked = asked.text(),
                "no leader of the metadata quorum is found, looking on: a majority of its voters has to run and to be reached, \
                 see controller.quorum.voters or controller.quorum.bootstrap.servers"
            );
            silence = next_word(silence);
        };
        if silence > FIRST_WORD {
            let elapsed_s = since.elapsed().as_secs();
            info!(elapsed_s, leader_id = ?found.leader_id, "a leader of the metadata quorum is found");
        }
    }
}

/// Of what length of silence is told next.
fn next_word(silence: Duration) -> Duration {
    silence + silence.min(INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_rare_and_do_not_end() {
        let mut silence = FIRST_WORD;
        let words = std::iter::repeat_with(|| {
            let told = silence.as_secs();
            silence = next_word(silence);
            told
        });
        let words: Vec<u64> = words.take(9).collect();
        assert_eq!(words, [5, 10, 20, 40, 80, 160, 320, 620, 920]);
    }

    #[test]
    fn each_address_is_told_once_with_what_came_of_it_last() {
        let asked = Asked::default();
        assert_eq!(asked.text(), "nobody");
        let at = |port| VoterEndpoint {
            host: "a".into(),
            port,
            ..VoterEndpoint::default()
        };
        asked.note(&at(1), "a:1 cannot be reached");
        asked.note(&at(2), "it answers");
        asked.note(&at(2), "it is of another cluster");
        assert_eq!(
            asked.text(),
            "a:1 cannot be reached; a:2: it is of another cluster"
        );
        for port in 3..1_000 {
            asked.note(&at(port), "");
        }
        assert_eq!(lock(&asked.0).len(), ASKED_MAX);
        asked.forget();
        assert_eq!(asked.text(), "nobody");
    }
}
