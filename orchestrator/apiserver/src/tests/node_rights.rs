//! What a node's certificate is good for: one node's identity tries every verb on every kind, on what
//! is its own and on what is not. A kind that is new here is refused until it has a row.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use super::watches::Watcher;
use super::{CONFIG_MAPS, Cluster, PODS, config_map, pod};
use crate::User;
use api::{self, Resource};
use sys::certificates::{Identity, Shown};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const NODES: &str = "/api/v1/nodes";
const KEY: &str = "orchestrator/key-sha256";

/// Everything that node `one` may do, as `verb resource whose`. `own` is the node itself, its lease,
/// its pod, what that pod refers to, an event that it wrote; `other` what is another node's.
const ALLOWED: &[&str] = &[
    "create csinodes own",
    "create events own",
    "create leases own",
    "create selfsubjectaccessreviews other",
    "create selfsubjectaccessreviews own",
    "create selfsubjectreviews other",
    "create selfsubjectreviews own",
    "create selfsubjectrulesreviews other",
    "create selfsubjectrulesreviews own",
    "delete pods own",
    "get clustertrustbundles other",
    "get clustertrustbundles own",
    "get configmaps own",
    "get csidrivers other",
    "get csidrivers own",
    "get csinodes own",
    "get endpointslices other",
    "get endpointslices own",
    "get leases own",
    "get nodes other",
    "get nodes own",
    "get nodes/status own",
    "get persistentvolumes other",
    "get persistentvolumes own",
    "get pods own",
    "get pods/status own",
    "get runtimeclasses other",
    "get runtimeclasses own",
    "get secrets own",
    "get serviceaccounts own",
    "get services other",
    "get services own",
    "list clustertrustbundles all",
    "list clustertrustbundles other",
    "list clustertrustbundles own",
    "list configmaps own",
    "list endpointslices all",
    "list endpointslices everywhere",
    "list endpointslices other",
    "list endpointslices own",
    "list nodes all",
    "list nodes other",
    "list nodes own",
    "list runtimeclasses all",
    "list runtimeclasses other",
    "list runtimeclasses own",
    "list secrets own",
    "list serviceaccounts own",
    "list services all",
    "list services everywhere",
    "list services other",
    "list services own",
    "patch csinodes own",
    "patch events own",
    "patch leases own",
    "patch nodes own",
    "patch nodes/status own",
    "patch pods/status own",
    "update csinodes own",
    "update leases own",
    "update nodes own",
    "update nodes/status own",
    "update pods/status own",
    "watch clustertrustbundles all",
    "watch clustertrustbundles other",
    "watch clustertrustbundles own",
    "watch configmaps own",
    "watch endpointslices all",
    "watch endpointslices everywhere",
    "watch endpointslices other",
    "watch endpointslices own",
    "watch nodes all",
    "watch nodes other",
    "watch nodes own",
    "watch runtimeclasses all",
    "watch runtimeclasses other",
    "watch runtimeclasses own",
    "watch secrets own",
    "watch serviceaccounts own",
    "watch services all",
    "watch services everywhere",
    "watch services other",
    "watch services own",
    // None is there: the node hears so.
];

fn node(name: &str) -> User {
    let identity = Identity::new(&format!("system:node:{name}"), &["system:nodes"]);
    User::from_certificate(identity)
}

/// A pod on a node that refers to a Secret and a ConfigMap of that name.
fn pod_on(name: &str, host: &str, refers_to: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["nodeName"] = host.into();
    pod["spec"]["serviceAccountName"] = refers_to.into();
    pod["spec"]["volumes"] = json!([
        {"name": "a", "secret": {"secretName": refers_to}},
        {"name": "b", "configMap": {"name": refers_to}},
    ]);
    pod
}

fn secret(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"key": "dmFsdWU="}})
}

/// Two nodes with a pod each, and what these refer to.
async fn two_nodes() -> Cluster {
    let admin = Cluster::start().await;
    for (host, name, refers_to) in [("one", "mine", "used"), ("two", "theirs", "other")] {
        let labels = json!({"for": host, "topology.kubernetes.io/zone": "a"});
        let object = json!({"metadata": {"name": host, "labels": labels}});
        admin.post(NODES, object).await.expect(201);
        let lease = json!({"metadata": {"name": host}});
        admin.post(&collection("leases"), lease).await.expect(201);
        admin.post(SECRETS, secret(refers_to)).await.expect(201);
        admin
            .post(CONFIG_MAPS, config_map(refers_to))
            .await
            .expect(201);
        let account = json!({"metadata": {"name": refers_to}});
        admin
            .post(&collection("serviceaccounts"), account)
            .await
            .expect(201);
        admin
            .post(PODS, pod_on(name, host, refers_to))
            .await
            .expect(201);
        let event = json!({"metadata": {"name": host}, "source": {"host": host},
            "involvedObject": {"kind": "Pod", "name": name, "namespace": "default"}});
        admin.post(&collection("events"), event).await.expect(201);
    }
    admin
}

