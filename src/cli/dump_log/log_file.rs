//! Segments and metadata snapshots, batch by batch and record by record.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use super::decoder::{Decoder, java_string};
use super::{DumpError, DumpLogArgs, Findings, absolute, base_offset, reading};
use crate::log::{BatchAt, BatchScanner};
use crate::protocol::batch::{
    BatchHeader, CompressionType, Record, Records, check_crc, increment_sequence,
};
use crate::protocol::control_records::{
    ControlRecordType, EndTxnMarker, KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord,
    SnapshotHeaderRecord, VotersRecord,
};
use crate::protocol::json::{self, ToJson};
use crate::protocol::wire::DecodeError;
use crate::types::Offset;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// A batch that inflates to more is refused instead of printed.
const INFLATED_MAX: usize = 1 << 30;
/// Offset, length, leader epoch and magic: what a batch of any age begins with.
const HEAD_SIZE: usize = 17;
/// The length of the shortest record of the oldest format: less is damage.
const RECORD_OVERHEAD_V0: i32 = 14;

pub(super) fn dump(
    path: &Path,
    args: &DumpLogArgs,
    decoder: &Decoder,
    findings: &mut Findings,
    out: &mut impl Write,
) -> Result<(), DumpError> {
    print_title(path, out)?;
    let file = File::open(path).map_err(reading(path))?;
    let size = file.metadata().map_err(reading(path))?.len();
    let end = size.min(u64::from(args.max_bytes));
    let deep = args.deep_iteration || args.prints_data();
    let mut records = RecordPrinter {
        path,
        args,
        decoder,
        last_offset: -1,
        findings,
    };
    let mut scanner = BatchScanner::new(&file, 0, end, CHUNK);
    while let Some(batch) = scanner.next_header().map_err(reading(path))? {
        let bytes = scanner.batch_bytes(&batch).map_err(reading(path))?;
        print_batch(path, &batch, check_crc(&batch.header, bytes).is_ok(), out)?;
        if deep {
            records.print_all(&batch, bytes, out)?;
        }
    }
    let position = scanner.position();
    check_rest(path, &file, position, end)?;
    if size > position && args.max_bytes == i32::MAX as u32 {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rest = size - position;
        writeln!(out, "Found {rest} invalid bytes at the end of {name}")?;
    }
    Ok(())
}

fn print_title(path: &Path, out: &mut impl Write) -> Result<(), DumpError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name == "bootstrap.checkpoint" {
        writeln!(out, "KRaft bootstrap snapshot")?;
    } else if let Some(id) = name.strip_suffix(".checkpoint") {
        let snapshot: Option<(Offset, i32)> = id
            .split_once('-')
            .and_then(|(offset, epoch)| Some((offset.parse().ok()?, epoch.parse().ok()?)));
        let Some((offset, epoch)) = snapshot else {
            let why = format!("{} is not named after a snapshot", path.display());
            return Err(DumpError::Refused(why));
        };
        writeln!(out, "Snapshot end offset: {offset}, epoch: {epoch}")?;
    } else {
        writeln!(out, "Log starting offset: {}", base_offset(path)?)?;
    }
    Ok(())
}

/// Bytes that are no batch of ours: a torn tail is told by the caller, damage and old formats are errors.
fn check_rest(path: &Path, file: &File, position: u64, end: u64) -> Result<(), DumpError> {
    let mut head = [0; HEAD_SIZE];
    if position + head.len() as u64 >= end {
        return Ok(());
    }
    file.read_exact_at(&mut head, position)
        .map_err(reading(path))?;
    let length = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    let refused = |why| Err(DumpError::Refused(why));
    if length < RECORD_OVERHEAD_V0 {
        return refused(format!(
            "Found record size {length} smaller than minimum record overhead ({RECORD_OVERHEAD_V0}) in file {}.",
            path.display()
        ));
    }
    let magic = head[16] as i8;
    if position + 12 + u64::from(length.unsigned_abs()) <= end && magic != 2 {
        return refused(format!(
            "{} at position {position}: batches of magic {magic} are not supported",
            path.display()
        ));
    }
    Ok(())
}

fn timestamp_type(header: &BatchHeader) -> &'static str {
    if header.is_log_append_time() {
        "LogAppendTime"
    } else {
        "CreateTime"
    }
}

fn compression_name(codec: CompressionType) -> &'static str {
    match codec {
        CompressionType::None => "none",
        CompressionType::Gzip => "gzip",
        CompressionType::Snappy => "snappy",
        CompressionType::Lz4 => "lz4",
        CompressionType::Zstd => "zstd",
    }
}

/// A number that may be absent, as Java's `OptionalLong` shows it.
pub(super) fn optional_long(value: Option<i64>) -> String {
    value.map_or("OptionalLong.empty".to_owned(), |value| {
        format!("OptionalLong[{value}]")
    })
}

fn print_batch(
    path: &Path,
    batch: &BatchAt,
    valid: bool,
    out: &mut impl Write,
) -> Result<(), DumpError> {
    let header = &batch.header;
    let codec = header.compression().ok_or_else(|| {
        DumpError::Refused(format!(
            "{} at position {}: unknown compression type id: {}",
            path.display(),
            batch.position,
            header.attributes & 7
        ))
    })?;
    writeln!(
        out,
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} \
         producerEpoch: {} partitionLeaderEpoch: {} isTransactional: {} isControl: {} \
         deleteHorizonMs: {} position: {} {}: {} size: {} magic: {} compresscodec: {} crc: {} isvalid: {valid}",
        header.base_offset,
        header.last_offset(),
        header.records_count,
        header.base_sequence,
        header.last_sequence(),
        header.producer_id,
        header.producer_epoch,
        header.partition_leader_epoch,
        header.is_transactional(),
        header.is_control(),
        optional_long(header.delete_horizon_ms()),
        batch.position,
        timestamp_type(header),
        header.max_timestamp,
        header.size_bytes(),
        header.magic,
        compression_name(codec),
        header.crc,
    )?;
    Ok(())
}

