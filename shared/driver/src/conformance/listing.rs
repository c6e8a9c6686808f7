//! What a driver says that it has.

use super::{Check, Subject, declaration_digest};
use crate::{Failure, FailureCode, ListRequest, ListResponse, Listed};

/// Most things that the kit asks for at once.
const PAGE: usize = 20;
/// Most pages that it reads: a driver that gives more of them is taken for one that never ends.
const MAX_PAGES: usize = 10_000;
/// A token that no driver gives.
const NO_TOKEN: &str = "\u{2603} no driver gives this token";

impl Subject {
    async fn page(&self, page_size: usize, page_token: &str) -> Result<ListResponse, Failure> {
        self.driver.list(ListRequest { page_size, page_token: page_token.to_owned() }).await
    }

    /// Reads on until there is what is wanted, or nothing more.
    pub(super) async fn find_listed(
        &self,
        wanted: impl Fn(&Listed) -> bool,
    ) -> Result<Option<Listed>, Failure> {
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let page = self.page(PAGE, &token).await?;
            if let Some(found) = page.resources.into_iter().find(&wanted) {
                return Ok(Some(found));
            }
            if page.next_page_token.is_empty() {
                return Ok(None);
            }
            token = page.next_page_token;
        }
        Err(Failure::new(FailureCode::Internal, endless()))
    }

    /// A thing as the driver lists it; nothing when it does not.
    pub(super) async fn listed(&self, identity: &str) -> Result<Option<Listed>, Failure> {
        self.find_listed(|listed| listed.identity == identity).await
    }

    /// A driver need not be able to list; one that can says what is there.
    pub(super) async fn lists(&self) -> Check {
        let made = self.make("list").await?;
        let identity = &made.success.identity;
        match self.listed(identity).await {
            Err(failure) if failure.code == FailureCode::Unsupported => return self.clean(&made).await,
            Err(failure) => return Err(failure.to_string()),
            Ok(found) => {
                let want = Listed {
                    identity: identity.clone(),
                    resource_type: self.resource_type.clone(),
                    organization: self.organization.clone(),
                    resource: made.case.resource.clone(),
                    key: made.context.idempotency_key.clone(),
                    declaration_digest: declaration_digest(&made.case.inputs),
                };
                // A driver need not keep what was declared.
                let kept = found.as_ref().is_some_and(|found| !found.declaration_digest.is_empty());
                let want = if kept { want } else { Listed { declaration_digest: String::new(), ..want } };
                ensure!(found.as_ref() == Some(&want), "listed as {found:?} instead of {want:?}");
            }
        }
        self.clean(&made).await?;
        let left = self.listed(identity).await.map_err(|failure| failure.to_string())?;
        ensure!(left.is_none(), "it is listed after it was removed");
        Ok(())
    }

    /// Pages end, are in order of identity, repeat nothing and leave nothing out.
    pub(super) async fn pages(&self) -> Check {
        let made = [self.make("page-a").await?, self.make("page-b").await?, self.make("page-c").await?];
        let found = self.all_pages(2).await;
        for made in &made {
            self.clean(made).await?;
        }
        let found = match found {
            Err(failure) if failure.code == FailureCode::Unsupported => return Ok(()),
            Err(failure) => return Err(failure.to_string()),
            Ok(found) => found,
        };
        if let Some([one, other]) = found.array_windows().find(|[one, other]| one >= other) {
            return Err(format!("`{other}` comes after `{one}`"));
        }
        let left_out = made.iter().find(|made| !found.contains(&made.success.identity));
        ensure!(left_out.is_none(), "a thing that is there is on no page");
        Ok(())
    }

    /// A driver that took any text for a token would begin anew, or in the middle.
    pub(super) async fn refuses_tokens(&self) -> Check {
        match self.page(PAGE, NO_TOKEN).await {
            Err(failure) => {
                let refused = [FailureCode::InvalidArgument, FailureCode::Unsupported];
                ensure!(refused.contains(&failure.code), "answered {failure}");
                Ok(())
            }
            Ok(page) => Err(format!("answered a page of {} things", page.resources.len())),
        }
    }

    /// The identities of all pages, one after the other.
    async fn all_pages(&self, page_size: usize) -> Result<Vec<String>, Failure> {
        let broken = |why: String| Failure::new(FailureCode::Internal, why);
        let mut found = Vec::new();
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let page = self.page(page_size, &token).await?;
            if page.resources.len() > page_size {
                let count = page.resources.len();
                return Err(broken(format!("a page of {page_size} holds {count} things")));
            }
            found.extend(page.resources.into_iter().map(|listed| listed.identity));
            if page.next_page_token.is_empty() {
                return Ok(found);
            }
            token = page.next_page_token;
        }
        Err(broken(endless()))
    }
}

