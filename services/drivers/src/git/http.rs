//! Smart HTTP through `git http-backend`: authenticated first, streamed both ways, under the shim.

use std::any::Any;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pavior_core::digest::sha256_hex;
use pavior_driver::{PushRecorder, Redactor, RefUpdate};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStdout;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::account::Account;
use super::answer::{Answer, Feed, TooLarge, drain};
use super::push::Commands;
use super::repositories::borne;
use super::room::{Room, Rooms};
use super::{Git, Repositories, push};
use crate::child::{self, Work};
use crate::config::GitConfig;

/// The user name for HTTP; the password is the repository's own.
pub(crate) const USER: &str = "pavior";
/// How long a push may take to say what it wants to do.
const COMMANDS_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest header of the back end.
const MAX_HEADER: usize = 16 * 1024;
/// Most bytes by which a client says what it wants to fetch.
const MAX_QUESTION: u64 = 16 * 1024 * 1024;
/// The pack of a push that brings nothing new.
const EMPTY_PACK: u64 = 32;
/// From the client's leaving to the kill.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Backend {
    repositories: Repositories,
    git: Git,
    shim: Arc<[OsString]>,
    config: GitConfig,
    slots: Arc<Semaphore>,
    rooms: Arc<Rooms>,
    recorder: Arc<dyn PushRecorder>,
}

/// One request of somebody who may make it.
struct Call<'a> {
    path: PathBuf,
    /// Which repository was there when the password was looked at.
    identity: String,
    rest: &'a str,
    query: &'a str,
    request: Request,
    /// Most bytes of the request's body.
    most: u64,
    /// What happens when there are more.
    too_large: TooLarge,
    deadline: Instant,
    /// What a push may bring.
    room: Option<Room>,
}

