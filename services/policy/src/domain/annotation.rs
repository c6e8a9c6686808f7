//! Annotations of policies, checked when the policy is written, so that a typo never takes effect silently.

use std::collections::BTreeMap;

use super::message::Message;

/// The level of a guardrail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only warns.
    Advisory,
    /// An approval lifts it.
    Soft,
    /// Cannot be lifted.
    Hard,
}

/// What a guardrail does when it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardrailEffect {
    /// A warning.
    Warn,
    /// Approvals are required: quorums by group id.
    Approve(BTreeMap<String, u32>),
    /// A denial.
    Deny,
}

/// The annotations of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotations {
    /// `@id`
    pub id: Option<String>,
    /// The level and the effect of a guardrail; `None` in access policies.
    pub guardrail: Option<(Level, GuardrailEffect)>,
    /// `@message`
    pub message: Option<Message>,
    /// `@fix`
    pub fix: Option<Message>,
    /// `@docs`
    pub docs: Option<String>,
}

const COMMON: [&str; 4] = ["id", "message", "fix", "docs"];
const GUARDRAIL: [&str; 3] = ["level", "effect", "approve"];
/// Longest value of an annotation, in bytes.
const MAX_TEXT: usize = 1_000;
/// Largest quorum.
pub const MAX_QUORUM: u32 = 20;

impl Annotations {
    /// Reads the annotations of one rule.
    ///
    /// # Errors
    /// One sentence for each thing that is wrong.
    pub fn parse<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        is_guardrail: bool,
    ) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut given = BTreeMap::new();
        for (key, value) in pairs {
            if GUARDRAIL.contains(&key) && !is_guardrail {
                problems.push(format!("annotation `@{key}` belongs to guardrails only"));
            } else if !COMMON.contains(&key) && !GUARDRAIL.contains(&key) {
                let known = if is_guardrail {
                    "id, level, effect, approve, message, fix, docs"
                } else {
                    "id, message, fix, docs"
                };
                problems.push(format!("unknown annotation `@{key}`; known are {known}"));
            } else if value.len() > MAX_TEXT {
                problems.push(format!("annotation `@{key}` is longer than {MAX_TEXT} bytes"));
            }
            given.insert(key, value);
        }
        if let Some(id) = given.get("id")
            && let Err(error) = pavior_core::validate_id(id)
        {
            problems.push(format!("annotation `@id`: {error}"));
        }
        let mut text = |key: &str| {
            let parsed = Message::parse(given.get(key)?);
            parsed.map_err(|problem| problems.push(format!("annotation `@{key}` {problem}"))).ok()
        };
        let (message, fix) = (text("message"), text("fix"));
        if given.get("docs").is_some_and(|docs| !docs.starts_with("https://") && !docs.starts_with("http://"))
        {
            problems.push("annotation `@docs` must be an http or https address".to_owned());
        }
        let guardrail = is_guardrail.then(|| guardrail(&given, &mut problems)).flatten();
        if !problems.is_empty() {
            return Err(problems);
        }
        let owned = |key: &str| given.get(key).map(|value| (*value).to_owned());
        Ok(Self { id: owned("id"), guardrail, message, fix, docs: owned("docs") })
    }
}

/// The level is `hard` when absent. Without an effect: a stated approval asks for approval, else the level decides.
fn guardrail(given: &BTreeMap<&str, &str>, problems: &mut Vec<String>) -> Option<(Level, GuardrailEffect)> {
    let before = problems.len();
    let level = match given.get("level").copied() {
        None | Some("hard") => Level::Hard,
        Some("soft") => Level::Soft,
        Some("advisory") => Level::Advisory,
        Some(other) => {
            problems.push(format!("annotation `@level` must be hard, soft or advisory, not `{other}`"));
            Level::Hard
        }
    };
    let approvals = match given.get("approve").map(|text| approvals(text)) {
        None => None,
        Some(Ok(approvals)) => Some(approvals),
        Some(Err(problem)) => {
            problems.push(problem);
            None
        }
    };
    let effect = given.get("effect").copied();
    if let Some(other) = effect.filter(|effect| !["deny", "approve", "warn"].contains(effect)) {
        problems.push(format!("annotation `@effect` must be deny, approve or warn, not `{other}`"));
    }
    if problems.len() > before {
        return None;
    }
    let refuse = |problems: &mut Vec<String>, text: &str| {
        problems.push(text.to_owned());
        None
    };
    let effect = match (level, effect, approvals) {
        (Level::Advisory, None | Some("warn"), None) => GuardrailEffect::Warn,
        (Level::Advisory, ..) => {
            return refuse(
                problems,
                "an advisory guardrail only warns: it takes no `@approve` and no other `@effect`",
            );
        }
        (Level::Soft, Some("warn"), _) => {
            return refuse(problems, "a soft guardrail cannot have `@effect(\"warn\")`");
        }
        (Level::Soft, _, None) => {
            return refuse(
                problems,
                "a soft guardrail needs `@approve`: who can lift it, as in `1 of group:platform`",
            );
        }
        (_, Some("approve"), None) => {
            return refuse(problems, "`@effect(\"approve\")` needs `@approve`, as in `1 of group:platform`");
        }
        (Level::Soft, _, Some(approvals)) | (_, None | Some("approve"), Some(approvals)) => {
            GuardrailEffect::Approve(approvals)
        }
        (_, Some("warn"), None) => GuardrailEffect::Warn,
        (_, _, None) => GuardrailEffect::Deny,
        (_, _, Some(_)) => {
            return refuse(problems, "`@approve` needs `@effect(\"approve\")` or `@level(\"soft\")`");
        }
    };
    Some((level, effect))
}

