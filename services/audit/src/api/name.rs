//! Names of resources in logs.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::id::validate_id_in;
use pavior_core::principal::installation_name;
use pavior_resource::Error;
use pavior_rpc::Problem;

/// Reads a name and demands that the call is confined to its organization: a permit for one is not one for another.
/// Gives the ids in it, from the organization's down. [`pavior_resource::parse`] knows organizations only, and the
/// installation itself, which is none, has a log as well.
pub(super) fn parse<'n>(
    permit: &Permit,
    field: &str,
    name: &'n str,
    pattern: &str,
    action: &str,
) -> Result<Vec<&'n str>, Error> {
    let ids = ids(name, pattern).ok_or_else(|| malformed(field, name, pattern))?;
    match ids.first() == Some(&permit.organization()) {
        true => Ok(ids),
        false => Err(Error::Denied { action: action.to_owned(), resource: name.to_owned() }),
    }
}

/// That a name does not have the form of its type.
pub(super) fn malformed(field: &str, name: &str, pattern: &str) -> Problem {
    const MAX_SHOWN: usize = 100;
    let shown: String = name.chars().take(MAX_SHOWN).collect();
    let installation = installation_name();
    let why = format!(
        "`{shown}` must have the form `{pattern}`; the log of the installation is in `{installation}`"
    );
    Problem::invalid_field(field, Fault::Pattern, why)
}

fn ids<'n>(name: &'n str, pattern: &str) -> Option<Vec<&'n str>> {
    let (mut ids, mut collection) = (Vec::new(), "");
    let (mut segments, mut wanted) = (name.split('/'), pattern.split('/'));
    loop {
        match (segments.next(), wanted.next()) {
            (None, None) => return Some(ids),
            (Some(segment), Some(wanted)) if wanted.starts_with('{') => {
                validate_id_in(collection, segment).ok()?;
                ids.push(segment);
            }
            (Some(segment), Some(wanted)) if segment == wanted => collection = segment,
            _ => return None,
        }
    }
}
