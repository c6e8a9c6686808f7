use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// What travels with every call: whose work it is, which step, and under which claim.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// Organization id, such as `acme`.
    pub organization: String,
    /// Full name of the resource or run that the call is for, such as
    /// `organizations/acme/projects/hello/environments/dev/resources/db`.
    pub resource: String,
    /// Operation id.
    pub operation: String,
    /// See [`CallContext::claimant`]; empty for the operation itself.
    pub claimant: String,
    /// Step name within the operation.
    pub step: String,
    /// Attempt number, from 1.
    pub attempt: u32,
    /// Fencing number of the claim; a lower one than the last seen is refused.
    pub fence: i64,
    /// `operation/step/generation`: stable over attempts.
    pub idempotency_key: String,
    /// The claim ends here unless it is renewed.
    pub lease_expire_time: Option<OffsetDateTime>,
    /// W3C trace context of the step.
    pub traceparent: Option<String>,
    /// Fires when the engine wants the call to stop gracefully.
    pub cancel: CancellationToken,
}

impl CallContext {
    /// A context with the parts that every call must have; the rest is set by field.
    #[must_use]
    pub fn new(organization: &str, resource: &str, idempotency_key: &str, fence: i64) -> Self {
        Self {
            organization: organization.to_owned(),
            resource: resource.to_owned(),
            operation: String::new(),
            claimant: String::new(),
            step: String::new(),
            attempt: 1,
            fence,
            idempotency_key: idempotency_key.to_owned(),
            lease_expire_time: None,
            traceparent: None,
            cancel: CancellationToken::new(),
        }
    }

    /// In whose name the claim is: claimants of one resource follow each other, and once a later one was seen the one
    /// before it is refused. The operation, or what it is known as since the engine's database was set back. Where it is set
    /// to the operation itself, what began after the operation is later, too, whether or not the operation was seen before.
    #[must_use]
    pub fn claimant(&self) -> &str {
        if self.claimant.is_empty() { &self.operation } else { &self.claimant }
    }

    /// The id that follows `collection` in the resource name, such as the project's.
    #[must_use]
    pub fn segment(&self, collection: &str) -> Option<&str> {
        let mut parts = self.resource.split('/');
        while let (Some(name), Some(id)) = (parts.next(), parts.next()) {
            if name == collection {
                return Some(id);
            }
        }
        None
    }
}
