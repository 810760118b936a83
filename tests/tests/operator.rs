//! An operator as people write them with kube-rs: a kind of its own in two versions, with a rule in CEL
//! and a conversion webhook, kept by a controller; and what kubectl sees of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, Pki, ServerConfig};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::crd::merge_crds;
use kube::runtime::conditions;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::wait::await_condition;
use kube::runtime::watcher;
use kube::{Api, Client, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::MemoryStore;
use sys::certificates::{Authority, Identity, LEAF_VALIDITY, Usage};
use sys::tls::{ClientCertificate, ShownCertificate, server_config};
use sys::{Shutdown, Tasks};
use tests::cluster::kubectls;
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(60);

mod v1 {
    use super::*;

    #[derive(CustomResource, Clone, Debug, Serialize, Deserialize, JsonSchema)]
    #[kube(
        group = "library.example.com",
        version = "v1",
        kind = "Shelf",
        plural = "shelves",
        namespaced,
        status = "ShelfStatus",
        shortname = "shf",
        category = "library",
        printcolumn = r#"{"name":"Books","type":"integer","jsonPath":".spec.books"}"#
    )]
    pub struct ShelfSpec {
        pub books: i64,
        pub room: String,
    }

    #[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
    pub struct ShelfStatus {
        pub listed: i64,
    }
}

mod v1beta1 {
    use super::*;

    /// The room was called a place.
    #[derive(CustomResource, Clone, Debug, Serialize, Deserialize, JsonSchema)]
    #[kube(
        group = "library.example.com",
        version = "v1beta1",
        kind = "Shelf",
        plural = "shelves",
        namespaced,
        status = "super::v1::ShelfStatus",
        shortname = "shf",
        category = "library",
        printcolumn = r#"{"name":"Place","type":"string","jsonPath":".spec.place"}"#
    )]
    pub struct ShelfSpec {
        pub books: i64,
        pub place: String,
    }
}

use v1::Shelf;

/// A server on the loopback device.
struct Server {
    api: ApiServer,
    kubeconfig: PathBuf,
    shutdown: Shutdown,
    _directory: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = ApiServer::bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = listener.local_addr().expect("an address");
        let (pki, now) = (directory.path().join("pki"), Timestamp::now());
        let pki = Pki::load_or_create(&pki, &["127.0.0.1".to_owned()], LEAF_VALIDITY, now);
        let kubeconfig = directory.path().join("admin.kubeconfig");
        let pki = pki.expect("certificates");
        let pki = pki.with_kubeconfig(kubeconfig.clone(), &format!("https://{address}"));
        let config = ServerConfig {
            advertise: address,
            ..ServerConfig::default()
        };
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.clone());
        let api = ApiServer::build(config, Arc::new(MemoryStore::default()), pki.ok(), tasks);
        let api = api.await.expect("a server");
        let serving = api.clone();
        tokio::spawn(async move { serving.serve(vec![listener]).await });
        Self {
            api,
            kubeconfig,
            shutdown,
            _directory: directory,
        }
    }

    /// What a kubectl prints; one that fails ends the test.
    async fn kubectl(&self, program: &Path, words: &str) -> String {
        let (code, output) = self.try_kubectl(program, words).await;
        assert!(code, "{} {words}: {output}", program.display());
        output
    }

    async fn try_kubectl(&self, program: &Path, words: &str) -> (bool, String) {
        let mut command = Command::new(program);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        // Its cache would be of another server's discovery.
        command
            .arg("--cache-dir")
            .arg(self.kubeconfig.with_extension("cache"));
        command.args(words.split(' '));
        let ended = tokio::task::spawn_blocking(move || command.output());
        let ended = ended.await.expect("no panic").expect("it runs");
        let text = [ended.stdout, ended.stderr].concat();
        (
            ended.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// The kind in both versions, v1 stored, with a rule and the webhook that converts.
fn definition(converter: SocketAddr, authority: &str) -> CustomResourceDefinition {
    let both = merge_crds(vec![v1beta1::Shelf::crd(), Shelf::crd()], "v1").expect("they fit");
    let mut both = serde_json::to_value(both).expect("it writes");
    for version in both["spec"]["versions"].as_array_mut().expect("versions") {
        let spec = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        spec["x-kubernetes-validations"] = json!([
            {"rule": "self.books >= 0", "message": "no shelf lacks books"},
            {"rule": "self.books >= oldSelf.books - 10", "message": "at most ten leave at once"},
        ]);
    }
    both["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://localhost:{}/convert", converter.port()),
            "caBundle": STANDARD.encode(authority)},
    }});
    serde_json::from_value(both).expect("it reads")
}

