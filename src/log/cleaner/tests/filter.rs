//! What stays of a batch.

use std::collections::HashMap;

use super::*;
use crate::log::AbortedTxn;
use crate::log::cleaner::filter::{Counts, Filter, LastRecord, Outcome};
use crate::log::cleaner::offset_map::OffsetMap;
use crate::log::cleaner::transactions::CleanedTransactions;
use crate::protocol::batch::{CompressionType, HEADER_SIZE, control_batch};
use crate::types::ProducerId;

const RETENTION_MS: i64 = 1000;

/// A filter over a map that covers offsets up to 99.
struct Fixture {
    map: OffsetMap,
    last_records: HashMap<ProducerId, LastRecord>,
    transactions: CleanedTransactions,
    round_end: Offset,
    now_ms: TimestampMs,
    counts: Counts,
}

impl Fixture {
    /// The last offsets of some keys.
    fn new(keys: &[(&str, Offset)]) -> Self {
        let mut map = OffsetMap::new(10_000, 0.9, 100, 3);
        for (key, offset) in keys {
            map.put(key.as_bytes(), *offset);
        }
        map.update_latest_offset(99);
        Self {
            map,
            last_records: HashMap::new(),
            transactions: CleanedTransactions::default(),
            round_end: 100,
            now_ms: NOW,
            counts: Counts::default(),
        }
    }

    fn filter(&mut self, batch: &Bytes) -> (Outcome, Vec<u8>) {
        let mut out = Vec::new();
        let filter = Filter {
            map: &self.map,
            last_records: &self.last_records,
            round_end: self.round_end,
            now_ms: self.now_ms,
            delete_retention_ms: RETENTION_MS,
        };
        let header = parse_header(batch).unwrap();
        let outcome = filter
            .filter(
                &header,
                batch,
                &mut self.transactions,
                &mut self.counts,
                &mut out,
            )
            .unwrap();
        assert_eq!(out.is_empty(), outcome != Outcome::Rewritten);
        (outcome, out)
    }

    /// The batch that the filter wrote, and its records.
    fn rewritten(&mut self, batch: &Bytes) -> (BatchHeader, Vec<Record>) {
        let (outcome, out) = self.filter(batch);
        assert_eq!(outcome, Outcome::Rewritten);
        let header = parse_header(&out).unwrap();
        assert_eq!(header.size_bytes(), out.len());
        let records = records_of(&header, &out);
        (header, records)
    }

    fn outcome(&mut self, batch: &Bytes) -> Outcome {
        self.filter(batch).0
    }
}

fn offsets(records: &[Record]) -> Vec<Offset> {
    records.iter().map(|r| r.offset).collect()
}

#[test]
fn records_with_a_later_one_of_their_key_go() {
    let mut f = Fixture::new(&[("a", 10), ("b", 50), ("c", 12)]);
    let bytes = batch(10, &[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))]);
    let (header, records) = f.rewritten(&bytes);
    assert_eq!(offsets(&records), [10, 12]);
    assert_eq!(
        (
            header.base_offset,
            header.last_offset(),
            header.records_count
        ),
        (10, 12, 2)
    );
    assert_eq!(records[1].timestamp, NOW + 2);
    assert_eq!((f.counts.read, f.counts.retained), (3, 2));
}

#[test]
fn a_batch_that_keeps_everything_stays_byte_for_byte() {
    let mut f = Fixture::new(&[("a", 10)]);
    assert_eq!(
        f.outcome(&batch(10, &[("a", Some("1")), ("z", Some("2"))])),
        Outcome::Original
    );
}

#[test]
fn a_batch_without_records_goes() {
    let mut f = Fixture::new(&[("a", 90)]);
    assert_eq!(f.outcome(&batch(10, &[("a", Some("1"))])), Outcome::Dropped);
}

#[test]
fn first_and_last_records_that_go_leave_the_range_of_offsets_and_the_timestamps() {
    let mut f = Fixture::new(&[("a", 90), ("c", 90)]);
    let bytes = batch(10, &[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))]);
    let (header, records) = f.rewritten(&bytes);
    assert_eq!(offsets(&records), [11]);
    assert_eq!((header.base_offset, header.last_offset()), (10, 12));
    // As Kafka's builder: base and maximum are of the records that are left.
    assert_eq!(
        (header.base_timestamp, header.max_timestamp),
        (NOW + 1, NOW + 1)
    );
    assert_eq!(records[0].timestamp, NOW + 1);
}

