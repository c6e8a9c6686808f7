//! Reads what a push wants to do, before the back end sees it (gitprotocol-pack, "Reference Update Request").

use std::borrow::Cow;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures::StreamExt as _;
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, Script};
use icu_properties::script::ScriptWithExtensions;
use icu_properties::{CodePointMapData, CodePointSetData};
use pavior_driver::RefUpdate;

/// Most bytes of all commands of a push; the pack behind them is not read here.
const MAX_COMMANDS: usize = 256 * 1024;
/// Most references that one push may move: each is named in its record.
const MAX_UPDATES: usize = 500;

/// Longest name of a reference.
const MAX_NAME: usize = 255;
/// Most bytes of a piece in a band.
const MAX_BAND: usize = 60_000;

/// Why a push is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not the beginning of a push.
    Malformed,
    /// More than is read.
    TooMany,
    /// What it wants has not come in time.
    TooSlow,
    /// A reference has a name that is no text.
    NotText,
}

/// What a push says before its pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commands {
    pub(super) updates: Vec<RefUpdate>,
    /// How many bytes said it.
    pub(super) length: usize,
    /// How the client wants to be told what became of it.
    pub(super) told: Told,
}

/// How a client hears of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Not,
    Plainly,
    /// In the first band of several.
    Banded,
}

/// Reads the commands at the beginning of a request's body, and gives the body as if nothing had been read.
///
/// # Errors
/// Why the push is not passed on, with what of it was understood.
pub(super) async fn commands(body: Body) -> Result<(Commands, Body), (Refusal, Vec<RefUpdate>)> {
    let mut rest = body.into_data_stream();
    let mut read = BytesMut::new();
    let mut parser = Parser::default();
    let commands = loop {
        match parser.advance(&read) {
            Ok(Some(length)) => break Commands { updates: parser.updates, length, told: parser.told },
            Ok(None) if read.len() > MAX_COMMANDS => return Err((Refusal::TooMany, parser.updates)),
            Ok(None) => {}
            Err(refusal) => return Err((refusal, parser.updates)),
        }
        match rest.next().await {
            Some(Ok(chunk)) => read.extend_from_slice(&chunk),
            Some(Err(_)) | None => return Err((Refusal::Malformed, parser.updates)),
        }
    };
    let first = futures::stream::iter([Ok::<Bytes, axum::Error>(read.freeze())]);
    Ok((commands, Body::from_stream(first.chain(rest))))
}

/// Reads each line once, in however small pieces it comes.
struct Parser {
    updates: Vec<RefUpdate>,
    told: Told,
    /// How many bytes are read.
    at: usize,
}

impl Default for Parser {
    fn default() -> Self {
        Self { updates: Vec::new(), told: Told::Not, at: 0 }
    }
}

impl Parser {
    /// Goes on in all that has come so far. The length of all commands once the flush packet is there.
    fn advance(&mut self, all: &[u8]) -> Result<Option<usize>, Refusal> {
        loop {
            let rest = all.get(self.at..).unwrap_or_default();
            let Some((length, _)) = rest.split_at_checked(4) else { return Ok(None) };
            let length =
                std::str::from_utf8(length).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
            let line = match length {
                Some(0) => return Ok(Some(self.at + 4)),
                Some(length @ 5..) => match rest.get(4..length) {
                    Some(line) => {
                        self.at += length;
                        line
                    }
                    None => return Ok(None),
                },
                _ => return Err(Refusal::Malformed),
            };
            if line.starts_with(b"shallow ") {
                continue;
            }
            if self.updates.is_empty() {
                self.told = way(line);
            }
            if self.updates.len() == MAX_UPDATES {
                return Err(Refusal::TooMany);
            }
            let (update, is_text) = update(line).ok_or(Refusal::Malformed)?;
            self.updates.push(update);
            if !is_text {
                return Err(Refusal::NotText);
            }
        }
    }
}

