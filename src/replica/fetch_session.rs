//! Incremental fetch sessions (KIP-227): the broker remembers which partitions a fetcher wants, so that requests
//! name only changes and responses only news. Pure; [`SessionCache`] is the shell's one shared instance.

use std::sync::{Arc, Mutex};

use indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;

use crate::protocol::ErrorCode;
use crate::types::{LeaderEpoch, Offset, Uuid};

/// Session epoch of a request that asks for a new session.
pub const INITIAL_EPOCH: i32 = 0;
/// Session epoch of a request outside any session.
pub const FINAL_EPOCH: i32 = -1;
/// A session that was used this recently is not evicted for another one (Kafka's `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`).
const EVICTION_MIN_MS: i64 = 120_000;

/// A topic as the fetcher names it: by id from Fetch v13 on, by name before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef {
    Name(StrBytes),
    Id(Uuid),
}

/// Key of a partition in a session.
pub type PartitionKey = (TopicRef, i32);

/// What a fetcher wants of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub fetch_offset: Offset,
    pub current_leader_epoch: LeaderEpoch,
    pub last_fetched_epoch: LeaderEpoch,
    /// Where a follower's log starts; -1 from consumers.
    pub log_start_offset: Offset,
    pub size_bytes_max: i32,
    /// The session has served the partition before, so it knows the name behind a topic id.
    pub was_served: bool,
}

/// What the fetcher was last told about a partition; only a difference makes an empty answer worth sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    high_watermark: Offset,
    log_start_offset: Offset,
}

/// One fetcher's session.
#[derive(Debug)]
pub struct Session {
    pub id: i32,
    /// Epoch that the next request must carry.
    next_epoch: i32,
    uses_topic_ids: bool,
    last_used_ms: i64,
    /// In the order of service: partitions that got data go to the end.
    partitions: IndexMap<PartitionKey, (Wanted, Option<Told>)>,
}

/// How a Fetch request relates to sessions.
#[derive(Debug)]
pub enum FetchContext {
    /// No session; all asked partitions are answered.
    Sessionless { wanted: Vec<(PartitionKey, Wanted)> },
    /// A new session, full answer.
    Full {
        session: Arc<Mutex<Session>>,
        id: i32,
        wanted: Vec<(PartitionKey, Wanted)>,
    },
    /// A running session: only news are answered.
    Incremental {
        session: Arc<Mutex<Session>>,
        id: i32,
        wanted: Vec<(PartitionKey, Wanted)>,
    },
}

impl FetchContext {
    pub fn wanted(&self) -> &[(PartitionKey, Wanted)] {
        match self {
            Self::Sessionless { wanted }
            | Self::Full { wanted, .. }
            | Self::Incremental { wanted, .. } => wanted,
        }
    }

    /// The id for the response; 0 outside sessions.
    pub fn session_id(&self) -> i32 {
        match self {
            Self::Sessionless { .. } => 0,
            Self::Full { id, .. } | Self::Incremental { id, .. } => *id,
        }
    }

    /// Whether a partition's answer must be sent, and notes that it was.
    ///
    /// An error is sent again every time, so the offsets of a failed partition are forgotten.
    pub fn must_answer(
        &self,
        key: &PartitionKey,
        failed: bool,
        size_bytes: usize,
        high_watermark: Offset,
        log_start_offset: Offset,
    ) -> bool {
        let (session, incremental) = match self {
            Self::Sessionless { .. } => return true,
            Self::Full { session, .. } => (session, false),
            Self::Incremental { session, .. } => (session, true),
        };
        let mut session = session
            .lock()
            .expect("session lock is never poisoned: no panics inside");
        let Some(index) = session.partitions.get_index_of(key) else {
            return true;
        };
        let told = (!failed).then_some(Told {
            high_watermark,
            log_start_offset,
        });
        let (_, (wanted, last_told)) = session
            .partitions
            .get_index_mut(index)
            .expect("index was just found");
        let news = failed || size_bytes > 0 || *last_told != told;
        *last_told = told;
        wanted.was_served |= !failed;
        if incremental && size_bytes > 0 {
            // Served partitions wait behind those that are not, so none starves under a small fetch.max.bytes.
            let last = session.partitions.len() - 1;
            session.partitions.move_index(index, last);
        }
        news || !incremental
    }
}

