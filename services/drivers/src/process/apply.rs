//! A workload made or changed: the next version beside the running one, which goes when the next one answers.

use std::net::{Ipv4Addr, TcpListener};

use async_trait::async_trait;
use pavior_core::digest::{canonical_json, sha256_hex};
use pavior_driver::{
    ApplyRequest, CallContext, ExposeSecret, Failure, FailureCode, Progress, SecretString, Sink, Success,
};
use tokio_util::sync::CancellationToken;

use super::instance::{Instance, Live, probe};
use super::release::{Installed, Place, install};
use super::spec::{Desired, INPUTS, Inputs, Spec, TYPE};
use super::{ProcessDriver, internal};
use crate::files;
use crate::inputs::slug;
use crate::ledger::{Intent, LedgerEntry, Rollback};

impl ProcessDriver {
    /// As [`Self::launch`], on a new port; when somebody else took the port before the process did, it is tried on another one.
    async fn launch_anywhere(
        &self,
        identity: &str,
        spec: &mut Spec,
        cancel: &CancellationToken,
    ) -> Result<(Instance, u32), Failure> {
        let mut left = 3;
        loop {
            left -= 1;
            let port = self.ports.any()?;
            spec.port = port.number;
            match self.launch(identity, spec, port, cancel).await {
                Err(failure) if left > 0 && was_taken(spec.port, &failure) => {}
                other => return other,
            }
        }
    }

    pub(super) async fn try_apply(
        &self,
        context: &CallContext,
        request: ApplyRequest,
        sink: &dyn Sink,
    ) -> Result<Success, Failure> {
        let _lock = self.ledger.lock(context).await?;
        let before = self.ledger.replay(context, &request.inputs)?;
        let inputs = INPUTS.read(&request.inputs)?;
        let prior = request
            .prior
            .as_ref()
            .map(|prior| prior.identity.clone())
            .filter(|identity| !identity.is_empty());
        let identity = before.map(|used| used.identity).or(prior).unwrap_or_else(|| {
            let id = context.resource.rsplit('/').next().unwrap_or_default();
            let key = format!("{}/{}", context.organization, context.idempotency_key);
            format!("{}-{}", slug(id, 40), &sha256_hex(key.as_bytes())[..16])
        });
        if self.ledger.owner(&identity)?.is_some_and(|owner| owner.organization != context.organization) {
            return Err(Failure::new(FailureCode::NotFound, format!("workload `{identity}` does not exist")));
        }
        let slot = self.slot(&identity);
        let mut running = slot.lock().await;
        let mut intent = self.ledger.intend(context, TYPE, &identity, &request)?;
        let wanted = self.ledger.keyring().digest("workload", &canonical_json(&request.inputs));
        let current =
            self.read(&intent.entry).filter(|spec| spec.inputs == wanted && spec.desired == Desired::Running);
        if let (Some(spec), Some(Live::Up { pid })) = (&current, running.as_ref().map(Instance::live))
            && probe(spec.port, spec.health_path.as_deref()).await
        {
            self.ledger.complete(&mut intent)?;
            return Ok(Self::success(&identity, spec, Some(pid)));
        }
        sink.progress(Progress::message("starting the workload")).await;
        self.wait_for_old(&identity, running.as_ref()).await;
        let made = self.make(context, &mut intent, inputs, wanted, &request.sensitive).await;
        let (instance, pid, spec) = match made {
            Ok(made) => made,
            Err(failure) => return Err(self.ledger.roll_back(intent, failure, self).await),
        };
        let old = running.replace(instance);
        self.end(old).await;
        self.used(&identity, &spec).prune();
        Ok(Self::success(&identity, &spec, Some(pid)))
    }

