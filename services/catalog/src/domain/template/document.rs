//! The document as a whole: reading it, its head, its parameters, and `extends`.

use pavior_core::Fault;
use std::collections::{BTreeMap, BTreeSet};

use pavior_core::value::{MAX_DEPTH, deeper_than, inexact_paths};

use super::section::{self, TypeContract};
use crate::domain::resource_type::properties;
use crate::domain::violation_path as join;
use crate::domain::{VersionFields, Violations, text, version};
use crate::json::{Json, JsonMap, contains_nul, json};

const KEYS: [&str; 8] =
    ["template", "version", "title", "description", "parameters", "project", "environments", "extensions"];
/// Most environment classes.
const MAX_CLASSES: usize = 32;

/// A document that is YAML, and nothing more yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    source: String,
    root: JsonMap<String, Json>,
}

/// Reads the YAML.
///
/// # Errors
/// Where and why it cannot be read.
pub(crate) fn parse(source: &str) -> Result<Document, Violations> {
    let mut violations = Violations::new();
    match pavior_expr::yaml::parse(source) {
        Err(error) => violations.add("document", Fault::Syntax, format!("is not valid YAML: {error}")),
        Ok(value) if contains_nul(&value) => {
            violations.add("document", Fault::Pattern, "must not hold the character NUL")
        }
        Ok(value) if deeper_than(&value, MAX_DEPTH) => text::depth(&mut violations, "document", &value),
        Ok(value) if pavior_expr::marker_path(&value).is_some() => {
            text::unmarked(&mut violations, "document", &value);
        }
        Ok(value) if !inexact_paths(&value, 1).is_empty() => {
            text::exact(&mut violations, "document", &value);
        }
        Ok(Json::Object(root)) => return Ok(Document { source: source.to_owned(), root }),
        Ok(_) => violations.add("document", Fault::Type, "must be a map"),
    }
    Err(violations)
}

/// An environment class with `extends` resolved.
struct Class<'a> {
    id: &'a str,
    parent: Option<&'a str>,
    resolved: Json,
    /// False when something that it extends is not there: what it lacks is then no mistake of its own.
    whole: bool,
}

