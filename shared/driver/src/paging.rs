use std::fmt;

use pavior_core::page::PageTokens;
use serde_json::Value;

use crate::{Failure, FailureCode, ListRequest, ListResponse, Listed};

/// The pages of [`crate::Driver::list`]: a token carries the identity of the last thing of its page, which need not be
/// there any more when the next one is asked for.
pub struct Paging {
    tokens: PageTokens,
    driver: String,
}

impl fmt::Debug for Paging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paging").field("driver", &self.driver).finish_non_exhaustive()
    }
}

impl Paging {
    /// Of the driver with this id. All replicas of it must share the key.
    #[must_use]
    pub fn new(key: [u8; 32], driver: &str) -> Self {
        Self { tokens: PageTokens::new(key), driver: driver.to_owned() }
    }

    /// The identity behind which the page begins; empty for the first page.
    ///
    /// # Errors
    /// The page would hold nothing, or this driver did not give the token within the last three days.
    pub fn after(&self, request: &ListRequest) -> Result<String, Failure> {
        if request.page_size == 0 {
            return Err(Failure::new(FailureCode::InvalidArgument, "the page size must be at least 1"));
        }
        if request.page_token.is_empty() {
            return Ok(String::new());
        }
        match self.tokens.decode(&request.page_token, self.driver.as_bytes()) {
            Ok(Value::String(identity)) => Ok(identity),
            Ok(_) => Err(Failure::new(FailureCode::InvalidArgument, "page token names no identity")),
            Err(error) => Err(Failure::new(FailureCode::InvalidArgument, error.to_string())),
        }
    }

    /// The token that goes on behind this identity.
    #[must_use]
    pub fn token(&self, identity: &str) -> String {
        self.tokens.encode(self.driver.as_bytes(), &Value::from(identity))
    }

    /// The page, of what stands behind [`Paging::after`] in any order.
    #[must_use]
    pub fn page(&self, request: &ListRequest, behind: impl IntoIterator<Item = Listed>) -> ListResponse {
        let mut resources: Vec<Listed> = behind.into_iter().collect();
        resources.sort_by(|a, b| a.identity.cmp(&b.identity));
        let more = resources.len() > request.page_size;
        resources.truncate(request.page_size);
        let last = resources.last().filter(|_| more);
        let next_page_token = last.map(|last| self.token(&last.identity)).unwrap_or_default();
        ListResponse { resources, next_page_token }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(page_size: usize, page_token: &str) -> ListRequest {
        ListRequest { page_size, page_token: page_token.to_owned() }
    }

    fn listed(identity: &str) -> Listed {
        Listed {
            identity: identity.to_owned(),
            resource_type: "thing".to_owned(),
            organization: "acme".to_owned(),
            resource: String::new(),
            key: String::new(),
            declaration_digest: String::new(),
        }
    }

    fn refusal(paging: &Paging, request: &ListRequest) -> String {
        let failure = paging.after(request).unwrap_err();
        assert_eq!((failure.code, failure.retryable), (FailureCode::InvalidArgument, false));
        failure.message
    }

    #[test]
    fn pages_go_on_behind_their_last_identity() {
        let paging = Paging::new([1; 32], "fake");
        let first = paging.page(&request(2, ""), ["c", "a", "b"].map(listed));
        assert_eq!(first.resources, ["a", "b"].map(listed));
        assert_eq!(paging.after(&request(2, &first.next_page_token)).unwrap(), "b");
        let last = paging.page(&request(1, &first.next_page_token), ["c"].map(listed));
        assert_eq!(last, ListResponse { resources: vec![listed("c")], next_page_token: String::new() });
    }

    #[test]
    fn what_is_no_token_of_this_driver_is_refused() {
        const NOT_VALID: &str =
            "page token is not valid for this request; repeat the call with the arguments of the first page";
        let paging = Paging::new([1; 32], "fake");
        let of_another = Paging::new([1; 32], "other").token("a");
        let with_another_key = Paging::new([2; 32], "fake").token("a");
        for token in ["a", &of_another, &with_another_key] {
            assert_eq!(refusal(&paging, &request(1, token)), NOT_VALID);
        }
        assert_eq!(refusal(&paging, &request(0, "")), "the page size must be at least 1");
    }
}
