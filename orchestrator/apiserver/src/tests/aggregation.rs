//! Groups that other servers serve.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::http::Response;
use bytes::Bytes;

use super::remote::{Remote, Setting, reply};
use super::*;
use sys::certificates::Identity;

const SERVICES_OF_THE_API: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";

type Seen = Arc<Mutex<Vec<Request<Bytes>>>>;

/// A server of wardle.example.com/v1alpha1 behind Service default/hook, and what it was asked but for
/// probes.
async fn sample() -> (Setting, Remote, Seen) {
    let setting = Setting::start().await;
    let seen = Seen::default();
    let noted = seen.clone();
    let pki = setting.cluster.server.state.pki.as_ref();
    let root = pki.expect("certificates").front_proxy.certificate();
    let names = ["hook.default.svc"];
    let remote = Remote::knowing(Some(root), &names, move |request| {
        let shown = request.extensions().get::<Identity>().cloned();
        let shown = shown.expect("a certificate").common_name;
        assert_eq!(shown, "front-proxy-client");
        let path = request.uri().path().to_owned();
        let probe = request.headers()["x-remote-user"] == "system:kube-aggregator";
        if !probe {
            noted.lock().expect("whole").push(request);
        }
        async move { answer(&path) }
    })
    .await;
    let pod = "10.100.2.7:8443".to_owned();
    let agent = setting
        .agent("node-2", BTreeMap::from([(pod, remote.address)]))
        .await;
    setting.node("node-2", &agent).await;
    std::mem::forget(agent);
    (setting, remote, seen)
}

fn answer(path: &str) -> Response<Body> {
    match path {
        "/apis/wardle.example.com/v1alpha1" => reply(
            200,
            json!({
                "kind": "APIResourceList", "apiVersion": "v1",
                "groupVersion": "wardle.example.com/v1alpha1",
                "resources": [
                    {"name": "flunders", "singularName": "flunder", "namespaced": true,
                        "kind": "Flunder", "verbs": ["get", "list"]},
                    {"name": "flunders/status", "namespaced": true, "kind": "Flunder",
                        "verbs": ["get"]},
                ],
            })
            .to_string(),
        ),
        "/openapi/v3" => {
            let url = format!("/openapi/v3{DISCOVERY}?hash=07AF");
            let row = json!({"serverRelativeURL": url});
            let stolen = json!({"serverRelativeURL": "/openapi/v3/apis/apps/v1?hash=07AF"});
            let paths = json!({"apis/wardle.example.com/v1alpha1": row, "apis/apps/v1": stolen});
            reply(200, json!({"paths": paths}).to_string())
        }
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => reply(
            200,
            json!({"openapi": "3.0.0", "info": {"title": "wardle"}}).to_string(),
        ),
        "/openapi/v2" => reply(200, openapi_v2().to_string()),
        "/apis/wardle.example.com/v1alpha1/elsewhere" => {
            let mut answer = reply(302, "");
            let to = "https://evil.example".parse().expect("a header");
            answer.headers_mut().insert(header::LOCATION, to);
            answer
        }
        _ => {
            let mut answer = reply(200, json!({"kind": "FlunderList", "items": []}).to_string());
            let kind = "application/json".parse().expect("a header");
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            answer
        }
    }
}

