use super::*;

fn pod() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "containers": [{
                "name": "app",
                "image": "app:1",
                "env": [{"name": "A", "value": "1"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
            }],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    })
}

#[test]
fn whoever_creates_an_object_owns_it_with_its_defaults_as_kubernetes_writes_it() {
    let mut cluster = Cluster::pods();
    cluster.create("kubectl-create", pod());
    let entries = cluster.entries();
    assert_eq!(entries.len(), 1);
    let fields = &entries[0]["fieldsV1"];
    // An object that is there by value has no owner of its own, a pointer, map or item has one.
    assert_eq!(
        fields["f:metadata"],
        json!({"f:labels": {".": {}, "f:app": {}}})
    );
    let spec = &fields["f:spec"];
    assert_eq!(spec.get("."), None);
    assert_eq!(spec["f:dnsPolicy"], json!({}));
    assert_eq!(spec["f:securityContext"], json!({}));
    let volumes = json!({".": {}, r#"k:{"name":"tmp"}"#: {
        ".": {}, "f:emptyDir": {}, "f:name": {},
    }});
    assert_eq!(spec["f:volumes"], volumes);
    assert_eq!(spec["f:containers"].get("."), None);
    let container = &spec["f:containers"][r#"k:{"name":"app"}"#];
    assert_eq!(container["."], json!({}));
    assert_eq!(container["f:terminationMessagePath"], json!({}));
    let env = json!({".": {}, r#"k:{"name":"A"}"#: {".": {}, "f:name": {}, "f:value": {}}});
    assert_eq!(container["f:env"], env);
    let port = r#"k:{"containerPort":80,"protocol":"TCP"}"#;
    let ports = json!({".": {}, port: {".": {}, "f:containerPort": {}, "f:protocol": {}}});
    assert_eq!(container["f:ports"], ports);
    assert_eq!(fields.get("f:status"), None);
    assert_eq!(fields.get("f:kind"), None);
}

#[test]
fn a_template_inside_an_object_is_there_by_value() {
    let mut cluster = Cluster::deployments();
    cluster.create(
        "kubectl-create",
        json!({"spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "app", "image": "app:1"}]},
            },
        }}),
    );
    let spec = &cluster.entries()[0]["fieldsV1"]["f:spec"];
    let strategy = json!({
        "f:type": {},
        "f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}},
    });
    assert_eq!(spec["f:strategy"], strategy);
    assert_eq!(spec["f:selector"], json!({}));
    assert_eq!(spec["f:template"].get("."), None);
    let metadata = json!({"f:labels": {".": {}, "f:app": {}}});
    assert_eq!(spec["f:template"]["f:metadata"], metadata);
}

#[test]
fn an_update_without_a_change_leaves_everything_as_it_is() {
    let mut cluster = Cluster::pods();
    cluster.create("a", pod());
    let before = cluster.live().clone();
    cluster.update("b", |_| {});
    cluster.update("a", |_| {});
    assert_eq!(*cluster.live(), before);
}

#[test]
fn an_update_owns_what_it_changes_and_the_former_owner_loses_it() {
    let mut cluster = Cluster::pods();
    cluster.create("a", pod());
    let created = cluster.time("a");
    cluster.update("b", |pod| {
        pod["spec"]["containers"][0]["image"] = "app:2".into();
        pod["metadata"]["labels"]["new"] = "1".into();
    });
    let image = r#".spec.containers[name="app"].image"#.to_owned();
    assert_eq!(
        cluster.owned("b"),
        [".metadata.labels.new".to_owned(), image.clone()]
    );
    assert!(!cluster.owned("a").contains(&image));
    assert_eq!(cluster.time("a"), created);
    // Its next change joins the entry, with a new time.
    let first = cluster.time("b");
    cluster.update("b", |pod| pod["metadata"]["labels"]["app"] = "other".into());
    assert_eq!(cluster.owned("b").len(), 3);
    assert!(cluster.time("b") > first);
}

