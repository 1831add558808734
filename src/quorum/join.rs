//! How a controller comes to a quorum that does not reach out to it: formatted with `--no-initial-controllers`, back with a new
//! directory, at a new address, or away for so long that the leader forgot it. It asks everybody it knows of to be an observer;
//! the leader then replicates to it, and it can be added as a voter. With `controller.quorum.auto.join.enable` it asks for that
//! too (KIP-1186).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;
use tracing::{info, warn};

use super::meta_log::Inner;
use super::network::{RaftRequest, RaftResponse};
use super::types::{VoterEndpoint, VoterNode, raft_id};

/// Rest between two rounds of asking.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a member waits for a leader before it asks: several elections.
const MEMBER_PATIENCE: Duration = Duration::from_secs(5);

/// As good as without an end, and no overflow.
const FOREVER: Duration = Duration::from_hours(24 * 365);

/// What a controller needs to come to its quorum.
#[derive(Clone, Debug, Default)]
pub struct Joining {
    /// `controller.quorum.bootstrap.servers`
    pub bootstrap_servers: Vec<VoterEndpoint>,
    /// `controller.quorum.auto.join.enable`: how long an observer rests before it asks to be a voter.
    pub auto_join: Option<Duration>,
}

/// Asks whenever no leader is heard of, or the leader does not know where this node listens. Static voters need not.
pub(super) async fn run(inner: Arc<Inner>, joining: Joining) {
    let own_id = raft_id(inner.own_id, inner.own.directory_id);
    if inner.store.own_id() != own_id {
        return;
    }
    let stop = inner.stop.clone();
    let asking = async {
        while let Ok(leader) = wait_until_needed(&inner, &joining).await {
            if leader == Some(own_id) {
                inner.admit(inner.own_id, inner.own.clone(), false).await;
            } else {
                let as_voter = leader.is_some() && joining.auto_join.is_some();
                ask_everybody(&inner, &joining, as_voter).await;
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    };
    stop.run_until_cancelled(asking).await;
}

/// Waits until there is something to ask; gives the leader, if one is known. While none is, who is no voter asks at once, a
/// voter after a while. Fails when raft has stopped.
async fn wait_until_needed(inner: &Inner, joining: &Joining) -> Result<Option<u64>, ()> {
    let mut metrics = inner.raft.server_metrics();
    let mut announced = inner.leader.subscribe();
    let mut wait = Wait::default();
    loop {
        // Raft takes the leader that it knew before a restart for the leader until there is another.
        let is_heard = announced.borrow_and_update().leader_id.is_some();
        let leader = metrics.borrow_watched().current_leader;
        let leader = leader.filter(|_| is_heard);
        let (members, _) = inner.members();
        let members = members.membership();
        let recorded = members.get_node(&inner.store.own_id());
        let is_voter = members.voter_ids().any(|id| id == inner.store.own_id());
        let patience = match leader {
            Some(_) if recorded == Some(&inner.own) => match joining.auto_join {
                Some(rest) if !is_voter => rest,
                _ => Duration::MAX,
            },
            // It may come to know of this node in a moment.
            Some(_) => ASK_INTERVAL,
            None if is_voter => MEMBER_PATIENCE,
            None => Duration::ZERO,
        };
        let until = wait.until(leader, patience, Instant::now());
        tokio::select! {
            changed = metrics.changed() => changed.map_err(|_| ())?,
            changed = announced.changed() => changed.map_err(|_| ())?,
            () = tokio::time::sleep_until(until) => return Ok(leader),
        }
    }
}

/// Since when there is something to wait out: elections that come to nothing do not begin it anew.
#[derive(Default)]
struct Wait {
    of: Option<((Option<u64>, Duration), Instant)>,
}

impl Wait {
    /// When the patience with that leader, or with having none, ends.
    fn until(&mut self, leader: Option<u64>, patience: Duration, now: Instant) -> Instant {
        let of = (leader, patience);
        let since = match self.of {
            Some((known, since)) if known == of => since,
            _ => self.of.insert((of, now)).1,
        };
        since + patience.min(FOREVER)
    }
}

async fn ask_everybody(inner: &Inner, joining: &Joining, as_voter: bool) {
    let (members, _) = inner.members();
    let nodes = members.membership().nodes();
    let others = nodes.filter(|(id, _)| **id != inner.store.own_id());
    let known = others.filter_map(|(_, node)| node.endpoints.first());
    let everybody = joining.bootstrap_servers.iter().chain(known);
    let own = inner.own.endpoints.first();
    let asked: BTreeSet<(&str, u16)> = everybody
        .map(|it| (it.host.as_str(), it.port))
        .filter(|at| own.is_none_or(|own| (own.host.as_str(), own.port) != *at))
        .collect();
    for (at, (host, port)) in (1..).zip(asked) {
        if ask(inner, at, (host, port), as_voter).await {
            info!(host, port, as_voter, "joined the metadata quorum");
            return;
        }
    }
    if as_voter {
        let asked = inner.asked.text();
        warn!(
            asked,
            "not let into the metadata quorum as a voter, asking again; its leader says why"
        );
    }
}

/// Asks at one address; whether the leader is there and has agreed.
async fn ask(inner: &Inner, at: u32, (host, port): (&str, u16), as_voter: bool) -> bool {
    let endpoint = VoterEndpoint {
        name: String::new(),
        host: host.to_owned(),
        port,
    };
    let there = VoterNode {
        // Of a nobody, so that the address counts; each has a connection of its own.
        directory_id: inner.own.directory_id,
        endpoints: vec![endpoint.clone()],
    };
    let request = RaftRequest::Join {
        node_id: inner.own_id,
        node: inner.own.clone(),
        as_voter,
    };
    let nobody = u64::MAX - u64::from(at);
    let outcome = match inner.transport.call(nobody, there, request).await {
        Ok(RaftResponse::Join(true)) => return true,
        Ok(_) => "it answers, but does not let this node in".to_owned(),
        Err(error) => error.reason,
    };
    inner.asked.note(&endpoint, outcome);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_counts_from_when_the_leader_was_lost() {
        let (start, seconds) = (Instant::now(), Duration::from_secs);
        let mut wait = Wait::default();
        let mut until = |leader, patience, at| {
            let ends = wait.until(leader, seconds(patience), start + seconds(at));
            (ends - start).as_secs()
        };
        assert_eq!(until(None, 5, 1), 6);
        assert_eq!(until(None, 5, 4), 6, "an election that failed");
        assert_eq!(until(Some(2), 5, 5), 10);
        assert_eq!(until(None, 5, 7), 12, "lost again");
        assert_eq!(until(None, 0, 8), 8, "it is no voter any more");
        assert!(wait.until(None, Duration::MAX, start) > start + seconds(1 << 20));
    }
}
