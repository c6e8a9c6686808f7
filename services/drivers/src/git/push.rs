//! Reads what a push wants to do, before the back end sees it (gitprotocol-pack, "Reference Update Request").

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures::StreamExt as _;
use pavior_driver::RefUpdate;

/// Most bytes of all commands of a push; the pack behind them is not read here.
const MAX_COMMANDS: usize = 256 * 1024;
/// Most references that one push may move: each is named in its record.
const MAX_UPDATES: usize = 500;

/// Why a push is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not the beginning of a push.
    Malformed,
    /// More than is read.
    TooMany,
    /// What it wants has not come in time.
    TooSlow,
}

/// Reads the commands at the beginning of a request's body, and gives the body as if nothing had been read.
pub(super) async fn commands(body: Body) -> Result<(Vec<RefUpdate>, Body), Refusal> {
    let mut rest = body.into_data_stream();
    let mut read = BytesMut::new();
    let updates = loop {
        if let Some(updates) = parse(&read)? {
            break updates;
        }
        if read.len() > MAX_COMMANDS {
            return Err(Refusal::TooMany);
        }
        match rest.next().await {
            Some(Ok(chunk)) => read.extend_from_slice(&chunk),
            Some(Err(_)) | None => return Err(Refusal::Malformed),
        }
    };
    let first = futures::stream::iter([Ok::<Bytes, axum::Error>(read.freeze())]);
    Ok((updates, Body::from_stream(first.chain(rest))))
}

/// The commands up to the flush packet; nothing while it has not come.
fn parse(mut bytes: &[u8]) -> Result<Option<Vec<RefUpdate>>, Refusal> {
    let mut updates = Vec::new();
    loop {
        let Some((length, _)) = bytes.split_at_checked(4) else { return Ok(None) };
        let length = std::str::from_utf8(length).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let line = match length {
            Some(0) => return Ok(Some(updates)),
            Some(length @ 5..) => match bytes.split_at_checked(length) {
                Some((line, rest)) => {
                    bytes = rest;
                    line.get(4..).unwrap_or_default()
                }
                None => return Ok(None),
            },
            _ => return Err(Refusal::Malformed),
        };
        if line.starts_with(b"shallow ") {
            continue;
        }
        if updates.len() == MAX_UPDATES {
            return Err(Refusal::TooMany);
        }
        updates.push(update(line).ok_or(Refusal::Malformed)?);
    }
}

/// `old SP new SP name`, with what the client can do behind a NUL in the first.
fn update(line: &[u8]) -> Option<RefUpdate> {
    let line = line.split(|byte| *byte == 0).next()?;
    let line = std::str::from_utf8(line).ok()?.trim_end_matches('\n');
    let mut parts = line.splitn(3, ' ');
    let (before, after, name) = (parts.next()?, parts.next()?, parts.next()?);
    let object = |id: &str| [40, 64].contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
    let known = object(before) && object(after) && !name.is_empty();
    known.then(|| RefUpdate { name: name.to_owned(), before: before.to_owned(), after: after.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "0000000000000000000000000000000000000000";

    fn line(text: &str) -> Vec<u8> {
        let mut bytes = format!("{:04x}", text.len() + 4).into_bytes();
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    fn push() -> Vec<u8> {
        [
            line(&format!("shallow {A}")),
            line(&format!("{B} {A} refs/heads/main\0 report-status side-band-64k\n")),
            line(&format!("{A} {B} refs/tags/old")),
            b"0000PACK....".to_vec(),
        ]
        .concat()
    }

    #[tokio::test]
    async fn commands_are_read_however_the_body_is_cut_and_the_body_stays_whole() {
        for cut in 0..push().len() {
            let (first, rest) = (push()[..cut].to_vec(), push()[cut..].to_vec());
            let chunks = [Ok::<_, std::io::Error>(Bytes::from(first)), Ok(Bytes::from(rest))];
            let (updates, body) = commands(Body::from_stream(futures::stream::iter(chunks))).await.unwrap();
            let name = |name: &str, before: &str, after: &str| RefUpdate {
                name: name.into(),
                before: before.into(),
                after: after.into(),
            };
            assert_eq!(updates, [name("refs/heads/main", B, A), name("refs/tags/old", A, B)]);
            assert_eq!(axum::body::to_bytes(body, 10_000).await.unwrap(), push(), "{cut}");
        }
        // How git asks whether it may push, before a large one.
        assert!(commands(Body::from("0000")).await.unwrap().0.is_empty());
    }

    #[tokio::test]
    async fn what_is_no_push_or_too_much_of_one_is_refused() {
        let many = line(&format!("{B} {A} refs/heads/x")).repeat(MAX_UPDATES + 1);
        let cases = [
            (Vec::new(), Refusal::Malformed),
            (b"000".to_vec(), Refusal::Malformed),
            (b"0004".to_vec(), Refusal::Malformed),
            (b"zzzz".to_vec(), Refusal::Malformed),
            (line("nonsense"), Refusal::Malformed),
            (line(&format!("{B} {A} ")), Refusal::Malformed),
            (push()[..60].to_vec(), Refusal::Malformed),
            (many, Refusal::TooMany),
        ];
        for (bytes, refusal) in cases {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
            assert_eq!(commands(Body::from(bytes)).await.unwrap_err(), refusal, "{shown}");
        }
    }
}