/// It describes a path of ours as well, and has an ObjectMeta that is another one here.
fn openapi_v2() -> Value {
    let get = |schema: &str| {
        let schema = json!({"$ref": format!("#/definitions/{schema}")});
        json!({"get": {"responses": {"200": {"description": "OK", "schema": schema}}}})
    };
    json!({
        "swagger": "2.0",
        "paths": {
            "/apis/wardle.example.com/v1alpha1/flunders": get("example.wardle.v1alpha1.Flunder"),
            "/apis/apps/v1/deployments": get(META),
        },
        "definitions": {
            "example.wardle.v1alpha1.Flunder": {"type": "object",
                "properties": {"metadata": {"$ref": format!("#/definitions/{META}")}}},
            META: {"type": "object", "properties": {"name": {"type": "integer"}}},
        },
    })
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const DISCOVERY: &str = "/apis/wardle.example.com/v1alpha1";

/// A document once it says this.
async fn until(setting: &Setting, path: &str, says: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..400 {
        last = setting.cluster.get(path).await.expect(200);
        if says(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{path} never says it: {}", last["paths"]);
}

#[tokio::test]
async fn the_documents_of_another_server_are_found_in_those_of_this_one() {
    let (setting, remote, seen) = sample().await;
    let cluster = &setting.cluster;
    register(&setting, &remote).await;
    setting.service(&[("10.100.2.7", "node-2")]).await;
    condition(&setting, "Passed").await;
    let of = |index: &Value, path: &str| index["paths"][path]["serverRelativeURL"].clone();
    let path = &DISCOVERY[1..];
    let index = until(&setting, "/openapi/v3", |index| !of(index, path).is_null()).await;
    let url = format!("/openapi/v3{DISCOVERY}?hash=07AF");
    assert_eq!(of(&index, path), *url);
    assert_ne!(
        of(&index, "apis/apps/v1"),
        "/openapi/v3/apis/apps/v1?hash=07AF"
    );
    let document = cluster.get(&url).await.expect(200);
    assert_eq!(document["info"]["title"], "wardle");
    let asked = seen.lock().expect("whole").pop().expect("asked");
    assert_eq!(asked.headers()["x-remote-user"], "test");
    assert_eq!(asked.uri().query(), None);

    let flunders = "/apis/wardle.example.com/v1alpha1/flunders";
    let is_merged = |document: &Value| document["paths"][flunders].is_object();
    let all = until(&setting, "/openapi/v2", is_merged).await;
    let own = &all["definitions"][META]["properties"]["name"]["type"];
    let theirs = &all["definitions"][format!("{META}_v2")]["properties"]["name"]["type"];
    assert_eq!((own, theirs), (&json!("string"), &json!("integer")));
    let deployments = &all["paths"]["/apis/apps/v1/deployments"]["get"]["responses"];
    assert_ne!(
        deployments["200"]["schema"]["$ref"],
        format!("#/definitions/{META}")
    );

    // What was read stays while its server is away, and goes with its APIService.
    let slice = format!("{}/hook-1", super::remote::SLICES);
    cluster
        .merge(&slice, json!({"endpoints": []}))
        .await
        .expect(200);
    condition(&setting, "MissingEndpoints").await;
    let index = cluster.get("/openapi/v3").await.expect(200);
    assert_eq!(of(&index, path), *url);
    assert!(is_merged(&cluster.get("/openapi/v2").await.expect(200)));
    assert_eq!(cluster.get(&url).await.code.as_u16(), 503);
    let service = format!("{SERVICES_OF_THE_API}/v1alpha1.wardle.example.com");
    cluster.delete(&service).await.expect(200);
    let index = cluster.get("/openapi/v3").await.expect(200);
    assert!(of(&index, path).is_null());
    assert!(!is_merged(&cluster.get("/openapi/v2").await.expect(200)));
    cluster.get(&url).await.expect(404);
}

async fn register(setting: &Setting, remote: &Remote) {
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1alpha1.wardle.example.com"},
        "spec": {
            "group": "wardle.example.com", "version": "v1alpha1",
            "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": "default", "name": "hook", "port": 443},
            "caBundle": remote.bundle(),
        },
    });
    let made = setting.cluster.post(SERVICES_OF_THE_API, service).await;
    made.expect(201);
}

