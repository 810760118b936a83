//! The cases are those of Kubernetes' fixtures: the least pod that a level allows at a version, and one
//! change for each way to break or keep a control.

mod cases;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use cases::{ALLOWED, Change, FORBIDDEN, read};

/// One more than any control knows.
const NEWEST: u32 = 38;

fn found(level: Level, minor: u32, pod: &Value) -> Vec<Violation> {
    let version = Version::Minor(minor);
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    violations(Standard { level, version }, Pod { metadata, spec })
}

/// The least pod that a level allows at a version.
fn minimal(level: Level, minor: u32, os: Option<&str>) -> Value {
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {
        "initContainers": [{"name": "i", "image": "pause"}],
        "containers": [{"name": "c", "image": "pause"}]}});
    if let Some(os) = os {
        pod["spec"]["os"]["name"] = os.into();
    }
    if level != Level::Restricted {
        return pod;
    }
    let is_free = os == Some("windows") && minor >= 25;
    let spec = &mut pod["spec"];
    spec["securityContext"]["runAsNonRoot"] = true.into();
    if minor >= 19 && !is_free {
        spec["securityContext"]["seccompProfile"]["type"] = "RuntimeDefault".into();
    }
    for list in ["initContainers", "containers"] {
        let context = &mut spec[list][0]["securityContext"];
        if minor >= 8 && !is_free {
            context["allowPrivilegeEscalation"] = false.into();
        }
        if minor >= 22 && !is_free {
            context["capabilities"]["drop"] = json!(["ALL"]);
        }
    }
    pod
}

fn changed(mut pod: Value, change: &Change) -> Value {
    for (pointer, value) in change {
        let pointer = match pointer.split_at(1) {
            ("I", rest) => format!("spec/initContainers/0/securityContext{rest}"),
            ("C", rest) => format!("spec/containers/0/securityContext{rest}"),
            ("P", rest) => format!("spec/securityContext{rest}"),
            ("@", key) => {
                pod["metadata"]["annotations"][key] = value.clone();
                continue;
            }
            _ => format!("spec/{pointer}"),
        };
        let mut at = &mut pod;
        for step in pointer.split('/') {
            at = match step.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[step],
            };
        }
        *at = value.clone();
    }
    pod
}

#[test]
fn the_least_pod_of_a_level_is_allowed_and_that_of_a_version_before_a_new_control_is_not() {
    for minor in 0..=NEWEST {
        for level in [Level::Privileged, Level::Baseline, Level::Restricted] {
            for os in [None, Some("linux"), Some("windows")] {
                let pod = minimal(level, minor, os);
                assert_eq!(found(level, minor, &pod), [], "{level} v1.{minor} {os:?}");
            }
        }
    }
    let older = [
        (7, 8, "allowPrivilegeEscalation != false"),
        (18, 19, "seccompProfile"),
        (21, 22, "unrestricted capabilities"),
    ];
    for (old, new, reason) in older {
        let pod = minimal(Level::Restricted, old, None);
        assert_eq!(reasons(&found(Level::Restricted, new, &pod)), reason);
    }
    // It says nothing of its system, so it is asked what Linux has.
    let windows = minimal(Level::Restricted, 25, Some("windows"));
    assert_eq!(found(Level::Restricted, 24, &windows).len(), 3);
}

#[test]
fn each_change_is_forbidden_from_its_level_on_and_at_its_versions_only() {
    for case in read(FORBIDDEN) {
        for minor in 0..=NEWEST {
            for level in [Level::Privileged, Level::Baseline, Level::Restricted] {
                let pod = changed(minimal(level, minor, None), &case.change);
                let reasons = reasons(&found(level, minor, &pod));
                let is_due = level >= case.level && case.versions.contains(&minor);
                let what = format!("{level} v1.{minor} {:?}: {reasons:?}", case.change);
                assert!(!is_due || reasons.contains(case.reason), "{what}");
                // A stricter level may have another say in it.
                assert!(is_due || level > case.level || reasons.is_empty(), "{what}");
            }
        }
    }
}

