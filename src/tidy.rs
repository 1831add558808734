//! Rules of the source tree that the compiler and clippy do not check. Function length is clippy's (`.clippy.toml`).
//!
//! An exception is a line in one of the tables below, with its reason, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Layers of the design: a module uses only those below its own.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["types", "clock"]),
    (1, &["protocol", "config", "metrics"]),
    (2, &["log", "metadata", "rpc"]),
    (3, &["partition", "quorum", "security", "quota"]),
    (4, &["coordinator", "replica", "controller"]),
    (5, &["group", "transaction", "share"]),
    (6, &["api"]),
    (7, &["server", "admin"]),
    (8, &["main", "cli", "sim"]),
];

/// Uses of a module that is not below the user: (user, used).
const LAYER_EXCEPTIONS: &[(&str, &str)] = &[
    // The errors that a config key or value is refused with are Kafka's.
    ("config", "protocol"),
    // What a produced batch must keep to is in the topic's configuration.
    ("protocol", "config"),
    // Timestamps are part of the vocabulary.
    ("clock", "types"),
    // The loader follows a `MetaLog`; quorum knows records, not images.
    ("metadata", "quorum"),
    // Start and stop of the process include the HTTP listener.
    ("server", "admin"),
];

const FILE_LINES_MAX: usize = 1000;

/// Files that are longer.
const LONG_FILES: &[&str] = &[];

/// The only files that may switch `unsafe_code` on.
const UNSAFE_FILES: &[&str] = &["log/sys.rs"];

/// Modules that read bytes from the network or the disk: a failure there is an error, never a panic.
const WIRE_AND_DISK: &[&str] = &[
    "protocol",
    "log",
    "api",
    "rpc",
    "quorum",
    "metadata",
    "coordinator",
    "group",
    "replica",
];

/// Split, so that this file does not contain them itself.
const BANNED: &[(&str, &str)] = &[
    ("to", "do!("),
    ("unimpl", "emented!("),
    ("db", "g!("),
    ("FIX", "ME"),
    ("XX", "X "),
];

struct Source {
    /// Below `src`, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    /// First component of the path: the module of the layer table.
    fn module(&self) -> &str {
        let end = self.path.find(['/', '.']).unwrap_or(self.path.len());
        &self.path[..end]
    }

    fn is_test(&self) -> bool {
        let tests = ["tests.rs", "sample.rs", "tidy.rs", "testing.rs"];
        tests.iter().any(|name| self.path.ends_with(name)) || self.path.contains("/tests/")
    }

    /// `lib.rs` names every module; programs in `bin` are crates of their own.
    fn is_other_crate(&self) -> bool {
        self.path == "lib.rs" || self.path.starts_with("bin/")
    }

