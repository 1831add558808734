//! Timers, and the event loops over a log in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::test_log::TestLog;
use super::*;
use crate::clock::Clock;
use crate::protocol::batch::CompressionType;
use crate::protocol::error::ErrorCode;
use crate::types::ProducerId;

#[test]
fn timers_fire_in_order_and_can_be_pushed_back() {
    let mut timers = Timers::default();
    timers.schedule("a", 10);
    timers.schedule("b", 20);
    timers.schedule("a", 30);
    assert_eq!(timers.next_deadline_ms(), Some(10), "early, never late");
    assert_eq!(timers.pop_due(10), None);
    assert_eq!(timers.next_deadline_ms(), Some(20));
    timers.schedule("b", 5);
    assert_eq!(timers.pop_due(5), Some("b"));
    assert_eq!(timers.pop_due(29), None);
    timers.cancel(&"a");
    assert_eq!(
        (timers.pop_due(99), timers.next_deadline_ms()),
        (None, None)
    );
}

/// Counters by name, kept in the log.
#[derive(Debug, Default)]
struct Counters(BTreeMap<Bytes, u8>);

/// The value that a counter had.
struct Previous(Bytes, Option<u8>);

impl HardState for Counters {
    type Record = (Bytes, u8);
    type Undo = Previous;

    fn encode((key, value): &Self::Record) -> EncodedRecord {
        EncodedRecord {
            key: key.clone(),
            value: Some(Bytes::copy_from_slice(&[*value])),
        }
    }

    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Self::Record>, Error> {
        Ok(value.map(|value| (key, value[0])))
    }

    fn replay(&mut self, _: RecordOrigin, (key, value): Self::Record, undo: &mut Vec<Previous>) {
        undo.push(Previous(key.clone(), self.0.insert(key, value)));
    }

    fn end_transaction(&mut self, _: ProducerId, _: bool, _: &mut Vec<Previous>) {}

    fn revert(&mut self, Previous(key, value): Previous) {
        match value {
            Some(value) => self.0.insert(key, value),
            None => self.0.remove(&key),
        };
    }
}

struct Counting;

type Answer = oneshot::Sender<Result<u8, Error>>;

/// Counts one up; `b"panic"` panics.
struct Increment(Bytes, Answer);

impl Shard for Counting {
    type Hard = Counters;
    type Operation = Increment;
    type Completion = (Answer, u8);

    fn handle(
        &mut self,
        hard: &HardView<'_, Self>,
        _: Now,
        op: Increment,
        effects: &mut Effects<Self>,
    ) {
        let Increment(key, reply) = op;
        assert_ne!(&*key, b"panic", "as asked for");
        let next = hard.state.0.get(&key).copied().unwrap_or(0) + 1;
        effects.append((key, next));
        effects.when_committed((reply, next));
    }

