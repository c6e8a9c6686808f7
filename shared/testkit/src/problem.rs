//! Errors, checked for everything that a client may rely on.

use pavior_rpc::problem::{Decoded, from_status};
use tonic::{Code, Status};

/// The domain of every reason that clients see.
const DOMAIN: &str = "pavior.dev";

/// Fails unless the answer is an error with this code, this reason and (at least) this metadata; the rest of the error
/// is returned.
#[track_caller]
pub fn assert_problem<T>(
    answer: Result<T, Status>,
    code: Code,
    reason: &str,
    metadata: &[(&str, &str)],
) -> Decoded {
    let problem = assert_refusal(answer, code, reason, metadata);
    assert_eq!(problem.domain, DOMAIN, "{problem:?}");
    problem
}

/// The same for a reason that only services of the platform tell one another, which has a domain of its own.
#[track_caller]
pub fn assert_refusal<T>(
    answer: Result<T, Status>,
    code: Code,
    reason: &str,
    metadata: &[(&str, &str)],
) -> Decoded {
    let Err(status) = answer else { panic!("an answer instead of {code:?} {reason}") };
    let problem = from_status(&status);
    assert_eq!((status.code(), problem.reason.as_str()), (code, reason), "{problem:?}");
    for (key, value) in metadata {
        assert_eq!(problem.metadata.get(*key).map(String::as_str), Some(*value), "{key} of {problem:?}");
    }
    problem
}

/// The fields that an error names, in its order.
pub fn fields(problem: &Decoded) -> Vec<&str> {
    problem.violations.iter().map(|violation| violation.field.as_str()).collect()
}
