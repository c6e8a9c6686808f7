//! Layered configuration: defaults, a TOML file, environment variables, overrides of the command line; later wins.
//!
//! `PAVIOR_CATALOG__DATABASE__URL` sets `catalog.database.url`. A key that the configuration does not have is
//! refused, with the nearest one that it has. The only place where the environment is read.

use std::path::{Path, PathBuf};

use pavior_core::nearest::distance;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// A configuration that can say what is wrong with it beyond the types of its fields.
pub trait Validate {
    /// Every mistake, each beginning with the path of its field in backticks.
    fn validate(&self) -> Result<(), Vec<String>>;
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is absent or unreadable.
    #[error("cannot read the configuration file `{path}`: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("{origin} is not TOML: {reason}")]
    Parse {
        /// Which layer.
        origin: String,
        /// Where and why.
        reason: String,
    },
    /// A key goes through something that is no table.
    #[error("{origin}: `{key}` is not a section")]
    NotASection {
        /// Which layer.
        origin: String,
        /// The key.
        key: String,
    },
    /// A key that the configuration does not have.
    #[error("{origin}: unknown key `{key}`{}", nearest.as_ref().map(|key| format!(", did you mean `{key}`?")).unwrap_or_default())]
    UnknownKey {
        /// Which layer.
        origin: String,
        /// The key, dotted.
        key: String,
        /// The most similar known key.
        nearest: Option<String>,
    },
    /// A value of the wrong type, or a key that is missing.
    #[error("the configuration is not valid: {0}")]
    Type(String),
    /// A value that cannot be read as what its key holds.
    #[error("{origin}: `{key}` = {value}: {reason}, it must be like {example}")]
    Value {
        /// Which layer.
        origin: String,
        /// The key, dotted.
        key: String,
        /// The value, as TOML.
        value: String,
        /// Why it cannot be read.
        reason: String,
        /// The default, as TOML.
        example: String,
    },
    /// What `validate` found.
    #[error("the configuration is not valid: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

/// Where a configuration comes from.
#[derive(Debug, Default, Clone)]
pub struct Sources<'a> {
    /// TOML with the documented defaults.
    pub defaults: &'a str,
    /// A TOML file.
    pub file: Option<&'a Path>,
    /// Environment variables: name and value.
    pub env: Vec<(String, String)>,
    /// The prefix of variables that are ours, `PAVIOR_`.
    pub env_prefix: &'a str,
    /// Variables of that prefix that are not configuration; names ending in `*` stand for all that begin so.
    pub env_ignored: &'a [&'a str],
    /// Dotted key and value, from the command line.
    pub overrides: &'a [(String, String)],
}

/// Loads a configuration from defaults, file, the process's environment, and overrides.
pub fn load<T: DeserializeOwned + Validate>(
    defaults: &str,
    file: Option<&Path>,
    env_prefix: &str,
    overrides: &[(String, String)],
) -> Result<T, ConfigError> {
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    load_from(&Sources {
        defaults,
        file,
        env,
        env_prefix,
        env_ignored: &["PAVIOR_TEST_*", "PAVIOR_CLI_*", "PAVIOR_CONFIG"],
        overrides,
    })
}

/// Loads a configuration from these sources and nothing else.
pub fn load_from<T: DeserializeOwned + Validate>(sources: &Sources<'_>) -> Result<T, ConfigError> {
    let mut layers = Vec::new();
    let mut table = parse(sources.defaults, "the defaults")?;
    let defaults = table.clone();
    if let Some(path) = sources.file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let origin = path.display().to_string();
        let layer = parse(&text, &origin)?;
        merge(&mut table, &layer);
        layers.push((origin, layer));
    }
    for (name, value) in ours(sources) {
        let key = name.get(sources.env_prefix.len()..).unwrap_or_default().to_lowercase().replace("__", ".");
        let layer = single(&key, value, &defaults, name)?;
        merge(&mut table, &layer);
        layers.push((name.clone(), layer));
    }
    for (key, value) in sources.overrides {
        let origin = format!("--set {key}");
        let layer = single(key, value, &defaults, &origin)?;
        merge(&mut table, &layer);
        layers.push((origin, layer));
    }
    let config: T = Value::Table(table).try_into().map_err(|err| explain(&err, &layers, &defaults))?;
    config.validate().map_err(ConfigError::Invalid)?;
    Ok(config)
}

