//! Tests of the command line and the storage tool.

use std::ffi::OsString;

use super::*;

fn exit(args: &[&str]) -> ExitCode {
    run(std::iter::once("ottla")
        .chain(args.iter().copied())
        .map(OsString::from))
}

/// `ExitCode` cannot be compared; its debug form can.
fn code(args: &[&str]) -> String {
    format!("{:?}", exit(args))
}

fn expected(code: u8) -> String {
    format!("{:?}", ExitCode::from(code))
}

#[test]
fn the_command_line_is_kafkas() {
    let parse = |args: &[&str]| Cli::try_parse_from(std::iter::once(&"ottla").chain(args));
    let overrides = |args: &[&str]| parse(args).unwrap().server.overrides;
    assert_eq!(overrides(&[]), []);
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    assert_eq!(
        overrides(&[
            "server.properties",
            "--override",
            "node.id=2",
            "--override",
            "a=b=c"
        ]),
        [pair("node.id", "2"), pair("a", "b=c")]
    );
    assert!(parse(&["x.properties", "--override", "nonsense"]).is_err());
    assert!(matches!(
        parse(&["server", "x.properties"]).unwrap().command,
        Some(Command::Server(ServerArgs {
            config: Some(_),
            ..
        }))
    ));
    assert!(matches!(
        parse(&["storage", "random-uuid"]).unwrap().command,
        Some(Command::Storage(storage::Command::RandomUuid))
    ));
    let linked = |args: &[&str]| {
        let args = with_tool_name(args.iter().map(OsString::from).collect());
        Cli::try_parse_from(args).unwrap().command
    };
    assert!(matches!(
        linked(&["/bin/kafka-storage.sh", "random-uuid"]),
        Some(Command::Storage(_))
    ));
    let started = linked(&["kafka-server-start.sh", "a.properties", "--override", "a=b"]);
    assert!(matches!(started, Some(Command::Server(_))));
    assert_eq!(code(&["--help"]), expected(0));
    assert_eq!(code(&["--version"]), expected(0));
    assert_eq!(code(&["--no-such-flag"]), expected(1));
    assert_eq!(code(&["/no/such/file.properties"]), expected(78));
    assert_eq!(code(&["--override", "num.partitions=x"]), expected(78));
    assert_eq!(
        code(&["--strict-config", "--override", "num.partition=1"]),
        expected(78)
    );
}

#[test]
fn storage_formats_once_and_tells_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let file = dir.path().join("server.properties");
    let text = format!("node.id=3\nlog.dirs={},{}\n", one.display(), two.display());
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let id = "abcdefghijklmnopqrstug";
    let format = ["storage", "format", "-t", id, "-c", file, "--standalone"];
    assert_eq!(code(&["storage", "info", "-c", file]), expected(1));
    assert_eq!(
        code(&["storage", "format", "-t", id, "-c", file]),
        expected(1)
    );
    assert_eq!(
        code(&["storage", "format", "-t", "x", "-c", file, "-s"]),
        expected(1)
    );
    assert_eq!(code(&format), expected(0));
    assert_eq!(code(&["storage", "info", "-c", file]), expected(0));
    let voter = "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint";
    assert!(one.join(voter).exists() && !two.join(voter).exists());
    for dir in [one, two] {
        assert!(dir.join("bootstrap.checkpoint").exists());
        let meta = crate::log::MetaProperties::read(&dir).unwrap().unwrap();
        assert_eq!((meta.node_id, meta.cluster_id.as_str()), (3, id));
        assert!(meta.directory_id.is_some());
    }
    assert_eq!(code(&format), expected(1));
    let ignore = [&format[..], &["--ignore-formatted"]].concat();
    assert_eq!(code(&ignore), expected(0));
    let other = [
        "storage",
        "format",
        "-t",
        "Xbcdefghijklmnopqrstug",
        "-c",
        file,
        "-s",
        "-g",
    ];
    assert_eq!(code(&other), expected(1));
}

#[test]
fn only_a_controller_is_formatted_standalone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("broker.properties");
    let text = format!(
        "node.id=3\nprocess.roles=broker\nlisteners=PLAINTEXT://:9092\nlog.dirs={}\n\
         controller.quorum.bootstrap.servers=other:9093\n",
        dir.path().join("data").display()
    );
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let format = [
        "storage",
        "format",
        "-t",
        "abcdefghijklmnopqrstug",
        "-c",
        file,
    ];
    assert_eq!(code(&[&format[..], &["-s"]].concat()), expected(1));
    assert_eq!(code(&format), expected(0));
}

/// It observes the quorum of those that are listed.
#[test]
fn who_is_no_initial_controller_is_formatted_with_those() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.properties");
    let data = dir.path().join("data");
    let text = format!(
        "node.id=3\nprocess.roles=controller\nlisteners=CONTROLLER://:9093\nlog.dirs={}\n\
         controller.listener.names=CONTROLLER\ncontroller.quorum.bootstrap.servers=other:9093\n",
        data.display()
    );
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let cluster_id = "abcdefghijklmnopqrstug";
    let others = "1@a:9093:JTWdDPSzSlaRRZCFVWqKvQ,2@b:9093:JTWdDPSzSlaRRZCFVWqKvg";
    let format = [
        "storage", "format", "-t", cluster_id, "-c", file, "-I", others,
    ];
    assert_eq!(code(&format), expected(0));
    let voters = "__cluster_metadata-0/00000000000000000000-0000000000.checkpoint";
    assert!(data.join(voters).exists());
}
