//! Transactional data at rest: stable offset, transaction index, and both after truncation, crashes and restarts.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;

use super::super::txn_index::{self, AbortedTxn, TXN_ENTRY};
use super::*;
use crate::protocol::ErrorCode;
use crate::protocol::batch::{TransactionMarker, control_batch};

thread_local! {
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// A bug planted in this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Producers' epochs may go back.
    TakesOldEpochs,
    /// A marker of version 2 needs no higher epoch than the records that it ends.
    TakesOldMarkers,
}

pub fn is_planted(bug: Planted) -> bool {
    PLANTED.get() == Some(bug)
}

/// What `run` returns with the bug planted.
fn with_planted<T>(bug: Planted, run: impl FnOnce() -> T) -> T {
    PLANTED.set(Some(bug));
    let result = run();
    PLANTED.set(None);
    result
}

/// A log with a naive account of its transactions beside it.
struct Account {
    log: Log,
    open: BTreeMap<ProducerId, Offset>,
    aborted: Vec<AbortedTxn>,
}

impl Account {
    fn new(log: Log) -> Self {
        Self {
            log,
            open: BTreeMap::new(),
            aborted: Vec::new(),
        }
    }

    fn write(&mut self, id: ProducerId, records: i64, size: usize) {
        let mut builder = BatchBuilder::new().producer(id, 0, -1).transactional(true);
        for i in 0..records {
            builder.append(NOW + i, None, Some(&vec![b'v'; size]));
        }
        let batch = ValidBatch::internal(builder.build()).unwrap();
        let info = append(&mut self.log, batch);
        self.open.entry(id).or_insert(info.first_offset);
    }

    fn end(&mut self, id: ProducerId, commit: bool) {
        let builder = BatchBuilder::new().producer(id, 0, -1).transactional(true);
        let marker = control_batch(builder, NOW, i16::from(commit), &[0, 0, 0, 0, 0, 3]);
        let info = append(&mut self.log, ValidBatch::internal(marker).unwrap());
        let Some(first_offset) = self.open.remove(&id) else {
            return;
        };
        if !commit {
            let open = self.open.values().min().copied();
            self.aborted.push(AbortedTxn {
                producer_id: id,
                first_offset,
                last_offset: info.first_offset,
                last_stable_offset: open.unwrap_or(info.first_offset + 1),
            });
        }
    }

    /// The log answers every range as a look at all transactions does, and holds the stable offset where it must.
    fn check(&mut self) {
        let end = self.log.next_offset();
        let open = self.open.values().min().copied().unwrap_or(end);
        assert_eq!(self.log.last_stable_offset(end), open);
        for from in 0..end {
            for to in [from + 1, from + 7, open, end] {
                // Above the stable offset nobody asks.
                let to = to.min(open);
                if to <= from {
                    continue;
                }
                let mut wanted: Vec<_> = self.aborted.clone();
                wanted.retain(|t| t.last_offset >= from && t.first_offset < to);
                wanted.sort_by_key(|t| t.first_offset);
                let found = self.log.aborted_transactions(from, to).unwrap();
                assert_eq!(found, wanted, "{from}..{to}");
            }
        }
    }

    fn reopen(&mut self, dir: &Path, config: &Arc<TopicConfig>, clean: bool) {
        let log = std::mem::replace(&mut self.log, open_with(&dir.join("other"), config));
        if clean {
            stop_cleanly(log);
        } else {
            drop(log);
        }
        self.log = open_with(dir, config);
    }
}

fn txn_indexes(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir.join("topic-0"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txnindex"))
        .collect();
    found.sort();
    found
}

fn fresh() -> (tempfile::TempDir, Arc<TopicConfig>, Account) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("other")).unwrap();
    let config = config(|c| {
        c.segment_bytes = 700;
        c.index_interval_bytes = 100;
    });
    let log = open_with(dir.path(), &config);
    (dir, config, Account::new(log))
}

