//! Tokens as clients get and show them, and everything that a forger tries.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation, decode, encode};

use super::*;
use crate::State;

use crate::authn::service_account::claims::Named;
use crate::authn::service_account::{Bond, To};
use crate::authn::{AuthenticationConfig, Bearer, Proof, ShownToken, authenticate_token};
use sys::certificates::Identity;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const API: &str = "https://kubernetes.default.svc";

fn request(spec: Value) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
}

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
}

fn bound_pod(name: &str, account: &str, audience: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"serviceAccountName": account, "nodeName": "one",
            "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "t", "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "audience": audience}}]}}]}})
}

fn of_pod(name: &str, uid: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid})
}

impl Cluster {
    fn state(&self) -> &State {
        &self.server.state
    }

    async fn token(&self, account: &str, spec: Value) -> String {
        let path = format!("{ACCOUNTS}/{account}/token");
        let answer = self.post(&path, request(spec)).await.expect(201);
        text(&answer["status"]["token"])
    }

    async fn status_of(&self, token: &str) -> u16 {
        self.whoami(token).await.code.as_u16()
    }

    async fn review(&self, token: &str, audiences: Value) -> Value {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences}});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let answer = self.post(path, body).await;
        answer.expect(201)["status"].clone()
    }

    /// The same at another time.
    async fn at(&self, token: &str, now: Timestamp) -> (Option<Proof>, Vec<String>) {
        authenticate_token(Bearer {
            state: self.state(),
            token,
            audiences: &self.state().authentication.audiences,
            now,
        })
        .await
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).expect("three parts");
    let bytes = URL_SAFE_NO_PAD.decode(part).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn a_token_says_what_kubernetes_says_and_its_holder_is_the_service_account() {
    let cluster = Cluster::start().await;
    let made = cluster.post(ACCOUNTS, account("robot")).await.expect(201);
    let uid = &made["metadata"]["uid"];
    let path = format!("{ACCOUNTS}/robot/token");
    let answer = cluster.post(&path, request(json!({"audiences": []}))).await;
    let answer = answer.expect(201);
    assert_eq!(answer["kind"], "TokenRequest");
    assert_eq!(answer["metadata"]["name"], "robot");
    assert_eq!(
        answer["spec"],
        json!({"audiences": [API], "expirationSeconds": 3600,
        "boundObjectRef": null})
        .as_object()
        .map(|spec| {
            let mut spec = spec.clone();
            spec.remove("boundObjectRef");
            Value::Object(spec)
        })
        .expect("a spec")
    );
    let token = text(&answer["status"]["token"]);
    let claims = part(&token, 1);
    let of = |name: &str| claims[name].clone();
    assert_eq!((of("iss"), of("aud")), (json!(API), json!([API])));
    assert_eq!(of("sub"), "system:serviceaccount:default:robot");
    assert_eq!(
        of("kubernetes.io"),
        json!({"namespace": "default", "serviceaccount": {"name": "robot", "uid": uid}})
    );
    let number = |name: &str| claims[name].as_i64().expect("a number");
    assert_eq!(number("exp") - number("iat"), 3600);
    assert_eq!(number("nbf"), number("iat"));
    let head = part(&token, 0);
    assert_eq!(head["alg"], "ES256");
    assert!(head["typ"].is_null());
    let me = cluster.whoami(&token).await.expect(201);
    assert_eq!(
        me["status"]["userInfo"],
        json!({"username": "system:serviceaccount:default:robot", "uid": uid,
            "groups": ["system:serviceaccounts", "system:serviceaccounts:default",
                "system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id":
                [format!("JTI={}", text(&claims["jti"]))]}})
    );
}

#[tokio::test]
async fn a_request_as_kubectl_sends_it_has_an_empty_status() {
    let cluster = Cluster::start().await;
    cluster.post(ACCOUNTS, account("build")).await.expect(201);
    let mut body = request(json!({"audiences": null, "expirationSeconds": null}));
    body["metadata"] = json!({"creationTimestamp": null});
    body["status"] = json!({"token": "", "expirationTimestamp": null});
    let path = format!("{ACCOUNTS}/build/token?fieldValidation=Strict");
    let made = cluster.post(&path, body).await.expect(201);
    assert_ne!(made["status"]["token"], "");
}

