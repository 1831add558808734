//! Load generator, fault driver and fuzzer for any Kafka broker: a development tool, used by scripts/bench,
//! scripts/crash and scripts/fuzz. Blocking sockets and threads, pre-encoded frames; one JSON line of results a run.

mod batch;
mod controller_seeds;
mod crash;
mod fetch;
mod fuzz;
mod latency;
mod process;
mod produce;
mod seeds;
mod setup;
mod stats;
mod wire;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Load for a Kafka broker; prints one JSON line")]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Args, Clone)]
pub struct Common {
    /// host:port
    #[arg(long, default_value = "127.0.0.1:9092", global = true)]
    broker: String,
    /// The broker's process, for its CPU time and memory; of a cluster all of them, with commas
    #[arg(long, global = true, value_delimiter = ',')]
    pid: Vec<u32>,
    /// Of the topics that are made; requests go to the leaders
    #[arg(long, default_value_t = 1, global = true)]
    replication_factor: i16,
    /// Seconds that count
    #[arg(long, default_value_t = 5.0, global = true)]
    seconds: f64,
    /// Seconds before them that do not
    #[arg(long, default_value_t = 1.0, global = true)]
    warmup: f64,
}

#[derive(Subcommand)]
enum Mode {
    /// Produce as fast as it goes
    Produce(ProduceArgs),
    /// Read cached data over and over
    Fetch(FetchArgs),
    /// One producer, N consumers at the tail
    Fanout(FanoutArgs),
    /// Open loop, acks=all: ack and end-to-end latency
    Latency(LatencyArgs),
    /// Hold connections that do nothing
    Idle(IdleArgs),
    /// Measure the broker doing nothing
    Watch,
    /// Time from exec to the first answer, and from SIGTERM to exit
    Ready(ReadyArgs),
    /// Create many partitions, and time the first append to each
    Topics(TopicsArgs),
    /// Idempotent producers that outlive the broker and log what was acknowledged
    CrashWriter(crash::WriterArgs),
    /// Check that everything acknowledged is there, once, in order
    CrashVerify(crash::VerifyArgs),
    /// Mutated frames of every API and version
    Fuzz(fuzz::FuzzArgs),
}

#[derive(Args, Clone)]
pub struct ProduceArgs {
    #[arg(long, default_value = "perf")]
    topic: String,
    #[arg(long, default_value_t = 1 << 20)]
    batch_bytes: usize,
    #[arg(long, default_value_t = 100)]
    record_bytes: usize,
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    #[arg(long, default_value_t = 1, allow_negative_numbers = true)]
    acks: i16,
    /// Topic configuration key=value
    #[arg(long)]
    config: Vec<String>,
    /// Delete the topic at the end
    #[arg(long)]
    delete: bool,
}

/// `key=value` words as pairs.
fn topic_configs(words: &[String]) -> Vec<(&str, &str)> {
    words.iter().filter_map(|c| c.split_once('=')).collect()
}

#[derive(Args, Clone)]
pub struct FetchArgs {
    #[arg(long, default_value = "perf-fetch")]
    topic: String,
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value_t = 1 << 20)]
    max_bytes: i32,
    /// What an empty topic is filled with
    #[arg(long, default_value_t = 256 << 20)]
    data_bytes: u64,
    #[arg(long, default_value_t = 16 << 10)]
    batch_bytes: usize,
    #[arg(long, default_value_t = 100)]
    record_bytes: usize,
    /// Topic configuration key=value
    #[arg(long)]
    config: Vec<String>,
}

#[derive(Args, Clone)]
pub struct FanoutArgs {
    #[arg(long, default_value = "perf-fanout")]
    topic: String,
    #[arg(long, default_value_t = 8)]
    consumers: usize,
    #[arg(long, default_value_t = 100.0)]
    mb_per_second: f64,
    #[arg(long, default_value_t = 64 << 10)]
    batch_bytes: usize,
}

#[derive(Args, Clone)]
pub struct LatencyArgs {
    #[arg(long, default_value = "perf-latency")]
    topic: String,
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    #[arg(long, default_value_t = 100)]
    record_bytes: usize,
}

#[derive(Args, Clone)]
pub struct IdleArgs {
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
}

#[derive(Args, Clone)]
pub struct ReadyArgs {
    #[arg(long, default_value_t = 120.0)]
    timeout: f64,
    /// Wait for the leader of this topic's partition 0 too
    #[arg(long)]
    topic: Option<String>,
    /// Seconds between the first answer and SIGTERM
    #[arg(long, default_value_t = 1.0)]
    settle: f64,
    /// The broker's command line, after --
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Args, Clone)]
pub struct TopicsArgs {
    #[arg(long, default_value = "many")]
    prefix: String,
    #[arg(long, default_value_t = 10_000)]
    partitions: i32,
    #[arg(long, default_value_t = 1000)]
    per_topic: i32,
    /// Then append one record to each partition, one at a time
    #[arg(long)]
    append: bool,
}

fn run(cli: &Cli) -> wire::Outcome<serde_json::Map<String, serde_json::Value>> {
    let common = &cli.common;
    match &cli.mode {
        Mode::Produce(a) => produce::run(common, a),
        Mode::Fetch(a) => fetch::run(common, a),
        Mode::Fanout(a) => fetch::fanout(common, a),
        Mode::Latency(a) => latency::run(common, a),
        Mode::Idle(a) => process::idle(common, a),
        Mode::Watch => Ok(process::watch(common)),
        Mode::Ready(a) => process::ready(common, a),
        Mode::Topics(a) => process::topics(common, a),
        Mode::CrashWriter(a) => crash::write(common, a),
        Mode::CrashVerify(a) => crash::verify(common, a),
        Mode::Fuzz(a) => fuzz::run(common, a),
    }
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(line) => {
            let failed = line.get("ok") == Some(&serde_json::Value::Bool(false));
            println!("{}", serde_json::Value::Object(line));
            std::process::ExitCode::from(u8::from(failed))
        }
        Err(e) => {
            eprintln!("loadgen: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}
