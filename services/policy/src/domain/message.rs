//! Messages for people, with placeholders that are filled from the input of the decision.

use pavior_core::text::is_hidden;

use super::input::Input;

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Principal,
    Action,
    ResourceName,
    ResourceType,
    ResourceProject,
    ResourceOwner,
    EnvironmentClassId,
    Stage,
    Template,
    TemplateVersion,
    CreateCount,
    UpdateCount,
    ReplaceCount,
    DeleteCount,
    ResourceTypes,
    NewOwner,
    ResourceLabel(String),
    Label(String),
    Parameter(String),
}

/// A message with its placeholders read and known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message(Vec<Part>);

/// Longest value that is filled in, in characters: parameters are the caller's.
const MAX_VALUE: usize = 200;

impl Message {
    /// Reads a text with `{placeholders}`; `{{` and `}}` are the braces themselves.
    ///
    /// # Errors
    /// A sentence that names what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some((name, after)) = from.strip_prefix('{').and_then(|from| from.split_once('}')) {
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Field(field(name)?));
                rest = after;
            } else {
                return Err(
                    "has a brace without its partner; write `{{` or `}}` for the brace itself".to_owned()
                );
            }
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }

    /// The text for one input. What the input does not have reads `(none)`.
    pub fn render(&self, input: &Input) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Field(field) => {
                    let value = value(field, input).unwrap_or_else(|| "(none)".to_owned());
                    text.extend(value.chars().filter(|c| !is_hidden(*c)).take(MAX_VALUE));
                }
            }
        }
        text
    }
}

fn field(name: &str) -> Result<Field, String> {
    Ok(match name.trim() {
        "principal" => Field::Principal,
        "action" => Field::Action,
        "resource.name" => Field::ResourceName,
        "resource.type" => Field::ResourceType,
        "resource.project" => Field::ResourceProject,
        "resource.owner" => Field::ResourceOwner,
        "context.environment_class_id" => Field::EnvironmentClassId,
        "context.stage" => Field::Stage,
        "context.template" => Field::Template,
        "context.template_version" => Field::TemplateVersion,
        "context.create_count" => Field::CreateCount,
        "context.update_count" => Field::UpdateCount,
        "context.replace_count" => Field::ReplaceCount,
        "context.delete_count" => Field::DeleteCount,
        "context.resource_types" => Field::ResourceTypes,
        "context.new_owner" => Field::NewOwner,
        other => {
            let named = [
                ("context.parameters.", Field::Parameter as fn(String) -> Field),
                ("context.labels.", Field::Label),
                ("resource.labels.", Field::ResourceLabel),
            ];
            let found = named.iter().find_map(|(prefix, make)| {
                other.strip_prefix(prefix).filter(|key| !key.is_empty()).map(|key| make(key.to_owned()))
            });
            return found.ok_or_else(|| format!("has the unknown placeholder `{{{other}}}`"));
        }
    })
}

fn value(field: &Field, input: &Input) -> Option<String> {
    let (resource, context) = (&input.resource, &input.context);
    match field {
        Field::Principal => Some(input.principal.name.clone()),
        Field::Action => Some(input.action.clone()),
        Field::ResourceName => Some(resource.name.clone()),
        Field::ResourceType => Some(resource.kind.clone()),
        Field::ResourceProject => resource.project.clone(),
        Field::ResourceOwner => resource.owner.as_ref().map(|owner| owner.id.clone()),
        Field::EnvironmentClassId => input.environment_class_id().map(str::to_owned),
        Field::Stage => Some(input.stage.as_str().to_owned()),
        Field::Template => context.template.clone(),
        Field::TemplateVersion => context.template_version.clone(),
        Field::CreateCount => Some(context.create_count.to_string()),
        Field::UpdateCount => Some(context.update_count.to_string()),
        Field::ReplaceCount => Some(context.replace_count.to_string()),
        Field::DeleteCount => Some(context.delete_count.to_string()),
        Field::ResourceTypes => Some(context.resource_types.iter().cloned().collect::<Vec<_>>().join(", "))
            .filter(|t| !t.is_empty()),
        Field::NewOwner => context.new_owner.as_ref().map(|owner| owner.id.clone()),
        Field::ResourceLabel(key) => resource.labels.get(key).cloned(),
        Field::Label(key) => context.labels.get(key).cloned(),
        Field::Parameter(key) => context.parameters.get(key).cloned(),
    }
}