#[test]
fn every_codec_is_kept() {
    for codec in [
        CompressionType::None,
        CompressionType::Gzip,
        CompressionType::Snappy,
        CompressionType::Lz4,
        CompressionType::Zstd,
    ] {
        let mut f = Fixture::new(&[("a", 90)]);
        let builder = BatchBuilder::new().base_offset(10).compression(codec, None);
        let value = "value".repeat(50);
        let bytes = build(builder, &[("a", Some("1")), ("b", Some(&value))]);
        let (header, records) = f.rewritten(&bytes);
        assert_eq!(header.compression(), Some(codec));
        assert_eq!(records[0].value, Some(Bytes::from(value)), "{codec:?}");
    }
}

#[test]
fn log_append_time_stays_that_of_the_batch() {
    let mut f = Fixture::new(&[("a", 90)]);
    let builder = BatchBuilder::new()
        .base_offset(10)
        .log_append_time(NOW + 77);
    let (header, records) = f.rewritten(&build(builder, &[("a", Some("1")), ("b", Some("2"))]));
    assert!(header.is_log_append_time());
    assert_eq!(
        (header.base_timestamp, header.max_timestamp),
        (NOW + 77, NOW + 77)
    );
    assert_eq!(records[0].timestamp, NOW + 77);
}

#[test]
fn records_behind_what_the_map_covers_stay() {
    let mut f = Fixture::new(&[("a", 90)]);
    f.map.update_latest_offset(10);
    let (_, records) = f.rewritten(&batch(10, &[("a", Some("1")), ("a", Some("2"))]));
    assert_eq!(offsets(&records), [11]);
}

#[test]
fn records_without_key_go_and_are_counted() {
    let mut f = Fixture::new(&[]);
    let mut builder = BatchBuilder::new().base_offset(10);
    builder.append(NOW, None, Some(b"no key"));
    assert_eq!(f.outcome(&builder.build()), Outcome::Dropped);
    assert_eq!(f.counts.invalid, 1);
}

#[test]
fn tombstones_get_a_delete_horizon_and_go_when_it_has_passed() {
    let mut f = Fixture::new(&[("a", 10)]);
    let bytes = batch(10, &[("a", None), ("b", Some("2"))]);
    let (header, records) = f.rewritten(&bytes);
    assert_eq!(header.delete_horizon_ms(), Some(NOW + RETENTION_MS));
    assert_eq!(offsets(&records), [10, 11]);
    assert_eq!(records[0].timestamp, NOW, "timestamps are what they were");
    assert_eq!(header.max_timestamp, NOW + 1);

    let (_, with_horizon) = f.filter(&bytes);
    let with_horizon = Bytes::from(with_horizon);
    f.now_ms = NOW + RETENTION_MS - 1;
    assert_eq!(
        f.outcome(&with_horizon),
        Outcome::Original,
        "the horizon is set once"
    );
    f.now_ms = NOW + RETENTION_MS;
    let (header, records) = f.rewritten(&with_horizon);
    assert_eq!(offsets(&records), [11]);
    assert_eq!(
        header.delete_horizon_ms(),
        Some(NOW + RETENTION_MS),
        "Kafka keeps it"
    );
    assert_eq!(records[0].timestamp, NOW + 1);
}

