//! What a broker makes of the directories that it starts on, and those that it refuses.

use super::super::storage::{formatted_records, identify};
use super::*;
use crate::controller::feature_records;
use crate::log::LogDirs;
use crate::metadata::features::{self, METADATA_VERSION};
use crate::quorum::write_bootstrap;

/// Two empty directories, and where they are.
fn two_dirs() -> ([TempDir; 2], [String; 2]) {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("temporary directory"));
    let places = dirs.each_ref().map(|dir| dir.path().display().to_string());
    (dirs, places)
}

/// The cluster id that a broker finds or gives itself there; else why it does not start.
fn start_on(places: &[String]) -> Result<String, String> {
    let settings = [("log.dirs".to_owned(), places.join(","))];
    let config = Config::load(None, &settings).expect("settings of the test");
    let dirs = LogDirs::open(&config.log_dirs, &config.metadata_log_dir).expect("directories");
    identify(&config, &dirs, 0).map_err(|error| error.to_string())
}

#[test]
fn a_partition_in_two_directories_is_refused_with_both_places() {
    let (dirs, places) = two_dirs();
    let start = || start_on(&places);
    let cluster_id = start().expect("two empty directories");
    std::fs::create_dir(dirs[0].path().join("orders-0")).expect("made");
    std::fs::create_dir(dirs[1].path().join("orders-1")).expect("made");
    assert_eq!(start(), Ok(cluster_id));
    std::fs::create_dir(dirs[1].path().join("orders-0")).expect("made");
    let refused = start().expect_err("orders-0 is there twice");
    for part in [&places[0], &places[1], "orders-0", "dump-log"] {
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn a_cluster_begins_with_the_features_that_it_was_formatted_with() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let dir = temp.path().to_owned();
    let begin = || {
        let dirs = LogDirs::open(std::slice::from_ref(&dir), &dir).expect("one directory");
        formatted_records(&dirs).map_err(|error| error.to_string())
    };
    let newest = feature_records(&features::default_levels(features::METADATA_VERSION_LATEST));
    assert_eq!(begin(), Ok(newest), "nobody formatted it");
    let mut levels = features::default_levels(25);
    levels.insert("group.version", 0);
    let records = feature_records(&levels);
    assert_eq!(
        records.len(),
        2,
        "metadata.version and transaction.version: {records:?}"
    );
    write_bootstrap(&dir, &records, 0).expect("written");
    assert_eq!(begin(), Ok(records));
    levels.insert(METADATA_VERSION, 99);
    write_bootstrap(&dir, &feature_records(&levels), 0).expect("written");
    let refused = begin().expect_err("a newer release");
    assert!(refused.contains("metadata.version=99"), "{refused}");
    std::fs::write(dir.join("bootstrap.checkpoint"), b"damaged").expect("written");
    let refused = begin().expect_err("no checkpoint");
    assert!(refused.contains("cannot be read"), "{refused}");
}

#[test]
fn logs_without_meta_properties_are_not_given_to_a_new_cluster() {
    let (dirs, places) = two_dirs();
    let start = || start_on(&places);
    let files = dirs
        .each_ref()
        .map(|dir| ["meta.properties", "elsewhere"].map(|name| dir.path().join(name)));
    let lose = || {
        for [meta, lost] in &files {
            std::fs::rename(meta, lost).expect("moved");
        }
    };
    start().expect("empty directories");
    lose();
    // All that a start leaves that is cut short: the first voters.
    start().expect("no log was ever written");
    lose();
    let log = dirs[1].path().join("orders-0/00000000000000000000.log");
    std::fs::create_dir(log.parent().expect("orders-0")).expect("made");
    std::fs::write(log, []).expect("made");
    let refused = start().expect_err("whose logs are these?");
    assert!(refused.contains("no meta.properties"), "{refused}");
    assert!(refused.contains(&places[1]), "{refused}");
    for [meta, lost] in &files {
        assert!(!meta.exists());
        std::fs::rename(lost, meta).expect("moved back");
    }
    start().expect("it is known whose they are");
}

#[test]
fn log_starts_are_checkpointed_at_an_interval_of_their_own() {
    let broker = Fixture::start_with(&[("log.flush.start.offset.checkpoint.interval.ms", "50")]);
    let mut stream = broker.connect();
    create_topic(&mut stream, "cut");
    stream.write_all(&produce("cut", "value", 1)).expect("sent");
    assert_eq!(produced_offset(response(&mut stream).1), 0);
    assert_eq!(broker.delete_records("cut", 1, 10_000), (0, 1));
    let says = |file: &str| {
        let text = std::fs::read_to_string(broker.dir.path().join(file));
        text.is_ok_and(|text| text.lines().any(|line| line == "cut 0 1"))
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !says("log-start-offset-checkpoint") {
        assert!(std::time::Instant::now() < deadline, "nothing is written");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Those are due in a minute.
    assert!(!says("recovery-point-offset-checkpoint"));
}
