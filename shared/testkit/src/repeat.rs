//! What every change that takes a request id must keep to (AIP-155), whatever it changes.

use std::collections::BTreeSet;

use futures::future::{BoxFuture, join_all};
use prost_reflect::MethodDescriptor;
use serde_json::Value as Json;
use tonic::{Code, Status};

use crate::dynamic;

/// One change, with what it takes to make it. Method names are those of the service.
#[derive(Debug, Clone)]
pub struct Case {
    /// The change.
    pub method: &'static str,
    /// What is there before.
    pub before: Vec<(&'static str, Json)>,
    /// The request.
    pub request: Json,
    /// A request of other content.
    pub other: Json,
    /// What takes the target away afterwards; nothing for what stays for ever.
    pub gone: Vec<(&'static str, Json)>,
}

/// So many ask at the same time.
const AT_ONCE: usize = 4;

/// Calls a method as somebody who may.
pub type Ask<'a> = dyn Fn(MethodDescriptor, Json) -> BoxFuture<'a, Result<Json, Status>> + 'a;

/// Checks every change of a service. `cases` gives them for a name that nothing else has; together they must be all
/// methods that take a request id.
pub async fn check(role: &str, cases: impl Fn(&str) -> Vec<Case>, ask: &Ask<'_>) {
    let methods = dynamic::methods(role);
    let method = |name: &str| methods.iter().find(|method| method.name() == name).unwrap().clone();
    let repeatable = methods.iter().filter(|m| m.input().get_field_by_name("request_id").is_some());
    let repeatable: BTreeSet<&str> = repeatable.map(MethodDescriptor::name).collect();
    let first_round = cases("one");
    let covered: BTreeSet<&str> = first_round.iter().map(|case| case.method).collect();
    assert_eq!(covered, repeatable, "each method that takes a request id needs a case");
    let all = async |calls: &[(&'static str, Json)]| {
        for (name, request) in calls {
            ask(method(name), request.clone()).await.unwrap_or_else(|status| panic!("{name}: {status:?}"));
        }
    };
    for case in first_round {
        let (name, id) = (case.method, uuid::Uuid::new_v4().to_string());
        all(&case.before).await;
        let call = |request: &Json, id: &str| ask(method(name), with_id(request, id));
        let told = |status: Status| panic!("{name}: {status:?}");
        let first = call(&case.request, &id).await.unwrap_or_else(told);
        assert_eq!(call(&case.request, &id).await.unwrap_or_else(told), first, "{name} again");
        let shouted = call(&case.request, &id.to_uppercase()).await.unwrap_or_else(told);
        assert_eq!(shouted, first, "{name} with its id in upper case");
        let refused = call(&case.other, &id).await.expect_err(name);
        let reason = pavior_rpc::problem::from_status(&refused).reason;
        assert_eq!((refused.code(), reason.as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"), "{name}");
        all(&case.gone).await;
        let after = call(&case.request, &id).await.unwrap_or_else(told);
        assert_eq!(after, first, "{name} after its target is gone");
    }
    for case in cases("two") {
        let (name, id) = (case.method, uuid::Uuid::new_v4().to_string());
        all(&case.before).await;
        let calls = (0..AT_ONCE).map(|_| ask(method(name), with_id(&case.request, &id)));
        let answers = join_all(calls).await;
        let answers: Vec<Json> =
            answers.into_iter().map(|a| a.unwrap_or_else(|status| panic!("{name}: {status:?}"))).collect();
        assert!(answers.windows(2).all(|two| two[0] == two[1]), "{name} at the same time: {answers:?}");
        all(&case.gone).await;
    }
}

fn with_id(request: &Json, id: &str) -> Json {
    let mut request = request.clone();
    request["requestId"] = id.into();
    request
}
