//! The volumes of a pod while it runs, with the stage of the worker's tests.

use std::path::Path;

use super::*;
use ::api::kinds::certificates::trust_bundle::merged;

/// A container with a volume of the ConfigMap `conf` and one of the pod's label `key`.
fn spec() -> Value {
    let field = json!({ "fieldPath": "metadata.labels['key']" });
    json!({
        "containers": [{ "name": "main", "image": "i:1", "volumeMounts": [
            { "name": "conf", "mountPath": "/conf" },
        ]}],
        "volumes": [{ "name": "conf", "configMap": { "name": "conf" } }, {
            "name": "field",
            "projected": { "sources": [
                { "downwardAPI": { "items": [{ "path": "key", "fieldRef": field }] } },
            ]},
        }],
    })
}

fn only_config_map() -> Value {
    let mut spec = spec();
    spec["volumes"].as_array_mut().expect("a list").truncate(1);
    spec
}

fn conf(value: &str) -> Value {
    json!({ "data": { "key": value } })
}

fn volume(stage: &Stage, path: &str) -> Option<String> {
    let volumes = stage.node.data_dir.join("pods/u1").join(path);
    std::fs::read_to_string(volumes).ok()
}

fn waiting(stage: &Stage) -> Value {
    stage.status()["containerStatuses"][0]["state"]["waiting"]["reason"].clone()
}

async fn running(api: &FakeApi, spec: Value) -> Stage {
    let stage = Stage::with_objects(runtime(), spec, api.clone());
    stage.list();
    let what = |it: &Stage| it.status()["phase"] == "Running";
    stage.until("running", what).await;
    stage
}

#[tokio::test]
async fn a_pod_waits_for_its_config_map_and_starts_at_once_when_it_is_made() {
    let api = FakeApi::default();
    let stage = Stage::with_objects(runtime(), only_config_map(), api.clone());
    let held = |it: &Stage| waiting(it) == "ContainerCreating" && it.running(Role::Sandbox) == 1;
    stage.until("held", held).await;
    let failed = |it: &Stage| {
        let told = it.told.lock().expect("whole");
        let mut events = told.iter().map(|(_, _, body)| body);
        events.any(|it| it["reason"] == "FailedMount" && it["involvedObject"]["uid"] == "u1")
    };
    stage.until("told of", failed).await;
    assert_eq!(stage.running(Role::Main), 0);
    let made = Instant::now();
    api.put("configmaps", "conf", conf("one"));
    // Nobody else wakes the worker.
    let deadline = made + PATIENCE;
    while stage.running(Role::Main) == 0 {
        assert!(Instant::now() < deadline, "never started");
        tokio::task::yield_now().await;
    }
    let took = made.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(volume(&stage, "volumes/conf/key").as_deref(), Some("one"));
}

#[tokio::test]
async fn an_update_of_an_object_reaches_the_files_of_a_pod_that_runs_and_of_one_that_was_adopted() {
    let api = FakeApi::default();
    api.put("configmaps", "conf", conf("one"));
    let stage = running(&api, only_config_map()).await;
    let file = "volumes/conf/key";
    assert_eq!(volume(&stage, file).as_deref(), Some("one"));
    api.put("configmaps", "conf", conf("two"));
    let follows =
        |wanted: &'static str| move |it: &Stage| volume(it, file).as_deref() == Some(wanted);
    stage.until("two", follows("two")).await;
    stage.worker.abort();
    stage.until("unfollowed", |_| api.watches() == 0).await;
    api.put("configmaps", "conf", conf("three"));
    let receiver = stage.updates.subscribe();
    let second = tokio::spawn(run(stage.node.clone(), receiver, stage.wake.clone()));
    stage.until("three", follows("three")).await;
    api.put("configmaps", "conf", conf("four"));
    stage.until("four", follows("four")).await;
    api.delete("configmaps", "conf");
    let failed = |it: &Stage| {
        let told = it.told.lock().expect("whole");
        told.iter()
            .any(|(_, _, body)| body["reason"] == "FailedMount")
    };
    stage.until("told of", failed).await;
    assert_eq!(volume(&stage, file).as_deref(), Some("four"));
    assert_eq!(stage.node.runtime.all().len(), 2, "nothing was restarted");
    second.abort();
}