#[test]
fn an_abort_is_written_byte_for_byte_as_kafka_does() {
    let (dir, _, mut account) = fresh();
    account.write(9, 2, 1);
    account.write(7, 1, 1);
    account.end(7, false);
    account.end(8, false);
    account.end(9, true);
    let files = txn_indexes(dir.path());
    assert!(files[0].ends_with("00000000000000000000.txnindex"));
    let wanted: Vec<u8> = [&[0u8, 0][..]]
        .into_iter()
        .chain(
            [7i64, 2, 3, 0]
                .iter()
                .map(|n| n.to_be_bytes())
                .collect::<Vec<_>>()
                .iter()
                .map(|b| &b[..]),
        )
        .flatten()
        .copied()
        .collect();
    assert_eq!(fs::read(&files[0]).unwrap(), wanted);
}

#[test]
fn a_log_without_aborts_has_no_index() {
    let (dir, config, mut account) = fresh();
    for id in 0..20 {
        account.write(id, 3, 10);
        account.end(id, true);
    }
    account.check();
    account.reopen(dir.path(), &config, false);
    account.check();
    assert_eq!(txn_indexes(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn random_transactions_are_answered_alike_after_restarts_and_crashes() {
    for seed in 0..12u64 {
        let (dir, config, mut account) = fresh();
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut random = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        for step in 0..120 {
            let id = random(5) as ProducerId;
            match random(10) {
                0..5 => account.write(id, 1 + random(3) as i64, random(60) as usize),
                5..8 => account.end(id, random(3) == 0),
                8 if step % 4 == 0 => account.log.flush().unwrap(),
                9 if step % 3 == 0 => {
                    let clean = random(2) == 0;
                    account.reopen(dir.path(), &config, clean);
                    account.check();
                }
                _ => {}
            }
        }
        println!("seed {seed}");
        account.check();
        assert!(account.log.segments_count() > 2);
    }
}

#[test]
fn a_torn_or_damaged_index_is_rebuilt() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 5] = [
        |bytes| bytes.truncate(bytes.len() - 3),
        |bytes| bytes.extend_from_slice(&[0; 10]),
        |bytes| bytes[1] = 7,
        |bytes| bytes[18..26].fill(0xff),
        |bytes| bytes.resize(2 * TXN_ENTRY, 0),
    ];
    for (at, damage) in damages.into_iter().enumerate() {
        let (dir, config, mut account) = fresh();
        for id in 0..30 {
            account.write(id % 3, 2, 20);
            account.write(id % 3 + 3, 1, 20);
            account.end(id % 3, id % 2 == 0);
        }
        account.check();
        let stopped = std::mem::replace(
            &mut account.log,
            open_with(&dir.path().join("other"), &config),
        );
        stop_cleanly(stopped);
        let files = txn_indexes(dir.path());
        assert!(files.len() > 2, "{files:?}");
        for path in [&files[0], &files[1], files.last().unwrap()] {
            let mut bytes = fs::read(path).unwrap();
            damage(&mut bytes);
            fs::write(path, bytes).unwrap();
        }
        account.log = open_with(dir.path(), &config);
        println!("damage {at}");
        account.check();
    }
}

#[test]
fn truncation_takes_index_entries_back() {
    let (dir, config, mut account) = fresh();
    for id in 0..12 {
        account.write(id, 2, 20);
        account.end(id, false);
    }
    for offset in [33, 30, 11, 2, 0] {
        account.log.truncate_to(offset).unwrap();
        account.aborted.retain(|t| t.last_offset < offset);
        // What was aborted behind the cut is open again.
        let first = offset / 3 * 3;
        account.open.clear();
        if first < offset {
            account.open.insert(first / 3, first);
        }
        account.check();
    }
    account.reopen(dir.path(), &config, true);
    account.check();
}

#[test]
fn a_slice_names_what_overlaps_it_and_not_much_more() {
    let (_dir, _, mut account) = fresh();
    for id in 0..40 {
        account.write(id, 1, 40);
        account.end(id, false);
    }
    let end = account.log.next_offset();
    let mut from = 0;
    while from < end {
        let slice = account.log.read(from, 300, end, true).unwrap();
        let mut next = from;
        for batch in Batches::new(slice.read_bytes().unwrap()) {
            let Ok((header, _)) = batch else { break };
            next = header.next_offset();
        }
        let told = account.log.aborted_in_slice(from, &slice).unwrap();
        let needed = account.log.aborted_transactions(from, next).unwrap();
        assert!(needed.iter().all(|txn| told.contains(txn)));
        // The index has an entry every 100 bytes at the most: a batch or two.
        assert!(told.len() <= needed.len() + 3, "{told:?} {needed:?}");
        from = next;
    }
}

#[test]
fn deleted_segments_take_their_index_along() {
    let (dir, _, mut account) = fresh();
    for id in 0..30 {
        account.write(id, 1, 40);
        account.end(id, false);
    }
    let before = txn_indexes(dir.path()).len();
    let reason = StartOffsetReason::ClientRecordDeletion;
    account.log.increment_log_start_offset(31, reason).unwrap();
    account.log.delete_segments_below_start().unwrap();
    assert!(txn_indexes(dir.path()).len() < before);
    account.aborted.retain(|txn| txn.last_offset >= 31);
    let found = account.log.aborted_transactions(31, 60).unwrap();
    assert_eq!(found, account.aborted);
    account.log.truncate_fully_and_start_at(5).unwrap();
    assert_eq!(account.log.aborted_transactions(0, 60).unwrap(), vec![]);
}

/// What the log answers to a marker of (epoch, coordinator epoch, version).
fn end(
    log: &mut Log,
    (epoch, coordinator_epoch, version): (i16, i32, i8),
) -> Result<Offset, ErrorCode> {
    let marker = TransactionMarker {
        producer_id: 1,
        producer_epoch: epoch,
        coordinator_epoch,
        commit: true,
        transaction_version: version,
    };
    let results = log
        .append_as_leader(&[marker.to_batch(NOW, false)], 0, NOW)
        .unwrap();
    let info = results[0].clone().map_err(|error| error.code)?;
    Ok(info.first_offset)
}

#[test]
fn markers_of_old_epochs_and_coordinators_are_fenced() {
    const OLD: Result<Offset, ErrorCode> = Err(ErrorCode::InvalidProducerEpoch);
    const FENCED: Result<Offset, ErrorCode> = Err(ErrorCode::TransactionCoordinatorFenced);
    let (_dir, _, account) = fresh();
    let mut log = account.log;
    assert_eq!(end(&mut log, (3, 5, 0)), Ok(0), "nobody knows the producer");
    assert_eq!(end(&mut log, (2, 5, 0)), OLD);
    assert_eq!(end(&mut log, (3, 4, 0)), FENCED);
    assert_eq!(end(&mut log, (3, 5, 1)), Ok(1), "again");
    assert_eq!(
        end(&mut log, (3, 6, 2)),
        Ok(2),
        "repeated: no transaction is open"
    );
    let mut builder = BatchBuilder::new().producer(1, 3, 0).transactional(true);
    builder.append(NOW, None, None);
    append(&mut log, valid(builder.build()));
    assert_eq!(end(&mut log, (3, 6, 2)), OLD, "the epoch must grow");
    assert_eq!(log.last_stable_offset(4), 3);
    assert_eq!(end(&mut log, (4, 6, 2)), Ok(4));
    assert_eq!(log.last_stable_offset(5), 5);
    let producer = log.active_producers().next().unwrap();
    assert_eq!(
        (producer.producer_epoch, producer.coordinator_epoch),
        (4, 6)
    );
}

/// The first batch of a transaction is late: its coordinator has given the transaction up, and the marker is here (KAFKA-9144).
/// What the log answers, and how far it is stable of how much.
fn late_batch() -> (Result<Offset, ErrorCode>, (Offset, Offset)) {
    let (_dir, _, account) = fresh();
    let mut log = account.log;
    assert_eq!(end(&mut log, (1, 0, 2)), Ok(0));
    let mut builder = BatchBuilder::new().producer(1, 0, 0).transactional(true);
    builder.append(NOW, None, None);
    let results = log
        .append_as_leader(&[valid(builder.build())], 0, NOW)
        .unwrap();
    let answer = results[0].clone().map(|info| info.first_offset);
    let next_offset = log.next_offset();
    (
        answer.map_err(|error| error.code),
        (log.last_stable_offset(next_offset), next_offset),
    )
}

/// Rule: late-batch
#[test]
fn a_late_batch_leaves_no_transaction_hanging() {
    assert_eq!(late_batch(), (Err(ErrorCode::InvalidProducerEpoch), (1, 1)));
    let planted = with_planted(Planted::TakesOldEpochs, late_batch);
    assert_eq!(planted, (Ok(1), (1, 2)), "nobody would ever end it");
}

/// A transaction was ended, the next one has begun, and the marker of the first comes once more (KIP-890). Version 2 raises the
/// producer's epoch with each end. What the log answers, and how far it is stable of how much.
fn late_marker() -> (Result<Offset, ErrorCode>, (Offset, Offset)) {
    let (_dir, _, account) = fresh();
    let mut log = account.log;
    let begin = |log: &mut Log, epoch: i16| {
        let mut builder = BatchBuilder::new()
            .producer(1, epoch, 0)
            .transactional(true);
        builder.append(NOW, None, None);
        append(log, valid(builder.build()));
    };
    begin(&mut log, 0);
    assert_eq!(end(&mut log, (1, 0, 2)), Ok(1));
    begin(&mut log, 1);
    let answer = end(&mut log, (1, 0, 2));
    let next_offset = log.next_offset();
    (answer, (log.last_stable_offset(next_offset), next_offset))
}

/// Rule: late-marker
#[test]
fn a_late_marker_ends_no_later_transaction() {
    assert_eq!(
        late_marker(),
        (Err(ErrorCode::InvalidProducerEpoch), (2, 3))
    );
    let planted = with_planted(Planted::TakesOldMarkers, late_marker);
    assert_eq!(planted, (Ok(3), (4, 4)), "committed half way through");
}

#[test]
fn without_a_coordinators_word_only_open_transactions_go_on() {
    let (_dir, _, account) = fresh();
    let mut log = account.log;
    let write = |log: &mut Log, epoch: i16, sequence: i32, origin: AppendOrigin| {
        let mut builder = BatchBuilder::new()
            .producer(1, epoch, sequence)
            .transactional(true);
        builder.append(NOW, None, None);
        let batch = ValidBatch {
            origin,
            ..valid(builder.build())
        };
        let results = log.append_as_leader(&[batch], 0, NOW).unwrap();
        results[0]
            .clone()
            .map(|info| info.duplicate)
            .map_err(|error| error.code)
    };
    let open = AppendOrigin::OpenTransaction;
    let refused = Err(ErrorCode::InvalidTxnState);
    assert_eq!(write(&mut log, 0, 0, open), refused);
    assert_eq!(write(&mut log, 0, 0, AppendOrigin::Client), Ok(false));
    assert_eq!(write(&mut log, 0, 1, open), Ok(false));
    assert_eq!(write(&mut log, 0, 1, open), Ok(true), "a duplicate");
    assert_eq!(write(&mut log, 1, 0, open), refused, "another epoch");
    assert_eq!(end(&mut log, (1, 0, 2)), Ok(2));
    assert_eq!(write(&mut log, 1, 0, open), refused);
    assert_eq!(
        write(&mut log, 0, 2, open),
        Err(ErrorCode::InvalidProducerEpoch)
    );
}

#[test]
fn an_index_that_grows_is_read_up_to_its_last_whole_entry() {
    let txn = |n| AbortedTxn {
        producer_id: n,
        first_offset: n + 1,
        last_offset: n + 2,
        last_stable_offset: n + 3,
    };
    let mut bytes = txn_index::encode(&[txn(1), txn(100)]);
    let read = txn_index::decode_growing;
    assert_eq!(read(&bytes), Some(vec![txn(1), txn(100)]));
    assert_eq!(read(&bytes[..TXN_ENTRY + 33]), Some(vec![txn(1)]));
    bytes[1] = 1;
    assert_eq!(read(&bytes), None, "another version");
}
