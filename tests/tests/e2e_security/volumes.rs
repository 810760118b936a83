//! Volumes that the agent writes: what a container can change of them, and how updates arrive.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::cluster::wait;
use tests::scenarios::Scenario;

use crate::setting::Setting;

pub const SCENARIOS: &[Scenario<Setting>] = &[
    (
        "a_container_that_puts_links_into_what_the_agent_writes_changes_nothing_on_its_node",
        links,
    ),
    (
        "a_container_that_may_mount_leads_no_write_of_the_agent_out_of_its_volumes",
        links_after_remount,
    ),
    (
        "an_update_reaches_volumes_of_all_four_kinds_within_two_seconds_and_whole",
        updates,
    ),
    (
        "an_optional_object_comes_and_goes_and_a_needed_one_that_goes_leaves_its_contents",
        absent,
    ),
    (
        "modes_groups_and_file_systems_are_what_kubernetes_gives",
        modes,
    ),
    (
        "a_pod_waits_for_a_config_map_and_starts_when_it_is_made",
        missing,
    ),
    (
        "a_restarted_agent_brings_updates_to_pods_that_it_adopted",
        restart,
    ),
    (
        "a_pod_whose_volume_outgrows_its_limit_is_evicted",
        size_limit,
    ),
];

/// From the answer to the write to the file in the container.
const UPDATE_LIMIT: Duration = Duration::from_secs(2);
/// The volumes of [`pod`], by where they are mounted.
const KINDS: [&str; 4] = ["config", "secret", "downward", "projected"];

/// A pod on the first node with one volume of each kind that the agent writes, all from objects and
/// labels of the pod's own name.
fn pod(setting: &Setting, name: &str, script: &str) -> Value {
    let labels = json!({"path": "key", "fieldRef": {"fieldPath": "metadata.labels['key']"}});
    let mounts = KINDS.map(|kind| json!({"name": kind, "mountPath": format!("/v/{kind}")}));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"key": "one"}, "annotations": {"note": "one"}},
        "spec": {
            "nodeName": setting.cluster.node(1),
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "c",
                "image": "tools",
                "command": ["sh", "-c", script],
                "volumeMounts": mounts,
            }],
            "volumes": [
                {"name": "config", "configMap": {"name": name}},
                {"name": "secret", "secret": {"secretName": name}},
                {"name": "downward", "downwardAPI": {"items": [labels]}},
                {"name": "projected", "projected": {"sources": [
                    {"configMap": {"name": name, "items": [{"key": "key", "path": "dir/config"}]}},
                    {"secret": {"name": name, "items": [{"key": "key", "path": "dir/secret"}]}},
                    {"downwardAPI": {"items": [labels, {
                        "path": "note",
                        "fieldRef": {"fieldPath": "metadata.annotations['note']"},
                    }]}},
                ]}},
            ],
        },
    })
}

/// The objects that such a pod refers to.
fn objects(name: &str) -> [Value; 2] {
    ["ConfigMap", "Secret"].map(|kind| {
        let data = if kind == "Secret" {
            "stringData"
        } else {
            "data"
        };
        json!({
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {"name": name},
            data: {"key": "one", "goes": "x"},
        })
    })
}

fn create(setting: &Setting, objects: &[Value]) {
    for object in objects {
        setting.kubectl.given("create", object).unwrap();
    }
}

fn delete(setting: &Setting, name: &str) {
    let command = format!("delete pod,configmap,secret {name} --ignore-not-found --wait=true");
    setting.kubectl.run(&command).unwrap();
}

/// A file as the running container has it, read through the kernel.
fn seen(setting: &Setting, pod: &str, path: &str) -> Result<PathBuf> {
    let id = setting.cluster.container(pod, "c")?;
    let format = "{{.State.Pid}}";
    let pid = setting
        .cluster
        .docker(&["inspect", "--format", format, &id])?;
    Ok(PathBuf::from(format!("/proc/{}/root{path}", pid.trim())))
}

fn restarts(setting: &Setting, pod: &str) -> Result<u64> {
    let pointer = "/status/containerStatuses/0/restartCount";
    let count = setting.kubectl.field(&format!("pod {pod}"), pointer)?;
    Ok(count.parse()?)
}

fn running(setting: &Setting, pod: &str) {
    let command = format!("wait --for=condition=Ready pod/{pod} --timeout=60s");
    setting.kubectl.run(&command).unwrap();
}

