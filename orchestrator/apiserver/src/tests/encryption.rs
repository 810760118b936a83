//! What the file of a store shows of Secrets, and what becomes of them when keys change.

use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::BuildError;
use crate::encryption::upkeep::{self, Place};
use crate::encryption::{EncryptedStore, Encryption};
use store::{EmbeddedStore, Revision, Store, Write};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// What is searched for; the API wants it in base64.
const PLAIN: &str = "VEhJUyBJUyBNT1NUIFNFQ1JFVCBvZiBhbGw=";

async fn server(place: &Place) -> Result<(ApiServer, Tasks), BuildError> {
    let is_new = !place.store.exists();
    let encryption = Encryption::load_or_create(&place.file, is_new).expect("a configuration");
    let store = EmbeddedStore::open(&place.store).expect("a store");
    let store = Arc::new(EncryptedStore::new(Arc::new(store), encryption));
    let tasks = Tasks::new(Shutdown::new());
    let server = ApiServer::build(ServerConfig::default(), store, None, tasks.clone()).await?;
    Ok((server, tasks))
}

async fn stop(server: ApiServer, tasks: Tasks, place: &Place) {
    tasks.shutdown().trigger();
    drop(server);
    assert!(tasks.finish(PATIENCE).await);
    // The last task of the server lets go of the store in its own time.
    for _ in 0..1000 {
        match EmbeddedStore::open(&place.store) {
            Ok(_) => return,
            Err(_) => tokio::task::yield_now().await,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the store stays open");
}

fn client(server: &ApiServer) -> Cluster {
    Cluster {
        server: server.clone(),
        user: User::internal("test"),
    }
}

fn secret(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"key": PLAIN}})
}

fn shows(file: &Path, text: &str) -> bool {
    let bytes = std::fs::read(file).expect("the file of the store");
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

fn place(directory: &tempfile::TempDir) -> Place {
    let place = Place::in_directory(directory.path(), None);
    std::fs::create_dir_all(place.file.parent().expect("a directory")).expect("made");
    place
}

fn data(answer: Answer) -> Value {
    answer.expect(200)["data"]["key"].clone()
}

#[tokio::test]
async fn the_file_of_a_new_cluster_shows_no_secret_and_clients_see_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = place(&directory);
    let (running, tasks) = server(&place).await.expect("a server");
    let cluster = client(&running);
    cluster.post(SECRETS, secret("s")).await.expect(201);
    let path = format!("{SECRETS}/s");
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    cluster.merge(&path, patch).await.expect(200);
    cluster.post(SECRETS, secret("gone")).await.expect(201);
    cluster.delete(&format!("{SECRETS}/gone")).await.expect(200);
    assert_eq!(data(cluster.get(&path).await), PLAIN);
    drop(cluster);
    stop(running, tasks, &place).await;
    assert!(!shows(&place.store, PLAIN), "the file shows a Secret");
    let (running, tasks) = server(&place).await.expect("a server");
    assert_eq!(data(client(&running).get(&path).await), PLAIN);
    stop(running, tasks, &place).await;
    let status = upkeep::status(&place).await.expect("a status");
    assert!(
        status.is_on && !status.secrets.contains_key(""),
        "{status:?}"
    );
}

#[tokio::test]
async fn a_key_is_rotated_with_everything_and_the_former_one_opens_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = place(&directory);
    let (running, tasks) = server(&place).await.expect("a server");
    client(&running)
        .post(SECRETS, secret("s"))
        .await
        .expect(201);
    stop(running, tasks, &place).await;
    let before = std::fs::read_to_string(&place.file).expect("a file");
    assert!(upkeep::rotate(&place).await.expect("rotated") > 0);
    let after = std::fs::read_to_string(&place.file).expect("a file");
    assert_ne!(before, after);
    let name = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.contains("name:"))
            .expect("a name");
        line.split_whitespace()
            .last()
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned()
    };
    // The key's name goes with every value; the name alone is no secret, and says what servers encrypt with.
    let sealed = format!(":{}:", name(&before));
    assert!(!after.contains(&name(&before)) && !shows(&place.store, &sealed));
    assert!(!shows(&place.store, PLAIN));
    let (running, tasks) = server(&place).await.expect("a server");
    assert_eq!(
        data(client(&running).get(&format!("{SECRETS}/s")).await),
        PLAIN
    );
    stop(running, tasks, &place).await;
    // The former key, and none.
    for text in [Some(before), None] {
        match text {
            Some(text) => std::fs::write(&place.file, text).expect("a file"),
            None => std::fs::remove_file(&place.file).expect("removed"),
        }
        let why = server(&place).await.err().expect("refused").to_string();
        let file = place.file.display().to_string();
        let named = why.contains("/registry/core/secrets/") && why.contains(&file);
        assert!(named && why.contains(&name(&after)), "{why}");
    }
}

#[tokio::test]
async fn an_old_store_is_read_and_its_secrets_are_encrypted_when_it_is_rewritten() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = place(&directory);
    drop(EmbeddedStore::open(&place.store).expect("a store"));
    let (running, tasks) = server(&place).await.expect("a server");
    client(&running)
        .post(SECRETS, secret("s"))
        .await
        .expect(201);
    let path = format!("{SECRETS}/s");
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    client(&running).merge(&path, patch).await.expect(200);
    stop(running, tasks, &place).await;
    assert!(shows(&place.store, PLAIN) && !place.file.exists());
    assert!(upkeep::rewrite(&place).await.expect("rewritten") > 0);
    assert!(!shows(&place.store, PLAIN), "the file shows a Secret");
    assert_eq!(upkeep::rewrite(&place).await.expect("rewritten"), 0);
    let (running, tasks) = server(&place).await.expect("a server");
    assert_eq!(data(client(&running).get(&path).await), PLAIN);
    stop(running, tasks, &place).await;
    assert!(upkeep::off(&place).await.expect("off") > 0);
    assert!(shows(&place.store, PLAIN));
    let status = upkeep::status(&place).await.expect("a status");
    assert!(!status.is_on && status.secrets.keys().all(String::is_empty));
    let (running, tasks) = server(&place).await.expect("a server");
    assert_eq!(data(client(&running).get(&path).await), PLAIN);
    stop(running, tasks, &place).await;
}

#[tokio::test]
async fn a_value_that_was_changed_or_moved_in_the_store_is_not_believed() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = place(&directory);
    let encryption = Encryption::load_or_create(&place.file, true).expect("a configuration");
    let inner: Arc<dyn Store> = Arc::new(store::MemoryStore::default());
    let store = EncryptedStore::new(inner.clone(), encryption);
    let (key, other) = ("/registry/core/secrets/a/b", "/registry/core/secrets/a/c");
    let any = store::Expect::Any;
    let write = Write::put(key, "plain", any);
    store.commit(vec![write]).await.expect("written");
    let sealed = inner.get(key).await.expect("read").expect("there").value;
    assert!(!sealed.windows(5).any(|window| window == b"plain"));
    let mut flipped = sealed.to_vec();
    *flipped.last_mut().expect("a byte") ^= 1;
    for (key, value) in [(key, Bytes::from(flipped)), (other, sealed)] {
        inner
            .commit(vec![Write::put(key, value, any)])
            .await
            .expect("written");
        let why = store.get(key).await.expect_err("not believed").to_string();
        assert!(
            why.contains(key) && why.contains("does not open it"),
            "{why}"
        );
        let mut nothing = |_: &str, _: Revision, _: &[u8]| {};
        assert!(store.visit(key, &mut nothing).await.is_err());
    }
}
