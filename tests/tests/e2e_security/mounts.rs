//! Where volumes are mounted in a container, when links in volumes and images lead the way.

use std::fs;

use serde_json::{Value, json};
use tests::cluster::wait;
use tests::scenarios::Scenario;

use crate::setting::Setting;

pub const SCENARIOS: &[Scenario<Setting>] = &[
    (
        "a_link_in_a_volume_puts_no_other_volume_over_what_the_engine_hides",
        linked_mounts,
    ),
    (
        "a_container_that_swaps_the_place_of_a_mount_for_a_link_gets_nothing_of_its_node",
        swapped_mounts,
    ),
    (
        "a_link_or_a_volume_of_an_image_covers_nothing_that_the_engine_hides",
        linked_images,
    ),
    (
        "volumes_inside_each_other_are_read_only_or_not_each_by_itself",
        nested,
    ),
];

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";
/// Containers that start while another one swaps.
const STARTS: usize = 12;

/// Puts the node's value back, and fails if it was another.
fn guarded(attack: impl FnOnce()) {
    let kept = fs::read_to_string(CORE_PATTERN).unwrap();
    let attack = std::panic::AssertUnwindSafe(attack);
    let outcome = std::panic::catch_unwind(attack);
    let now = fs::read_to_string(CORE_PATTERN).unwrap();
    fs::write(CORE_PATTERN, &kept).unwrap();
    assert_eq!(now, kept, "a container wrote to the node's {CORE_PATTERN}");
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn create(setting: &Setting, pod: &Value) {
    setting.kubectl.given("create", pod).unwrap();
}

fn delete(setting: &Setting, name: &str) {
    let command = format!("delete pod {name} --wait=true");
    setting.kubectl.run(&command).unwrap();
}

/// A container with the volume `e` at `/e` and `f` elsewhere.
fn container(name: &str, script: &str, f: &str) -> Value {
    json!({
        "name": name,
        "image": "tools",
        "command": ["/bin/sh", "-c", script],
        "volumeMounts": [{"name": "e", "mountPath": "/e"}, {"name": "f", "mountPath": f}],
    })
}

fn pod(setting: &Setting, name: &str, init: &[Value], containers: &[Value]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": setting.cluster.node(1),
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "initContainers": init,
            "containers": containers,
            "volumes": [{"name": "e", "emptyDir": {}}, {"name": "f", "emptyDir": {}}],
        },
    })
}

/// Why the first container of a pod is not made.
fn refused(setting: &Setting, name: &str) -> String {
    wait("the container is not made", || {
        let state = "/status/containerStatuses/0/state/waiting";
        let what = format!("pod {name}");
        let reason = setting.kubectl.field(&what, &format!("{state}/reason"))?;
        anyhow::ensure!(reason == "CreateContainerConfigError", "{reason}");
        let message = setting.kubectl.field(&what, &format!("{state}/message"));
        message.map(Some)
    })
}

fn linked_mounts(setting: &Setting) {
    guarded(|| {
        for place in ["/proc", "/proc/sys", "/sys", "/dev"] {
            let name = format!("linked{}", place.replace('/', "-"));
            let plant = format!("ln -s {place} /e/link; ln -s {CORE_PATTERN} /f/null");
            let init = [container("init", &plant, "/f")];
            // Where runc follows the link to `/dev`, the container's output goes to that file of the node.
            let owned = [container("c", "echo owned", "/e/link")];
            create(setting, &pod(setting, &name, &init, &owned));
            let message = refused(setting, &name);
            assert!(message.contains("symbolic link"), "{place}: {message}");
            delete(setting, &name);
        }
    });
}

fn swapped_mounts(setting: &Setting) {
    let name = "swapped";
    let plant = format!("mkdir /e/in; ln -s {CORE_PATTERN} /f/null");
    let init = [container("init", &plant, "/f")];
    let swap = "cd /e; while :; do mv in dir && ln -s /dev in; rm in; mv dir in; done 2>/dev/null";
    let starts = (0..STARTS).map(|it| container(&format!("c{it}"), "echo owned", "/e/in"));
    let all: Vec<Value> = [container("swap", swap, "/f")]
        .into_iter()
        .chain(starts)
        .collect();
    guarded(|| {
        create(setting, &pod(setting, name, &init, &all));
        wait("each container has ended or was refused", || {
            let pod = setting.kubectl.json(&format!("get pod {name}"))?;
            let statuses = pod["status"]["containerStatuses"].as_array();
            let tried = |status: &&Value| {
                let reason = &status["state"]["waiting"]["reason"];
                let refused = reason == "CreateContainerConfigError";
                refused || status["state"].get("terminated").is_some()
            };
            let tried = statuses.into_iter().flatten().filter(tried).count();
            anyhow::ensure!(tried >= STARTS, "{tried} of {STARTS}");
            Ok(Some(()))
        });
        delete(setting, name);
    });
}

