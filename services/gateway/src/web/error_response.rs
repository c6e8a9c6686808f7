//! Errors as HTTP tells them: the code of the answer, and the JSON of the status.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use pavior_proto::google::rpc;
use pavior_rpc::convert;
use pavior_rpc::problem::{ErrorReason, from_status};
use prost::Message;
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::{Code, Status};

/// What belongs to gRPC, or to the connection, and not into an answer in another form.
const NOT_PASSED: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::CONNECTION,
    header::TE,
];

/// Headers of a gRPC answer that are told on, `prefix` before their names.
pub(crate) fn passed(headers: &HeaderMap, prefix: &str) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for (name, value) in headers {
        if name.as_str().starts_with("grpc-") || NOT_PASSED.contains(name) {
            continue;
        }
        if let Ok(name) = HeaderName::try_from(format!("{prefix}{name}")) {
            passed.append(name, value.clone());
        }
    }
    passed
}

/// An answer with the headers that all have: what tenants are told is kept by nobody on the way, and is what it says.
pub(crate) fn answer(
    status: StatusCode,
    headers: &HeaderMap,
    content_type: &'static str,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = passed(headers, "");
    let fixed = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// An answer that says what went wrong, in the JSON that its form wants.
pub(crate) fn failed(status: &Status, code: StatusCode, headers: &HeaderMap, json: &Value) -> Response<Body> {
    let body = Body::new(http_body_util::Full::from(json.to_string()));
    let mut response = answer(code, headers, "application/json", body);
    if code == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge(status)));
    }
    let retries = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted);
    if let Some(after) = from_status(status).retry_after.filter(|_| retries) {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// How a caller authenticates, and whether its token was refused (RFC 6750 §3).
fn challenge(status: &Status) -> &'static str {
    let decoded = from_status(status);
    match decoded.metadata.get("cause").map(String::as_str) {
        None | Some("NO_TOKEN") => "Bearer",
        Some(_) => "Bearer error=\"invalid_token\"",
    }
}

/// The code that stands for a status: the mapping of `google.rpc.Code`, with 413 for what is too large.
pub(crate) fn code(status: &Status) -> StatusCode {
    if from_status(status).is(ErrorReason::MessageTooLarge) {
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    let code = match status.code() {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The status as `google.rpc.Status` in JSON, its details by `@type`. Details of a type that is not of this API have no
/// JSON and are left out.
pub(crate) fn google(status: &Status) -> Value {
    let details = rpc::Status::decode(status.details()).unwrap_or_default().details;
    let details = details.into_iter().filter(|any| detail(any).is_some()).collect();
    let status = rpc::Status { code: status.code().into(), message: status.message().to_owned(), details };
    convert::to_json(&status).unwrap_or_else(|_| json!({ "code": status.code, "message": status.message }))
}

/// The status as the Connect protocol writes it.
pub(crate) fn connect(status: &Status) -> Value {
    let details: Vec<Value> = rpc::Status::decode(status.details())
        .unwrap_or_default()
        .details
        .iter()
        .map(|any| {
            let name = any.type_url.rsplit('/').next().unwrap_or_default();
            let mut shown = json!({ "type": name, "value": STANDARD_NO_PAD.encode(&any.value) });
            if let (Some(Value::Object(mut debug)), Some(shown)) = (detail(any), shown.as_object_mut()) {
                debug.remove("@type");
                shown.insert("debug".to_owned(), Value::Object(debug));
            }
            shown
        })
        .collect();
    json!({ "code": connect_code(status.code()), "message": status.message(), "details": details })
}

fn detail(any: &prost_types::Any) -> Option<Value> {
    let one = rpc::Status { details: vec![any.clone()], ..Default::default() };
    convert::to_json(&one).ok()?.get_mut("details")?.get_mut(0).map(Value::take)
}

fn connect_code(code: Code) -> &'static str {
    match code {
        Code::Cancelled => "canceled",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
        Code::Ok | Code::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use pavior_core::Fault;
    use pavior_rpc::Problem;

    use super::*;

    #[test]
    fn a_status_is_told_with_its_details_in_both_forms() {
        let status = Status::from(Problem::invalid_field("entity.owner", Fault::Required, "must be set"));
        assert_eq!(code(&status), 400);
        let info = json!({ "reason": "INVALID_FIELD", "domain": "pavior.dev" });
        let google = google(&status);
        assert_eq!(google["code"], 3);
        assert_eq!(google["message"], "`entity.owner`: must be set");
        assert_eq!(google["details"][0]["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
        assert_eq!(google["details"][0]["reason"], info["reason"]);
        assert_eq!(google["details"][1]["fieldViolations"][0]["field"], "entity.owner");
        let connect = connect(&status);
        assert_eq!(connect["code"], "invalid_argument");
        assert_eq!(connect["details"][0]["type"], "google.rpc.ErrorInfo");
        assert_eq!(connect["details"][0]["debug"], info);
        let value = STANDARD_NO_PAD.decode(connect["details"][0]["value"].as_str().unwrap()).unwrap();
        assert_eq!(rpc::ErrorInfo::decode(value.as_slice()).unwrap().reason, "INVALID_FIELD");
    }

    #[test]
    fn details_that_nobody_knows_do_not_hide_the_rest() {
        let unknown = prost_types::Any { type_url: "type.googleapis.com/no.Such".to_owned(), value: vec![1] };
        let details = rpc::Status { details: vec![unknown], ..Default::default() }.encode_to_vec();
        let status = Status::with_details(Code::NotFound, "gone", details.into());
        assert_eq!(google(&status), json!({ "code": 5, "message": "gone" }));
        let told = json!([{ "type": "no.Such", "value": "AQ" }]);
        assert_eq!(connect(&status), json!({ "code": "not_found", "message": "gone", "details": told }));
    }

    #[test]
    fn every_code_has_its_own_of_http() {
        let codes: Vec<u16> = (0..=16).map(|n| code(&Status::new(Code::from(n), "")).as_u16()).collect();
        let expected = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        assert_eq!(codes, expected);
        assert_eq!(code(&Problem::too_large(Some(1)).into()), 413);
    }
}