/// The projected volume is a tmpfs: this needs root, as the whole of CI has.
#[tokio::test]
async fn an_update_of_the_pods_own_labels_reaches_its_files() {
    let api = FakeApi::default();
    api.put("configmaps", "conf", conf("one"));
    let stage = running(&api, spec()).await;
    let label = |value: &str| {
        stage.updates.send_modify(|update| {
            let mut pod = Pod::clone(&update.pod);
            let labels = [("key".to_owned(), value.to_owned())];
            pod.metadata.labels = Some(labels.into());
            update.pod = Arc::new(pod);
        });
    };
    for value in ["a", "b"] {
        label(value);
        let follows = |it: &Stage| volume(it, "memory/field/key").as_deref() == Some(value);
        stage.until(value, follows).await;
    }
    stage.delete(0);
    stage.until("confirmed", Stage::confirmed).await;
    assert!(!Path::new(&stage.node.data_dir).join("pods/u1").exists());
}

/// A pod with a token of that audience that lives for so many seconds.
fn with_token(audience: &str, seconds: i64) -> Value {
    json!({
        "serviceAccountName": "robot",
        "containers": [{ "name": "main", "image": "i:1", "volumeMounts": [
            { "name": "t", "mountPath": "/t" },
        ]}],
        "volumes": [{ "name": "t", "projected": { "sources": [
            { "serviceAccountToken": { "path": "token", "audience": audience,
                "expirationSeconds": seconds } },
        ]}}],
    })
}

/// The projected volume is a tmpfs: this needs root, as the whole of CI has.
#[tokio::test]
async fn a_token_is_bound_to_the_pod_and_exchanged_before_it_ends() {
    let stage = running(&FakeApi::default(), with_token("vault", 1)).await;
    let file = "memory/t/token";
    let first = volume(&stage, file).expect("a token");
    assert!(first.starts_with("token-"), "{first}");
    {
        let told = stage.told.lock().expect("whole");
        let mut requests = told.iter().filter(|(_, path, _)| path.ends_with("/token"));
        let (method, path, body) = requests.next().expect("a request");
        assert_eq!(method, "POST");
        assert_eq!(
            path,
            "/api/v1/namespaces/default/serviceaccounts/robot/token"
        );
        assert_eq!(
            body["spec"],
            json!({ "audiences": ["vault"], "expirationSeconds": 1, "boundObjectRef":
                { "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u1" } })
        );
    }
    let exchanged = |it: &Stage| volume(it, file).is_some_and(|token| token != first);
    stage.until("exchanged", exchanged).await;
    assert_eq!(stage.running(Role::Main), 1, "nothing was restarted");
    stage.delete(0);
    stage.until("confirmed", Stage::confirmed).await;
}

#[tokio::test]
async fn a_pod_waits_for_its_token() {
    let stage = Stage::with_objects(runtime(), with_token("nobody", 600), FakeApi::default());
    stage.list();
    let failed = |it: &Stage| {
        let told = it.told.lock().expect("whole");
        let mut events = told.iter().map(|(_, _, body)| body);
        events.any(|it| {
            it["message"]
                == "MountVolume.SetUp failed for volume \"t\" : failed to fetch token: the server's \
                    answer has no token"
        })
    };
    stage.until("told of", failed).await;
    assert_eq!(stage.running(Role::Main), 0);
    assert_eq!(waiting(&stage), "ContainerCreating");
}

#[tokio::test]
async fn a_pod_that_has_ended_follows_nothing() {
    let api = FakeApi::default();
    api.put("configmaps", "conf", conf("one"));
    let mut spec = only_config_map();
    spec["restartPolicy"] = json!("Never");
    let stage = running(&api, spec).await;
    assert_eq!(api.watches(), 1);
    stage.node.runtime.end("main", 0, Timestamp::now());
    stage
        .until("ended", |it| it.status()["phase"] == "Succeeded")
        .await;
    stage.until("unfollowed", |_| api.watches() == 0).await;
    let volumes = stage.node.data_dir.join("pods/u1/volumes");
    stage.until("given back", |_| !volumes.exists()).await;
}