pub(crate) fn router(
    repositories: Repositories,
    git: Git,
    shim: &[OsString],
    config: GitConfig,
    recorder: Arc<dyn PushRecorder>,
) -> Router {
    let slots = Arc::new(Semaphore::new(config.max_requests.max(1)));
    let rooms = Arc::default();
    let backend = Backend { repositories, git, shim: shim.into(), config, slots, rooms, recorder };
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
        let path =
            repository.strip_suffix(".git").and_then(|name| self.repositories.path(organization, name).ok());
        // Before the password is looked at, which goes with it.
        let identity = path.as_ref().and_then(|path| borne(path, organization).ok()).unwrap_or_default();
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
        let deadline = Instant::now() + self.config.request_timeout;
        let call = Call {
            path: permitted,
            identity,
            rest,
            query,
            request,
            most: MAX_QUESTION,
            too_large: TooLarge::default(),
            deadline,
            room: None,
        };
        let call = match rest {
            "git-receive-pack" => {
                let repository = repository.strip_suffix(".git").unwrap_or(repository).to_owned();
                let (recorder, organization) = (self.recorder.clone(), organization.to_owned());
                match self.admit(Account { recorder, organization, repository }, call).await {
                    Ok(call) => call,
                    Err(refused) => return refused,
                }
            }
            _ => call,
        };
        match tokio::time::timeout_at(deadline, self.run(call, slot)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                tracing::error!(error = %error, "git http-backend failed");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the repository cannot be served")
            }
            Err(_) => plain(StatusCode::GATEWAY_TIMEOUT, "git took too long"),
        }
    }

    /// Looks at what a push is about to do, and records it; without its record there is no push. Whatever is refused is
    /// recorded here, but for a push that turns out too large later.
    async fn admit<'a>(&self, account: Account, call: Call<'a>) -> Result<Call<'a>, Response> {
        let deadline = call.deadline;
        let (recorded, admitted) = match self.examine(&account, call).await {
            Ok((call, updates)) => (account.announce(&updates).await, Ok(call)),
            Err(Refused { updates, why, answer }) => (account.refuse(updates, why).await, Err(answer)),
        };
        match admitted {
            _ if !recorded => {
                let text = "the push cannot be recorded now, try again later";
                Err(plain(StatusCode::SERVICE_UNAVAILABLE, text))
            }
            Ok(call) => Ok(call),
            Err(Told::Plainly(status, text)) => Err(plain(status, text)),
            Err(Told::AsGit(report, body)) => Err(tell(report, body, deadline).await),
        }
    }

    async fn examine<'a>(
        &self,
        account: &Account,
        call: Call<'a>,
    ) -> Result<(Call<'a>, Vec<RefUpdate>), Refused> {
        let (parts, body) = call.request.into_parts();
        if parts.headers.contains_key(CONTENT_ENCODING) {
            let text = "a push must not be compressed once more";
            return Err(Refused::plainly(Vec::new(), StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        let read = tokio::time::timeout(COMMANDS_TIMEOUT, push::commands(body)).await;
        let read = read.unwrap_or_else(|_| Err((push::Refusal::TooSlow, Vec::new())));
        let (commands, body) = read.map_err(|(refusal, updates)| not_passed_on(refusal, updates))?;
        let length = u64::try_from(commands.length).unwrap_or(u64::MAX);
        let said = pack_length(&parts.headers, length);
        let Some(room) = self.room(&call.path, said).await else {
            let text = "the repository cannot be served";
            return Err(Refused::plainly(commands.updates, StatusCode::INTERNAL_SERVER_ERROR, text));
        };
        let why = self.too_large(&room);
        let too_large = push::report(&commands, |_| why.clone());
        let deletes = |after: &str| after.bytes().all(|byte| byte == b'0');
        let brings = !commands.updates.iter().all(|update| deletes(&update.after));
        let is_larger = said.is_some_and(|said| said > room.bytes());
        if let Some((why, report)) = refused_names(&commands) {
            return Err(Refused { updates: commands.updates, why, answer: Told::AsGit(report, body) });
        }
        if brings && (room.bytes() == 0 || is_larger) {
            return Err(Refused { updates: commands.updates, why, answer: Told::AsGit(too_large, body) });
        }
        let most = length.saturating_add(room.bytes().max(EMPTY_PACK));
        let updates = commands.updates;
        let refused = Some((account.clone(), updates.clone(), why));
        let too_large = TooLarge { report: too_large, refused };
        let request = Request::from_parts(parts, body);
        Ok((Call { request, most, too_large, room: Some(room), ..call }, updates))
    }

    /// Takes room for a push that says how long it is, or may be as long as any.
    async fn room(&self, path: &std::path::Path, said: Option<u64>) -> Option<Room> {
        let wanted = said.map_or(self.config.max_push_bytes, |said| said.min(self.config.max_push_bytes));
        let taken = self.rooms.take(path, self.config.max_repository_bytes, wanted).await;
        taken.inspect_err(|error| tracing::error!(%error, "a repository's size cannot be told")).ok()
    }

    /// What somebody is told who brings more than there is room for.
    fn too_large(&self, room: &Room) -> String {
        let GitConfig { max_push_bytes, max_repository_bytes, .. } = self.config;
        match room.is_cut() {
            true => format!("the repository would have more than {max_repository_bytes} bytes"),
            false => format!("the push has more than {max_push_bytes} bytes"),
        }
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

    async fn run(&self, call: Call<'_>, slot: OwnedSemaphorePermit) -> std::io::Result<Response> {
        let Call { path, identity, rest, query, request, most, too_large, deadline, room } = call;
        // A client takes its time, and another repository may have the name by now.
        let organization = path.parent().and_then(std::path::Path::file_name).unwrap_or_default();
        if borne(&path, &organization.to_string_lossy())? != identity {
            return Ok(plain(StatusCode::NOT_FOUND, "the repository is not there any more"));
        }
        let (parts, body) = request.into_parts();
        let mut environment = self.git.environment();
        let fixed = [
            ("GIT_PROJECT_ROOT", path.to_string_lossy().into_owned()),
            ("GIT_HTTP_EXPORT_ALL", "1".to_owned()),
            ("PATH_INFO", format!("/{rest}")),
            ("REQUEST_METHOD", parts.method.as_str().to_owned()),
            ("QUERY_STRING", query.to_owned()),
            ("REMOTE_USER", USER.to_owned()),
            ("REMOTE_ADDR", "127.0.0.1".to_owned()),
        ];
        environment.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
        for (name, variable) in [
            (CONTENT_TYPE, "CONTENT_TYPE"),
            (CONTENT_ENCODING, "HTTP_CONTENT_ENCODING"),
            (CONTENT_LENGTH, "CONTENT_LENGTH"),
            (HeaderName::from_static("git-protocol"), "GIT_PROTOCOL"),
        ] {
            if let Some(value) = parts.headers.get(name).and_then(|value| value.to_str().ok()) {
                environment.insert(variable.to_owned(), value.to_owned());
            }
        }
        let (mut slot, mut holds) = (Some(slot), None);
        if let Some(mut room) = room {
            let incoming = room.incoming()?.to_string_lossy().into_owned();
            environment.insert("GIT_OBJECT_DIRECTORY".to_owned(), incoming);
            let (git, path) = (self.git.clone(), path.clone());
            let held = Held { room: Some(room), git, path, slot: slot.take() };
            holds = Some(Arc::new(held) as Arc<dyn Any + Send + Sync>);
        }
        let work = Work {
            command: ["git", "http-backend"].map(OsString::from).to_vec(),
            environment,
            directory: path,
            status_file: None,
            grace: GRACE,
            redactor: Redactor::default(),
            holds,
        };
        let (conversation, input, output) = child::converse(&self.shim, &work)?;
        let feed = Feed::start(body, input, most);
        let mut reader = BufReader::new(output);
        let (status, headers) = read_headers(&mut reader).await?;
        let answer = Answer::new(reader, feed, too_large, deadline, (conversation, slot));
        let mut response = Response::new(answer.into_body());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(response)
    }
}

/// A push of which nothing happens: as much of it as was read, why, and how the client is told.
struct Refused {
    updates: Vec<RefUpdate>,
    why: String,
    answer: Told,
}

enum Told {
    /// By the status of the answer.
    Plainly(StatusCode, &'static str),
    /// As git clients show it, when the rest of the body was read.
    AsGit(Vec<u8>, Body),
}

impl Refused {
    fn plainly(updates: Vec<RefUpdate>, status: StatusCode, text: &'static str) -> Self {
        Self { updates, why: text.to_owned(), answer: Told::Plainly(status, text) }
    }
}

fn not_passed_on(refusal: push::Refusal, updates: Vec<RefUpdate>) -> Refused {
    let (status, text) = match refusal {
        push::Refusal::TooSlow => (StatusCode::REQUEST_TIMEOUT, "the push does not begin"),
        push::Refusal::Malformed => (StatusCode::BAD_REQUEST, "this is not a push"),
        push::Refusal::NotText => (StatusCode::BAD_REQUEST, "the name of a reference is not UTF-8"),
        push::Refusal::TooMany => (StatusCode::PAYLOAD_TOO_LARGE, "the push moves too many references"),
    };
    Refused::plainly(updates, status, text)
}

/// What a push holds until all of its processes have ended, whoever ended them.
struct Held {
    /// What was brought and not accepted goes first.
    room: Option<Room>,
    git: Git,
    path: PathBuf,
    slot: Option<OwnedSemaphorePermit>,
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.room.take());
        let (git, path, slot) = (self.git.clone(), self.path.clone(), self.slot.take());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if path.is_dir() && git.sweep_old(&path).await.is_err() {
                    tracing::warn!(repository = %path.display(), "a repository cannot be tidied up");
                }
                drop(slot);
            });
        }
    }
}