/// How the client wants to be told, by what it can do.
fn way(line: &[u8]) -> Told {
    let can = line.split(|byte| *byte == 0).nth(1).unwrap_or_default();
    let can = |what: &[u8]| can.split(|byte| b" \n".contains(byte)).any(|word| word == what);
    match (can(b"report-status") || can(b"report-status-v2"), can(b"side-band-64k")) {
        (false, _) => Told::Not,
        (true, false) => Told::Plainly,
        (true, true) => Told::Banded,
    }
}

/// Why a push may not move a reference of this name.
pub(super) fn refused_name(name: &str) -> Option<&'static str> {
    let own =
        ["refs/heads/", "refs/tags/"].iter().any(|place| name.len() > place.len() && name.starts_with(place));
    if !own {
        return Some("only branches and tags can be pushed");
    }
    if name.len() > MAX_NAME {
        return Some("the name is longer than 255 bytes");
    }
    let mut before = None;
    let is_misleading = |c| misleads(c) || is_astray(before.replace(c), c);
    name.contains(is_misleading).then_some("the name has control, space or invisible characters in it")
}

/// A mark of another script than what it stands on. No font puts the two together, and some marks are then not seen at
/// all, such as the filler of the Khitan script, which has no look of its own (Unicode: the categories Mn and Me,
/// `Script_Extensions`).
fn is_astray(before: Option<char>, c: char) -> bool {
    let marks = [GeneralCategory::NonspacingMark, GeneralCategory::EnclosingMark];
    if !marks.contains(&CodePointMapData::<GeneralCategory>::new().get(c)) {
        return false;
    }
    let scripts = ScriptWithExtensions::new();
    let on = before.map(|before| scripts.get_script_extensions_val(before));
    let fits = |script| {
        // Marks that go with everything.
        [Script::Inherited, Script::Common].contains(&script) || on.is_some_and(|on| on.contains(&script))
    };
    !scripts.get_script_extensions_val(c).iter().any(fits)
}

/// Characters that are not seen, that change how the text around them is shown, or that nobody knows the look of
/// (Unicode: `White_Space`, `Default_Ignorable_Code_Point`, the categories Cf, Co and Cn, and the empty Braille pattern;
/// UAX #9's controls are among the second).
fn misleads(c: char) -> bool {
    let invisible = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    let unseen = [GeneralCategory::Format, GeneralCategory::PrivateUse, GeneralCategory::Unassigned];
    c.is_control()
        || c.is_whitespace()
        || c == '\u{2800}'
        || invisible.contains(c)
        || unseen.contains(&category)
}

/// The answer to a push of which nothing happens (gitprotocol-pack, "Report Status"). `why` says it for each
/// reference.
pub(super) fn report(commands: &Commands, why: impl Fn(&str) -> String) -> Vec<u8> {
    let mut report = line(b"unpack ok\n");
    for update in &commands.updates {
        report.extend(line(format!("ng {} {}\n", update.name, why(&update.name)).as_bytes()));
    }
    report.extend_from_slice(b"0000");
    match commands.told {
        Told::Not => Vec::new(),
        Told::Plainly => report,
        Told::Banded => {
            let mut banded = Vec::new();
            for piece in report.chunks(MAX_BAND) {
                banded.extend(line(&[b"\x01", piece].concat()));
            }
            banded.extend_from_slice(b"0000");
            banded
        }
    }
}

fn line(text: &[u8]) -> Vec<u8> {
    [format!("{:04x}", text.len() + 4).as_bytes(), text].concat()
}

