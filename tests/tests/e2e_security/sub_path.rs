//! Pods that lead the agent astray with links, mounts, special files and labels.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::wait;
use tests::scenarios::Scenario;

use crate::setting::Setting;

pub const SCENARIOS: &[Scenario<Setting>] = &[
    (
        "a_link_that_an_init_container_left_leads_no_sub_path_to_the_node",
        left_link,
    ),
    (
        "a_container_that_swaps_directories_while_others_start_gets_no_directory_of_the_node",
        swaps,
    ),
    (
        "a_sub_path_of_a_host_path_follows_no_link_either",
        host_path,
    ),
    (
        "a_pod_goes_although_a_container_mounted_the_node_inside_its_volume",
        mounted_inside,
    ),
    (
        "a_termination_message_is_four_kibibytes_of_a_file_whatever_the_container_makes_of_it",
        termination_messages,
    ),
    (
        "a_foreign_container_with_our_labels_leads_no_removal",
        forged_labels,
    ),
];

/// A pod on the first node, with an emptyDir `e` that every container has at `/e`.
fn pod(setting: &Setting, name: &str, init: &[Value], containers: &[Value]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": setting.cluster.node(1),
            "terminationGracePeriodSeconds": 0,
            "initContainers": init,
            "containers": containers,
            "volumes": [{"name": "e", "emptyDir": {}}],
        },
    })
}

/// A container that runs a script; `sub_path`, if it is not empty, is mounted at `/part`.
fn container(name: &str, script: &str, sub_path: &str) -> Value {
    let mut mounts = vec![json!({"name": "e", "mountPath": "/e"})];
    if !sub_path.is_empty() {
        mounts.push(json!({"name": "e", "mountPath": "/part", "subPath": sub_path}));
    }
    json!({
        "name": name,
        "image": "tools",
        "command": ["sh", "-c", script],
        "volumeMounts": mounts,
    })
}

fn create(setting: &Setting, object: &Value) {
    setting.kubectl.given("create", object).unwrap();
}

/// Removes a pod and waits until the API has no such pod any more.
fn delete(setting: &Setting, pod: &str) {
    let command = format!("delete pod {pod} --wait=true --timeout=60s");
    setting.kubectl.run(&command).unwrap();
}

fn statuses(setting: &Setting, pod: &str) -> Result<Vec<Value>> {
    let pod = setting.kubectl.json(&format!("get pod {pod}"))?;
    let statuses = pod["status"]["containerStatuses"].as_array();
    Ok(statuses.cloned().unwrap_or_default())
}

/// Waits until a container's start is refused, and gives the message.
#[track_caller]
fn refusal(setting: &Setting, pod: &str, container: &str) -> String {
    wait("the container is not started", || {
        let statuses = statuses(setting, pod)?;
        let status = statuses.iter().find(|it| it["name"] == container);
        let waiting = &status.context("no status yet")?["state"]["waiting"];
        let refused = waiting["reason"] == "CreateContainerConfigError";
        Ok(refused.then(|| waiting["message"].as_str().unwrap_or_default().to_owned()))
    })
}

/// The directory of a pod on its node, as the machine has it.
fn directory(setting: &Setting, pod: &str) -> std::path::PathBuf {
    let uid = setting
        .kubectl
        .field(&format!("pod {pod}"), "/metadata/uid");
    let node = setting.cluster.node(1);
    let agents = setting.cluster.dir().join("agents");
    agents.join(node).join("pods").join(uid.unwrap())
}

fn mounts_below(directory: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let directory = directory.display().to_string();
    table
        .lines()
        .filter(|line| line.contains(&directory))
        .count()
}

fn left_link(setting: &Setting) {
    let target = format!("/orchestrator-e2e-{}", std::process::id());
    let init = container("init", "ln -s / /e/link", "");
    let part = format!("link{target}");
    let main = container("main", "sleep infinity", &part);
    create(setting, &pod(setting, "link", &[init], &[main]));
    let why = refusal(setting, "link", "main");
    assert!(why.contains("symbolic link"), "{why}");
    assert!(!Path::new(&target).exists(), "the node has {target}");
    delete(setting, "link");
}

