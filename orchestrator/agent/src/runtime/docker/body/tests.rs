use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::runtime::container_spec;

const LIMITS: Limits = Limits {
    lowest_oom_score: -1000,
    pids: 4096,
    user_namespaces: false,
};

fn owner() -> Owner {
    Owner {
        cluster: "c".to_owned(),
        node: "n".to_owned(),
    }
}

/// What the Engine is asked for the sandbox of a pod with this spec.
fn sandbox(spec: Value) -> ContainerCreateBody {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1"},
        "spec": spec,
    }))
    .expect("a pod");
    let identity = Identity {
        role: Role::Sandbox,
        name: String::new(),
        attempt: 0,
        generation: 0,
        level: 0,
        spec_hash: String::new(),
        addrs: None,
    };
    let node = container_spec::Node {
        name: "n1".to_owned(),
        netns: "/netns".into(),
        domain: "cluster.local".to_owned(),
        handler: None,
    };
    let spec = container_spec::sandbox(&pod, identity, "pause".to_owned(), node);
    container(&spec.expect("a spec"), &owner(), LIMITS)
}

#[test]
fn a_reference_without_a_tag_means_latest() {
    assert_eq!(pullable("nginx"), "nginx:latest");
    assert_eq!(
        pullable("registry:5000/a/nginx"),
        "registry:5000/a/nginx:latest"
    );
    assert_eq!(pullable("nginx:1.7.9"), "nginx:1.7.9");
    assert_eq!(pullable("nginx@sha256:00"), "nginx@sha256:00");
}

#[test]
fn a_sandbox_is_nobody_and_has_no_rights() {
    let body = sandbox(json!({"containers": []}));
    assert_eq!(body.user.as_deref(), Some("65534:65534"));
    let host = body.host_config.expect("a host config");
    assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(host.cap_add, Some(Vec::new()));
    assert_eq!(host.privileged, Some(false));
    assert_eq!(
        host.security_opt,
        Some(vec!["no-new-privileges".to_owned()])
    );
    assert_eq!(host.pids_limit, Some(4096));
}

#[test]
fn a_sandbox_of_the_nodes_network_has_the_rights_to_enter_it_and_to_give_them_up() {
    let body = sandbox(json!({"containers": [], "hostNetwork": true}));
    let host = body.host_config.expect("a host config");
    assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
    let added = ["SYS_ADMIN", "SETGID", "SETUID"].map(str::to_owned);
    assert_eq!(host.cap_add, Some(added.to_vec()));
}

#[test]
fn every_label_of_ours_is_written_so_that_an_image_cannot_say_it() {
    let body = sandbox(json!({"containers": []}));
    let labels = body.labels.expect("labels");
    for label in [
        CLUSTER,
        NODE,
        POD_NAMESPACE,
        POD_NAME,
        POD_UID,
        ROLE,
        CONTAINER,
        ATTEMPT,
        GENERATION,
        LEVEL,
        SPEC,
        ADDRESS,
        IMAGE,
    ] {
        assert!(labels.contains_key(label), "{label}");
    }
}

#[test]
fn an_ephemeral_container_sees_the_processes_of_its_target_or_of_the_whole_pod() {
    let pid_mode = |target: Option<&str>, shared: bool, host: bool| {
        let mut spec = container_spec::sandbox(
            &Pod::default(),
            Identity {
                role: Role::Ephemeral,
                name: "debug".to_owned(),
                attempt: 0,
                generation: 0,
                level: 0,
                spec_hash: String::new(),
                addrs: None,
            },
            "busybox".to_owned(),
            container_spec::Node::default(),
        )
        .expect("a spec");
        spec.sandbox = Some("s".to_owned());
        spec.processes_of = target.map(str::to_owned);
        (spec.share_pids, spec.host_pids) = (shared, host);
        let body = container(&spec, &owner(), LIMITS);
        body.host_config.and_then(|host| host.pid_mode)
    };
    let of = |text: &str| Some(text.to_owned());
    assert_eq!(pid_mode(None, false, false), None);
    assert_eq!(pid_mode(Some("t"), false, false), of("container:t"));
    assert_eq!(pid_mode(Some("t"), true, false), of("container:s"));
    assert_eq!(pid_mode(Some("t"), false, true), of("host"));
}