/// `old SP new SP name`, with what the client can do behind a NUL in the first, and whether that is text. A name that is
/// none is told as well as it can be.
fn update(line: &[u8]) -> Option<(RefUpdate, bool)> {
    let line = String::from_utf8_lossy(line.split(|byte| *byte == 0).next()?);
    let is_text = matches!(line, Cow::Borrowed(_));
    let mut parts = line.trim_end_matches('\n').splitn(3, ' ');
    let (before, after, name) = (parts.next()?, parts.next()?, parts.next()?);
    let object = |id: &str| [40, 64].contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit());
    let known = object(before) && object(after) && !name.is_empty();
    let update = || RefUpdate { name: name.to_owned(), before: before.to_owned(), after: after.to_owned() };
    known.then(|| (update(), is_text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "0000000000000000000000000000000000000000";

    fn line(text: &str) -> Vec<u8> {
        super::line(text.as_bytes())
    }

    fn line_of(text: &[u8], more: &[u8]) -> Vec<u8> {
        super::line(&[text, more].concat())
    }

    #[test]
    fn only_branches_and_tags_with_plain_names_are_pushed() {
        let marked = ["refs/heads/u\u{308}ber", "refs/heads/\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940}"];
        for name in
            ["refs/heads/main", "refs/heads/a/b", "refs/tags/v1", "refs/heads/über"].iter().chain(&marked)
        {
            assert_eq!(refused_name(name), None, "{name}");
        }
        for name in [
            "refs/pavior/rendered",
            "refs/notes/commits",
            "HEAD",
            "refs/heads/",
            "refs/headsx/a",
            "refs/heads",
        ] {
            assert_eq!(refused_name(name), Some("only branches and tags can be pushed"), "{name}");
        }
        for c in [
            '\u{202e}',
            '\u{2066}',
            '\u{200f}',
            '\u{61c}',
            '\u{200b}',
            '\u{feff}',
            '\u{1b}',
            '\u{85}',
            '\u{7f}',
            '\u{ad}',
            '\u{34f}',
            '\u{180e}',
            '\u{3164}',
            '\u{e0041}',
            '\u{a0}',
            '\u{3000}',
            '\u{2029}',
            '\u{2800}',
            '\u{fff9}',
            '\u{e000}',
            '\u{16fe4}',
        ] {
            let name = format!("refs/heads/a{c}b");
            assert_eq!(
                refused_name(&name),
                Some("the name has control, space or invisible characters in it"),
                "{name:?}"
            );
        }
        let long = format!("refs/heads/{}", "x".repeat(245));
        assert_eq!(refused_name(&long), Some("the name is longer than 255 bytes"));
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
        let halves = (0..push().len()).map(|cut| vec![push()[..cut].to_vec(), push()[cut..].to_vec()]);
        let single = push().into_iter().map(|byte| vec![byte]).collect();
        for (cut, pieces) in halves.chain([single]).enumerate() {
            let chunks = pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
            let (commands, body) = commands(Body::from_stream(futures::stream::iter(chunks))).await.unwrap();
            let name = |name: &str, before: &str, after: &str| RefUpdate {
                name: name.into(),
                before: before.into(),
                after: after.into(),
            };
            assert_eq!(commands.updates, [name("refs/heads/main", B, A), name("refs/tags/old", A, B)]);
            assert_eq!(commands.told, Told::Banded);
            assert_eq!(push()[commands.length..], *b"PACK....");
            assert_eq!(axum::body::to_bytes(body, 10_000).await.unwrap(), push(), "{cut}");
        }
        // How git asks whether it may push, before a large one.
        let asked = Commands { updates: Vec::new(), length: 4, told: Told::Not };
        assert_eq!(commands(Body::from("0000")).await.unwrap().0, asked);
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
            (line_of(format!("{B} {A} refs/heads/").as_bytes(), b"\xff\xfe"), Refusal::NotText),
        ];
        for (bytes, refusal) in cases {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
            let (found, updates) = commands(Body::from(bytes)).await.unwrap_err();
            assert_eq!(found, refusal, "{shown}");
            // As much as was understood is there for the record.
            let known = match refusal {
                Refusal::TooMany => vec!["refs/heads/x"; MAX_UPDATES],
                Refusal::NotText => vec!["refs/heads/\u{fffd}\u{fffd}"],
                _ => Vec::new(),
            };
            assert_eq!(updates.iter().map(|update| update.name.as_str()).collect::<Vec<_>>(), known);
        }
    }
}
