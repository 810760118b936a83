//! The `sig-auth` conformance tests that Kubernetes has got since 1.20, as far as a server without nodes shows
//! them; the comment of each is the name of the one that it stands for. These stand elsewhere:
//!
//! | conformance test | here |
//! |---|---|
//! | ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer | `service_account_tokens`, `others_find_issuer_and_keys_if_the_issuer_is_a_url` |
//! | ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace | `tests/tests/conformance_since/auth.rs` |
//! | SubjectReview should support SubjectReview API operations | `rights`, `reviews_of_access_say_whether_and_why` |
//! | ClusterTrustBundle should be able to mount …, should prevent a pod from starting … | `agent/pod/worker_volume_tests.rs`, `agent/volumes/projected_tests.rs` |
//!
//! PodCertificateRequest and the projected `podCertificate` came with Kubernetes 1.34 and are not here: this server
//! serves the pods of 1.33, which have no such field, and says so to whoever writes it
//! (`a_projected_certificate_of_a_pod_is_an_unknown_field`).

use sys::certificates::Authority;

use super::conformance::Operations;
use super::*;

const BUNDLES: &str = "/apis/certificates.k8s.io/v1/clustertrustbundles";

fn authority() -> String {
    let made = Authority::create("test", jiff::Timestamp::now());
    made.expect("an authority").certificate().to_owned()
}

fn bundle(name: &str, signer: &str) -> Value {
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle",
        "metadata": {"name": name}, "spec": {"signerName": signer, "trustBundle": authority()}})
}

/// ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview
#[tokio::test]
async fn a_token_of_a_new_service_account_is_reviewed_as_its_own() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "e2e"}});
    cluster.post(accounts, account).await.expect(201);
    let asked =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let given = cluster.post(&format!("{accounts}/e2e/token"), asked).await;
    let given = given.expect(201);
    let token = given["status"]["token"].as_str().expect("a token");
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let status = cluster.post(reviews, review).await.expect(201)["status"].clone();
    assert_eq!(status["authenticated"], true);
    assert_eq!(status.get("error"), None);
    let who = "system:serviceaccount:default:e2e";
    assert_eq!(status["user"]["username"], who);
}

/// ServiceAccounts should update a ServiceAccount
#[tokio::test]
async fn a_service_account_takes_an_update() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "e2e"}, "automountServiceAccountToken": false});
    let mut made = cluster.post(accounts, account).await.expect(201);
    made["automountServiceAccountToken"] = true.into();
    let one = format!("{accounts}/e2e");
    cluster.put(&one, made).await.expect(200);
    let read = cluster.get(&one).await.expect(200);
    assert_eq!(read["automountServiceAccountToken"], true);
}

/// ClusterTrustBundle CRUD Tests certificates.k8s.io/v1 ClusterTrustBundles
#[tokio::test]
async fn trust_bundles_support_all_operations_in_every_version() {
    for group_version in [
        "certificates.k8s.io/v1",
        "certificates.k8s.io/v1beta1",
        "certificates.k8s.io/v1alpha1",
    ] {
        let sample = json!({"apiVersion": group_version, "kind": "ClusterTrustBundle",
            "spec": {"trustBundle": authority()}});
        let operations = Operations {
            group_version,
            plural: "clustertrustbundles",
            sample,
            status: None,
        };
        operations.are_supported().await;
    }
}

#[tokio::test]
async fn bundles_are_found_by_their_signer() {
    let cluster = Cluster::start().await;
    for (name, signer) in [
        ("example.com:a:x", "example.com/a"),
        ("example.com:b:x", "example.com/b"),
    ] {
        cluster
            .post(BUNDLES, bundle(name, signer))
            .await
            .expect(201);
    }
    let found = format!("{BUNDLES}?fieldSelector=spec.signerName%3Dexample.com%2Fb");
    let list = cluster.get(&found).await.expect(200);
    let names: Vec<&Value> = list["items"].as_array().expect("items").iter().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0]["metadata"]["name"], "example.com:b:x");
}

/// ClusterTrustBundleAttest of Kubernetes: pods trust what stands in a signer's name.
#[tokio::test]
async fn nobody_vouches_for_a_signer_without_the_right_to_attest_for_it() {
    let cluster = Cluster::start().await;
    let bob = cluster.as_user(User::named("bob", Vec::new()));
    let rules = json!([{"apiGroups": ["certificates.k8s.io"], "verbs": ["*"],
        "resources": ["clustertrustbundles"]}]);
    certificates::grant(&cluster, "bob", "bundles", rules).await;
    let (mine, name) = ("example.com/mine", "example.com:mine:x");
    let refused = bob.post(BUNDLES, bundle(name, mine)).await;
    let said = "clustertrustbundles.certificates.k8s.io \"example.com:mine:x\" is forbidden: user not \
                permitted to attest for signerName \"example.com/mine\"";
    assert_eq!(refused.message(), said);
    refused.expect(403);
    cluster.post(BUNDLES, bundle(name, mine)).await.expect(201);
    let one = format!("{BUNDLES}/{name}");
    let other = json!({"spec": {"trustBundle": authority()}});
    bob.merge(&one, other.clone()).await.expect(403);
    // An older version leads nowhere else.
    let old = one.replace("/v1/", "/v1alpha1/");
    bob.merge(&old, other.clone()).await.expect(403);
    let without = json!({"spec": {"signerName": null, "trustBundle": authority()}});
    let code = bob.merge(&one, without).await.code.as_u16();
    assert!(matches!(code, 403 | 422), "{code}");
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    bob.merge(&one, labels).await.expect(200);
    // A bundle of nobody is read by no pod that asks for a signer's.
    bob.post(
        BUNDLES,
        json!({"metadata": {"name": "plain"}, "spec": {"trustBundle": authority()}}),
    )
    .await
    .expect(201);
    let signers = json!([{"apiGroups": ["certificates.k8s.io"], "verbs": ["attest"],
        "resources": ["signers"], "resourceNames": ["example.com/*"]}]);
    certificates::grant(&cluster, "bob", "attester", signers).await;
    bob.merge(&one, other).await.expect(200);
}

#[tokio::test]
async fn a_projected_certificate_of_a_pod_is_an_unknown_field() {
    let cluster = Cluster::start().await;
    let source = json!({"podCertificate": {"signerName": "example.com/mine", "keyType": "ED25519",
        "credentialBundlePath": "bundle.pem"}});
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "projected": {"sources": [source]}}]}});
    let refused = cluster
        .post(&format!("{PODS}?fieldValidation=Strict"), pod)
        .await;
    let said = r#"unknown field "spec.volumes[0].projected.sources[0].podCertificate""#;
    assert!(refused.message().contains(said), "{}", refused.body);
    refused.expect(400);
}
