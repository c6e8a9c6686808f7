//! Where a stream begins and goes on: one form for all of them, with opaque tokens bound to the arguments.

use pavior_core::Fault;
use pavior_core::page::PageTokens;
use pavior_proto::pavior::r#type::v1::StreamStart;
use pavior_proto::pavior::r#type::v1::stream_start::{Position, Start as Wire};
use serde_json::Value;
use time::OffsetDateTime;

use crate::paging::args_hash;
use crate::problem::{ErrorReason, Problem};
use crate::{Violations, convert};

/// The field of a request that says where its stream begins.
const FIELD: &str = "start";

/// Where a stream begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// With the first thing that is kept.
    Beginning,
    /// With the next thing that happens.
    Now,
    /// With the first thing that happened then or later.
    At(OffsetDateTime),
    /// Behind this place.
    Behind(Value),
}

/// Makes the tokens of one stream.
#[derive(Debug, Clone)]
pub struct StreamTokens {
    tokens: PageTokens,
    args_hash: [u8; 32],
}

impl StreamTokens {
    /// For a stream with these arguments: method, resource, filter and so on, in a fixed order.
    pub fn new(tokens: &PageTokens, args: &[&str]) -> Self {
        Self { tokens: tokens.clone(), args_hash: args_hash(args) }
    }

    /// Where the stream begins.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a time that is none, and for a token of another stream.
    pub fn start(&self, start: Option<&StreamStart>) -> Result<Start, Problem> {
        let Some(start) = start.and_then(|start| start.start.as_ref()) else { return Ok(Start::Beginning) };
        match start {
            Wire::Position(position) => match Position::try_from(*position) {
                Ok(Position::Unspecified | Position::Beginning) => Ok(Start::Beginning),
                Ok(Position::Now) => Ok(Start::Now),
                Err(_) => {
                    Err(Problem::invalid_field(format!("{FIELD}.position"), Fault::Unknown, "is no position"))
                }
            },
            Wire::StartTime(time) => {
                let mut violations = Violations::new();
                let time = violations.check(
                    &format!("{FIELD}.start_time"),
                    Fault::OutOfRange,
                    convert::from_timestamp(time),
                );
                time.map(Start::At).ok_or_else(|| Problem::invalid(violations.into_vec()))
            }
            Wire::ResumeToken(token) => self
                .tokens
                .decode_of_any_age(token, &self.args_hash)
                .map(Start::Behind)
                .map_err(|_| not_ours()),
        }
    }

    /// The token that goes on behind this place.
    pub fn token(&self, place: &Value) -> String {
        self.tokens.encode_for_any_age(&self.args_hash, place)
    }
}

/// Goes on behind a token; from the beginning when there is none yet.
pub fn resume(token: &str) -> Option<StreamStart> {
    (!token.is_empty()).then(|| StreamStart { start: Some(Wire::ResumeToken(token.to_owned())) })
}

/// What is said about a token that is not one of the stream.
pub fn not_ours() -> Problem {
    let what = "is not a token of this stream with these arguments";
    Problem::invalid_reason(
        ErrorReason::InvalidResumeToken,
        format!("{FIELD}.resume_token"),
        Fault::Token,
        what,
    )
}

/// What a token stands behind is not kept any more.
pub fn expired(what: impl Into<String>) -> Problem {
    Problem::out_of_range(ErrorReason::ResumeTokenExpired, what)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use pavior_core::clock::ManualClock;
    use serde_json::json;
    use tonic::Code;

    use super::*;

    fn start(start: Wire) -> StreamStart {
        StreamStart { start: Some(start) }
    }

    #[test]
    fn tokens_go_on_in_the_same_stream_only_and_have_no_age() {
        let clock = Arc::new(ManualClock::default());
        let tokens = PageTokens::new([7; 32]).with_clock(clock.clone());
        let stream = StreamTokens::new(&tokens, &["WatchX", "organizations/acme", ""]);
        let token = stream.token(&json!([3]));
        clock.advance(Duration::from_secs(400 * 24 * 3_600));
        let resumed = start(Wire::ResumeToken(token));
        assert_eq!(stream.start(Some(&resumed)).unwrap(), Start::Behind(json!([3])));
        let forged = start(Wire::ResumeToken("x".to_owned()));
        let other = StreamTokens::new(&tokens, &["WatchX", "organizations/beta", ""]);
        for (stream, asked) in [(&other, &resumed), (&stream, &forged)] {
            let problem = stream.start(Some(asked)).unwrap_err();
            assert_eq!(
                (problem.code, problem.reason, problem.violations[0].field.as_str()),
                (Code::InvalidArgument, ErrorReason::InvalidResumeToken, "start.resume_token")
            );
        }
    }

    #[test]
    fn a_stream_begins_at_the_beginning_unless_it_says_otherwise() {
        let stream = StreamTokens::new(&PageTokens::new([7; 32]), &["WatchX"]);
        let begins = |start: Option<StreamStart>| stream.start(start.as_ref());
        assert_eq!(begins(None).unwrap(), Start::Beginning);
        assert_eq!(begins(Some(StreamStart { start: None })).unwrap(), Start::Beginning);
        assert_eq!(begins(Some(start(Wire::Position(2)))).unwrap(), Start::Now);
        let time = time::macros::datetime!(2026-03-01 10:00 UTC);
        let at = start(Wire::StartTime(convert::to_timestamp(time)));
        assert_eq!(begins(Some(at)).unwrap(), Start::At(time));
        let never = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        for (wrong, field) in
            [(Wire::Position(9), "start.position"), (Wire::StartTime(never), "start.start_time")]
        {
            let problem = begins(Some(start(wrong))).unwrap_err();
            assert_eq!((problem.code, problem.violations[0].field.as_str()), (Code::InvalidArgument, field));
        }
    }
}
