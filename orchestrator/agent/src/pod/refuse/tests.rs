//! The tables against Kubernetes' schema, and a pod for each kind of refusal.

use serde_json::json;

use super::*;
use api::schema::{self, Type};

const PLAIN: Abilities = Abilities {
    app_armor: false,
    cluster_dns: false,
    selinux: false,
    unsafe_sysctls: Vec::new(),
    user_namespaces: false,
    pod_cgroups: false,
    huge_pages: false,
};

/// A pod with one container; what is given replaces fields of both.
fn pod(spec: Value, container: Value) -> Pod {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]},
    });
    let merge = |into: &mut Value, from: Value| {
        for (field, value) in from.as_object().expect("an object") {
            into[field] = value.clone();
        }
    };
    merge(&mut object["spec"]["containers"][0], container);
    merge(&mut object["spec"], spec);
    serde_json::from_value(object).expect("a pod")
}

fn refused(spec: Value, container: Value) -> Option<(&'static str, String)> {
    let refusal = admit(&pod(spec, container), &PLAIN).refusal?;
    Some((refusal.reason, refusal.message))
}

/// Every type below the spec that has rows, beside its definition in the schema.
fn compare(rows: Rows, type_name: &str, problems: &mut Vec<String>) {
    let definition = schema::definition(type_name).expect("a served type");
    for field in definition.fields.keys() {
        if rows.iter().all(|(name, _)| **name != **field) {
            problems.push(format!("{type_name}.{field} has no row"));
        }
    }
    for (name, rule) in rows {
        let Some(field) = definition.fields.get(*name) else {
            problems.push(format!("{type_name} has no field {name}"));
            continue;
        };
        let (Rule::In(rows) | Rule::Whole(_, rows)) = rule else {
            continue;
        };
        match &field.ty {
            Type::Ref(inner) => compare(rows, inner, problems),
            Type::List(item) => match &**item {
                Type::Ref(inner) => compare(rows, inner, problems),
                other => problems.push(format!("{type_name}.{name} is a list of {other:?}")),
            },
            other => problems.push(format!("{type_name}.{name} is {other:?}")),
        }
    }
}

#[test]
fn every_field_that_kubernetes_knows_of_a_pod_has_a_rule_and_no_rule_is_of_another() {
    let mut problems = Vec::new();
    compare(POD_SPEC, "io.k8s.api.core.v1.PodSpec", &mut problems);
    assert_eq!(problems, Vec::<String>::new());
}

#[test]
fn what_a_node_does_not_do_for_a_whole_pod_is_refused_with_its_field() {
    let volume = |kind: Value| json!({"volumes": [kind]});
    let context = |context: Value| json!({"securityContext": context});
    let none = || json!({});
    let cases = [
        (
            volume(json!({"name": "v", "iscsi": {"lun": 1}})),
            none(),
            "Unsupported",
            "spec.volumes[0].iscsi: volumes of this type are not supported",
        ),
        (
            context(json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]})),
            none(),
            "SysctlForbidden",
            "spec.securityContext.sysctls[0].name: forbidden sysctl: \"kernel.msgmax\" not \
             allowlisted",
        ),
        (
            json!({"hostNetwork": true, "securityContext":
                {"sysctls": [{"name": "net/ipv4/tcp_rmem", "value": "1"}]}}),
            none(),
            "SysctlForbidden",
            "spec.securityContext.sysctls[0].name: forbidden sysctl: \"net/ipv4/tcp_rmem\" not \
             allowed with host net enabled",
        ),
        (
            json!({"hostIPC": true, "securityContext":
                {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}}),
            none(),
            "SysctlForbidden",
            "spec.securityContext.sysctls[0].name: forbidden sysctl: \"kernel.shm_rmid_forced\" \
             not allowed with host ipc enabled",
        ),
    ];
    for (spec, container, reason, message) in cases {
        assert_eq!(refused(spec, container), Some((reason, message.to_owned())));
    }
}

