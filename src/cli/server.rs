//! Running a node: settings, log lines, runtime, start, and the orderly stop on SIGTERM or SIGINT.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::{EXIT_CONFIG, EXIT_FAILURE, ServerArgs, config_failure, load, logging};
use crate::config::Config;
use crate::server::{Broker, StartError};

pub(super) fn run(args: &ServerArgs) -> ExitCode {
    let config = match load(args) {
        Ok(config) => config,
        Err(error) => return config_failure(&error),
    };
    logging::init();
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start threads");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let code = runtime.block_on(serve(config));
    // Everything that must reach the disk has: what still runs is idle.
    runtime.shutdown_timeout(Duration::ZERO);
    code
}

async fn serve(config: Config) -> ExitCode {
    // Taken before the start, so that a stop during it is not lost.
    let mut stop = match stop_signal() {
        Ok(stop) => Box::pin(stop),
        Err(error) => {
            error!(%error, "cannot listen for signals");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let started = tokio::select! {
        started = Broker::start(config) => started,
        // A broker that waits for its controllers, most likely. Nothing has been served that could be left half done.
        name = &mut stop => {
            info!("terminating process due to signal {name}, before it was started");
            return ExitCode::SUCCESS;
        }
    };
    let broker = match started {
        Ok(broker) => broker,
        Err(error) => {
            error!("cannot start: {error}");
            return ExitCode::from(match error {
                StartError::Format { .. }
                | StartError::Listen { .. }
                | StartError::UnknownHost(_)
                | StartError::Protocol { .. } => EXIT_CONFIG,
                _ => EXIT_FAILURE,
            });
        }
    };
    let name = tokio::select! {
        name = stop => name,
        reason = broker.failed() => {
            error!("shutting down at once because {reason}");
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    info!("terminating process due to signal {name}");
    broker.shutdown().await;
    ExitCode::SUCCESS
}

/// Resolves with the name of the first signal to stop.
fn stop_signal() -> io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
