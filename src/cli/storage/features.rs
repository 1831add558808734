//! Feature levels in `ottla storage`: those that `format` gives a new cluster, and what `version-mapping` and
//! `feature-dependencies` tell of them, in Kafka's words (`Formatter`, `StorageTool`).

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::metadata::features::{
    self, KRAFT_VERSION, METADATA_VERSION, METADATA_VERSION_LATEST, METADATA_VERSION_MIN,
    SUPPORTED_FEATURES, SupportedFeature,
};
use crate::metadata::releases;

/// Levels by feature, metadata.version among them; kraft.version is the quorum's own.
pub(super) type Levels = BTreeMap<&'static str, i16>;

/// What `--release-version` and `--feature` ask for, and defaults for the rest. `is_dynamic`: the voters are not in the
/// settings.
pub(super) fn chosen(
    release: Option<&str>,
    features: &[String],
    is_dynamic: bool,
) -> Result<Levels, String> {
    let mut wanted = Levels::new();
    for text in features {
        let (name, level) = parse(text)?;
        wanted.insert(known(name)?.name, level);
    }
    let version = metadata_version(release, wanted.get(METADATA_VERSION).copied())?;
    if let Some(level) = wanted.remove(KRAFT_VERSION) {
        check_kraft_version(level, is_dynamic)?;
    }
    let mut levels = features::default_levels(version);
    levels.extend(wanted);
    for (name, level) in levels.iter().filter(|(name, _)| **name != METADATA_VERSION) {
        let feature = known(name)?;
        if !feature.supports(*level) {
            return Err(format!("No feature:{name} with feature level {level}"));
        }
        if let Some(needed) = feature.needed_metadata_version(*level)
            && needed > version
        {
            return Err(format!(
                "{name} could not be set to {level} because it depends on metadata.version level {needed}"
            ));
        }
    }
    Ok(levels)
}

/// `name=level`.
fn parse(text: &str) -> Result<(&str, i16), String> {
    let cannot = format!("Can't parse feature=level string {text}");
    let Some((name, level)) = text.split_once('=') else {
        return Err(format!("{cannot}: equals sign not found."));
    };
    let level = level.trim();
    let parsed = level.parse();
    let parsed = parsed.map_err(|_| format!("{cannot}: unable to parse {level} as a short."));
    Ok((name.trim(), parsed?))
}

fn known(name: &str) -> Result<&'static SupportedFeature, String> {
    features::supported(name).ok_or_else(|| {
        let mut names: Vec<_> = others().map(|feature| feature.name).collect();
        names.sort_unstable();
        let names = names.join(", ");
        format!("Unsupported feature: {name}. Supported features are: {names}")
    })
}

/// All but metadata.version.
fn others() -> impl Iterator<Item = &'static SupportedFeature> {
    let features = SUPPORTED_FEATURES.iter();
    features.filter(|feature| feature.name != METADATA_VERSION)
}

fn metadata_version(release: Option<&str>, level: Option<i16>) -> Result<i16, String> {
    match (release, level) {
        (Some(_), Some(_)) => Err(
            "Use --release-version instead of --feature metadata.version=X to avoid ambiguity."
                .to_owned(),
        ),
        (Some(release), None) => releases::level(release),
        (None, Some(level)) if releases::name(level).is_none() => Err(format!(
            "No MetadataVersion with feature level {level}. Valid feature levels are from {METADATA_VERSION_MIN} to \
             {METADATA_VERSION_LATEST}."
        )),
        (None, level) => Ok(level.unwrap_or(METADATA_VERSION_LATEST)),
    }
}

