//! Publishes versions of golden paths, and moves the channels that point at them.

use anyhow::Context as _;
use pavior_proto::pavior::catalog::v1 as catalog;
use tonic::{Code, Response, Status};

use super::client::{Client, request_id};
use super::document::Change;
use super::output;

/// What publishing a version came to.
#[derive(Debug)]
pub(super) struct Publication {
    /// The version.
    pub(super) name: String,
    /// What became of it and of its channels together.
    pub(super) change: Change,
    /// The channels that were named, in their order.
    pub(super) channels: Vec<(String, Pointing)>,
}

/// What became of a channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pointing {
    /// It points at the version now, and pointed at another before, or at none.
    Moved { before: Option<String> },
    /// It pointed at the version already.
    There,
    /// It points at a newer version, and stays there.
    Stays { at: String },
}

/// A golden path, if there is one of the name.
pub(super) async fn template(client: &Client, name: &str) -> anyhow::Result<Option<catalog::Template>> {
    found(client.templates().get_template(catalog::GetTemplateRequest { name: name.to_owned() }).await)
}

/// A published version, if there is one of the name.
pub(super) async fn version(client: &Client, name: &str) -> anyhow::Result<Option<catalog::TemplateVersion>> {
    let request = catalog::GetTemplateVersionRequest { name: name.to_owned(), ..Default::default() };
    found(client.templates().get_template_version(request).await)
}

fn found<T>(answer: Result<Response<T>, Status>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// Publishes a version, makes the golden path itself when it is the first, and moves channels forward to it. None is
/// moved back: whoever wants that says so with [`move_channel`].
pub(super) async fn publish(
    client: &Client,
    id: &str,
    number: &str,
    document: &str,
    channels: &[String],
) -> anyhow::Result<Publication> {
    let parent = client.full_name(id, &["templates"])?;
    let name = format!("{parent}/versions/{number}");
    if template(client, &parent).await?.is_none() {
        create_template(client, id, document).await?;
    }
    let mut change = Change::Unchanged;
    if version(client, &name).await?.is_none_or(|published| published.document != document) {
        create_version(client, &parent, document).await?;
        change = Change::Created;
    }
    // Read after the version was made: its etag refuses a move that somebody else has overtaken.
    let mut at = template(client, &parent).await?.context("the golden path is gone")?;
    let mut pointings = Vec::new();
    for channel in channels {
        let before = at.channels.get(channel).map(|channel| output::id(&channel.template_version));
        let pointing = match before {
            Some(before) if before == number => Pointing::There,
            Some(before) if is_newer(&before, number)? => Pointing::Stays { at: before },
            before => {
                at = move_channel(client, &parent, channel, &name, &at.etag).await?;
                Pointing::Moved { before }
            }
        };
        if matches!((change, &pointing), (Change::Unchanged, Pointing::Moved { .. })) {
            change = Change::Updated;
        }
        pointings.push((channel.clone(), pointing));
    }
    Ok(Publication { name, change, channels: pointings })
}

/// Whether one version comes after another (semver.org).
fn is_newer(one: &str, other: &str) -> anyhow::Result<bool> {
    let parse = |text: &str| {
        semver::Version::parse(text).with_context(|| format!("`{text}` is not a semantic version"))
    };
    Ok(parse(one)? > parse(other)?)
}

/// Points a channel of a golden path at a version, forward or back.
pub(super) async fn move_channel(
    client: &Client,
    name: &str,
    channel: &str,
    template_version: &str,
    etag: &str,
) -> anyhow::Result<catalog::Template> {
    let request = catalog::MoveTemplateChannelRequest {
        name: name.to_owned(),
        channel_id: channel.to_owned(),
        template_version: template_version.to_owned(),
        etag: etag.to_owned(),
        request_id: request_id(),
        ..Default::default()
    };
    Ok(client.templates().move_template_channel(request).await?.into_inner())
}

async fn create_version(client: &Client, parent: &str, document: &str) -> anyhow::Result<()> {
    let version = catalog::TemplateVersion { document: document.to_owned(), ..Default::default() };
    let request = catalog::CreateTemplateVersionRequest {
        parent: parent.to_owned(),
        template_version: Some(version),
        request_id: request_id(),
        ..Default::default()
    };
    client.templates().create_template_version(request).await?;
    Ok(())
}

/// Makes the golden path that a version is the first of; its title and description are those of the document.
async fn create_template(client: &Client, template: &str, document: &str) -> anyhow::Result<()> {
    let fields = pavior_expr::yaml::parse(document)?;
    let text = |key: &str| fields.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    client
        .templates()
        .create_template(catalog::CreateTemplateRequest {
            parent: client.organization()?,
            template_id: template.rsplit('/').next().unwrap_or(template).to_owned(),
            template: Some(catalog::Template {
                display_name: text("title").unwrap_or_else(|| template.to_owned()),
                description: text("description").unwrap_or_default(),
                ..Default::default()
            }),
            request_id: request_id(),
            validate_only: false,
        })
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_newer;

    #[test]
    fn versions_are_compared_as_numbers_and_a_release_comes_after_its_candidates() {
        for (newer, older) in [("1.10.0", "1.9.0"), ("2.0.0", "2.0.0-rc.1"), ("0.2.0", "0.1.9")] {
            assert!(is_newer(newer, older).unwrap() && !is_newer(older, newer).unwrap(), "{newer} {older}");
        }
        assert!(!is_newer("1.0.0", "1.0.0").unwrap());
        assert_eq!(is_newer("1", "1.0.0").unwrap_err().to_string(), "`1` is not a semantic version");
    }
}