fn collection(plural: &str) -> String {
    let all = api::resources().iter();
    let found = all
        .filter(|resource| resource.plural == plural)
        .map(|resource| path(resource));
    found.last().expect("a served resource")
}

/// Where the objects of these tests are.
fn path(resource: &Resource) -> String {
    let root = match &*resource.group {
        "" => "/api/v1".to_owned(),
        group => format!("/apis/{group}/{}", resource.version),
    };
    let place = match (resource.namespaced(), &*resource.plural) {
        (false, _) => String::new(),
        (true, "leases") => "/namespaces/kube-node-lease".to_owned(),
        (true, _) => "/namespaces/default".to_owned(),
    };
    format!("{root}{place}/{}", resource.plural)
}

/// One thing to try.
struct Try {
    what: String,
    method: &'static str,
    path: String,
    body: Value,
}

impl Try {
    fn new(what: String, verb: &str, path: String, body: &Value) -> Self {
        let (method, body) = match verb {
            "create" => ("POST", body.clone()),
            "update" => ("PUT", body.clone()),
            "patch" => ("PATCH", json!({})),
            "delete" | "deletecollection" => ("DELETE", Value::Null),
            _ => ("GET", Value::Null),
        };
        Self {
            what,
            method,
            path,
            body,
        }
    }
}

/// Everything that can be asked about a resource, on what is a node's own and on what is not.
fn tries(resource: &Resource) -> Vec<Try> {
    let (at, plural) = (path(resource), &*resource.plural);
    let everywhere = at.replace("/namespaces/default", "");
    let everywhere = everywhere.replace("/namespaces/kube-node-lease", "");
    let mut tries = Vec::new();
    for (whose, own) in [("own", true), ("other", false)] {
        let pick = |ours: &'static str, theirs| if own { ours } else { theirs };
        let host = pick("one", "two");
        let name = match plural {
            "nodes" | "leases" | "events" | "csinodes" => host,
            "pods" => pick("mine", "theirs"),
            _ => pick("used", "other"),
        };
        let body = match plural {
            "events" => json!({"metadata": {"name": name}, "source": {"host": host}}),
            "selfsubjectaccessreviews" => json!({"spec": {"resourceAttributes": {}}}),
            "selfsubjectrulesreviews" => json!({"spec": {"namespace": "default"}}),
            _ => json!({"metadata": {"name": name}}),
        };
        let one = format!("{at}/{name}?dryRun=All");
        let only = format!("{at}?fieldSelector=metadata.name={name}");
        for (verb, path) in [
            ("get", &one),
            ("list", &only),
            ("watch", &format!("{only}&watch=1")),
            ("create", &format!("{at}?dryRun=All")),
            ("update", &one),
            ("patch", &one),
            ("delete", &one),
        ] {
            let what = format!("{verb} {plural} {whose}");
            tries.push(Try::new(what, verb, path.clone(), &body));
        }
        for sub in &resource.subresources {
            let path = format!("{at}/{name}/{}?dryRun=All", sub.name());
            for verb in sub.verbs() {
                let what = format!("{verb} {plural}/{} {whose}", sub.name());
                tries.push(Try::new(what, verb, path.clone(), &body));
            }
        }
    }
    let all = format!("{at}?dryRun=All");
    let what = format!("deletecollection {plural} all");
    tries.push(Try::new(what, "deletecollection", all, &Value::Null));
    let places = [("all", at.clone()), ("everywhere", everywhere)];
    let places = places
        .iter()
        .filter(|(place, path)| *place == "all" || *path != at);
    for (place, path) in places {
        let (list, watch) = (format!("list {plural} {place}"), format!("{path}?watch=1"));
        tries.push(Try::new(list, "list", path.clone(), &Value::Null));
        let what = format!("watch {plural} {place}");
        tries.push(Try::new(what, "watch", watch, &Value::Null));
    }
    tries
}

