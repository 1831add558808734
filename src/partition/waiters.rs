//! Who waits on a partition: fetches for bytes, acks=all and coordinators for the high watermark. An append
//! wakes exactly those it serves; nothing polls (this replaces Kafka's purgatory).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::{Notify, oneshot, watch};

use crate::protocol::Error;
use crate::types::Offset;

/// A fetch that waits for `fetch.min.bytes` on any of its partitions.
#[derive(Debug)]
pub struct FetchWait {
    notify: Notify,
    missing_bytes: AtomicI64,
    fired: AtomicBool,
}

impl FetchWait {
    pub fn new(missing_bytes: i64) -> Arc<Self> {
        Arc::new(Self {
            notify: Notify::new(),
            missing_bytes: AtomicI64::new(missing_bytes),
            fired: AtomicBool::new(false),
        })
    }

    /// Resolves when enough was appended or a partition changed so that the fetch must look again.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }

    /// Whether a wake-up came already.
    pub fn has_fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// Counts appended bytes. `true` when the fetch needs no more.
    fn count(&self, bytes: i64) -> bool {
        let enough = self.missing_bytes.fetch_sub(bytes, Ordering::AcqRel) <= bytes;
        if enough {
            self.fire();
        }
        enough
    }

    fn fire(&self) {
        self.fired.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

/// Result of waiting for the high watermark.
pub type Committed = Result<(), Error>;

/// For somebody who comes too late to be told.
pub fn refused(error: Error) -> oneshot::Receiver<Committed> {
    let (sender, receiver) = oneshot::channel();
    let _ = sender.send(Err(error));
    receiver
}

/// Waiters of one partition, owned by its lock.
#[derive(Debug, Default)]
pub struct Waiters {
    /// Dead entries (fetches that timed out) are dropped when the list would grow.
    fetches: Vec<Weak<FetchWait>>,
    /// Fetches of followers, which wait for the log end and not for the high watermark.
    followers: Vec<Weak<FetchWait>>,
    /// By the offset that the high watermark must reach.
    commits: Waiting,
    /// By the offset below which everything must be durable.
    syncs: Waiting,
    watch: Option<watch::Sender<Offset>>,
    /// DeleteRecords requests that wait for followers to delete, too. Dropped when there is something to look at.
    low_watermark: Vec<oneshot::Sender<()>>,
}

impl Waiters {
    /// Resolves, with an error as it is no value, when the low watermark may have moved.
    pub fn wait_low_watermark(&mut self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.low_watermark.retain(|sender| !sender.is_closed());
        self.low_watermark.push(sender);
        receiver
    }

    pub fn low_watermark_moved(&mut self) {
        self.low_watermark.clear();
    }

    pub fn park_fetch(&mut self, wait: &Arc<FetchWait>) {
        park(&mut self.fetches, wait);
    }

    pub fn park_follower(&mut self, wait: &Arc<FetchWait>) {
        park(&mut self.followers, wait);
    }

    /// The log grew by `bytes`.
    pub fn appended(&mut self, bytes: i64) {
        count(&mut self.followers, bytes);
    }

    pub fn wait_for(&mut self, offset: Offset) -> oneshot::Receiver<Committed> {
        wait(&mut self.commits, offset)
    }

    pub fn wait_durable(&mut self, offset: Offset) -> oneshot::Receiver<Committed> {
        wait(&mut self.syncs, offset)
    }

    /// Everything below `offset` is durable.
    pub fn durable(&mut self, offset: Offset) {
        resolve(&mut self.syncs, offset);
    }

    pub fn watch(&mut self, high_watermark: Offset) -> watch::Receiver<Offset> {
        self.watch
            .get_or_insert_with(|| watch::channel(high_watermark).0)
            .subscribe()
    }

    /// The high watermark moved to `high_watermark`; `bytes` became visible to consumers. Appends below it are committed: it
    /// never moves while the ISR is below the minimum.
    pub fn advance(&mut self, high_watermark: Offset, bytes: i64) {
        count(&mut self.fetches, bytes);
        resolve(&mut self.commits, high_watermark);
        if let Some(watch) = &self.watch {
            watch.send_replace(high_watermark);
        }
    }

    /// The partition is no longer led here: everybody looks again, nothing pending will be committed.
    pub fn fail(&mut self, error: &Error) {
        let fetches = self.fetches.drain(..).chain(self.followers.drain(..));
        for wait in fetches.filter_map(|wait| wait.upgrade()) {
            wait.fire();
        }
        for waiting in [&mut self.commits, &mut self.syncs] {
            for sender in std::mem::take(waiting).into_values().flatten() {
                let _ = sender.send(Err(error.clone()));
            }
        }
        self.watch = None;
        self.low_watermark_moved();
    }
}

type Waiting = BTreeMap<Offset, Vec<oneshot::Sender<Committed>>>;

fn wait(waiting: &mut Waiting, offset: Offset) -> oneshot::Receiver<Committed> {
    let (sender, receiver) = oneshot::channel();
    let same = waiting.entry(offset).or_default();
    same.retain(|sender| !sender.is_closed());
    same.push(sender);
    receiver
}

/// Tells everybody who waits for `reached` or less.
fn resolve(waiting: &mut Waiting, reached: Offset) {
    while let Some(first) = waiting.first_entry()
        && *first.key() <= reached
    {
        for sender in first.remove() {
            // The producer may have timed out or left: nobody to tell.
            let _ = sender.send(Ok(()));
        }
    }
}

fn park(fetches: &mut Vec<Weak<FetchWait>>, wait: &Arc<FetchWait>) {
    if fetches.len() == fetches.capacity() {
        fetches.retain(|wait| wait.strong_count() > 0);
    }
    fetches.push(Arc::downgrade(wait));
}

/// Wakes and drops those that need no more.
fn count(fetches: &mut Vec<Weak<FetchWait>>, bytes: i64) {
    if !fetches.is_empty() {
        fetches.retain(|wait| wait.upgrade().is_some_and(|wait| !wait.count(bytes)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ErrorCode;

    #[test]
    fn append_wakes_a_fetch_once_its_bytes_are_there() {
        let mut waiters = Waiters::default();
        let wait = FetchWait::new(100);
        waiters.park_fetch(&wait);
        waiters.advance(1, 60);
        assert!(!wait.has_fired());
        waiters.advance(2, 40);
        assert!(wait.has_fired());
        assert!(waiters.fetches.is_empty());
    }

    #[test]
    fn timed_out_fetches_do_not_pile_up() {
        let mut waiters = Waiters::default();
        for _ in 0..10_000 {
            waiters.park_fetch(&FetchWait::new(1));
        }
        assert!(waiters.fetches.len() <= 8);
    }

    #[test]
    fn commits_resolve_in_offset_order_and_fail_on_resignation() {
        let mut waiters = Waiters::default();
        let (mut early, mut late) = (waiters.wait_for(5), waiters.wait_for(9));
        waiters.advance(5, 1);
        assert_eq!(early.try_recv(), Ok(Ok(())));
        assert!(late.try_recv().is_err());
        waiters.fail(&ErrorCode::NotLeaderOrFollower.into());
        assert_eq!(
            late.try_recv(),
            Ok(Err(ErrorCode::NotLeaderOrFollower.into()))
        );
    }
}