/// Answers ConversionReviews over TLS. Answers where, and the certificate to trust.
async fn converter() -> (SocketAddr, String) {
    let authority = Authority::create("converter", Timestamp::now()).expect("an authority");
    let names = ["localhost".to_owned()];
    let who = Identity::new("converter", &[]);
    let shown = authority.issue(&who, &names, Usage::Server, Timestamp::now());
    let shown = ShownCertificate::new(&shown.expect("a certificate")).expect("it reads");
    let config = server_config(shown, authority.certificate(), ClientCertificate::Optional);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.expect("TLS")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.expect("TLS");
                let converting = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(convert));
                // The server may go away whenever it likes.
                let _ = converting.await;
            });
        }
    });
    (address, authority.certificate().to_owned())
}

async fn convert(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let mut review: Value = serde_json::from_slice(&body).expect("JSON");
    let wanted = review["request"]["desiredAPIVersion"].take();
    let mut objects = review["request"]["objects"].take();
    for object in objects.as_array_mut().expect("objects") {
        let (from, to) = match wanted.as_str() {
            Some("library.example.com/v1") => ("place", "room"),
            _ => ("room", "place"),
        };
        object["apiVersion"] = wanted.clone();
        let spec = object["spec"].as_object_mut().expect("a spec");
        if let Some(word) = spec.remove(from) {
            spec.insert(to.to_owned(), word);
        }
    }
    let answer = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": review["request"]["uid"], "convertedObjects": objects,
            "result": {"status": "Success"}}});
    let mut answer = Response::new(Full::from(answer.to_string()));
    let json = http::HeaderValue::from_static("application/json");
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    Ok(answer)
}

/// Keeps for each shelf a catalogue, a config map that it owns, and says in its status what is in it.
async fn reconcile(shelf: Arc<Shelf>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let namespace = shelf.namespace().unwrap_or_default();
    let catalogue = ConfigMap {
        metadata: kube::api::ObjectMeta {
            name: Some(format!("{}-catalogue", shelf.name_any())),
            owner_references: Some(shelf.controller_owner_ref(&()).into_iter().collect()),
            ..Default::default()
        },
        data: Some(BTreeMap::from([(
            "books".to_owned(),
            shelf.spec.books.to_string(),
        )])),
        ..Default::default()
    };
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), &namespace);
    let by = PatchParams::apply("librarian").force();
    maps.patch(&catalogue.name_any(), &by, &Patch::Apply(&catalogue))
        .await?;
    let shelves: Api<Shelf> = Api::namespaced((*client).clone(), &namespace);
    let status = json!({"apiVersion": Shelf::api_version(&()), "kind": "Shelf",
        "status": {"listed": shelf.spec.books}});
    shelves
        .patch_status(&shelf.name_any(), &by, &Patch::Apply(&status))
        .await?;
    Ok(Action::await_change())
}

/// Runs the operator until the server stops.
fn operate(client: &Client) {
    let shelves: Api<Shelf> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::all(client.clone());
    let controller = Controller::new(shelves, watcher::Config::default())
        .owns(maps, watcher::Config::default())
        .run(
            reconcile,
            |_, _, _| Action::requeue(Duration::from_millis(100)),
            Arc::new(client.clone()),
        );
    tokio::spawn(controller.for_each(|_| async {}));
}

async fn until<K>(api: &Api<K>, name: &str, condition: impl conditions::Condition<K>) -> Option<K>
where
    K: Clone + std::fmt::Debug + for<'de> Deserialize<'de> + Resource + Send + 'static,
{
    let met = tokio::time::timeout(PATIENCE, await_condition(api.clone(), name, condition)).await;
    met.expect("in time").expect("a watch")
}

fn shelf(name: &str, books: i64) -> Shelf {
    let room = "east".to_owned();
    Shelf::new(name, v1::ShelfSpec { books, room })
}

/// A server with the kind established and the operator at work.
async fn library() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.api.client("librarian");
    let (address, authority) = converter().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = definition(address, &authority);
    let by = PatchParams::apply("librarian");
    let name = definition.name_any();
    let applied = definitions
        .patch(&name, &by, &Patch::Apply(&definition))
        .await;
    applied.expect("the definition");
    until(&definitions, &name, conditions::is_crd_established()).await;
    operate(&client);
    (server, client)
}

