//! Who is given a node's certificate.

use jiff::Timestamp;
use serde_json::json;

use super::{Cluster, ServerConfig};
use crate::apiserver::{Pki, User};
use crate::sys::certificates::{Identity, make_request, names_of};

#[tokio::test]
async fn a_node_renews_its_own_certificate_by_the_one_that_it_has() {
    let directory = tempfile::tempdir().expect("a directory");
    let pki = Pki::load_or_create(
        directory.path(),
        &["localhost".to_owned()],
        Timestamp::now(),
    );
    let cluster = Cluster::build(ServerConfig::default(), pki.ok()).await;
    let node =
        |groups: &[&str]| User::from_certificate(Identity::new("system:node:node-1", groups));
    for (user, name, address, code) in [
        (node(&["system:nodes"]), "node-1", "172.31.0.99", 200),
        (node(&["system:nodes"]), "node-2", "172.31.0.99", 400),
        (node(&["system:nodes"]), "node-1", "10.96.0.1", 400),
        (node(&[]), "node-1", "172.31.0.99", 401),
        (User::anonymous(), "node-1", "172.31.0.99", 401),
    ] {
        let case = format!("{} {name} {address}", user.name);
        let names = [name.to_owned(), address.to_owned()];
        let identity = Identity::new(&format!("system:node:{name}"), &["system:nodes"]);
        let (_, request) = make_request(&identity, &names).expect("a request");
        let body = json!({ "nodeName": name, "csr": request });
        let asked = cluster.as_user(user);
        let answer = asked.post("/orchestrator/v1/join", body).await;
        assert_eq!(answer.code, code, "{case}: {:?}", answer.body);
        if code == 200 {
            let certificate = answer.body["certificate"].as_str().expect("a certificate");
            let mut named = names_of(certificate).expect("it reads");
            named.sort();
            assert_eq!(named, ["172.31.0.99", "node-1"], "{case}");
        }
    }
}