/// Lets a container put links to a directory of the node into all its volumes and end, and the
/// agent start it again.
fn attack(setting: &Setting, name: &str, security: &Value, before: &str) -> String {
    let node = tempfile::tempdir().unwrap();
    let kept = node.path().join("kept");
    fs::write(&kept, "the node's").unwrap();
    let target = node.path().display();
    let script = format!(
        "cd /v; for v in *; do {before} \
         for f in key dir/config ..data ..data_tmp new; do \
         rm -rf $v/$f 2>/dev/null; \
         ln -s {target}/$(echo $v-$f | tr / -) $v/$f 2>/dev/null && echo planted $v/$f; \
         ln -sf {target}/kept $v/link-$v 2>/dev/null && echo planted $v/link; \
         done; done; \
         for v in *; do grep \" /v/$v \" /proc/mounts; done; exit 1"
    );
    let mut pod = pod(setting, name, &script);
    pod["spec"]["containers"][0]["securityContext"] = security.clone();
    create(setting, &objects(name));
    create(setting, &[pod]);
    wait("the agent starts the container again", || {
        Ok((restarts(setting, name)? >= 2).then_some(()))
    });
    let found: Vec<_> = fs::read_dir(node.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(found, ["kept"], "the agent wrote to the node");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "the node's");
    let said = setting.kubectl.run(&format!("logs {name} --previous"));
    delete(setting, name);
    said.unwrap()
}

fn links(setting: &Setting) {
    let said = attack(setting, "links", &json!({}), "");
    assert!(!said.contains("planted"), "{said}");
    for kind in KINDS {
        let mount = said
            .lines()
            .find(|line| line.contains(&format!(" /v/{kind} ")));
        let mount = mount.unwrap_or_else(|| panic!("{kind} is not mounted: {said}"));
        assert!(
            mount.contains(" ro,"),
            "{kind} is mounted read-only: {mount}"
        );
    }
}

/// It can change what is mounted; what the agent does is the same for it.
fn links_after_remount(setting: &Setting) {
    let before = "mount -o remount,rw,bind /v/$v;";
    let security = json!({"capabilities": {"add": ["SYS_ADMIN"]}});
    let said = attack(setting, "remounted", &security, before);
    let planted = said.contains("planted config/key");
    assert!(planted, "the attack was one: {said}");
}

/// Changes something and measures when the file in the container says so.
fn measure(setting: &Setting, pod: &str, file: &str, patch: (&str, &Value), wanted: &str) {
    let path = seen(setting, pod, file).unwrap();
    let (what, patch) = patch;
    let mut arguments = vec!["patch"];
    arguments.extend(what.split(' '));
    let patch = patch.to_string();
    arguments.extend(["--type=merge", "-p", &patch]);
    setting.kubectl.args(&arguments).unwrap();
    let written = Instant::now();
    wait(&format!("{file} says {wanted}"), || {
        let text = fs::read_to_string(&path).context("read the file")?;
        Ok((text == wanted).then_some(()))
    });
    let took = written.elapsed();
    println!("{file} followed after {took:?}");
    assert!(took < UPDATE_LIMIT, "{file} followed after {took:?}");
}

fn names(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with("..")).collect();
    names.sort();
    names
}

fn updates(setting: &Setting) {
    let name = "updates";
    create(setting, &objects(name));
    let mut pod = pod(setting, name, "exec sleep 3600");
    let mounts = &mut pod["spec"]["containers"][0]["volumeMounts"];
    let mounts = mounts.as_array_mut().unwrap();
    mounts.push(json!({"name": "config", "mountPath": "/single", "subPath": "key"}));
    create(setting, &[pod]);
    running(setting, name);
    let see = |path: &str| seen(setting, name, path).unwrap();
    let of = |path: &str| fs::read_to_string(see(path)).unwrap();
    for file in ["config/key", "secret/key", "downward/key"] {
        assert_eq!(of(&format!("/v/{file}")), "one", "{file}");
    }
    let data = fs::read_link(see("/v/config/key")).unwrap();
    assert_eq!(data, Path::new("..data/key"));

    let changed = |value: &str| json!({"data": {"key": value, "goes": null, "comes": value}});
    let follows = |file: &str, what: &str, patch: &Value, wanted: &str| {
        measure(setting, name, file, (what, patch), wanted);
    };
    let config = format!("configmap {name}");
    follows("/v/config/key", &config, &changed("two"), "two");
    assert_eq!(names(&see("/v/config")), ["comes", "key"]);
    let projected = "/v/projected/dir/config";
    follows(projected, &config, &changed("three"), "three");
    // "two", as a Secret's data has it.
    let secret = format!("secret {name}");
    follows("/v/secret/key", &secret, &changed("dHdv"), "two");
    assert_eq!(names(&see("/v/secret")), ["comes", "key"]);
    wait("the projected Secret follows as well", || {
        Ok((of("/v/projected/dir/secret") == "two").then_some(()))
    });
    let own = format!("pod {name}");
    let label = json!({"metadata": {"labels": {"key": "two"}}});
    follows("/v/downward/key", &own, &label, "two");
    let note = json!({"metadata": {"annotations": {"note": "two"}}});
    follows("/v/projected/note", &own, &note, "two");
    let single = of("/single");
    assert_eq!(single, "one", "a subPath stays until its container starts");
    assert_eq!(restarts(setting, name).unwrap(), 0);
    delete(setting, name);
}