/// How long a push says that its pack is.
fn pack_length(headers: &HeaderMap, commands: u64) -> Option<u64> {
    let length: u64 = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    Some(length.saturating_sub(commands))
}

/// Why a push that names a reference which nobody may push is refused, and the answer to it; none when all may be.
fn refused_names(commands: &Commands) -> Option<(String, Vec<u8>)> {
    let refused = |update: &RefUpdate| Some((update.name.clone(), push::refused_name(&update.name)?));
    let (name, why) = commands.updates.iter().find_map(refused)?;
    let others = format!("the push moves `{}` too, which is refused", name.escape_default());
    let report =
        push::report(commands, |name| push::refused_name(name).map_or_else(|| others.clone(), str::to_owned));
    Some((why.to_owned(), report))
}

/// Answers a push of which nothing happens, as git clients show it.
async fn tell(report: Vec<u8>, body: Body, deadline: Instant) -> Response {
    // A client listens when it has said everything.
    if tokio::time::timeout_at(deadline, drain(body)).await.is_err() {
        return plain(StatusCode::REQUEST_TIMEOUT, "the push does not end");
    }
    if report.is_empty() {
        return plain(StatusCode::FORBIDDEN, "the push is refused");
    }
    let mut response = Response::new(Body::from(report));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-git-receive-pack-result"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
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
