//! What a coordinator gives the runtime: state that is rebuilt from records, and handlers that only return records.

use bytes::Bytes;

use crate::protocol::batch::TransactionMarker;
use crate::protocol::error::Error;
use crate::types::{NO_PRODUCER_ID, Offset, ProducerId, TimestampMs};

/// The time a handler runs at.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines.
    pub monotonic_ms: i64,
    /// For timestamps in records.
    pub wall_ms: TimestampMs,
}

/// Where a replayed record stands.
#[derive(Clone, Copy, Debug)]
pub struct RecordOrigin {
    pub offset: Offset,
    /// [`NO_PRODUCER_ID`] outside transactions.
    pub producer_id: ProducerId,
}

impl RecordOrigin {
    pub fn is_transactional(&self) -> bool {
        self.producer_id != NO_PRODUCER_ID
    }
}

/// A record's key and value; no value is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRecord {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// State that is a function of the partition's records.
pub trait HardState: Default + Send + 'static {
    type Record: Send;
    /// What takes one replayed record back.
    type Undo: Send;

    fn encode(record: &Self::Record) -> EncodedRecord;
    /// `Ok(None)` for record types this version does not know: they are skipped.
    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<Self::Record>, Error>;

    fn replay(&mut self, origin: RecordOrigin, record: Self::Record, undo: &mut Vec<Self::Undo>);
    /// Applies what the producer's records since its last marker said, or forgets it.
    fn end_transaction(
        &mut self,
        producer_id: ProducerId,
        commit: bool,
        undo: &mut Vec<Self::Undo>,
    );
    fn revert(&mut self, undo: Self::Undo);
}

/// The handlers of one partition; the implementor is the soft state (sessions, parked requests, timers), which is
/// lost when the partition moves.
pub trait Shard: Sized + Send + 'static {
    type Hard: HardState;
    /// A request with the place for its answer.
    type Operation: Send + 'static;
    /// What to do once the records of an operation are committed, or failed to be.
    type Completion: Send;

    fn handle(
        &mut self,
        hard: &HardView<'_, Self>,
        now: Now,
        op: Self::Operation,
        effects: &mut Effects<Self>,
    );
    /// Something that [`Shard::next_deadline_ms`] announced; called until that lies in the future.
    fn on_timer(&mut self, hard: &HardView<'_, Self>, now: Now, effects: &mut Effects<Self>);
    fn on_completed(
        &mut self,
        hard: &HardView<'_, Self>,
        now: Now,
        completion: Self::Completion,
        result: Result<(), Error>,
        effects: &mut Effects<Self>,
    );
    fn on_loaded(&mut self, hard: &HardView<'_, Self>, now: Now, effects: &mut Effects<Self>);
    /// Answers what is parked in the soft state.
    fn on_unloaded(&mut self, error: Error);
    fn next_deadline_ms(&self) -> Option<i64>;
    /// Answers an operation that never reached a handler.
    fn reject(op: Self::Operation, error: Error);
}

/// The hard state as handlers see it, with what is not committed yet.
pub struct HardView<'a, S: Shard> {
    pub state: &'a S::Hard,
    pub(super) uncommitted: &'a std::collections::VecDeque<(Offset, UndoOf<S>)>,
}

pub(super) type UndoOf<S> = <<S as Shard>::Hard as HardState>::Undo;

impl<S: Shard> HardView<'_, S> {
    /// Oldest first: the first entry about an item holds the item's committed value.
    pub fn uncommitted(&self) -> impl Iterator<Item = &UndoOf<S>> {
        self.uncommitted.iter().map(|(_, undo)| undo)
    }
}

/// What a handler wants done.
pub struct Effects<S: Shard> {
    pub(super) records: Vec<<S::Hard as HardState>::Record>,
    /// Ends a transaction, behind the records.
    pub(super) marker: Option<TransactionMarker>,
    pub(super) completion: Option<S::Completion>,
    pub(super) may_split: bool,
}

impl<S: Shard> Default for Effects<S> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            marker: None,
            completion: None,
            may_split: false,
        }
    }
}

impl<S: Shard> Effects<S> {
    pub fn append(&mut self, record: <S::Hard as HardState>::Record) {
        self.records.push(record);
    }

    /// Ends a producer's transaction: appends the marker and applies or drops what was pending.
    pub fn end_transaction(&mut self, marker: TransactionMarker) {
        self.marker = Some(marker);
    }

    /// Runs when everything appended up to here is committed. At most one an operation.
    pub fn when_committed(&mut self, completion: S::Completion) {
        debug_assert!(self.completion.is_none(), "one completion an operation");
        self.completion = Some(completion);
    }

    /// The records need not be in one batch.
    pub fn may_split(&mut self) {
        self.may_split = true;
    }

    pub fn records(&self) -> &[<S::Hard as HardState>::Record] {
        &self.records
    }
}