#[test]
fn the_last_batch_of_a_producer_stays_as_an_empty_one() {
    let mut f = Fixture::new(&[("a", 90)]);
    let last_data_offset = Some(10);
    f.last_records.insert(
        5,
        LastRecord {
            last_data_offset,
            producer_epoch: 2,
        },
    );
    let produced = |base| {
        let builder = BatchBuilder::new().base_offset(base).producer(5, 2, 33);
        build(
            builder.compression(CompressionType::Lz4, None),
            &[("a", Some("1"))],
        )
    };
    let (header, records) = f.rewritten(&produced(10));
    assert_eq!(records, []);
    assert_eq!(header.size_bytes(), HEADER_SIZE);
    assert_eq!((header.last_offset(), header.last_sequence()), (10, 33));
    assert_eq!((header.producer_id, header.producer_epoch), (5, 2));
    assert_eq!((header.base_timestamp, header.max_timestamp), (-1, NOW));
    assert_eq!(header.compression(), Some(CompressionType::None));
    assert_eq!(f.outcome(&produced(9)), Outcome::Dropped, "not its last");
    let (_, empty) = f.filter(&produced(10));
    assert_eq!(f.filter(&empty.clone().into()).1, empty, "and stays so");
}

#[test]
fn the_last_batch_of_the_round_stays_as_an_empty_one() {
    let mut f = Fixture::new(&[("a", 99)]);
    f.round_end = 11;
    let (header, records) = f.rewritten(&batch(10, &[("a", Some("1"))]));
    assert_eq!(
        (records.len(), header.next_offset(), header.producer_id),
        (0, 11, -1)
    );
}

#[test]
fn records_of_aborted_transactions_go_whatever_their_key() {
    let mut f = Fixture::new(&[]);
    f.transactions = CleanedTransactions::new([AbortedTxn {
        producer_id: 5,
        first_offset: 10,
        last_offset: 20,
        last_stable_offset: 21,
    }]);
    let transactional = |base, id| {
        let builder = BatchBuilder::new().base_offset(base).producer(id, 0, 0);
        build(builder.transactional(true), &[("a", Some("1"))])
    };
    assert_eq!(f.outcome(&transactional(10, 5)), Outcome::Dropped);
    assert_eq!(
        f.outcome(&transactional(11, 6)),
        Outcome::Original,
        "another's"
    );
    assert_eq!(
        f.outcome(&marker(20, 5, 0)),
        Outcome::Original,
        "its records were here"
    );
    assert_eq!(f.transactions.take_retained().len(), 1);
}

fn marker(base: Offset, id: ProducerId, kind: i16) -> Bytes {
    let builder = BatchBuilder::new().base_offset(base).producer(id, 0, -1);
    control_batch(builder.transactional(true), NOW, kind, &[0, 0, 0, 0, 0, 9])
}

#[test]
fn markers_without_records_get_a_horizon_and_go_when_it_has_passed() {
    for kind in [0, 1] {
        let mut f = Fixture::new(&[]);
        let (_, first) = f.filter(&marker(20, 5, kind));
        let header = parse_header(&first).unwrap();
        assert!(header.is_control() && header.is_transactional());
        assert_eq!(header.delete_horizon_ms(), Some(NOW + RETENTION_MS));
        f.now_ms = NOW + RETENTION_MS;
        assert_eq!(f.outcome(&first.clone().into()), Outcome::Dropped);
        // The last thing that its producer wrote: the epoch must stay known.
        f.last_records.insert(
            5,
            LastRecord {
                last_data_offset: None,
                producer_epoch: 0,
            },
        );
        let (header, records) = f.rewritten(&first.into());
        assert!(header.is_control() && records.is_empty());
    }
}

#[test]
fn control_records_that_end_no_transaction_stay() {
    let mut f = Fixture::new(&[]);
    assert_eq!(f.outcome(&marker(20, 5, 2)), Outcome::Original);
}

#[test]
fn damaged_payloads_are_errors() {
    let mut f = Fixture::new(&[("a", 90)]);
    let good = batch(10, &[("a", Some("1")), ("b", Some("2"))]);
    for cut in HEADER_SIZE + 1..good.len() {
        let mut out = Vec::new();
        let filter = Filter {
            map: &f.map,
            last_records: &f.last_records,
            round_end: 100,
            now_ms: NOW,
            delete_retention_ms: 0,
        };
        let header = parse_header(&good).unwrap();
        let result = filter.filter(
            &header,
            &good[..cut],
            &mut f.transactions,
            &mut f.counts,
            &mut out,
        );
        // A cut between records cannot be seen here: the checksum finds it.
        assert!(result.is_err() || out.len() < good.len());
    }
}