/// Prints the records of one file and remembers gaps between their offsets.
struct RecordPrinter<'a> {
    path: &'a Path,
    args: &'a DumpLogArgs,
    decoder: &'a Decoder,
    last_offset: Offset,
    findings: &'a mut Findings,
}

impl RecordPrinter<'_> {
    fn print_all(
        &mut self,
        batch: &BatchAt,
        bytes: &[u8],
        out: &mut impl Write,
    ) -> Result<(), DumpError> {
        let broken = |error| {
            DumpError::Refused(format!(
                "{} at position {}: {error}",
                self.path.display(),
                batch.position
            ))
        };
        let records = Records::new(&batch.header, bytes, INFLATED_MAX).map_err(&broken)?;
        for record in records {
            let record = record.map_err(&broken)?;
            if record.offset != self.last_offset.wrapping_add(1) {
                let gaps = &mut self.findings.non_consecutive;
                let gaps = gaps.entry(absolute(self.path)).or_default();
                gaps.insert(self.last_offset, record.offset);
            }
            self.last_offset = record.offset;
            if !self.args.skip_record_metadata {
                self.print_metadata(&batch.header, &record, out)?;
            }
            if self.args.prints_data() && !batch.header.is_control() {
                self.print_contents(&record, out)?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn print_metadata(
        &self,
        header: &BatchHeader,
        record: &Record,
        out: &mut impl Write,
    ) -> Result<(), DumpError> {
        let size = |bytes: &Option<Bytes>| bytes.as_ref().map_or(-1, |bytes| bytes.len() as i64);
        let delta = record.offset.wrapping_sub(header.base_offset);
        let sequence = if header.base_sequence < 0 {
            -1
        } else {
            increment_sequence(header.base_sequence, delta as i32)
        };
        let header_keys: Vec<_> = record
            .headers
            .iter()
            .map(|(key, _)| java_string(key))
            .collect();
        write!(
            out,
            "| offset: {} {}: {} keySize: {} valueSize: {} sequence: {sequence} headerKeys: [{}]",
            record.offset,
            timestamp_type(header),
            record.timestamp,
            size(&record.key),
            size(&record.value),
            header_keys.join(",")
        )?;
        if header.is_control() {
            let text = control_record(record).map_err(|error| {
                let (path, offset) = (self.path.display(), record.offset);
                DumpError::Refused(format!(
                    "{path}, control record at offset {offset}: {error}"
                ))
            })?;
            write!(out, " {text}")?;
        }
        Ok(())
    }

    fn print_contents(&self, record: &Record, out: &mut impl Write) -> Result<(), DumpError> {
        let (key, value) = self.decoder.decode(record)?;
        let mut prefix = if self.args.skip_record_metadata {
            "| "
        } else {
            " "
        };
        if let Some(key) = key {
            write!(out, "{prefix}key: {key}")?;
            prefix = " ";
        }
        if let Some(value) = value {
            write!(out, "{prefix}payload: {value}")?;
        }
        Ok(())
    }
}

fn control_record(record: &Record) -> Result<String, DecodeError> {
    let key = record.key.clone().unwrap_or_default();
    let mut value = record.value.clone().unwrap_or_default();
    let kind = ControlRecordType::from_key(&key)?;
    Ok(match kind {
        ControlRecordType::Abort | ControlRecordType::Commit => {
            // The marker's version is in front of it.
            if value.len() < 2 {
                return Err(DecodeError::Truncated);
            }
            let marker = EndTxnMarker::decode(&mut value.split_off(2), 0)?;
            let name = if kind == ControlRecordType::Abort {
                "ABORT"
            } else {
                "COMMIT"
            };
            let epoch = marker.coordinator_epoch;
            format!("endTxnMarker: {name} coordinatorEpoch: {epoch}")
        }
        ControlRecordType::LeaderChange => {
            // Always read in this version, as by `ControlRecordUtils`, whatever the message says.
            let message = LeaderChangeMessage::decode(&mut value, 0)?;
            titled("LeaderChange:", &message, message.version)
        }
        ControlRecordType::SnapshotHeader => {
            let message = SnapshotHeaderRecord::decode(&mut value, 0)?;
            titled("SnapshotHeader", &message, message.version)
        }
        ControlRecordType::SnapshotFooter => {
            let message = SnapshotFooterRecord::decode(&mut value, 0)?;
            titled("SnapshotFooter", &message, message.version)
        }
        ControlRecordType::KRaftVersion => {
            let message = KRaftVersionRecord::decode(&mut value, 0)?;
            titled("KRaftVersion", &message, message.version)
        }
        ControlRecordType::KRaftVoters => {
            let message = VotersRecord::decode(&mut value, 0)?;
            titled("KRaftVoters", &message, message.version)
        }
        ControlRecordType::Unknown(number) => format!("controlType: UNKNOWN({number})"),
    })
}

fn titled(title: &str, message: &impl ToJson, version: i16) -> String {
    format!("{title} {}", json::text(message, version))
}