    fn on_timer(&mut self, _: &HardView<'_, Self>, _: Now, _: &mut Effects<Self>) {}

    fn on_completed(
        &mut self,
        _: &HardView<'_, Self>,
        _: Now,
        (reply, value): (Answer, u8),
        result: Result<(), Error>,
        _: &mut Effects<Self>,
    ) {
        let _ = reply.send(result.map(|()| value));
    }

    fn on_loaded(&mut self, _: &HardView<'_, Self>, _: Now, _: &mut Effects<Self>) {}

    fn on_unloaded(&mut self, _: Error) {}

    fn next_deadline_ms(&self) -> Option<i64> {
        None
    }

    fn reject(Increment(_, reply): Increment, error: Error) {
        let _ = reply.send(Err(error));
    }
}

/// Less than two batches of an increment.
const LOAD_BYTES: usize = 100;

fn runtime(log: &Arc<TestLog>) -> Arc<Runtime<Counting>> {
    let config = RuntimeConfig {
        write_timeout_ms: 60_000,
        compression: CompressionType::Lz4,
        load_bytes: LOAD_BYTES,
    };
    Runtime::new("topic", config, log.clone(), Clock::system(), |_| Counting)
}

async fn increment(runtime: &Runtime<Counting>, key: &'static str) -> Result<u8, ErrorCode> {
    loop {
        let (reply, answer) = oneshot::channel();
        runtime
            .submit(0, Increment(Bytes::from_static(key.as_bytes()), reply))
            .await;
        match answer
            .await
            .unwrap_or_else(|_| Err(ErrorCode::NotCoordinator.into()))
        {
            Err(Error {
                code: ErrorCode::CoordinatorLoadInProgress,
                ..
            }) => {
                tokio::task::yield_now().await;
            }
            result => return result.map_err(|error| error.code),
        }
    }
}

/// Rule: coordinators
#[tokio::test]
async fn partition_is_served_while_it_is_led_and_loaded_when_it_comes_back() {
    let log = Arc::new(TestLog::new());
    let runtime = runtime(&log);
    assert_eq!(
        increment(&runtime, "a").await,
        Err(ErrorCode::NotCoordinator)
    );
    runtime.on_elected(0, 1);
    assert_eq!(increment(&runtime, "a").await, Ok(1));
    assert_eq!(increment(&runtime, "a").await, Ok(2));
    runtime.on_resigned(0, Some(0));
    assert_eq!(
        increment(&runtime, "a").await,
        Ok(3),
        "an old resignation changes nothing"
    );
    runtime.on_resigned(0, Some(1));
    assert_eq!(
        increment(&runtime, "a").await,
        Err(ErrorCode::NotCoordinator)
    );
    runtime.on_elected(0, 2);
    assert_eq!(increment(&runtime, "a").await, Ok(4));
    assert_eq!(log.reads(), [LOAD_BYTES; 3], "a batch at a time");
    runtime.shutdown();
    assert_eq!(
        increment(&runtime, "a").await,
        Err(ErrorCode::NotCoordinator)
    );
}

/// Rule: coordinators
#[tokio::test]
async fn reply_waits_for_the_high_watermark_and_fails_when_the_partition_moves() {
    let log = Arc::new(TestLog::new());
    let runtime = runtime(&log);
    runtime.on_elected(0, 1);
    assert_eq!(increment(&runtime, "a").await, Ok(1));
    log.hold(true);
    let waiting = {
        let runtime = runtime.clone();
        tokio::spawn(async move { increment(&runtime, "a").await })
    };
    while log.next_offset() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    log.hold(false);
    assert_eq!(waiting.await.expect("finished"), Ok(2));
    log.hold(true);
    let waiting = {
        let runtime = runtime.clone();
        tokio::spawn(async move { increment(&runtime, "a").await })
    };
    while log.next_offset() < 3 {
        tokio::task::yield_now().await;
    }
    runtime.on_resigned(0, None);
    assert_eq!(
        waiting.await.expect("finished"),
        Err(ErrorCode::NotCoordinator)
    );
}

#[tokio::test]
async fn foreign_writes_and_panics_make_it_load_again() {
    let log = Arc::new(TestLog::new());
    let runtime = runtime(&log);
    runtime.on_elected(0, 1);
    assert_eq!(increment(&runtime, "a").await, Ok(1));
    let mut foreign = crate::protocol::batch::BatchBuilder::new();
    foreign.append(1, Some(b"a"), Some(&[41]));
    let tp = TopicPartition::new("topic", 0);
    log.append(&tp, 1, foreign.build()).expect("appended");
    assert_eq!(
        increment(&runtime, "b").await,
        Err(ErrorCode::NotCoordinator)
    );
    assert_eq!(increment(&runtime, "a").await, Ok(42));
    assert_eq!(
        increment(&runtime, "panic").await,
        Err(ErrorCode::NotCoordinator)
    );
    assert_eq!(increment(&runtime, "a").await, Ok(43));
}

#[tokio::test]
async fn operations_that_wait_together_share_an_append() {
    let log = Arc::new(TestLog::new());
    let runtime = runtime(&log);
    runtime.on_elected(0, 1);
    assert_eq!(increment(&runtime, "a").await, Ok(1));
    let increments: Vec<_> = (0..50)
        .map(|_| {
            let runtime = runtime.clone();
            tokio::spawn(async move { increment(&runtime, "a").await })
        })
        .collect();
    for (i, increment) in increments.into_iter().enumerate() {
        assert_eq!(increment.await.expect("finished"), Ok(i as u8 + 2));
    }
    assert!(log.appends() < 10, "{} appends", log.appends());
}
