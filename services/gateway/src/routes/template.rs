//! Path templates of `google.api.http`, such as `/v1/{name=organizations/*/groups/*}:verb`.

use std::fmt;
use std::ops::Range;

/// One part of a path between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// This text.
    Literal(String),
    /// `*`: any one part.
    One,
    /// `**`: all parts that are left.
    Rest,
}

/// A field of the request that a part of the path gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    /// For example `group.name`.
    pub(crate) field: String,
    /// The segments that make its value.
    pub(crate) segments: Range<usize>,
}

/// A template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) segments: Vec<Segment>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) verb: Option<String>,
    text: String,
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("has the path `{text}`, {what}");
        let rest = text.strip_prefix('/').ok_or_else(|| wrong("which does not begin with a slash"))?;
        // A verb stands behind everything, so behind the last variable and the last slash.
        let tail = rest.rfind(['/', '}']).map_or(0, |at| at + 1);
        let colon = rest.get(tail..).and_then(|last| last.find(':')).map(|at| tail + at);
        let (path, verb) = match colon {
            Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 1..)),
            None => (rest, None),
        };
        let mut template =
            Self { segments: Vec::new(), variables: Vec::new(), verb: None, text: text.to_owned() };
        template.verb = verb.map(str::to_owned);
        let mut left = path;
        loop {
            left = match left.strip_prefix('{') {
                Some(inside) => {
                    let (variable, after) =
                        inside.split_once('}').ok_or_else(|| wrong("in which a variable does not end"))?;
                    let (field, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
                    let begin = template.segments.len();
                    template.segments.extend(pattern.split('/').map(segment));
                    let segments = begin..template.segments.len();
                    template.variables.push(Variable { field: field.to_owned(), segments });
                    after
                }
                None => {
                    let end = left.find('/').unwrap_or(left.len());
                    let (literal, after) = left.split_at_checked(end).unwrap_or((left, ""));
                    template.segments.push(segment(literal));
                    after
                }
            };
            match left.strip_prefix('/') {
                Some(next) => left = next,
                None if left.is_empty() => break,
                None => return Err(wrong("in which a variable is a part of a segment")),
            }
        }
        let legal = |segment: &Segment| match segment {
            Segment::Literal(text) => !text.is_empty() && !text.contains(['{', '}', '*', ':', '%']),
            Segment::One | Segment::Rest => true,
        };
        let rest = template.segments.iter().position(|segment| *segment == Segment::Rest);
        if !template.segments.iter().all(legal)
            || verb == Some("")
            || rest.is_some_and(|at| at + 1 < template.segments.len())
        {
            return Err(wrong("which is not a path template"));
        }
        Ok(template)
    }

    /// The parts of a path that the variables stand for, as they are written in it, in the order of the variables.
    pub(crate) fn capture<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        let path = match &self.verb {
            Some(verb) => path.strip_suffix(verb.as_str())?.strip_suffix(':')?,
            None => path,
        };
        let path = path.strip_prefix('/')?;
        // Where each segment begins and ends.
        let mut places: Vec<Range<usize>> = Vec::with_capacity(self.segments.len());
        let mut left = path.split('/');
        let mut begin = 0;
        for segment in &self.segments {
            if *segment == Segment::Rest {
                places.push(begin..path.len());
                left = "".split('/');
                left.next();
                break;
            }
            let part = left.next()?;
            match segment {
                Segment::Literal(text) if text != part => return None,
                _ if part.is_empty() => return None,
                _ => places.push(begin..begin + part.len()),
            }
            begin += part.len() + 1;
        }
        if left.next().is_some() {
            return None;
        }
        self.variables
            .iter()
            .map(|variable| {
                let first = places.get(variable.segments.start)?;
                let last = places.get(variable.segments.end.checked_sub(1)?)?;
                path.get(first.start..last.end)
            })
            .collect()
    }

    /// The form of what a field holds, as a pattern of resource names, in which `{…}` stands for any id; `None` when the
    /// path does not hold all of the field.
    pub(crate) fn pattern(&self, field: &str) -> Option<String> {
        let variable = self.variables.iter().find(|variable| variable.field == field)?;
        let segments = self.segments.get(variable.segments.clone())?.iter();
        // As in the patterns of resources, an id is called by the singular of its collection.
        let mut collection = "";
        let parts: Option<Vec<String>> = segments
            .map(|segment| match segment {
                Segment::Literal(text) => {
                    collection = text;
                    Some(text.clone())
                }
                Segment::One => Some(format!("{{{}}}", collection.strip_suffix('s').unwrap_or(collection))),
                Segment::Rest => None,
            })
            .collect();
        Some(parts?.join("/"))
    }

    /// Whether there is a path that both templates match, so that it would be unclear which is meant.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        if self.verb != other.verb {
            return false;
        }
        let (mut ours, mut theirs) = (self.segments.iter(), other.segments.iter());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) | (Some(Segment::Rest), _) | (_, Some(Segment::Rest)) => return true,
                (Some(Segment::Literal(a)), Some(Segment::Literal(b))) if a != b => return false,
                (Some(_), Some(_)) => {}
                _ => return false,
            }
        }
    }
}

