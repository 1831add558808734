//! `ottla storage`: what kafka-storage does, with its flags, output and exit codes.

mod features;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{EXIT_FAILURE, config_failure};
use crate::clock::{Clock, date_text};
use crate::config::{Config, parse_voter};
use crate::controller::feature_records;
use crate::log::{LogDir, MetaProperties};
use crate::metadata::features::METADATA_VERSION;
use crate::metadata::releases;
use crate::quorum::{self, VoterEndpoint, VoterNode, own_voter};
use crate::types::{BrokerId, Uuid, random_uuid, uuid_from_base64, uuid_to_base64};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Get information about the Kafka log directories on this node.
    Info {
        /// The Kafka configuration file to use.
        #[arg(short, long)]
        config: PathBuf,
    },
    /// Format the Kafka log directories on this node.
    Format(FormatArgs),
    /// Look up the corresponding features for a given metadata version.
    VersionMapping {
        /// The release version to use for the corresponding feature mapping; the latest without.
        #[arg(short, long)]
        release_version: Option<String>,
    },
    /// Look up dependencies for a given feature version.
    FeatureDependencies {
        /// A feature and its version to look up dependencies for, in feature=version format; may be repeated.
        #[arg(short, long, required = true)]
        feature: Vec<String>,
    },
    /// Print a random UUID.
    RandomUuid,
}

#[derive(Debug, Args)]
pub(super) struct FormatArgs {
    /// The Kafka configuration file to use.
    #[arg(short, long)]
    config: PathBuf,
    /// The cluster ID to use.
    #[arg(short = 't', long)]
    cluster_id: String,
    /// When this option is passed, the format command will skip over already formatted directories.
    #[arg(short = 'g', long)]
    ignore_formatted: bool,
    /// The release version to use for the initial feature settings.
    #[arg(short = 'r', long)]
    release_version: Option<String>,
    /// The setting to use for a specific feature, in feature=level format; may be repeated.
    #[arg(short, long)]
    feature: Vec<String>,
    /// Refused: there is no SASL/SCRAM to log in with yet.
    #[arg(short = 'S', long)]
    add_scram: Vec<String>,
    /// Initialize a single-node quorum.
    #[arg(short = 's', long, conflicts_with_all = ["no_initial_controllers", "initial_controllers"])]
    standalone: bool,
    /// The initial controllers, as a comma-separated list of id@hostname:port:directory.
    #[arg(short = 'I', long, conflicts_with = "no_initial_controllers")]
    initial_controllers: Option<String>,
    /// Initialize a server without specifying any initial controllers.
    #[arg(short = 'N', long)]
    no_initial_controllers: bool,
}

pub(super) fn run(command: &Command) -> ExitCode {
    match command {
        Command::RandomUuid => {
            println!("{}", uuid_to_base64(random_uuid()));
            ExitCode::SUCCESS
        }
        Command::Info { config } => with_config(config, |config| Ok(info(config))),
        Command::Format(args) => with_config(&args.config, |config| format(config, args)),
        Command::VersionMapping { release_version } => {
            let mapping = features::version_mapping(release_version.as_deref());
            ended(mapping.map(|text| print!("{text}")))
        }
        Command::FeatureDependencies { feature } => {
            let (text, result) = features::dependencies(feature);
            print!("{text}");
            ended(result)
        }
    }
}

