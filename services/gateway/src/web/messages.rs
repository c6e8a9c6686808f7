//! The messages of a gRPC answer, one by one, and the status that it ends with.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use pavior_rpc::problem::Problem;
use pavior_rpc::server::fix_status;
use tonic::body::Body;
use tonic::{Code, Status};

/// The longest message that is answered in another form than gRPC, which needs it whole.
const MAX_BYTES: usize = 16 * 1024 * 1024;
const PREFIX: usize = 5;

/// An answer that is being read. Dropping it ends the call.
pub(crate) struct Messages {
    body: Body,
    buffer: BytesMut,
    trailers: HeaderMap,
    ended: bool,
}

impl Messages {
    /// The messages behind the headers of an answer.
    ///
    /// # Errors
    /// The status of an answer that has none.
    pub(crate) fn of(headers: &HeaderMap, body: Body) -> Result<Self, Status> {
        match Status::from_header_map(headers) {
            Some(status) if status.code() != Code::Ok => Err(status),
            known => {
                Ok(Self { body, buffer: BytesMut::new(), trailers: HeaderMap::new(), ended: known.is_some() })
            }
        }
    }

    /// The next message; `None` when the answer has ended well. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.end(frame.into_trailers().unwrap_or_default())?,
                },
                Some(Err(status)) => return Err(fix_status(&status).unwrap_or(status)),
                None => return Err(cut_off()),
            }
        }
    }

    /// The message of an answer that has exactly one.
    pub(crate) async fn only(&mut self) -> Result<Bytes, Status> {
        let message = self.next().await?.ok_or_else(cut_off)?;
        match self.next().await? {
            None => Ok(message),
            Some(_) => Err(cut_off()),
        }
    }

    /// What came behind the messages, without the status.
    pub(crate) fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    fn end(&mut self, trailers: HeaderMap) -> Result<(), Status> {
        self.ended = true;
        let status = Status::from_header_map(&trailers);
        self.trailers = trailers;
        match status {
            Some(status) if status.code() == Code::Ok && self.buffer.is_empty() => Ok(()),
            Some(status) if status.code() != Code::Ok => Err(status),
            _ => Err(cut_off()),
        }
    }

    fn buffered(&mut self) -> Result<Option<Bytes>, Status> {
        let [flag, a, b, c, d, ..] = self.buffer[..] else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if flag != 0 || length > MAX_BYTES {
            return Err(Problem::internal(format!("an answer of {length} bytes with the flag {flag}")).into());
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

fn cut_off() -> Status {
    Problem::internal("an answer does not hold what its method promises").into()
}