fn swaps(setting: &Setting) {
    const OTHERS: usize = 16;
    // The directory `a` and a link to the node's root change places, over and over.
    let swap = "mkdir -p /e/a/etc/own; ln -s / /e/b; while :; do \
        mv -T /e/a /e/c && mv -T /e/b /e/a && mv -T /e/c /e/b; done";
    let look = "if [ -e /part/passwd ]; then touch /e/won; fi; touch /e/tried-$HOSTNAME; \
        sleep infinity";
    let others = (0..OTHERS).map(|number| container(&format!("other-{number}"), look, "a/etc"));
    let mut containers = vec![container("swaps", swap, "")];
    containers.extend(others);
    create(setting, &pod(setting, "swaps", &[], &containers));
    wait("most containers of the pod have started at last", || {
        let statuses = statuses(setting, "swaps")?;
        let running = statuses
            .iter()
            .filter(|it| it["state"]["running"].is_object());
        let running = running.count();
        ensure!(running > OTHERS / 2, "{running} run");
        Ok(Some(()))
    });
    let volume = directory(setting, "swaps").join("volumes/e");
    assert!(volume.is_dir() && !volume.join("won").exists());
    delete(setting, "swaps");
}

fn host_path(setting: &Setting) {
    let shared = tempfile::tempdir().unwrap();
    let mut object = pod(
        setting,
        "host-path",
        &[container("init", "ln -s / /e/link; mkdir /e/own", "")],
        &[
            container("bad", "sleep infinity", "link/etc"),
            container("good", "touch /part/made; sleep infinity", "own/new"),
        ],
    );
    object["spec"]["volumes"][0] = json!({"name": "e", "hostPath": {"path": shared.path()}});
    create(setting, &object);
    let why = refusal(setting, "host-path", "bad");
    assert!(why.contains("symbolic link"), "{why}");
    wait("the other container runs with its part", || {
        Ok(shared.path().join("own/new/made").exists().then_some(()))
    });
    delete(setting, "host-path");
}

fn mounted_inside(setting: &Setting) {
    let treasure = tempfile::tempdir().unwrap();
    fs::write(treasure.path().join("file"), "of the node").unwrap();
    let script = "mkdir -p /e/m/n && mount --bind /treasure /e/m/n && touch /e/mounted && \
        sleep infinity";
    let mut object = pod(setting, "mounts", &[], &[container("main", script, "")]);
    let main = &mut object["spec"]["containers"][0];
    main["securityContext"] = json!({"privileged": true});
    main["volumeMounts"] = json!([
        {"name": "e", "mountPath": "/e", "mountPropagation": "Bidirectional"},
        {"name": "treasure", "mountPath": "/treasure"},
    ]);
    object["spec"]["volumes"] = json!([
        {"name": "e", "emptyDir": {}},
        {"name": "treasure", "hostPath": {"path": treasure.path()}},
    ]);
    let shared = mount_is_shared(&setting.cluster.dir().join("agents"));
    create(setting, &object);
    let directory = directory(setting, "mounts");
    if shared {
        let mounted = directory.join("volumes/e/mounted");
        wait("the container mounts inside its volume", || {
            Ok(mounted.exists().then_some(()))
        });
        assert_eq!(mounts_below(&directory), 1);
    } else {
        // Without a shared mount of the node nothing of a container's reaches it: the test does it.
        let inside = directory.join("volumes/e/m/n");
        wait("the container starts or is refused", || {
            Ok(directory.join("volumes/e").is_dir().then_some(()))
        });
        fs::create_dir_all(&inside).unwrap();
        let none = None::<&str>;
        let bind = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(treasure.path()), &inside, none, bind, none).unwrap();
    }
    delete(setting, "mounts");
    wait("nothing of the pod is left on the node", || {
        let left = mounts_below(&directory);
        ensure!(
            left == 0 && !directory.exists(),
            "{left} mounts, {directory:?}"
        );
        Ok(Some(()))
    });
    let kept = fs::read_to_string(treasure.path().join("file")).unwrap();
    assert_eq!(kept, "of the node");
}