#[tokio::test]
async fn a_request_is_refused_as_kubernetes_refuses_it() {
    let cluster = Cluster::start().await;
    let path = format!("{ACCOUNTS}/default/token");
    let post = async |path: &str, body: Value| cluster.post(path, body).await;
    let short = post(
        &path,
        request(json!({"audiences": [], "expirationSeconds": 599})),
    )
    .await;
    assert_eq!(
        short.message(),
        "TokenRequest.authentication.k8s.io \"default\" is invalid: spec.expirationSeconds: Invalid \
         value: 599: may not specify a duration less than 10 minutes"
    );
    short.expect(422);
    let nobody = format!("{ACCOUNTS}/nobody/token");
    let absent = post(&nobody, request(json!({"audiences": []}))).await;
    assert_eq!(absent.message(), "serviceaccounts \"nobody\" not found");
    absent.expect(404);
    let mut other = request(json!({"audiences": []}));
    other["metadata"] = json!({"name": "other"});
    post(&path, other).await.expect(422);
    let bound = |reference: Value| request(json!({"audiences": [], "boundObjectRef": reference}));
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x"});
    let refused = post(&path, bound(map)).await;
    assert_eq!(
        refused.message(),
        "cannot bind token to object of type /v1, Kind=ConfigMap"
    );
    refused.expect(400);
    post(&path, bound(of_pod("none", &Value::Null)))
        .await
        .expect(404);
    post(ACCOUNTS, account("other")).await.expect(201);
    post(PODS, bound_pod("p", "other", "")).await.expect(201);
    let refused = post(&path, bound(of_pod("p", &Value::Null))).await;
    assert!(refused.message().contains("different serviceaccount name"));
    refused.expect(400);
    let theirs = format!("{ACCOUNTS}/other/token");
    let refused = post(&theirs, bound(of_pod("p", &json!("u")))).await;
    assert!(
        refused.message().starts_with(
            "Operation cannot be fulfilled on Pod \"p\": the UID in the bound object reference (u)"
        ),
        "{}",
        refused.body
    );
    refused.expect(409);
    let long = request(json!({"audiences": [], "expirationSeconds": 1i64 << 32}));
    let cut = post(&path, long).await;
    assert!(cut.headers.contains_key(header::WARNING));
    let year = json!(365 * 24 * 3600);
    assert_eq!(cut.expect(201)["spec"]["expirationSeconds"], year);
}

#[tokio::test]
async fn a_token_of_a_pod_names_pod_and_node_and_ends_with_the_pod() {
    let cluster = Cluster::start().await;
    let made = cluster
        .post(PODS, bound_pod("p", "default", ""))
        .await
        .expect(201);
    let uid = &made["metadata"]["uid"];
    let spec = json!({"audiences": [], "expirationSeconds": 3607,
        "boundObjectRef": of_pod("p", uid)});
    let token = cluster.token("default", spec).await;
    let claims = part(&token, 1);
    let number = |value: &Value| value.as_i64().expect("a number");
    let (iat, private) = (number(&claims["iat"]), &claims["kubernetes.io"]);
    assert_eq!(number(&claims["exp"]) - iat, 365 * 24 * 3600);
    assert_eq!(number(&private["warnafter"]) - iat, 3607);
    assert_eq!(private["pod"], json!({"name": "p", "uid": uid}));
    assert_eq!(private["node"], json!({"name": "one"}));
    let me = cluster.whoami(&token).await.expect(201);
    let extra = &me["status"]["userInfo"]["extra"];
    let of = |key: &str| extra[format!("authentication.kubernetes.io/{key}")][0].clone();
    assert_eq!((of("pod-name"), of("pod-uid")), (json!("p"), uid.clone()));
    assert_eq!(of("node-name"), "one");
    let path = format!("{PODS}/p?gracePeriodSeconds=0");
    cluster.delete(&path).await.expect(200);
    assert_eq!(cluster.status_of(&token).await, 401);
    // Another pod of the name is another pod.
    cluster
        .post(PODS, bound_pod("p", "default", ""))
        .await
        .expect(201);
    assert_eq!(cluster.status_of(&token).await, 401);
}

#[tokio::test]
async fn a_token_ends_with_its_service_account_also_when_another_has_its_name() {
    let cluster = Cluster::start().await;
    cluster.post(ACCOUNTS, account("robot")).await.expect(201);
    let token = cluster.token("robot", json!({"audiences": []})).await;
    assert_eq!(cluster.status_of(&token).await, 201);
    let one = format!("{ACCOUNTS}/robot");
    cluster.delete(&one).await.expect(200);
    assert_eq!(cluster.status_of(&token).await, 401);
    cluster.post(ACCOUNTS, account("robot")).await.expect(201);
    assert_eq!(cluster.status_of(&token).await, 401);
    let status = cluster.review(&token, json!([])).await;
    assert!(status["authenticated"].is_null() || status["authenticated"] == false);
    assert!(
        text(&status["error"]).contains("does not match claim"),
        "{status}"
    );
}

