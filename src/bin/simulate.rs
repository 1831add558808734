//! Runs simulated clusters: `simulate [--seeds N] [--from SEED] [--bugs] [--trace SEED] [--bug NAME]`. Two threads. Prints the
//! first failing seed with its trace, and ends with the line `N passed, N failed`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use ottla::sim::{Bug, Outcome, SCENARIOS, Shown, run};

/// Seeds within which each planted bug must be found: as many as a run takes by default.
const BUG_SEEDS: u64 = 20_000;

#[derive(Parser)]
#[command(about = "Simulated clusters with faults, one from each seed")]
struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Plant each known bug and see that it is found
    #[arg(long)]
    bugs: bool,
    /// Print what happens in this seed
    #[arg(long)]
    trace: Option<u64>,
    /// With a planted bug, by its name
    #[arg(long)]
    bug: Option<Bug>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let bug = arguments.bug;
    if let Some(seed) = arguments.trace {
        let outcome = run(seed, bug, true);
        print!("{}", outcome.trace);
        return exit_code(outcome.violation.is_none());
    }
    if arguments.bugs {
        return exit_code(find_bugs(arguments.from));
    }
    let all_well = run_seeds(arguments.from, arguments.seeds, bug);
    exit_code(all_well)
}

fn exit_code(all_well: bool) -> ExitCode {
    if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn find_bugs(from: u64) -> bool {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let first = (from..from + BUG_SEEDS).find_map(|seed| {
            let violation = run(seed, Some(bug), false).violation?;
            Some((seed, violation))
        });
        if let Some((seed, violation)) = first {
            println!("ok    {bug:?}: seed {seed}: {}", violation.0);
        } else {
            println!("FAIL  {bug:?}: not found in {BUG_SEEDS} seeds");
            missed.push(bug);
        }
    }
    for (scenario, shown) in SCENARIOS {
        match shown {
            Shown::Simulated(bug) if missed.contains(&bug) => {
                println!("      {scenario}: missed as {bug:?}");
            }
            Shown::Simulated(bug) => println!("      {scenario}: found here as {bug:?}"),
            Shown::Tested(test) => println!("      {scenario}: found by the test {test}"),
        }
    }
    println!(
        "{} passed, {} failed",
        Bug::ALL.len() - missed.len(),
        missed.len()
    );
    missed.is_empty()
}

fn run_seeds(from: u64, count: u64, bug: Option<Bug>) -> bool {
    let started = Instant::now();
    let (next, failed, events) = (AtomicU64::new(from), AtomicU64::new(0), AtomicU64::new(0));
    let acknowledged = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + count {
                return;
            }
            let outcome: Outcome = run(seed, bug, false);
            events.fetch_add(outcome.events, Ordering::Relaxed);
            acknowledged.fetch_add(outcome.acknowledged as u64, Ordering::Relaxed);
            if let Some(violation) = outcome.violation
                && failed.fetch_add(1, Ordering::Relaxed) == 0
            {
                println!("{}", run(seed, bug, true).trace);
                println!("FAIL  seed {seed}: {}", violation.0);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let failed = failed.load(Ordering::Relaxed);
    println!(
        "{} seeds, {} events, {} acknowledged records in {:.1} s",
        count,
        events.load(Ordering::Relaxed),
        acknowledged.load(Ordering::Relaxed),
        started.elapsed().as_secs_f64()
    );
    println!("{} passed, {failed} failed", count - failed);
    failed == 0
}
