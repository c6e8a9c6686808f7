//! The shapes of requests and resources (AIP-131 to 136), implemented for every message that has one.

use std::collections::HashMap;

use prost::{Message, Name};
use prost_types::FieldMask;

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// A message that has a name of its own: `google.api.resource`.
pub trait Resource: Message + Name + Default + Clone + Send + Sync + 'static {
    /// `identity.pavior.dev/Group`
    const TYPE: &'static str;
    /// `organizations/{organization}/groups/{group}`
    const PATTERN: &'static str;
    /// `group`
    const SINGULAR: &'static str;
    /// `groups`
    const PLURAL: &'static str;
    /// The resource name.
    fn name(&self) -> &str;
    /// The etag; empty where the resource has none.
    fn etag(&self) -> &str {
        ""
    }
    /// The name of who owns it; empty where nobody does.
    fn owner(&self) -> &str {
        ""
    }
    /// Its labels, where it has some.
    fn labels(&self) -> Option<&HashMap<String, String>> {
        None
    }
}

/// The request of exactly one method.
pub trait Request: Message + Name + Default + Clone + Send + Sync + 'static {
    /// `/pavior.identity.v1.IdentityService/CreateGroup`
    const PATH: &'static str;
    /// What policy decides on, `identity.groups.create`.
    const ACTION: &'static str;
    /// Policy decided on facts of the target, which must still hold when it changes.
    const FACTS: bool;
    /// The caller's UUID (AIP-155); empty where there is none.
    fn request_id(&self) -> &str {
        ""
    }
    /// The digest of the plan that was seen; empty where none is named.
    fn plan_digest(&self) -> &str {
        ""
    }
    /// Nothing is to change (AIP-163).
    fn validate_only(&self) -> bool {
        false
    }
    /// The fields that are wanted of each resource (AIP-157); all of them when absent.
    fn read_mask(&self) -> Option<&FieldMask> {
        None
    }
}

/// AIP-131.
pub trait GetRequest: Request {
    /// What to get.
    fn name(&self) -> &str;
}

/// AIP-132.
pub trait ListRequest: Request {
    /// What is listed.
    type Resource: Message + Name + Default;
    /// A page.
    type Response: Message;
    /// What is listed below.
    fn parent(&self) -> &str {
        ""
    }
    /// At most so many.
    fn page_size(&self) -> i32;
    /// Where the page before ended.
    fn page_token(&self) -> &str;
    /// AIP-160.
    fn filter(&self) -> &str {
        ""
    }
    /// The order.
    fn order_by(&self) -> &str {
        ""
    }
    /// Whether to say how many there are on all pages (AIP-158).
    fn return_total_size(&self) -> bool {
        false
    }
    /// Whether to list what is deleted and still kept, too (AIP-164).
    fn show_deleted(&self) -> bool {
        false
    }
    /// The page with these.
    fn respond(
        items: Vec<Self::Resource>,
        next_page_token: String,
        total_size: Option<i32>,
    ) -> Self::Response;
}

/// AIP-133.
pub trait CreateRequest: Request {
    /// What is made.
    type Resource: Resource;
    /// The field that holds it.
    const FIELD: &'static str;
    /// The field that holds its id.
    const ID_FIELD: &'static str;
    /// Below what it is made.
    fn parent(&self) -> &str {
        ""
    }
    /// Its id; empty when the server is to choose.
    fn id(&self) -> &str {
        ""
    }
    /// What it shall be.
    fn resource(&self) -> Option<&Self::Resource>;
}

/// AIP-134.
pub trait UpdateRequest: Request {
    /// What is changed.
    type Resource: Resource;
    /// The field that holds it.
    const FIELD: &'static str;
    /// What it shall be.
    fn resource(&self) -> Option<&Self::Resource>;
    /// Which fields change.
    fn update_mask(&self) -> Option<&FieldMask>;
    /// The same request without its mask, whose paths do not all have a JSON form.
    #[must_use]
    fn without_mask(&self) -> Self;
    /// It is made when it is not there.
    fn allow_missing(&self) -> bool {
        false
    }
}

/// AIP-135.
pub trait DeleteRequest: Request {
    /// What is deleted, or the operation that deletes it.
    type Response: Message;
    /// What to delete.
    fn name(&self) -> &str;
    /// Which version of it; empty for any.
    fn etag(&self) -> &str {
        ""
    }
    /// That it is not there is as good.
    fn allow_missing(&self) -> bool {
        false
    }
}