#[test]
fn what_is_removed_has_no_owner_any_more() {
    let mut cluster = Cluster::pods();
    cluster.create("a", pod());
    cluster.apply("c", labels(json!({"app": "web"})));
    cluster.update("b", |pod| {
        pod["metadata"].as_object_mut().unwrap().remove("labels");
        pod["spec"]["containers"][0]
            .as_object_mut()
            .unwrap()
            .remove("env");
    });
    let left = cluster.owned("a");
    assert!(
        !left
            .iter()
            .any(|path| path.contains("labels") || path.contains(".env")),
        "{left:?}"
    );
    assert_eq!(cluster.owned("c"), Vec::<String>::new());
    assert_eq!(cluster.entries().len(), 1);
}

#[test]
fn a_status_is_owned_through_its_path_and_nothing_else_is() {
    let mut cluster = Cluster::pods();
    cluster.create("a", pod());
    cluster.update_at("kubelet", Some(Subresource::Status), |pod| {
        pod["status"]["podIPs"] = json!([{"ip": "10.0.0.1"}]);
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        pod["spec"]["nodeName"] = "n".into();
    });
    assert_eq!(cluster.entries()[1]["subresource"], "status");
    let owned = cluster.owned("kubelet");
    assert!(
        owned.contains(&r#".status.podIPs[ip="10.0.0.1"]"#.to_owned()),
        "{owned:?}"
    );
    assert!(owned.contains(&r#".status.conditions[type="Ready"].type"#.to_owned()));
    assert!(
        owned.iter().all(|path| path.starts_with(".status")),
        "{owned:?}"
    );
    let before = cluster.entries();
    cluster.update("a", |pod| pod["status"]["phase"] = "Failed".into());
    assert_eq!(cluster.entries(), before);
}

#[test]
fn a_scale_is_an_entry_of_the_object_under_its_subresource() {
    let mut cluster = Cluster::of("", "replicationcontrollers");
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]});
    cluster.create("a", json!({"spec": {"replicas": 1, "template": template}}));
    cluster.update_at("hpa", Some(Subresource::Scale), |rc| {
        rc["spec"]["replicas"] = 3.into()
    });
    assert_eq!(cluster.owned("hpa"), [".spec.replicas"]);
    let entries = cluster.entries();
    let entry = entries
        .iter()
        .find(|entry| entry["manager"] == "hpa")
        .unwrap();
    assert_eq!(
        (&entry["subresource"], &entry["apiVersion"]),
        (&json!("scale"), &json!("v1"))
    );
}

#[test]
fn the_oldest_updates_are_put_together_when_there_are_more_than_ten() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("m00", json!({"data": {"k00": ""}}));
    cluster.apply("applier", json!({"data": {"x": ""}}));
    for at in 1..14 {
        let manager = format!("m{at:02}");
        cluster.update(&manager, |map| map["data"][format!("k{at:02}")] = "".into());
    }
    let managers: Vec<Value> = cluster
        .entries()
        .iter()
        .map(|e| e["manager"].clone())
        .collect();
    assert_eq!(managers[0], "applier");
    assert_eq!(managers[1], "ancient-changes");
    assert_eq!(managers.len(), 11);
    assert_eq!(managers[2], "m05");
    let owned = cluster.owned("ancient-changes");
    for key in ["k00", "k01", "k02", "k03", "k04"] {
        assert!(owned.contains(&format!(".data.{key}")), "{owned:?}");
    }
    assert_eq!(cluster.owned("m13"), [".data.k13"]);
}