#[test]
fn a_private_mount_leaves_the_propagation_to_the_engine_which_knows_its_own_root() {
    let propagation = |propagation: Propagation| {
        let made = mount(&Mount {
            source: "/".into(),
            target: "/host".to_owned(),
            read_only: false,
            propagation,
            joined: false,
        });
        made.bind_options.and_then(|options| options.propagation)
    };
    assert_eq!(propagation(Propagation::Private), None);
    let slave = Some(MountBindOptionsPropagationEnum::RSLAVE);
    assert_eq!(propagation(Propagation::HostToContainer), slave);
}

#[test]
fn a_device_is_the_containers_alone_and_is_written_only_if_it_may_be() {
    let asked = |read_only: bool| {
        let made = device(&Device {
            source: "/dev/loop7".into(),
            target: "/dev/xvda".to_owned(),
            read_only,
        });
        [
            made.path_on_host,
            made.path_in_container,
            made.cgroup_permissions,
        ]
        .map(Option::unwrap)
    };
    assert_eq!(asked(false), ["/dev/loop7", "/dev/xvda", "mrw"]);
    assert_eq!(asked(true), ["/dev/loop7", "/dev/xvda", "r"]);
}

#[test]
fn a_sandbox_has_the_host_name_that_its_pod_asks_for() {
    let named = |spec: Value| sandbox(spec).hostname.expect("a name");
    assert_eq!(named(json!({"containers": []})), "web");
    assert_eq!(named(json!({"containers": [], "hostname": "db"})), "db");
    let whole = json!({"containers": [], "subdomain": "all", "setHostnameAsFQDN": true});
    assert_eq!(named(whole), "web.all.default.svc.cluster.local");
    let alone = json!({"containers": [], "setHostnameAsFQDN": true});
    assert_eq!(named(alone), "web");
    let of_node = json!({"containers": [], "hostNetwork": true, "hostname": "db"});
    assert_eq!(named(of_node), "n1");
}

/// What the Engine is asked for a container of a pod with these security contexts.
fn secured(of_pod: Value, own: Value) -> HostConfig {
    let pod = pod(json!({"securityContext": of_pod,
        "containers": [{"name": "c", "image": "i", "securityContext": own}]}));
    asked(&pod, LIMITS).host_config.expect("one")
}

fn pod(spec: Value) -> Pod {
    let pod =
        json!({"metadata": {"name": "web", "namespace": "default", "uid": "u1"}, "spec": spec});
    serde_json::from_value(pod).expect("a pod")
}

/// What the Engine is asked for the first container of a pod.
fn asked(pod: &Pod, limits: Limits) -> ContainerCreateBody {
    let template = &crate::pod::shape::main_templates(pod)[0];
    let identity = container_spec::identity(template, Role::Main, 0, 0, 0);
    let nowhere = std::path::Path::new("/nowhere");
    let around = container_spec::Surroundings {
        sources: &crate::api::sources::Sources::default(),
        facts: &crate::pod::downward::Facts {
            node_name: "n1".to_owned(),
            node_ips: Default::default(),
            pod_ips: None,
            node_cpus: 1,
            node_memory_bytes: 1 << 30,
        },
        volumes: &Default::default(),
        sub_paths: nowhere,
        etc: nowhere,
        sandbox: "s",
        target: None,
        termination_message: nowhere,
        image_user: "",
        image_group: Some(7),
        handler: Some("kata"),
    };
    let made = container_spec::container(pod, template, identity, &around);
    let (mut spec, _) = made.expect("a spec");
    if let Seccomp::File(path) = &spec.security.seccomp {
        spec.security.seccomp = Seccomp::Profile(format!("{{{}}}", path.display()));
    }
    container(&spec, &owner(), limits)
}

#[test]
fn an_engine_with_users_of_its_own_is_told_which_pods_have_the_nodes() {
    let remapping = Limits {
        user_namespaces: true,
        ..LIMITS
    };
    let mode = |host_users: Value, limits: Limits| {
        let pod = pod(json!({"hostUsers": host_users,
            "containers": [{"name": "c", "image": "i"}]}));
        let host = asked(&pod, limits).host_config.expect("one");
        host.userns_mode
    };
    assert_eq!(mode(json!(false), remapping), None);
    for host_users in [json!(true), json!(null)] {
        assert_eq!(mode(host_users.clone(), remapping).as_deref(), Some("host"));
        assert_eq!(mode(host_users, LIMITS), None);
    }
}

