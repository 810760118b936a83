use super::*;

fn deployment(spec: Value) -> Value {
    let mut base = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "app", "image": "app:1"}]},
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        base[key] = value.clone();
    }
    json!({"spec": base})
}

fn containers(list: Value) -> Value {
    json!({"spec": {"containers": list}})
}

#[test]
fn whoever_applies_owns_exactly_what_was_written_and_no_default() {
    let mut cluster = Cluster::deployments();
    cluster.apply("ops", deployment(json!({"replicas": 2})));
    assert_eq!(cluster.live()["spec"]["strategy"]["type"], "RollingUpdate");
    assert_eq!(
        cluster.owned("ops"),
        [
            ".spec.replicas",
            ".spec.selector",
            ".spec.template.metadata.labels.app",
            r#".spec.template.spec.containers[name="app"]"#,
            r#".spec.template.spec.containers[name="app"].image"#,
            r#".spec.template.spec.containers[name="app"].name"#,
        ]
    );
    let entry = &cluster.entries()[0];
    assert_eq!(entry["operation"], "Apply");
    assert_eq!(entry["apiVersion"], "apps/v1");
    assert_eq!(entry["fieldsType"], "FieldsV1");
    assert_eq!(entry["time"], "2027-01-15T08:00:01Z");
    assert_eq!(entry.get("subresource"), None);
}

#[test]
fn applying_the_same_again_changes_nothing_not_even_a_time() {
    let mut cluster = Cluster::deployments();
    cluster.apply("ops", deployment(json!({"replicas": 2})));
    cluster.apply("other", deployment(json!({"replicas": 2})));
    let before = cluster.live().clone();
    cluster.apply("ops", deployment(json!({"replicas": 2})));
    cluster.apply("other", deployment(json!({"replicas": 2})));
    assert_eq!(*cluster.live(), before);
}

#[test]
fn a_second_applier_of_the_same_values_owns_them_too() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.apply("a", json!({"data": {"x": "1"}}));
    cluster.apply("b", json!({"data": {"x": "1"}}));
    assert_eq!(cluster.owned("a"), [".data.x"]);
    assert_eq!(cluster.owned("b"), [".data.x"]);
    assert!(cluster.time("a") < cluster.time("b"));
    cluster.apply("a", json!({"data": {"y": "2"}}));
    assert_eq!(cluster.live()["data"], json!({"x": "1", "y": "2"}));
    cluster.apply("b", json!({}));
    assert_eq!(cluster.live()["data"], json!({"y": "2"}));
    assert_eq!(cluster.owned("b"), Vec::<String>::new());
}

#[test]
fn what_is_applied_no_more_goes() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.apply(
        "a",
        json!({"data": {"x": "1", "y": "1"}, "immutable": false}),
    );
    cluster.apply("a", json!({"data": {"x": "1"}}));
    assert_eq!(cluster.live()["data"], json!({"x": "1"}));
    assert_eq!(cluster.live().get("immutable"), None);
    assert_eq!(cluster.owned("a"), [".data.x"]);
    cluster.apply("a", json!({}));
    assert_eq!(cluster.live().get("data"), None);
    assert_eq!(meta::name(cluster.live()), "web");
    assert_eq!(cluster.entries(), Vec::<Value>::new());
}

#[test]
fn what_an_updater_owns_stays_when_an_applier_gives_it_up() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("editor", json!({"data": {"x": "1"}}));
    cluster.apply("a", json!({"data": {"x": "1"}}));
    cluster.apply("a", json!({}));
    assert_eq!(cluster.live()["data"], json!({"x": "1"}));
    assert_eq!(cluster.owned("editor"), [".data", ".data.x"]);
}

#[test]
fn another_value_is_a_conflict_with_its_owner() {
    let mut cluster = Cluster::deployments();
    cluster.apply("ops", deployment(json!({"replicas": 2})));
    let error = cluster.refused("hpa", json!({"spec": {"replicas": 5}}));
    assert_eq!(
        error.to_string(),
        r#"Apply failed with 1 conflict: conflict with "ops": .spec.replicas"#
    );
    let status = error.status();
    assert_eq!(
        (status.code, status.reason.as_deref()),
        (Some(409), Some("Conflict"))
    );
    let details = status.details.unwrap();
    assert_eq!((details.name, details.kind), (None, None));
    let causes = serde_json::to_value(details.causes).unwrap();
    let expected = json!([{
        "field": ".spec.replicas",
        "message": "conflict with \"ops\"",
        "reason": "FieldManagerConflict",
    }]);
    assert_eq!(causes, expected);
}