#[tokio::test]
async fn a_token_is_good_for_its_time_and_a_minute() {
    let cluster = Cluster::start().await;
    let spec = json!({"audiences": [], "expirationSeconds": 600});
    let token = cluster.token("default", spec).await;
    let from = part(&token, 1)["iat"].as_i64().expect("a number");
    for (after, good) in [
        (-61, false),
        (-60, true),
        (0, true),
        (660, true),
        (661, false),
    ] {
        let now = Timestamp::from_second(from + after).expect("a time");
        let (proof, errors) = cluster.at(&token, now).await;
        assert_eq!(proof.is_some(), good, "{after}: {errors:?}");
        if let Some(user) = proof.map(|proof| proof.user) {
            let ends = Timestamp::from_second(from + 660).expect("a time");
            assert_eq!(user.ends(), Some(ends));
        }
    }
}

#[tokio::test]
async fn a_token_is_for_its_audience_alone() {
    let cluster = Cluster::start().await;
    let vault = cluster
        .token("default", json!({"audiences": ["vault"]}))
        .await;
    assert_eq!(cluster.status_of(&vault).await, 401);
    let status = cluster.review(&vault, json!([])).await;
    assert!(status["authenticated"].is_null() || status["authenticated"] == false);
    let status = cluster.review(&vault, json!(["vault", "other"])).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["vault"]));
    assert_eq!(
        status["user"]["username"],
        "system:serviceaccount:default:default"
    );
    let own = cluster.token("default", json!({"audiences": []})).await;
    let status = cluster.review(&own, json!(["vault"])).await;
    assert!(status["authenticated"].is_null() || status["authenticated"] == false);
    let nobody = cluster.review("a.b.c", json!([])).await;
    assert_eq!(nobody["error"], "invalid bearer token");
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let empty = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {}});
    cluster.post(path, empty).await.expect(400);
}

#[tokio::test]
async fn nothing_that_this_cluster_has_not_signed_is_believed() {
    let cluster = Cluster::start().await;
    let token = cluster.token("default", json!({"audiences": []})).await;
    let (head, claims) = (part(&token, 0), part(&token, 1));
    let signature = token.rsplit('.').next().expect("a signature");
    let kid = text(&head["kid"]);
    let forge = |head: Value, claims: &Value, key: &EncodingKey| {
        let header: Header = serde_json::from_value(head).expect("a header");
        encode(&header, claims, key).expect("a token")
    };
    let jwks = cluster.get("/openid/v1/jwks").await.expect(200);
    let mut point = vec![4];
    for coordinate in ["x", "y"] {
        let coordinate = text(&jwks["keys"][0][coordinate]);
        point.extend(URL_SAFE_NO_PAD.decode(coordinate).expect("base64"));
    }
    let public = EncodingKey::from_secret(&point).expect("a secret");
    let pem = sys::certificates::make_key().expect("a key");
    let other = EncodingKey::from_ec_pem(pem.as_bytes()).expect("a key");
    let mut admin = claims.clone();
    admin["sub"] = "system:serviceaccount:kube-system:admin".into();
    let ring = cluster.state().authentication.accounts.keys.ring();
    let forged = [
        format!(
            "{}.{}.",
            encoded(&json!({"alg": "none", "kid": kid})),
            encoded(&claims)
        ),
        format!(
            "{}.{}.{signature}",
            encoded(&json!({"alg": "none"})),
            encoded(&claims)
        ),
        forge(json!({"alg": "HS256", "kid": kid}), &claims, &public),
        forge(json!({"alg": "ES256", "kid": kid}), &claims, &other),
        forge(json!({"alg": "ES256", "kid": "unknown"}), &claims, &other),
        forge(json!({"alg": "ES256"}), &claims, &other),
        // A key in the token itself is nobody's.
        forge(
            json!({"alg": "ES256", "kid": kid, "jku": "https://evil.example/jwks"}),
            &claims,
            &other,
        ),
        // Other claims under a signature that is good for the first ones.
        format!("{}.{}.{signature}", encoded(&head), encoded(&admin)),
        // A key of Secrets' tokens signs no others.
        forge(
            json!({"alg": "ES256", "kid": ring.legacy().id}),
            &claims,
            &ring.legacy().signing,
        ),
        format!("{token}x"),
        format!("{token}.{signature}"),
        token.replacen('.', "..", 1),
        "a".repeat(15 * 1024),
        format!("{}.{}.{}", encoded(&head), "A".repeat(12_000), signature),
    ];
    for (number, forged) in forged.iter().enumerate() {
        assert_eq!(
            cluster.status_of(forged).await,
            401,
            "forged token {number}"
        );
    }
    let huge = "a".repeat(1024 * 1024);
    let (proof, _) = cluster.at(&huge, Timestamp::now()).await;
    assert_eq!(proof, None);
    assert_eq!(cluster.status_of(&token).await, 201);
}