    /// The code in front of a test module, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines
            .take_while(|(_, line)| {
                !line.starts_with("#[cfg(test)]\nmod tests {") && *line != "mod tests {"
            })
            .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(dir).expect("source directory") {
            let path = entry.expect("source directory").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("source file in UTF-8");
                let below = path.strip_prefix(root()).expect("found below it");
                let path = below.to_string_lossy().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    assert!(found.len() > 20, "the walk finds the tree");
    found
}

/// Fails with all findings at once.
fn report(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

fn layer(module: &str) -> Option<u8> {
    let row = LAYERS.iter().find(|(_, modules)| modules.contains(&module));
    row.map(|(layer, _)| *layer)
}

/// Names behind each `crate::` of a line.
fn used_modules(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

fn layer_findings(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources
        .iter()
        .filter(|s| !s.is_test() && !s.is_other_crate())
    {
        let module = source.module();
        let Some(own) = layer(module) else {
            findings.push(format!(
                "{}: module {module} is not in the layer table",
                source.path
            ));
            continue;
        };
        for (number, line) in source.code() {
            for used in used_modules(line).filter(|used| *used != module) {
                let below = layer(used).is_some_and(|layer| layer < own);
                if !below && !LAYER_EXCEPTIONS.contains(&(module, used)) {
                    findings.push(format!("{}:{number}: {module} uses {used}", source.path));
                }
            }
        }
    }
    findings
}

#[test]
fn modules_use_only_lower_layers() {
    report(layer_findings(&sources()));
}

#[test]
fn upward_uses_are_found() {
    let source = |path: &str, text: &str| Source {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let findings = layer_findings(&[
        source("log/segment.rs", "use crate::partition::Partition;\n"),
        source(
            "log/index.rs",
            "let id = crate::log::x(crate::types::y());\n",
        ),
        source("group/mod.rs", "// crate::api is above\n"),
        source("replica/mod.rs", "use crate::coordinator::Runtime;\n"),
        source("odd.rs", ""),
    ]);
    assert_eq!(findings.len(), 3, "{findings:?}");
}

#[test]
fn layer_exceptions_are_needed() {
    let sources = sources();
    let used = |(user, used): (&str, &str)| {
        let of_user = sources
            .iter()
            .filter(|s| s.module() == user && !s.is_test());
        of_user
            .flat_map(Source::code)
            .any(|(_, line)| used_modules(line).any(|u| u == used))
    };
    for exception in LAYER_EXCEPTIONS {
        assert!(used(*exception), "{exception:?} is not used any more");
    }
}

#[test]
fn files_are_short() {
    let mut findings = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        let excepted = LONG_FILES.contains(&source.path.as_str());
        if (lines > FILE_LINES_MAX) != excepted {
            findings.push(format!("{}: {lines} lines", source.path));
        }
    }
    report(findings);
}

#[test]
fn files_say_what_they_are() {
    let silent = |source: &Source| !source.text.starts_with("//! ");
    let findings = sources().into_iter().filter(silent);
    report(
        findings
            .map(|s| format!("{}: no //! at the top", s.path))
            .collect(),
    );
}

#[test]
fn sources_are_ascii() {
    let mut findings = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if !line.is_ascii() {
                findings.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    report(findings);
}

#[test]
fn nothing_is_left_for_later() {
    let mut findings = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for (front, back) in BANNED {
                if line.contains(&format!("{front}{back}")) {
                    findings.push(format!("{}:{}: {line}", source.path, number + 1));
                }
            }
        }
    }
    report(findings);
}

#[test]
fn wire_and_disk_bytes_are_not_unwrapped() {
    let mut findings = Vec::new();
    for source in sources() {
        if source.is_test() || !WIRE_AND_DISK.contains(&source.module()) {
            continue;
        }
        for (number, line) in source.code() {
            if line.contains(".unwrap()") {
                findings.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    report(findings);
}

#[test]
fn unsafe_code_stays_in_its_file() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| s.path != "tidy.rs") {
        let allowed = UNSAFE_FILES.contains(&source.path.as_str());
        if source.text.contains("allow(unsafe_code") && !allowed {
            findings.push(format!("{}: switches unsafe code on", source.path));
        }
    }
    report(findings);
}

/// Modules named in rows of the API table: `now!(x)`, `settled!(x)`, `later!(x)` or `raw!(x)`.
fn handlers_in_table(table: &str) -> BTreeSet<String> {
    let rows = table
        .lines()
        .filter(|line| line.trim_start().starts_with("api!("));
    rows.filter_map(|row| {
        let (_, rest) = row
            .split_once("now!(")
            .or(row.split_once("settled!("))
            .or(row.split_once("later!("))
            .or(row.split_once("raw!("))?;
        rest.split_once(')').map(|(name, _)| name.to_owned())
    })
    .collect()
}

#[test]
fn every_handler_has_a_row_and_every_row_a_handler() {
    let sources = sources();
    let table = sources.iter().find(|s| s.path == "api/table.rs");
    let rows = handlers_in_table(&table.expect("the table of APIs").text);
    assert!(rows.len() >= 7, "rows are recognised: {rows:?}");
    let files: BTreeSet<String> = sources
        .iter()
        .filter_map(|s| s.path.strip_prefix("api/handlers/"))
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name != "mod" && !name.ends_with("tests"))
        .map(|name| name.trim_end_matches("/mod").to_owned())
        .filter(|name| !name.contains('/'))
        .collect();
    let shared = |name: &&String| !HANDLER_PARTS.contains(&name.as_str());
    let odd: Vec<String> = rows
        .symmetric_difference(&files)
        .filter(shared)
        .cloned()
        .collect();
    report(odd);
}

/// Files beside the handlers that several of them share.
const HANDLER_PARTS: &[&str] = &[];

/// A rule, and a test that proves it.
type Proof = (String, String);

/// `compat-tests/RULES.md`: each rule with each of its tests.
fn proofs_in_table(table: &str) -> BTreeSet<Proof> {
    let mut proofs = BTreeSet::new();
    for row in table.lines() {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        if let [rule, _, _, tests] = cells[..] {
            let tests = tests.split(", ").filter_map(|test| test.strip_prefix('`'));
            proofs.extend(tests.map(|test| (rule.to_owned(), test.trim_matches('`').to_owned())));
        }
    }
    proofs
}

/// The tests of a Rust file or a suite that say which rules they prove.
fn proofs_in_tests(text: &str) -> BTreeSet<Proof> {
    let mut proofs = BTreeSet::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let rules = line.strip_prefix("/// Rule: ");
        let Some(rules) = rules.or(line.strip_prefix("# Rule: ")) else {
            continue;
        };
        let mut below = lines.clone();
        let mut is_test = below.by_ref().take_while(|l| l.starts_with("#["));
        let is_test = is_test.any(|attribute| attribute.contains("test"));
        let function = lines.find(|line| !line.starts_with("#["));
        let name = function.and_then(|line| line.rsplit("fn ").next()?.split('(').next());
        let name = name.unwrap_or_default();
        let checks = |line: &str| line.starts_with("check ") && line.split(' ').any(|w| w == name);
        if is_test || text.lines().any(checks) {
            proofs.extend(
                rules
                    .split(", ")
                    .map(|rule| (rule.to_owned(), name.to_owned())),
            );
        }
    }
    proofs
}

#[test]
fn every_rule_has_its_tests_and_every_test_its_rule() {
    let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("compat-tests");
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let table = proofs_in_table(&read(suites.join("RULES.md")));
    assert!(table.len() > 100, "rows are recognised: {}", table.len());
    let folders = fs::read_dir(&suites).expect("the suites");
    let folders = folders.map(|entry| read(entry.expect("a suite").path().join("run.sh")));
    let sources = sources();
    let sources = sources.iter().filter(|source| source.path != "tidy.rs");
    let texts = sources.map(|source| source.text.clone()).chain(folders);
    let told: BTreeSet<Proof> = texts.flat_map(|text| proofs_in_tests(&text)).collect();
    let only = |place: &'static str| move |(rule, test): &Proof| format!("{rule}: {test} {place}");
    let missing = table.difference(&told).map(only("is no test that says so"));
    let unlisted = told.difference(&table).map(only("is not in RULES.md"));
    report(missing.chain(unlisted).collect());
}