/// Whether the mount that holds a directory hands on what is mounted below it.
fn mount_is_shared(directory: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let holder = table.lines().filter(|line| {
        let point = line.split(' ').nth(4).unwrap_or_default();
        directory.starts_with(point)
    });
    let longest = holder.max_by_key(|line| line.split(' ').nth(4).map_or(0, str::len));
    longest.is_some_and(|line| line.contains(" shared:"))
}

fn termination_messages(setting: &Setting) {
    let scripts = [
        // Ten gibibytes, of which the node stores nothing.
        (
            "long",
            "dd if=/dev/zero of=$L bs=1 count=0 seek=10G; exit 1",
        ),
        ("text", "yes | head -c 9000 > $L; exit 1"),
        ("fifo", "rm -f $L; mkfifo $L; ln -sf /proc/kcore $L; exit 1"),
    ];
    let containers: Vec<Value> = scripts
        .iter()
        .map(|(name, script)| container(name, &format!("L=/dev/termination-log; {script}"), ""))
        .collect();
    let mut object = pod(setting, "messages", &[], &containers);
    object["spec"]["restartPolicy"] = json!("Never");
    create(setting, &object);
    let messages = wait("every container has ended", || {
        let statuses = statuses(setting, "messages")?;
        let ended = statuses
            .iter()
            .filter(|it| it["state"]["terminated"].is_object());
        let length = |it: &Value| {
            let message = &it["state"]["terminated"]["message"];
            let name = it["name"].as_str().unwrap_or_default().to_owned();
            (name, message.as_str().unwrap_or_default().len())
        };
        let lengths: Vec<(String, usize)> = ended.map(length).collect();
        Ok((lengths.len() == scripts.len()).then_some(lengths))
    });
    for (name, length) in messages {
        let expected = if name == "fifo" { 0 } else { 4096 };
        assert_eq!(length, expected, "{name}");
    }
    let agent = setting.cluster.pid("node-1").unwrap();
    let status = fs::read_to_string(format!("/proc/{agent}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: u64 = resident
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap();
    assert!(kibibytes < 512 * 1024, "the agent has {kibibytes} KiB");
    delete(setting, "messages");
}

fn forged_labels(setting: &Setting) {
    let victim = tempfile::tempdir().unwrap();
    fs::write(victim.path().join("file"), "of the node").unwrap();
    create(
        setting,
        &pod(setting, "any", &[], &[container("c", "sleep infinity", "")]),
    );
    let ours = wait("a container runs", || {
        setting.cluster.container("any", "c").map(Some)
    });
    let format = r#"{{index .Config.Labels "orchestrator.cluster"}}"#;
    let cluster = setting
        .cluster
        .docker(&["inspect", "--format", format, &ours]);
    let cluster = cluster.unwrap().trim().to_owned();
    let forge = |name: &str, uid: &str| {
        let label = |key: &str, value: &str| format!("--label=orchestrator.{key}={value}");
        let labels = [
            label("cluster", &cluster),
            label("node", &setting.cluster.node(1)),
            label("pod.namespace", "default"),
            label("pod.name", "forged"),
            label("pod.uid", uid),
            label("role", "main"),
            label("container", "c"),
            label("attempt", "0"),
            label("generation", "0"),
            label("level", "0"),
            label("spec", "x"),
        ];
        let mut words = vec!["run", "--detach", "--network=none", "--name", name];
        words.extend(labels.iter().map(String::as_str));
        words.extend(["tools", "sleep", "infinity"]);
        setting.cluster.docker(&words).unwrap().trim().to_owned()
    };
    let path = victim.path().display().to_string();
    let forged = forge("foreign", &path);
    // One that is named as the agent names its own: when that is ended, the agent has looked.
    let uid = "2f0a6a54-6f0c-4b3e-9a54-0b5cf1b1a001";
    let orphan = forge(&format!("orch_c_forged_default_{uid}_0"), uid);
    let lives = |id: &str| setting.cluster.docker(&["inspect", id]).is_ok();
    wait(
        "a container of a pod that the API does not have is ended",
        || Ok((!lives(&orphan)).then_some(())),
    );
    assert!(lives(&forged), "the foreign container was ended");
    assert!(victim.path().join("file").exists(), "{path} was emptied");
    setting.cluster.docker(&["rm", "--force", &forged]).unwrap();
    delete(setting, "any");
}
