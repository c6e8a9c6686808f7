//! The one template language of golden paths, resource definitions and skeletons.
//!
//! Owns expressions `${{ … }}` over JSON values ([`evaluate`], [`evaluate_known`], [`references`], [`check`]), the
//! rendering of skeleton directories ([`render_skeleton`]), YAML with budgets ([`yaml`]) and JSON Schema without
//! remote references ([`schema`]).
//!
//! It must never: reach the network, print what it evaluates, or let a text decide how much stack, time or memory it
//! takes. Sizes and nesting are checked before a parser sees a text, and evaluation runs on fuel.
//!
//! The language is Jinja's expression language (minijinja) with strict undefined. Two things are our own:
//! * an expression that is the whole string keeps its type; in mixed text it becomes a string;
//! * in a dotted path a hyphen without spaces belongs to the name: `resources.my-db.url`. Write `a.b - 1` to subtract.
//!
//! Values that are not known yet are `{"$unknown": "<expression>"}`, secret references are `{"$secret": "<name>"}`.
//! Both pass through an expression that is just their path; anything computed from one is unknown while planning, and
//! an error while executing ([`evaluate`] wants every secret resolved in the scope).
//!
//! Entry points: [`evaluate`], [`evaluate_known`], [`references`], [`render_skeleton`], [`yaml::parse`],
//! [`schema::validate`].

mod convert;
mod error;
mod limits;
mod markers;
mod scan;
pub mod schema;
mod skeleton;
mod value;
pub mod yaml;

pub use error::ExprError;
pub use limits::{MAX_EXPRESSION_BYTES, MAX_EXPRESSIONS, MAX_NESTING, MAX_TEXT_BYTES};
pub use markers::{
    contains_marker, is_marker, is_secret, is_unknown, marker_path, secret, secret_reference, unknown,
};
pub use scan::Reference;
pub use skeleton::{SkeletonFile, render_skeleton};
pub use value::{check, evaluate, evaluate_known, evaluate_text, evaluate_tracking, references};