impl Document {
    /// The ids of resource types that it names, wherever they stand.
    pub(crate) fn types(&self) -> BTreeSet<String> {
        let mut types = BTreeSet::new();
        let mut resources = Vec::new();
        resources.extend(self.root.get("project"));
        let environments = self.root.get("environments").and_then(Json::as_object);
        for environment in environments.into_iter().flat_map(JsonMap::values) {
            resources.extend(environment.get("resources"));
            if let Some(workload) = environment.get("workload") {
                types.insert(section::type_of(workload, Some(section::WORKLOAD)).unwrap_or_default());
            }
        }
        for resource in resources.into_iter().filter_map(Json::as_object).flat_map(JsonMap::values) {
            types.extend(section::type_of(resource, None));
        }
        let allowed = self.root.get("extensions").and_then(|e| e.get("allow")).and_then(Json::as_array);
        types.extend(allowed.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned));
        types.remove("");
        types
    }

    /// The version that it says it is; empty when it does not say.
    pub(crate) fn version(&self) -> String {
        self.root.get("version").and_then(Json::as_str).unwrap_or_default().to_owned()
    }

    /// Checks everything. `types` are the resource types that exist, of those that [`Document::types`] names.
    ///
    /// # Errors
    /// Every problem, with its path in the document.
    pub(crate) fn check(
        &self,
        template: &str,
        types: &BTreeMap<String, TypeContract>,
    ) -> Result<(String, VersionFields), Violations> {
        let mut violations = Violations::new();
        section::unknown_keys(&self.root, &KEYS, "document", &mut violations);
        let version = self.head(template, &mut violations);
        let parameters = self.parameters(&mut violations);
        let project = section::map(self.root.get("project"), "document.project", &mut violations);
        let checker = section::Checker {
            types,
            parameters: properties(&parameters).map(|names| names.into_iter().map(str::to_owned).collect()),
            project: &project,
        };
        checker.project(&mut violations);
        let environments =
            section::map(self.root.get("environments"), "document.environments", &mut violations);
        let classes = resolve(&environments, &mut violations);
        check_classes(&checker, &classes, &mut violations);
        self.extensions(types, &mut violations);
        violations.into_result()?;
        let resolved: JsonMap<String, Json> =
            classes.iter().map(|class| (class.id.to_owned(), class.resolved.clone())).collect();
        let mut content = self.root.clone();
        if content.contains_key("environments") {
            content.insert("environments".to_owned(), Json::Object(resolved));
        }
        let fields = VersionFields {
            template: template.to_owned(),
            document: self.source.clone(),
            digest: pavior_core::digest::sha256_digest(self.source.as_bytes()),
            parameter_schema: parameters.into(),
            environment_classes: classes.iter().map(|class| class.id.to_owned()).collect(),
            content: Json::Object(content),
        };
        Ok((version, fields))
    }

    /// `template`, `version`, `title` and `description`; the version.
    fn head(&self, template: &str, violations: &mut Violations) -> String {
        let mut field = |key: &str, required: bool| match self.root.get(key) {
            None | Some(Json::Null) if required => {
                violations.add(format!("document.{key}"), Fault::Required, "is required");
                None
            }
            None => None,
            Some(Json::String(text)) => Some(text.clone()),
            Some(_) => {
                violations.add(format!("document.{key}"), Fault::Type, "must be a text; put it in quotes");
                None
            }
        };
        let id = field("template", true);
        let number = field("version", true);
        let (title, description) = (field("title", false), field("description", false));
        if let Some(id) = id.filter(|id| id != template) {
            let message = format!("is `{}`, but the template is `{template}`", text::shown(&id));
            violations.add("document.template", Fault::Conflict, message);
        }
        if let Some(number) = &number
            && (!version::is_version(number) || pavior_core::id::validate_id_in("versions", number).is_err())
        {
            let shown = text::shown(number);
            violations.add(
                "document.version",
                Fault::Pattern,
                format!("`{shown}` is not a semantic version such as `1.2.0`"),
            );
        }
        text::line(violations, "document.title", &title.unwrap_or_default(), text::MAX_DISPLAY_NAME);
        let description = description.unwrap_or_default();
        text::paragraph(violations, "document.description", &description, text::MAX_DESCRIPTION);
        number.unwrap_or_default()
    }

    /// The schema of the parameters; one that takes none when there is none.
    fn parameters(&self, violations: &mut Violations) -> Json {
        let at = "document.parameters";
        let schema = match self.root.get("parameters") {
            None | Some(Json::Null) => return json!({ "type": "object" }),
            Some(schema @ Json::Object(_)) => schema,
            Some(_) => {
                violations.add(at, Fault::Type, "must be a JSON Schema, which is a map");
                return json!({ "type": "object" });
            }
        };
        if schema.get("type").and_then(Json::as_str) != Some("object") {
            violations.add(format!("{at}.type"), Fault::Type, "must be `object`");
        }
        if let Err(problems) = pavior_expr::schema::compile_check(schema) {
            for problem in problems {
                violations.add(join(at, &problem.path), Fault::Schema, problem.message);
            }
            return schema.clone();
        }
        let listed = schema.get("properties").and_then(Json::as_object);
        for (name, property) in listed.into_iter().flatten() {
            // A reference is read from the root, which the property alone is not.
            if let Some(default) = property.get("default").filter(|_| property.get("$ref").is_none()) {
                for problem in pavior_expr::schema::validate(property, default) {
                    let path = join(&format!("{at}.properties.{name}.default"), &problem.path);
                    violations.add(path, Fault::Schema, problem.message);
                }
            }
        }
        for (index, name) in section::items(schema.get("required")).enumerate() {
            if let (Some(listed), Some(name)) = (listed, name.as_str())
                && !listed.contains_key(name)
            {
                let shown = text::shown(name);
                violations.add(
                    format!("{at}.required.{index}"),
                    Fault::Unknown,
                    format!("`{shown}` is not one of `properties`"),
                );
            }
        }
        schema.clone()
    }

    fn extensions(&self, types: &BTreeMap<String, TypeContract>, violations: &mut Violations) {
        let at = "document.extensions";
        let extensions = section::map(self.root.get("extensions"), at, violations);
        section::unknown_keys(&extensions, &["allow"], at, violations);
        match extensions.get("allow") {
            None | Some(Json::Null | Json::Array(_)) => {}
            Some(_) => violations.add(format!("{at}.allow"), Fault::Type, "must be a list of resource types"),
        }
        for (index, item) in section::items(extensions.get("allow")).enumerate() {
            let path = format!("{at}.allow.{index}");
            match item.as_str() {
                Some(id) if types.contains_key(id) => {}
                Some(id) => section::unknown_type(id, path, violations),
                None => violations.add(path, Fault::Pattern, "must be the id of a resource type"),
            }
        }
    }
}

