//! Certificates by CertificateSigningRequest, from the question to the certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};

use super::remote::Setting;
use super::*;
use crate::authn::{MASTERS, NODES};
use sys::certificates::{Identity, der_of, ends, make_key, make_request, names_of, valid_at};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CLIENT: [&str; 2] = ["digital signature", "client auth"];
const SERVING: [&str; 2] = ["digital signature", "server auth"];

/// A request of a new key.
fn request(name: &str, signer: &str, who: &Identity, names: &[&str], usages: &[&str]) -> Value {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let pem = make_request(&make_key().expect("a key"), who, &names).expect("a request");
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": STANDARD.encode(pem), "usages": usages,
            "signerName": format!("kubernetes.io/{signer}"), "expirationSeconds": 3600,
            "username": "root", "groups": [MASTERS], "uid": "0"},
    })
}

fn path(name: &str, subresource: &str) -> String {
    format!("{REQUESTS}/{name}{subresource}")
}

/// What `kubectl certificate approve` sends.
async fn decide(cluster: &Cluster, name: &str, kind: &str) -> Answer {
    let mut csr = cluster.get(&path(name, "")).await.expect(200);
    csr["status"]["conditions"] = json!([{"type": kind, "status": "True",
        "reason": "KubectlApprove", "message": "by kubectl", "lastUpdateTime": null}]);
    cluster.put(&path(name, "/approval"), csr).await
}

/// The request, once it is so.
async fn until(cluster: &Cluster, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            let found = cluster.get(&path(name, "")).await;
            if is_so(&found.body) {
                return found.body;
            }
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.expect("the controller has done it")
}

async fn issued(cluster: &Cluster, name: &str) -> String {
    let csr = until(cluster, name, |csr| {
        csr["status"]["certificate"].is_string()
    })
    .await;
    let pem = csr["status"]["certificate"]
        .as_str()
        .expect("a certificate");
    String::from_utf8(STANDARD.decode(pem).expect("base64")).expect("PEM")
}

