//! Columns that hold an enum. The texts are independent of the names in the API and must never change; any other text in
//! a row is an error.

use pavior_core::audit;
use sea_orm::entity::prelude::*;

macro_rules! enum_column {
    ($(#[$doc:meta])* $name:ident of $domain:ty { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
        #[sea_orm(rs_type = "String", db_type = "Text")]
        pub enum $name {
            $(#[sea_orm(string_value = $text)] $variant,)+
        }

        impl From<$domain> for $name {
            fn from(value: $domain) -> Self {
                match value { $(<$domain>::$variant => Self::$variant,)+ }
            }
        }
    };
}

enum_column! {
    /// The audit class of an event.
    AuditClass of audit::AuditClass {
        Required = "REQUIRED",
        BestEffort = "BEST_EFFORT",
        Aggregated = "AGGREGATED",
    }
}

enum_column! {
    /// What became of an act.
    Status of audit::Status {
        Succeeded = "SUCCEEDED",
        Denied = "DENIED",
        Failed = "FAILED",
        Accepted = "ACCEPTED",
        Planned = "PLANNED",
    }
}

/// What was decided about an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text")]
pub enum Effect {
    /// Nothing: nobody was asked.
    #[sea_orm(string_value = "")]
    Undecided,
    #[sea_orm(string_value = "ALLOW")]
    Allow,
    #[sea_orm(string_value = "REQUIRE_APPROVAL")]
    RequireApproval,
    #[sea_orm(string_value = "DENY")]
    Deny,
}

impl From<Option<audit::Effect>> for Effect {
    fn from(effect: Option<audit::Effect>) -> Self {
        match effect {
            None => Self::Undecided,
            Some(audit::Effect::Allow) => Self::Allow,
            Some(audit::Effect::RequireApproval) => Self::RequireApproval,
            Some(audit::Effect::Deny) => Self::Deny,
        }
    }
}
