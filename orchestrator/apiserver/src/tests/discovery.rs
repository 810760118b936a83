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

/// Every resource and subresource of discovery, a line each, in the order in which clients meet them:
/// version, resource, kind, `-` for cluster-scoped ones, verbs, short names, categories.
#[tokio::test]
async fn discovery_is_the_golden_list_and_the_same_in_both_forms() {
    let cluster = Cluster::start().await;
    let mut plain = Vec::new();
    for version in group_versions(&cluster).await {
        let list = cluster.get(&version).await.expect(200);
        let version = list["groupVersion"].as_str().expect("a version").to_owned();
        for resource in list["resources"].as_array().into_iter().flatten() {
            plain.push(golden_line(&version, resource));
        }
    }
    let golden: Vec<&str> = GOLDEN.lines().filter(|it| !it.starts_with('#')).collect();
    let missing = golden
        .iter()
        .filter(|line| !plain.iter().any(|it| it == *line));
    let missing: Vec<_> = missing.collect();
    let more = plain.iter().filter(|line| !golden.contains(&line.as_str()));
    let more: Vec<_> = more.collect();
    assert!(
        missing.is_empty() && more.is_empty(),
        "missing: {missing:#?}\nnot in tests/discovery.txt: {more:#?}"
    );
    assert_eq!(plain, golden, "the order of discovery");
    let mut aggregated = Vec::new();
    for path in ["/api", "/apis"] {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let answer = cluster.get_as(path, accept).await;
        assert_eq!(answer.headers["content-type"], accept);
        aggregated.extend(aggregated_names(&answer.expect(200)));
    }
    let name = |line: &String| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let mut plain: Vec<String> = plain.iter().map(name).collect();
    plain.sort();
    aggregated.sort();
    assert_eq!(plain, aggregated);
}

const GOLDEN: &str = include_str!("discovery.txt");

/// The paths of all versions of all groups.
async fn group_versions(cluster: &Cluster) -> Vec<String> {
    let groups = cluster.get("/apis").await.expect(200);
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    let versions = groups
        .iter()
        .flat_map(|group| group["versions"].as_array().expect("a list"));
    let versions = versions.map(|it| format!("/apis/{}", it["groupVersion"].as_str().expect("it")));
    std::iter::once("/api/v1".to_owned())
        .chain(versions)
        .collect()
}

fn golden_line(version: &str, resource: &Value) -> String {
    let words = |field: &str, separator: &str| {
        let words = resource[field].as_array().into_iter().flatten();
        let words: Vec<&str> = words.filter_map(Value::as_str).collect();
        words.join(separator)
    };
    let text = |field: &str| resource[field].as_str().unwrap_or_default();
    let scope = if resource["namespaced"] == true {
        ""
    } else {
        " -"
    };
    let kind = match (text("group"), text("version")) {
        ("", "") => text("kind").to_owned(),
        (group, version) => format!("{group}/{version}/{}", text("kind")),
    };
    let verbs = match words("verbs", ",") {
        all if all == ALL_VERBS => "*".to_owned(),
        some => some,
    };
    let mut line = format!("{version} {} {kind}{scope} {verbs}", text("name"));
    for (sign, field) in [('~', "shortNames"), ('+', "categories")] {
        let words = words(field, ",");
        if !words.is_empty() {
            line.push_str(&format!(" {sign}{words}"));
        }
    }
    line
}

const ALL_VERBS: &str = "create,delete,deletecollection,get,list,patch,update,watch";

/// Version and resource of everything in an `APIGroupDiscoveryList`.
fn aggregated_names(list: &Value) -> Vec<String> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut names = Vec::new();
    for group in items(&list["items"]) {
        for version in items(&group["versions"]) {
            let name = version["version"].as_str().expect("a version");
            let head = match group["metadata"]["name"].as_str().unwrap_or_default() {
                "" => name.to_owned(),
                group => format!("{group}/{name}"),
            };
            for resource in items(&version["resources"]) {
                let plural = resource["resource"].as_str().expect("a resource");
                // A resource that is there for its subresources alone has no verbs.
                if !items(&resource["verbs"]).is_empty() {
                    names.push(format!("{head} {plural}"));
                }
                for sub in items(&resource["subresources"]) {
                    let sub = sub["subresource"].as_str().expect("a name");
                    names.push(format!("{head} {plural}/{sub}"));
                }
            }
        }
    }
    names
}
