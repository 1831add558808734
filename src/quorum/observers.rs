//! How far the observers of the metadata log are, as their fetches tell the leader (`LeaderState.observerStates`).

use std::collections::BTreeMap;

use super::ReplicaState;
use crate::types::{BrokerId, LeaderEpoch, Offset, TimestampMs, Uuid};

/// Who has not fetched for so long is no observer any more (`LeaderState.OBSERVER_SESSION_TIMEOUT_MS`).
const SESSION_TIMEOUT_MS: i64 = 300_000;
/// Observers that are remembered; the one that was silent longest makes place.
const OBSERVERS_MAX: usize = 1024;

/// Who fetches: node id and metadata log directory.
pub(super) type ReplicaKey = (BrokerId, Uuid);

/// Soft state of a leader; begins anew in each epoch.
#[derive(Debug, Default)]
pub(super) struct Observers {
    epoch: LeaderEpoch,
    by_key: BTreeMap<ReplicaKey, Observer>,
}

#[derive(Debug)]
struct Observer {
    log_end_offset: Offset,
    last_fetch_ms: TimestampMs,
    last_caught_up_ms: TimestampMs,
    /// Where the leader's log ended at the last fetch.
    leader_end_offset: Offset,
}

impl Observers {
    /// Notes a fetch at `fetch_offset`, while the leader's log ends at `leader_end_offset`.
    pub(super) fn note_fetch(
        &mut self,
        epoch: LeaderEpoch,
        key: ReplicaKey,
        fetch_offset: Offset,
        leader_end_offset: Offset,
        now_ms: TimestampMs,
    ) {
        self.expire(epoch, now_ms);
        if self.by_key.len() >= OBSERVERS_MAX && !self.by_key.contains_key(&key) {
            let silent = self.by_key.iter().min_by_key(|(_, it)| it.last_fetch_ms);
            if let Some(key) = silent.map(|(key, _)| *key) {
                self.by_key.remove(&key);
            }
        }
        let observer = self.by_key.entry(key).or_insert(Observer {
            log_end_offset: fetch_offset,
            last_fetch_ms: -1,
            last_caught_up_ms: -1,
            leader_end_offset: Offset::MAX,
        });
        if fetch_offset >= leader_end_offset {
            observer.last_caught_up_ms = now_ms;
        } else if fetch_offset >= observer.leader_end_offset {
            observer.last_caught_up_ms = observer.last_caught_up_ms.max(observer.last_fetch_ms);
        }
        observer.log_end_offset = fetch_offset;
        observer.last_fetch_ms = now_ms;
        observer.leader_end_offset = leader_end_offset;
    }

    /// Those of this epoch that still fetch.
    pub(super) fn states(&mut self, epoch: LeaderEpoch, now_ms: TimestampMs) -> Vec<ReplicaState> {
        self.expire(epoch, now_ms);
        let states = self.by_key.iter().map(|(key, it)| ReplicaState {
            replica_id: key.0,
            replica_directory_id: key.1,
            log_end_offset: it.log_end_offset,
            last_fetch_timestamp_ms: it.last_fetch_ms,
            last_caught_up_timestamp_ms: it.last_caught_up_ms,
        });
        states.collect()
    }

    fn expire(&mut self, epoch: LeaderEpoch, now_ms: TimestampMs) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.by_key.clear();
        }
        self.by_key
            .retain(|_, it| now_ms - it.last_fetch_ms < SESSION_TIMEOUT_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caught_up(observers: &mut Observers, now_ms: TimestampMs) -> Vec<(BrokerId, Offset, i64)> {
        let states = observers.states(1, now_ms).into_iter();
        let shown = states.map(|it| {
            (
                it.replica_id,
                it.log_end_offset,
                it.last_caught_up_timestamp_ms,
            )
        });
        shown.collect()
    }

    #[test]
    fn an_observer_is_caught_up_as_of_the_fetch_whose_end_it_reached() {
        let mut observers = Observers::default();
        let key = (4, Uuid::from_u128(4));
        observers.note_fetch(1, key, 0, 10, 1_000);
        assert_eq!(caught_up(&mut observers, 1_000), [(4, 0, -1)]);
        // It has what the leader had at 1,000, but the leader went on.
        observers.note_fetch(1, key, 10, 12, 1_500);
        assert_eq!(caught_up(&mut observers, 1_500), [(4, 10, 1_000)]);
        observers.note_fetch(1, key, 12, 12, 1_600);
        assert_eq!(caught_up(&mut observers, 1_600), [(4, 12, 1_600)]);
    }

    #[test]
    fn observers_are_forgotten_in_silence_and_with_the_epoch() {
        let mut observers = Observers::default();
        observers.note_fetch(1, (4, Uuid::nil()), 5, 5, 0);
        observers.note_fetch(1, (5, Uuid::nil()), 5, 5, 200_000);
        assert_eq!(
            caught_up(&mut observers, SESSION_TIMEOUT_MS),
            [(5, 5, 200_000)]
        );
        assert!(observers.states(2, SESSION_TIMEOUT_MS).is_empty());
        for id in 0..2_000 {
            observers.note_fetch(2, (id, Uuid::nil()), 5, 5, i64::from(id));
        }
        assert_eq!(observers.states(2, 2_000).len(), OBSERVERS_MAX);
    }
}