fn ours<'s>(sources: &'s Sources<'_>) -> impl Iterator<Item = (&'s String, &'s str)> {
    let ignored = |name: &str| {
        sources.env_ignored.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        })
    };
    let mine = |name: &str| !sources.env_prefix.is_empty() && name.starts_with(sources.env_prefix);
    let mut found: Vec<_> = (sources.env.iter())
        .filter(|(name, _)| mine(name) && !ignored(name))
        .map(|(name, value)| (name, value.as_str()))
        .collect();
    found.sort();
    found.into_iter()
}

fn parse(text: &str, origin: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>()
        .map_err(|err| ConfigError::Parse { origin: origin.to_owned(), reason: err.to_string() })
}

/// A table with one value at a dotted key. Text stays text where the default is text; elsewhere it is read as TOML
/// (`true`, `5`, `["a"]`) when it is that.
fn single(key: &str, text: &str, defaults: &Table, origin: &str) -> Result<Table, ConfigError> {
    let segments: Vec<&str> = key.split('.').collect();
    let value = match at(defaults, &segments) {
        Some(Value::String(_)) => Value::String(text.to_owned()),
        Some(Value::Table(_)) => {
            let mistake = || ConfigError::NotASection { origin: origin.to_owned(), key: key.to_owned() };
            format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v")).ok_or_else(mistake)?
        }
        _ => format!("v = {text}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("v"))
            .unwrap_or_else(|| Value::String(text.to_owned())),
    };
    let nested = segments.iter().rev().fold(value, |inner, segment| {
        let mut table = Table::new();
        table.insert((*segment).to_owned(), inner);
        Value::Table(table)
    });
    match nested {
        Value::Table(table) => Ok(table),
        _ => Err(ConfigError::NotASection { origin: origin.to_owned(), key: key.to_owned() }),
    }
}

fn at<'t>(table: &'t Table, path: &[&str]) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?;
    match rest {
        [] => Some(value),
        _ => at(value.as_table()?, rest),
    }
}

fn merge(into: &mut Table, from: &Table) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Turns serde's message into one that says where the mistake stands and what would be right.
fn explain(err: &toml::de::Error, layers: &[(String, Table)], defaults: &Table) -> ConfigError {
    let text = err.to_string();
    let mut quoted = text.split('`').skip(1).step_by(2).map(str::to_owned);
    let section = text.lines().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
    if !text.starts_with("unknown field `") {
        return wrong_value(err.message(), section, layers, defaults)
            .unwrap_or_else(|| ConfigError::Type(text.trim().replace('\n', " ")));
    }
    let unknown = quoted.next().unwrap_or_default();
    let known: Vec<String> = quoted.filter(|name| Some(name.as_str()) != section).collect();
    let key = match section {
        // The section may or may not end with the key itself.
        Some(section) if section == unknown || section.ends_with(&format!(".{unknown}")) => {
            section.to_owned()
        }
        Some(section) => format!("{section}.{unknown}"),
        None => unknown.clone(),
    };
    let path: Vec<&str> = key.split('.').collect();
    let origin = layers.iter().rev().find(|(_, layer)| at(layer, &path).is_some());
    let origin = origin.map_or_else(|| "the defaults".to_owned(), |(origin, _)| origin.clone());
    let parent = key.strip_suffix(unknown.as_str()).unwrap_or_default();
    let nearest = known.iter().map(|name| (distance(&unknown, name), name)).min();
    let nearest = nearest
        .filter(|(distance, name)| *distance <= 2 + name.len() / 2)
        .map(|(_, name)| format!("{parent}{name}"));
    ConfigError::UnknownKey { origin, key, nearest }
}