fn with_config(path: &Path, then: impl FnOnce(&Config) -> Result<ExitCode, String>) -> ExitCode {
    let config = match Config::load(Some(path), &[]) {
        Ok(config) => config,
        Err(error) => return config_failure(&error),
    };
    then(&config).unwrap_or_else(|why| ended(Err(why)))
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn info(config: &Config) -> ExitCode {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    let mut metadata = None;
    for dir in config.all_log_dirs() {
        match MetaProperties::read(&dir) {
            _ if !dir.is_dir() => problems.push(format!("{} does not exist", dir.display())),
            Err(error) => problems.push(error.to_string()),
            Ok(None) => problems.push(format!("{} is not formatted.", dir.display())),
            Ok(Some(meta)) => {
                metadata.get_or_insert(meta);
                found.push(dir.display().to_string());
            }
        }
    }
    let plural = |n: usize, one: &'static str, many: &'static str| if n == 1 { one } else { many };
    if !found.is_empty() {
        println!(
            "{}",
            plural(
                found.len(),
                "Found log directory:",
                "Found log directories:"
            )
        );
        println!("  {}\n", found.join("\n  "));
    }
    if let Some(meta) = metadata {
        let dir_id = meta.directory_id.map_or(String::new(), |id| {
            format!("directory.id={}, ", uuid_to_base64(id))
        });
        let (cluster, node) = (meta.cluster_id, meta.node_id);
        println!("Found metadata: {{cluster.id={cluster}, {dir_id}node.id={node}, version=1}}\n");
    }
    if problems.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!(
        "{}",
        plural(problems.len(), "Found problem:", "Found problems:")
    );
    println!("  {}\n", problems.join("\n  "));
    ExitCode::from(EXIT_FAILURE)
}

fn format(config: &Config, args: &FormatArgs) -> Result<ExitCode, String> {
    let cluster_id = uuid_from_base64(&args.cluster_id).filter(|_| args.cluster_id.len() == 22);
    let cluster_id =
        uuid_to_base64(cluster_id.ok_or_else(|| {
            format!("Cluster ID string {} is not a base64 UUID", args.cluster_id)
        })?);
    if !args.add_scram.is_empty() {
        return Err("--add-scram cannot be used: this release has no SASL/SCRAM that the credentials would be for.".to_owned());
    }
    let is_dynamic = config.controller_quorum_voters.is_empty();
    let names_voters = args.standalone || args.initial_controllers.is_some();
    let levels = features::chosen(args.release_version.as_deref(), &args.feature, is_dynamic)?;
    if !is_dynamic && names_voters {
        return Err("You cannot specify controller.quorum.voters and format the node with --initial-controllers or --standalone. If you want to use dynamic quorum, please remove controller.quorum.voters and specify controller.quorum.bootstrap.servers instead.".to_owned());
    }
    if config.is_controller() && is_dynamic && !names_voters && !args.no_initial_controllers {
        return Err("Because controller.quorum.voters is not set on this controller, you must specify one of the following: --standalone, --initial-controllers, or --no-initial-controllers.".to_owned());
    }
    if args.standalone && !config.is_controller() {
        return Err("You can only use --standalone on a controller.".to_owned());
    }
    let voters = match &args.initial_controllers {
        Some(text) => Some(initial_controllers(config, text)?),
        None => args.standalone.then(|| {
            let own = own_voter(config, directory_id());
            BTreeMap::from([(config.node_id, own)])
        }),
    };
    let new = unformatted(config, &cluster_id, args.ignore_formatted)?;
    if new.is_empty() {
        println!("All of the log directories are already formatted.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("Bootstrap metadata: {}", features::bootstrap_text(&levels));
    let version = levels.get(METADATA_VERSION).copied();
    let release = version.and_then(releases::name).unwrap_or_default();
    for dir in new {
        let is_metadata = dir == config.metadata_log_dir;
        let voters = voters.as_ref().filter(|_| is_metadata);
        let own = voters.map(|voters| voters.get(&config.node_id));
        let what = match own {
            Some(Some(_)) => "dynamic metadata voter directory",
            Some(None) => "dynamic metadata directory",
            None if is_metadata => "metadata directory",
            None => "data directory",
        };
        println!(
            "Formatting {what} {} with metadata.version {release}.",
            dir.display()
        );
        let directory_id = own
            .flatten()
            .map_or_else(directory_id, |own| own.directory_id);
        let meta = MetaProperties {
            cluster_id: cluster_id.clone(),
            node_id: config.node_id,
            directory_id: Some(directory_id),
        };
        format_dir(&dir, meta, &levels, voters)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The directories to format; those that are formatted must be of this cluster, and may be there only if asked for.
fn unformatted(
    config: &Config,
    cluster_id: &str,
    ignore_formatted: bool,
) -> Result<Vec<PathBuf>, String> {
    let mut new = Vec::new();
    for dir in config.all_log_dirs() {
        match MetaProperties::read(&dir).map_err(|error| error.to_string())? {
            None => new.push(dir),
            Some(meta) if meta.cluster_id != cluster_id => {
                return Err(format!(
                    "Log directory {} belongs to cluster {}, not {cluster_id}.",
                    dir.display(),
                    meta.cluster_id
                ));
            }
            Some(_) if ignore_formatted => {}
            Some(_) => {
                return Err(format!(
                    "Log directory {} is already formatted. Use --ignore-formatted to ignore this directory and format the others.",
                    dir.display()
                ));
            }
        }
    }
    Ok(new)
}

/// Parses `id@host:port:directory,...` (`DynamicVoters`). This node need not be in it: then it observes the quorum.
fn initial_controllers(
    config: &Config,
    text: &str,
) -> Result<BTreeMap<BrokerId, VoterNode>, String> {
    let mut voters = BTreeMap::new();
    let name = config.controller_listener_names.first();
    for one in text.split(',').map(str::trim) {
        let malformed = || format!("{one} is not id@hostname:port:directory");
        let (address, directory) = one.rsplit_once(':').ok_or_else(malformed)?;
        let directory_id = uuid_from_base64(directory).ok_or_else(malformed)?;
        let (id, host, port) = parse_voter(address).ok_or_else(malformed)?;
        let endpoint = VoterEndpoint {
            name: name.cloned().unwrap_or_default(),
            host,
            port,
        };
        let node = VoterNode {
            directory_id,
            endpoints: vec![endpoint],
        };
        if voters.insert(id, node).is_some() {
            return Err(format!("Initial controllers name node {id} twice."));
        }
    }
    Ok(voters)
}

/// Gives the directory its owner, the features of a new cluster and, if there are any, the voters of its first quorum.
fn format_dir(
    dir: &Path,
    meta: MetaProperties,
    levels: &features::Levels,
    voters: Option<&BTreeMap<BrokerId, VoterNode>>,
) -> Result<(), String> {
    let now_ms = Clock::system().wall_ms();
    let failed = |error: io::Error| format!("Cannot format {}: {error}", dir.display());
    let log_dir = LogDir::open(dir).map_err(|error| error.to_string())?;
    quorum::write_bootstrap(dir, &feature_records(levels), now_ms).map_err(failed)?;
    if let Some(voters) = voters {
        quorum::write_voters(dir, voters, now_ms).map_err(failed)?;
    }
    // Last: it is what makes the directory a formatted one.
    log_dir
        .format(meta, &date_text(now_ms))
        .map_err(|error| error.to_string())
}

/// Kafka keeps the first hundred ids for meanings of its own.
fn directory_id() -> Uuid {
    loop {
        let id = random_uuid();
        if id.as_u128() > 100 {
            return id;
        }
    }
}
