//! Resource types.

use pavior_resource::crud::LOOK_FOR;
use pavior_resource::{Rules, Work};

use super::{App, db};
use crate::domain::{ResourceTypeFields, Stored};
use crate::error::Error;

impl Rules for ResourceTypeFields {
    type Service = App;

    async fn dependents(work: &Work<'_, App>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        Ok(db(work).users_of_type(work.permit, stored, LOOK_FOR).await?)
    }
}
