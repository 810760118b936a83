use std::sync::Arc;

use serde_json::json;

use super::*;

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("it reads")
}

fn pod() -> Pod {
    typed(
        json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [], "volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "b", "ephemeral": {}},
            {"name": "c", "emptyDir": {}},
        ]}}),
    )
}

fn claim(change: impl Fn(&mut Value)) -> PersistentVolumeClaim {
    let mut claim = json!({"metadata": {"name": "data", "uid": "c"},
        "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
    change(&mut claim);
    typed(claim)
}

fn local_volume(change: impl Fn(&mut Value)) -> Value {
    let mut volume = json!({"metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "1Gi"}, "mountOptions": ["noatime"],
        "csi": {"driver": "local.orchestrator.io", "volumeHandle": "v", "fsType": "ext4",
            "volumeAttributes": {"node": "n1"}}}});
    change(&mut volume);
    volume
}

/// What a claim with this volume leads to on node n1.
fn found(volume: Value) -> Result<Found, String> {
    let in_pod = &pod().spec.unwrap().volumes.unwrap()[0];
    let mut sources = Sources::default();
    let volume = Ok(Arc::new(typed(volume)));
    sources.claimed.insert("a".to_owned(), volume);
    let found = find(in_pod, &sources, "n1").map_err(|error| error.message)?;
    Ok(found.expect("a claim"))
}

#[test]
fn a_pods_claims_are_those_that_it_names_and_those_that_are_made_for_it() {
    let all = named(&pod());
    let all: Vec<_> = all
        .iter()
        .map(|it| (&*it.volume, &*it.claim, it.is_own))
        .collect();
    assert_eq!(all, [("a", "data", false), ("b", "p-b", true)]);
}

#[test]
fn a_claim_is_used_when_it_is_bound_and_stays_and_is_the_pods_own_if_it_must_be() {
    let all = named(&pod());
    let of = |number: usize, claim: &PersistentVolumeClaim| {
        volume_of(&pod(), &all[number], claim).map(str::to_owned)
    };
    assert_eq!(of(0, &claim(|_| {})), Ok("v".to_owned()));
    let going = claim(|it| it["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
    assert!(of(0, &going).is_err());
    let pending = claim(|it| it["status"]["phase"] = json!("Pending"));
    assert_eq!(of(0, &pending), Err("PVC is not bound".to_owned()));
    assert!(of(1, &claim(|_| {})).is_err());
    let owner = |uid: &str| json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]);
    let own = claim(|it| it["metadata"]["ownerReferences"] = owner("u"));
    assert!(of(1, &own).is_ok());
    let other = claim(|it| it["metadata"]["ownerReferences"] = owner("other"));
    assert!(of(1, &other).is_err());
}

#[test]
fn both_sides_of_a_binding_must_agree() {
    let volume = |uid: Value| typed(json!({"metadata": {}, "spec": {"claimRef": {"uid": uid}}}));
    assert!(is_bound(&volume(json!("c")), &claim(|_| {})));
    assert!(!is_bound(&volume(json!("other")), &claim(|_| {})));
    let nameless = claim(|it| it["metadata"]["uid"] = Value::Null);
    assert!(!is_bound(&volume(Value::Null), &nameless));
}

#[test]
fn a_local_volume_leads_to_its_image_on_its_own_node_only() {
    let wanted = Wanted {
        name: "v".to_owned(),
        bytes: 1 << 30,
        thick: false,
        options: vec!["noatime".to_owned()],
        is_block: false,
    };
    let image = found(local_volume(|_| {})).unwrap();
    assert_eq!(image.backing, Backing::Image(wanted));
    let cases = [
        (
            "/spec/csi/volumeAttributes/node",
            json!("n2"),
            "is on node \"n2\"",
        ),
        (
            "/spec/csi/volumeHandle",
            json!("../other"),
            "not on this one",
        ),
        ("/spec/csi/fsType", json!("xfs"), "ext4 is"),
        (
            "/spec/csi/driver",
            json!("x.example"),
            "not found in the list of registered CSI drivers",
        ),
        ("/spec/capacity", json!({}), "has no capacity"),
    ];
    for (pointer, value, why) in cases {
        let volume = local_volume(|volume| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            volume.pointer_mut(parent).unwrap()[key] = value.clone();
        });
        let said = found(volume).unwrap_err();
        assert!(said.contains(why), "{pointer}: {said}");
    }
}

#[test]
fn a_volume_is_used_as_a_device_or_as_files_as_it_says() {
    let block = |volume: &mut Value| volume["spec"]["volumeMode"] = json!("Block");
    let found_image = found(local_volume(block)).unwrap();
    assert!(found_image.is_block());
    let local = json!({"local": {"path": "/dev/sda"}, "volumeMode": "Block"});
    let local = found(json!({"metadata": {"name": "v"}, "spec": local})).unwrap();
    assert_eq!(local.backing, Backing::Device("/dev/sda".into()));
    let none = json!({"hostPath": {"path": "/d"}, "volumeMode": "Block"});
    let why = found(json!({"metadata": {"name": "v"}, "spec": none})).unwrap_err();
    assert!(why.contains("no block volume plugin matched"), "{why}");

    let pod = |list: &str, path: &str| -> Pod {
        let main = json!({"name": "main", list: [{"name": "data", path: "/data"}]});
        typed(json!({"metadata": {}, "spec": {"containers": [main]}}))
    };
    let (files, device) = (
        pod("volumeMounts", "mountPath"),
        pod("volumeDevices", "devicePath"),
    );
    assert_eq!(check_use(&files, "data", false), Ok(()));
    assert_eq!(check_use(&device, "data", true), Ok(()));
    assert_eq!(check_use(&device, "other", false), Ok(()));
    let said = |pod: &Pod, is_block| check_use(pod, "data", is_block).unwrap_err().message;
    let why = "volume data has volumeMode Block, but is specified in volumeMounts";
    assert_eq!(said(&files, true), why);
    let why = "volume data has volumeMode Filesystem, but is specified in volumeDevices";
    assert_eq!(said(&device, false), why);
}

#[test]
fn other_volumes_lead_to_a_path_of_the_node_or_an_export() {
    let of = |source: Value| found(json!({"metadata": {"name": "v"}, "spec": source}));
    let path = of(json!({"hostPath": {"path": "/d", "type": "Directory"}})).unwrap();
    assert!(matches!(path.backing, Backing::HostPath(_)));
    let directory = of(json!({"local": {"path": "/d"}})).unwrap();
    assert_eq!(directory.backing, Backing::Directory("/d".into()));
    let nfs = json!({"nfs": {"server": "s", "path": "/m", "readOnly": true},
        "mountOptions": ["vers=3"]});
    let nfs = of(nfs).unwrap();
    assert!(nfs.read_only);
    assert!(matches!(nfs.backing, Backing::Nfs(export) if export.options == ["vers=3"]));
    assert!(of(json!({"rbd": {"monitors": [], "image": "i"}})).is_err());
}