impl Cluster {
    /// The answer's code; what follows of it is not waited for.
    async fn code(&self, method: &str, path: &str, body: &Value) -> StatusCode {
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = match body {
            Value::Null => Body::empty(),
            body => Body::from(body.to_string()),
        };
        let request = Request::builder().method(method).uri(path);
        let request = request.header("content-type", kind).body(body);
        self.send(request.expect("a request")).await.status()
    }
}

#[tokio::test]
async fn a_node_does_what_the_table_says_and_is_refused_everything_else() {
    let admin = two_nodes().await;
    let one = admin.as_user(node("one"));
    let mut allowed = BTreeSet::new();
    for attempt in api::resources().iter().flat_map(|resource| tries(resource)) {
        let Try {
            what,
            method,
            path,
            body,
        } = attempt;
        // What is there, written as it is: nothing but the right to write it is judged.
        let whole = ["/status?", "/scale?", "/finalize?"];
        let whole = whole
            .iter()
            .fold(path.clone(), |path, sub| path.replace(sub, "?"));
        let there = match method {
            "PUT" => admin.get(&whole).await,
            _ => admin.get("/version").await,
        };
        let body = match there.code.as_u16() {
            200 if method == "PUT" => there.body,
            _ => body,
        };
        match one.code(method, &path, &body).await.as_u16() {
            403 => {}
            401 | 500.. => panic!("{what} was not judged"),
            // Verbs that a kind does not have.
            405 => {}
            _ => drop(allowed.insert(what)),
        }
    }
    let expected: BTreeSet<String> = ALLOWED.iter().map(|&line| line.to_owned()).collect();
    let more: Vec<_> = allowed.difference(&expected).collect();
    let less: Vec<_> = expected.difference(&allowed).collect();
    assert!(
        more.is_empty() && less.is_empty(),
        "allowed besides: {more:?}; refused: {less:?}"
    );
}

#[tokio::test]
async fn every_node_reads_what_is_said_of_the_clusters_dns_and_nothing_beside_it() {
    let admin = two_nodes().await;
    let at = "/api/v1/namespaces/kube-system/configmaps";
    admin.post(at, config_map("kube-dns")).await.expect(201);
    admin.post(at, config_map("kube-dns-x")).await.expect(201);
    let one = admin.as_user(node("one"));
    let code = async |method: &str, path: &str| {
        let body = json!({"metadata": {"name": "kube-dns"}});
        one.code(method, &format!("{at}{path}"), &body)
            .await
            .as_u16()
    };
    assert_eq!(code("GET", "/kube-dns").await, 200);
    assert_eq!(
        code("GET", "?fieldSelector=metadata.name=kube-dns").await,
        200
    );
    let watch = "?fieldSelector=metadata.name=kube-dns&watch=1";
    assert_eq!(code("GET", watch).await, 200);
    assert_eq!(code("GET", "/kube-dns-x").await, 403);
    assert_eq!(code("GET", "").await, 403);
    assert_eq!(code("PUT", "/kube-dns").await, 403);
    assert_eq!(code("PATCH", "/kube-dns").await, 403);
    let other = "/api/v1/namespaces/default/configmaps/kube-dns";
    assert_eq!(one.code("GET", other, &Value::Null).await.as_u16(), 403);
}

#[tokio::test]
async fn a_refusal_says_why_in_kubernetes_words() {
    let one = two_nodes().await.as_user(node("one"));
    let refused = one.get(&format!("{SECRETS}/other")).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "secrets \"other\" is forbidden: User \"system:node:one\" cannot get resource \"secrets\" \
         in API group \"\" in the namespace \"default\": no relationship found between node 'one' \
         and this object"
    );
}

/// The mirror of a static pod of the node `one`, with a change.
fn mirror(change: &dyn Fn(&mut Value)) -> Value {
    let mut pod = pod("static-one");
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "abc"});
    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Node",
        "name": "one", "uid": "u", "controller": true}]);
    pod["spec"]["nodeName"] = "one".into();
    change(&mut pod);
    pod
}

