//! How a thing stands against what is recorded of it.

use super::state::named;

named! {
    /// What is not as it is recorded.
    Drift {
        /// There is nothing of it.
        Gone = "GONE",
        /// It does not run, or parts of it are missing.
        Broken = "BROKEN",
        /// Its driver was last told something else.
        Different = "DIFFERENT",
    }
}

impl Drift {
    /// For people, as plans say it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Gone => "is gone",
            Self::Broken => "is not running, or only a part of it is left",
            Self::Different => "differs from what is recorded",
        }
    }
}

/// What is known of a thing that is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Standing {
    /// It is there as it is recorded.
    #[default]
    AsRecorded,
    /// It is not.
    Drifted(Drift),
    /// Its driver does not say, and why.
    Untold(String),
}

impl Standing {
    /// In what it is not as it is recorded, as far as is known.
    pub fn drift(&self) -> Option<Drift> {
        match self {
            Self::Drifted(drift) => Some(*drift),
            Self::AsRecorded | Self::Untold(_) => None,
        }
    }
}
