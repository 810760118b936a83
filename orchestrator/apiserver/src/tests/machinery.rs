//! What every client may ask of every kind: forms of answers, options, preconditions.

use std::io::Read;

use flate2::read::GzDecoder;

use super::*;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The bytes of an answer, and its headers.
async fn raw(
    cluster: &Cluster,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, HeaderMap, Vec<u8>) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = cluster
        .send(request.body(Body::empty()).expect("a request"))
        .await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (parts.status.as_u16(), parts.headers, bytes.to_vec())
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn objects_lists_and_errors_come_in_protobuf_where_it_is_asked_for() {
    let cluster = Cluster::start().await;
    let made = cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let accept = [(
        "accept",
        "application/vnd.kubernetes.protobuf,application/json",
    )];
    let one = format!("{CONFIG_MAPS}/a");
    let (code, headers, body) = raw(&cluster, "GET", &one, &accept).await;
    assert_eq!(
        (code, &headers["content-type"]),
        (200, &PROTOBUF.parse().expect("a type"))
    );
    let kind = api::find("", "v1", "configmaps").expect("served");
    let decoded = kind.decode(&body, api::Format::Protobuf, api::FieldValidation::Strict);
    let mut decoded = decoded.expect("an object").object;
    // The set of a manager's fields is the same in another order.
    let fields = |object: &mut Value| object["metadata"]["managedFields"].take();
    let mut made = made;
    assert_eq!(
        fields(&mut decoded)[0]["manager"],
        fields(&mut made)[0]["manager"]
    );
    assert_eq!(decoded, made);
    let (code, _, body) = raw(&cluster, "GET", CONFIG_MAPS, &accept).await;
    assert_eq!(code, 200);
    assert!(body.starts_with(b"k8s\0") && holds(&body, "ConfigMapList"));
    let (code, headers, body) = raw(&cluster, "GET", &format!("{CONFIG_MAPS}/b"), &accept).await;
    assert_eq!(
        (code, &headers["content-type"]),
        (404, &PROTOBUF.parse().expect("a type"))
    );
    assert!(body.starts_with(b"k8s\0") && holds(&body, "configmaps \"b\" not found"));
    let (code, _, body) = raw(&cluster, "DELETE", &one, &accept).await;
    assert_eq!(code, 200);
    assert!(holds(&body, "Status") && holds(&body, "Success"));
}

#[tokio::test]
async fn metadata_of_any_kind_has_a_form_in_protobuf_and_a_table_has_none() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let metadata = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let (code, _, body) = raw(&cluster, "GET", CONFIG_MAPS, &[("accept", &metadata)]).await;
    assert_eq!(code, 200);
    assert!(holds(&body, "PartialObjectMetadataList") && holds(&body, "meta.k8s.io/v1"));
    let table = format!(
        "{PROTOBUF};as=Table;g=meta.k8s.io;v=v1,application/json;as=Table;g=meta.k8s.io;v=v1"
    );
    let (code, headers, _) = raw(&cluster, "GET", CONFIG_MAPS, &[("accept", &table)]).await;
    assert_eq!(
        (code, &headers["content-type"]),
        (200, &"application/json".parse().expect("a type"))
    );
    let only = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1");
    let (code, ..) = raw(&cluster, "GET", CONFIG_MAPS, &[("accept", &only)]).await;
    assert_eq!(code, 406);
}