/// Whatever a pod refers to, its node may read: in every place of a pod that names an object.
#[tokio::test]
async fn a_mirror_names_nothing_that_its_node_would_come_to_read() {
    let one = two_nodes().await.as_user(node("one"));
    for (place, value) in [
        (
            "/volumes",
            json!([{"name": "v", "secret": {"secretName": "other"}}]),
        ),
        (
            "/volumes",
            json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]),
        ),
        (
            "/volumes",
            json!([{"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "other"}}}]),
        ),
        // The claim `static-one-v`: the node chooses both halves of the name.
        (
            "/volumes",
            json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}}]),
        ),
        (
            "/volumes",
            json!([{"name": "v", "projected": {"sources": [{"clusterTrustBundle":
            {"name": "a", "path": "p"}}]}}]),
        ),
        ("/imagePullSecrets", json!([{"name": "other"}])),
        (
            "/containers/0/env",
            json!([{"name": "A", "valueFrom": {"configMapKeyRef":
            {"name": "other", "key": "k"}}}]),
        ),
        (
            "/containers/0/envFrom",
            json!([{"configMapRef": {"name": "other"}}]),
        ),
        (
            "/containers/0/envFrom",
            json!([{"secretRef": {"name": "other"}}]),
        ),
    ] {
        let change = |pod: &mut Value| {
            let (above, field) = place.rsplit_once('/').expect("a path");
            let above = pod.pointer_mut(&format!("/spec{above}")).expect("there");
            above[field] = value.clone();
        };
        let answer = one.post(PODS, mirror(&change)).await;
        assert_eq!(answer.code, 403, "{value}: {}", answer.body);
        one.get(&format!("{SECRETS}/other")).await.expect(403);
    }
}

#[tokio::test]
async fn a_node_makes_mirrors_of_its_own_pods_and_no_others() {
    let one = two_nodes().await.as_user(node("one"));
    let refused: [(&str, &dyn Fn(&mut Value)); 6] = [
        ("no mirror", &|pod| {
            pod["metadata"]["annotations"] = json!({})
        }),
        ("another node", &|pod| {
            pod["spec"]["nodeName"] = "two".into()
        }),
        ("no node", &|pod| drop(pod["spec"]["nodeName"].take())),
        ("another owner", &|pod| {
            pod["metadata"]["ownerReferences"][0]["name"] = "two".into();
        }),
        ("no owner", &|pod| {
            pod["metadata"]["ownerReferences"] = json!([])
        }),
        ("a volume", &|pod| {
            let volume = json!([{"name": "v", "configMap": {"name": "mine"}}]);
            pod["spec"]["volumes"] = volume;
        }),
    ];
    for (what, change) in refused {
        let answer = one.post(PODS, mirror(change)).await;
        assert_eq!(answer.code, 403, "{what}: {}", answer.body);
    }
    one.post(PODS, mirror(&|_| {})).await.expect(201);
    let path = format!("{PODS}/static-one");
    let status = json!({"status": {"phase": "Running"}});
    one.merge(&format!("{path}/status"), status)
        .await
        .expect(200);
    one.delete(&format!("{path}?gracePeriodSeconds=0"))
        .await
        .expect(200);
}

#[tokio::test]
async fn pods_are_listed_by_the_selector_that_names_the_node_alone() {
    let one = two_nodes().await.as_user(node("one"));
    let all = "/api/v1/pods";
    for (path, query, code) in [
        (all, "fieldSelector=spec.nodeName=one", 200),
        (
            PODS,
            "fieldSelector=spec.nodeName=one,status.phase!=Failed",
            200,
        ),
        (all, "fieldSelector=spec.nodeName=two", 403),
        (all, "fieldSelector=spec.nodeName!=two", 403),
        (all, "labelSelector=app=mine", 403),
        (PODS, "fieldSelector=metadata.name=mine", 403),
        (
            "/api/v1/namespaces/default/pods/mine",
            "watch=1&fieldSelector=spec.nodeName=one",
            403,
        ),
        ("/api/v1/watch/namespaces/default/pods/mine", "", 403),
    ] {
        let answer = one
            .code("GET", &format!("{path}?{query}"), &Value::Null)
            .await;
        assert_eq!(answer, code, "{path}?{query}");
    }
    let list = one
        .get(&format!("{all}?fieldSelector=spec.nodeName=one"))
        .await
        .expect(200);
    let names: Vec<_> = list["items"].as_array().into_iter().flatten().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0]["metadata"]["name"], "mine");
}

