//! The address of a PostgreSQL server.

use pavior_driver::{ExposeSecret, SecretString};

use crate::Error;

/// The server's address in parts.
pub(super) struct Address {
    pub(super) url: SecretString,
    scheme: String,
    /// Host and port as a client reaches them.
    authority: String,
    pub(super) host: String,
    pub(super) port: u16,
    options: String,
}

impl Address {
    pub(super) fn parse(url: &SecretString) -> Result<Self, Error> {
        let bad =
            || Error::Config("the PostgreSQL address is not `postgres://user@host:port/database`".to_owned());
        let (scheme, rest) = url.expose_secret().split_once("://").ok_or_else(bad)?;
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err(bad());
        }
        let (rest, options) =
            rest.split_once('?').map_or((rest, String::new()), |(r, o)| (r, format!("?{o}")));
        let authority = rest.split('/').next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, server)| server).to_owned();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host.to_owned(), port.parse().map_err(|_| bad())?),
            None => (authority.clone(), 5432),
        };
        Ok(Self { url: url.clone(), scheme: scheme.to_owned(), authority, host, port, options })
    }

    /// The administrator's address with another database.
    pub(super) fn admin(&self, database: &str) -> Option<String> {
        let url = self.url.expose_secret();
        let (before, _) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, rest) = before.split_once("://")?;
        let authority = rest.split('/').next()?;
        Some(format!("{scheme}://{authority}/{database}{}", self.options))
    }

    pub(super) fn client(&self, user: &str, password: &str, database: &str) -> String {
        format!("{}://{user}:{password}@{}/{database}{}", self.scheme, self.authority, self.options)
    }
}