/// The condition once it has this reason.
async fn condition(setting: &Setting, reason: &str) -> Value {
    let path = format!("{SERVICES_OF_THE_API}/v1alpha1.wardle.example.com");
    let mut last = Value::Null;
    for _ in 0..200 {
        let service = setting.cluster.get(&path).await.expect(200);
        last = service["status"]["conditions"][0].clone();
        if last["reason"] == reason {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never {reason}: {last}");
}

#[tokio::test]
async fn a_group_of_another_server_is_discovered_once_it_answers() {
    let (setting, remote, _seen) = sample().await;
    let cluster = &setting.cluster;
    register(&setting, &remote).await;
    let missing = condition(&setting, "ServiceNotFound").await;
    assert_eq!(missing["status"], "False");
    assert_eq!(
        missing["message"],
        "service/hook in \"default\" is not present"
    );
    let down = cluster.get(FLUNDERS).await;
    assert_eq!(
        (down.code.as_u16(), &down.body),
        (503, &json!("service unavailable\n"))
    );
    setting.service(&[]).await;
    condition(&setting, "MissingEndpoints").await;
    let slice = json!({"endpoints": [{"addresses": ["10.100.2.7"], "nodeName": "node-2"}]});
    let path = format!("{}/hook-1", super::remote::SLICES);
    cluster.merge(&path, slice).await.expect(200);
    let passed = condition(&setting, "Passed").await;
    assert_eq!(passed["message"], "all checks passed");

    let groups = cluster.get("/apis").await.expect(200);
    let version = json!({"groupVersion": "wardle.example.com/v1alpha1", "version": "v1alpha1"});
    let expected = json!({"name": "wardle.example.com", "preferredVersion": version,
        "versions": [version]});
    assert!(
        groups["groups"]
            .as_array()
            .expect("a list")
            .contains(&expected)
    );
    let group = cluster.get("/apis/wardle.example.com").await.expect(200);
    assert_eq!(group["kind"], "APIGroup");
    let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = cluster.get_as("/apis", v2).await.expect(200);
    let groups = all["items"].as_array().expect("a list").iter();
    let mut found = groups.filter(|group| group["metadata"]["name"] == "wardle.example.com");
    let found = found.next().expect("a group");
    let resource = &found["versions"][0]["resources"][0];
    assert_eq!(resource["responseKind"]["kind"], "Flunder");
    assert_eq!(resource["subresources"][0]["subresource"], "status");
}

#[tokio::test]
async fn a_request_is_passed_on_in_the_name_of_the_client() {
    let (setting, remote, seen) = sample().await;
    let cluster = &setting.cluster;
    register(&setting, &remote).await;
    setting.service(&[("10.100.2.7", "node-2")]).await;
    condition(&setting, "Passed").await;
    let request = Request::post(format!("{FLUNDERS}?a=b"))
        .header("x-remote-user", "system:masters")
        .header("X-Remote-Group", "root")
        .header("x-remote-extra-scopes", "all")
        .header("authorization", "Bearer secret")
        .header("connection", "close, x-hop")
        .header("x-hop", "1")
        .header("x-kept", "2")
        .body(Body::from("{\"kind\": \"Flunder\"}"))
        .expect("a request");
    let answered = Answer::of(cluster.send(request).await).await;
    assert_eq!(answered.headers["content-type"], "application/json");
    assert_eq!(answered.expect(200)["kind"], "FlunderList");
    let asked = seen.lock().expect("whole").pop().expect("asked");
    assert_eq!(asked.uri().to_string(), format!("{FLUNDERS}?a=b"));
    assert_eq!(&asked.body()[..], b"{\"kind\": \"Flunder\"}");
    let all = |name: &str| -> Vec<_> { asked.headers().get_all(name).iter().collect() };
    assert_eq!(all("x-remote-user"), ["test"]);
    assert_eq!(
        all("x-remote-group"),
        ["system:masters", "system:authenticated"]
    );
    assert_eq!(all("x-kept"), ["2"]);
    assert_eq!(all("host"), ["hook.default.svc:443"]);
    for name in [
        "x-remote-extra-scopes",
        "authorization",
        "x-hop",
        "connection",
    ] {
        assert!(all(name).is_empty(), "{name}");
    }
    let moved = cluster
        .get("/apis/wardle.example.com/v1alpha1/elsewhere")
        .await;
    assert_eq!(moved.code.as_u16(), 502);
}

#[tokio::test]
async fn only_administrators_ask_another_server_for_more_than_what_there_is() {
    let (setting, remote, seen) = sample().await;
    register(&setting, &remote).await;
    setting.service(&[("10.100.2.7", "node-2")]).await;
    condition(&setting, "Passed").await;
    let somebody = setting.cluster.as_user(User::named("jane", vec![]));
    let discovery = "/apis/wardle.example.com/v1alpha1";
    somebody.get(discovery).await.expect(200);
    let refused = somebody.get(FLUNDERS).await;
    assert!(
        refused.message().contains(
            "User \"jane\" cannot list resource \"flunders\" in API group \"wardle.example.com\""
        ),
        "{}",
        refused.message()
    );
    refused.expect(403);
    let nobody = setting.cluster.as_user(User::anonymous());
    nobody.get(discovery).await.expect(403);
    let node = User::named("system:node:node-2", vec!["system:nodes".to_owned()]);
    setting
        .cluster
        .as_user(node)
        .get(FLUNDERS)
        .await
        .expect(403);
    assert_eq!(seen.lock().expect("whole").len(), 1);
}

#[tokio::test]
async fn what_is_served_here_has_its_api_services_and_is_never_passed_on() {
    let (setting, remote, seen) = sample().await;
    let path = format!("{SERVICES_OF_THE_API}/v1.apps");
    let mut found = setting.cluster.get(&path).await;
    for _ in 0..400 {
        if found.code == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
        found = setting.cluster.get(&path).await;
    }
    let own = found.expect(200);
    assert_eq!(own["status"]["conditions"][0]["reason"], "Local");
    setting.service(&[("10.100.2.7", "node-2")]).await;
    let stolen = json!({"spec": {"caBundle": remote.bundle(),
        "service": {"namespace": "default", "name": "hook", "port": 443}}});
    setting.cluster.merge(&path, stolen).await.expect(200);
    let apps = setting.cluster.get("/apis/apps/v1").await.expect(200);
    let names = apps["resources"].as_array().expect("a list").iter();
    assert!(
        names
            .clone()
            .any(|resource| resource["name"] == "deployments")
    );
    assert_eq!(seen.lock().expect("whole").len(), 0);
}

#[tokio::test]
async fn servers_of_other_groups_find_whom_to_believe() {
    let setting = Setting::start().await;
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let found = setting.cluster.get(path).await.expect(200);
    let data = &found["data"];
    let text = |key: &str| data[key].as_str().expect("a text").to_owned();
    assert_eq!(
        text("requestheader-allowed-names"),
        "[\"front-proxy-client\"]"
    );
    assert_eq!(
        text("requestheader-username-headers"),
        "[\"X-Remote-User\"]"
    );
    let pki = setting
        .cluster
        .server
        .state
        .pki
        .as_ref()
        .expect("certificates");
    assert_eq!(text("client-ca-file"), pki.authority.certificate());
    // Another authority than that of clients: whoever it signs speaks for everybody.
    assert_ne!(text("client-ca-file"), text("requestheader-client-ca-file"));
}
