//! The `ottla` command.

use std::process::ExitCode;

/// Hostile lengths in requests make the codec reserve memory that is never touched: this allocator maps it lazily.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Huge pages would make every thread's small heap resident as 2 MiB, and page faults wait for compaction.
    // A kernel without them needs nothing.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    raise_descriptor_limit();
    ottla::cli::run(std::env::args_os())
}

/// A partition takes a descriptor and a connection takes one: the soft limit of a login shell is far too low.
fn raise_descriptor_limit() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    // Lower than wished is still enough for a small broker; running out later is reported where it happens.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
}
