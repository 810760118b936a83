//! Requests that meet each other, and clients that go away.

use futures::FutureExt;
use futures::future::join_all;

use super::*;

#[tokio::test]
async fn patches_without_a_revision_that_meet_all_happen() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("x")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/x");
    let patches = (0..8).map(|n| cluster.merge(&path, json!({"data": {n.to_string(): "set"}})));
    for answer in join_all(patches).await {
        answer.expect(200);
    }
    let data = cluster.get(&path).await.expect(200)["data"].clone();
    assert_eq!(data.as_object().expect("a map").len(), 9, "{data}");
}

#[tokio::test]
async fn an_object_that_exists_already_can_be_read() {
    let cluster = Cluster::start().await;
    let create = async || {
        let answer = cluster.post(CONFIG_MAPS, config_map("x")).await;
        let found = cluster.get(&format!("{CONFIG_MAPS}/x")).await;
        (answer.code.as_u16(), found.code.as_u16())
    };
    let mut answers = join_all((0..4).map(|_| create())).await;
    answers.sort();
    assert_eq!(answers, [(201, 200), (409, 200), (409, 200), (409, 200)]);
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_free_the_address_of_its_service() {
    let cluster = Cluster::start().await;
    let spec = json!({"ports": [{"port": 80}]});
    // Polled once and dropped: the write is under way.
    let abandoned = cluster.post(SERVICES, service("one", spec.clone()));
    assert!(abandoned.now_or_never().is_none());
    let find = async || cluster.get(&format!("{SERVICES}/one")).await;
    let one = tokio::time::timeout(PATIENCE, async {
        loop {
            match find().await {
                found if found.code == StatusCode::OK => break found.body,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    let one = one.await.expect("the write goes on");
    let two = cluster
        .post(SERVICES, service("two", spec))
        .await
        .expect(201);
    assert_ne!(one["spec"]["clusterIP"], two["spec"]["clusterIP"]);
}