#[tokio::test]
async fn an_approved_request_is_signed_for_who_asked_and_as_long_as_was_asked() {
    let setting = Setting::start().await;
    let cluster = &setting.cluster;
    let ann = cluster.as_user(User::named("ann", vec!["dev".into(), MASTERS.into()]));
    let who = Identity::new("ann", &["dev"]);
    let body = request("ann", "kube-apiserver-client", &who, &[], &CLIENT);
    let made = ann.post(REQUESTS, body).await.expect(201);
    assert_eq!(made["spec"]["username"], "ann");
    let groups = json!(["dev", MASTERS, "system:authenticated"]);
    assert_eq!(made["spec"]["groups"], groups);
    assert_eq!(made["spec"].get("uid"), None);
    assert_eq!(made["status"], json!({}));
    let approved = decide(cluster, "ann", "Approved").await.expect(200);
    let condition = &approved["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string());
    let pem = issued(cluster, "ann").await;
    let der = der_of(&pem).expect("it reads");
    let holder = User::of_peer(&der).expect("a user");
    assert_eq!(
        (&*holder.name, &holder.groups[..]),
        ("ann", &["dev".to_owned()][..])
    );
    let now = Timestamp::now();
    assert!(valid_at(&der, now).expect("it reads"));
    let left = ends(&pem).expect("it reads").duration_since(now);
    assert!(left <= SignedDuration::from_hours(1) && left > SignedDuration::from_mins(50));
}

#[tokio::test]
async fn a_request_that_does_not_fit_its_signer_fails_and_a_denied_one_is_not_signed() {
    let setting = Setting::start().await;
    let cluster = &setting.cluster;
    let who = Identity::new("ann", &["dev"]);
    let body = request("ann", "kube-apiserver-client", &who, &[], &SERVING);
    cluster.post(REQUESTS, body).await.expect(201);
    decide(cluster, "ann", "Approved").await.expect(200);
    let failed = until(cluster, "ann", |csr| {
        csr["status"]["conditions"][1].is_object()
    })
    .await;
    let condition = &failed["status"]["conditions"][1];
    assert_eq!(condition["type"], "Failed");
    assert_eq!(condition["reason"], "SignerValidationFailure");
    assert_eq!(
        condition["message"],
        "invalid usage for client certificate: server auth"
    );
    assert_eq!(failed["status"].get("certificate"), None);
    let body = request("denied", "kube-apiserver-client", &who, &[], &CLIENT);
    cluster.post(REQUESTS, body).await.expect(201);
    decide(cluster, "denied", "Denied").await.expect(200);
    let denied = decide(cluster, "denied", "Approved").await;
    assert_eq!(denied.code.as_u16(), 422, "{}", denied.body);
}

#[tokio::test]
async fn a_server_of_a_node_gets_the_names_that_it_asks_for() {
    let setting = Setting::start().await;
    let cluster = &setting.cluster;
    let who = Identity::new("system:node:a", &[NODES]);
    let body = request("a", "kubelet-serving", &who, &["a", "10.0.0.7"], &SERVING);
    cluster.post(REQUESTS, body).await.expect(201);
    decide(cluster, "a", "Approved").await.expect(200);
    let pem = issued(cluster, "a").await;
    assert_eq!(names_of(&pem).expect("names"), ["10.0.0.7", "a"]);
}

/// The caller has every right, so the rights for nodes' certificates as well.
#[tokio::test]
async fn a_nodes_client_certificate_is_approved_for_who_may_have_it() {
    let setting = Setting::start().await;
    let cluster = &setting.cluster;
    let who = Identity::new("system:node:a", &[NODES]);
    let body = request("a", "kube-apiserver-client-kubelet", &who, &[], &CLIENT);
    cluster.post(REQUESTS, body).await.expect(201);
    issued(cluster, "a").await;
    let csr = cluster.get(&path("a", "")).await.expect(200);
    let condition = &csr["status"]["conditions"][0];
    assert_eq!(condition["reason"], "AutoApproved");
    let said = "Auto approving kubelet client certificate after SubjectAccessReview.";
    assert_eq!(condition["message"], said);
}

#[tokio::test]
async fn nobody_asks_for_the_administrators_group_or_with_anothers_signature() {
    let cluster = Cluster::start().await;
    let who = Identity::new("ann", &[MASTERS]);
    let body = request("ann", "kube-apiserver-client", &who, &[], &CLIENT);
    let refused = cluster.post(REQUESTS, body).await;
    assert_eq!(
        refused.message(),
        "certificatesigningrequests.certificates.k8s.io \"ann\" is forbidden: use of \
         kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    );
    refused.expect(403);
    let who = Identity::new("ann", &["dev"]);
    let mut body = request("ann", "kube-apiserver-client", &who, &[], &CLIENT);
    let pem = body["spec"]["request"].as_str().expect("a request");
    let pem = String::from_utf8(STANDARD.decode(pem).expect("base64")).expect("PEM");
    let mut lines: Vec<&str> = pem.lines().collect();
    let der = STANDARD.decode(lines[1..lines.len() - 1].concat());
    let mut der = der.expect("base64");
    let place = der.windows(3).position(|it| it == b"ann").expect("a name");
    der[place..place + 3].copy_from_slice(b"bob");
    let forged = STANDARD.encode(der);
    lines.splice(1..lines.len() - 1, [forged.as_str()]);
    body["spec"]["request"] = STANDARD.encode(lines.join("\n") + "\n").into();
    let refused = cluster.post(REQUESTS, body).await;
    assert!(refused.message().contains("the signature does not fit"));
    refused.expect(422);
}

#[tokio::test]
async fn a_node_asks_for_its_own_certificates_only() {
    let cluster = Cluster::start().await;
    // The rights of a node to ask at all are another matter.
    let groups = vec![NODES.to_owned(), MASTERS.to_owned()];
    let node = cluster.as_user(User::named("system:node:a", groups));
    for (signer, usages) in [
        ("kube-apiserver-client-kubelet", &CLIENT),
        ("kubelet-serving", &SERVING),
    ] {
        let other = Identity::new("system:node:b", &[NODES]);
        let body = request("b", signer, &other, &["b"], usages);
        let refused = node.post(REQUESTS, body).await;
        let said = "can only create a node CSR with CN=system:node:a";
        assert!(refused.message().ends_with(said), "{}", refused.body);
        refused.expect(403);
        let own = Identity::new("system:node:a", &[NODES]);
        let body = request(signer, signer, &own, &["a"], usages);
        node.post(REQUESTS, body).await.expect(201);
    }
}

/// Gives a user these rules in the whole cluster.
pub async fn grant(cluster: &Cluster, user: &str, name: &str, rules: Value) {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name}, "rules": rules});
    let path = format!("{rbac}/clusterroles");
    cluster.post(&path, role).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
    let path = format!("{rbac}/clusterrolebindings");
    cluster.post(&path, binding).await.expect(201);
}