#[tokio::test]
async fn a_token_that_one_server_has_signed_is_believed_by_the_others() {
    let store = store::MemoryStore::shared();
    let one = Cluster::over(store.clone(), ServerConfig::default(), None).await;
    let config = ServerConfig {
        advertise: ([172, 31, 0, 2], 6443).into(),
        ..ServerConfig::default()
    };
    let other = Cluster::over(store, config, None).await;
    let token = one.token("default", json!({"audiences": []})).await;
    assert_eq!(other.status_of(&token).await, 201);
}

#[tokio::test]
async fn a_token_of_the_former_key_is_believed_until_it_ends() {
    let cluster = Cluster::start().await;
    let before = cluster.token("default", json!({"audiences": []})).await;
    let keys = &cluster.state().authentication.accounts.keys;
    let later = Timestamp::now() + SignedDuration::from_hours(91 * 24);
    assert!(keys.rotate(later).await.expect("a rotation"));
    let published = later + SignedDuration::from_mins(20);
    assert!(keys.rotate(published).await.expect("a rotation"));
    let after = cluster.token("default", json!({"audiences": []})).await;
    assert_ne!(part(&before, 0)["kid"], part(&after, 0)["kid"]);
    assert_eq!(cluster.status_of(&before).await, 201);
    assert_eq!(cluster.status_of(&after).await, 201);
}

#[tokio::test]
async fn others_find_issuer_and_keys_if_the_issuer_is_a_url() {
    let cluster = Cluster::start().await;
    let answer = cluster.get("/.well-known/openid-configuration").await;
    assert_eq!(
        answer.headers[header::CACHE_CONTROL],
        "public, max-age=3600"
    );
    assert_eq!(
        answer.expect(200),
        json!({"issuer": API, "jwks_uri": "https://172.31.0.1:6443/openid/v1/jwks",
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"]})
    );
    let keys = cluster.get("/openid/v1/jwks").await;
    assert_eq!(
        keys.headers[header::CONTENT_TYPE],
        "application/jwk-set+json"
    );
    let token = cluster.token("default", json!({"audiences": []})).await;
    let keys = keys.expect(200);
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys).expect("a JWK set");
    let key = set.find(&text(&part(&token, 0)["kid"])).expect("its key");
    let key = jsonwebtoken::DecodingKey::from_jwk(key).expect("a key");
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[API]);
    validation.set_issuer(&[API]);
    decode::<Value>(&token, &key, &validation).expect("a token that others believe");
    let plain = ServerConfig {
        authentication: AuthenticationConfig {
            issuers: vec!["my-cluster".to_owned(), API.to_owned()],
            audiences: vec!["api".to_owned()],
        },
        ..ServerConfig::default()
    };
    let plain = Cluster::with(plain).await;
    plain
        .get("/.well-known/openid-configuration")
        .await
        .expect(404);
    let token = plain.token("default", json!({"audiences": []})).await;
    assert_eq!(part(&token, 1)["iss"], "my-cluster");
    assert_eq!(part(&token, 1)["aud"], json!(["api"]));
    assert_eq!(plain.status_of(&token).await, 201);
}

