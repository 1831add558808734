//! The `ottla` command.

use std::process::ExitCode;

/// Hostile lengths in requests make the codec reserve memory that is never touched: this allocator maps it lazily.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ottla::cli::run(std::env::args_os())
}
