//! Every setting of a process with its default and its meaning: its own, and those of the services.

use super::config::DEFAULTS;
use super::role::Role;

/// Where the settings of the services begin in the process's own.
const SERVICES: &str = "[gateway]\n";

/// The text that `pavior config defaults` prints; it is a configuration itself.
pub(super) fn text() -> String {
    let (own, _) = DEFAULTS.split_once(SERVICES).unwrap_or((DEFAULTS, ""));
    let mut text = own.trim_end().to_owned();
    for role in [Role::Gateway, Role::Audit, Role::Catalog, Role::Policy, Role::Provisioning] {
        text.push_str(&format!(
            "\n\n[{}]\n{}",
            role.name(),
            below(role.name(), defaults_of(role)).trim_end()
        ));
    }
    text.push('\n');
    text
}

fn defaults_of(role: Role) -> &'static str {
    match role {
        Role::Audit => pavior_audit::DEFAULTS,
        Role::Catalog => pavior_catalog::DEFAULTS,
        Role::Policy => pavior_policy::DEFAULTS,
        Role::Provisioning => pavior_provisioning::DEFAULTS,
        Role::Gateway => pavior_gateway::DEFAULTS,
    }
}

/// The settings of a service as they stand in those of a process: its tables below its own.
fn below(role: &str, defaults: &str) -> String {
    let line = |line: &str| {
        let bare = line.trim_start_matches(['#', ' ']);
        let brackets = bare.len() - bare.trim_start_matches('[').len();
        match (brackets, bare.trim_end().ends_with(']') && !bare.contains('=')) {
            (1 | 2, true) => {
                let open = "[".repeat(brackets);
                line.replacen(&open, &format!("{open}{role}."), 1)
            }
            _ => line.to_owned(),
        }
    };
    defaults.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use pavior_runtime::config::{Sources, load_from};
    use serde::Deserialize;
    use serde::de::value::StrDeserializer;
    use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

    use super::super::config::Config;
    use super::*;

    /// Follows a path into the types of a configuration, and fails with the fields of the struct that is there.
    struct Probe<'a>(&'a [&'static str]);

    #[derive(Debug)]
    enum Found {
        Fields(&'static [&'static str]),
        Value,
    }

    impl fmt::Display for Found {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{self:?}")
        }
    }

    impl std::error::Error for Found {}

    impl serde::de::Error for Found {
        fn custom<T: fmt::Display>(_: T) -> Self {
            Self::Value
        }
    }

    macro_rules! values {
        ($($name:ident)*) => {
            $(fn $name<V: Visitor<'static>>(self, _: V) -> Result<V::Value, Found> {
                Err(Found::Value)
            })*
        };
    }

    impl Deserializer<'static> for Probe<'_> {
        type Error = Found;

        values! {
            deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
            deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
            deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
            deserialize_unit deserialize_seq deserialize_map deserialize_identifier deserialize_ignored_any
        }

        fn deserialize_option<V: Visitor<'static>>(self, visitor: V) -> Result<V::Value, Found> {
            visitor.visit_some(self)
        }

        fn deserialize_newtype_struct<V: Visitor<'static>>(
            self,
            _: &'static str,
            visitor: V,
        ) -> Result<V::Value, Found> {
            visitor.visit_newtype_struct(self)
        }

        fn deserialize_struct<V: Visitor<'static>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Found> {
            match self.0 {
                [] => Err(Found::Fields(fields)),
                path => visitor.visit_map(Step(path)),
            }
        }

        fn deserialize_unit_struct<V: Visitor<'static>>(
            self,
            _: &'static str,
            _: V,
        ) -> Result<V::Value, Found> {
            Err(Found::Value)
        }

        fn deserialize_tuple<V: Visitor<'static>>(self, _: usize, _: V) -> Result<V::Value, Found> {
            Err(Found::Value)
        }

        fn deserialize_tuple_struct<V: Visitor<'static>>(
            self,
            _: &'static str,
            _: usize,
            _: V,
        ) -> Result<V::Value, Found> {
            Err(Found::Value)
        }

        fn deserialize_enum<V: Visitor<'static>>(
            self,
            _: &'static str,
            _: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Found> {
            Err(Found::Value)
        }
    }

    struct Step<'a>(&'a [&'static str]);

    impl MapAccess<'static> for Step<'_> {
        type Error = Found;

        fn next_key_seed<K: DeserializeSeed<'static>>(&mut self, seed: K) -> Result<Option<K::Value>, Found> {
            let Some(key) = self.0.first() else { return Err(Found::custom("the end")) };
            seed.deserialize(StrDeserializer::new(key)).map(Some)
        }

        fn next_value_seed<V: DeserializeSeed<'static>>(&mut self, seed: V) -> Result<V::Value, Found> {
            seed.deserialize(Probe(self.0.get(1..).unwrap_or_default()))
        }
    }

    /// Every setting by its path, as the types have it.
    fn settings() -> Vec<Vec<&'static str>> {
        let (mut all, mut left) = (Vec::new(), vec![Vec::new()]);
        while let Some(path) = left.pop() {
            match Config::deserialize(Probe(&path)) {
                Err(Found::Fields(fields)) => {
                    left.extend(fields.iter().map(|field| [&path[..], &[*field]].concat()));
                }
                _ => all.push(path),
            }
        }
        all
    }

    #[test]
    fn every_setting_is_printed() {
        let text = text();
        let mut printed = Vec::new();
        let mut table = String::new();
        for line in text.lines() {
            let bare = line.trim_start_matches(['#', ' ']);
            if let Some(name) =
                bare.strip_prefix('[').filter(|_| !line.starts_with('#') || !bare.contains('='))
            {
                table = name.trim_matches(['[', ']']).to_owned();
                printed.push(table.clone());
            } else if let Some((key, _)) = bare.split_once(" = ") {
                printed.push(if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") });
            }
        }
        let settings = settings();
        assert!(settings.len() > 100, "{settings:?}");
        let missing: Vec<String> =
            settings.iter().map(|path| path.join(".")).filter(|path| !printed.contains(path)).collect();
        assert_eq!(missing, Vec::<String>::new(), "say what they are in a `config.default.toml`");
    }

    #[test]
    fn what_is_printed_is_what_holds_without_it() {
        let load = |defaults: &str| {
            let sources = Sources {
                defaults,
                file: None,
                env: Vec::new(),
                env_prefix: "PAVIOR_",
                env_ignored: &[],
                overrides: &[],
            };
            format!("{:#?}", load_from::<Config>(&sources).unwrap())
        };
        assert_eq!(load(&text()), load(DEFAULTS));
    }
}
