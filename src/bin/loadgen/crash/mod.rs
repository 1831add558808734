//! `crash-writer`: idempotent producers, an offset committer and a topic maker that outlive a broker which is killed again and
//! again, and write down what was acknowledged. `crash-verify`: reads everything back and holds it against that.
//!
//! Each partition has one producer that numbers its records from 0, so a record's offset must be its number: anything
//! lost, doubled or out of order shows at once. With `--cleanup` two more topics are written to, one that retention and one that
//! compaction takes from; what is gone there must be what they may take.

mod verify;
mod write;

use std::path::{Path, PathBuf};

use clap::Args;
use kafka_protocol::messages::GroupId;
use kafka_protocol::protocol::StrBytes;

pub use verify::verify;
pub use write::write;

#[derive(Args, Clone)]
pub struct CrashArgs {
    /// Where the logs of what was acknowledged go; the writer ends when a file `stop` appears there
    #[arg(long)]
    dir: PathBuf,
    /// Partitions of each topic, each with its own producer on its own connection
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Also the topics that retention and compaction take from
    #[arg(long)]
    cleanup: bool,
}

#[derive(Args, Clone)]
pub struct WriterArgs {
    #[command(flatten)]
    crash: CrashArgs,
    #[arg(long, default_value_t = 10)]
    per_batch: u64,
    /// Pause of a producer between batches
    #[arg(long, default_value_t = 2000)]
    pause_us: u64,
}

#[derive(Args, Clone)]
pub struct VerifyArgs {
    #[command(flatten)]
    crash: CrashArgs,
    /// By now retention and compaction must have taken something from every partition
    #[arg(long)]
    reduced: bool,
}

impl CrashArgs {
    fn loads(&self) -> &'static [Load] {
        let all = &[Load::Kept, Load::Retained, Load::Compacted];
        if self.cleanup { all } else { &all[..1] }
    }
}

/// What may happen to the records of a topic.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    Kept,
    Retained,
    Compacted,
}

const RETENTION_BYTES: usize = 400_000;
/// Keys of a compacted partition.
const KEYS: u64 = 500;

impl Load {
    fn topic(self) -> &'static str {
        match self {
            Load::Kept => "crash",
            Load::Retained => "crash-retained",
            Load::Compacted => "crash-compacted",
        }
    }

    fn configs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Load::Kept => &[("segment.bytes", "1048576")],
            Load::Retained => &[
                ("internal.segment.bytes", "100000"),
                ("retention.bytes", "400000"),
            ],
            // A tombstone outlives any one read of the partition.
            Load::Compacted => &[
                ("internal.segment.bytes", "100000"),
                ("cleanup.policy", "compact"),
                ("min.cleanable.dirty.ratio", "0.01"),
                ("delete.retention.ms", "20000"),
            ],
        }
    }

    fn key(self, n: u64) -> Option<Vec<u8>> {
        (self == Load::Compacted).then(|| (n % KEYS).to_string().into_bytes())
    }

    /// None is a tombstone.
    fn value(self, partition: i32, n: u64) -> Option<Vec<u8>> {
        (self != Load::Compacted || !is_tombstone(n))
            .then(|| format!("{partition}:{n}:{}", "x".repeat((n % 150) as usize)).into_bytes())
    }
}

fn is_tombstone(n: u64) -> bool {
    n % 101 == 50
}

const GROUPS: usize = 3;

/// The file with what was acknowledged of one partition.
fn records_file(dir: &Path, load: Load, partition: i32) -> PathBuf {
    dir.join(format!("{}-{partition}", load.topic()))
}

fn group_name(i: usize) -> String {
    format!("crash-group-{i}")
}

fn group_id(i: usize) -> GroupId {
    GroupId(StrBytes::from_string(group_name(i)))
}
