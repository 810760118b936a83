//! Discovery and OpenAPI as clients ask for them.

use super::*;

#[tokio::test]
async fn groups_and_resources_are_discovered() {
    let cluster = Cluster::start().await;
    assert_eq!(
        cluster.get("/api").await.expect(200)["versions"],
        json!(["v1"])
    );
    let groups = cluster.get("/apis").await.expect(200);
    let names: Vec<_> = groups["groups"].as_array().into_iter().flatten().collect();
    assert!(names.iter().any(|group| group["name"] == "apps"));
    let core = cluster.get("/api/v1").await.expect(200);
    assert_eq!(core["kind"], "APIResourceList");
    cluster.get("/apis/apps").await.expect(200);
    cluster.get("/apis/nothing").await.expect(404);
    cluster.get("/apis/apps/v7").await.expect(404);
}

#[tokio::test]
async fn everything_is_discovered_in_one_document() {
    let cluster = Cluster::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
    let answer = cluster.get_as("/apis", accept).await;
    assert_eq!(answer.headers["content-type"], accept);
    let document = answer.expect(200);
    assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    let apps = document["items"].as_array().into_iter().flatten();
    let apps = apps
        .clone()
        .find(|item| item["metadata"]["name"] == "apps")
        .expect("apps");
    let resources = apps["versions"][0]["resources"]
        .as_array()
        .into_iter()
        .flatten();
    let deployments = resources
        .clone()
        .find(|r| r["resource"] == "deployments")
        .expect("listed");
    assert_eq!(deployments["scope"], "Namespaced");
    assert_eq!(
        deployments["subresources"][0]["responseKind"]["kind"],
        "Scale"
    );
}

#[tokio::test]
async fn openapi_is_indexed_by_its_hash_and_served_in_both_forms() {
    let cluster = Cluster::start().await;
    let index = cluster.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .expect("a URL");
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    let document = cluster.get(url).await.expect(200);
    assert_eq!(document["openapi"], "3.0.0");
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let protobuf = cluster.get_as("/openapi/v2", accept).await;
    assert_eq!(
        protobuf.headers["content-type"],
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    );
    assert_eq!(
        cluster.get("/openapi/v2").await.expect(200)["swagger"],
        "2.0"
    );
}

#[tokio::test]
async fn the_version_is_the_one_whose_api_is_served() {
    let version = Cluster::start().await.get("/version").await.expect(200);
    assert_eq!(
        (&version["major"], &version["minor"]),
        (&json!("1"), &json!("33"))
    );
    let commit = version["gitCommit"].as_str().expect("a text");
    assert!(commit.len() == 40 && commit.bytes().all(|digit| digit.is_ascii_hexdigit()));
}
