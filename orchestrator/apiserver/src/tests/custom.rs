//! Custom kinds over HTTP: from the definition to the last object.

use super::remote::{Remote, reply};
use super::watches::Watcher;
use super::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub const WEBS: &str = "/apis/example.com/v1/namespaces/default/webs";

pub fn version(name: &str, properties: Value) -> Value {
    json!({"name": name, "served": true, "storage": name == "v1",
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
}

pub fn spec_of(properties: Value) -> Value {
    json!({"spec": {"type": "object", "properties": properties}})
}

pub fn definition(versions: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "webs.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "versions": versions,
            "names": {"plural": "webs", "singular": "web", "kind": "Web", "shortNames": ["w"],
                "categories": ["all"]}}})
}

pub fn web(version: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Web",
        "metadata": {"name": name}, "spec": spec})
}

/// Makes a definition and waits until it is established.
pub async fn establish(cluster: &Cluster, definition: Value) -> Value {
    let made = cluster.post(DEFINITIONS, definition).await.expect(201);
    condition(
        cluster,
        made["metadata"]["name"].as_str().expect("a name"),
        "Established",
        "True",
    )
    .await
}

/// Waits for a condition of a definition.
async fn condition(cluster: &Cluster, name: &str, kind: &str, status: &str) -> Value {
    let path = format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}");
    let mut watch = Watcher::open(cluster, &path, "*/*").await;
    loop {
        let event = watch.next().await.expect("an event");
        let conditions = event["object"]["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        if conditions.any(|c| c["type"] == kind && c["status"] == status) {
            return event["object"].clone();
        }
    }
}