#[tokio::test]
async fn who_may_write_approvals_and_certificates_needs_the_right_to_the_signer_too() {
    let setting = Setting::start().await;
    let cluster = &setting.cluster;
    let bob = cluster.as_user(User::named("bob", Vec::new()));
    let all = json!([{"apiGroups": ["certificates.k8s.io"], "verbs": ["*"], "resources": [
        "certificatesigningrequests", "certificatesigningrequests/approval",
        "certificatesigningrequests/status"]}]);
    grant(cluster, "bob", "requests", all).await;
    let who = Identity::new("ann", &["dev"]);
    let body = request("ann", "kube-apiserver-client", &who, &[], &CLIENT);
    bob.post(REQUESTS, body).await.expect(201);
    let refused = |verb: &str| {
        format!(
            "certificatesigningrequests.certificates.k8s.io \"ann\" is forbidden: user not \
             permitted to {verb} requests with signerName \"kubernetes.io/kube-apiserver-client\""
        )
    };
    let answer = decide(&bob, "ann", "Approved").await;
    assert_eq!(answer.message(), refused("approve"));
    answer.expect(403);
    let pki = cluster.server.state.pki.as_ref().expect("certificates");
    let own = STANDARD.encode(pki.authority.certificate());
    let own = json!({"status": {"certificate": own}});
    let answer = bob.merge(&path("ann", "/status"), own).await;
    assert_eq!(answer.message(), refused("sign"));
    answer.expect(403);
    let signers = json!([{"apiGroups": ["certificates.k8s.io"], "verbs": ["approve"],
        "resources": ["signers"], "resourceNames": ["kubernetes.io/*"]}]);
    grant(cluster, "bob", "approver", signers).await;
    decide(&bob, "ann", "Approved").await.expect(200);
    issued(cluster, "ann").await;
}

#[tokio::test]
async fn a_nodes_request_is_approved_by_the_rights_of_who_asked_and_by_no_other() {
    let setting = Setting::start().await;
    let cluster = &setting.cluster;
    let asking = json!([{"apiGroups": ["certificates.k8s.io"], "verbs": ["create"],
        "resources": ["certificatesigningrequests"]}]);
    let any = json!([{"apiGroups": ["certificates.k8s.io"], "verbs": ["create"],
        "resources": ["certificatesigningrequests", "certificatesigningrequests/nodeclient"]}]);
    grant(cluster, "eve", "asking", asking).await;
    grant(cluster, "bob", "bootstrap", any).await;
    let who = Identity::new("system:node:a", &[NODES]);
    for asker in ["eve", "bob"] {
        let user = cluster.as_user(User::named(asker, Vec::new()));
        let body = request(asker, "kube-apiserver-client-kubelet", &who, &[], &CLIENT);
        user.post(REQUESTS, body).await.expect(201);
    }
    // The requests are looked at in their order.
    issued(cluster, "bob").await;
    let eve = cluster.get(&path("eve", "")).await.expect(200);
    assert_eq!(eve["status"], json!({}));
}