#[test]
fn security_that_a_node_does_not_do_is_refused_with_its_field() {
    let context = |context: Value| json!({"securityContext": context});
    let none = || json!({});
    let cases = [(
        context(json!({"appArmorProfile": {"type": "RuntimeDefault"}})),
        none(),
        "AppArmor",
        "spec.securityContext.appArmorProfile.type: Cannot enforce AppArmor: AppArmor is not \
             enabled on the host",
    )];
    for (spec, container, reason, message) in cases {
        assert_eq!(refused(spec, container), Some((reason, message.to_owned())));
    }
}

#[test]
fn what_a_node_does_not_do_for_a_container_is_refused_with_its_field() {
    let none = || json!({});
    let cases = [
        (
            json!({"hostUsers": false}),
            none(),
            "Unsupported",
            "spec.hostUsers: false is not supported: the Docker Engine of this node does not remap \
             users (userns-remap)",
        ),
        (
            json!({"resources": {"limits": {"cpu": "1"}}}),
            none(),
            "Unsupported",
            "spec.resources: a pod's own cgroup is not supported: the cgroup driver of this node's \
             Docker Engine is not cgroupfs",
        ),
        (
            json!({"os": {"name": "windows"}}),
            none(),
            "PodOSNotSupported",
            "spec.os.name: Failed to admit pod as the OS field doesn't match node OS",
        ),
        (
            none(),
            json!({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}}),
            "Unsupported",
            "spec.containers[0].resources.limits: hugepages-2Mi is not supported: this node has no \
             cgroup controller for huge pages",
        ),
        (
            none(),
            json!({"volumeMounts":
                [{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}]}),
            "Unsupported",
            "spec.containers[0]: Bidirectional mount propagation is available only to privileged \
             containers",
        ),
        (
            none(),
            json!({"volumeMounts":
                [{"name": "v", "mountPath": "/v", "recursiveReadOnly": "Enabled"}]}),
            "Unsupported",
            "spec.containers[0].volumeMounts[0].recursiveReadOnly: \"Enabled\" is not supported",
        ),
    ];
    for (spec, container, reason, message) in cases {
        assert_eq!(refused(spec, container), Some((reason, message.to_owned())));
    }
}

#[test]
fn a_node_that_can_runs_pods_with_users_limits_and_huge_pages_of_their_own() {
    let able = Abilities {
        user_namespaces: true,
        pod_cgroups: true,
        huge_pages: true,
        ..PLAIN
    };
    let spec = json!({"hostUsers": false,
        "securityContext": {"supplementalGroupsPolicy": "Strict"},
        "resources": {"limits": {"cpu": "1", "hugepages-2Mi": "4Mi"}}});
    let container = json!({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}});
    let asking = pod(spec, container);
    assert_eq!(admit(&asking, &able).refusal, None);
    let lacking = Abilities {
        pod_cgroups: false,
        ..able
    };
    assert!(admit(&asking, &lacking).refusal.is_some());
}

#[test]
fn names_and_paths_that_would_leave_their_place_are_refused_again_here() {
    let mount = |mount: Value| json!({"volumeMounts": [mount]});
    let cases = [
        (
            json!({}),
            json!({"name": "../../etc"}),
            "spec.containers[0].name",
        ),
        (
            json!({}),
            json!({"name": "a\nb"}),
            "spec.containers[0].name",
        ),
        (
            json!({"volumes": [{"name": "..", "emptyDir": {}}]}),
            json!({}),
            "spec.volumes[0].name",
        ),
        (
            json!({"volumes": [{"name": "a\0b", "emptyDir": {}}]}),
            json!({}),
            "spec.volumes[0].name",
        ),
        (
            json!({}),
            mount(json!({"name": "v", "mountPath": "/a", "subPath": "a/../../b"})),
            "spec.containers[0].volumeMounts[0].subPath",
        ),
        (
            json!({}),
            mount(json!({"name": "v", "mountPath": "/a", "subPathExpr": "/b"})),
            "spec.containers[0].volumeMounts[0].subPathExpr",
        ),
        (
            json!({}),
            mount(json!({"name": "v", "mountPath": "/a\n/b"})),
            "spec.containers[0].volumeMounts[0].mountPath",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/a/../etc"}}]}),
            json!({}),
            "spec.volumes[0].hostPath.path",
        ),
        (
            json!({"volumes": [{"name": "v", "configMap":
                {"name": "c", "items": [{"key": "k", "path": "../x"}]}}]}),
            json!({}),
            "spec.volumes[0].configMap.items[0].path",
        ),
        (
            json!({"hostAliases": [{"ip": "10.0.0.1\n10.0.0.2 bank", "hostnames": ["a"]}]}),
            json!({}),
            "spec.hostAliases[0].ip",
        ),
        (
            json!({"dnsConfig": {"searches": ["a\nnameserver 10.0.0.1"]}}),
            json!({}),
            "spec.dnsConfig.searches[0]",
        ),
        (json!({"hostname": "a b"}), json!({}), "spec.hostname"),
    ];
    for (spec, container, field) in cases {
        let (_, message) = refused(spec, container).expect("it is refused");
        assert!(
            message.starts_with(&format!("{field}: ")),
            "{field}: {message}"
        );
    }
}