/// `2 of group:security, 1 of group:platform`
fn approvals(text: &str) -> Result<BTreeMap<String, u32>, String> {
    let refuse = || format!("annotation `@approve` must read like `1 of group:platform`, not `{text}`");
    let mut all = BTreeMap::<String, u32>::new();
    for part in text.split(',') {
        let (quorum, group) = part.trim().split_once(" of group:").ok_or_else(refuse)?;
        let quorum: u32 = quorum.trim().parse().map_err(|_| refuse())?;
        if quorum == 0 || quorum > MAX_QUORUM {
            return Err(format!("annotation `@approve`: the number of people must be 1 to {MAX_QUORUM}"));
        }
        pavior_core::validate_id(group).map_err(|error| format!("annotation `@approve`: {error}"))?;
        let known = all.entry(group.to_owned()).or_default();
        *known = quorum.max(*known);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(pairs: &[(&str, &str)]) -> Result<(Level, GuardrailEffect), Vec<String>> {
        Annotations::parse(pairs.iter().copied(), true).map(|parsed| parsed.guardrail.unwrap())
    }

    #[test]
    fn effect_follows_level_and_approve() {
        let platform = || GuardrailEffect::Approve([("platform".to_owned(), 1)].into());
        let one = ("approve", "1 of group:platform");
        assert_eq!(effect(&[]), Ok((Level::Hard, GuardrailEffect::Deny)));
        assert_eq!(effect(&[("effect", "warn")]), Ok((Level::Hard, GuardrailEffect::Warn)));
        assert_eq!(effect(&[("effect", "approve"), one]), Ok((Level::Hard, platform())));
        assert_eq!(effect(&[one]), Ok((Level::Hard, platform())));
        assert_eq!(effect(&[("level", "soft"), one]), Ok((Level::Soft, platform())));
        assert_eq!(effect(&[("level", "soft"), ("effect", "deny"), one]), Ok((Level::Soft, platform())));
        assert_eq!(effect(&[("level", "advisory")]), Ok((Level::Advisory, GuardrailEffect::Warn)));
        let both =
            effect(&[("approve", "2 of group:security, 1 of group:platform,1 of group:security")]).unwrap();
        assert_eq!(both.1, GuardrailEffect::Approve([("platform".into(), 1), ("security".into(), 2)].into()));
    }

    #[test]
    fn bad_annotations_are_all_named() {
        for bad in [
            vec![("efect", "deny")],
            vec![("effect", "denny")],
            vec![("level", "hardest")],
            vec![("effect", "approve")],
            vec![("level", "soft")],
            vec![("level", "soft"), ("effect", "warn")],
            vec![("level", "advisory"), ("effect", "deny")],
            vec![("effect", "deny"), ("approve", "1 of group:platform")],
            vec![("approve", "0 of group:platform")],
            vec![("approve", "two of group:platform")],
            vec![("approve", "1 of platform")],
            vec![("approve", "")],
            vec![("message", "no {context.nothing}")],
            vec![("message", "open { brace")],
            vec![("id", "Not An Id")],
            vec![("docs", "javascript:alert(1)")],
        ] {
            assert_eq!(effect(&bad).unwrap_err().len(), 1, "{bad:?}");
        }
        let many = effect(&[("id", "X"), ("effect", "x"), ("nope", ""), ("fix", "{x}")]).unwrap_err();
        assert_eq!(many.len(), 4, "{many:?}");
        assert!(Annotations::parse([("effect", "deny")], false).is_err());
    }
}