#[tokio::test]
async fn other_nodes_are_seen_trimmed_in_every_form_and_cannot_be_selected_by_what_is_cut() {
    let admin = two_nodes().await;
    let one = admin.as_user(node("one"));
    let labels = |object: &Value| object["metadata"]["labels"].clone();
    let (zone, whole) = (
        json!({"topology.kubernetes.io/zone": "a"}),
        |host: &str| json!({"for": host, "topology.kubernetes.io/zone": "a"}),
    );
    let get = one.get(&format!("{NODES}/two")).await.expect(200);
    assert_eq!(labels(&get), zone);
    assert!(get["metadata"]["resourceVersion"].is_string());
    assert_eq!(
        labels(&one.get(&format!("{NODES}/one")).await.expect(200)),
        whole("one")
    );
    assert_eq!(
        labels(&admin.get(&format!("{NODES}/two")).await.expect(200)),
        whole("two")
    );
    for query in ["", "?limit=2", "?limit=1", "?resourceVersion=0"] {
        let list = one.get(&format!("{NODES}{query}")).await.expect(200);
        let mut items = list["items"].as_array().cloned().unwrap_or_default();
        if let Some(next) = list["metadata"]["continue"].as_str() {
            let next = format!("{NODES}?limit=1&continue={next}");
            let next = one.get(&next).await.expect(200);
            items.extend(next["items"].as_array().cloned().unwrap_or_default());
        }
        let seen: Vec<Value> = items.iter().map(labels).collect();
        assert_eq!(seen, [whole("one"), zone.clone()], "{query}");
    }
    let mut events = Watcher::open(&one, &format!("{NODES}?watch=1"), "").await;
    let seen = [
        events.next().await.expect("an event"),
        events.next().await.expect("an event"),
    ];
    let seen = seen.map(|event| labels(&event["object"]));
    assert_eq!(seen, [whole("one"), zone.clone()]);
    let patch = json!({"metadata": {"labels": {"for": "payments"}}});
    admin
        .merge(&format!("{NODES}/two"), patch)
        .await
        .expect(200);
    // What is cut changes without a word: the next event is the next change that is seen.
    let moved = json!({"topology.kubernetes.io/zone": "b"});
    let patch = json!({"metadata": {"labels": moved}});
    admin
        .merge(&format!("{NODES}/two"), patch)
        .await
        .expect(200);
    let event = events.next().await.expect("an event");
    assert_eq!(
        (event["type"].as_str(), labels(&event["object"])),
        (Some("MODIFIED"), moved)
    );
    for query in [
        "labelSelector=for=payments",
        "fieldSelector=spec.unschedulable=true",
    ] {
        one.get(&format!("{NODES}?{query}")).await.expect(403);
    }
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = one.get_as(NODES, metadata).await.expect(200);
    assert!(!list.to_string().contains("payments"), "{list}");
}