fn segment(text: &str) -> Segment {
    match text {
        "*" => Segment::One,
        "**" => Segment::Rest,
        literal => Segment::Literal(literal.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    #[test]
    fn a_path_gives_what_its_template_names() {
        let cases: &[(&str, &str, Option<&[&str]>)] = &[
            ("/v1/organizations", "/v1/organizations", Some(&[])),
            ("/v1/organizations", "/v1/organizations/", None),
            ("/v1/organizations", "/v2/organizations", None),
            ("/v1/{name=organizations/*}", "/v1/organizations/acme", Some(&["organizations/acme"])),
            ("/v1/{name=organizations/*}", "/v1/organizations/", None),
            ("/v1/{name=organizations/*}", "/v1/organizations/a/b", None),
            ("/v1/{name=organizations/*}", "/v1/organizations/a%2Fb", Some(&["organizations/a%2Fb"])),
            ("/v1/{a.b=x/*}/ys/{c}", "/v1/x/1/ys/2", Some(&["x/1", "2"])),
            ("/v1/{name=x/*}:go", "/v1/x/1:go", Some(&["x/1"])),
            ("/v1/{name=x/*}:go", "/v1/x/1:going", None),
            ("/v1/{name=x/*}:go", "/v1/x/:go", None),
            ("/v1/{name=x/*}:go", "/v1/x/1", None),
            ("/v1/x:go", "/v1/x:go", Some(&[])),
            ("/v1/{name=x/**}", "/v1/x/1/2/3", Some(&["x/1/2/3"])),
            ("/v1/{name=x/**}", "/v1/y/1/2/3", None),
            ("/v1/{name}", "v1/x", None),
        ];
        for (text, path, expected) in cases {
            let captured = template(text).capture(path);
            assert_eq!(captured.as_deref(), *expected, "{text} {path}");
        }
    }

    #[test]
    fn what_is_not_a_template_is_refused() {
        for text in
            ["", "v1", "/", "/v1//x", "/v1/{name", "/v1/{name}s", "/v1/x:", "/v1/**/x", "/v1/a*", "/v1/a%20b"]
        {
            let problem = Template::parse(text).unwrap_err();
            assert!(problem.contains(&format!("`{text}`")), "{problem}");
        }
    }

    #[test]
    fn templates_overlap_when_some_path_fits_both() {
        let cases = [
            ("/v1/{name=a/*}", "/v1/{parent=a/*}", true),
            ("/v1/{name=a/*}", "/v1/a/b", true),
            ("/v1/{name=a/*}", "/v1/b/{name}", false),
            ("/v1/{name=a/*}", "/v1/{name=a/*}:go", false),
            ("/v1/{name=a/*}:go", "/v1/a/{id}:go", true),
            ("/v1/{name=a/**}", "/v1/a/b/c", true),
            ("/v1/{name=a/*}", "/v1/{name=a/*/b/*}", false),
        ];
        for (one, other, expected) in cases {
            assert_eq!(template(one).overlaps(&template(other)), expected, "{one} {other}");
            assert_eq!(template(other).overlaps(&template(one)), expected, "{other} {one}");
        }
    }
}