#[test]
fn entries_are_in_order_of_operation_age_and_name() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("z", json!({"data": {"a": ""}}));
    cluster.update("a", |map| map["data"]["b"] = "".into());
    cluster.apply("y", json!({"data": {"c": ""}}));
    cluster.apply("b", json!({"data": {"d": ""}}));
    let order = |cluster: &Cluster| -> Vec<String> {
        let managers = cluster.entries().into_iter();
        managers
            .map(|e| e["manager"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(order(&cluster), ["y", "b", "z", "a"]);
    cluster.update("z", |map| map["data"]["e"] = "".into());
    assert_eq!(order(&cluster), ["y", "b", "a", "z"]);
}

#[test]
fn a_client_may_write_the_managers_itself() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("kubectl-client-side-apply", json!({"data": {"x": "1"}}));
    // What kubectl does when it moves to server-side apply: the update becomes an apply.
    cluster.update("kubectl", |map| {
        let entry = &mut map["metadata"]["managedFields"][0];
        entry["manager"] = "kubectl".into();
        entry["operation"] = "Apply".into();
        entry["fieldsV1"] = json!({"f:data": {"f:x": {}}});
    });
    assert_eq!(cluster.owned("kubectl"), [".data.x"]);
    cluster.apply("kubectl", json!({"data": {"y": "1"}}));
    assert_eq!(cluster.live()["data"], json!({"y": "1"}));
}

#[test]
fn what_a_client_leaves_out_or_writes_wrongly_is_as_it_was() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("a", json!({"data": {"x": "1"}}));
    let before = cluster.entries();
    let entry = |key: &str, value: Value| {
        let mut entry = before[0].clone();
        entry[key] = value;
        json!([entry])
    };
    let wrong = [
        Value::Null,
        entry("operation", "Delete".into()),
        entry("apiVersion", "".into()),
        entry("fieldsType", "FieldsV2".into()),
        entry("fieldsV1", json!({"f:data": 1})),
        entry("fieldsV1", json!({"data": {}})),
        entry("fieldsV1", json!({"k:{": {}})),
        entry("manager", "x".repeat(129).into()),
        entry("manager", "a\u{7}".into()),
        vec![before[0].clone(); 1001].into(),
    ];
    for list in wrong {
        cluster.update("b", |map| map["metadata"]["managedFields"] = list.clone());
        assert_eq!(cluster.entries(), before, "{list}");
    }
    let sub = Some(Subresource::Status);
    cluster.update_at("b", sub, |map| map["metadata"]["managedFields"] = json!([]));
    assert_eq!(cluster.entries(), before);
}

#[test]
fn a_record_that_was_reset_begins_again_with_an_apply_only() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("a", json!({"data": {"x": "1"}}));
    // Clients that know nothing of the record send an empty one.
    let before = cluster.entries();
    cluster.update("b", |map| map["metadata"]["managedFields"] = json!([]));
    assert_eq!(cluster.entries(), before);
    cluster.update("b", |map| map["metadata"]["managedFields"] = json!([{}]));
    assert_eq!(cluster.live()["metadata"].get("managedFields"), None);
    cluster.update("b", |map| map["data"]["y"] = "1".into());
    assert_eq!(cluster.entries(), Vec::<Value>::new());
    cluster.apply("c", json!({"data": {"z": "1"}}));
    assert_eq!(cluster.entries().len(), 2);
}

#[test]
fn an_object_that_comes_with_managers_keeps_them() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("a", json!({"data": {"x": "1"}}));
    let mut copy = cluster.live().clone();
    copy["data"]["y"] = "2".into();
    cluster.create("restore", copy);
    assert_eq!(cluster.entries().len(), 1);
    assert_eq!(cluster.owned("restore"), [".data", ".data.x", ".data.y"]);
}

#[test]
fn metadata_of_the_server_is_nobodys() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("a", json!({"data": {"x": "1"}}));
    let before = cluster.entries();
    cluster.update("b", |map| {
        let metadata = &mut map["metadata"];
        metadata["uid"] = "u".into();
        metadata["resourceVersion"] = "9".into();
        metadata["generation"] = 4.into();
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        metadata["deletionGracePeriodSeconds"] = 30.into();
    });
    assert_eq!(cluster.entries(), before);
}

