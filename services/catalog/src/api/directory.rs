//! `pavior.identity.internal.v1.DirectoryService`.

use pavior_proto::pavior::identity::internal::v1 as directory_pb;
use pavior_proto::pavior::identity::internal::v1::directory_service_server::DirectoryService;
use pavior_proto::shape::Request as _;
use pavior_relay::known_to_fit;
use pavior_resource::{Answer, Service as _, parse, read_request, respond};
use pavior_rpc::problem::Problem;
use tonic::Request;

use super::Api;
use super::convert::ORGANIZATION;
use crate::app::{Directory, DirectoryRows};

#[tonic::async_trait]
impl DirectoryService for Api {
    async fn get_directory(
        &self,
        request: Request<directory_pb::GetDirectoryRequest>,
    ) -> Answer<directory_pb::Directory> {
        let (permit, request) = read_request(request)?;
        let action = directory_pb::GetDirectoryRequest::ACTION;
        parse(&permit, "organization", &request.organization, ORGANIZATION, action).map_err(Problem::from)?;
        let directory = self.app.directory(&permit, &request.known_revision).await;
        // Looked at after the rows: what was read of an older copy is not told as current.
        let history = self.app.kernel().store.history();
        respond(match directory {
            Ok(directory) => Ok(directory_pb::Directory {
                current: history.fits(),
                outdated: history.apart().map(|apart| apart.to_string()).unwrap_or_default(),
                ..encode_directory(directory, permit.organization())
            }),
            // An older copy may not know the organization: that nobody is in it is no answer.
            Err(error) => Err(known_to_fit(history)
                .err()
                .map_or(error, |problem| pavior_resource::Error::from(problem).into())),
        })
    }
}

fn encode_directory(directory: Directory, organization: &str) -> directory_pb::Directory {
    let Directory { revision, rows } = directory;
    let Some(DirectoryRows { memberships, groups }) = rows else {
        return directory_pb::Directory { revision, unchanged: true, ..Default::default() };
    };
    let group = |id: &str| format!("organizations/{organization}/groups/{id}");
    let memberships = memberships.into_iter().map(|(member, groups)| directory_pb::directory::Membership {
        member,
        groups: groups.iter().map(|id| group(id)).collect(),
    });
    let memberships = memberships.collect();
    let groups = groups.into_iter().map(|(id, parent)| directory_pb::directory::GroupParent {
        group: group(&id),
        parent_group: parent.map(|id| group(&id)).unwrap_or_default(),
    });
    directory_pb::Directory { revision, memberships, groups: groups.collect(), ..Default::default() }
}
