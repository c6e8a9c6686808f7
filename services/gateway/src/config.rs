//! Configuration of the gateway.

use std::time::Duration;

use pavior_auth::IssuerConfig;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Configuration of the gateway. Every field has a default.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The issuers whose tokens are accepted.
    pub issuers: Vec<IssuerConfig>,
    /// The largest request message, in bytes.
    pub max_message_bytes: usize,
    /// How long policy and the owners of resources may take over a decision, in milliseconds. Later is a no.
    pub decision_timeout_ms: u64,
    /// Streams end after this many seconds with UNAVAILABLE, and are resumed by their clients.
    pub max_stream_seconds: u64,
    /// Audit records that may wait in memory for the audit service.
    pub audit_queue: usize,
    /// Requests without valid credentials are recorded together, once in this many seconds.
    pub refusal_window_seconds: u32,
    /// Origins of browsers that may call with gRPC-Web, for example `https://portal.example.com`. Other callers of
    /// gRPC-Web have no origin and need none.
    pub web_origins: Vec<String>,
    /// True to serve reflection and `/openapi.json`, without credentials.
    pub reflection: bool,
    /// The name of this instance in audit records; made up when empty.
    pub instance: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            max_message_bytes: 4 * 1024 * 1024,
            decision_timeout_ms: 5_000,
            max_stream_seconds: 3_600,
            audit_queue: 10_000,
            refusal_window_seconds: 60,
            web_origins: Vec::new(),
            reflection: true,
            instance: String::new(),
        }
    }
}

impl Config {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), Error> {
        let positive = [
            ("max_message_bytes", self.max_message_bytes as u64),
            ("decision_timeout_ms", self.decision_timeout_ms),
            ("max_stream_seconds", self.max_stream_seconds),
            ("audit_queue", self.audit_queue as u64),
            ("refusal_window_seconds", u64::from(self.refusal_window_seconds)),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Error::Config(format!("`{name}` must be greater than 0")));
        }
        for origin in &self.web_origins {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' '])) {
                let wanted = "is not an origin such as `https://portal.example.com`";
                return Err(Error::Config(format!("`web_origins`: `{origin}` {wanted}")));
            }
        }
        for issuer in &self.issuers {
            issuer.validate()?;
        }
        Ok(())
    }

    pub(crate) fn decision_timeout(&self) -> Duration {
        Duration::from_millis(self.decision_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let documented: Config = toml::from_str(include_str!("../config.default.toml")).unwrap();
        assert_eq!(
            serde_json::to_value(documented).unwrap(),
            serde_json::to_value(Config::default()).unwrap()
        );
        assert!(toml::from_str::<Config>("max_mesage_bytes = 1").is_err());
    }

    #[test]
    fn an_issuer_is_written_as_documented() {
        let text = include_str!("../config.default.toml");
        let (_, example) = text.split_once("# [[issuers]]").unwrap();
        let example: String =
            example.lines().map(|line| line.trim_start_matches("# ").to_owned() + "\n").collect();
        let config: Config = toml::from_str(&format!("[[issuers]]\n{example}")).unwrap();
        config.validate().unwrap();
        assert_eq!(config.issuers[0].issuer, "https://id.example.com");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for config in [
            Config { audit_queue: 0, ..Config::default() },
            Config { web_origins: vec!["https://a.example/path".to_owned()], ..Config::default() },
            Config { web_origins: vec!["portal".to_owned()], ..Config::default() },
            Config { issuers: vec![IssuerConfig::new("i", "a")], ..Config::default() },
        ] {
            assert!(config.validate().is_err(), "{config:?}");
        }
    }
}