/// An image like `tools` after a command, with changes as a Dockerfile has them.
fn image(setting: &Setting, name: &str, script: &str, changes: &[&str]) {
    let docker = |arguments: &[&str]| setting.cluster.docker(arguments).unwrap();
    let made = [
        "run",
        "--name",
        name,
        "--network",
        "none",
        "tools",
        "sh",
        "-c",
    ];
    docker(&[&made[..], &[script]].concat());
    let changes = changes.iter().flat_map(|change| ["--change", *change]);
    let commit: Vec<&str> = ["commit"]
        .into_iter()
        .chain(changes)
        .chain([name, name])
        .collect();
    docker(&commit);
    docker(&["rm", name]);
}

fn linked_images(setting: &Setting) {
    let plant = format!("ln -s /dev /x; ln -s /srv /alias; mkdir /o; ln -s {CORE_PATTERN} /o/null");
    image(setting, "linked-image", &plant, &[]);
    image(setting, "volume-image", &plant, &["VOLUME /dev"]);
    let plant = format!("ln -s {CORE_PATTERN} /f/null");
    let cases = [
        ("linked-image", "/x", "volumeMounts[1].mountPath"),
        ("volume-image", "/f", "the image's own volume"),
    ];
    guarded(|| {
        for (image, path, said) in cases {
            let init = [container("init", &plant, "/f")];
            let mut owned = container("c", "echo owned", path);
            owned["image"] = image.into();
            create(setting, &pod(setting, image, &init, &[owned]));
            let message = refused(setting, image);
            assert!(message.contains(said), "{message}");
            delete(setting, image);
        }
    });
    // A link that leads into another volume is no attack.
    let mut plain = container(
        "c",
        "cat /proc/mounts; echo x > /alias/in/file; ls /srv/in",
        "/alias/in",
    );
    plain["image"] = "linked-image".into();
    plain["volumeMounts"][0]["mountPath"] = "/srv".into();
    let said = logs(setting, "alias", &plain);
    assert!(said.contains(" /srv/in "), "{said}");
    assert!(said.ends_with("file\n"), "{said}");
    for image in ["linked-image", "volume-image"] {
        // What the agent looked at the image with goes a moment later.
        wait("the image is not used", || {
            setting.cluster.docker(&["rmi", image]).map(Some)
        });
    }
}

/// What a container says until it ends well.
fn logs(setting: &Setting, name: &str, container: &Value) -> String {
    create(
        setting,
        &pod(setting, name, &[], std::slice::from_ref(container)),
    );
    wait("the container ends", || {
        let phase = setting
            .kubectl
            .field(&format!("pod {name}"), "/status/phase")?;
        Ok((phase == "Succeeded").then_some(()))
    });
    let said = setting.kubectl.run(&format!("logs {name}")).unwrap();
    delete(setting, name);
    said
}

fn nested(setting: &Setting) {
    let name = "nested";
    let script = "for d in /e /e/f; do touch $d/x 2>/dev/null && echo $d rw || echo $d ro; done";
    for (outer, inner, expected) in [
        (false, false, "/e rw\n/e/f rw\n"),
        (true, false, "/e ro\n/e/f rw\n"),
        (false, true, "/e rw\n/e/f ro\n"),
    ] {
        let mut plain = container("c", script, "/e/f");
        plain["volumeMounts"][0]["readOnly"] = outer.into();
        plain["volumeMounts"][1]["readOnly"] = inner.into();
        let mut whole = pod(
            setting,
            name,
            &[container("init", "mkdir -p /e/f", "/f")],
            &[plain],
        );
        whole["metadata"]["name"] = name.into();
        create(setting, &whole);
        wait("the container ends", || {
            let phase = setting
                .kubectl
                .field(&format!("pod {name}"), "/status/phase")?;
            Ok((phase == "Succeeded").then_some(()))
        });
        let said = setting.kubectl.run(&format!("logs {name} -c c")).unwrap();
        assert_eq!(said, expected);
        delete(setting, name);
    }
}