fn absent(setting: &Setting) {
    let name = "absent";
    create(setting, &objects(name));
    let mut pod = pod(setting, name, "exec sleep 3600");
    let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
    volumes.push(json!({"name": "later", "configMap": {"name": "later", "optional": true}}));
    let mounts = &mut pod["spec"]["containers"][0]["volumeMounts"];
    let mounts = mounts.as_array_mut().unwrap();
    mounts.push(json!({"name": "later", "mountPath": "/v/later"}));
    create(setting, &[pod]);
    running(setting, name);
    let see = |path: &str| seen(setting, name, path).unwrap();
    assert_eq!(names(&see("/v/later")), Vec::<String>::new());
    let later = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later"},
        "data": {"key": "come"}});
    create(setting, &[later]);
    let made = Instant::now();
    let later = see("/v/later/key");
    wait("an optional object that was missing appears", || {
        Ok(Some(fs::read_to_string(&later)?))
    });
    assert!(made.elapsed() < UPDATE_LIMIT, "{:?}", made.elapsed());
    setting.kubectl.run("delete configmap later").unwrap();
    wait("an optional object that is deleted goes", || {
        Ok(names(&see("/v/later")).is_empty().then_some(()))
    });
    let delete_needed = format!("delete configmap {name}");
    setting.kubectl.run(&delete_needed).unwrap();
    wait("people are told that a needed object is gone", || {
        failed_mount(setting, name)
    });
    let kept = fs::read_to_string(see("/v/config/key")).unwrap();
    assert_eq!(kept, "one", "its last contents stay");
    delete(setting, name);
}

fn failed_mount(setting: &Setting, pod: &str) -> Result<Option<String>> {
    let selector = format!("--field-selector involvedObject.name={pod},reason=FailedMount");
    let events = setting.kubectl.json(&format!("get events {selector}"))?;
    let message = events.pointer("/items/0/message").and_then(Value::as_str);
    Ok(message.map(str::to_owned))
}