fn node(name: &str) -> User {
    User::from_certificate(Identity::new(
        &format!("system:node:{name}"),
        &["system:nodes"],
    ))
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_pods_alone() {
    let cluster = Cluster::start().await;
    cluster.post(ACCOUNTS, account("unused")).await.expect(201);
    let pod = bound_pod("p", "default", "vault");
    let made = cluster.post(PODS, pod).await.expect(201);
    let uid = &made["metadata"]["uid"];
    let (one, two) = (cluster.as_user(node("one")), cluster.as_user(node("two")));
    let path = format!("{ACCOUNTS}/default/token");
    let ask = |audience: &str, reference: Value| {
        request(json!({"audiences": [audience], "boundObjectRef": reference}))
    };
    let good = || ask("vault", of_pod("p", uid));
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "u"});
    let token = one.post(&path, good()).await.expect(201);
    assert!(token["status"]["token"].is_string());
    for (who, path, body, why) in [
        (
            &two,
            &path,
            good(),
            "no relationship found between node 'two' and this object",
        ),
        (
            &one,
            &format!("{ACCOUNTS}/unused/token"),
            good(),
            "no relationship found",
        ),
        (
            &one,
            &path,
            ask("vault", Value::Null),
            "node requested token not bound to a pod",
        ),
        (
            &one,
            &path,
            ask("vault", of_pod("p", &Value::Null)),
            "node requested token with a pod binding without a uid",
        ),
        (
            &one,
            &path,
            ask("vault", of_pod("p", &json!("u"))),
            "does not match the UID in record",
        ),
        (
            &one,
            &path,
            ask("bank", of_pod("p", uid)),
            "audience \"bank\" not found",
        ),
        (
            &one,
            &path,
            ask(API, of_pod("p", uid)),
            "not found in pod spec volume",
        ),
        (
            &one,
            &path,
            ask("vault", secret),
            "node requested token not bound to a pod",
        ),
    ] {
        let refused = who.post(path, body).await;
        assert!(refused.message().contains(why), "{why}: {}", refused.body);
        refused.expect(403);
    }
}

#[tokio::test]
async fn a_node_gets_tokens_that_the_csi_drivers_of_its_pods_ask_for_and_no_others() {
    let cluster = Cluster::start().await;
    let (drivers, volumes) = (
        "/apis/storage.k8s.io/v1/csidrivers",
        "/api/v1/persistentvolumes",
    );
    for (driver, audience) in [
        ("a.example.com", "a"),
        ("b.example.com", "b"),
        ("c.example.com", "c"),
    ] {
        let spec = json!({"tokenRequests": [{"audience": audience}]});
        let object = json!({"metadata": {"name": driver}, "spec": spec});
        cluster.post(drivers, object).await.expect(201);
    }
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let resources = json!({"requests": {"storage": "1Gi"}});
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": resources, "volumeName": "v", "storageClassName": ""}});
    let claim = cluster.post(claims, claim).await.expect(201);
    let reference = json!({"namespace": "default", "name": "data",
        "uid": claim["metadata"]["uid"]});
    let volume = json!({"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "claimRef": reference,
        "csi": {"driver": "b.example.com", "volumeHandle": "h"}}});
    cluster.post(volumes, volume).await.expect(201);
    let mut pod = bound_pod("p", "default", "vault");
    let more = [
        json!({"name": "own", "csi": {"driver": "a.example.com"}}),
        json!({"name": "data", "persistentVolumeClaim": {"claimName": "data"}}),
    ];
    pod["spec"]["volumes"].as_array_mut().unwrap().extend(more);
    let made = cluster.post(PODS, pod).await.expect(201);
    let one = cluster.as_user(node("one"));
    let path = format!("{ACCOUNTS}/default/token");
    for (audience, code) in [("vault", 201), ("a", 201), ("b", 201), ("c", 403)] {
        let reference = of_pod("p", &made["metadata"]["uid"]);
        let body = json!({"audiences": [audience], "boundObjectRef": reference});
        one.post(&path, request(body)).await.expect(code);
    }
}

#[tokio::test]
async fn a_node_gets_no_token_for_a_pod_on_another_node() {
    let cluster = Cluster::start().await;
    for (name, node) in [("p", "one"), ("q", "two")] {
        let mut pod = bound_pod(name, "default", "vault");
        pod["spec"]["nodeName"] = node.into();
        cluster.post(PODS, pod).await.expect(201);
    }
    let theirs = cluster.get(&format!("{PODS}/q")).await.expect(200);
    let one = cluster.as_user(node("one"));
    let body = request(json!({"audiences": ["vault"],
        "boundObjectRef": of_pod("q", &theirs["metadata"]["uid"])}));
    let refused = one.post(&format!("{ACCOUNTS}/default/token"), body).await;
    let said = refused.message().to_owned();
    assert!(said.contains("scheduled on a different node"), "{said}");
    refused.expect(403);
}

