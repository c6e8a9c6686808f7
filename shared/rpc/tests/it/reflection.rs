use pavior_proto::pavior::audit::v1::AuditRecord;
use pavior_rpc::Health;
use pavior_rpc::reflection::reflection;
use pavior_rpc::server::{Drain, ServeOptions};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::harness::{Fake, Served, infos, serve};

const SERVED: &str = "pavior.audit.v1.AuditService";

async fn served() -> (Served, Channel, Health) {
    let fake = Fake::get(|_| async { Ok(AuditRecord::default()) });
    let health = Health::new([SERVED]).await;
    let beside = reflection(health.add_to(Routes::default()), &[SERVED]).unwrap();
    let served = serve(fake.stack().beside(beside, Drain::default()), ServeOptions::default()).await;
    let channel =
        Channel::from_shared(format!("http://{}", served.address)).unwrap().connect().await.unwrap();
    (served, channel, health)
}

const WANT: [&str; 4] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    SERVED,
];

macro_rules! names_only_what_is_served {
    ($test:ident, $version:ident) => {
        #[tokio::test]
        async fn $test() {
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let (_served, channel, _) = served().await;
            let ask =
                |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
            let requests = [
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol(SERVED.to_owned())),
                ask(MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned())),
            ];
            let mut client = ServerReflectionClient::new(channel);
            let answers = client.server_reflection_info(tokio_stream::iter(requests)).await.unwrap();
            let mut answers = answers.into_inner();
            let first = answers.message().await.unwrap().unwrap().message_response;
            let Some(MessageResponse::ListServicesResponse(list)) = first else { panic!("{first:?}") };
            let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
            names.sort();
            assert_eq!(names, WANT);
            for _ in 0..2 {
                let answer = answers.message().await.unwrap().unwrap().message_response;
                assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
            }
        }
    };
}

names_only_what_is_served!(reflection_v1_names_only_what_is_served, v1);
names_only_what_is_served!(reflection_v1alpha_names_only_what_is_served, v1alpha);

#[tokio::test]
async fn health_is_not_serving_until_it_is_set() {
    let (_served, channel, health) = served().await;
    let mut client = HealthClient::new(channel);
    for (name, serving) in [("", false), (SERVED, false), ("", true), (SERVED, true)] {
        health.set(serving).await;
        let answer = client.check(HealthCheckRequest { service: name.to_owned() }).await.unwrap();
        let want = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        assert_eq!(answer.into_inner().status(), want);
    }
    let status = client.check(HealthCheckRequest { service: "nope".into() }).await.unwrap_err();
    assert_eq!((status.code(), infos(&status)), (tonic::Code::NotFound, 1));
}
