//! Directories of template files, rendered with the same engine as expressions.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use minijinja::Environment;
use minijinja::syntax::SyntaxConfig;
use serde_json::Value;

use crate::convert::from_json;
use crate::limits::{FILE_FUEL, MAX_FILES, MAX_TEMPLATE_BYTES, MAX_TOTAL_BYTES};
use crate::scan::{find_end, scan};
use crate::value::environment;
use crate::{ExprError, evaluate_text};

/// A rendered file of a skeleton.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkeletonFile {
    /// Path below the target, with `/`, free of `..` and of anything below `.git`.
    pub path: String,
    /// Content.
    pub bytes: Vec<u8>,
    /// Whether the owner may execute it.
    pub executable: bool,
}

/// Renders the files under `directory` in the order of their paths and hands each to `out`.
///
/// In text files `${{ … }}` is an expression, `${% … %}` a statement and `${// … //}` a comment; `{{ }}` and `{% %}`
/// are ordinary text. Path names are rendered too; a part that renders to nothing leaves the file out. Files that are
/// not UTF-8 are copied. Loops run on fuel.
///
/// # Errors
/// The first file that cannot be rendered, with its path; a symbolic link, a path that leaves the target, too many
/// files or bytes; whatever `out` says.
pub fn render_skeleton(
    directory: &Path,
    scope: &Value,
    out: &mut dyn FnMut(SkeletonFile) -> Result<(), String>,
) -> Result<(), ExprError> {
    let mut files = 0_usize;
    let mut total = 0_usize;
    for entry in walkdir::WalkDir::new(directory).sort_by_file_name() {
        let entry = entry.map_err(|error| {
            let path =
                error.path().and_then(|path| path.strip_prefix(directory).ok()).unwrap_or(Path::new(""));
            ExprError::new("the skeleton cannot be read").at(&path.to_string_lossy())
        })?;
        if entry.file_type().is_dir() {
            continue;
        }
        let source = relative(directory, entry.path())?;
        let fail = |message: String| ExprError::new(message).at(&source);
        if !entry.file_type().is_file() {
            return Err(fail("a skeleton holds plain files only, no links".to_owned()));
        }
        files += 1;
        if files > MAX_FILES {
            return Err(fail(format!("the skeleton has more than {MAX_FILES} files")));
        }
        let Some(path) = render_path(&source, scope).map_err(|error| error.at(&source))? else { continue };
        let bytes = std::fs::read(entry.path()).map_err(|_| fail("the file cannot be read".to_owned()))?;
        let bytes = render_bytes(bytes, scope).map_err(|error| error.at(&source))?;
        total += bytes.len();
        if total > MAX_TOTAL_BYTES {
            return Err(fail(format!("the skeleton renders to more than {MAX_TOTAL_BYTES} bytes")));
        }
        let executable = executable(entry.path());
        out(SkeletonFile { path, bytes, executable }).map_err(fail)?;
    }
    Ok(())
}

#[cfg(unix)]
fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o100 != 0)
}

#[cfg(not(unix))]
fn executable(_path: &Path) -> bool {
    false
}

fn relative(directory: &Path, path: &Path) -> Result<String, ExprError> {
    let below = path.strip_prefix(directory).unwrap_or(path);
    let parts: Option<Vec<&str>> = below.components().map(|part| part.as_os_str().to_str()).collect();
    parts.map(|parts| parts.join("/")).ok_or_else(|| ExprError::new("a path of the skeleton is not UTF-8"))
}

fn render_path(source: &str, scope: &Value) -> Result<Option<String>, ExprError> {
    let rendered = if source.contains("${{") { evaluate_text(source, scope)? } else { source.to_owned() };
    if rendered.is_empty() || rendered.split('/').any(|part| part.trim().is_empty()) {
        return Ok(None);
    }
    let shown = || format!("`{rendered}` is not a path below the target");
    if rendered.contains(['\\', '\0']) || rendered.len() > 1024 || rendered.split('/').count() > 32 {
        return Err(ExprError::new(shown()));
    }
    // What a value contributed may not change the depth: a name with a slash would write beside its directory.
    if rendered.split('/').count() != source.split('/').count()
        && source.contains("${{")
        && !slash_in_code(source)
    {
        return Err(ExprError::new(shown()));
    }
    let path = PathBuf::from(&rendered);
    let plain = path.components().all(|part| match part {
        Component::Normal(name) => !is_git(name),
        _ => false,
    });
    if plain { Ok(Some(rendered)) } else { Err(ExprError::new(shown())) }
}

