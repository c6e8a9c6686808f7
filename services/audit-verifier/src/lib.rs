//! Checks an audit trail of Pavior without trusting the service that wrote it.
//!
//! Owns its own Merkle tree (RFC 6962), its own reading of signed notes (C2SP), its own reading of records (as the
//! comment of `pavior.audit.v1.AuditRecord.canonical` says, with `docs/audit-record.json` as the example) and its own
//! reading of the tables.
//! It must never share code with the writer: a mistake made once would otherwise be made twice and go unseen.
//! It never writes, needs no network except to the database it is pointed at, and trusts only the public keys that
//! the caller supplies.
//!
//! Entry points: [`verify_database`] for a whole installation, [`verify_export`] for an exported log,
//! [`verify_inclusion`] and [`verify_consistency`] for single proofs, [`VerifierKey`] and [`Checkpoint`].

mod database;
mod error;
mod export;
mod merkle;
mod note;
mod proof;
mod record;
mod sequence;

pub use database::{CheckpointStatus, LogReport, Options, Report, verify_database, verify_database_with};
pub use error::{Failure, VerifyError};
pub use export::{ExportReport, verify_export};
pub use merkle::{Hash, Tree, leaf_hash, node_hash};
pub use note::{Checkpoint, Note, NoteError, VerifierKey};
pub use proof::{ProofError, verify_consistency, verify_inclusion};
