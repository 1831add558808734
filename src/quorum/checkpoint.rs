//! Checkpoint files: snapshots of the metadata in Kafka's layout (`<end offset>-<epoch>.checkpoint`).
//!
//! A file is a run of batches with offsets from 0: a control batch (SnapshotHeader, KRaftVersion, Voters), data batches,
//! and a control batch (SnapshotFooter). It appears under its name only when it is whole and durable.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::control;
use super::types::{Membership, VoterNode, node_id};
use crate::protocol::batch::{BatchBuilder, BatchHeader, Batches, Records, check_crc};
use crate::protocol::control_records::ControlRecordType;
use crate::protocol::metadata_records::{MetadataRecord, decode_record, encode_record};
use crate::types::{BrokerId, LeaderEpoch, Offset, TimestampMs};

const SUFFIX: &str = ".checkpoint";
/// Records of one batch of a checkpoint, and about how many bytes.
const BATCH_RECORDS_MAX: i32 = 1024;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// What one batch of metadata may inflate to: Kafka's writers stay below 8 MiB.
pub(super) const INFLATED_BYTES_MAX: usize = 64 << 20;

/// `%020d-%010d.checkpoint`
pub(super) fn file_name(end_offset: Offset, epoch: LeaderEpoch) -> String {
    format!("{end_offset:020}-{epoch:010}{SUFFIX}")
}

/// The inverse of [`file_name`].
pub(super) fn parse_file_name(name: &str) -> Option<(Offset, LeaderEpoch)> {
    let (offset, epoch) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    if offset.len() != 20 || epoch.len() != 10 {
        return None;
    }
    Some((offset.parse().ok()?, epoch.parse().ok()?))
}

/// Writes a whole checkpoint under a temporary name, durably; the caller renames it.
pub(super) fn write_part(
    dir: &Path,
    id: (Offset, LeaderEpoch),
    last_contained_ms: TimestampMs,
    membership: &Membership,
    records: &[MetadataRecord],
) -> io::Result<PathBuf> {
    let path = dir.join(format!("{}.part", file_name(id.0, id.1)));
    let mut out = io::BufWriter::new(File::create(&path)?);
    let header = [
        control::snapshot_header(last_contained_ms),
        control::kraft_version_of(membership),
        control::voters(membership),
    ];
    out.write_all(&control::batch(0, id.1, last_contained_ms, &header))?;
    let mut next_offset = header.len() as Offset;
    let mut batch = BatchBuilder::new();
    for record in records {
        batch.append(last_contained_ms, None, Some(&encode_record(record)));
        if batch.records_count() >= BATCH_RECORDS_MAX || batch.size_bytes() >= BATCH_BYTES_MAX {
            next_offset = write_batch(&mut out, batch, next_offset, id.1)?;
            batch = BatchBuilder::new();
        }
    }
    if !batch.is_empty() {
        next_offset = write_batch(&mut out, batch, next_offset, id.1)?;
    }
    let footer = [control::snapshot_footer()];
    out.write_all(&control::batch(
        next_offset,
        id.1,
        last_contained_ms,
        &footer,
    ))?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_data()?;
    Ok(path)
}

fn write_batch(
    out: &mut impl Write,
    batch: BatchBuilder,
    base_offset: Offset,
    epoch: LeaderEpoch,
) -> io::Result<Offset> {
    let next_offset = base_offset + Offset::from(batch.records_count());
    out.write_all(&batch.base_offset(base_offset).leader_epoch(epoch).build())?;
    Ok(next_offset)
}

/// Removes what a crash left half written, and checkpoints older than `oldest`. What fails to go away does no harm.
pub(super) fn remove_leftovers(dir: &Path, oldest: Offset) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let is_old = parse_file_name(name).is_some_and(|(end_offset, _)| end_offset < oldest);
        if is_old || name.ends_with(".checkpoint.part") {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// Whether the file is whole: sound batches without a gap, from the header to the footer.
pub(super) fn is_valid(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| walk(bytes.into(), |_, _| Ok(())).is_ok())
}

/// The records of a checkpoint.
pub(super) fn read_records(path: &Path) -> io::Result<Vec<MetadataRecord>> {
    let mut records = Vec::new();
    walk(fs::read(path)?.into(), |header, batch| {
        if !header.is_control() {
            decode_records(header, batch, &mut records)?;
        }
        Ok(())
    })?;
    Ok(records)
}

/// End offset and epoch of every checkpoint in `dir`, oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(Offset, LeaderEpoch)>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        ids.extend(entry?.file_name().to_str().and_then(parse_file_name));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// The voters that a checkpoint begins with; `None` where there is no such file.
pub(super) fn read_voters(path: &Path) -> io::Result<Option<BTreeMap<BrokerId, VoterNode>>> {
    let voters = read_membership(path)?;
    Ok(voters.map(|membership| {
        let nodes = membership.nodes();
        nodes
            .map(|(id, node)| (node_id(*id), node.clone()))
            .collect()
    }))
}

/// The same as raft knows them.
pub(super) fn read_membership(path: &Path) -> io::Result<Option<Membership>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut voters = None;
    walk(bytes.into(), |header, batch| {
        if let Some(records) = header
            .is_control()
            .then(|| control::decode(header, batch))
            .flatten()
        {
            let mut of_voters = records
                .iter()
                .filter(|(kind, _)| *kind == ControlRecordType::KRaftVoters);
            voters = voters
                .take()
                .or_else(|| of_voters.find_map(|(_, value)| control::decode_voters(value)));
        }
        Ok(())
    })?;
    Ok(voters)
}

/// Appends the metadata records of a data batch to `out`.
pub(super) fn decode_records(
    header: &BatchHeader,
    batch: &[u8],
    out: &mut Vec<MetadataRecord>,
) -> io::Result<()> {
    for record in Records::new(header, batch, INFLATED_BYTES_MAX).map_err(io::Error::other)? {
        let value = record.map_err(io::Error::other)?.value;
        let value = value.ok_or_else(|| invalid("a metadata record without a value"))?;
        out.push(decode_record(value).map_err(io::Error::other)?);
    }
    Ok(())
}

fn walk(
    bytes: Bytes,
    mut each: impl FnMut(&BatchHeader, &Bytes) -> io::Result<()>,
) -> io::Result<()> {
    let mut next_offset = 0;
    let mut last = None;
    for batch in Batches::new(bytes) {
        let (header, batch) = batch.map_err(io::Error::other)?;
        check_crc(&header, &batch).map_err(io::Error::other)?;
        if header.base_offset != next_offset {
            return Err(invalid("a gap in the checkpoint"));
        }
        if next_offset == 0
            && control_type(&header, &batch) != Some(ControlRecordType::SnapshotHeader)
        {
            return Err(invalid("a checkpoint without a header"));
        }
        next_offset = header.next_offset();
        last = control_type(&header, &batch);
        each(&header, &batch)?;
    }
    if last == Some(ControlRecordType::SnapshotFooter) {
        return Ok(());
    }
    Err(invalid("a checkpoint without a footer"))
}

fn control_type(header: &BatchHeader, batch: &[u8]) -> Option<ControlRecordType> {
    if !header.is_control() {
        return None;
    }
    Some(control::decode(header, batch)?.first()?.0)
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