#[tokio::test]
async fn a_watch_in_protobuf_is_frames_with_their_length() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let path = format!(
        "{CONFIG_MAPS}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true\
         &sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    );
    let (code, headers, body) = raw(&cluster, "GET", &path, &[("accept", PROTOBUF)]).await;
    assert_eq!(code, 200);
    assert_eq!(
        headers["content-type"],
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    let mut frames = Vec::new();
    let mut rest = &body[..];
    while let Some((length, after)) = rest.split_at_checked(4) {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        let (frame, after) = after.split_at(length as usize);
        frames.push(frame);
        rest = after;
    }
    assert!(rest.is_empty());
    assert!(
        holds(frames[0], "ADDED") && holds(frames[0], "k8s\0") && holds(frames[0], "ConfigMap")
    );
    assert!(holds(frames[1], "BOOKMARK") && holds(frames[1], "k8s.io/initial-events-end"));
}

#[tokio::test]
async fn a_scale_a_review_and_an_old_version_come_in_protobuf_too() {
    let cluster = Cluster::start().await;
    let path = "/apis/apps/v1beta2/namespaces/default/deployments";
    let web = json!({"apiVersion": "apps/v1beta2", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}});
    cluster.post(path, web).await.expect(201);
    for (path, kind) in [
        (format!("{path}/web"), "apps/v1beta2"),
        (format!("{path}/web/scale"), "autoscaling/v1"),
        ("/apis/events.k8s.io/v1/events".to_owned(), "EventList"),
        (
            "/api/v1/componentstatuses".to_owned(),
            "ComponentStatusList",
        ),
    ] {
        let (code, _, body) = raw(&cluster, "GET", &path, &[("accept", PROTOBUF)]).await;
        assert_eq!(code, 200, "{path}");
        assert!(body.starts_with(b"k8s\0") && holds(&body, kind), "{path}");
    }
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_takes_it() {
    let cluster = Cluster::start().await;
    for n in 0..4 {
        let mut map = config_map(&format!("a{n}"));
        map["data"]["text"] = "x".repeat(100_000).into();
        cluster.post(CONFIG_MAPS, map).await.expect(201);
    }
    let gzip = [("accept-encoding", "gzip")];
    let (_, headers, body) = raw(&cluster, "GET", CONFIG_MAPS, &gzip).await;
    assert_eq!(headers["content-encoding"], "gzip");
    let mut plain = String::new();
    GzDecoder::new(&body[..])
        .read_to_string(&mut plain)
        .expect("gzip");
    let list: Value = serde_json::from_str(&plain).expect("JSON");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(4));
    let (_, headers, _) = raw(&cluster, "GET", &format!("{CONFIG_MAPS}/a1"), &gzip).await;
    assert!(!headers.contains_key("content-encoding"));
    let (_, headers, _) = raw(&cluster, "GET", CONFIG_MAPS, &[]).await;
    assert!(!headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn discovery_in_one_document_is_told_once() {
    let cluster = Cluster::start().await;
    for version in ["v2", "v2beta1"] {
        let accept =
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        for path in ["/api", "/apis"] {
            let (code, headers, _) = raw(&cluster, "GET", path, &[("accept", &accept)]).await;
            assert_eq!(
                (code, headers["content-type"].to_str().expect("text")),
                (200, &*accept)
            );
            let tag = headers["etag"].to_str().expect("text").to_owned();
            let again = [("accept", &*accept), ("if-none-match", &*tag)];
            let (code, headers, body) = raw(&cluster, "GET", path, &again).await;
            assert_eq!(
                (code, headers["etag"].to_str().expect("text"), body.len()),
                (304, &*tag, 0)
            );
            let other = [("accept", &*accept), ("if-none-match", "\"other\"")];
            assert_eq!(raw(&cluster, "GET", path, &other).await.0, 200);
        }
    }
}

#[tokio::test]
async fn options_are_refused_with_their_own_kind() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let refused = cluster
        .get(&format!("{CONFIG_MAPS}?resourceVersionMatch=Exact"))
        .await;
    assert_eq!(
        refused.message(),
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
         resourceVersionMatch is forbidden unless resourceVersion is provided"
    );
    refused.expect(422);
    let one = format!("{CONFIG_MAPS}/a");
    cluster
        .delete(&format!("{one}?dryRun=Some"))
        .await
        .expect(422);
    cluster
        .delete(&format!("{one}?propagationPolicy=Odd"))
        .await
        .expect(422);
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Odd"});
    cluster
        .call("DELETE", &one, "application/json", &body)
        .await
        .expect(422);
    cluster
        .merge(&format!("{one}?force=true"), json!({}))
        .await
        .expect(422);
    cluster.get(&one).await.expect(200);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_whatever_the_verb() {
    let cluster = Cluster::start().await;
    let (one, dry) = (format!("{CONFIG_MAPS}/a"), "?dryRun=All");
    let shown = cluster
        .post(&format!("{CONFIG_MAPS}{dry}"), config_map("a"))
        .await
        .expect(201);
    assert!(shown["metadata"]["uid"].is_string());
    cluster.get(&one).await.expect(404);
    let made = cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let mut changed = made.clone();
    changed["data"]["a"] = "c".into();
    let put = cluster
        .put(&format!("{one}{dry}"), changed)
        .await
        .expect(200);
    assert_eq!(put["data"]["a"], "c");
    let patched = cluster
        .merge(&format!("{one}{dry}"), json!({"data": {"a": "d"}}))
        .await;
    assert_eq!(patched.expect(200)["data"]["a"], "d");
    let apply = format!("{one}{dry}&fieldManager=me&force=true");
    let kind = "application/apply-patch+yaml";
    cluster
        .call("PATCH", &apply, kind, &config_map("a"))
        .await
        .expect(200);
    cluster.delete(&format!("{one}{dry}")).await.expect(200);
    cluster
        .delete(&format!("{CONFIG_MAPS}{dry}"))
        .await
        .expect(200);
    assert_eq!(cluster.get(&one).await.expect(200), made);
    cluster.post(PODS, pod("p")).await.expect(201);
    let nothing = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n"}});
    cluster
        .post(&format!("{PODS}/p/binding{dry}"), nothing)
        .await
        .expect(201);
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    cluster
        .post(&format!("{PODS}/p/eviction{dry}"), eviction)
        .await
        .expect(201);
    let left = cluster.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(left["spec"].get("nodeName"), None);
    assert_eq!(left["metadata"].get("deletionTimestamp"), None);
}

#[tokio::test]
async fn unknown_fields_of_every_kind_are_refused_told_or_ignored() {
    let cluster = Cluster::start().await;
    let snapshot = cluster.server.state.registry.snapshot();
    for served in snapshot
        .versions()
        .iter()
        .flat_map(|version| &version.served)
    {
        let kind = &served.resource;
        if !kind.verbs.contains(&"create") {
            continue;
        }
        let root = match &*kind.group {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/{}", kind.version),
        };
        let path = match kind.namespaced() {
            true => format!("{root}/namespaces/default/{}", kind.plural),
            false => format!("{root}/{}", kind.plural),
        };
        let body = format!(
            "apiVersion: {}\nkind: {}\nmetadata: {{name: x}}\nodd: 1\nodd: 2\n",
            kind.api_version(),
            kind.kind
        );
        let strict = format!("{path}?dryRun=All&fieldValidation=Strict");
        let answer = cluster
            .call("POST", &strict, "application/yaml", &body.clone().into())
            .await;
        assert!(
            answer.code == 400
                && answer
                    .message()
                    .contains("strict decoding error: unknown field \"odd\""),
            "{path}: {}",
            answer.body
        );
        for (mode, warned) in [("Warn", true), ("Ignore", false)] {
            let loose = format!("{path}?dryRun=All&fieldValidation={mode}");
            let answer = cluster
                .call("POST", &loose, "application/yaml", &body.clone().into())
                .await;
            // What else is wrong with an empty object is said, but not of this field.
            assert!(!answer.message().contains("odd"), "{path}: {}", answer.body);
            let warnings = answer.headers.get_all("warning").iter();
            let said = warnings
                .filter_map(|w| w.to_str().ok())
                .any(|w| w.contains("unknown field"));
            if answer.code.is_success() {
                assert_eq!(said, warned, "{path} {mode}");
            }
        }
    }
}

#[tokio::test]
async fn a_list_of_a_revision_that_is_gone_is_410() {
    let cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    cluster
        .server
        .state
        .objects
        .store
        .compact(2)
        .await
        .expect("compacted");
    let exact = format!("{CONFIG_MAPS}?resourceVersion=1&resourceVersionMatch=Exact");
    let gone = cluster.get(&exact).await;
    assert_eq!(gone.code.as_u16(), 410, "{}", gone.body);
    assert_eq!(gone.body["reason"], "Expired");
}

#[tokio::test]
async fn a_deletion_holds_to_the_object_that_its_preconditions_name() {
    let cluster = Cluster::start().await;
    let made = cluster.post(CONFIG_MAPS, config_map("a")).await.expect(201);
    let one = format!("{CONFIG_MAPS}/a");
    let delete = |preconditions: Value| {
        let body =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions});
        let (cluster, one) = (&cluster, &one);
        async move { cluster.call("DELETE", one, "application/json", &body).await }
    };
    delete(json!({"uid": "other"})).await.expect(409);
    delete(json!({"resourceVersion": "1"})).await.expect(409);
    let both = json!({"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]});
    delete(both).await.expect(200);
}

#[tokio::test]
async fn an_eviction_may_be_written_in_its_old_version() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("p")).await.expect(201);
    let evict = |version: &str| {
        let body = json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "p"}});
        let cluster = &cluster;
        async move { cluster.post(&format!("{PODS}/p/eviction"), body).await }
    };
    evict("policy/v9").await.expect(400);
    evict("policy/v1beta1").await.expect(201);
    cluster.get(&format!("{PODS}/p")).await.expect(404);
}
