use serde_json::{Value, json};

use super::*;

const NODE_BYTES: i64 = 1 << 30;

fn pod(containers: Value, volume: Value) -> Pod {
    let pod = json!({ "spec": { "containers": containers, "volumes": [volume] } });
    serde_json::from_value(pod).expect("a pod")
}

fn facts() -> Facts {
    Facts {
        node_name: "n1".to_owned(),
        node_ips: Default::default(),
        pod_ips: None,
        node_cpus: 2,
        node_memory_bytes: NODE_BYTES,
    }
}

fn container(memory: Option<&str>) -> Value {
    match memory {
        Some(memory) => json!({ "name": "c", "resources": { "limits": { "memory": memory } } }),
        None => json!({ "name": "c" }),
    }
}

#[test]
fn a_memory_volume_is_as_large_as_itself_its_pod_and_its_node_allow() {
    let mib = |number: u64| number << 20;
    let cases = [
        (vec![None], None, mib(1024)),
        (vec![None], Some("8Mi"), mib(8)),
        (vec![None], Some("8Gi"), mib(1024)),
        (vec![None], Some("0"), mib(1024)),
        (vec![Some("64Mi"), Some("32Mi")], None, mib(96)),
        (vec![Some("64Mi"), None], None, mib(1024)),
        (vec![Some("64Mi")], Some("8Mi"), mib(8)),
        (vec![Some("4Mi")], Some("8Mi"), mib(4)),
    ];
    for (limits, size, expected) in cases {
        let containers: Vec<Value> = limits.iter().map(|it| container(*it)).collect();
        let mut wanted = json!({ "medium": "Memory" });
        if let Some(size) = size {
            wanted["sizeLimit"] = json!(size);
        }
        let pod = pod(
            json!(containers),
            json!({ "name": "m", "emptyDir": wanted }),
        );
        let wanted = serde_json::from_value(wanted).expect("a volume");
        let bytes = memory_bytes(&pod, &wanted, &facts());
        assert_eq!(bytes, expected, "{limits:?} {size:?}");
    }
}

#[test]
fn only_a_limit_on_disk_has_to_be_measured() {
    let cases = [
        (json!({}), None),
        (json!({ "sizeLimit": "0" }), None),
        (json!({ "sizeLimit": "1Mi", "medium": "Memory" }), None),
        (json!({ "sizeLimit": "1Mi" }), Some(1 << 20)),
    ];
    for (wanted, expected) in cases {
        let volume = json!({ "name": "e", "emptyDir": wanted });
        let limited = limited(&pod(json!([]), volume));
        let bytes = limited.first().map(|it| it.bytes);
        assert_eq!(bytes, expected, "{wanted}");
    }
}

/// A pod's directory with one emptyDir on disk that may hold 1 MiB.
fn stage() -> (tempfile::TempDir, PodDir, Pod) {
    let temp = tempfile::tempdir().expect("a directory");
    let dir = PodDir::new(temp.path(), "u1");
    let volume = json!({ "name": "e", "emptyDir": { "sizeLimit": "1Mi" } });
    (temp, dir, pod(json!([{ "name": "c" }]), volume))
}

fn make(dir: &PodDir, pod: &Pod) -> PathBuf {
    let wanted = serde_json::from_value(json!({ "sizeLimit": "1Mi" })).expect("a volume");
    let made = dir.make_empty_dir(pod, "e", &wanted, &facts());
    made.expect("made")
}

#[test]
fn a_volume_over_its_limit_is_noticed_and_what_its_links_lead_to_does_not_count() {
    let (_temp, dir, pod) = stage();
    let path = make(&dir, &pod);
    let limited = limited(&pod).remove(0);
    fs::create_dir(path.join("deep")).expect("made");
    fs::write(path.join("deep/f"), vec![1; 900 << 10]).expect("written");
    std::os::unix::fs::symlink("/usr", path.join("usr")).expect("linked");
    assert!(!dir.outgrows(&limited));
    fs::write(path.join("g"), vec![1; 200 << 10]).expect("written");
    assert!(dir.outgrows(&limited));
    assert_eq!(
        limited.message(),
        "Usage of EmptyDir volume \"e\" exceeds the limit \"1Mi\". "
    );
}

#[test]
fn a_tree_that_is_too_deep_to_be_measured_is_over_its_limit() {
    let (_temp, dir, pod) = stage();
    make(&dir, &pod);
    let path = dir.volumes().join("e");
    let mut at = Dir::open(&path).expect("opened");
    for _ in 0..300 {
        at = at.make("d".as_ref(), 0o700).expect("made");
    }
    assert!(dir.outgrows(&limited(&pod)[0]));
}

#[test]
fn what_a_container_made_of_its_volume_stays_at_the_next_start() {
    let (temp, dir, mut pod) = stage();
    let group = nix::unistd::getgid().as_raw();
    pod.spec.as_mut().expect("a spec").security_context =
        serde_json::from_value(json!({ "fsGroup": group })).expect("a context");
    let path = make(&dir, &pod);
    let mode = |path: &Path| {
        let found = fs::symlink_metadata(path).expect("there");
        found.permissions().mode() & 0o7777
    };
    assert_eq!(mode(&path), 0o2777);
    // The container narrows its volume, and leaves a link to a file of the node.
    let of_node = temp.path().join("of-node");
    fs::write(&of_node, "x").expect("written");
    fs::set_permissions(&of_node, fs::Permissions::from_mode(0o600)).expect("set");
    std::os::unix::fs::symlink(&of_node, path.join("link")).expect("linked");
    fs::write(path.join("own"), "x").expect("written");
    fs::set_permissions(path.join("own"), fs::Permissions::from_mode(0o600)).expect("set");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("set");
    make(&dir, &pod);
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("own")), 0o600);
    assert_eq!(mode(&of_node), 0o600);
}

#[test]
fn a_volume_whose_making_was_cut_short_is_finished() {
    let (_temp, dir, pod) = stage();
    make_dir(&dir.volumes().join("e"), 0o755).expect("made");
    let path = make(&dir, &pod);
    let mode = fs::metadata(path).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o777);
}