fn check_kraft_version(level: i16, is_dynamic: bool) -> Result<(), String> {
    if !known(KRAFT_VERSION)?.supports(level) {
        return Err(format!(
            "No feature:{KRAFT_VERSION} with feature level {level}"
        ));
    }
    match (level, is_dynamic) {
        (0, true) => Err("Cannot set kraft.version to 0 if controller.quorum.voters is empty and one of the flags --standalone, \
             --initial-controllers, or --no-initial-controllers is used. For dynamic controllers support, try removing \
             the --feature flag for kraft.version."
            .to_owned()),
        (1.., false) => Err(format!(
            "Cannot set kraft.version to {level} unless controller.quorum.voters is empty and one of the flags --standalone, \
             --initial-controllers, or --no-initial-controllers is used. For dynamic controllers support, try using one of \
             --standalone, --initial-controllers, or --no-initial-controllers and removing controller.quorum.voters."
        )),
        _ => Ok(()),
    }
}

/// The levels as `Bootstrap metadata:` shows their records.
pub(super) fn bootstrap_text(levels: &Levels) -> String {
    let record = |name: &str, level: i16| {
        format!(
            "ApiMessageAndVersion(FeatureLevelRecord(name='{name}', featureLevel={level}) at version 0)"
        )
    };
    let version = levels.get(METADATA_VERSION).copied().unwrap_or_default();
    let mut records = vec![record(METADATA_VERSION, version)];
    for (name, level) in levels {
        if *name != METADATA_VERSION && *level > 0 {
            records.push(record(name, *level));
        }
    }
    format!(
        "BootstrapMetadata(records=[{}], metadataVersionLevel={version}, source=format command)",
        records.join(", ")
    )
}

/// `version-mapping`: the features of a new cluster of that release.
pub(super) fn version_mapping(release: Option<&str>) -> Result<String, String> {
    let newest = releases::name(METADATA_VERSION_LATEST).unwrap_or_default();
    let release = release.unwrap_or(newest);
    let version = releases::level(release)?;
    let mut text = format!("metadata.version={version} ({release})\n");
    for feature in others() {
        let level = feature.default_level(version);
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{}={level}", feature.name);
    }
    Ok(text)
}

/// `feature-dependencies`: what each of these levels needs. The text goes up to the first that is wrong.
pub(super) fn dependencies(features: &[String]) -> (String, Result<(), String>) {
    let mut text = String::new();
    for feature in features {
        match dependency(feature) {
            Ok(lines) => text.push_str(&lines),
            Err(why) => return (text, Err(why)),
        }
    }
    (text, Ok(()))
}

