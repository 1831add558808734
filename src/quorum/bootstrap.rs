//! What formatting a directory leaves beside `meta.properties`, so that either broker can start on it: the features that a
//! new cluster begins with (`bootstrap.checkpoint`) and the voters of its first quorum (`0-0.checkpoint`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::checkpoint;
use super::control;
use super::types::{Membership, VoterNode, by_raft_id};
use crate::protocol::batch::BatchBuilder;
use crate::protocol::metadata_records::{MetadataRecord, encode_record};
use crate::types::{BrokerId, CLUSTER_METADATA_TOPIC, Offset, TimestampMs};

const BOOTSTRAP: &str = "bootstrap.checkpoint";

/// Writes `bootstrap.checkpoint` with `records` into a log directory.
pub fn write_bootstrap(
    dir: &Path,
    records: &[MetadataRecord],
    now_ms: TimestampMs,
) -> io::Result<()> {
    let mut data = BatchBuilder::new().base_offset(1).leader_epoch(0);
    for record in records {
        data.append(now_ms, None, Some(&encode_record(record)));
    }
    let next_offset = 1 + Offset::from(data.records_count());
    let part = dir.join(format!("{BOOTSTRAP}.part"));
    let mut file = File::create(&part)?;
    file.write_all(&control::batch(
        0,
        0,
        now_ms,
        &[control::snapshot_header(0)],
    ))?;
    file.write_all(&data.build())?;
    let footer = [control::snapshot_footer()];
    file.write_all(&control::batch(next_offset, 0, now_ms, &footer))?;
    file.sync_all()?;
    fs::rename(part, dir.join(BOOTSTRAP))
}

/// The records of a log directory's `bootstrap.checkpoint`; `None` where there is no such file.
pub fn read_bootstrap(dir: &Path) -> io::Result<Option<Vec<MetadataRecord>>> {
    match checkpoint::read_records(&dir.join(BOOTSTRAP)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        records => records.map(Some),
    }
}

/// Writes the checkpoint with the first voters of a new quorum (`--standalone`, `--initial-controllers`).
pub fn write_voters(
    metadata_log_dir: &Path,
    voters: &BTreeMap<BrokerId, VoterNode>,
    now_ms: TimestampMs,
) -> io::Result<()> {
    let dir = metadata_log_dir.join(format!("{CLUSTER_METADATA_TOPIC}-0"));
    fs::create_dir_all(&dir)?;
    let nodes = by_raft_id(voters);
    let membership = Membership::new(vec![nodes.keys().copied().collect()], nodes)
        .map_err(|error| io::Error::other(error.to_string()))?;
    let part = checkpoint::write_part(&dir, (0, 0), now_ms, &membership, &[])?;
    fs::rename(part, dir.join(checkpoint::file_name(0, 0)))
}