#[test]
fn a_seccomp_profile_of_the_node_lies_below_the_directory_of_profiles() {
    let named = |path: &str| {
        let profile = json!({"type": "Localhost", "localhostProfile": path});
        let spec = json!({"securityContext": {"seccompProfile": profile}});
        refused(spec, json!({})).map(|(_, message)| message)
    };
    assert_eq!(named("profiles/audit.json"), None);
    for path in ["../x", "/etc/x", "a/../../x"] {
        let why = named(path).expect("it is refused");
        let field = "spec.securityContext.seccompProfile.localhostProfile: ";
        assert!(why.starts_with(field), "{why}");
    }
}

#[test]
fn the_node_says_which_sysctls_pods_may_set_besides_the_safe_ones() {
    let node = Abilities {
        unsafe_sysctls: ["kernel.msg*", "net.core.somaxconn", "kernel.core_pattern"]
            .map(str::to_owned)
            .to_vec(),
        ..PLAIN
    };
    let reason = |name: &str, spec: Value| {
        let sysctls = json!({"sysctls": [{"name": name, "value": "1"}]});
        let mut pod = pod(spec, json!({}));
        let context = serde_json::from_value(sysctls).expect("a context");
        pod.spec.as_mut().expect("a spec").security_context = Some(context);
        admit(&pod, &node).refusal.map(|it| it.reason)
    };
    let none = || json!({});
    for name in ["kernel.msgmax", "kernel/msgmax", "net.core.somaxconn"] {
        assert_eq!(reason(name, none()), None, "{name}");
    }
    // One without a namespace is the whole node's, whatever the node says.
    for name in [
        "kernel.shmmax",
        "net.core.somaxconnx",
        "kernel.core_pattern",
    ] {
        assert_eq!(reason(name, none()), Some("SysctlForbidden"), "{name}");
    }
    let host = json!({"hostIPC": true});
    assert_eq!(reason("kernel.msgmax", host), Some("SysctlForbidden"));
}

#[test]
fn a_pod_whose_own_name_is_a_path_is_refused() {
    for name in ["../x", "a/b", "", "a\nb"] {
        let mut pod = pod(json!({}), json!({}));
        pod.metadata.name = Some(name.to_owned());
        assert!(admit(&pod, &PLAIN).refusal.is_some(), "{name:?}");
    }
}

#[test]
fn the_annotation_for_app_armor_is_read_like_the_field() {
    let annotated = |profile: &str| {
        let mut pod = pod(json!({}), json!({}));
        let key = "container.apparmor.security.beta.kubernetes.io/c".to_owned();
        pod.metadata.annotations = Some([(key, profile.to_owned())].into());
        pod
    };
    let reason = |profile: &str, node: &Abilities| {
        admit(&annotated(profile), node).refusal.map(|it| it.reason)
    };
    let armed = Abilities {
        app_armor: true,
        ..PLAIN
    };
    assert_eq!(reason("unconfined", &PLAIN), None);
    assert_eq!(reason("runtime/default", &PLAIN), Some("AppArmor"));
    assert_eq!(reason("runtime/default", &armed), None);
    assert_eq!(reason("localhost/mine", &armed), None);
}