#[tokio::test]
async fn a_secret_is_read_while_a_pod_of_the_node_refers_to_it() {
    let admin = two_nodes().await;
    let one = admin.as_user(node("one"));
    let used = format!("{SECRETS}/used");
    one.get(&used).await.expect(200);
    // Another pod of the node that refers to it, and one in another namespace that does not count.
    admin
        .post(PODS, pod_on("second", "one", "used"))
        .await
        .expect(201);
    admin
        .delete(&format!("{PODS}/mine?gracePeriodSeconds=0"))
        .await
        .expect(200);
    one.get(&used).await.expect(200);
    let only = format!("{SECRETS}?watch=1&fieldSelector=metadata.name=used");
    let mut events = Watcher::open(&one, &only, "").await;
    assert_eq!(events.next().await.expect("an event")["type"], "ADDED");
    let write = async |value: &str| {
        let patch = json!({"data": {"key": value}});
        admin.merge(&used, patch).await.expect(200);
    };
    write("b25l").await;
    assert_eq!(
        events.next().await.expect("an event")["object"]["data"]["key"],
        "b25l"
    );
    admin
        .delete(&format!("{PODS}/second?gracePeriodSeconds=0"))
        .await
        .expect(200);
    one.get(&used).await.expect(403);
    // What is written now is not for it: the watch ends instead.
    write("dHdv").await;
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_node_takes_no_address_of_another_and_none_that_leads_to_whoever_dials_it() {
    let admin = two_nodes().await;
    let status = |address: &str| {
        let address = json!({"type": "InternalIP", "address": address});
        json!({"status": {"addresses": [address]}})
    };
    let two = admin.as_user(node("two"));
    two.merge(&format!("{NODES}/two/status"), status("172.31.0.12"))
        .await
        .expect(200);
    let one = admin.as_user(node("one"));
    for (address, code) in [
        ("172.31.0.11", 200),
        ("172.31.0.12", 422),
        ("172.31.0.1", 422),
        ("10.96.0.1", 422),
        ("127.0.0.1", 422),
        ("169.254.169.254", 422),
        ("::ffff:172.31.0.12", 422),
    ] {
        let answer = one
            .merge(&format!("{NODES}/one/status"), status(address))
            .await;
        assert_eq!(answer.code, code, "{address}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn a_node_claims_only_addresses_that_its_certificate_names_or_that_it_comes_from() {
    let admin = Cluster::start().await;
    let object = json!({"metadata": {"name": "one", "annotations": {KEY: "aa"}}});
    admin.post(NODES, object).await.expect(201);
    let address = |text: &str| text.parse::<std::net::IpAddr>().expect("an address");
    let shown = Shown {
        key: "aa".into(),
        ends: jiff::Timestamp::MAX,
        addresses: [address("172.31.0.11")].into(),
    };
    let one = admin.as_user(node("one").showing(shown).at(address("::ffff:172.31.0.13")));
    let status = format!("{NODES}/one/status");
    let says = |text: &str| {
        let named = json!({"type": "Hostname", "address": "one"});
        let address = json!({"type": "InternalIP", "address": text});
        json!({"status": {"addresses": [named, address]}})
    };
    for (address, code) in [
        ("172.31.0.11", 200),
        // Free, and the gateway's, a resolver's, a machine's that will join: another one's.
        ("172.31.0.254", 422),
        ("172.31.0.13", 200),
        ("fd00:31::1", 422),
        ("172.31.0.11", 200),
    ] {
        let answer = one.merge(&status, says(address)).await;
        assert_eq!(answer.code, code, "{address}: {:?}", answer.body);
        if code != 200 {
            let why = answer.message();
            assert!(why.contains("status.addresses[1].address"), "{why}");
            assert!(why.contains("nor where its connection comes from"), "{why}");
        }
    }
    // What others have given it it may repeat.
    admin.merge(&status, says("172.31.0.15")).await.expect(200);
    let same = json!({"status": {"phase": "Running"}});
    one.merge(&status, same).await.expect(200);
}

#[tokio::test]
async fn a_nodes_name_is_its_keys_until_the_node_is_deleted() {
    let admin = Cluster::start().await;
    let holder = |key: &str| {
        let shown = Shown {
            key: key.into(),
            ends: jiff::Timestamp::MAX,
            addresses: [].into(),
        };
        admin.as_user(node("one").showing(shown))
    };
    let (first, other) = (holder("aa"), holder("bb"));
    let own = format!("{NODES}/one");
    let of_key = |key: &str| json!({"metadata": {"name": "one", "annotations": {KEY: key}}});
    admin.post(NODES, of_key("aa")).await.expect(201);
    first.get(&own).await.expect(200);
    other.get(&own).await.expect(401);
    let key = json!({"metadata": {"annotations": {KEY: "bb"}}});
    first.merge(&own, key.clone()).await.expect(403);
    first
        .merge(&format!("{NODES}/one/status"), key)
        .await
        .expect(403);
    first.post(NODES, of_key("aa")).await.expect(403);
    admin.delete(&own).await.expect(200);
    // The machine that was removed, or whoever has its key, does not bring the node back.
    let bare = json!({"metadata": {"name": "one"}});
    for body in [bare, of_key("aa")] {
        let refused = first.post(NODES, body).await;
        let why = refused.message().to_owned();
        refused.expect(401);
        assert!(
            why.contains("was deleted") && why.contains("token create"),
            "{why}"
        );
    }
    first.get(&format!("{NODES}?limit=1")).await.expect(401);
    let lease = json!({"metadata": {"name": "one"}});
    first.post(&collection("leases"), lease).await.expect(401);
    admin.get(&own).await.expect(404);
}

#[tokio::test]
async fn whoever_may_only_change_an_object_makes_none_by_applying_it() {
    let admin = two_nodes().await;
    let one = admin.as_user(node("one"));
    let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}});
    let path = "/api/v1/nodes/one?fieldManager=agent";
    let kind = "application/apply-patch+yaml";
    one.call("PATCH", path, kind, &body).await.expect(200);
    admin
        .call(
            "DELETE",
            "/api/v1/nodes/one",
            "application/json",
            &Value::Null,
        )
        .await
        .expect(200);
    let refused = one.call("PATCH", path, kind, &body).await;
    assert!(
        refused.message().contains("cannot create"),
        "{}",
        refused.message()
    );
    refused.expect(403);
    admin.call("PATCH", path, kind, &body).await.expect(201);
}
