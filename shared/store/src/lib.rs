//! # pavior-store
//!
//! Owns how a service talks to its database: connecting to SQLite and PostgreSQL, transactions with retry, error
//! classes, migrations, the audit outbox, idempotency keys, and the compilation of filters and keyset paging to SQL
//! that gives the same results on both databases.
//!
//! It must never hold a rule or a table that belongs to one service, and never show a driver's text to a caller:
//! [`StoreError`]'s `Display` is safe, the cause is in `source()` and in the log.
//!
//! Entry points: [`Store::connect`], [`Store::change`], [`Store::upkeep`], [`migrate`], [`outbox`], [`idempotency`], [`filter::condition`],
//! [`keyset::Keyset`].
//!
//! Rules that follow from the two databases:
//!
//! * [`Store::read`] is for reading: its connections refuse to write. All writes go through a transaction, and there
//!   are two kinds: a [`Store::change`] of tenant data, which commits only together with its audit event, and the
//!   service's own [`Store::upkeep`].
//! * On SQLite there is one writer. Transactions that wait for it at the same time share one commit (group commit),
//!   each in its own savepoint, so durability (`synchronous=FULL`) costs one sync for all of them.
//! * A transaction's closure may run several times and must touch nothing but the database. It must not wait for
//!   anything else: on SQLite all other writers wait for it.
//! * A transaction that has begun runs to its end even when its caller is dropped.

mod change;
mod config;
mod error;
pub mod filter;
mod health;
pub mod idempotency;
pub mod installation;
pub mod keyset;
mod member;
pub mod outbox;
mod postgres;
mod pulse;
mod sql;
mod sqlite;
mod store;
mod time;
mod tx;
mod writer;

pub use self::time::{from_micros, micros};
pub use change::Recorded;
pub use config::{DatabaseConfig, DatabaseUrl, OutboxConfig};
pub use error::{ErrorKind, Retryable, StoreError};
pub use store::{Store, migrate};
pub use tx::{Tx, TxFuture};
