//! Values that stand elsewhere: `${env:NAME}`, `${file:/path:key}`, `${dir:/path:file}` (KIP-297, KIP-421), with the providers
//! that `config.providers` names. Deployments keep passwords out of the file this way.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{properties, split_list};

/// Kafka's own providers, by the last part of their class names.
#[derive(Clone, Copy)]
enum Provider {
    Env,
    File,
    Directory,
}

/// Puts the values in the place of their references. `Err`: key, and what is wrong with its reference.
pub(super) fn resolve(settings: &mut BTreeMap<String, String>) -> Result<(), (String, String)> {
    let providers = providers(settings)?;
    if providers.is_empty() {
        return Ok(());
    }
    for (key, value) in settings {
        if value.contains("${") && !key.starts_with("config.providers") {
            *value = replace(&providers, value).map_err(|why| (key.clone(), why))?;
        }
    }
    Ok(())
}

fn providers(
    settings: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Provider>, (String, String)> {
    let names = settings.get("config.providers").map_or("", String::as_str);
    let mut providers = BTreeMap::new();
    for name in split_list(names) {
        let key = format!("config.providers.{name}.class");
        let class = settings.get(&key).map_or("", |class| class.trim());
        let provider = match class.rsplit('.').next() {
            Some("EnvVarConfigProvider") => Provider::Env,
            Some("FileConfigProvider") => Provider::File,
            Some("DirectoryConfigProvider") => Provider::Directory,
            _ => {
                let why = format!(
                    "{class:?} is none of EnvVarConfigProvider, FileConfigProvider, DirectoryConfigProvider"
                );
                return Err((key, why));
            }
        };
        providers.insert(name, provider);
    }
    Ok(providers)
}

/// Replaces every `${provider:...}` of a known provider; what comes out is not looked at again.
fn replace(providers: &BTreeMap<String, Provider>, value: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, from)) = rest.split_once("${") {
        out.push_str(before);
        let reference = from.split_once('}').and_then(|(inside, after)| {
            let (name, place) = inside.split_once(':')?;
            Some((*providers.get(name)?, place, after))
        });
        if let Some((provider, place, after)) = reference {
            out.push_str(&read(provider, place)?);
            rest = after;
        } else {
            out.push_str("${");
            rest = from;
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn read(provider: Provider, place: &str) -> Result<String, String> {
    let file = |path: &Path| {
        fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let path_and_key = || {
        place
            .rsplit_once(':')
            .ok_or_else(|| format!("{place:?} is not PATH:KEY"))
    };
    match provider {
        Provider::Env => {
            let name = place.rsplit(':').next().unwrap_or(place);
            std::env::var(name).map_err(|_| format!("the environment has no {name}"))
        }
        Provider::File => {
            let (path, key) = path_and_key()?;
            let pairs = properties::parse(&properties::decode(&file(Path::new(path))?));
            let found = pairs.into_iter().rev().find(|(name, _)| name == key);
            found
                .map(|(_, value)| value)
                .ok_or_else(|| format!("{path} has no {key}"))
        }
        Provider::Directory => {
            let (path, key) = path_and_key()?;
            Ok(properties::decode(&file(&Path::new(path).join(key))?))
        }
    }
}
