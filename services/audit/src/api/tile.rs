//! Tiles on the wire.

use pavior_auth::Permit;
use pavior_proto::pavior::audit::v1 as pb;
use pavior_proto::shape::{Request as _, Resource as _};
use pavior_resource::Error as ResourceError;

use super::{Api, name};
use crate::error::Error;

impl Api {
    pub(super) async fn tile(
        &self,
        permit: &Permit,
        pb::GetAuditTileRequest { name }: &pb::GetAuditTileRequest,
    ) -> Result<pb::AuditTile, Error> {
        let (pattern, action) = (pb::AuditTile::PATTERN, pb::GetAuditTileRequest::ACTION);
        let ids = name::parse(permit, "name", name, pattern, action)?;
        let place = ids.last().and_then(|id| place(id));
        let (level, index) = place.ok_or_else(|| name::malformed("name", name, pattern))?;
        // No tree has levels beyond those that fit.
        let hashes = match i32::try_from(level) {
            Ok(level) => self.reader.tile(permit, level.unsigned_abs(), index.unsigned_abs()).await?,
            Err(_) => None,
        };
        let kind = pb::AuditTile::TYPE;
        let hashes = hashes.ok_or_else(|| ResourceError::NotFound { kind, name: name.clone() })?;
        let (level, width) = (level as i32, hashes.len() as i32);
        Ok(pb::AuditTile { name: name.clone(), level, index, width, hashes: hashes.concat() })
    }
}

/// The level and the index in the id of a tile.
fn place(id: &str) -> Option<(i64, i64)> {
    let (level, index) = id.split_once('-')?;
    Some((level.parse().ok()?, index.parse().ok()?))
}