fn message(refused: Result<Shelf, kube::Error>) -> String {
    match refused {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_keeps_what_its_kind_asks_for() {
    let (_server, client) = library().await;
    let shelves: Api<Shelf> = Api::default_namespaced(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let made = shelves.create(&PostParams::default(), &shelf("a", 3)).await;
    let made = made.expect("a shelf");
    let listed = |number: i64| {
        move |shelf: Option<&Shelf>| {
            shelf
                .and_then(|s| s.status.as_ref())
                .is_some_and(|s| s.listed == number)
        }
    };
    until(&shelves, "a", listed(3)).await;
    let catalogue = maps.get("a-catalogue").await.expect("a catalogue");
    assert_eq!(
        catalogue.owner_references()[0].uid,
        made.uid().expect("a uid")
    );
    let patch = json!({"spec": {"books": 5}});
    let by = PatchParams::default();
    let patched = shelves
        .patch("a", &by, &Patch::Merge(&patch))
        .await
        .expect("a patch");
    assert_eq!(patched.metadata.generation, Some(2));
    until(&shelves, "a", listed(5)).await;
    maps.delete("a-catalogue", &DeleteParams::default())
        .await
        .expect("deleted");
    until(&maps, "a-catalogue", |map: Option<&ConfigMap>| {
        map.is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_a_kind_refuse_what_breaks_them_in_every_version() {
    let (_server, client) = library().await;
    let shelves: Api<Shelf> = Api::default_namespaced(client.clone());
    let by = PostParams::default();
    let refused = message(shelves.create(&by, &shelf("a", -1)).await);
    assert!(refused.contains("spec: Invalid value"), "{refused}");
    assert!(refused.contains("no shelf lacks books"), "{refused}");
    shelves.create(&by, &shelf("a", 30)).await.expect("a shelf");
    let too_many = Patch::Merge(json!({"spec": {"books": 1}}));
    let refused = message(shelves.patch("a", &PatchParams::default(), &too_many).await);
    assert!(refused.contains("at most ten leave at once"), "{refused}");
    let old: Api<v1beta1::Shelf> = Api::default_namespaced(client);
    let place = "west".to_owned();
    let odd = v1beta1::Shelf::new("b", v1beta1::ShelfSpec { books: -1, place });
    assert!(old.create(&by, &odd).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_show_the_same_object() {
    let (_server, client) = library().await;
    let shelves: Api<Shelf> = Api::default_namespaced(client.clone());
    let old: Api<v1beta1::Shelf> = Api::default_namespaced(client);
    let by = PostParams::default();
    let place = "west".to_owned();
    let made = v1beta1::Shelf::new("a", v1beta1::ShelfSpec { books: 1, place });
    let made = old.create(&by, &made).await.expect("a shelf");
    let new = shelves.get("a").await.expect("a shelf");
    assert_eq!((new.spec.room.as_str(), new.uid()), ("west", made.uid()));
    shelves.create(&by, &shelf("b", 2)).await.expect("a shelf");
    let all = old.list(&Default::default()).await.expect("a list");
    let places: Vec<&str> = all.iter().map(|shelf| shelf.spec.place.as_str()).collect();
    assert_eq!(places, ["west", "east"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_works_with_a_custom_kind() {
    let (server, client) = library().await;
    let shelves: Api<Shelf> = Api::default_namespaced(client);
    let clients = kubectls();
    assert!(!clients.is_empty(), "no kubectl is on this machine");
    for (minor, program) in &clients {
        println!("kubectl 1.{minor}");
        let file = server.kubeconfig.with_file_name("shelf.json");
        let mut object = serde_json::to_value(shelf("a", 4)).expect("it writes");
        std::fs::write(&file, object.to_string()).expect("a file");
        let apply = format!("apply -f {}", file.display());
        let made = server.kubectl(program, &apply).await;
        assert!(
            made.contains("shelf.library.example.com/a created"),
            "{made}"
        );
        object["spec"]["books"] = 6.into();
        std::fs::write(&file, object.to_string()).expect("a file");
        let applied = server.kubectl(program, &apply).await;
        assert!(applied.contains("configured"), "{applied}");
        let got = server.kubectl(program, "get shf").await;
        assert!(got.contains("BOOKS") && got.contains('6'), "{got}");
        let old = server
            .kubectl(program, "get shelves.v1beta1.library.example.com")
            .await;
        assert!(old.contains("PLACE") && old.contains("east"), "{old}");
        let explained = server.kubectl(program, "explain shelf.spec").await;
        assert!(explained.contains("room"), "{explained}");
        let by_category = server.kubectl(program, "get library -o name").await;
        assert_eq!(by_category.trim(), "shelf.library.example.com/a");
        object["spec"]["books"] = (-1).into();
        std::fs::write(&file, object.to_string()).expect("a file");
        let (done, refused) = server.try_kubectl(program, &apply).await;
        assert!(
            !done && refused.contains("no shelf lacks books"),
            "{refused}"
        );
        server.kubectl(program, "delete shelf a").await;
        until(&shelves, "a", |shelf: Option<&Shelf>| shelf.is_none()).await;
    }
}