#[test]
fn several_conflicts_are_said_by_manager_with_every_field() {
    let mut cluster = Cluster::pods();
    cluster.create(
        "maker",
        containers(json!([{"name": "app", "image": "app:1"}])),
    );
    cluster.apply("labeller", labels(json!({"tier": "a", "team": "x"})));
    cluster.update_at("kubelet", Some(Subresource::Status), |pod| {
        pod["metadata"]["annotations"] = json!({"seen": "1"});
    });
    let mut wanted = containers(json!([{"name": "app", "image": "app:2"}]));
    wanted["metadata"] = json!({
        "labels": {"tier": "b", "team": "y"},
        "annotations": {"seen": "2"},
    });
    let error = cluster.refused("ops", wanted);
    let expected = [
        r#"Apply failed with 4 conflicts: conflicts with "kubelet" with subresource "status" using v1:"#,
        "- .metadata.annotations.seen",
        r#"conflicts with "labeller":"#,
        "- .metadata.labels.team",
        "- .metadata.labels.tier",
        r#"conflicts with "maker" using v1:"#,
        r#"- .spec.containers[name="app"].image"#,
    ];
    assert_eq!(error.to_string(), expected.join("\n"));
}

#[test]
fn force_takes_the_fields_over() {
    let mut cluster = Cluster::deployments();
    cluster.apply("ops", deployment(json!({"replicas": 2, "paused": true})));
    cluster.force("hpa", json!({"spec": {"replicas": 5}}));
    assert_eq!(cluster.live()["spec"]["replicas"], 5);
    assert_eq!(cluster.owned("hpa"), [".spec.replicas"]);
    assert!(!cluster.owned("ops").contains(&".spec.replicas".to_owned()));
    assert!(cluster.owned("ops").contains(&".spec.paused".to_owned()));
    // The first one has lost the field and leaves it alone by not naming it.
    cluster.apply("ops", deployment(json!({"paused": true})));
    assert_eq!(cluster.live()["spec"]["replicas"], 5);
}

#[test]
fn an_update_takes_a_field_from_its_applier_who_is_told_by_a_conflict() {
    let mut cluster = Cluster::deployments();
    cluster.apply("ops", deployment(json!({"replicas": 2})));
    cluster.update("scaler", |deployment| {
        deployment["spec"]["replicas"] = 7.into()
    });
    assert_eq!(cluster.owned("scaler"), [".spec.replicas"]);
    let error = cluster.refused("ops", deployment(json!({"replicas": 2})));
    assert_eq!(
        error.to_string(),
        r#"Apply failed with 1 conflict: conflict with "scaler" using apps/v1: .spec.replicas"#
    );
    // Who gives in agrees with the value that is there, and both own it.
    cluster.apply("ops", deployment(json!({"replicas": 7})));
    assert_eq!(cluster.owned("scaler"), [".spec.replicas"]);
}

#[test]
fn an_applier_and_an_updater_of_the_same_name_are_two() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("a", json!({"data": {"x": "1"}}));
    let error = cluster.refused("a", json!({"data": {"x": "2"}}));
    assert!(
        error
            .to_string()
            .contains(r#"conflict with "a" using v1: .data.x"#),
        "{error}"
    );
}

#[test]
fn items_of_a_list_have_their_own_appliers() {
    let mut cluster = Cluster::pods();
    cluster.apply(
        "ops",
        containers(json!([{"name": "app", "image": "app:1"}])),
    );
    cluster.apply(
        "mesh",
        containers(json!([{"name": "proxy", "image": "proxy:1"}])),
    );
    let names = |cluster: &Cluster| -> Vec<String> {
        let list = cluster.live()["spec"]["containers"].as_array().unwrap();
        list.iter()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&cluster), ["app", "proxy"]);
    cluster.apply(
        "ops",
        containers(json!([{"name": "app", "image": "app:2"}])),
    );
    assert_eq!(names(&cluster), ["app", "proxy"]);
    // An item goes whole, with the defaults that nobody owns.
    cluster.apply("mesh", json!({}));
    assert_eq!(names(&cluster), ["app"]);
    assert_eq!(cluster.live()["spec"]["containers"][0]["image"], "app:2");
}

