//! The plan as JSON: what is stored, and what the digest is taken over.

use std::collections::BTreeMap;

use pavior_core::digest::{canonical_json, sha256_digest};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::drift::Drift;
use super::entry::Entry;
use super::plan::{Action, Artifact, Change, FieldChange, Given, Kind, Plan, Spec};
use super::question::{Question, Subject};

/// A stored plan that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored plan has no valid `{0}`")]
pub struct Unreadable(pub &'static str);

impl Plan {
    /// The digest over what decides what is done: not who asked, when, or what policy said.
    pub fn compute_digest(&self) -> String {
        sha256_digest(&canonical_json(&self.deciding()))
    }

    fn deciding(&self) -> Value {
        json!({
            "kind": self.kind.as_str(),
            "action": self.action,
            "target": self.target,
            "changes": self.changes.iter().map(change_to_json).collect::<Vec<_>>(),
            "monthly_cost_before": self.monthly_cost_before,
            "monthly_cost_after": self.monthly_cost_after,
            "template_version": self.template_version,
            "parameters": self.parameters,
            "settings": self.settings,
            "questions": self.questions.iter().map(question_to_json).collect::<Vec<_>>(),
        })
    }

    /// The whole plan.
    pub fn to_json(&self) -> Value {
        let mut json = self.deciding();
        if let Value::Object(map) = &mut json {
            map.insert("id".into(), json!(self.id.to_string()));
            map.insert("organization".into(), json!(self.organization));
            map.insert("requester".into(), json!(self.requester));
            map.insert("author".into(), json!(self.author));
            map.insert("summary".into(), json!(self.summary));
            map.insert("create_time".into(), time_to_json(self.create_time));
            map.insert("expire_time".into(), time_to_json(self.expire_time));
            map.insert("digest".into(), json!(self.digest));
            map.insert("answers".into(), self.answers.iter().map(answer_to_json).collect());
            map.insert("decision".into(), self.decision.clone());
        }
        json
    }

    /// Reads [`Plan::to_json`] back.
    pub fn from_json(json: &Value) -> Result<Self, Unreadable> {
        let text = |key| text_of(json, key);
        Ok(Self {
            id: Uuid::parse_str(&text("id")?).map_err(|_| Unreadable("id"))?,
            organization: text("organization")?,
            kind: Kind::parse(&text("kind")?).ok_or(Unreadable("kind"))?,
            action: text("action")?,
            target: text("target")?,
            changes: list(json, "changes")?.iter().map(change_from_json).collect::<Result<_, _>>()?,
            monthly_cost_before: text("monthly_cost_before")?,
            monthly_cost_after: text("monthly_cost_after")?,
            template_version: text("template_version")?,
            parameters: json.get("parameters").cloned().unwrap_or_default(),
            settings: json.get("settings").cloned().unwrap_or_default(),
            requester: text("requester")?,
            author: text("author")?,
            summary: text("summary")?,
            create_time: time_of(json, "create_time")?,
            expire_time: time_of(json, "expire_time")?,
            digest: text("digest")?,
            questions: list(json, "questions")?.iter().map(question_from_json).collect::<Result<_, _>>()?,
            answers: list(json, "answers")?.iter().map(answer_from_json).collect::<Result<_, _>>()?,
            decision: json.get("decision").cloned().unwrap_or_default(),
        })
    }
}

fn question_to_json(question: &Question) -> Value {
    let Question {
        action,
        subject,
        environment_class,
        template_version,
        new_owner,
        moves_owner,
        counts,
        resource_types,
    } = question;
    let Subject { name, kind, owner, project, environment_class: class, labels } = subject;
    let mut json = json!({
        "action": action,
        "subject": { "name": name, "kind": kind, "owner": owner, "project": project, "class": class },
        "environment_class": environment_class,
        "template_version": template_version,
        "new_owner": new_owner,
        "counts": counts,
        "resource_types": resource_types,
    });
    if *moves_owner {
        json["moves_owner"] = json!(true);
    }
    if !labels.is_empty() {
        json["subject"]["labels"] = json!(labels);
    }
    json
}

fn question_from_json(json: &Value) -> Result<Question, Unreadable> {
    let subject = json.get("subject").ok_or(Unreadable("subject"))?;
    let mut counts = [0; 4];
    for (count, given) in counts.iter_mut().zip(list(json, "counts")?) {
        let given = given.as_u64().and_then(|given| usize::try_from(given).ok());
        *count = given.ok_or(Unreadable("counts"))?;
    }
    Ok(Question {
        action: text_of(json, "action")?,
        subject: Subject {
            name: text_of(subject, "name")?,
            kind: text_of(subject, "kind")?,
            owner: text_of(subject, "owner")?,
            project: text_of(subject, "project")?,
            environment_class: text_of(subject, "class")?,
            labels: subject.get("labels").map(labels_from_json).transpose()?.unwrap_or_default(),
        },
        environment_class: text_of(json, "environment_class")?,
        template_version: text_of(json, "template_version")?,
        new_owner: text_of(json, "new_owner")?,
        moves_owner: json.get("moves_owner").and_then(Value::as_bool).unwrap_or_default(),
        counts,
        resource_types: texts(json, "resource_types")?,
    })
}

fn labels_from_json(json: &Value) -> Result<BTreeMap<String, String>, Unreadable> {
    let labels = json.as_object().ok_or(Unreadable("labels"))?;
    let label = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    labels.iter().map(|one| label(one).ok_or(Unreadable("labels"))).collect()
}

fn answer_to_json(answer: &Given) -> Value {
    json!({ "decision": answer.decision, "effect": answer.effect })
}

fn answer_from_json(json: &Value) -> Result<Given, Unreadable> {
    Ok(Given { decision: text_of(json, "decision")?, effect: text_of(json, "effect")? })
}

fn time_to_json(time: OffsetDateTime) -> Value {
    time.format(&Rfc3339).map(Value::String).unwrap_or_default()
}

fn time_of(json: &Value, key: &'static str) -> Result<OffsetDateTime, Unreadable> {
    OffsetDateTime::parse(&text_of(json, key)?, &Rfc3339).map_err(|_| Unreadable(key))
}

fn text_of(json: &Value, key: &'static str) -> Result<String, Unreadable> {
    json.get(key).and_then(Value::as_str).map(str::to_owned).ok_or(Unreadable(key))
}

fn list<'a>(json: &'a Value, key: &'static str) -> Result<&'a Vec<Value>, Unreadable> {
    json.get(key).and_then(Value::as_array).ok_or(Unreadable(key))
}

fn texts(json: &Value, key: &'static str) -> Result<Vec<String>, Unreadable> {
    list(json, key)?.iter().map(|item| item.as_str().map(str::to_owned).ok_or(Unreadable(key))).collect()
}

fn flag(json: &Value, key: &'static str) -> Result<bool, Unreadable> {
    json.get(key).and_then(Value::as_bool).ok_or(Unreadable(key))
}

fn change_to_json(change: &Change) -> Value {
    let mut json = json!({
        "step": change.step,
        "resource": change.resource,
        "resource_type": change.resource_type,
        "resource_definition": change.resource_definition,
        "driver": change.driver,
        "driver_version": change.driver_version,
        "action": change.action.as_str(),
        "fields": change.fields.iter().map(field_to_json).collect::<Vec<_>>(),
        "depends_on": change.depends_on,
        "undoable": change.undoable,
        "monthly_cost": change.monthly_cost,
        "spec": change.spec.to_json(),
    });
    if let Some(Entry { before, after, owner }) = &change.entry {
        json["entry"] = json!({ "before": before, "after": after, "owner": owner });
    }
    if let Some(drift) = change.drift {
        json["drift"] = json!(drift.as_str());
    }
    json
}

fn entry_from_json(json: &Value) -> Result<Entry, Unreadable> {
    Ok(Entry {
        before: text_of(json, "before")?,
        after: text_of(json, "after")?,
        owner: text_of(json, "owner")?,
    })
}

fn drift_from_json(json: &Value) -> Result<Drift, Unreadable> {
    json.as_str().and_then(Drift::parse).ok_or(Unreadable("drift"))
}

fn change_from_json(json: &Value) -> Result<Change, Unreadable> {
    let text = |key| text_of(json, key);
    Ok(Change {
        step: text("step")?,
        resource: text("resource")?,
        resource_type: text("resource_type")?,
        resource_definition: text("resource_definition")?,
        driver: text("driver")?,
        driver_version: text("driver_version")?,
        action: Action::parse(&text("action")?).ok_or(Unreadable("action"))?,
        fields: list(json, "fields")?.iter().map(field_from_json).collect::<Result<_, _>>()?,
        depends_on: texts(json, "depends_on")?,
        undoable: flag(json, "undoable")?,
        monthly_cost: text("monthly_cost")?,
        spec: Spec::from_json(json.get("spec").unwrap_or(&Value::Null))?,
        entry: json.get("entry").map(entry_from_json).transpose()?,
        drift: json.get("drift").map(drift_from_json).transpose()?,
    })
}

fn field_to_json(field: &FieldChange) -> Value {
    let mut map = Map::new();
    map.insert("path".into(), json!(field.path));
    if let Some(before) = &field.before {
        map.insert("before".into(), before.clone());
    }
    if let Some(after) = &field.after {
        map.insert("after".into(), after.clone());
    }
    Value::Object(map)
}

fn field_from_json(json: &Value) -> Result<FieldChange, Unreadable> {
    Ok(FieldChange {
        path: text_of(json, "path")?,
        before: json.get("before").cloned(),
        after: json.get("after").cloned(),
    })
}

impl Spec {
    /// As it is stored with its step and its resource.
    pub fn to_json(&self) -> Value {
        let artifact = match &self.artifact {
            Artifact::None => Value::Null,
            Artifact::Known(value) => json!({ "known": value }),
            Artifact::FromStep { step, name } => json!({ "step": step, "name": name }),
        };
        let mut spec = json!({
            "resource_id": self.resource_id,
            "type_id": self.type_id,
            "environment": self.environment,
            "inputs": self.inputs,
            "driver_inputs": self.driver_inputs,
            "scope": self.scope,
            "artifact": artifact,
            "secret_outputs": self.secret_outputs,
            "revision": self.revision,
            "source_deployment": self.source_deployment,
        });
        if let (Value::Object(map), true) = (&mut spec, self.pinned.is_object()) {
            map.insert("pinned".into(), self.pinned.clone());
        }
        spec
    }

    /// Reads [`Spec::to_json`] back.
    pub fn from_json(json: &Value) -> Result<Self, Unreadable> {
        let artifact = match json.get("artifact") {
            None | Some(Value::Null) => Artifact::None,
            Some(artifact) => match artifact.get("known") {
                Some(known) => Artifact::Known(known.clone()),
                None => {
                    Artifact::FromStep { step: text_of(artifact, "step")?, name: text_of(artifact, "name")? }
                }
            },
        };
        Ok(Self {
            resource_id: text_of(json, "resource_id")?,
            type_id: text_of(json, "type_id")?,
            environment: text_of(json, "environment")?,
            inputs: json.get("inputs").cloned().unwrap_or_default(),
            driver_inputs: json.get("driver_inputs").cloned().unwrap_or_default(),
            scope: json.get("scope").cloned().unwrap_or_default(),
            artifact,
            secret_outputs: texts(json, "secret_outputs")?,
            revision: text_of(json, "revision")?,
            source_deployment: text_of(json, "source_deployment")?,
            pinned: json.get("pinned").cloned().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> Plan {
        let spec = Spec {
            resource_id: "db".into(),
            type_id: "sql-database".into(),
            inputs: json!({"name": "${{ project.id }}"}),
            driver_inputs: json!({}),
            scope: json!({"project": {"id": "p"}}),
            artifact: Artifact::FromStep { step: "pipeline:run".into(), name: String::new() },
            ..Spec::default()
        };
        let mut plan = Plan {
            id: Uuid::from_u128(1),
            organization: "acme".into(),
            kind: Kind::CreateProject,
            action: "provisioning.projects.create".into(),
            target: "organizations/acme/projects/p".into(),
            changes: vec![Change {
                step: "db".into(),
                resource: "organizations/acme/projects/p/resources/db".into(),
                resource_type: "organizations/acme/resourceTypes/sql-database".into(),
                resource_definition: "organizations/acme/resourceDefinitions/x".into(),
                driver: "fake".into(),
                driver_version: "1.0.0".into(),
                action: Action::Create,
                fields: vec![FieldChange { path: "name".into(), before: None, after: Some(json!("p")) }],
                depends_on: vec![],
                undoable: true,
                monthly_cost: "1.50 USD".into(),
                spec,
                entry: None,
                drift: None,
            }],
            monthly_cost_before: String::new(),
            monthly_cost_after: "1.50 USD".into(),
            template_version: String::new(),
            parameters: json!({"b": 1, "a": 2}),
            settings: json!({}),
            requester: "organizations/acme/users/alice".into(),
            author: "organizations/acme/users/carol".into(),
            summary: "s".into(),
            create_time: time::macros::datetime!(2026-01-01 00:00:00.123456 UTC),
            expire_time: time::macros::datetime!(2026-01-02 00:00 UTC),
            digest: String::new(),
            questions: vec![],
            answers: vec![],
            decision: Value::Null,
        };
        plan.digest = plan.compute_digest();
        plan
    }

    fn question() -> Question {
        Question {
            action: "provisioning.environments.delete".into(),
            subject: Subject::project("organizations/acme/projects/p", "organizations/acme/groups/g"),
            environment_class: "production".into(),
            template_version: "t".into(),
            new_owner: "o".into(),
            moves_owner: true,
            counts: [1, 2, 3, 4],
            resource_types: vec!["sql-database".into()],
        }
    }

    #[test]
    fn a_plan_reads_back_as_it_was() {
        let plan = sample();
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
        let mut asked = plan;
        let labels = [("tier".to_owned(), "gold".to_owned())].into();
        let entity = Subject::entity("organizations/acme/kinds/component/entities/p", "", labels);
        asked.questions = vec![question(), Question { subject: entity, ..Question::default() }];
        let owner = "organizations/acme/groups/g".to_owned();
        asked.changes[0].entry = Some(Entry { before: "b".into(), after: "a".into(), owner });
        asked.answers = vec![Given { decision: "d".into(), effect: "ALLOW".into() }];
        asked.changes[0].spec.pinned = json!({"commit": "c"});
        asked.changes[0].drift = Some(Drift::Broken);
        assert_eq!(Plan::from_json(&asked.to_json()).unwrap(), asked);
        assert!(Plan::from_json(&json!({})).is_err());
    }

    #[test]
    fn the_digest_covers_what_decides_and_nothing_else() {
        let plan = sample();
        let mut same = plan.clone();
        same.id = Uuid::from_u128(2);
        same.requester = "organizations/acme/users/bob".into();
        same.parameters = json!({"a": 2, "b": 1});
        assert_eq!(same.compute_digest(), plan.digest);
        type Tweak = fn(&mut Plan);
        let changes: [Tweak; 8] = [
            |plan| plan.changes[0].drift = Some(Drift::Gone),
            |plan| plan.questions = vec![question()],
            |plan| plan.changes[0].spec.pinned = json!({}),
            |plan| plan.target.push('x'),
            |plan| plan.parameters = json!({}),
            |plan| plan.changes[0].spec.inputs = json!({}),
            |plan| plan.changes[0].undoable = false,
            |plan| plan.changes[0].spec.artifact = Artifact::None,
        ];
        for change in changes {
            let mut other = plan.clone();
            change(&mut other);
            assert_ne!(other.compute_digest(), plan.digest);
        }
    }

    #[test]
    fn the_digest_of_a_recorded_plan_does_not_change() {
        // Approvals are bound to it: a change of its form voids what people have said.
        assert_eq!(
            sample().digest,
            "sha256:8f7cf87f6ae5c6f9e7180df04ccf69dfadd0725b9a40fc09df3b092f9f85803d"
        );
    }
}
