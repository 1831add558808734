//! The names of metadata.version's levels, as `kafka-storage` and `kafka-features` take and show them (`MetadataVersion`).

use super::features::{METADATA_VERSION_LATEST, METADATA_VERSION_MIN};

/// The name of each level from [`METADATA_VERSION_MIN`] on.
const NAMES: [&str; 24] = [
    "3.3-IV3", "3.4-IV0", "3.5-IV0", "3.5-IV1", "3.5-IV2", "3.6-IV0", "3.6-IV1", "3.6-IV2",
    "3.7-IV0", "3.7-IV1", "3.7-IV2", "3.7-IV3", "3.7-IV4", "3.8-IV0", "3.9-IV0", "4.0-IV0",
    "4.0-IV1", "4.0-IV2", "4.0-IV3", "4.1-IV0", "4.1-IV1", "4.2-IV0", "4.2-IV1", "4.3-IV0",
];

/// The name of a level, such as `4.3-IV0`.
pub fn name(level: i16) -> Option<&'static str> {
    let at = usize::try_from(level.checked_sub(METADATA_VERSION_MIN)?).ok()?;
    NAMES.get(at).copied()
}

/// The level of a name: `4.3-IV0` itself, and for `4.3`, `4.3.1` or `4.3.x` the last of that release.
pub fn level(text: &str) -> Result<i16, String> {
    let mut parts = text.splitn(3, '.');
    let key = match (parts.next(), parts.next(), parts.next()) {
        (Some(major), Some(minor), Some(_)) => format!("{major}.{minor}"),
        _ => text.to_owned(),
    };
    let is_meant = |name: &&str| {
        *name == key
            || name
                .split_once('-')
                .is_some_and(|(release, _)| release == key)
    };
    let found = NAMES.iter().rposition(is_meant);
    let found = found.and_then(|at| i16::try_from(at).ok());
    found.map(|at| METADATA_VERSION_MIN + at).ok_or_else(|| {
        let all = NAMES.join(", ");
        format!("Unknown metadata.version '{text}'. Supported metadata.version are: {all}")
    })
}

const _: () = assert!(NAMES.len() as i16 == METADATA_VERSION_LATEST - METADATA_VERSION_MIN + 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_named_as_kafka_names_them() {
        for (text, expected) in [
            ("4.3-IV0", 30),
            ("4.3", 30),
            ("4.3.1", 30),
            ("4.0", 25),
            ("4.0-IV1", 23),
            ("3.9.x", 21),
            ("3.7", 19),
            ("3.3", 7),
            ("3.3-IV3", 7),
        ] {
            assert_eq!(level(text), Ok(expected), "{text}");
        }
        for text in ["", "4", "4.4", "3.2", "4.3-IV1", "x.y.z", "..", "30"] {
            assert!(
                level(text).is_err_and(|why| why.contains(&format!("'{text}'"))),
                "{text}"
            );
        }
        assert_eq!((name(30), name(7)), (Some("4.3-IV0"), Some("3.3-IV3")));
        assert_eq!([name(6), name(31), name(i16::MIN)], [None; 3]);
    }
}
