//! The APIs: one table of what is served, one file per API in `handlers/`, and the way from a frame to a reply.
//! A handler translates wire structs to calls on the modules below; it holds no state and no locks.

pub mod cluster_view;
mod context;
mod dispatch;
pub mod handlers;
pub mod leader_hints;
pub mod metadata_fetch;
mod producer_ids;
mod reply;
mod services;
mod table;
mod topic_creation;
mod vanished;
pub mod voter_changes;

pub use context::{ConnectionInfo, RequestContext};
pub use dispatch::{dispatch, dispatch_produce_run, is_produce};
pub use producer_ids::ProducerIds;
pub use reply::{BoxFuture, Chunk, FileRange, Reply, RequestBody, ResponseBody, ResponseFrame};
pub use services::Services;
pub use table::{API_TABLE, ApiSpec, Authorization, Throttle};
pub use topic_creation::TopicCreation;
pub use vanished::Vanished;
