//! The fetching side of a fetch session (KIP-227): requests name only what changed since the last one. Pure; after Kafka's
//! `FetchSessionHandler`.

use std::collections::BTreeMap;

use crate::partition::FollowerPosition;
use crate::types::Uuid;

/// A partition of a session: topic id and index.
pub type SessionKey = (Uuid, i32);
/// Where each partition is to be fetched.
pub type Positions = BTreeMap<SessionKey, FollowerPosition>;

const FULL_EPOCH: i32 = 0;

/// One session with one leader.
#[derive(Debug, Default)]
pub struct FetchSession {
    /// 0 until the leader gave one.
    id: i32,
    /// Epoch of the next request; 0 asks for a new session.
    epoch: i32,
    /// What the leader remembers.
    sent: Positions,
}

/// What the next request says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRequest {
    pub id: i32,
    pub epoch: i32,
    pub changed: Vec<(SessionKey, FollowerPosition)>,
    pub forgotten: Vec<SessionKey>,
}

impl FetchSession {
    /// The request for `wanted`; from here on the leader is taken to know them.
    pub fn next(&mut self, wanted: Positions) -> SessionRequest {
        let is_full = self.epoch == FULL_EPOCH;
        let is_news = |key: &SessionKey, position: &FollowerPosition| {
            is_full || self.sent.get(key) != Some(position)
        };
        let changed = wanted
            .iter()
            .filter(|(key, position)| is_news(key, position));
        let changed = changed.map(|(key, position)| (*key, *position)).collect();
        let gone = self.sent.keys().filter(|key| !wanted.contains_key(key));
        let forgotten = if is_full {
            Vec::new()
        } else {
            gone.copied().collect()
        };
        self.sent = wanted;
        SessionRequest {
            id: self.id,
            epoch: self.epoch,
            changed,
            forgotten,
        }
    }

    /// Where the request that is answered asked for a partition.
    pub fn asked(&self, key: SessionKey) -> Option<&FollowerPosition> {
        self.sent.get(&key)
    }

    /// The leader answered under `id`; 0 when it has no room for a session.
    pub fn answered(&mut self, id: i32) {
        if id == 0 {
            self.reset();
            return;
        }
        self.id = id;
        self.epoch = if self.epoch == i32::MAX {
            1
        } else {
            self.epoch + 1
        };
    }

    /// The session is lost: the next request is a full one. A running session is closed by it.
    pub fn reset(&mut self) {
        self.epoch = FULL_EPOCH;
    }

    /// The leader does not know the session any more.
    pub fn forget(&mut self) {
        self.id = 0;
        self.epoch = FULL_EPOCH;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(fetch_offset: i64) -> FollowerPosition {
        FollowerPosition {
            leader: 1,
            leader_epoch: 3,
            fetch_offset,
            last_fetched_epoch: 3,
            log_start_offset: 0,
        }
    }

    fn positions(of: &[(i32, i64)]) -> Positions {
        let topic = Uuid::from_u128(9);
        let each = of
            .iter()
            .map(|(index, at)| ((topic, *index), position(*at)));
        each.collect()
    }

    fn indexes(request: &SessionRequest) -> (Vec<i32>, Vec<i32>) {
        let changed = request.changed.iter().map(|((_, index), _)| *index);
        let forgotten = request.forgotten.iter().map(|(_, index)| *index);
        (changed.collect(), forgotten.collect())
    }

    /// Rule: fetch-session
    #[test]
    fn requests_of_a_session_name_what_changed() {
        let mut session = FetchSession::default();
        let full = session.next(positions(&[(0, 5), (1, 7)]));
        assert_eq!((full.id, full.epoch), (0, 0));
        assert_eq!(indexes(&full), (vec![0, 1], vec![]));
        session.answered(42);
        let next = session.next(positions(&[(0, 6), (1, 7)]));
        assert_eq!((next.id, next.epoch), (42, 1));
        assert_eq!(indexes(&next), (vec![0], vec![]));
        session.answered(42);
        let next = session.next(positions(&[(0, 6), (2, 0)]));
        assert_eq!(next.epoch, 2);
        assert_eq!(indexes(&next), (vec![2], vec![1]));
    }

    /// Rule: fetch-session
    #[test]
    fn lost_session_begins_anew_with_everything() {
        let mut session = FetchSession::default();
        session.next(positions(&[(0, 5)]));
        session.answered(42);
        session.next(positions(&[(0, 5)]));
        session.reset();
        let full = session.next(positions(&[(0, 5)]));
        assert_eq!((full.id, full.epoch), (42, 0), "closes the old one");
        assert_eq!(indexes(&full), (vec![0], vec![]));
        session.forget();
        assert_eq!(session.next(positions(&[(0, 5)])).id, 0);
    }

    #[test]
    fn leader_without_room_gets_full_requests() {
        let mut session = FetchSession::default();
        session.next(positions(&[(0, 5)]));
        session.answered(0);
        let full = session.next(positions(&[(0, 5)]));
        assert_eq!(full.epoch, 0);
        assert_eq!(indexes(&full), (vec![0], vec![]));
    }

    #[test]
    fn epochs_wrap_to_one() {
        let mut session = FetchSession {
            id: 4,
            epoch: i32::MAX,
            sent: Positions::new(),
        };
        session.answered(4);
        assert_eq!(session.next(Positions::new()).epoch, 1);
    }
}