/// Each class with what it extends merged into it, in the order of the document.
fn resolve<'a>(environments: &'a JsonMap<String, Json>, violations: &mut Violations) -> Vec<Class<'a>> {
    if environments.len() > MAX_CLASSES {
        violations.add(
            "document.environments",
            Fault::TooMany,
            format!("must have at most {MAX_CLASSES} classes"),
        );
    }
    let mut classes = Vec::new();
    for (id, own) in environments.iter().take(MAX_CLASSES) {
        let at = format!("document.environments.{id}");
        violations.check(&at, Fault::Pattern, pavior_core::validate_id(id));
        if !own.is_object() && !own.is_null() {
            violations.add(at, Fault::Type, "must be a map");
            continue;
        }
        let (ancestors, whole) = match ancestors(id, environments) {
            Ok(found) => found,
            Err(problem) => {
                violations.add(format!("{at}.extends"), Fault::Unknown, problem);
                (Vec::new(), false)
            }
        };
        let mut resolved = json!({});
        for ancestor in ancestors.iter().rev() {
            merge(&mut resolved, environments.get(*ancestor).unwrap_or(&Json::Null));
            // When it is made and how long it lives is each class's own.
            if let Some(map) = resolved.as_object_mut() {
                map.remove("create");
                map.remove("ttl");
            }
        }
        merge(&mut resolved, own);
        if let Some(map) = resolved.as_object_mut() {
            map.remove("extends");
        }
        classes.push(Class { id, parent: ancestors.first().copied(), resolved, whole });
    }
    classes
}

/// What a class extends, nearest first, and whether all of it is there.
fn ancestors<'a>(
    id: &'a str,
    environments: &'a JsonMap<String, Json>,
) -> Result<(Vec<&'a str>, bool), String> {
    let mut found: Vec<&str> = Vec::new();
    let mut at = id;
    loop {
        let parent = match environments.get(at).and_then(|class| class.get("extends")) {
            None | Some(Json::Null) => return Ok((found, true)),
            Some(Json::String(parent)) => parent.as_str(),
            Some(_) if at == id => return Err("must be the id of an environment class".to_owned()),
            Some(_) => return Ok((found, false)),
        };
        if parent != id && found.contains(&parent) {
            // The circle is further up, and said at the classes in it.
            return Ok((found, false));
        }
        if parent == id {
            let path: Vec<&str> = std::iter::once(id).chain(found).chain([parent]).collect();
            return Err(format!("goes in a circle: {}", path.join(" → ")));
        }
        if !environments.contains_key(parent) {
            // Said once, at the class that has the bad reference.
            let message = format!("`{}` is not an environment class of this document", text::shown(parent));
            return if at == id { Err(message) } else { Ok((found, false)) };
        }
        found.push(parent);
        at = parent;
    }
}

/// Maps merge, scalars and lists replace.
fn merge(into: &mut Json, from: &Json) {
    match (into, from) {
        (Json::Object(into), Json::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Json::Null), value);
            }
        }
        (Json::Object(_), Json::Null) => {}
        (into, from) => into.clone_from(from),
    }
}

/// Checks each class as resolved. What a class inherits with its problem is named at the class it comes from only.
fn check_classes(checker: &section::Checker<'_>, classes: &[Class<'_>], violations: &mut Violations) {
    let mut by_class = BTreeMap::new();
    for class in classes {
        let mut found = Violations::new();
        if let Some(section) = class.resolved.as_object().filter(|_| class.whole) {
            checker.environment(section, &mut found);
        }
        by_class.insert(class.id, found);
    }
    for class in classes {
        let inherited = class.parent.and_then(|parent| by_class.get(parent));
        let own = by_class.get(class.id).into_iter().flat_map(Violations::iter);
        let own = own.filter(|v| inherited.is_none_or(|inherited| !inherited.iter().any(|i| i == *v)));
        violations.extend_under(&format!("document.environments.{}", class.id), own.cloned());
    }
}
