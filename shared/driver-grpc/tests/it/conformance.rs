use std::sync::Arc;

use pavior_driver::conformance::run;
use pavior_driver::testing::FakeDriver;

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