    /// Starts what was asked for, and records it; on failure nothing of it is left running.
    async fn make(
        &self,
        context: &CallContext,
        intent: &mut Intent,
        inputs: Inputs,
        digest_of_inputs: String,
        sensitive: &[SecretString],
    ) -> Result<(Instance, u32, Spec), Failure> {
        let identity = intent.entry.identity.clone();
        let mut spec = self.prepare(context, &identity, inputs, digest_of_inputs, sensitive).await?;
        let (instance, pid) = self.launch_anywhere(&identity, &mut spec, &context.cancel).await?;
        match self.seal(&mut intent.entry, &spec).and_then(|()| self.ledger.complete(intent)) {
            Ok(()) => Ok((instance, pid, spec)),
            Err(failure) => {
                self.end(Some(instance)).await;
                Err(failure)
            }
        }
    }

    async fn prepare(
        &self,
        context: &CallContext,
        identity: &str,
        inputs: Inputs,
        digest_of_inputs: String,
        sensitive: &[SecretString],
    ) -> Result<Spec, Failure> {
        let directory = self.directory(identity);
        let place = Place {
            artifacts: self.data_dir.join("artifacts"),
            organization: context.organization.clone(),
            releases: directory.join("releases"),
            home: directory.join("data"),
        };
        for folder in [&place.releases, &place.home] {
            files::private_directory(folder).map_err(internal("the workload's directory cannot be made"))?;
        }
        let here = |text: &String| self.ledger.folder().here(text);
        let words: Vec<String> = inputs.command.iter().map(here).collect();
        let variables = inputs.variables.0.iter().map(|(name, value)| (name.clone(), here(value))).collect();
        // Copies and digests megabytes: not on an async thread.
        let installed = tokio::task::spawn_blocking(move || install(&place, &words, &variables));
        let Installed { command, variables, digest } =
            installed.await.map_err(|_| Failure::new(FailureCode::Internal, "installing broke off"))??;
        let timeout = inputs.health.timeout.map_or(self.config.health_timeout, |span| span.0);
        Ok(Spec {
            command,
            variables,
            health_path: inputs.health.path,
            health_timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            sensitive: sensitive.iter().map(|secret| secret.expose_secret().to_owned()).collect(),
            inputs: digest_of_inputs,
            digest,
            port: 0,
            desired: Desired::Running,
        })
    }
}

#[async_trait]
impl Rollback for ProcessDriver {
    /// Nothing runs any more by then.
    async fn remove(&self, entry: &LedgerEntry) -> Result<(), Failure> {
        let directory = self.directory(&entry.identity);
        let removed = tokio::task::spawn_blocking(move || files::remove_tree(&directory)).await;
        let removed = removed.map_err(std::io::Error::other).flatten();
        removed.map_err(internal("the workload's directory cannot be removed"))
    }

    /// The former version runs on; only what was installed for the next one goes.
    async fn restore(&self, before: &LedgerEntry) -> Result<(), Failure> {
        if let Some(spec) = self.read(before) {
            self.used(&before.identity, &spec).prune();
        }
        Ok(())
    }
}

/// Whether the port is somebody else's, or was when the process asked for it: by now it may be free again. Runtimes say it in
/// the words of the system (`strerror` of EADDRINUSE), or by its name.
fn was_taken(port: u16, failure: &Failure) -> bool {
    let said = failure.message.to_ascii_lowercase();
    let told = ["address already in use", "eaddrinuse"].iter().any(|words| said.contains(words));
    let taken = || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err();
    failure.code == FailureCode::WorkFailed && (told || taken())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_taken_for_a_moment_was_taken() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        let failed = |code, text: &str| Failure::new(code, text);
        assert!(was_taken(port, &failed(FailureCode::WorkFailed, "ended with exit code 1")));
        assert!(!was_taken(port, &failed(FailureCode::Cancelled, "cancelled while it started")));
        // That one is always free.
        let port = 0;
        for (text, want) in [
            ("OSError: [Errno 98] Address already in use", true),
            ("listen tcp 127.0.0.1:1: bind: address already in use", true),
            ("Error: listen EADDRINUSE: 127.0.0.1:1", true),
            ("ended with exit code 1", false),
        ] {
            assert_eq!(was_taken(port, &failed(FailureCode::WorkFailed, text)), want, "{text}");
        }
    }
}