#[tokio::test]
async fn an_evicted_pod_fails_with_the_reason_and_its_containers_end_soon() {
    let spec = json!({
        "terminationGracePeriodSeconds": 3600,
        "containers": [{ "name": "main", "image": "i:1" }],
        "volumes": [{ "name": "e", "emptyDir": { "sizeLimit": "1Mi" } }],
    });
    let stage = running(&FakeApi::default(), spec).await;
    stage.node.runtime.be_stubborn();
    let volume = stage.node.data_dir.join("pods/u1/volumes/e/big");
    std::fs::write(volume, vec![1; 2 << 20]).expect("written");
    stage.until("ended", |it| it.running(Role::Main) == 0).await;
    stage
        .until("failed", |it| it.status()["phase"] == "Failed")
        .await;
    assert_eq!(stage.status()["reason"], "Evicted");
    assert_eq!(
        stage.status()["message"],
        "Usage of EmptyDir volume \"e\" exceeds the limit \"1Mi\". "
    );
    let told = |it: &Stage| {
        let told = it.told.lock().expect("whole");
        let mut events = told.iter().map(|(_, _, body)| body);
        events.any(|it| it["reason"] == "Evicted" && it["involvedObject"]["uid"] == "u1")
    };
    stage.until("told of", told).await;
}

/// A pod with an emptyDir at that path, of an image in which `/x` leads to `/dev`, `/run` has another name,
/// and `/cwd` leads to a descriptor.
fn linked(path: &str, more: Value) -> Stage {
    let runtime = runtime();
    runtime.add_link("i:1", "/x", "/dev");
    runtime.add_link("i:1", "/var/run", "/run");
    runtime.add_link("i:1", "/cwd", "/proc/self/fd/7");
    let mut container = json!({ "name": "main", "image": "i:1", "volumeMounts": [
        { "name": "e", "mountPath": "/run" },
        { "name": "f", "mountPath": path },
    ]});
    for (field, value) in more.as_object().expect("an object") {
        container[field] = value.clone();
    }
    let volumes = json!([{ "name": "e", "emptyDir": {} }, { "name": "f", "emptyDir": {} }]);
    let spec = json!({ "containers": [container], "volumes": volumes });
    Stage::new(runtime, spec)
}