fn endless() -> String {
    format!("there is still a next page after {MAX_PAGES}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use serde_json::{Value, json};

    use super::*;
    use crate::conformance::Case;
    use crate::testing::FakeDriver;
    use crate::{
        ApplyRequest, CallContext, DestroyRequest, Driver, DriverInfo, Health, Observation, ObserveRequest,
        Outcome, PlanRequest, PlanResponse, Sink, ValidateRequest, Violation,
    };

    /// What a driver does wrong.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Mistake {
        Endless,
        Repeats,
        LeavesOut,
        TooLarge,
        TakesAnyToken,
    }

    struct Faulty(FakeDriver, Mistake);

    #[async_trait]
    impl Driver for Faulty {
        fn info(&self) -> DriverInfo {
            self.0.info()
        }
        async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
            self.0.validate(request).await
        }
        async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
            self.0.plan(request).await
        }
        async fn apply(&self, context: &CallContext, request: ApplyRequest, sink: &dyn Sink) -> Outcome {
            self.0.apply(context, request, sink).await
        }
        async fn observe(&self, context: &CallContext, request: ObserveRequest) -> Observation {
            self.0.observe(context, request).await
        }
        async fn destroy(&self, context: &CallContext, request: DestroyRequest, sink: &dyn Sink) -> Outcome {
            self.0.destroy(context, request, sink).await
        }
        async fn health(&self) -> Health {
            self.0.health().await
        }
        async fn list(&self, mut request: ListRequest) -> Result<ListResponse, Failure> {
            let Self(driver, mistake) = self;
            match mistake {
                Mistake::TooLarge => request.page_size = 1_000,
                Mistake::TakesAnyToken => request.page_token.clear(),
                Mistake::Endless | Mistake::Repeats | Mistake::LeavesOut => {}
            }
            let mut page = driver.list(request).await?;
            match mistake {
                Mistake::Endless if page.next_page_token.is_empty() => {
                    let last = ListRequest { page_size: 1, page_token: String::new() };
                    page.next_page_token = driver.list(last).await?.next_page_token;
                    page.resources.clear();
                }
                Mistake::Repeats => {
                    if let [first, second] = page.resources.as_mut_slice() {
                        second.clone_from(first);
                    }
                }
                Mistake::LeavesOut => drop(page.resources.pop()),
                _ => {}
            }
            Ok(page)
        }
    }

    fn subject(mistake: Mistake) -> Subject {
        Subject {
            driver: Arc::new(Faulty(FakeDriver::new("fake", &["thing"]), mistake)),
            resource_type: "thing".to_owned(),
            organization: "acme".to_owned(),
            run: "kit".to_owned(),
            case: Box::new(|name| Case {
                resource: format!("organizations/acme/projects/p/resources/{name}"),
                inputs: json!({ "name": name }),
                changed: None,
                failing: None,
                sensitive: Vec::new(),
            }),
        }
    }

    #[tokio::test]
    async fn pages_that_break_the_contract_are_found() {
        for (mistake, why) in [
            (Mistake::Endless, "INTERNAL: there is still a next page after 10000"),
            (Mistake::Repeats, "`fake-1` comes after `fake-1`"),
            (Mistake::LeavesOut, "a thing that is there is on no page"),
            (Mistake::TooLarge, "INTERNAL: a page of 2 holds 3 things"),
        ] {
            assert_eq!(subject(mistake).pages().await, Err(why.to_owned()), "{mistake:?}");
            assert_eq!(subject(mistake).refuses_tokens().await, Ok(()), "{mistake:?}");
        }
        let refused = subject(Mistake::TakesAnyToken).refuses_tokens().await;
        assert_eq!(refused, Err("answered a page of 0 things".to_owned()));
    }
}