#[tokio::test]
async fn a_watch_ends_when_the_token_of_its_client_is_worth_nothing() {
    let cluster = Cluster::start().await;
    let made = cluster.post(ACCOUNTS, account("robot")).await.expect(201);
    let bond = Bond {
        namespace: "default".to_owned(),
        account: Named {
            name: "robot".to_owned(),
            uid: text(&made["metadata"]["uid"]),
        },
        to: To::Nothing,
    };
    let token = ShownToken {
        ends: None,
        bond: Some(bond),
    };
    let robot = cluster.as_user(User {
        token: Some(Arc::new(token)),
        ..User::internal("robot")
    });
    let uri = format!("{SECRETS}?watch=true");
    let request = Request::get(uri).body(Body::empty());
    let mut watch = robot.send(request.expect("a request")).await;
    assert_eq!(watch.status(), StatusCode::OK);
    let secret = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name}})
    };
    cluster.post(SECRETS, secret("before")).await.expect(201);
    let first = watch
        .body_mut()
        .frame()
        .await
        .expect("an event")
        .expect("bytes");
    let first = first.into_data().expect("data");
    assert!(String::from_utf8_lossy(&first).contains("before"));
    cluster
        .delete(&format!("{ACCOUNTS}/robot"))
        .await
        .expect(200);
    cluster.post(SECRETS, secret("after")).await.expect(201);
    assert!(
        watch.body_mut().frame().await.is_none(),
        "nothing is told any more"
    );
}

async fn filled(cluster: &Cluster, name: &str) -> Value {
    let path = format!("{SECRETS}/{name}");
    for _ in 0..1000 {
        let secret = cluster.get(&path).await.expect(200);
        if secret["data"]["token"].is_string() {
            return secret;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no token came");
}

fn legacy(name: &str, account: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": name,
            "annotations": {"kubernetes.io/service-account.name": account}}})
}

async fn gone(cluster: &Cluster, path: &str) {
    for _ in 0..1000 {
        if cluster.get(path).await.code == StatusCode::NOT_FOUND {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{path} is still there");
}

#[tokio::test]
async fn a_secret_for_a_service_account_is_given_a_token_that_ends_with_either() {
    let cluster = Cluster::start().await;
    let mut nameless = legacy("x", "robot");
    nameless["metadata"]["annotations"] = json!({});
    let refused = cluster.post(SECRETS, nameless).await;
    assert_eq!(
        refused.message(),
        "Secret \"x\" is invalid: metadata.annotations[kubernetes.io/service-account.name]: Required \
         value"
    );
    let made = cluster.post(ACCOUNTS, account("robot")).await.expect(201);
    cluster
        .post(SECRETS, legacy("one", "robot"))
        .await
        .expect(201);
    cluster
        .post(SECRETS, legacy("two", "robot"))
        .await
        .expect(201);
    let secret = filled(&cluster, "one").await;
    let plain = |secret: &Value, key: &str| {
        let engine = base64::engine::general_purpose::STANDARD;
        let bytes = engine.decode(text(&secret["data"][key])).expect("base64");
        String::from_utf8(bytes).expect("text")
    };
    assert_eq!(plain(&secret, "namespace"), "default");
    let uid = &made["metadata"]["uid"];
    let annotations = &secret["metadata"]["annotations"];
    assert_eq!(&annotations["kubernetes.io/service-account.uid"], uid);
    let (one, two) = (
        plain(&secret, "token"),
        plain(&filled(&cluster, "two").await, "token"),
    );
    let me = cluster.whoami(&one).await.expect(201);
    let name = &me["status"]["userInfo"]["username"];
    assert_eq!(name, "system:serviceaccount:default:robot");
    assert_eq!(cluster.status_of(&two).await, 201);
    // Another token in the Secret, or no Secret: the first one is over.
    let other = json!({"data": {"token": "YQ=="}});
    cluster
        .merge(&format!("{SECRETS}/one"), other)
        .await
        .expect(200);
    assert_eq!(cluster.status_of(&one).await, 401);
    cluster
        .delete(&format!("{ACCOUNTS}/robot"))
        .await
        .expect(200);
    assert_eq!(cluster.status_of(&two).await, 401);
    gone(&cluster, &format!("{SECRETS}/two")).await;
    // One for a ServiceAccount that there is not is removed at once.
    cluster
        .post(SECRETS, legacy("three", "nobody"))
        .await
        .expect(201);
    gone(&cluster, &format!("{SECRETS}/three")).await;
}
