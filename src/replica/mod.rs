//! The partitions that this broker hosts. Follows the metadata image: opens logs for what is assigned here,
//! removes what was deleted. Handlers look partitions up here.

mod alter_log_dirs;
mod checkpoints;
mod fetch_session;
mod fetcher;
mod hosted;
mod isr_updates;
mod log_cleaner;
mod log_dirs;
mod log_scrubber;
mod replication_quota;
mod retention;
mod throttle;
mod trash;

pub use alter_log_dirs::FutureReplica;
pub use fetch_session::{FetchContext, PartitionKey, SessionCache, TopicRef, Wanted};
pub use fetcher::{FetchSession, Fetchers, Positions, SessionKey, SessionRequest};
pub use hosted::{HostedTopic, ReplicaManager};
pub use isr_updates::AlterPartitionChannel;
pub use log_cleaner::LogCleaner;
pub use log_dirs::is_cordoned;
pub use log_scrubber::{LogScrubber, ScrubRun};
pub use replication_quota::{ReplicationQuota, ReplicationQuotas};
