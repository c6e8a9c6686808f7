//! What is due at a time.

use super::state::named;

named! {
    /// What is due.
    TimerKind {
        /// An environment's time is over.
        Expire = "EXPIRE",
        /// An operation ended without having begun, and people may still be asked about it.
        Withdraw = "WITHDRAW",
    }
}
