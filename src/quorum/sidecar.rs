//! `raft-sidecar.json`: what openraft has to remember and Kafka's formats have no place for.
//!
//! Offsets are Kafka's, indexes are raft's, and one batch is one entry; so one known pair (an anchor) gives all others
//! behind it. Memberships that a VotersRecord cannot say (joint ones, learners) are kept whole. Written before the file
//! or batch that needs it becomes visible; without the file a log that starts at offset 0 is still readable.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::types::{LogId, Membership, StoredMembership, renumbered};
use crate::types::{LeaderEpoch, Offset};

const FILE: &str = "raft-sidecar.json";

/// Contents of the sidecar file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sidecar {
    /// Checkpoints that exist, oldest first. Bound: two, and one more while it is written.
    pub(super) checkpoints: Vec<Checkpoint>,
    /// The last entry that was dropped from the log, and the offset behind it.
    pub(super) purged: Option<(LogId, Offset)>,
    /// By index of their entry; the whole id, because a truncated entry may stay listed.
    pub(super) memberships: BTreeMap<u64, (LogId, Membership)>,
}

/// One `.checkpoint` file as openraft sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// Exclusive.
    pub(super) end_offset: Offset,
    pub(super) epoch: LeaderEpoch,
    pub(super) last_log_id: LogId,
    pub(super) membership: StoredMembership,
}

impl Sidecar {
    /// The default when there is none; a damaged one is an error, since the log cannot be numbered without it.
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        match fs::read(dir.join(FILE)) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Self::renumbered)
                .map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Files of before KIP-853 number replicas without their directories.
    fn renumbered(mut self) -> Self {
        for checkpoint in &mut self.checkpoints {
            let log_id = *checkpoint.membership.log_id();
            let membership = renumbered(checkpoint.membership.membership());
            checkpoint.membership = StoredMembership::new(log_id, membership);
        }
        for (_, membership) in self.memberships.values_mut() {
            *membership = renumbered(membership);
        }
        self
    }

    /// Replaces the file durably.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        let temporary = dir.join("raft-sidecar.json.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(&temporary, dir.join(FILE))?;
        File::open(dir)?.sync_all()
    }
}
