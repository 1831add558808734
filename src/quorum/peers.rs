//! Connections to other controllers, one a key. Their number is bounded: replicas with lost disks and nodes that moved never come
//! back under their old key, so the one that was not asked for longest makes place for a new one.

use std::collections::BTreeMap;

use super::types::VoterEndpoint;
use crate::rpc::Peer;

/// More than the members of any quorum and their lanes.
const PEERS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Peers<K> {
    by_key: BTreeMap<K, Known>,
    /// Counts the calls of [`Peers::of`].
    asked: u64,
}

#[derive(Debug)]
struct Known {
    endpoint: VoterEndpoint,
    peer: Peer,
    last_asked: u64,
}

impl<K> Default for Peers<K> {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            asked: 0,
        }
    }
}

impl<K: Ord + Clone> Peers<K> {
    /// The connection of `key`; a new one if there is none, or one to another address.
    pub(super) fn of(
        &mut self,
        key: K,
        endpoint: &VoterEndpoint,
        connect: impl FnOnce() -> Peer,
    ) -> Peer {
        self.asked += 1;
        let known = self.by_key.get_mut(&key);
        if let Some(known) = known.filter(|it| it.endpoint == *endpoint) {
            known.last_asked = self.asked;
            return known.peer.clone();
        }
        let peer = connect();
        let known = Known {
            endpoint: endpoint.clone(),
            peer: peer.clone(),
            last_asked: self.asked,
        };
        self.by_key.insert(key, known);
        if self.by_key.len() > PEERS_MAX {
            let idle = self.by_key.iter().min_by_key(|(_, it)| it.last_asked);
            if let Some(key) = idle.map(|(key, _)| key.clone()) {
                self.by_key.remove(&key);
            }
        }
        peer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Settings;

    #[tokio::test]
    async fn one_that_moved_is_replaced_and_the_idle_make_place() {
        let mut peers = Peers::default();
        let mut made = Vec::new();
        let mut ask = |key: u16, port: u16| {
            let endpoint = VoterEndpoint {
                port,
                ..VoterEndpoint::default()
            };
            peers.of(key, &endpoint, || {
                made.push((key, port));
                Peer::new("localhost", port, Settings::default())
            });
            peers.by_key.len()
        };
        let max = PEERS_MAX as u16;
        for key in 0..max {
            ask(key, key);
        }
        assert_eq!(ask(0, 0), PEERS_MAX);
        assert_eq!(ask(1, 7_000), PEERS_MAX);
        // 2 was asked longest ago, then 3.
        assert_eq!(ask(max, max), PEERS_MAX);
        for key in [0, 1, 3] {
            ask(key, if key == 1 { 7_000 } else { key });
        }
        assert_eq!(ask(2, 2), PEERS_MAX);
        let again = made.split_off(PEERS_MAX);
        assert_eq!(again, [(1, 7_000), (max, max), (2, 2)]);
    }
}