fn modes(setting: &Setting) {
    let name = "modes";
    create(setting, &objects(name));
    let mut pod = pod(setting, name, "exec sleep 3600");
    pod["spec"]["securityContext"] = json!({"fsGroup": 4321, "runAsUser": 1234});
    pod["spec"]["volumes"][0]["configMap"]["defaultMode"] = 0o600.into();
    pod["spec"]["volumes"][1]["secret"]["items"] =
        json!([{"key": "key", "path": "deep/key", "mode": 0o400}]);
    let memory = json!({"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}});
    let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
    volumes.push(memory);
    let mounts = &mut pod["spec"]["containers"][0]["volumeMounts"];
    let mounts = mounts.as_array_mut().unwrap();
    mounts.push(json!({"name": "memory", "mountPath": "/v/memory"}));
    create(setting, &[pod]);
    running(setting, name);
    let id = setting.cluster.container(name, "c").unwrap();
    let inside = |command: &str| {
        let said = setting.cluster.docker(&["exec", &id, "sh", "-c", command]);
        said.unwrap().trim().to_owned()
    };
    let stat = |path: &str| inside(&format!("stat -L -c '%a %g' /v/{path}"));
    assert_eq!(stat("config/key"), "640 4321");
    assert_eq!(stat("secret/deep/key"), "440 4321");
    assert_eq!(stat("secret/deep"), "2755 4321");
    assert_eq!(stat("downward/key"), "644 4321");
    assert_eq!(stat("memory"), "2777 4321");
    assert_eq!(
        inside("cat /v/secret/deep/key"),
        "one",
        "the group may read it"
    );
    let mounts = inside("cat /proc/mounts");
    let of = |kind: &str| {
        let line = mounts
            .lines()
            .find(|it| it.contains(&format!(" /v/{kind} ")));
        line.unwrap_or_else(|| panic!("{kind}: {mounts}"))
            .to_owned()
    };
    for kind in ["secret", "downward", "projected"] {
        let line = of(kind);
        assert!(line.contains("tmpfs ro,"), "{line}");
    }
    // The Engine mounts with flags of its own: the node's mount has them.
    for wanted in ["nosuid", "nodev", "noexec", "size=65536k"] {
        let mounts = memory_mounts(setting);
        let found = mounts
            .iter()
            .any(|it| it.split([' ', ',']).any(|word| word == wanted));
        assert!(found, "{wanted}: {mounts:?}");
    }
    assert!(of("memory").contains("size=4096k"), "{mounts}");
    delete(setting, name);
    wait("memory goes with its pod", || {
        let left = memory_mounts(setting);
        ensure!(left.is_empty(), "{left:?}");
        Ok(Some(()))
    });
}

/// The file systems in memory of the cluster's pods.
fn memory_mounts(setting: &Setting) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own = setting.cluster.dir().display().to_string();
    let own = |line: &&str| line.contains(&own) && line.contains(" - tmpfs ");
    table.lines().filter(own).map(str::to_owned).collect()
}

fn missing(setting: &Setting) {
    let name = "missing";
    let [config, secret] = objects(name);
    create(setting, &[secret, pod(setting, name, "exec sleep 3600")]);
    let message = wait("people are told why", || failed_mount(setting, name));
    assert_eq!(
        message,
        "MountVolume.SetUp failed for volume \"config\" : configmap \"missing\" not found"
    );
    let state = "/status/containerStatuses/0/state/waiting/reason";
    wait("the container is being created", || {
        let reason = setting.kubectl.field(&format!("pod {name}"), state)?;
        ensure!(reason == "ContainerCreating", "{reason}");
        Ok(Some(()))
    });
    create(setting, &[config]);
    let made = Instant::now();
    running(setting, name);
    let took = made.elapsed();
    println!("the pod was Ready {took:?} after its ConfigMap was made");
    // A start of a container is in it.
    assert!(took < 3 * UPDATE_LIMIT, "{took:?}");
    delete(setting, name);
}

fn restart(setting: &Setting) {
    let name = "restart";
    create(setting, &objects(name));
    create(setting, &[pod(setting, name, "exec sleep 3600")]);
    running(setting, name);
    let agent = setting.cluster.pid("node-1").unwrap();
    kill(Pid::from_raw(agent), Signal::SIGKILL).unwrap();
    let while_away = json!({"data": {"key": "two"}});
    let patch = while_away.to_string();
    let config = ["patch", "configmap", name, "--type=merge", "-p", &patch];
    setting.kubectl.args(&config).unwrap();
    let file = seen(setting, name, "/v/config/key").unwrap();
    wait("what changed while no agent ran arrives", || {
        Ok((fs::read_to_string(&file)? == "two").then_some(()))
    });
    assert_ne!(setting.cluster.pid("node-1").unwrap(), agent);
    let three = json!({"data": {"key": "three"}});
    let config = format!("configmap {name}");
    measure(setting, name, "/v/config/key", (&config, &three), "three");
    assert_eq!(restarts(setting, name).unwrap(), 0);
    delete(setting, name);
}

fn size_limit(setting: &Setting) {
    let name = "outgrown";
    let script = "ln -s /usr /e/usr; exec sleep 3600";
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": setting.cluster.node(1),
            "containers": [{
                "name": "c",
                "image": "tools",
                "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "e", "mountPath": "/e"}],
            }],
            "volumes": [{"name": "e", "emptyDir": {"sizeLimit": "1Mi"}}],
        },
    });
    create(setting, &[pod]);
    running(setting, name);
    let id = setting.cluster.container(name, "c").unwrap();
    let fill = "dd if=/dev/zero of=/e/big bs=1M count=4";
    setting
        .cluster
        .docker(&["exec", &id, "sh", "-c", fill])
        .unwrap();
    wait("the pod is evicted", || {
        let status = setting
            .kubectl
            .field(&format!("pod {name}"), "/status/phase")?;
        Ok((status == "Failed").then_some(()))
    });
    let status = setting.kubectl.json(&format!("get pod {name}")).unwrap();
    let message = "Usage of EmptyDir volume \"e\" exceeds the limit \"1Mi\". ";
    assert_eq!(status["status"]["reason"], "Evicted");
    assert_eq!(status["status"]["message"], message);
    wait("its containers end", || {
        let gone = setting.cluster.container(name, "c").is_err();
        Ok(gone.then_some(()))
    });
    let selector = format!("--field-selector involvedObject.name={name},reason=Evicted");
    wait("people are told", || {
        let events = setting.kubectl.json(&format!("get events {selector}"))?;
        let said = events.pointer("/items/0/message").and_then(Value::as_str);
        ensure!(said == Some(message), "the events are {events}");
        Ok(Some(()))
    });
    delete(setting, name);
}