/// The value at a key that has a default, where some layer sets it.
fn wrong_value(
    reason: &str,
    key: Option<&str>,
    layers: &[(String, Table)],
    defaults: &Table,
) -> Option<ConfigError> {
    let key = key?;
    let path: Vec<&str> = key.split('.').collect();
    let (origin, value) =
        layers.iter().rev().find_map(|(origin, layer)| Some((origin, at(layer, &path)?)))?;
    let example = at(defaults, &path).filter(|example| !example.is_table())?;
    Some(ConfigError::Value {
        origin: origin.clone(),
        key: key.to_owned(),
        value: value.to_string(),
        reason: reason.to_owned(),
        example: example.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Database {
        url: String,
        max_connections: u32,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Catalog {
        database: Database,
        origins: Option<Vec<String>>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        name: String,
        catalog: Catalog,
    }

    impl Validate for Config {
        fn validate(&self) -> Result<(), Vec<String>> {
            match self.catalog.database.max_connections {
                0 => Err(vec!["`catalog.database.max_connections` must not be 0".to_owned()]),
                _ => Ok(()),
            }
        }
    }

    const DEFAULTS: &str = "name = 'x'\n[catalog.database]\nurl = 'sqlite://a'\nmax_connections = 4\n";

    fn sources<'a>(env: &[(&str, &str)], overrides: &'a [(String, String)]) -> Sources<'a> {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Sources {
            defaults: DEFAULTS,
            env,
            env_prefix: "PAVIOR_",
            env_ignored: &["PAVIOR_TEST_*"],
            overrides,
            ..Sources::default()
        }
    }

    #[test]
    fn malformed_value_is_named_with_its_setting_and_what_is_right() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Listen {
            gateway: std::net::SocketAddr,
        }
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Server {
            listen: Listen,
        }
        impl Validate for Server {
            fn validate(&self) -> Result<(), Vec<String>> {
                Ok(())
            }
        }
        let defaults = "[listen]\ngateway = '127.0.0.1:7410'\n";
        let overrides = [("listen.gateway".to_owned(), "localhost".to_owned())];
        let wrong = Sources { defaults, overrides: &overrides, ..Sources::default() };
        assert_eq!(
            load_from::<Server>(&wrong).unwrap_err().to_string(),
            "--set listen.gateway: `listen.gateway` = \"localhost\": invalid socket address syntax, it must be like \
             \"127.0.0.1:7410\""
        );
        let right = load_from::<Server>(&Sources { defaults, ..Sources::default() }).unwrap();
        assert_eq!(right.listen.gateway.port(), 7410);
    }

    #[test]
    fn later_layers_win() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pavior.toml");
        std::fs::write(&file, "name = 'file'\n[catalog.database]\nmax_connections = 5\n").unwrap();
        let overrides = [("catalog.database.max_connections".to_owned(), "7".to_owned())];
        let env = [
            ("PAVIOR_CATALOG__DATABASE__URL", "5"),
            ("PAVIOR_CATALOG__ORIGINS", "['a', 'b']"),
            ("PAVIOR_TEST_POSTGRES_URL", "ignored"),
            ("HOME", "/root"),
        ];
        let mut sources = sources(&env, &overrides);
        sources.file = Some(&file);
        let config: Config = load_from(&sources).unwrap();
        assert_eq!(config.name, "file");
        assert_eq!(config.catalog.database, Database { url: "5".into(), max_connections: 7 });
        assert_eq!(config.catalog.origins, Some(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn unknown_key_is_refused_with_the_nearest_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pavior.toml");
        std::fs::write(&file, "[catalog.database]\nmax_conections = 5\n").unwrap();
        let mut from_file = sources(&[], &[]);
        from_file.file = Some(&file);
        let err = load_from::<Config>(&from_file).unwrap_err().to_string();
        let want =
            "unknown key `catalog.database.max_conections`, did you mean `catalog.database.max_connections`?";
        assert!(err.contains(want) && err.starts_with(&file.display().to_string()), "{err}");

        let err = load_from::<Config>(&sources(&[("PAVIOR_NAM", "x")], &[])).unwrap_err().to_string();
        assert_eq!(err, "PAVIOR_NAM: unknown key `nam`, did you mean `name`?");
        let env = [("PAVIOR_CATALOG__DATABSE__URL", "x")];
        let err = load_from::<Config>(&sources(&env, &[])).unwrap_err().to_string();
        assert_eq!(
            err,
            "PAVIOR_CATALOG__DATABSE__URL: unknown key `catalog.databse`, did you mean `catalog.database`?"
        );
    }

    #[test]
    fn wrong_types_and_rules_are_named() {
        let env = [("PAVIOR_CATALOG__DATABASE__MAX_CONNECTIONS", "many")];
        let err = load_from::<Config>(&sources(&env, &[])).unwrap_err().to_string();
        assert_eq!(
            err,
            "PAVIOR_CATALOG__DATABASE__MAX_CONNECTIONS: `catalog.database.max_connections` = \"many\": invalid type: \
             string \"many\", expected u32, it must be like 4"
        );
        let env = [("PAVIOR_CATALOG__DATABASE__MAX_CONNECTIONS", "0")];
        let err = load_from::<Config>(&sources(&env, &[])).unwrap_err();
        assert!(matches!(err, ConfigError::Invalid(ref list) if list.len() == 1), "{err}");
        let mut missing = sources(&[], &[]);
        missing.file = Some(Path::new("/does/not/exist.toml"));
        assert!(matches!(load_from::<Config>(&missing), Err(ConfigError::Read { .. })));
    }
}
