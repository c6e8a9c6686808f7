//! Smart HTTP through `git http-backend`: authenticated first, streamed both ways.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pavior_core::digest::sha256_hex;
use pavior_driver::{Push, PushRecorder};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::io::ReaderStream;

use super::{Git, Repositories, is_name, push};

/// The user name for HTTP; the password is the repository's own.
pub(crate) const USER: &str = "pavior";
/// How long a push may take to say what it wants to do.
const COMMANDS_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest header of the back end.
const MAX_HEADER: usize = 16 * 1024;

#[derive(Clone)]
struct Backend {
    repositories: Repositories,
    git: Git,
    slots: Arc<Semaphore>,
    recorder: Arc<dyn PushRecorder>,
}

pub(crate) fn router(
    repositories: Repositories,
    git: Git,
    max_requests: usize,
    recorder: Arc<dyn PushRecorder>,
) -> Router {
    let slots = Arc::new(Semaphore::new(max_requests.max(1)));
    let backend = Backend { repositories, git, slots, recorder };
    Router::new()
        .route("/git/{organization}/{repository}/info/refs", get(refs))
        .route("/git/{organization}/{repository}/{service}", post(rpc))
        .with_state(backend)
}

type Names = (String, String);

async fn refs(State(backend): State<Backend>, Path(names): Path<Names>, request: Request) -> Response {
    let service = match request.uri().query() {
        Some("service=git-upload-pack") => "git-upload-pack",
        Some("service=git-receive-pack") => "git-receive-pack",
        // The dumb protocol would serve files; there is no need for it.
        _ => return plain(StatusCode::FORBIDDEN, "only smart HTTP is served"),
    };
    let query = format!("service={service}");
    backend.answer(&names, "info/refs", &query, request).await
}

