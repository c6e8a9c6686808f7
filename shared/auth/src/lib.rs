//! Who is calling, and on whose authority: external tokens at the edge, signed internal tokens between services.
//!
//! Owns the internal token (Ed25519, one audience, at most 60 seconds), the server layer that demands it, the client
//! side that mints it, the [`Permit`] that store methods on tenant data need, and the verification of external tokens.
//! Must never decide what a caller may do (policy does), and must never tell an outsider why a token was refused.
//! Entry points: [`authn_layer`] and [`permit`] in a server, [`ServiceIdentity`] in a client, [`TokenVerifier`] at the
//! edge, [`DevIssuer`] for development tokens, [`Permit::event`] for audit events.

mod authn;
mod dev;
mod error;
mod external;
mod identity;
mod internal;
mod jwt;
mod keys;
mod peer;
mod permit;
mod principal;
mod record;

pub use authn::{Authn, AuthnLayer, Brings, CallRules, authn_layer};
pub use dev::{DEV_ISSUER, DevClaims, DevIssuer};
pub use error::{AuthError, Unauthenticated};
pub use external::{Algorithm, Authenticated, IssuerConfig, TokenVerifier, bearer};
pub use identity::{Acting, ServiceIdentity, identity_transport};
pub use internal::{Grant, INTERNAL_TOKEN, InternalSigner, InternalVerifier, MAX_LIFETIME_SECONDS};
pub use keys::{PublicKey, SigningKey};
pub use peer::Peer;
pub use permit::{Permit, SystemAuthority, current, permit};
pub use record::Act;