#[test]
fn items_that_a_list_has_twice_are_one_path() {
    let names = |list: &[&str]| -> Value {
        let env = |(at, name): (usize, &&str)| json!({"name": name, "value": at.to_string()});
        let env: Vec<Value> = list.iter().enumerate().map(env).collect();
        json!({"spec": {"containers": [{"name": "app", "image": "a", "env": env}]}})
    };
    let item = |name: &str, rest: &str| {
        format!(r#".spec.containers[name="app"].env[name="{name}"]{rest}"#)
    };
    let mut cluster = Cluster::pods();
    cluster.create("a", names(&["X", "X", "Y"]));
    let owned = cluster.owned("a");
    assert!(
        owned.contains(&item("X", "")) && !owned.contains(&item("X", ".value")),
        "{owned:?}"
    );
    assert!(owned.contains(&item("Y", ".value")));
    let env = |pod: &mut Value| pod["spec"]["containers"][0]["env"].take();
    // Another value in one of them: all of them are written.
    cluster.update("b", |pod| {
        let mut list = env(pod);
        list[1]["value"] = "7".into();
        pod["spec"]["containers"][0]["env"] = list;
    });
    assert_eq!(cluster.owned("b"), [item("X", "")]);
    // One of them goes: the other one is an item like any.
    cluster.update("c", |pod| {
        let mut list = env(pod);
        list.as_array_mut().unwrap().remove(0);
        pod["spec"]["containers"][0]["env"] = list;
    });
    assert_eq!(
        cluster.owned("c"),
        [item("X", ""), item("X", ".name"), item("X", ".value")]
    );
    assert_eq!(cluster.owned("b"), Vec::<String>::new());
    // A second one comes: they are one path again.
    cluster.update("d", |pod| {
        let mut list = env(pod);
        list.as_array_mut()
            .unwrap()
            .push(json!({"name": "Y", "value": "9"}));
        pod["spec"]["containers"][0]["env"] = list;
    });
    assert_eq!(cluster.owned("d"), [item("Y", "")]);
    let owned = cluster.owned("a");
    assert!(
        !owned.iter().any(|path| path.contains(r#"env[name="Y"]"#)),
        "{owned:?}"
    );
}

#[test]
fn a_long_list_is_compared_by_its_keys_in_any_order() {
    let env: Vec<Value> = (0..40)
        .map(|at| json!({"name": format!("E{at:02}")}))
        .collect();
    let mut cluster = Cluster::pods();
    cluster.create(
        "a",
        json!({"spec": {"containers": [{"name": "app", "image": "a", "env": env}]}}),
    );
    let before = cluster.live().clone();
    cluster.update("b", |pod| {
        pod["spec"]["containers"][0]["env"]
            .as_array_mut()
            .unwrap()
            .reverse();
    });
    assert_eq!(cluster.owned("b"), Vec::<String>::new());
    assert_eq!(
        cluster.entries(),
        before["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .clone()
    );
    cluster.update("b", |pod| {
        pod["spec"]["containers"][0]["env"][0]["value"] = "x".into();
    });
    assert_eq!(
        cluster.owned("b"),
        [r#".spec.containers[name="app"].env[name="E39"].value"#]
    );
}

#[test]
fn a_change_that_the_server_took_back_is_no_write() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("a", json!({"data": {"x": "1"}}));
    let old = cluster.live().clone();
    let mut new = old.clone();
    new["metadata"]["managedFields"][0]["time"] = "2031-01-01T00:00:00Z".into();
    keep_times(&mut new, &old);
    assert_eq!(new, old);
    new["metadata"]["managedFields"][0]["time"] = "2031-01-01T00:00:00Z".into();
    new["data"]["x"] = "2".into();
    let changed = new.clone();
    keep_times(&mut new, &old);
    assert_eq!(new, changed);
}

#[test]
fn a_manager_has_a_name_that_can_be_shown() {
    assert_eq!(
        check_field_manager("PatchOptions", "ops tool/1", true),
        Ok(())
    );
    assert_eq!(check_field_manager("UpdateOptions", "", false), Ok(()));
    let refused = |manager: &str| {
        check_field_manager("PatchOptions", manager, true)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(""),
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for \
         apply patch"
    );
    assert_eq!(
        refused(&"x".repeat(129)),
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than \
         128 bytes"
    );
    assert_eq!(
        refused("a\tb"),
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\tb\": \
         invalid character U+0009 (at position 1)"
    );
    assert_eq!(
        manager_of_user_agent("kubectl/v1.33.1 (linux/amd64)"),
        "kubectl"
    );
    assert_eq!(manager_of_user_agent("a\u{0}b"), "ab");
    assert_eq!(manager_of_user_agent(&"é".repeat(100)).len(), 128);
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("", json!({"data": {"x": "1"}}));
    assert_eq!(cluster.owned("unknown"), [".data", ".data.x"]);
}