#[test]
fn an_ordinary_pod_is_taken_and_has_all_that_it_asks_for() {
    let spec = json!({
        "automountServiceAccountToken": false,
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": false,
        "hostUsers": true,
        "os": {"name": "linux"},
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
        "securityContext": {
            "runAsNonRoot": true,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
            "appArmorProfile": {"type": "Unconfined"},
            "seLinuxOptions": {},
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        "serviceAccountName": "default",
        "tolerations": [{"operator": "Exists"}],
        "volumes": [
            {"name": "v", "emptyDir": {}},
            {"name": "w", "configMap": {"name": "c", "items": [{"key": "k", "path": "a/b"}]}},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken":
                {"path": "token", "expirationSeconds": 3607, "audience": "vault"}}]}},
        ],
    });
    let container = json!({
        "args": ["-c", "echo a\necho b"],
        "env": [{"name": "TEXT", "value": "two\nlines"}],
        "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}},
        "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            "procMount": "Default",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a..b"}],
    });
    assert_eq!(admit(&pod(spec, container), &PLAIN), Admission::default());
}

#[test]
fn what_is_only_wished_for_is_named_and_the_pod_runs() {
    let spec = json!({"imagePullSecrets": [{"name": "registry"}]});
    let container = json!({
        "resources": {"limits": {"ephemeral-storage": "1Gi"}},
        "securityContext": {"seLinuxOptions": {"level": "s0:c1"}},
    });
    let admission = admit(&pod(spec, container), &PLAIN);
    assert_eq!(admission.refusal, None);
    assert_eq!(
        admission.unmet,
        ["spec.containers[0].securityContext.seLinuxOptions: SELinux is not enabled on the host"]
    );
}

#[test]
fn a_probe_asks_no_address_that_only_the_node_may_ask() {
    let probed = |host: &str, host_network: bool| {
        let probe = json!({"tcpSocket": {"host": host, "port": 80}});
        let spec = json!({"hostNetwork": host_network});
        refused(spec, json!({"readinessProbe": probe})).is_none()
    };
    for host in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost"] {
        assert!(!probed(host, false), "{host}");
        assert!(probed(host, true), "{host}");
    }
    for host in ["169.254.169.254", "0.0.0.0", "::", "fe80::1", "224.0.0.1"] {
        assert!(!probed(host, false) && !probed(host, true), "{host}");
    }
    assert!(probed("", false) && probed("192.0.2.1", false));
}

/// What is said of the first mount of a pod with an emptyDir `own` and a hostPath `node` of that path.
fn mounted(volume: &str, node_path: &str, mount: Value) -> Option<String> {
    let spec = json!({"volumes": [
        {"name": "own", "emptyDir": {}},
        {"name": "node", "hostPath": {"path": node_path}},
    ]});
    let mut whole = json!({"name": volume});
    for (field, value) in mount.as_object().expect("an object") {
        whole[field] = value.clone();
    }
    refused(spec, json!({"volumeMounts": [whole]})).map(|(_, message)| message)
}

#[test]
fn no_spelling_of_a_path_puts_a_volume_over_what_the_engine_hides() {
    for path in [
        "/proc",
        "/proc/",
        "//proc",
        "proc",
        "/./proc/.",
        "/a/../proc",
        "/../proc/sys",
        "/proc//sys/kernel",
        "/proc/meminfo",
        "/sys",
        "/sys/firmware/",
        "/dev",
        "/dev/.",
        "/dev/shm/..",
        "/dev/null",
        "/dev/pts/0",
        "/",
        "/a/..",
    ] {
        let message = mounted("own", "/srv", json!({"mountPath": path})).expect(path);
        let field = "spec.containers[0].volumeMounts[0].mountPath: ";
        assert!(message.starts_with(field), "{path}: {message}");
        let spec = json!({"terminationMessagePath": path});
        let (_, message) = refused(json!({}), spec).expect(path);
        let field = "spec.containers[0].terminationMessagePath: ";
        assert!(message.starts_with(field), "{path}: {message}");
    }
    let why = mounted("own", "/srv", json!({"mountPath": "/a/../sys"}));
    let why = why.expect("it is refused");
    assert!(
        why.ends_with(": only the hostPath /sys can be mounted at /sys"),
        "{why}"
    );
}

