//! What a plan costs.

use pavior_core::money::{self, Money};

use super::plan::{Action, Change, Kind};

/// What the target of a plan costs a month now, and what it would cost: of what it `has`, and of what is made. Empty where
/// no definition says, and where it is not all in one currency.
pub fn monthly(kind: Kind, has: &[String], changes: &[Change]) -> (String, String) {
    let before = money::sum(has.iter().map(String::as_str));
    let after = match kind {
        // What is gone costs nothing, where what it cost is known.
        Kind::DestroyProject | Kind::DestroyEnvironment => {
            before.parse().map(|cost: Money| cost.zero().to_string()).unwrap_or_default()
        }
        _ => {
            let made = changes.iter().filter(|change| change.action == Action::Create);
            let made = made.map(|change| change.monthly_cost.as_str());
            money::sum(has.iter().map(String::as_str).chain(made))
        }
    };
    (before, after)
}