/// Waits for an answer: what a kind is served with changes a moment after its definition does.
async fn until(cluster: &Cluster, path: &str, is_it: impl Fn(&Answer) -> bool) -> Value {
    let waiting = async {
        loop {
            let answer = cluster.get(path).await;
            if is_it(&answer) {
                return answer.body;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("in time")
}

#[tokio::test]
async fn an_established_kind_is_discovered() {
    let cluster = Cluster::start().await;
    cluster.get(WEBS).await.expect(404);
    let made = establish(&cluster, definition(json!([version("v1", json!({}))]))).await;
    assert_eq!(made["status"]["acceptedNames"], made["spec"]["names"]);
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    let resources = cluster.get("/apis/example.com/v1").await.expect(200);
    let web = &resources["resources"][0];
    assert_eq!(
        (&web["name"], &web["kind"]),
        (&json!("webs"), &json!("Web"))
    );
    assert_eq!(
        (&web["shortNames"], &web["categories"]),
        (&json!(["w"]), &json!(["all"]))
    );
    let groups = cluster.get("/apis").await.expect(200);
    let groups: Vec<_> = groups["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    assert!(groups.iter().any(|group| group["name"] == "example.com"));
}

#[tokio::test]
async fn custom_objects_are_read_watched_changed_and_deleted() {
    let cluster = Cluster::start().await;
    let properties = spec_of(json!({"host": {"type": "string", "maxLength": 5},
        "port": {"type": "integer", "default": 80}}));
    establish(&cluster, definition(json!([version("v1", properties)]))).await;
    let mut watch = Watcher::open(&cluster, &format!("{WEBS}?watch=1"), "*/*").await;
    let made = cluster
        .post(WEBS, web("v1", "a", json!({"host": "h", "x": 1})))
        .await;
    assert_eq!(
        made.headers["warning"],
        "299 - \"unknown field \\\"spec.x\\\"\""
    );
    let made = made.expect(201);
    assert_eq!(made["spec"], json!({"host": "h", "port": 80}));
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(watch.next().await.expect("an event")["object"], made);
    assert_eq!(cluster.get(&format!("{WEBS}/a")).await.expect(200), made);
    let list = cluster.get("/apis/example.com/v1/webs").await.expect(200);
    assert_eq!(
        (&list["kind"], &list["items"][0]),
        (&json!("WebList"), &made)
    );
    let patched = cluster
        .merge(&format!("{WEBS}/a"), json!({"spec": {"port": 81}}))
        .await;
    let patched = patched.expect(200);
    assert_eq!(
        (&patched["spec"]["port"], &patched["metadata"]["generation"]),
        (&json!(81), &json!(2))
    );
    let refused = cluster
        .merge(&format!("{WEBS}/a"), json!({"spec": {"host": "too long"}}))
        .await;
    assert!(
        refused.message().contains("spec.host: Too long"),
        "{refused:?}"
    );
    refused.expect(422);
    let strict = format!("{WEBS}?fieldValidation=Strict");
    let unknown = web("v1", "b", json!({"x": 1}));
    cluster.post(&strict, unknown).await.expect(400);
    let strategic = "application/strategic-merge-patch+json";
    cluster
        .call("PATCH", &format!("{WEBS}/a"), strategic, &json!({}))
        .await
        .expect(415);
    let protobuf = "application/vnd.kubernetes.protobuf";
    cluster
        .call("POST", WEBS, protobuf, &json!({}))
        .await
        .expect(415);
    let deleted = cluster.delete(&format!("{WEBS}/a")).await.expect(200);
    assert_eq!(deleted["status"], "Success");
    cluster.get(&format!("{WEBS}/a")).await.expect(404);
}

#[tokio::test]
async fn a_custom_object_is_applied() {
    let cluster = Cluster::start().await;
    let properties = spec_of(
        json!({"ports": {"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object", "required": ["name"],
            "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}}}),
    );
    establish(&cluster, definition(json!([version("v1", properties)]))).await;
    let apply = async |manager: &str, spec: Value| {
        let path = format!("{WEBS}/a?fieldManager={manager}");
        let body = web("v1", "a", spec);
        cluster
            .call("PATCH", &path, "application/apply-patch+yaml", &body)
            .await
    };
    let port = |name: &str, port: u16| json!({"ports": [{"name": name, "port": port}]});
    apply("one", port("http", 80)).await.expect(201);
    let both = apply("two", port("https", 443)).await.expect(200);
    let ports = both["spec"]["ports"].as_array().map(Vec::len);
    assert_eq!(ports, Some(2));
    let refused = apply("two", port("http", 81)).await;
    assert!(
        refused.message().contains("conflict with \"one\""),
        "{refused:?}"
    );
    refused.expect(409);
}

#[tokio::test]
async fn status_and_scale_are_parts_of_their_own() {
    let cluster = Cluster::start().await;
    let mut properties = spec_of(json!({"replicas": {"type": "integer"}}));
    properties["status"] = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"}, "selector": {"type": "string"}}});
    let mut v1 = version("v1", properties);
    v1["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}});
    establish(&cluster, definition(json!([v1]))).await;
    let resources = cluster.get("/apis/example.com/v1").await.expect(200);
    let names: Vec<_> = resources["resources"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(
        (&names[1]["name"], &names[2]["name"]),
        (&json!("webs/status"), &json!("webs/scale"))
    );
    assert_eq!(names[2]["kind"], "Scale");
    let mut object = web("v1", "a", json!({"replicas": 3}));
    object["status"] = json!({"replicas": 9});
    let made = cluster.post(WEBS, object).await.expect(201);
    assert_eq!(made.get("status"), None);
    let status = format!("{WEBS}/a/status");
    let patch = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"replicas": 7},
        "status": {"replicas": 2, "selector": "app=a"}});
    let written = cluster.merge(&status, patch).await.expect(200);
    assert_eq!(written["status"]["replicas"], 2);
    assert_eq!(
        (
            &written["spec"]["replicas"],
            written["metadata"].get("labels")
        ),
        (&json!(3), None)
    );
    let scale = cluster.get(&format!("{WEBS}/a/scale")).await.expect(200);
    assert_eq!(scale["spec"], json!({"replicas": 3}));
    assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=a"}));
    let patch = json!({"spec": {"replicas": 5}});
    cluster
        .merge(&format!("{WEBS}/a/scale"), patch)
        .await
        .expect(200);
    let object = cluster.get(&format!("{WEBS}/a")).await.expect(200);
    assert_eq!(
        (
            &object["spec"]["replicas"],
            &object["metadata"]["generation"]
        ),
        (&json!(5), &json!(2))
    );
}

#[tokio::test]
async fn every_version_shows_every_object() {
    let cluster = Cluster::start().await;
    let v1 = version("v1", spec_of(json!({"a": {"type": "string"}})));
    let v2 = version(
        "v2",
        spec_of(json!({"a": {"type": "string"},
        "b": {"type": "string", "default": "B"}})),
    );
    establish(&cluster, definition(json!([v1, v2]))).await;
    let group = cluster.get("/apis/example.com").await.expect(200);
    assert_eq!(group["preferredVersion"]["version"], "v2");
    cluster
        .post(WEBS, web("v1", "a", json!({"a": "x"})))
        .await
        .expect(201);
    let v2 = WEBS.replace("/v1/", "/v2/");
    let shown = cluster.get(&format!("{v2}/a")).await.expect(200);
    assert_eq!(shown["apiVersion"], "example.com/v2");
    assert_eq!(shown["spec"], json!({"a": "x", "b": "B"}));
    let put = cluster.put(&format!("{v2}/a"), shown).await.expect(200);
    assert_eq!(put["apiVersion"], "example.com/v2");
    let list = cluster.get(&v2).await.expect(200);
    assert_eq!(list["items"][0]["spec"]["b"], "B");

    // From now on objects are stored in the other version; those that are there can be changed.
    let path = format!("{DEFINITIONS}/webs.example.com");
    let patch = json!([{"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true}]);
    let changed = cluster
        .call("PATCH", &path, "application/json-patch+json", &patch)
        .await;
    assert_eq!(
        changed.expect(200)["status"]["storedVersions"],
        json!(["v1", "v2"])
    );
    let old = cluster.get(&format!("{WEBS}/a")).await.expect(200);
    assert_eq!(old["apiVersion"], "example.com/v1");
    let patched = cluster
        .merge(&format!("{WEBS}/a"), json!({"spec": {"a": "y"}}))
        .await
        .expect(200);
    assert_eq!(
        (&patched["apiVersion"], &patched["spec"]["a"]),
        (&json!("example.com/v1"), &json!("y"))
    );
    let new = cluster.get(&format!("{v2}/a")).await.expect(200);
    assert_eq!(new["spec"]["a"], "y");
    let gone = json!([{"op": "remove", "path": "/spec/versions/0"}]);
    let refused = cluster
        .call("PATCH", &path, "application/json-patch+json", &gone)
        .await;
    assert!(
        refused.message().contains("status.storedVersions[0]"),
        "{refused:?}"
    );
    let unserved = json!([{"op": "replace", "path": "/spec/versions/0/served", "value": false}]);
    cluster
        .call("PATCH", &path, "application/json-patch+json", &unserved)
        .await
        .expect(200);
    until(&cluster, WEBS, |answer| answer.code == 404).await;
    cluster.get(&v2).await.expect(200);
}

#[tokio::test]
async fn defaults_show_on_objects_that_were_stored_before_them() {
    let cluster = Cluster::start().await;
    let properties = json!({"a": {"type": "string"}, "b": {"type": "string"}});
    establish(&cluster, definition(json!([version("v1", properties)]))).await;
    cluster
        .post(
            WEBS,
            json!({"apiVersion": "example.com/v1", "kind": "Web",
        "metadata": {"name": "one"}}),
        )
        .await
        .expect(201);
    let path = format!("{DEFINITIONS}/webs.example.com");
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties";
    let patch = json!([{"op": "add", "path": format!("{at}/a/default"), "value": "A"}]);
    cluster
        .call("PATCH", &path, "application/json-patch+json", &patch)
        .await
        .expect(200);
    let one = format!("{WEBS}/one");
    until(&cluster, &one, |answer| answer.body["a"] == "A").await;
    let two = cluster
        .post(
            WEBS,
            json!({"apiVersion": "example.com/v1", "kind": "Web",
        "metadata": {"name": "two"}}),
        )
        .await
        .expect(201);
    assert_eq!(two["a"], "A");
    let patch = json!([{"op": "remove", "path": format!("{at}/a/default")},
        {"op": "add", "path": format!("{at}/b/default"), "value": "B"}]);
    cluster
        .call("PATCH", &path, "application/json-patch+json", &patch)
        .await
        .expect(200);
    let one = until(&cluster, &one, |answer| answer.body["b"] == "B").await;
    assert_eq!(one.get("a"), None);
    let two = cluster.get(&format!("{WEBS}/two")).await.expect(200);
    assert_eq!((&two["a"], &two["b"]), (&json!("A"), &json!("B")));
}

#[tokio::test]
async fn columns_and_selectable_fields_are_those_of_the_definition() {
    let cluster = Cluster::start().await;
    let mut v1 = version(
        "v1",
        spec_of(json!({"color": {"type": "string"},
        "inner": {"type": "object", "properties": {"n": {"type": "integer"}}}})),
    );
    v1["additionalPrinterColumns"] = json!([
        {"name": "Color", "type": "string", "jsonPath": ".spec.color", "description": "Its color"},
        {"name": "N", "type": "integer", "jsonPath": ".spec.inner.n", "priority": 1}]);
    v1["selectableFields"] = json!([{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.inner.n"}]);
    establish(&cluster, definition(json!([v1]))).await;
    let spec = |color: &str, n: u8| json!({"color": color, "inner": {"n": n}});
    cluster
        .post(WEBS, web("v1", "a", spec("red", 1)))
        .await
        .expect(201);
    cluster
        .post(WEBS, web("v1", "b", spec("blue", 2)))
        .await
        .expect(201);
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = cluster.get_as(WEBS, table).await.expect(200);
    let columns = table["columnDefinitions"].as_array().expect("columns");
    let names: Vec<_> = columns
        .iter()
        .map(|c| (&c["name"], &c["priority"]))
        .collect();
    assert_eq!(
        names[1..],
        [(&json!("Color"), &json!(0)), (&json!("N"), &json!(1))]
    );
    assert_eq!(table["rows"][0]["cells"], json!(["a", "red", 1]));
    for (selector, expected) in [("spec.color%3Dblue", "b"), ("spec.inner.n%3D1", "a")] {
        let list = cluster
            .get(&format!("{WEBS}?fieldSelector={selector}"))
            .await
            .expect(200);
        assert_eq!(
            list["items"].as_array().map(Vec::len),
            Some(1),
            "{selector}"
        );
        assert_eq!(list["items"][0]["metadata"]["name"], expected);
    }
    cluster
        .get(&format!("{WEBS}?fieldSelector=spec.x%3D1"))
        .await
        .expect(400);
}

#[tokio::test]
async fn a_name_in_use_is_refused_until_it_is_free() {
    let cluster = Cluster::start().await;
    establish(&cluster, definition(json!([version("v1", json!({}))]))).await;
    let mut other = definition(json!([version("v1", json!({}))]));
    other["metadata"]["name"] = "sites.example.com".into();
    other["spec"]["names"] = json!({"plural": "sites", "singular": "site", "kind": "Web",
        "listKind": "SiteList", "shortNames": ["s"]});
    cluster.post(DEFINITIONS, other).await.expect(201);
    let refused = condition(&cluster, "sites.example.com", "NamesAccepted", "False").await;
    let conditions = refused["status"]["conditions"]
        .as_array()
        .expect("conditions");
    assert_eq!(conditions[0]["reason"], "KindConflict");
    assert_eq!(conditions[0]["message"], "\"Web\" is already in use");
    cluster.get("/apis/example.com/v1/sites").await.expect(404);
    cluster
        .delete(&format!("{DEFINITIONS}/webs.example.com"))
        .await
        .expect(200);
    condition(&cluster, "sites.example.com", "Established", "True").await;
    cluster.get("/apis/example.com/v1/sites").await.expect(200);
}

#[tokio::test]
async fn a_definition_goes_after_its_objects_and_watches_see_them_go() {
    let cluster = Cluster::start().await;
    establish(&cluster, definition(json!([version("v1", json!({}))]))).await;
    let mut kept = web("v1", "kept", json!({}));
    kept["metadata"]["finalizers"] = json!(["example.com/mine"]);
    cluster.post(WEBS, kept).await.expect(201);
    cluster
        .post(WEBS, web("v1", "free", json!({})))
        .await
        .expect(201);
    let mut watch = Watcher::open(&cluster, &format!("{WEBS}?watch=1"), "*/*").await;
    for _ in 0..2 {
        assert_eq!(watch.next().await.expect("an event")["type"], "ADDED");
    }
    let path = format!("{DEFINITIONS}/webs.example.com");
    let going = cluster.delete(&path).await.expect(200);
    assert_eq!(
        going["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    let mut told = Vec::new();
    while told.len() < 2 {
        let event = watch.next().await.expect("an event");
        told.push(format!(
            "{} {}",
            event["type"], event["object"]["metadata"]["name"]
        ));
    }
    told.sort();
    assert_eq!(told, ["\"DELETED\" \"free\"", "\"MODIFIED\" \"kept\""]);
    cluster
        .post(WEBS, web("v1", "new", json!({})))
        .await
        .expect(405);
    let held = cluster.get(&path).await.expect(200);
    let conditions = held["status"]["conditions"].as_array().expect("conditions");
    let terminating = conditions
        .iter()
        .find(|c| c["type"] == "Terminating")
        .expect("one");
    assert_eq!(terminating["reason"], "InstanceDeletionInProgress");
    let patch = json!({"metadata": {"finalizers": null}});
    cluster
        .merge(&format!("{WEBS}/kept"), patch)
        .await
        .expect(200);
    assert_eq!(watch.next().await.expect("an event")["type"], "DELETED");
    until(&cluster, &path, |answer| answer.code == 404).await;
    assert_eq!(watch.next().await, None);
    until(&cluster, WEBS, |answer| answer.code == 404).await;
    until(&cluster, "/apis/example.com", |answer| answer.code == 404).await;
}

#[tokio::test]
async fn openapi_follows_the_definitions() {
    let cluster = Cluster::start().await;
    let before = cluster.get("/openapi/v2").await;
    let mut v1 = version("v1", spec_of(json!({"host": {"type": "string"}})));
    v1["schema"]["openAPIV3Schema"]["description"] = "A web".into();
    establish(&cluster, definition(json!([v1]))).await;
    let after = cluster.get("/openapi/v2").await;
    assert_ne!(before.headers["etag"], after.headers["etag"]);
    let after = after.expect(200);
    let web = &after["definitions"]["com.example.v1.Web"];
    assert_eq!(web["description"], "A web");
    assert_eq!(
        web["properties"]["spec"]["properties"]["host"],
        json!({"type": "string"})
    );
    assert_eq!(
        web["x-kubernetes-group-version-kind"],
        json!([{"group": "example.com", "version": "v1", "kind": "Web"}])
    );
    assert!(web["properties"]["metadata"]["$ref"].is_string());
    assert!(
        after["paths"]
            .get("/apis/example.com/v1/namespaces/{namespace}/webs")
            .is_some()
    );
    let index = cluster.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"]
        .as_str()
        .expect("a URL");
    let v3 = cluster.get(url).await.expect(200);
    let patch = &v3["paths"]["/apis/example.com/v1/namespaces/{namespace}/webs/{name}"]["patch"];
    let types = patch["requestBody"]["content"].as_object();
    let types = types.expect("types of patch");
    assert!(types.contains_key("application/merge-patch+json"));
    // kubectl 1.27 and newer send what stands here.
    assert!(!types.contains_key("application/strategic-merge-patch+json"));
    let list = &v3["components"]["schemas"]["com.example.v1.WebList"];
    assert_eq!(
        list["properties"]["items"]["items"]["$ref"],
        "#/components/schemas/com.example.v1.Web"
    );
    cluster
        .delete(&format!("{DEFINITIONS}/webs.example.com"))
        .await
        .expect(200);
    until(&cluster, "/openapi/v3/apis/example.com/v1", |answer| {
        answer.code == 404
    })
    .await;
    let gone = cluster.get("/openapi/v2").await;
    assert_eq!(gone.headers["etag"], before.headers["etag"]);
}

#[tokio::test]
async fn a_server_that_starts_again_serves_what_was_defined() {
    let store = Arc::new(MemoryStore::default());
    let server = async || {
        let tasks = Tasks::new(Shutdown::new());
        let server = ApiServer::build(ServerConfig::default(), store.clone(), None, tasks).await;
        Cluster {
            server: server.expect("a server"),
            user: User::internal("test"),
        }
    };
    let first = server().await;
    establish(&first, definition(json!([version("v1", json!({}))]))).await;
    first
        .post(WEBS, web("v1", "a", json!({})))
        .await
        .expect(201);
    let second = server().await;
    second.get(&format!("{WEBS}/a")).await.expect(200);
}

/// A conversion webhook: `spec.host` of v1 is `spec.url` of v2. It says no to objects called "broken".
pub async fn converter() -> Remote {
    Remote::start(&["localhost"], async |request| {
        let review: Value = serde_json::from_slice(request.body()).expect("JSON");
        let desired = review["request"]["desiredAPIVersion"].clone();
        let objects = review["request"]["objects"].as_array().expect("objects");
        let is_broken = |object: &Value| object["metadata"]["name"] == "broken";
        let result = match objects.iter().any(is_broken) {
            true => json!({"status": "Failed", "message": "it is broken"}),
            false => json!({"status": "Success"}),
        };
        let converted = objects.iter().map(|object| {
            let mut object = object.clone();
            let (from, to) = match desired == "example.com/v2" {
                true => ("host", "url"),
                false => ("url", "host"),
            };
            object["apiVersion"] = desired.clone();
            object["spec"][to] = object["spec"][from].take();
            object["metadata"]["labels"] = json!({"converted": "yes"});
            object
        });
        let response = json!({"uid": review["request"]["uid"], "result": result,
            "convertedObjects": converted.collect::<Vec<_>>()});
        let answer = json!({"apiVersion": review["apiVersion"], "kind": review["kind"],
            "response": response});
        reply(200, answer.to_string())
    })
    .await
}

/// v1, which is stored, and v2, with that webhook between them.
pub async fn with_a_converter(cluster: &Cluster, remote: &Remote) {
    let text = json!({"type": "string"});
    let mut v1 = version("v1", spec_of(json!({"host": text})));
    let mut v2 = version("v2", spec_of(json!({"url": text})));
    v1["selectableFields"] = json!([{"jsonPath": ".spec.host"}]);
    v2["selectableFields"] = json!([{"jsonPath": ".spec.url"}]);
    let mut definition = definition(json!([v1, v2]));
    definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "clientConfig": remote.by_url("/convert"), "conversionReviewVersions": ["v1"]}});
    establish(cluster, definition).await;
}

#[tokio::test]
async fn a_version_is_selected_by_its_own_fields_alone() {
    let cluster = Cluster::start().await;
    let remote = converter().await;
    with_a_converter(&cluster, &remote).await;
    let v2 = WEBS.replace("/v1/", "/v2/");
    for (path, own, other) in [(WEBS, "host", "url"), (&v2, "url", "host")] {
        let by = |field| format!("{path}?fieldSelector=spec.{field}%3Dx");
        cluster.get(&by(own)).await.expect(200);
        let refused = cluster.get(&by(other)).await;
        let why = format!("field label not supported: spec.{other}");
        assert!(refused.message().contains(&why), "{refused:?}");
        refused.expect(400);
    }
}

#[tokio::test]
async fn a_webhook_converts_between_versions() {
    let cluster = Cluster::start().await;
    let remote = converter().await;
    with_a_converter(&cluster, &remote).await;
    let v2 = WEBS.replace("/v1/", "/v2/");
    let made = cluster
        .post(&v2, web("v2", "a", json!({"url": "x"})))
        .await
        .expect(201);
    assert_eq!(
        (&made["apiVersion"], &made["spec"]),
        (&json!("example.com/v2"), &json!({"url": "x"}))
    );
    let old = cluster.get(&format!("{WEBS}/a")).await.expect(200);
    assert_eq!(
        (&old["spec"], &old["metadata"]["labels"]),
        (&json!({"host": "x"}), &json!({"converted": "yes"}))
    );
    let patched = cluster
        .merge(&format!("{v2}/a"), json!({"spec": {"url": "y"}}))
        .await
        .expect(200);
    assert_eq!(patched["spec"], json!({"url": "y"}));
    let list = cluster.get(&v2).await.expect(200);
    assert_eq!(list["items"][0]["spec"], json!({"url": "y"}));
    let mut watch = Watcher::open(&cluster, &format!("{v2}?watch=1"), "*/*").await;
    let added = watch.next().await.expect("an event");
    assert_eq!(added["object"]["spec"], json!({"url": "y"}));
    let apply = format!("{v2}/a?fieldManager=me&force=true");
    let body = web("v2", "a", json!({"url": "z"}));
    let applied = cluster
        .call("PATCH", &apply, "application/apply-patch+yaml", &body)
        .await;
    assert_eq!(applied.expect(200)["spec"], json!({"url": "z"}));
    let deleted = cluster.delete(&v2).await.expect(200);
    assert_eq!(deleted["items"][0]["spec"], json!({"url": "z"}));
}

#[tokio::test]
async fn what_a_webhook_does_not_convert_is_an_error_with_its_reason() {
    let cluster = Cluster::start().await;
    let remote = converter().await;
    with_a_converter(&cluster, &remote).await;
    let v2 = WEBS.replace("/v1/", "/v2/");
    cluster
        .post(WEBS, web("v1", "broken", json!({"host": "x"})))
        .await
        .expect(201);
    // The stored version asks nobody.
    cluster.get(&format!("{WEBS}/broken")).await.expect(200);
    let failed = cluster.get(&format!("{v2}/broken")).await;
    let why = "conversion webhook for example.com/v1, Kind=Web failed: it is broken";
    assert!(failed.message().contains(why), "{failed:?}");
    failed.expect(500);
    let mut watch = Watcher::open(&cluster, &format!("{v2}?watch=1"), "*/*").await;
    let told = watch.next().await.expect("an event");
    assert_eq!(told["type"], "ERROR");
    assert!(
        told["object"]["message"]
            .as_str()
            .is_some_and(|text| text.contains(why))
    );
    assert_eq!(watch.next().await, None);
}