#[test]
fn what_is_allowed_is_allowed_by_all_lower_levels() {
    for case in read(ALLOWED) {
        let (level, change) = (case.level, &case.change);
        for minor in case.versions {
            for lower in [Level::Privileged, Level::Baseline, Level::Restricted] {
                if lower <= level {
                    let pod = changed(minimal(lower, minor, None), change);
                    assert_eq!(
                        found(lower, minor, &pod),
                        [],
                        "{lower} v1.{minor} {change:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_user_namespace_unmasks_proc_for_baseline_and_not_for_restricted() {
    let unmasked = vec![
        ("C/procMount".to_owned(), json!("Unmasked")),
        ("hostUsers".to_owned(), json!(false)),
    ];
    for (level, minor, expected) in [
        (Level::Baseline, 34, "procMount"),
        (Level::Baseline, 35, ""),
        (Level::Restricted, 34, "procMount"),
        (Level::Restricted, 35, "procMount"),
    ] {
        let pod = changed(minimal(level, minor, None), &unmasked);
        assert_eq!(
            reasons(&found(level, minor, &pod)),
            expected,
            "{level} {minor}"
        );
    }
}

#[test]
fn a_new_version_is_the_newest_known_one() {
    let pod = changed(
        minimal(Level::Restricted, NEWEST, None),
        &vec![(
            "containers/0/livenessProbe".to_owned(),
            json!({"httpGet": {"host": "a"}}),
        )],
    );
    let standard = |version| Standard {
        level: Level::Baseline,
        version,
    };
    let pod = Pod {
        metadata: &pod["metadata"],
        spec: &pod["spec"],
    };
    let newest = violations(standard(Version::Latest), pod);
    assert_eq!(newest.len(), 1);
    assert_eq!(violations(standard(Version::Minor(4_000_000)), pod), newest);
}

#[test]
fn the_table_is_in_the_order_in_which_violations_are_told() {
    let order: Vec<(Level, &str)> = CONTROLS.iter().map(|it| (it.level, it.id)).collect();
    assert!(order.is_sorted());
    for control in CONTROLS {
        let versions: Vec<u32> = control.versions().collect();
        assert!(versions.is_sorted(), "{}", control.id);
        assert!(versions.iter().all(|version| *version < NEWEST));
        if let Some(replaced) = control.replaces {
            assert!(order.contains(&(Level::Baseline, replaced)), "{replaced}");
        }
    }
}

/// Everything that is forbidden, in two containers and the pod.
fn worst() -> Value {
    let context = json!({"privileged": true, "capabilities": {"add": ["SYS_ADMIN", "BPF"]},
        "procMount": "Unmasked", "appArmorProfile": {"type": "Unconfined"}, "runAsUser": 0,
        "runAsNonRoot": false, "seccompProfile": {"type": "Unconfined"},
        "seLinuxOptions": {"type": "spc_t", "user": "u", "role": "r"},
        "windowsOptions": {"hostProcess": true}});
    json!({"metadata": {"annotations": {
            "container.apparmor.security.beta.kubernetes.io/a": "unconfined"}},
        "spec": {"hostNetwork": true, "hostPID": true, "hostIPC": true,
            "volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "hostPath": {}}, {"name": "x", "nfs": {}}],
            "securityContext": {"runAsUser": 0, "runAsNonRoot": false, "sysctls": [
                {"name": "kernel.msgmax"}, {"name": "vm.x"}], "seLinuxOptions": {"type": "bad_t"},
                "seccompProfile": {"type": "Unconfined"}, "appArmorProfile": {"type": "Odd"},
                "windowsOptions": {"hostProcess": true}},
            "containers": [{"name": "a", "securityContext": context,
                "ports": [{"hostPort": 80}, {"hostPort": 443}],
                "livenessProbe": {"httpGet": {"host": "h"}}}],
            "ephemeralContainers": [{"name": "b", "securityContext": context,
                "ports": [{"hostPort": 9}], "lifecycle": {"preStop": {"tcpSocket": {"host": "g"}}}}]}})
}

#[test]
fn violations_are_told_in_the_words_of_kubernetes() {
    let pod = worst();
    let lines = |level| {
        let found = found(level, NEWEST, &pod);
        let lines = found.iter().map(|it| details(std::slice::from_ref(it)));
        lines.collect::<Vec<_>>()
    };
    let both = r#"containers "a", "b""#;
    let apparmor = format!(
        r#"forbidden AppArmor profiles (pod and {both} and annotation must not set AppArmor profile type to "Odd", "Unconfined", "container.apparmor.security.beta.kubernetes.io/a="unconfined"")"#
    );
    let shared = [
        "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)".to_owned(),
        format!("hostPort ({both} use hostPorts 443, 80, 9)"),
        format!(r#"probe or lifecycle host ({both} use probe or lifecycle hosts "g", "h")"#),
        format!("privileged ({both} must not set securityContext.privileged=true)"),
    ];
    let proc_mount =
        format!(r#"procMount ({both} must not set securityContext.procMount to "Unmasked")"#);
    let selinux = format!(
        r#"seLinuxOptions (pod and {both} set forbidden securityContext.seLinuxOptions: types "bad_t", "spc_t"; user may not be set; role may not be set)"#
    );
    let seccomp = format!(
        r#"seccompProfile (pod and {both} must not set securityContext.seccompProfile.type to "Unconfined")"#
    );
    let sysctls = "forbidden sysctls (kernel.msgmax, vm.x)".to_owned();
    let windows = format!(
        "hostProcess (pod and {both} must not set securityContext.windowsOptions.hostProcess=true)"
    );
    let [host, ports, hosts, privileged] = shared;
    let baseline = vec![
        apparmor.clone(),
        format!(
            r#"non-default capabilities ({both} must not include "BPF", "SYS_ADMIN" in securityContext.capabilities.add)"#
        ),
        host.clone(),
        r#"hostPath volumes (volumes "v", "w")"#.to_owned(),
        ports.clone(),
        hosts.clone(),
        privileged.clone(),
        proc_mount.clone(),
        selinux.clone(),
        seccomp.clone(),
        sysctls.clone(),
        windows.clone(),
    ];
    assert_eq!(lines(Level::Baseline), baseline);
    let restricted = vec![
        apparmor, host, ports, hosts, privileged, selinux, sysctls, windows,
        format!("allowPrivilegeEscalation != false ({both} must set securityContext.allowPrivilegeEscalation=false)"),
        format!(r#"unrestricted capabilities ({both} must set securityContext.capabilities.drop=["ALL"]; {both} must not include "BPF", "SYS_ADMIN" in securityContext.capabilities.add)"#),
        proc_mount,
        r#"restricted volume types (volumes "v", "w", "x" use restricted volume types "hostPath", "nfs")"#.to_owned(),
        format!("runAsNonRoot != true (pod and {both} must not set securityContext.runAsNonRoot=false)"),
        format!("runAsUser=0 (pod and {both} must not set runAsUser=0)"),
        seccomp,
    ];
    assert_eq!(lines(Level::Restricted), restricted);
    let plain = json!({"spec": {"containers": [{"name": "c"}]}});
    assert_eq!(
        details(&found(Level::Restricted, NEWEST, &plain)),
        r#"allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#
    );
}

fn labels(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    let label = |(key, value): &(&str, &str)| {
        (
            format!("pod-security.kubernetes.io/{key}"),
            (*value).to_owned(),
        )
    };
    list.iter().map(label).collect()
}

#[test]
fn labels_make_a_policy_and_a_typing_error_opens_nothing() {
    let cases: [(&[(&str, &str)], [&str; 3], usize); 9] = [
        (&[], ["privileged:latest"; 3], 0),
        (
            &[("enforce", "baseline")],
            ["baseline:latest", "privileged:latest", "baseline:latest"],
            0,
        ),
        (
            &[
                ("enforce", "restricted"),
                ("enforce-version", "v1.24"),
                ("warn", "baseline"),
            ],
            ["restricted:v1.24", "privileged:latest", "baseline:latest"],
            0,
        ),
        (
            &[
                ("enforce", "restricted"),
                ("enforce-version", "v1.24"),
                ("warn-version", "v1.9"),
            ],
            ["restricted:v1.24", "privileged:latest", "restricted:v1.9"],
            0,
        ),
        (
            &[("audit", "restricted"), ("audit-version", "v1.0")],
            ["privileged:latest", "restricted:v1.0", "privileged:latest"],
            0,
        ),
        (
            &[("enforce", "Baseline")],
            [
                "restricted:latest",
                "privileged:latest",
                "privileged:latest",
            ],
            1,
        ),
        (
            &[("audit", "no"), ("warn", "no")],
            ["privileged:latest"; 3],
            2,
        ),
        (
            &[("enforce", "baseline"), ("enforce-version", "1.24")],
            ["baseline:latest", "privileged:latest", "baseline:latest"],
            1,
        ),
        (&[("enfroce", "baseline")], ["privileged:latest"; 3], 0),
    ];
    for (list, expected, wrong) in cases {
        let (policy, found) = policy(&labels(list), &Policy::default());
        let said = Mode::ALL.map(|mode| mode.of(&policy).to_string());
        assert_eq!(
            (said, found.len()),
            (expected.map(str::to_owned), wrong),
            "{list:?}"
        );
    }
}

#[test]
fn versions_are_written_in_one_way() {
    for (text, version) in [
        ("latest", Some(Version::Latest)),
        ("v1.0", Some(Version::Minor(0))),
        ("v1.37", Some(Version::Minor(37))),
        ("v1.99999999999", Some(Version::Minor(u32::MAX))),
    ] {
        assert_eq!(Version::parse(text), version, "{text}");
    }
    for text in [
        "",
        "v1",
        "v1.",
        "v1.01",
        "v2.0",
        "1.2",
        "v1.2.3",
        "v1.-1",
        "v1.99999999999999999999",
    ] {
        assert_eq!(Version::parse(text), None, "{text}");
    }
}

/// A random pod out of values that controls look at.
fn pods() -> impl Strategy<Value = Value> {
    let boolean = || prop_oneof![Just(Value::Null), Just(json!(true)), Just(json!(false))];
    let profile = || {
        prop_oneof![
            Just(Value::Null),
            Just(json!({"type": "RuntimeDefault"})),
            Just(json!({"type": "Unconfined"})),
        ]
    };
    let capabilities = prop_oneof![
        Just(Value::Null),
        Just(json!({"drop": ["ALL"]})),
        Just(json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})),
        Just(json!({"add": ["SYS_ADMIN"]})),
    ];
    let mount = prop_oneof![
        Just(Value::Null),
        Just(json!("Default")),
        Just(json!("Unmasked"))
    ];
    let context = (
        boolean(),
        boolean(),
        profile(),
        profile(),
        capabilities,
        mount,
    )
        .prop_map(
            |(escalation, non_root, seccomp, apparmor, capabilities, mount)| {
                json!({"allowPrivilegeEscalation": escalation, "runAsNonRoot": non_root,
                "seccompProfile": seccomp, "appArmorProfile": apparmor,
                "capabilities": capabilities, "procMount": mount})
            },
        );
    let volume = prop_oneof![
        Just(json!({"emptyDir": {}})),
        Just(json!({"hostPath": {}})),
        Just(json!({"nfs": {}})),
    ];
    let pod = (
        boolean(),
        boolean(),
        profile(),
        proptest::option::of(volume),
    );
    let containers = proptest::collection::vec(context, 1..3);
    (pod, containers).prop_map(|((users, network, seccomp, volume), contexts)| {
        let containers: Vec<Value> = contexts
            .into_iter()
            .map(|context| json!({"name": "c", "securityContext": context}))
            .collect();
        json!({"metadata": {}, "spec": {"hostUsers": users, "hostNetwork": network,
            "securityContext": {"seccompProfile": seccomp, "runAsNonRoot": true},
            "volumes": volume.into_iter().collect::<Vec<_>>(), "containers": containers}})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn what_restricted_allows_baseline_allows(pod in pods(), minor in 0..=NEWEST) {
        if found(Level::Restricted, minor, &pod).is_empty() {
            prop_assert_eq!(found(Level::Baseline, minor, &pod), []);
        }
    }

    #[test]
    fn no_label_ends_in_a_panic(key in "enforce|audit-version|warn", value in ".{0,12}") {
        let labels = labels(&[(&key, &value)]);
        let (_, wrong) = policy(&labels, &Policy::default());
        prop_assert!(wrong.len() <= 1);
    }
}
