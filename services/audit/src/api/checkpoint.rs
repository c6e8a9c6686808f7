//! Checkpoints on the wire, and proofs against them.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_proto::pavior::audit::v1 as pb;
use pavior_proto::shape::{Request as _, Resource as _};
use pavior_rpc::Problem;

use super::record::timestamp;
use super::{Api, name};
use crate::domain::checkpoint::{Checkpoint, SignedNote};
use crate::domain::hash::Hash;
use crate::error::Error;

impl Api {
    pub(super) async fn checkpoint(
        &self,
        permit: &Permit,
        request: &pb::GetAuditCheckpointRequest,
    ) -> Result<pb::AuditCheckpoint, Error> {
        parse(permit, &request.name, pb::GetAuditCheckpointRequest::ACTION)?;
        Ok(self.encode_checkpoint(permit, self.reader.checkpoint(permit).await?))
    }

    pub(super) async fn inclusion(
        &self,
        permit: &Permit,
        request: &pb::ProveInclusionRequest,
    ) -> Result<pb::InclusionProof, Error> {
        parse(permit, &request.name, pb::ProveInclusionRequest::ACTION)?;
        let (index, size) = (whole("index", request.index)?, size("tree_size", request.tree_size)?);
        let proof = self.reader.prove_inclusion(permit, index, size).await?;
        Ok(pb::InclusionProof {
            index: request.index,
            tree_size: wire(proof.tree_size),
            leaf_hash: proof.leaf.to_vec(),
            hashes: hashes(proof.path),
            checkpoint: Some(self.encode_checkpoint(permit, proof.checkpoint)),
        })
    }

    pub(super) async fn consistency(
        &self,
        permit: &Permit,
        request: &pb::ProveConsistencyRequest,
    ) -> Result<pb::ConsistencyProof, Error> {
        parse(permit, &request.name, pb::ProveConsistencyRequest::ACTION)?;
        let (from, to) = (whole("from_size", request.from_size)?, size("to_size", request.to_size)?);
        let proof = self.reader.prove_consistency(permit, from, to).await?;
        Ok(pb::ConsistencyProof {
            from_size: request.from_size,
            to_size: wire(proof.to_size),
            hashes: hashes(proof.path),
            checkpoint: Some(self.encode_checkpoint(permit, proof.checkpoint)),
        })
    }

    fn encode_checkpoint(&self, permit: &Permit, checkpoint: Checkpoint) -> pb::AuditCheckpoint {
        let log = permit.organization();
        let Checkpoint { head, signed: SignedNote { note, verifier_key, sign_time } } = checkpoint;
        pb::AuditCheckpoint {
            name: format!("organizations/{log}/auditCheckpoint"),
            origin: self.reader.signer.origin(log),
            tree_size: wire(head.size),
            root_hash: head.root.to_vec(),
            note,
            verifier_key,
            // A log that has not begun has no time.
            sign_time: timestamp(sign_time).filter(|_| head.size > 0),
        }
    }
}

fn parse(permit: &Permit, name: &str, action: &str) -> Result<(), pavior_resource::Error> {
    name::parse(permit, "name", name, pb::AuditCheckpoint::PATTERN, action).map(drop)
}

/// A number that must not be negative.
fn whole(field: &str, number: i64) -> Result<u64, Problem> {
    u64::try_from(number)
        .map_err(|_| Problem::invalid_field(field, Fault::OutOfRange, "must not be negative"))
}

/// A size, where 0 means the newest.
fn size(field: &str, number: i64) -> Result<Option<u64>, Problem> {
    Ok(Some(whole(field, number)?).filter(|size| *size > 0))
}

fn hashes(hashes: Vec<Hash>) -> Vec<Vec<u8>> {
    hashes.into_iter().map(Vec::from).collect()
}

/// Sizes come from big integers of the database, so they fit.
fn wire(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
