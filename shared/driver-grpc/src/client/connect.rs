use std::sync::Arc;

use pavior_driver::DriverInfo;
use pavior_proto::pavior::driver::v1 as pb;
use pavior_rpc::Transport;
use pb::driver_service_client::DriverServiceClient;
use tonic::{Code, Status};

use super::{RemoteDriver, RemoteOptions, shown};
use crate::handshake::{self, Agreement, CAPABILITIES, REVISIONS, numbers};
use crate::{ConnectError, WireError, schema};

pub(super) async fn connect(
    mut client: DriverServiceClient<Transport>,
    options: RemoteOptions,
) -> Result<RemoteDriver, ConnectError> {
    let request = pb::HandshakeRequest {
        engine: "pavior".to_owned(),
        engine_version: options.engine_version.clone(),
        revisions: REVISIONS.to_vec(),
        capabilities: numbers(CAPABILITIES),
        required_capabilities: Vec::new(),
    };
    let pb::HandshakeResponse {
        revision,
        driver_id: id,
        driver_version: version,
        capabilities,
        required_capabilities,
        schema_digest,
    } = client.handshake(request).await.map_err(|status| failed(&status))?.into_inner();
    if !REVISIONS.contains(&revision) {
        return Err(ConnectError::Revision { driver: revision, ours: REVISIONS.to_vec() });
    }
    if let Some(lacking) = handshake::missing(&required_capabilities) {
        return Err(ConnectError::Capabilities(lacking));
    }
    for (field, text) in [("driver_id", &id), ("driver_version", &version), ("schema_digest", &schema_digest)]
    {
        if text.is_empty() {
            return Err(WireError::Missing(field).into());
        }
    }
    let described = client.get_schema(pb::GetSchemaRequest {}).await.map_err(|status| failed(&status))?;
    let described = described.into_inner();
    if described.schema_digest != schema_digest {
        return Err(ConnectError::Changed);
    }
    let types = described.types.into_iter().map(schema::decode).collect::<Result<Vec<_>, _>>()?;
    Ok(RemoteDriver {
        client,
        info: Arc::new(DriverInfo { id, version, types }),
        digest: schema_digest.into(),
        agreed: Arc::new(Agreement { revision, capabilities: handshake::common_capabilities(&capabilities) }),
        options,
    })
}

/// Whether it is of use to try again.
fn failed(status: &Status) -> ConnectError {
    match status.code() {
        Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
            ConnectError::Refused(shown(status))
        }
        Code::Unauthenticated | Code::PermissionDenied => ConnectError::Refused(shown(status)),
        _ => ConnectError::Unreachable(shown(status)),
    }
}