fn slash_in_code(source: &str) -> bool {
    // A path template is split at `/` by the file system, so a slash inside an expression cannot occur there.
    source.split('/').any(|part| part.matches("${{").count() != part.matches("}}").count())
}

/// `.git` in any spelling that some file system takes for it.
fn is_git(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_lowercase();
    let name = name.trim_end_matches([' ', '.']);
    name == ".git" || name == "git~1" || name.starts_with(".git:")
}

fn render_bytes(bytes: Vec<u8>, scope: &Value) -> Result<Vec<u8>, ExprError> {
    if bytes.contains(&0) {
        return Ok(bytes);
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Ok(error.into_bytes()),
    };
    if !["${{", "${%", "${//"].iter().any(|open| text.contains(open)) {
        return Ok(text.into_bytes());
    }
    if text.len() > MAX_TEMPLATE_BYTES {
        return Err(ExprError::new(format!(
            "a file with expressions is longer than {MAX_TEMPLATE_BYTES} bytes"
        )));
    }
    let source = prepare(&text)?;
    let environment = file_environment()?;
    let fail = |error: minijinja::Error| {
        let line = error.line().unwrap_or_default();
        let at = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        ExprError::new(format!("line {line}: {}", ExprError::engine(at, &error).message))
    };
    let template = environment.template_from_str(&source).map_err(fail)?;
    template.render(from_json(scope)).map(String::into_bytes).map_err(fail)
}

fn file_environment<'a>() -> Result<Environment<'a>, ExprError> {
    let syntax = SyntaxConfig::builder()
        .variable_delimiters("${{", "}}")
        .block_delimiters("${%", "%}")
        .comment_delimiters("${//", "//}")
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()
        .map_err(|_| ExprError::new("the syntax of skeletons is not valid"))?;
    let mut environment = environment(FILE_FUEL);
    environment.set_syntax(syntax);
    Ok(environment)
}

/// Holds every tag of a file to the limits of an expression and writes hyphenated names as subscripts.
fn prepare(text: &str) -> Result<String, ExprError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut open_blocks = 0_usize;
    while let Some(start) = rest.find("${") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let (open, close) = match tag.as_bytes().get(2) {
            Some(b'{') => ("${{", "}}"),
            Some(b'%') => ("${%", "%}"),
            _ if tag.starts_with("${//") => ("${//", "//}"),
            _ => {
                out.push_str("${");
                rest = &tag[2..];
                continue;
            }
        };
        let inner = &tag[open.len()..];
        let line = || text[..text.len() - tag.len()].lines().count().max(1);
        let place = |error: ExprError| ExprError::new(format!("line {}: {}", line(), error.message));
        let end = if open == "${//" {
            inner.find(close).ok_or_else(|| place(ExprError::new("a comment does not end")))?
        } else {
            find_end(inner, close.as_bytes()).map_err(place)?
        };
        let code = &inner[..end];
        out.push_str(open);
        out.push_str(&if open == "${//" { code.to_owned() } else { scan(code).map_err(place)?.code });
        out.push_str(close);
        rest = &inner[end + close.len()..];
        let keyword = code.trim_matches(['-', '+', ' ', '\t', '\n', '\r']);
        if open == "${%" && keyword == "raw" {
            let stop = rest.find("${%").map_or(rest.len(), |_| end_of_raw(rest));
            out.push_str(&rest[..stop]);
            rest = &rest[stop..];
        }
        if open == "${%" {
            open_blocks = nested(keyword, open_blocks).map_err(place)?;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the `${% endraw %}` of a raw block begins.
fn end_of_raw(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("${%") {
        let tag = text[from + at + 3..].trim_start_matches(['-', '+', ' ', '\t', '\n', '\r']);
        if tag.starts_with("endraw") {
            return from + at;
        }
        from += at + 3;
    }
    text.len()
}

fn nested(keyword: &str, open: usize) -> Result<usize, ExprError> {
    const OPENING: [&str; 8] = ["for", "if", "with", "macro", "call", "filter", "block", "autoescape"];
    let word = keyword.split_whitespace().next().unwrap_or_default();
    let now = if word.starts_with("end") {
        open.saturating_sub(1)
    } else if OPENING.contains(&word) {
        open + 1
    } else {
        open
    };
    if now > crate::MAX_NESTING { Err(ExprError::new("statements are nested too deep")) } else { Ok(now) }
}