async fn rpc(
    State(backend): State<Backend>,
    Path((organization, repository, service)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    if !["git-upload-pack", "git-receive-pack"].contains(&service.as_str()) {
        return plain(StatusCode::NOT_FOUND, "not found");
    }
    backend.answer(&(organization, repository), &service, "", request).await
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}

impl Backend {
    async fn answer(
        &self,
        (organization, repository): &Names,
        rest: &str,
        query: &str,
        request: Request,
    ) -> Response {
        let path = repository
            .strip_suffix(".git")
            .filter(|name| is_name(name) && is_name(organization))
            .map(|name| self.repositories.path(organization, name));
        // Before the password is checked: that starts a process too, and anybody may ask for it.
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
        };
        let Some(permitted) = self.authorize(path, request.headers()).await else {
            // The same answer for a wrong password and for a repository that does not exist.
            let mut response = plain(StatusCode::UNAUTHORIZED, "authentication required");
            let challenge = HeaderValue::from_static("Basic realm=\"pavior\", charset=\"UTF-8\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            return response;
        };
        let request = match rest {
            "git-receive-pack" => match self.record(organization, repository, request).await {
                Ok(request) => request,
                Err(refused) => return refused,
            },
            _ => request,
        };
        match self.run(&permitted, rest, query, request, slot).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(error = %error, "git http-backend failed");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the repository cannot be served")
            }
        }
    }

    /// Records what a push is about to do; without its record there is no push.
    async fn record(
        &self,
        organization: &str,
        repository: &str,
        request: Request,
    ) -> Result<Request, Response> {
        let (parts, body) = request.into_parts();
        if parts.headers.contains_key(CONTENT_ENCODING) {
            return Err(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a push must not be compressed once more"));
        }
        let read = tokio::time::timeout(COMMANDS_TIMEOUT, push::commands(body)).await;
        let read = read.unwrap_or(Err(push::Refusal::TooSlow));
        let (updates, body) = read.map_err(|refusal| match refusal {
            push::Refusal::TooSlow => plain(StatusCode::REQUEST_TIMEOUT, "the push does not begin"),
            push::Refusal::Malformed => plain(StatusCode::BAD_REQUEST, "this is not a push"),
            push::Refusal::TooMany => {
                plain(StatusCode::PAYLOAD_TOO_LARGE, "the push moves too many references")
            }
        })?;
        if !updates.is_empty() {
            let repository = repository.strip_suffix(".git").unwrap_or(repository).to_owned();
            let push = Push { organization: organization.to_owned(), repository, updates };
            if let Err(error) = self.recorder.record(push).await {
                tracing::error!(error, "a push cannot be recorded and is refused");
                let text = "the push cannot be recorded now, try again later";
                return Err(plain(StatusCode::SERVICE_UNAVAILABLE, text));
            }
        }
        Ok(Request::from_parts(parts, body))
    }

    async fn authorize(&self, path: Option<PathBuf>, headers: &HeaderMap) -> Option<PathBuf> {
        let encoded = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (_, password) = decoded.split_once(':')?;
        let path = path.filter(|path| path.is_dir())?;
        let expected = self.git.config(&path, "pavior.tokensha256").await.ok()??;
        let given = sha256_hex(password.as_bytes());
        bool::from(given.as_bytes().ct_eq(expected.as_bytes())).then_some(path)
    }

    async fn run(
        &self,
        path: &std::path::Path,
        rest: &str,
        query: &str,
        request: Request,
        slot: OwnedSemaphorePermit,
    ) -> std::io::Result<Response> {
        let (parts, body) = request.into_parts();
        let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let mut command = self.git.command();
        command
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", path)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("PATH_INFO", format!("/{rest}"))
            .env("REQUEST_METHOD", parts.method.as_str())
            .env("QUERY_STRING", query)
            .env("REMOTE_USER", USER)
            .env("REMOTE_ADDR", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        for (name, variable) in [
            (CONTENT_TYPE, "CONTENT_TYPE"),
            (CONTENT_ENCODING, "HTTP_CONTENT_ENCODING"),
            (CONTENT_LENGTH, "CONTENT_LENGTH"),
            (HeaderName::from_static("git-protocol"), "GIT_PROTOCOL"),
        ] {
            if let Some(value) = header(name) {
                command.env(variable, value);
            }
        }
        let mut child = command.spawn()?;
        let stdin = child.stdin.take().ok_or_else(|| std::io::Error::other("no standard input"))?;
        let stdout = child.stdout.take().ok_or_else(|| std::io::Error::other("no standard output"))?;
        tokio::spawn(feed(body, stdin));
        let mut reader = BufReader::new(stdout);
        let (status, headers) = read_headers(&mut reader).await?;
        let mut response = Response::new(stream(reader, child, slot));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(response)
    }
}

async fn feed(body: Body, mut stdin: tokio::process::ChildStdin) {
    let mut chunks = body.into_data_stream();
    while let Some(Ok(chunk)) = chunks.next().await {
        // The back end may stop reading when it has what it needs.
        if stdin.write_all(&chunk).await.is_err() {
            return;
        }
    }
    let _ = stdin.shutdown().await;
}

async fn read_headers(reader: &mut BufReader<ChildStdout>) -> std::io::Result<(StatusCode, HeaderMap)> {
    let mut headers = HeaderMap::new();
    let mut status = StatusCode::OK;
    let mut total = 0;
    loop {
        let mut line = String::new();
        let read = reader.read_line(&mut line).await?;
        total += read;
        if read == 0 || total > MAX_HEADER {
            return Err(std::io::Error::other("the back end sent no header"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok((status, headers));
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse::<u16>().ok());
            status = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::BAD_GATEWAY);
        } else if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
}

/// The rest of the output as a body; child and slot live as long as it does.
fn stream(reader: BufReader<ChildStdout>, child: Child, slot: OwnedSemaphorePermit) -> Body {
    let held = (child, slot);
    let chunks = ReaderStream::new(reader).map(move |chunk: std::io::Result<Bytes>| {
        let _ = &held;
        chunk
    });
    Body::from_stream(chunks)
}
