//! Resource types.

use super::Work;
use super::crud::{LOOK_FOR, Rules};
use crate::domain::{ResourceTypeFields, Stored};
use crate::error::Error;

impl Rules for ResourceTypeFields {
    const FIELD: &'static str = "resource_type";

    async fn admit(
        _work: &Work<'_>,
        _before: Option<&Stored<Self>>,
        _after: &Stored<Self>,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn dependents(work: &Work<'_>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        Ok(work.tx.users_of_type(&work.permit, stored, LOOK_FOR).await?)
    }
}
