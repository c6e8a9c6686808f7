//! Commands about runs and what they made.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pavior_core::digest::Digest;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::pavior::provisioning::v1::download_artifact_response::description::Format;
use pavior_proto::pavior::provisioning::v1::download_artifact_response::{Chunk, Description, Part};
use serde_json::json;
use tonic::Status;

use super::args::{ALL, ArtifactCommand, ListArgs, RunArg};
use super::client::Client;
use super::exit::Exit;
use super::failure::{Ended, OrUsage as _, wrong_usage};
use super::output::{self, Printer};
use super::page::list_all;
use super::retry::Patience;

/// `pavior artifact`.
pub(super) async fn artifact(
    client: &Client,
    printer: Printer,
    command: ArtifactCommand,
) -> anyhow::Result<()> {
    match command {
        ArtifactCommand::List(run) => {
            let request = pb::GetRunRequest { name: run.name(client)?, ..Default::default() };
            let run = client.pipelines().get_run(request).await?.into_inner();
            printer.list(&run.artifacts, &["artifact", "bytes", "digest"], |artifact| {
                let pb::run::Artifact { artifact_id, digest, size_bytes } = artifact.clone();
                vec![artifact_id, size_bytes.to_string(), digest]
            })
        }
        ArtifactCommand::Download { run, artifact, to } => {
            let request =
                pb::DownloadArtifactRequest { name: run.name(client)?, artifact_id: artifact, offset: 0 };
            download(client, printer, request, to).await
        }
    }
}

/// Lists the runs of a pipeline, of a project, or of all projects.
pub(super) async fn runs(
    client: &Client,
    printer: Printer,
    pipeline: &str,
    list: &ListArgs,
) -> anyhow::Result<()> {
    let pipeline = if pipeline.contains('/') { pipeline.to_owned() } else { format!("{pipeline}/{ALL}") };
    let parent = client.full_name(&pipeline, &["projects", "pipelines"])?;
    let all = list_all!(list, parent, client.pipelines(), list_runs, pb::ListRunsRequest, runs);
    printer.list(&all, &["run", "state", "commit", "created", "error"], |run| {
        vec![
            output::below_project(&run.name),
            output::state(run.state().as_str_name(), "STATE_"),
            run.commit.clone(),
            output::time(run.create_time.as_ref()),
            run.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
        ]
    })
}

impl RunArg {
    /// Its resource name.
    fn name(&self, client: &Client) -> anyhow::Result<String> {
        let full = match self.run.split('/').collect::<Vec<_>>().as_slice() {
            [project, run] if *project != "organizations" => format!("{project}/pipeline/{run}"),
            _ => self.run.clone(),
        };
        client.full_name(&full, &["projects", "pipelines", "runs"])
    }
}

/// An artifact that is being written.
struct Partial {
    file: tempfile::NamedTempFile,
    description: Option<Description>,
    written: u64,
}

async fn download(
    client: &Client,
    printer: Printer,
    mut request: pb::DownloadArtifactRequest,
    to: Option<PathBuf>,
) -> anyhow::Result<()> {
    if let Some(to) = &to {
        refuse_existing(to)?;
    }
    let folder = to.as_deref().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write into `{}`", folder.display()))
        .or_usage()?;
    let mut partial = Partial { file, description: None, written: 0 };
    let mut patience = Patience::new();
    loop {
        let before = partial.written;
        match partial.receive(client, &request).await? {
            Ok(()) => break,
            Err(status) => {
                if partial.written > before {
                    patience = Patience::after_an_answer();
                }
                patience.bear(status).await?;
                request.offset = i64::try_from(partial.written)?;
            }
        }
    }
    let description = partial.description.take().context("the server sent nothing")?;
    let to = to.map_or_else(|| default_path(&description), Ok)?;
    refuse_existing(&to)?;
    partial.file.as_file().sync_all()?;
    if description.format() == Format::File {
        // What was received, not only what was sent.
        let found = Digest::of(&std::fs::read(partial.file.path())?).to_string();
        if found != description.digest {
            let message =
                format!("what was received has the digest {found} instead of {}", description.digest);
            return Err(Ended { message, exit: Exit::Failed }.into());
        }
    }
    partial.file.persist_noclobber(&to).with_context(|| format!("cannot write `{}`", to.display()))?;
    let bytes = partial.written;
    if printer.is_json() {
        let file = to.display().to_string();
        return printer.value(&json!({ "file": file, "bytes": bytes, "digest": description.digest }));
    }
    output::say(&format!("{}  {bytes} bytes  {}", to.display(), description.digest))
}

impl Partial {
    /// Writes what the server sends behind what is there. The inner error is that of the call.
    async fn receive(
        &mut self,
        client: &Client,
        request: &pb::DownloadArtifactRequest,
    ) -> anyhow::Result<Result<(), Status>> {
        let mut stream = match client.pipelines().download_artifact(request.clone()).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        loop {
            let part = match stream.message().await {
                Ok(Some(message)) => message.part,
                Ok(None) => return Ok(Ok(())),
                Err(status) => return Ok(Err(status)),
            };
            match part {
                Some(Part::Description(description)) => self.description = Some(description),
                Some(Part::Chunk(Chunk { offset, data })) => {
                    anyhow::ensure!(u64::try_from(offset) == Ok(self.written), "the server left bytes out");
                    self.file.write_all(&data).context("cannot write what was received")?;
                    self.written += data.len() as u64;
                }
                // Something that only a newer server sends.
                None => {}
            }
        }
    }
}

/// As the artifact is called, in this folder.
fn default_path(description: &Description) -> anyhow::Result<PathBuf> {
    let name = Path::new(&description.file_name);
    // The name is the server's, and must lead nowhere else.
    if name.file_name() != Some(name.as_os_str()) {
        let message = format!("`{}` is no name of a file: give --to", description.file_name);
        return Err(wrong_usage(message));
    }
    let ending = if description.format() == Format::Tar { ".tar" } else { "" };
    Ok(PathBuf::from(format!("{}{ending}", description.file_name)))
}

fn refuse_existing(path: &Path) -> anyhow::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(wrong_usage(format!("`{}` exists already: name another file with --to", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_written_into_this_folder_and_nowhere_else() {
        let called = |file_name: &str, format: Format| {
            default_path(&Description {
                file_name: file_name.to_owned(),
                format: format.into(),
                digest: String::new(),
            })
        };
        assert_eq!(called("app", Format::File).unwrap(), Path::new("app"));
        assert_eq!(called("site", Format::Tar).unwrap(), Path::new("site.tar"));
        for name in ["", ".", "..", "/etc/passwd", "../app", "a/b", "app/"] {
            let error = called(name, Format::File).unwrap_err();
            assert_eq!(error.to_string(), format!("`{name}` is no name of a file: give --to"));
        }
    }
}