#[test]
fn no_process_starts_in_proc() {
    for path in [
        "/proc",
        "/proc/self/fd/7",
        "//proc/",
        "/a/../proc/1",
        "proc",
    ] {
        let (_, message) = refused(json!({}), json!({"workingDir": path})).expect(path);
        let field = "spec.containers[0].workingDir: ";
        assert!(message.starts_with(field), "{path}: {message}");
    }
    for path in ["", "/", "/app", "/process", "/a/proc", "/sys", "/dev/shm"] {
        let said = refused(json!({}), json!({"workingDir": path}));
        assert_eq!(said, None, "{path}");
    }
}

#[test]
fn a_path_of_the_node_is_mounted_where_the_node_has_it() {
    let cases = [
        ("/sys", json!({"mountPath": "/sys"}), true),
        ("/sys/", json!({"mountPath": "//sys"}), true),
        ("/sys/fs/bpf", json!({"mountPath": "/sys/fs/bpf"}), true),
        (
            "/sys",
            json!({"mountPath": "/sys/fs/bpf", "subPath": "fs/bpf"}),
            true,
        ),
        ("/sys", json!({"mountPath": "/host/sys"}), true),
        ("/dev", json!({"mountPath": "/dev"}), true),
        ("/dev/null", json!({"mountPath": "/dev/null"}), true),
        (
            "/dev/serial/by-id/x",
            json!({"mountPath": "/dev/ttyACM0"}),
            true,
        ),
        ("/proc", json!({"mountPath": "/host/proc"}), true),
        (
            "/var/lib/lxcfs/proc/meminfo",
            json!({"mountPath": "/proc/meminfo"}),
            true,
        ),
        ("/srv", json!({"mountPath": "/sys"}), false),
        ("/sys", json!({"mountPath": "/sys", "subPath": "fs"}), false),
        (
            "/dev",
            json!({"mountPath": "/dev", "subPathExpr": "$(SHM)"}),
            false,
        ),
        ("/srv", json!({"mountPath": "/dev"}), false),
        ("/srv/null", json!({"mountPath": "/dev/null"}), false),
        ("/proc", json!({"mountPath": "/proc"}), false),
        ("/proc/sys", json!({"mountPath": "/proc/sys"}), false),
    ];
    for (node_path, mount, taken) in cases {
        let said = mounted("node", node_path, mount.clone());
        assert_eq!(said.is_none(), taken, "{node_path} {mount}: {said:?}");
    }
}

#[test]
fn memory_at_dev_shm_and_messages_at_their_usual_places_are_taken() {
    for path in [
        "/dev/shm",
        "/dev/shm/",
        "/dev/termination-log",
        "/dev/mqueue",
    ] {
        assert_eq!(
            mounted("own", "/srv", json!({"mountPath": path})),
            None,
            "{path}"
        );
    }
    for path in ["", "/dev/termination-log", "/tmp/message", "/dev/message"] {
        let said = refused(json!({}), json!({"terminationMessagePath": path}));
        assert_eq!(said, None, "{path}");
    }
}

#[test]
fn a_pods_name_may_have_more_than_63_characters_in_a_row() {
    let mut long = pod(json!({}), json!({}));
    long.metadata.name = Some("a".repeat(253));
    assert_eq!(admit(&long, &PLAIN).refusal, None);
    for bad in [
        "a".repeat(254),
        "a..b".to_owned(),
        "../x".to_owned(),
        "A".to_owned(),
    ] {
        long.metadata.name = Some(bad.clone());
        assert!(admit(&long, &PLAIN).refusal.is_some(), "{bad}");
    }
    long.metadata.name = Some("a".to_owned());
    long.metadata.namespace = Some("a".repeat(64));
    assert!(admit(&long, &PLAIN).refusal.is_some());
}
