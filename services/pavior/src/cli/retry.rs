//! Calls again what can be called again, when the connection breaks or the server asks for it (AIP-194).

use std::time::Duration;

use pavior_rpc::problem::from_status;
use tokio::time::Instant;
use tonic::{Response, Status};

use super::failure::is_local;

/// How long a server may be away.
const LONGEST: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// True for a call whose outcome is unknown and that may be answered later: it may be repeated when it is a read or has a
/// request id. What only an operator ends is none of them.
pub(crate) fn is_break(status: &Status) -> bool {
    is_local(status) || from_status(status).is_passing()
}

/// True when nobody listens at the address.
fn is_refused(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if kind == Some(std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Retries a call for a limited time while the connection is broken.
#[derive(Debug)]
pub(crate) struct Patience {
    /// A server has answered at the address before.
    is_known: bool,
    until: Option<Instant>,
    longest: Duration,
    pause: Duration,
    /// The wait has been reported to the caller.
    has_said: bool,
}

/// What is waited for, and for how long at most.
fn waiting(status: &Status, longest: Duration) -> String {
    let what = match is_local(status) {
        true => "the server cannot be reached".to_owned(),
        false => status.message().to_owned(),
    };
    format!("{what}: trying again for {} s", longest.as_secs_f64().ceil())
}

impl Patience {
    /// Before the first call: an address at which nobody listens is wrong, rather than away for a moment.
    pub(crate) fn new() -> Self {
        Self { is_known: false, until: None, longest: LONGEST, pause: FIRST_PAUSE, has_said: false }
    }

    /// The server has answered before.
    pub(crate) fn after_an_answer() -> Self {
        Self { is_known: true, ..Self::new() }
    }

    /// Makes a call until it is answered; it must be a read or have a request id.
    pub(crate) async fn call<T, F>(&mut self, call: impl Fn() -> F) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        loop {
            match call().await {
                Ok(response) => return Ok(response),
                Err(status) => self.bear(status).await?,
            }
        }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The status, when trying again is no use or has been done for long enough.
    pub(crate) async fn bear(&mut self, status: Status) -> Result<(), Status> {
        if !is_break(&status) || (!self.is_known && is_refused(&status)) {
            return Err(status);
        }
        self.is_known = true;
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + self.longest);
        let pause = from_status(&status).retry_after.unwrap_or_default().max(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        if now + pause > until {
            return Err(status);
        }
        if !self.has_said {
            self.has_said = true;
            eprintln!("{}", waiting(&status, until - now));
        }
        // As long as the server asks for, or a little longer each time, so that many callers do not hold it down.
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use pavior_rpc::{ErrorReason, Problem};
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn what_only_an_operator_ends_is_not_tried_again() {
        let calls = Cell::new(0);
        let call = || async {
            calls.set(calls.get() + 1);
            Err::<Response<()>, _>(Status::from(Problem::restore_needed("run `pavior restore`")))
        };
        let mut patience = Patience::after_an_answer();
        let refused = patience.call(call).await.unwrap_err();
        assert!(from_status(&refused).is(ErrorReason::RestoreNeeded), "{refused:?}");
        assert_eq!((calls.get(), patience.has_said), (1, false));
    }

    #[tokio::test]
    async fn a_break_is_borne_for_a_while_and_an_answer_ends_it() {
        let calls = Cell::new(0);
        let third = || async {
            calls.set(calls.get() + 1);
            if calls.get() < 3 { Err(Status::unavailable("away")) } else { Ok(Response::new(7)) }
        };
        let eager = || Patience { pause: Duration::ZERO, ..Patience::new() };
        assert_eq!(eager().call(third).await.unwrap().into_inner(), 7);
        let never = || async { Err::<Response<()>, _>(Status::unavailable("away")) };
        let mut short = Patience { longest: Duration::ZERO, ..Patience::new() };
        assert_eq!(short.call(never).await.unwrap_err().code(), Code::Unavailable);
        calls.set(0);
        let refused = || async {
            calls.set(calls.get() + 1);
            Err::<Response<()>, _>(Status::not_found("none"))
        };
        assert_eq!(eager().call(refused).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(calls.get(), 1);
    }

    #[tokio::test]
    async fn whoever_waits_is_told_once_for_what_and_for_how_long() {
        let status = Status::unavailable("policy does not answer");
        assert_eq!(waiting(&status, LONGEST), "policy does not answer: trying again for 60 s");
        let mut eager = Patience { pause: Duration::ZERO, ..Patience::new() };
        assert!(!eager.has_said);
        eager.bear(status).await.unwrap();
        assert!(eager.has_said);
        // What is no use is not waited for.
        let mut other = Patience::new();
        other.bear(Status::not_found("none")).await.unwrap_err();
        assert!(!other.has_said);
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_borne_only_after_an_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let endpoint = tonic::transport::Endpoint::from_shared(address).unwrap();
        let refused = Status::from_error(Box::new(endpoint.connect().await.unwrap_err()));
        assert!(is_refused(&refused), "{refused:?}");
        assert_eq!(Patience::new().bear(refused.clone()).await.unwrap_err().code(), refused.code());
        assert_eq!(Patience::after_an_answer().bear(refused).await.map_err(|status| status.code()), Ok(()));
    }
}