async fn refused(stage: &Stage) -> String {
    let what = |it: &Stage| waiting(it) == "CreateContainerConfigError";
    stage.until("refused", what).await;
    assert_eq!(stage.running(Role::Main), 0);
    let state = &stage.status()["containerStatuses"][0]["state"]["waiting"];
    state["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_link_of_an_image_puts_no_volume_over_what_the_engine_hides() {
    let stage = linked("/x", json!({}));
    let said = refused(&stage).await;
    let field = "spec.containers[0].volumeMounts[1].mountPath: ";
    assert!(said.starts_with(field), "{said}");
    let stage = linked("/f", json!({ "terminationMessagePath": "/x/null" }));
    let said = refused(&stage).await;
    assert!(said.contains("terminationMessagePath: "), "{said}");
    let stage = linked("/f", json!({ "workingDir": "/cwd" }));
    let said = refused(&stage).await;
    assert!(said.starts_with("workingDir: "), "{said}");
}

/// The volumes are joined: this needs root, as the whole of CI has.
#[tokio::test]
async fn the_engine_is_given_paths_without_links_and_no_mount_inside_another() {
    let stage = linked("/var/run/f", json!({}));
    let what = |it: &Stage| it.running(Role::Main) == 1;
    stage.until("running", what).await;
    let spec = stage.node.runtime.spec("main").expect("a spec");
    let mut targets: Vec<&str> = spec.mounts.iter().map(|it| it.target.as_str()).collect();
    targets.sort_unstable();
    let own = [
        "/dev/termination-log",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/run",
    ];
    assert_eq!(targets, own);
    assert_eq!(spec.image_id, "sha256:i:1");
    stage.delete(0);
    stage.until("confirmed", Stage::confirmed).await;
}

#[tokio::test]
async fn a_volume_that_the_image_asks_for_lies_in_none_of_the_pod_and_covers_nothing() {
    for (volume, taken) in [
        ("/dev", false),
        ("/x", false),
        ("/run/inside", false),
        ("/var/run/inside", false),
        ("/var/run", false),
        ("/run", true),
        ("/data", true),
    ] {
        let stage = linked("/f", json!({}));
        stage.node.runtime.add_image_volume("i:1", volume);
        match taken {
            true => stage.until(volume, |it| it.running(Role::Main) == 1).await,
            false => {
                let said = refused(&stage).await;
                assert!(said.contains("the image's own volume"), "{said}");
            }
        }
    }
}

/// An image `files` as the pod's volume, at `/data`.
fn image_volume(policy: &str) -> Value {
    let mount = json!({ "name": "data", "mountPath": "/data" });
    json!({
        "containers": [{ "name": "main", "image": "i:1", "volumeMounts": [mount] }],
        "volumes": [{ "name": "data",
            "image": { "reference": "files", "pullPolicy": policy } }],
    })
}

/// An archive with one file.
fn archive(name: &str, text: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_uid(u64::from(nix::unistd::getuid().as_raw()));
    header.set_gid(u64::from(nix::unistd::getgid().as_raw()));
    let mut builder = tar::Builder::new(Vec::new());
    let added = builder.append_data(&mut header, name, text.as_bytes());
    added.expect("an entry");
    builder.into_inner().expect("whole")
}

#[tokio::test]
async fn an_image_is_a_volume_that_no_container_writes_and_goes_with_its_pod() {
    let runtime = runtime();
    runtime.add_image("files");
    runtime.add_archive("files", archive("dir/file", "in the image"));
    let stage = Stage::new(runtime, image_volume("IfNotPresent"));
    let is_running = |it: &Stage| it.status()["phase"] == "Running";
    stage.until("running", is_running).await;
    let spec = stage.node.runtime.spec("main").expect("a container");
    let mount = spec.mounts.iter().find(|mount| mount.target == "/data");
    let mount = mount.expect("a mount");
    assert!(mount.read_only);
    let text = std::fs::read_to_string(mount.source.join("dir/file")).expect("a file");
    assert_eq!(text, "in the image");
    stage.delete(0);
    stage.until("confirmed", Stage::confirmed).await;
    assert!(!mount.source.exists());
}

/// By its name in Kubernetes' conformance tests.
#[tokio::test]
async fn image_volume_should_succeed_with_pod_and_pull_policy_of_always() {
    let runtime = runtime();
    runtime.add_private("files", "");
    runtime.add_archive("files", archive("file", "pulled"));
    let stage = Stage::new(runtime, image_volume("Always"));
    let is_running = |it: &Stage| it.status()["phase"] == "Running";
    stage.until("running", is_running).await;
    let spec = stage.node.runtime.spec("main").expect("a container");
    let mount = spec.mounts.iter().find(|mount| mount.target == "/data");
    let file = mount.expect("a mount").source.join("file");
    assert_eq!(std::fs::read_to_string(file).expect("a file"), "pulled");
}

#[tokio::test]
async fn an_image_that_is_not_there_and_not_pulled_keeps_its_pod_from_starting() {
    let stage = Stage::new(runtime(), image_volume("Never"));
    let waits = |it: &Stage| waiting(it) == "ErrImageNeverPull";
    stage.until("waiting", waits).await;
    assert_eq!(stage.running(Role::Main), 0);
}

/// A bundle of `example.com/mine` with that authority, and with the label.
fn bundle(pem: &str, label: &str) -> Value {
    json!({ "apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle",
        "metadata": { "labels": { "alive": label } },
        "spec": { "signerName": "example.com/mine", "trustBundle": format!("text\n{pem}") } })
}

/// A pod with one file for each of these sources.
fn with_bundles(sources: &[Value]) -> Value {
    let sources = sources.iter().enumerate().map(|(number, source)| {
        let mut source = source.clone();
        source["path"] = json!(format!("{number}.pem"));
        json!({ "clusterTrustBundle": source })
    });
    let sources: Vec<Value> = sources.collect();
    json!({
        "containers": [{ "name": "main", "image": "i:1", "volumeMounts": [
            { "name": "t", "mountPath": "/t" },
        ]}],
        "volumes": [{ "name": "t", "projected": { "sources": sources } }],
    })
}

fn authority() -> String {
    let made = sys::certificates::Authority::create("test", Timestamp::now());
    made.expect("an authority").certificate().to_owned()
}

/// `[sig-auth] ClusterTrustBundle … should be able to mount a single ClusterTrustBundle by name`, `… can combine
/// all signer CTBs with an empty label selector`, `… with signer name and label selector`.
#[tokio::test]
async fn trust_bundles_by_name_and_by_signer_are_files_of_the_pod() {
    let api = FakeApi::default();
    let name = |number: usize| format!("example.com:mine:{number}");
    let (first, second) = (authority(), authority());
    api.put("clustertrustbundles", &name(0), bundle(&first, "yes"));
    api.put("clustertrustbundles", &name(1), bundle(&second, "no"));
    let signer = |selector: Value| json!({ "signerName": "example.com/mine", "labelSelector": selector, "optional": true });
    let sources = [
        json!({ "name": name(1) }),
        signer(json!({})),
        signer(json!({ "matchLabels": { "alive": "yes" } })),
        signer(json!({ "matchLabels": { "alive": "perhaps" } })),
        signer(Value::Null),
    ];
    let stage = running(&api, with_bundles(&sources)).await;
    let file = |number: usize| volume(&stage, &format!("memory/t/{number}.pem")).expect("a file");
    assert_eq!(file(0), merged([second.as_str()]));
    assert_eq!(file(1), merged([first.as_str(), &second]));
    assert_eq!(file(2), merged([first.as_str()]));
    assert_eq!((file(3), file(4)), (String::new(), String::new()));
}

#[tokio::test]
async fn a_change_of_a_trust_bundle_reaches_the_files_of_a_pod_that_runs() {
    let api = FakeApi::default();
    let name = |number: usize| format!("example.com:mine:{number}");
    let (first, second) = (authority(), authority());
    api.put("clustertrustbundles", &name(0), bundle(&first, "yes"));
    let alive = json!({ "matchLabels": { "alive": "yes" } });
    let sources = [
        json!({ "name": name(0), "optional": true }),
        json!({ "signerName": "example.com/mine", "labelSelector": alive, "optional": true }),
    ];
    let stage = running(&api, with_bundles(&sources)).await;
    let (one, both) = (
        merged([first.as_str()]),
        merged([first.as_str(), second.as_str()]),
    );
    let files = |stage: &Stage| {
        [0, 1].map(|number| volume(stage, &format!("memory/t/{number}.pem")).unwrap_or_default())
    };
    assert_eq!(files(&stage), [one.clone(), one.clone()]);
    // Nobody else wakes the worker: 2 s are the mark.
    let until = async |wanted: [&str; 2]| {
        let deadline = Instant::now() + Duration::from_secs(2);
        while files(&stage) != wanted {
            assert!(Instant::now() < deadline, "{:?}", files(&stage));
            tokio::task::yield_now().await;
        }
    };
    api.put("clustertrustbundles", &name(1), bundle(&second, "yes"));
    until([&one, &both]).await;
    // Its labels do not fit any more.
    api.put("clustertrustbundles", &name(1), bundle(&second, "no"));
    until([&one, &one]).await;
    api.put("clustertrustbundles", &name(0), bundle(&second, "yes"));
    let other = merged([second.as_str()]);
    until([&other, &other]).await;
    api.delete("clustertrustbundles", &name(0));
    until(["", ""]).await;
    stage.delete(0);
    stage.until("unfollowed", |_| api.watches() == 0).await;
}

/// `[sig-auth] ClusterTrustBundle … should be able to mount a big number (>100) of CTBs`.
#[tokio::test]
async fn a_pod_has_more_than_a_hundred_trust_bundles() {
    let api = FakeApi::default();
    let names: Vec<String> = (0..110).map(|n| format!("example.com:mine:{n}")).collect();
    let pem = authority();
    for name in &names {
        api.put("clustertrustbundles", name, bundle(&pem, "yes"));
    }
    let sources: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    let stage = running(&api, with_bundles(&sources)).await;
    for number in 0..names.len() {
        let text = volume(&stage, &format!("memory/t/{number}.pem"));
        assert_eq!(text, Some(merged([pem.as_str()])));
    }
}

/// `[sig-auth] ClusterTrustBundle … should prevent a pod from starting if: sets optional=false and no trust bundle
/// matches query`, `… the configured CTB does not exist`.
#[tokio::test]
async fn a_pod_waits_for_a_trust_bundle_that_is_not_optional() {
    let missing = json!({ "name": "none" });
    let of_nobody = json!({ "signerName": "example.com/none", "labelSelector": {} });
    for source in [missing, of_nobody] {
        let stage = Stage::with_objects(runtime(), with_bundles(&[source]), FakeApi::default());
        stage.list();
        let failed = |it: &Stage| {
            let told = it.told.lock().expect("whole");
            let mut events = told.iter().map(|(_, _, body)| body);
            events.any(|it| it["reason"] == "FailedMount" && it["involvedObject"]["uid"] == "u1")
        };
        stage.until("told of", failed).await;
        assert_eq!(stage.running(Role::Main), 0);
        assert_eq!(waiting(&stage), "ContainerCreating");
    }
}