/// All sessions of a broker. Bounded by `max.incremental.fetch.session.cache.slots`.
#[derive(Debug)]
pub struct SessionCache {
    slots_max: usize,
    sessions: Mutex<IndexMap<i32, Arc<Mutex<Session>>>>,
}

impl SessionCache {
    pub fn new(slots_max: usize) -> Self {
        Self {
            slots_max,
            sessions: Mutex::new(IndexMap::new()),
        }
    }

    /// Number of sessions.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Turns a request into the partitions to read. `random_id` supplies candidates for a new session's id.
    #[allow(clippy::too_many_arguments, reason = "the fields of one request")]
    pub fn context(
        &self,
        session_id: i32,
        session_epoch: i32,
        uses_topic_ids: bool,
        wanted: Vec<(PartitionKey, Wanted)>,
        forgotten: &[PartitionKey],
        now_ms: i64,
        random_id: impl FnMut() -> i32,
    ) -> Result<FetchContext, ErrorCode> {
        match session_epoch {
            FINAL_EPOCH | INITIAL_EPOCH => {
                if session_id != 0 {
                    self.lock().swap_remove(&session_id);
                }
                if session_epoch == FINAL_EPOCH {
                    return Ok(FetchContext::Sessionless { wanted });
                }
                Ok(self.open(uses_topic_ids, wanted, now_ms, random_id))
            }
            _ => self.resume(
                session_id,
                session_epoch,
                uses_topic_ids,
                wanted,
                forgotten,
                now_ms,
            ),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, IndexMap<i32, Arc<Mutex<Session>>>> {
        self.sessions
            .lock()
            .expect("session cache lock is never poisoned: no panics inside")
    }

    fn open(
        &self,
        uses_topic_ids: bool,
        wanted: Vec<(PartitionKey, Wanted)>,
        now_ms: i64,
        mut random_id: impl FnMut() -> i32,
    ) -> FetchContext {
        let mut sessions = self.lock();
        if sessions.len() >= self.slots_max && !evict_one(&mut sessions, now_ms) {
            return FetchContext::Sessionless { wanted };
        }
        let id = loop {
            let id = random_id() & i32::MAX;
            if id != 0 && !sessions.contains_key(&id) {
                break id;
            }
        };
        let partitions = wanted
            .iter()
            .map(|(key, wanted)| (key.clone(), (wanted.clone(), None)))
            .collect();
        let session = Arc::new(Mutex::new(Session {
            id,
            next_epoch: 1,
            uses_topic_ids,
            last_used_ms: now_ms,
            partitions,
        }));
        sessions.insert(id, Arc::clone(&session));
        FetchContext::Full {
            session,
            id,
            wanted,
        }
    }

    fn resume(
        &self,
        id: i32,
        epoch: i32,
        uses_topic_ids: bool,
        wanted: Vec<(PartitionKey, Wanted)>,
        forgotten: &[PartitionKey],
        now_ms: i64,
    ) -> Result<FetchContext, ErrorCode> {
        let shared = self
            .lock()
            .get(&id)
            .cloned()
            .ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let mut session = shared
            .lock()
            .expect("session lock is never poisoned: no panics inside");
        if session.next_epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != uses_topic_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.next_epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.last_used_ms = now_ms;
        for key in forgotten {
            session.partitions.shift_remove(key);
        }
        for (key, wanted) in wanted {
            match session.partitions.get_mut(&key) {
                Some((known, _)) => {
                    let was_served = known.was_served;
                    *known = Wanted {
                        was_served,
                        ..wanted
                    };
                }
                None => {
                    session.partitions.insert(key, (wanted, None));
                }
            }
        }
        let wanted: Vec<_> = session
            .partitions
            .iter()
            .map(|(key, (wanted, _))| (key.clone(), wanted.clone()))
            .collect();
        drop(session);
        if wanted.is_empty() {
            self.lock().swap_remove(&id);
            return Ok(FetchContext::Sessionless { wanted });
        }
        Ok(FetchContext::Incremental {
            session: shared,
            id,
            wanted,
        })
    }
}

/// Makes room by dropping the session that was idle longest, if it was idle long enough.
fn evict_one(sessions: &mut IndexMap<i32, Arc<Mutex<Session>>>, now_ms: i64) -> bool {
    let last_used = |session: &Arc<Mutex<Session>>| {
        session
            .lock()
            .expect("session lock is never poisoned: no panics inside")
            .last_used_ms
    };
    let oldest = sessions
        .iter()
        .map(|(id, session)| (last_used(session), *id))
        .min();
    match oldest {
        Some((used_ms, id)) if now_ms - used_ms > EVICTION_MIN_MS => {
            sessions.swap_remove(&id);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> PartitionKey {
        (TopicRef::Name(StrBytes::from_static_str("t")), partition)
    }

    fn wanted(fetch_offset: Offset) -> Wanted {
        Wanted {
            fetch_offset,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            size_bytes_max: 1,
            was_served: false,
        }
    }

    fn served(fetch_offset: Offset) -> Wanted {
        Wanted {
            was_served: true,
            ..wanted(fetch_offset)
        }
    }

    fn open(cache: &SessionCache, id: i32, now_ms: i64) -> FetchContext {
        let all = vec![(key(0), wanted(0)), (key(1), wanted(0))];
        cache
            .context(0, INITIAL_EPOCH, false, all, &[], now_ms, || id)
            .unwrap()
    }

    #[test]
    fn a_partition_that_was_served_is_remembered_through_changes_and_errors() {
        let cache = SessionCache::new(10);
        let full = open(&cache, 7, 0);
        full.must_answer(&key(0), false, 0, 5, 0);
        full.must_answer(&key(1), true, 0, -1, -1);
        let resume = |epoch, changed| {
            let resumed = cache.context(7, epoch, false, changed, &[], 0, || 1);
            resumed.expect("epochs in order")
        };
        let served = |context: &FetchContext| -> Vec<bool> {
            let wanted = context.wanted().iter();
            wanted.map(|(_, wanted)| wanted.was_served).collect()
        };
        let second = resume(1, vec![(key(0), wanted(3))]);
        assert_eq!(served(&second), [true, false]);
        second.must_answer(&key(0), true, 0, -1, -1);
        assert_eq!(served(&resume(2, Vec::new())), [true, false]);
    }

    /// Rule: fetch-session
    #[test]
    fn incremental_answers_only_news_and_rotates_served_partitions() {
        let cache = SessionCache::new(10);
        let full = open(&cache, 7, 0);
        assert!(
            full.must_answer(&key(0), false, 0, 5, 0) && full.must_answer(&key(1), false, 0, 5, 0)
        );
        let next = cache
            .context(7, 1, false, vec![(key(0), wanted(5))], &[], 1, || 1)
            .unwrap();
        assert_eq!(next.wanted()[0], (key(0), served(5)));
        assert!(next.must_answer(&key(0), false, 10, 6, 0), "data is news");
        assert!(
            !next.must_answer(&key(1), false, 0, 5, 0),
            "nothing changed"
        );
        let third = cache
            .context(7, 2, false, vec![], &[key(1)], 2, || 1)
            .unwrap();
        assert_eq!(third.wanted(), &[(key(0), served(5))]);
        assert!(
            third.must_answer(&key(0), true, 0, 6, 0),
            "errors are always news"
        );
    }

    #[test]
    fn wrong_ids_epochs_and_naming_are_refused() {
        let cache = SessionCache::new(10);
        open(&cache, 7, 0);
        let refused = |id, epoch, ids| {
            cache
                .context(id, epoch, ids, vec![], &[], 0, || 1)
                .unwrap_err()
        };
        assert_eq!(refused(8, 1, false), ErrorCode::FetchSessionIdNotFound);
        assert_eq!(refused(7, 2, false), ErrorCode::InvalidFetchSessionEpoch);
        assert_eq!(refused(7, 1, true), ErrorCode::FetchSessionTopicIdError);
    }

    #[test]
    fn cache_is_bounded_and_evicts_only_the_idle() {
        let cache = SessionCache::new(1);
        assert_eq!(open(&cache, 1, 0).session_id(), 1);
        assert_eq!(open(&cache, 2, EVICTION_MIN_MS).session_id(), 0);
        assert_eq!(open(&cache, 3, EVICTION_MIN_MS + 1).session_id(), 3);
        assert_eq!(cache.count(), 1);
    }
}
