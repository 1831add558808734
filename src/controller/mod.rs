//! The active controller: one event loop that turns requests into metadata records and answers once they are committed.
//!
//! The `*_control` files are pure: they look at the image, the request and the time, and return records and a response
//! ([`Outcome`]). Only [`Handle`] and the event loop know of tasks and channels.

mod failure;
mod handle;
mod outcome;

pub use handle::Handle;
pub use outcome::{Context, Outcome};
