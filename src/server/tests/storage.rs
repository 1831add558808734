//! Directories that a broker does not start on.

use super::super::storage::identify;
use crate::config::Config;
use crate::log::LogDirs;

#[test]
fn a_partition_in_two_directories_is_refused_with_both_places() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("temporary directory"));
    let places = dirs.each_ref().map(|dir| dir.path().display().to_string());
    let settings = [("log.dirs".to_owned(), places.join(","))];
    let config = Config::load(None, &settings).expect("settings of the test");
    let start = || {
        let dirs =
            LogDirs::open(&config.log_dirs, &config.metadata_log_dir).expect("two directories");
        identify(&config, &dirs, 0).map_err(|error| error.to_string())
    };
    std::fs::create_dir(dirs[0].path().join("orders-0")).expect("made");
    std::fs::create_dir(dirs[1].path().join("orders-1")).expect("made");
    let cluster_id = start().expect("each partition is there once");
    assert_eq!(start(), Ok(cluster_id));
    std::fs::create_dir(dirs[1].path().join("orders-0")).expect("made");
    let refused = start().expect_err("orders-0 is there twice");
    for part in [&places[0], &places[1], "orders-0", "dump-log"] {
        assert!(refused.contains(part), "{refused}");
    }
}