#[test]
fn a_pod_with_limits_as_a_whole_has_its_containers_in_one_cgroup() {
    let parent = |whole: Value| {
        let pod = pod(json!({"resources": whole, "containers": [{"name": "c", "image": "i"}]}));
        let host = asked(&pod, LIMITS).host_config.expect("one");
        host.cgroup_parent
    };
    let limits = json!({"limits": {"cpu": "1"}});
    assert_eq!(
        parent(limits.clone()).as_deref(),
        Some("/orchestrator/podu1")
    );
    assert_eq!(parent(json!({})), None);
    let of_sandbox = sandbox(json!({"resources": limits, "containers": []}));
    let host = of_sandbox.host_config.expect("one");
    assert_eq!(host.cgroup_parent.as_deref(), Some("/orchestrator/podu1"));
}

#[test]
fn a_strict_pods_user_is_given_with_a_group_so_that_the_image_adds_none() {
    let user = |of_pod: Value, own: Value| {
        let pod = pod(json!({"securityContext": of_pod,
            "containers": [{"name": "c", "image": "i", "securityContext": own}]}));
        asked(&pod, LIMITS).user
    };
    let strict = json!({"supplementalGroupsPolicy": "Strict"});
    let with = |more: Value| {
        let mut all = strict.clone();
        all["runAsUser"] = more;
        all
    };
    assert_eq!(user(strict.clone(), json!({})).as_deref(), Some("0:7"));
    assert_eq!(user(with(json!(5)), json!({})).as_deref(), Some("5:7"));
    let own = json!({"runAsUser": 6, "runAsGroup": 9});
    assert_eq!(user(with(json!(5)), own).as_deref(), Some("6:9"));
    assert_eq!(
        user(json!({"runAsUser": 5}), json!({})).as_deref(),
        Some("5")
    );
}

#[test]
fn no_container_of_a_pod_with_an_egress_rate_can_send_past_its_queue() {
    let dropped = |annotation: &str| {
        let mut limited = pod(json!({"containers": [{"name": "c", "image": "i"}]}));
        limited.metadata.annotations = Some([(annotation.to_owned(), "10M".to_owned())].into());
        let host = asked(&limited, LIMITS).host_config.expect("one");
        host.cap_drop.unwrap_or_default()
    };
    assert_eq!(dropped("kubernetes.io/egress-bandwidth"), ["NET_RAW"]);
    assert!(dropped("kubernetes.io/ingress-bandwidth").is_empty());
}

#[test]
fn profiles_and_labels_are_asked_for_in_the_engines_words() {
    let local = |name: &str| json!({"type": "Localhost", "localhostProfile": name});
    let cases = [
        (json!({}), json!({}), vec![]),
        (
            json!({"seccompProfile": local("a.json")}),
            json!({}),
            vec!["seccomp={a.json}"],
        ),
        (
            json!({"seccompProfile": local("a.json")}),
            json!({"seccompProfile": {"type": "Unconfined"}}),
            vec!["seccomp=unconfined"],
        ),
        (
            json!({"appArmorProfile": local("mine")}),
            json!({}),
            vec!["apparmor=mine"],
        ),
        (
            json!({"appArmorProfile": local("mine")}),
            json!({"appArmorProfile": {"type": "RuntimeDefault"}}),
            vec![],
        ),
        (
            json!({"seLinuxOptions": {"type": "t"}}),
            json!({"seLinuxOptions": {"user": "u", "role": "r", "type": "x", "level": "s0:c1"}}),
            vec![
                "label=user:u",
                "label=role:r",
                "label=type:x",
                "label=level:s0:c1",
            ],
        ),
    ];
    for (of_pod, own, expected) in cases {
        let host = secured(of_pod, own);
        assert_eq!(host.security_opt.unwrap_or_default(), expected);
        assert_eq!(host.runtime.as_deref(), Some("kata"));
        assert_eq!((host.masked_paths, host.readonly_paths), (None, None));
    }
    let bare = secured(json!({}), json!({"procMount": "Unmasked"}));
    let none = Some(Vec::new());
    assert_eq!(
        (bare.masked_paths, bare.readonly_paths),
        (none.clone(), none)
    );
}
