//! # pavior-core
//!
//! Owns the small vocabulary that every part of Pavior shares: resource names, principals, clocks, id
//! generators, page tokens, etags, resources with their revisions, the AIP-160 filter language, the audit event and digests.
//!
//! It must never do I/O, know a wire format or a database, or hold process-global state. [`clock::SystemClock`]
//! and [`id_gen::SystemIds`] are the only places in the product that read the wall clock or make random ids.
//!
//! Entry points: [`name::ResourceName`], [`principal::Principal`], [`page::PageTokens`], [`filter::Filter`],
//! [`audit::AuditEvent`], [`digest::sha256_hex`].

pub mod annotation;
pub mod audit;
pub mod clock;
pub mod digest;
pub mod etag;
pub mod filter;
pub mod id;
pub mod id_gen;
pub mod money;
pub mod name;
pub mod nearest;
pub mod page;
pub mod pointer;
pub mod principal;
pub mod resource;
pub mod text;
pub mod value;

pub use clock::{Clock, ManualClock, SystemClock};
pub use etag::etag;
pub use id::validate_id;
pub use id_gen::{IdGen, SeededIds, SystemIds};
pub use name::ResourceName;
pub use principal::{Principal, PrincipalKind};
pub use resource::Fault;
