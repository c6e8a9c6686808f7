//! pavior: puts the services together into one binary, and is the command line on top of the public API.
//!
//! Owns the assembly ([`serve`]), the quickstart ([`quickstart`]), the embedded starter kit ([`starter`]) and the
//! client commands ([`cli`]). Must never hold a rule of a service: client commands and the quickstart reach
//! everything through the gateway, as any other caller does.
//!
//! Entry points: [`cli::run`], [`serve::System`].

pub mod cli;
pub mod quickstart;
pub mod serve;
pub mod starter;
