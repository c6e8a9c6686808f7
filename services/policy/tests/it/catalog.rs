//! The peers: a catalog that knows nothing but its directory, and an audit service that only takes records.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use pavior_proto::pavior::audit::internal::v1::{AppendRecordsRequest, AppendRecordsResponse};
use pavior_proto::pavior::identity::internal::v1::directory::{GroupParent, Membership};
use pavior_proto::pavior::identity::internal::v1::{Directory, GetDirectoryRequest};
use tonic::body::Body;
use tonic::server::UnaryService;
use tonic::{Request, Response, Status};

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) down: bool,
    pub(crate) full_answers: usize,
    pub(crate) directory: Directory,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog(pub(crate) Arc<Mutex<State>>);

impl Catalog {
    /// Members as `("alice", ["payments"])`, parents as `("core", "payments")`.
    pub(crate) fn set(&self, revision: &str, members: &[(&str, &[&str])], parents: &[(&str, &str)]) {
        let group = |id: &str| format!("organizations/acme/groups/{id}");
        let memberships = members.iter().map(|(user, groups)| Membership {
            member: format!("organizations/acme/users/{user}"),
            groups: groups.iter().map(|id| group(id)).collect(),
        });
        let groups =
            parents.iter().map(|(id, parent)| GroupParent { group: group(id), parent_group: group(parent) });
        self.0.lock().unwrap().directory = Directory {
            revision: revision.into(),
            unchanged: false,
            memberships: memberships.collect(),
            groups: groups.collect(),
        };
    }
}

impl UnaryService<GetDirectoryRequest> for Catalog {
    type Response = Directory;
    type Future = std::future::Ready<Result<Response<Directory>, Status>>;

    fn call(&mut self, request: Request<GetDirectoryRequest>) -> Self::Future {
        let mut state = self.0.lock().unwrap();
        let request = request.into_inner();
        std::future::ready(if state.down {
            Err(Status::unavailable("down"))
        } else if request.organization != "organizations/acme" {
            Err(Status::not_found("no such organization"))
        } else if request.known_revision == state.directory.revision {
            Ok(Response::new(Directory {
                revision: request.known_revision,
                unchanged: true,
                ..Directory::default()
            }))
        } else {
            state.full_answers += 1;
            Ok(Response::new(state.directory.clone()))
        })
    }
}

impl tower::Service<http::Request<Body>> for Catalog {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/pavior.identity.internal.v1.DirectoryService/GetDirectory" {
                return Ok(Status::unimplemented("only the directory").into_http());
            }
            let codec = tonic_prost::ProstCodec::<Directory, GetDirectoryRequest>::default();
            Ok(tonic::server::Grpc::new(codec).unary(this, request).await)
        })
    }
}

/// What was appended: producer, sequence number, action.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audit(pub(crate) Arc<Mutex<Vec<(String, i64, String)>>>);

impl UnaryService<AppendRecordsRequest> for Audit {
    type Response = AppendRecordsResponse;
    type Future = std::future::Ready<Result<Response<AppendRecordsResponse>, Status>>;

    fn call(&mut self, request: Request<AppendRecordsRequest>) -> Self::Future {
        let request = request.into_inner();
        let service = request.producer.map(|producer| producer.service).unwrap_or_default();
        let mut taken = self.0.lock().unwrap();
        for event in request.events {
            let action = event.event.map(|event| event.action).unwrap_or_default();
            taken.push((service.clone(), event.sequence, action));
        }
        let acknowledged_sequence = taken.last().map(|last| last.1).unwrap_or_default();
        std::future::ready(Ok(Response::new(AppendRecordsResponse { acknowledged_sequence })))
    }
}

impl tower::Service<http::Request<Body>> for Audit {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if !request.headers().contains_key(pavior_auth::INTERNAL_TOKEN) {
                return Ok(Status::unauthenticated("no token").into_http());
            }
            let codec = tonic_prost::ProstCodec::<AppendRecordsResponse, AppendRecordsRequest>::default();
            Ok(tonic::server::Grpc::new(codec).unary(this, request).await)
        })
    }
}
