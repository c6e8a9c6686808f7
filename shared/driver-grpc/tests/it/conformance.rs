use std::sync::Arc;

use futures::TryStreamExt as _;
use pavior_core::digest::Digest;
use pavior_driver::conformance::{reads_artifact, run};
use pavior_driver::testing::FakeDriver;
use pavior_driver::{Driver as _, FailureCode, MAX_PIECE, ReadArtifactRequest};

use crate::harness::{over_tcp, remote, subject};

#[tokio::test]
async fn the_fake_driver_conforms_in_the_process() {
    let driver = FakeDriver::new("fake", &["thing"]);
    run(&subject(Arc::new(driver.clone()))).await.assert();
    assert!(driver.live().is_empty());
}

#[tokio::test]
async fn the_fake_driver_conforms_behind_grpc() {
    let driver = FakeDriver::new("fake", &["thing"]);
    run(&subject(Arc::new(remote(driver.clone()).await))).await.assert();
    assert!(driver.live().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_driver_conforms_over_tcp() {
    let driver = FakeDriver::new("fake", &["thing"]);
    let (remote, _tcp) = over_tcp(driver.clone()).await;
    run(&subject(Arc::new(remote))).await.assert();
    assert!(driver.live().is_empty());
}

#[tokio::test]
async fn a_driver_behind_two_hops_conforms() {
    let driver = FakeDriver::new("fake", &["thing"]);
    let far = remote(remote(driver.clone()).await).await;
    run(&subject(Arc::new(far))).await.assert();
    assert!(driver.live().is_empty());
}

#[tokio::test]
async fn artifacts_are_read_in_pieces() {
    let driver = FakeDriver::new("fake", &["thing"]);
    let remote = remote(driver.clone()).await;
    for bytes in [Vec::new(), vec![1; MAX_PIECE], vec![2; 3 * MAX_PIECE + 1]] {
        let digest = driver.keep_artifact("acme", bytes);
        assert_eq!(reads_artifact(&remote, "acme", digest).await, Ok(()));
    }
}

#[tokio::test]
async fn an_artifact_that_is_damaged_or_not_there_is_refused() {
    let driver = FakeDriver::new("fake", &["thing"]);
    let remote = remote(driver.clone()).await;
    let digest = driver.keep_artifact("acme", "app");
    let request = ReadArtifactRequest { organization: "acme".to_owned(), digest };
    driver.damage_artifact("acme", digest);
    let content = remote.read_artifact(request.clone()).await.unwrap();
    let failure = content.pieces.try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(failure.code, FailureCode::Changed);
    assert_eq!(failure.details["expected"], digest.to_string());
    assert_eq!(failure.details["found"], Digest::of(b"damaged").to_string());
    let missing = ReadArtifactRequest { digest: Digest::of(b"other"), ..request };
    let failure = remote.read_artifact(missing).await.unwrap_err();
    assert_eq!(failure.code, FailureCode::NotFound);
    assert_eq!(failure.message, format!("artifact `{}` does not exist", Digest::of(b"other")));
}