#[test]
fn an_item_that_two_apply_stays_with_what_the_other_one_says_of_it() {
    let mut cluster = Cluster::pods();
    cluster.apply(
        "ops",
        containers(json!([
            {"name": "app", "image": "app:1"},
            {"name": "log", "image": "log:1", "env": [{"name": "A", "value": "1"}]},
        ])),
    );
    cluster.apply(
        "mesh",
        containers(json!([
            {"name": "log", "image": "log:1", "env": [{"name": "B", "value": "2"}]},
        ])),
    );
    cluster.update("editor", |pod| {
        let env = &mut pod["spec"]["containers"][1]["env"];
        env.as_array_mut()
            .unwrap()
            .push(json!({"name": "C", "value": "3"}));
    });
    cluster.apply(
        "ops",
        containers(json!([{"name": "app", "image": "app:1"}])),
    );
    let log = &cluster.live()["spec"]["containers"][1];
    assert_eq!(log["name"], "log");
    let env = json!([{"name": "B", "value": "2"}, {"name": "C", "value": "3"}]);
    assert_eq!(log["env"], env);
}

#[test]
fn an_item_goes_with_what_an_updater_has_put_into_it() {
    let mut cluster = Cluster::pods();
    let both = json!([{"name": "app", "image": "a"}, {"name": "log", "image": "l"}]);
    cluster.apply("ops", containers(both));
    cluster.update("editor", |pod| {
        pod["spec"]["containers"][1]["tty"] = true.into()
    });
    cluster.apply("ops", containers(json!([{"name": "app", "image": "a"}])));
    assert_eq!(
        cluster.live()["spec"]["containers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(cluster.owned("editor"), Vec::<String>::new());
}

#[test]
fn a_struct_stays_for_what_an_updater_owns_in_it() {
    let mut cluster = Cluster::pods();
    let mut pod = containers(json!([{"name": "app", "image": "a"}]));
    pod["spec"]["securityContext"] = json!({"runAsUser": 1});
    cluster.apply("ops", pod);
    cluster.update("editor", |pod| {
        pod["spec"]["securityContext"]["runAsGroup"] = 2.into();
    });
    cluster.apply("ops", containers(json!([{"name": "app", "image": "a"}])));
    assert_eq!(
        cluster.live()["spec"]["securityContext"],
        json!({"runAsGroup": 2})
    );
}

#[test]
fn a_port_without_protocol_is_the_tcp_port() {
    let port = |port: Value| containers(json!([{"name": "app", "image": "a", "ports": [port]}]));
    let mut cluster = Cluster::pods();
    cluster.apply("ops", port(json!({"containerPort": 80, "name": "http"})));
    let item = r#".spec.containers[name="app"].ports[containerPort=80,protocol="TCP"]"#;
    let owned = cluster.owned("ops");
    assert!(owned.contains(&item.to_owned()), "{owned:?}");
    assert!(!owned.contains(&format!("{item}.protocol")), "{owned:?}");
    let before = cluster.live().clone();
    cluster.apply("ops", port(json!({"containerPort": 80, "name": "http"})));
    assert_eq!(*cluster.live(), before);
    let other = port(json!({"containerPort": 80, "protocol": "TCP", "name": "web"}));
    let error = cluster.refused("mesh", other);
    assert!(
        error
            .to_string()
            .ends_with(&format!(r#"conflict with "ops": {item}.name"#))
    );
    cluster.apply(
        "mesh",
        port(json!({"containerPort": 80, "protocol": "UDP"})),
    );
    let ports = &cluster.live()["spec"]["containers"][0]["ports"];
    assert_eq!(ports.as_array().unwrap().len(), 2);
}

#[test]
fn a_configuration_that_a_list_cannot_hold_is_refused_with_its_path() {
    let port = |ports: Value| containers(json!([{"name": "app", "ports": ports}]));
    let at = r#"(shop/web; v1, Kind=Pod): .spec.containers[name="app"].ports: "#;
    let cases = [
        (
            port(json!([{"containerPort": 80}, {"containerPort": 80, "protocol": "TCP"}])),
            format!(r#"{at}duplicate entries for key [containerPort=80,protocol="TCP"]"#),
        ),
        (
            port(json!([null])),
            format!("{at}element 0: associative list with keys may not have a null element"),
        ),
        (
            port(json!([7])),
            format!("{at}element 0: associative list with keys may not have non-map elements"),
        ),
        (
            json!({"spec": {"containers": [{"image": "a"}]}}),
            r#".spec.containers: element 0: associative list with keys has an element that omits all key fields ["name"]"#.to_owned(),
        ),
        (
            json!({"metadata": {"finalizers": ["a/b", "a/b"]}}),
            r#".metadata.finalizers: duplicate entries for key [="a/b"]"#.to_owned(),
        ),
        (
            json!({"spec": {"nodeNmae": "x"}}),
            ".spec.nodeNmae: field not declared in schema".to_owned(),
        ),
        (json!({"spec": "x"}), ".spec: expected map, got".to_owned()),
        (json!({"spec": {"containers": 1}}), ".spec.containers: expected list, got 1".to_owned()),
    ];
    for (configuration, expected) in cases {
        let error = Cluster::pods()
            .try_apply("ops", None, configuration, false)
            .unwrap_err();
        assert_eq!(error.code(), 400);
        let text = error.to_string();
        assert!(
            text.starts_with("failed to create typed patch object ("),
            "{text}"
        );
        assert!(text.contains(&expected), "{text}\n{expected}");
    }
}

#[test]
fn a_configuration_says_what_it_is_and_nothing_of_managers() {
    let mut cluster = Cluster::deployments();
    let error = cluster
        .try_apply("ops", None, json!({"apiVersion": "apps/v2"}), false)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid object type: apps/v2, Kind=Deployment"
    );
    let error = cluster
        .try_apply(
            "ops",
            None,
            json!({"kind": "Pod", "apiVersion": "v1"}),
            false,
        )
        .unwrap_err();
    assert_eq!(error.to_string(), "invalid object type: /v1, Kind=Pod");
    let managed = json!({"metadata": {"managedFields": []}});
    let error = cluster.try_apply("ops", None, managed, false).unwrap_err();
    assert_eq!(error.to_string(), "metadata.managedFields must be nil");
}

#[test]
fn a_selector_or_reference_has_one_owner() {
    let mut cluster = Cluster::of("", "services");
    let service =
        |selector: Value| json!({"spec": {"ports": [{"port": 80}], "selector": selector}});
    cluster.apply("a", service(json!({"app": "web"})));
    assert!(cluster.owned("a").contains(&".spec.selector".to_owned()));
    let error = cluster.refused("b", json!({"spec": {"selector": {"tier": "x"}}}));
    assert!(
        error
            .to_string()
            .ends_with(r#"conflict with "a": .spec.selector"#),
        "{error}"
    );
    cluster.force("b", json!({"spec": {"selector": {"tier": "x"}}}));
    assert_eq!(cluster.live()["spec"]["selector"], json!({"tier": "x"}));

    let mut cluster = Cluster::pods();
    let mut pod = containers(json!([{"name": "app", "image": "a", "args": ["1", "2"]}]));
    pod["spec"]["imagePullSecrets"] = json!([{"name": "key"}]);
    cluster.apply("a", pod);
    let owned = cluster.owned("a");
    assert!(
        owned.contains(&r#".spec.imagePullSecrets[name="key"]"#.to_owned()),
        "{owned:?}"
    );
    assert!(
        owned.contains(&r#".spec.containers[name="app"].args"#.to_owned()),
        "{owned:?}"
    );
    let longer = containers(json!([{"name": "app", "args": ["1", "2", "3"]}]));
    assert!(cluster.refused("b", longer).to_string().ends_with(".args"));
}

#[test]
fn items_of_a_set_have_their_own_appliers() {
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    let mut cluster = Cluster::of("", "configmaps");
    cluster.apply("a", finalizers(json!(["x/a", "x/both"])));
    cluster.apply("b", finalizers(json!(["x/b", "x/both"])));
    assert_eq!(
        cluster.live()["metadata"]["finalizers"],
        json!(["x/a", "x/b", "x/both"])
    );
    assert_eq!(
        cluster.owned("b"),
        [
            r#".metadata.finalizers[="x/b"]"#,
            r#".metadata.finalizers[="x/both"]"#
        ]
    );
    cluster.apply("a", json!({}));
    assert_eq!(
        cluster.live()["metadata"]["finalizers"],
        json!(["x/b", "x/both"])
    );
    cluster.apply("b", json!({}));
    assert_eq!(cluster.live()["metadata"].get("finalizers"), None);
}

#[test]
fn null_takes_a_value_away_and_what_others_own_only_by_force() {
    let mut cluster = Cluster::deployments();
    cluster.apply("ops", deployment(json!({"paused": true})));
    let error = cluster.refused("other", json!({"spec": {"paused": null}}));
    assert!(
        error
            .to_string()
            .ends_with(r#"conflict with "ops": .spec.paused"#),
        "{error}"
    );
    cluster.force("other", json!({"spec": {"paused": null}}));
    assert_eq!(cluster.live()["spec"].get("paused"), None);
    assert_eq!(cluster.owned("other"), [".spec.paused"]);
    // For what has parts it says nothing of them.
    cluster.apply("third", json!({"spec": {"template": null}}));
    let template = &cluster.live()["spec"]["template"]["spec"]["containers"];
    assert_eq!(template.as_array().unwrap().len(), 1);
}

#[test]
fn an_empty_object_claims_the_object_itself() {
    let mut cluster = Cluster::pods();
    let mut pod = containers(json!([{"name": "app", "image": "a"}]));
    pod["spec"]["volumes"] = json!([{"name": "tmp", "emptyDir": {}}]);
    cluster.apply("ops", pod.clone());
    let empty_dir = r#".spec.volumes[name="tmp"].emptyDir"#.to_owned();
    assert!(cluster.owned("ops").contains(&empty_dir));
    let before = cluster.live().clone();
    cluster.apply("ops", pod);
    assert_eq!(*cluster.live(), before);
}

#[test]
fn a_status_is_applied_through_its_path_only() {
    let mut cluster = Cluster::pods();
    let mut pod = containers(json!([{"name": "app", "image": "a"}]));
    pod["status"] = json!({"phase": "Failed"});
    cluster.apply("ops", pod);
    assert_ne!(cluster.live()["status"]["phase"], "Failed");
    assert!(
        !cluster
            .owned("ops")
            .iter()
            .any(|path| path.starts_with(".status"))
    );
    let status = json!({
        "metadata": {"labels": {"seen": "yes"}},
        "spec": {"nodeName": "other"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    let sub = Some(Subresource::Status);
    cluster
        .try_apply("ops", sub, status.clone(), false)
        .unwrap();
    assert_eq!(cluster.live()["status"]["phase"], "Running");
    assert_eq!(cluster.live()["spec"].get("nodeName"), None);
    let entries = cluster.entries();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(
        shown(&entries[1]["fieldsV1"]),
        [
            ".metadata.labels.seen",
            ".status.phase",
            r#".status.conditions[type="Ready"]"#,
            r#".status.conditions[type="Ready"].status"#,
            r#".status.conditions[type="Ready"].type"#,
        ]
    );
    let before = cluster.live().clone();
    cluster.try_apply("ops", sub, status, false).unwrap();
    assert_eq!(*cluster.live(), before);
    // Conditions of others stay, this one's goes when it is applied no more.
    cluster.update_at("node", sub, |pod| {
        let conditions = pod["status"]["conditions"].as_array_mut().unwrap();
        conditions.push(json!({"type": "Initialized", "status": "True"}));
    });
    let phase = json!({"status": {"phase": "Running"}});
    cluster.try_apply("ops", sub, phase, false).unwrap();
    let conditions = cluster.live()["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 1);
    assert_eq!(conditions[0]["type"], "Initialized");
}

#[test]
fn another_spelling_of_a_quantity_is_no_change() {
    let cpu = |cpu: &str| {
        containers(json!([{"name": "app", "image": "a", "resources": {"requests": {"cpu": cpu}}}]))
    };
    let mut cluster = Cluster::pods();
    cluster.apply("a", cpu("0.5"));
    let before = cluster.live().clone();
    cluster.apply("a", cpu("0.5"));
    cluster.apply("a", cpu("500m"));
    assert_eq!(*cluster.live(), before);
    cluster.apply("b", cpu("0.500"));
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.create("editor", json!({"data": {"x": "1"}}));
    cluster.update("editor", |map| {
        map["metadata"]["managedFields"] = json!([{}])
    });
    assert_eq!(cluster.entries(), Vec::<Value>::new());
    let error = cluster.refused("ops", json!({"data": {"x": "2"}}));
    assert!(
        error
            .to_string()
            .ends_with(r#"conflict with "before-first-apply" using v1: .data.x"#),
        "{error}"
    );
    cluster.apply("ops", json!({"data": {"y": "2"}}));
    assert_eq!(cluster.owned("before-first-apply"), [".data", ".data.x"]);
}

#[test]
fn an_applier_has_one_entry_whatever_version_it_used() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.apply("ops", json!({"data": {"x": "1", "y": "1"}}));
    cluster.update("old", |map| map["data"]["z"] = "1".into());
    cluster.update("editor", |map| {
        let list = map["metadata"]["managedFields"].as_array_mut().unwrap();
        for entry in list {
            entry["apiVersion"] = "v1beta9".into();
        }
    });
    cluster.apply("ops", json!({"data": {"x": "1"}}));
    assert_eq!(cluster.live()["data"], json!({"x": "1", "z": "1"}));
    let versions: Vec<Value> = cluster
        .entries()
        .iter()
        .map(|e| e["apiVersion"].clone())
        .collect();
    // The updater's entry keeps the version that it was written in.
    assert_eq!(versions, ["v1", "v1beta9"]);
}

#[test]
fn metadata_that_says_which_object_it_is_is_nobodys() {
    let mut cluster = Cluster::of("", "configmaps");
    cluster.apply(
        "ops",
        json!({"metadata": {"uid": "u", "resourceVersion": "7"}}),
    );
    assert_eq!(cluster.live()["metadata"]["resourceVersion"], "7");
    assert_eq!(cluster.entries(), Vec::<Value>::new());
}

#[test]
fn a_scale_is_applied_to_the_replicas_of_its_workload() {
    let mut cluster = Cluster::deployments();
    cluster.apply("ops", deployment(json!({"replicas": 2})));
    let scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"replicas": 5},
    });
    let configuration = configuration_of_scale(cluster.resource, &scale);
    let sub = Some(Subresource::Scale);
    let error = cluster
        .try_apply("hpa", sub, configuration.clone(), false)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with(r#"conflict with "ops": .spec.replicas"#),
        "{error}"
    );
    cluster.try_apply("hpa", sub, configuration, true).unwrap();
    assert_eq!(cluster.live()["spec"]["replicas"], 5);
    assert_eq!(cluster.owned("hpa"), [".spec.replicas"]);
    assert_eq!(cluster.entries()[1]["subresource"], "scale");
}

#[test]
fn a_smaller_configuration_gives_up_whole_structs_and_keeps_what_it_never_owned() {
    let mut cluster = Cluster::deployments();
    let mut first = deployment(json!({"strategy": {"rollingUpdate": {"maxSurge": 2}}}));
    first["metadata"] = json!({"labels": {"a": "1"}, "annotations": {"x": "1"}});
    cluster.apply("ops", first);
    cluster.update("editor", |deployment| {
        deployment["metadata"]["annotations"]["y"] = "2".into();
    });
    cluster.apply("ops", deployment(json!({})));
    let live = cluster.live();
    assert_eq!(live["metadata"].get("labels"), None);
    assert_eq!(live["metadata"]["annotations"], json!({"y": "2"}));
    // Nobody says how to roll out any more, so it is the default again.
    assert_eq!(live["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
}