fn dependency(text: &str) -> Result<String, String> {
    let Some((name, level)) = text.split_once('=') else {
        return Err(format!(
            "Invalid feature format: {text}. Expected format: 'feature=version' (e.g. 'group.version=1')"
        ));
    };
    let (name, level) = (name.trim(), level.trim());
    let parsed = level.parse::<i16>();
    let level =
        parsed.map_err(|_| format!("Invalid version format: {level} for feature {name}"))?;
    if name == METADATA_VERSION {
        let release = releases::name(level);
        let release = release.ok_or_else(|| format!("Unknown metadata.version {level}"))?;
        return Ok(format!("{name}={level} ({release}) has no dependencies.\n"));
    }
    let feature = features::supported(name).ok_or_else(|| format!("Unknown feature: {name}"))?;
    if !feature.supports(level) {
        return Err(format!(
            "Feature level {level} is not supported for feature {name}"
        ));
    }
    Ok(match feature.needed_metadata_version(level) {
        None => format!("{name}={level} has no dependencies.\n"),
        Some(needed) => {
            let release = releases::name(needed).unwrap_or_default();
            format!("{name}={level} requires:\n    metadata.version={needed} ({release})\n")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(
        release: Option<&str>,
        features: &[&str],
        is_dynamic: bool,
    ) -> Result<Levels, String> {
        let features: Vec<String> = features.iter().map(|it| (*it).to_owned()).collect();
        chosen(release, &features, is_dynamic)
    }

    #[test]
    fn a_release_decides_what_is_not_asked_for() {
        let at = |release| levels(Some(release), &[], true).unwrap();
        let newest = levels(None, &[], true).unwrap();
        assert_eq!(newest, at("4.3"));
        assert_eq!(
            (newest["transaction.version"], newest["streams.version"]),
            (2, 1)
        );
        let old = at("3.9");
        assert_eq!(old[METADATA_VERSION], 21);
        assert!(
            old.iter()
                .all(|(name, level)| *level == 0 || *name == METADATA_VERSION)
        );
        let mixed = levels(Some("4.0"), &["group.version=0", "share.version = 1"], true).unwrap();
        assert_eq!((mixed["group.version"], mixed["share.version"]), (0, 1));
        assert_eq!(mixed["eligible.leader.replicas.version"], 0);
        assert_eq!(
            levels(None, &["metadata.version=25"], true).unwrap(),
            at("4.0")
        );
    }

    #[test]
    fn levels_that_cannot_be_are_refused() {
        let elr = "eligible.leader.replicas.version=1";
        for (release, features, is_dynamic, why) in [
            (Some("2.8"), &[][..], true, "Unknown metadata.version '2.8'"),
            (
                Some("4.3"),
                &["metadata.version=30"],
                true,
                "to avoid ambiguity",
            ),
            (
                None,
                &["metadata.version=31"],
                true,
                "No MetadataVersion with feature level 31",
            ),
            (None, &["group.version"], true, "equals sign not found"),
            (
                None,
                &["group.version=x"],
                true,
                "unable to parse x as a short",
            ),
            (
                None,
                &["group.version=2"],
                true,
                "No feature:group.version with feature level 2",
            ),
            (
                None,
                &["nosuch=1"],
                true,
                "Unsupported feature: nosuch. Supported features are: eligible",
            ),
            (
                Some("3.9"),
                &[elr],
                true,
                "depends on metadata.version level 23",
            ),
            (
                None,
                &["kraft.version=0"],
                true,
                "Cannot set kraft.version to 0",
            ),
            (
                None,
                &["kraft.version=1"],
                false,
                "Cannot set kraft.version to 1",
            ),
            (None, &["kraft.version=2"], true, "No feature:kraft.version"),
        ] {
            let refused = levels(release, features, is_dynamic).unwrap_err();
            assert!(refused.contains(why), "{features:?}: {refused}");
        }
        assert!(levels(None, &["kraft.version=1"], true).is_ok());
        assert!(levels(None, &["kraft.version=0"], false).is_ok());
    }

    #[test]
    fn mappings_and_dependencies_are_told_as_kafka_does() {
        let text = version_mapping(Some("4.0")).unwrap();
        let expected = "metadata.version=25 (4.0)\nkraft.version=1\ntransaction.version=2\ngroup.version=1\n\
                        eligible.leader.replicas.version=0\nshare.version=0\nstreams.version=0\n";
        assert_eq!(text, expected);
        assert!(
            version_mapping(None)
                .unwrap()
                .starts_with("metadata.version=30 (4.3-IV0)\n")
        );
        assert!(version_mapping(Some("9")).is_err());
        let asked = [
            "metadata.version=23",
            "eligible.leader.replicas.version=1",
            "group.version=1",
            "x=1",
        ];
        let (text, result) = dependencies(&asked.map(str::to_owned));
        let expected = "metadata.version=23 (4.0-IV1) has no dependencies.\n\
                        eligible.leader.replicas.version=1 requires:\n    metadata.version=23 (4.0-IV1)\n\
                        group.version=1 has no dependencies.\n";
        assert_eq!(
            (text.as_str(), result),
            (expected, Err("Unknown feature: x".to_owned()))
        );
        for (asked, why) in [
            ("group.version", "Invalid feature format"),
            ("group.version=", "Invalid version format"),
            ("group.version=7", "not supported"),
            ("metadata.version=99", "Unknown metadata.version 99"),
        ] {
            let refused = dependencies(&[asked.to_owned()]).1.unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
