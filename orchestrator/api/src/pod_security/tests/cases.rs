//! What is forbidden and what is allowed, as Kubernetes' fixtures have it.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::super::Level;
use super::{Change, NEWEST};

/// A change that a control forbids.
pub struct Forbidden {
    /// The lowest level that forbids it.
    pub level: Level,
    pub versions: RangeInclusive<u32>,
    /// A part of the reason.
    pub reason: &'static str,
    pub change: Change,
}

fn always(level: Level, reason: &'static str, change: Change) -> Forbidden {
    between(level, 0..=NEWEST, reason, change)
}

fn between(
    level: Level,
    versions: RangeInclusive<u32>,
    reason: &'static str,
    change: Change,
) -> Forbidden {
    Forbidden {
        level,
        versions,
        reason,
        change,
    }
}

const UNCONFINED_APP_ARMOR: &str = "@container.apparmor.security.beta.kubernetes.io/c";

pub fn forbidden_by_baseline() -> Vec<Forbidden> {
    let b = Level::Baseline;
    let port = |port: u16| json!([{"containerPort": port, "hostPort": port}, {"containerPort": 1}]);
    let unmasked = |at| vec![(at, json!("Unmasked")), ("hostUsers", json!(false))];
    let unmasked_on_node = |at| vec![(at, json!("Unmasked")), ("hostUsers", json!(true))];
    let probe = |what: &str, host: &str| json!({what: {"host": host, "port": 8080}});
    let selinux = |field: &str, value: &str| vec![("P/seLinuxOptions", json!({field: value}))];
    let privileged = |at, escalation| vec![(at, json!(true)), (escalation, Value::Null)];
    let seccomp = |at| vec![(at, json!({"type": "Unconfined"}))];
    vec![
        always(
            b,
            "forbidden AppArmor profile",
            vec![(UNCONFINED_APP_ARMOR, json!("unconfined"))],
        ),
        always(
            b,
            "forbidden AppArmor profile",
            vec![("P/appArmorProfile", json!({"type": "Unconfined"}))],
        ),
        always(
            b,
            "forbidden AppArmor profile",
            vec![("I/appArmorProfile", json!({"type": "Unconfined"}))],
        ),
        always(
            b,
            "capabilities",
            vec![("C/capabilities/add", json!(["NET_RAW"]))],
        ),
        always(
            b,
            "capabilities",
            vec![("I/capabilities/add", json!(["NET_RAW"]))],
        ),
        always(
            b,
            "capabilities",
            vec![("C/capabilities/add", json!(["chown"]))],
        ),
        always(
            b,
            "capabilities",
            vec![("C/capabilities/add", json!(["CAP_CHOWN"]))],
        ),
        always(
            b,
            "capabilities",
            vec![("C/capabilities/add", json!(["ALL"]))],
        ),
        always(b, "host namespaces", vec![("hostIPC", json!(true))]),
        always(b, "host namespaces", vec![("hostNetwork", json!(true))]),
        always(b, "host namespaces", vec![("hostPID", json!(true))]),
        always(b, "hostPort", vec![("containers/0/ports", port(12345))]),
        always(b, "hostPort", vec![("initContainers/0/ports", port(12346))]),
        always(
            b,
            "privileged",
            privileged("C/privileged", "C/allowPrivilegeEscalation"),
        ),
        always(
            b,
            "privileged",
            privileged("I/privileged", "I/allowPrivilegeEscalation"),
        ),
        between(b, 0..=34, "procMount", unmasked("C/procMount")),
        between(b, 0..=34, "procMount", unmasked("I/procMount")),
        always(b, "procMount", unmasked_on_node("C/procMount")),
        always(b, "seLinuxOptions", selinux("type", "somevalue")),
        always(
            b,
            "seLinuxOptions",
            vec![("C/seLinuxOptions", json!({"type": "spc_t"}))],
        ),
        always(
            b,
            "seLinuxOptions",
            vec![("I/seLinuxOptions", json!({"type": "spc_t"}))],
        ),
        always(b, "seLinuxOptions", selinux("user", "somevalue")),
        always(b, "seLinuxOptions", selinux("role", "somevalue")),
        between(
            b,
            0..=30,
            "seLinuxOptions",
            selinux("type", "container_engine_t"),
        ),
        between(
            b,
            0..=18,
            "seccompProfile",
            vec![(
                "@seccomp.security.alpha.kubernetes.io/pod",
                json!("unconfined"),
            )],
        ),
        between(
            b,
            0..=18,
            "seccompProfile",
            vec![(
                "@container.seccomp.security.alpha.kubernetes.io/c",
                json!("unconfined"),
            )],
        ),
        between(
            b,
            0..=18,
            "seccompProfile",
            vec![(
                "@container.seccomp.security.alpha.kubernetes.io/i",
                json!("unconfined"),
            )],
        ),
        between(
            b,
            19..=NEWEST,
            "seccompProfile",
            seccomp("P/seccompProfile"),
        ),
        between(
            b,
            19..=NEWEST,
            "seccompProfile",
            seccomp("C/seccompProfile"),
        ),
        between(
            b,
            19..=NEWEST,
            "seccompProfile",
            seccomp("I/seccompProfile"),
        ),
        always(
            b,
            "forbidden sysctls",
            vec![("P/sysctls", json!([{"name": "othersysctl"}]))],
        ),
        between(
            b,
            0..=26,
            "forbidden sysctls",
            vec![(
                "P/sysctls",
                json!([{"name": "net.ipv4.ip_local_reserved_ports"}]),
            )],
        ),
        between(
            b,
            0..=28,
            "forbidden sysctls",
            vec![(
                "P/sysctls",
                json!([{"name": "net.ipv4.tcp_keepalive_time"}]),
            )],
        ),
        between(
            b,
            0..=31,
            "forbidden sysctls",
            vec![("P/sysctls", json!([{"name": "net.ipv4.tcp_rmem"}]))],
        ),
        between(
            b,
            0..=36,
            "forbidden sysctls",
            vec![("P/sysctls", json!([{"name": "net.ipv4.tcp_notsent_lowat"}]))],
        ),
        always(
            b,
            "hostProcess",
            vec![("P/windowsOptions/hostProcess", json!(true))],
        ),
        always(
            b,
            "hostProcess",
            vec![("C/windowsOptions/hostProcess", json!(true))],
        ),
        between(
            b,
            34..=NEWEST,
            "probe or lifecycle host",
            vec![("containers/0/livenessProbe", probe("httpGet", "bad.host"))],
        ),
        between(
            b,
            34..=NEWEST,
            "probe or lifecycle host",
            vec![(
                "initContainers/0/readinessProbe",
                probe("tcpSocket", "8.8.8.8"),
            )],
        ),
        between(
            b,
            34..=NEWEST,
            "probe or lifecycle host",
            vec![("containers/0/startupProbe", probe("tcpSocket", "::1"))],
        ),
        between(
            b,
            34..=NEWEST,
            "probe or lifecycle host",
            vec![(
                "containers/0/lifecycle",
                json!({"postStart": probe("httpGet", "bad.host")}),
            )],
        ),
        between(
            b,
            34..=NEWEST,
            "probe or lifecycle host",
            vec![(
                "containers/0/lifecycle",
                json!({"preStop": probe("tcpSocket", "127.0.0.1")}),
            )],
        ),
    ]
}

pub fn forbidden_by_restricted() -> Vec<Forbidden> {
    let r = Level::Restricted;
    let escalation = "allowPrivilegeEscalation != false";
    let seccomp = |pod: Value, container: Value, init: Value| {
        vec![
            ("P/seccompProfile", pod),
            ("C/seccompProfile", container),
            ("I/seccompProfile", init),
        ]
    };
    let (default, open) = (
        json!({"type": "RuntimeDefault"}),
        json!({"type": "Unconfined"}),
    );
    let each = json!(["SYS_ADMIN", "NET_RAW", "CHOWN", "NET_BIND_SERVICE"]);
    let non_root = "runAsNonRoot != true";
    let in_user_namespace = |at| vec![(at, json!(0)), ("hostUsers", json!(false))];
    vec![
        between(
            r,
            8..=NEWEST,
            escalation,
            vec![("C/allowPrivilegeEscalation", json!(true))],
        ),
        between(
            r,
            8..=NEWEST,
            escalation,
            vec![("I/allowPrivilegeEscalation", json!(true))],
        ),
        between(
            r,
            8..=NEWEST,
            escalation,
            vec![("C/allowPrivilegeEscalation", Value::Null)],
        ),
        between(r, 8..=NEWEST, escalation, vec![("C", Value::Null)]),
        between(
            r,
            22..=NEWEST,
            "unrestricted capabilities",
            vec![("C/capabilities/drop", json!([]))],
        ),
        between(
            r,
            22..=NEWEST,
            "unrestricted capabilities",
            vec![("I/capabilities/drop", json!([]))],
        ),
        between(
            r,
            22..=NEWEST,
            "unrestricted capabilities",
            vec![("C/capabilities/drop", each)],
        ),
        between(
            r,
            22..=NEWEST,
            "unrestricted capabilities",
            vec![("C/capabilities", json!({"drop": ["ALL"], "add": ["CHOWN"]}))],
        ),
        always(r, non_root, vec![("P/runAsNonRoot", Value::Null)]),
        always(r, non_root, vec![("P/runAsNonRoot", json!(false))]),
        always(r, non_root, vec![("C/runAsNonRoot", json!(false))]),
        always(r, non_root, vec![("I/runAsNonRoot", json!(false))]),
        between(
            r,
            0..=34,
            non_root,
            vec![("P/runAsNonRoot", Value::Null), ("hostUsers", json!(false))],
        ),
        between(
            r,
            23..=NEWEST,
            "runAsUser=0",
            vec![("P/runAsUser", json!(0))],
        ),
        between(
            r,
            23..=NEWEST,
            "runAsUser=0",
            vec![("C/runAsUser", json!(0))],
        ),
        between(
            r,
            23..=NEWEST,
            "runAsUser=0",
            vec![("I/runAsUser", json!(0))],
        ),
        between(r, 23..=34, "runAsUser=0", in_user_namespace("P/runAsUser")),
        between(
            r,
            19..=NEWEST,
            "seccompProfile",
            seccomp(Value::Null, Value::Null, Value::Null),
        ),
        between(
            r,
            19..=NEWEST,
            "seccompProfile",
            seccomp(Value::Null, default.clone(), Value::Null),
        ),
        between(
            r,
            19..=NEWEST,
            "seccompProfile",
            seccomp(Value::Null, Value::Null, default.clone()),
        ),
        between(
            Level::Baseline,
            19..=NEWEST,
            "seccompProfile",
            seccomp(Value::Null, default, open),
        ),
    ]
}

/// Every type of volume that the level `restricted` does not know.
pub fn forbidden_volumes() -> Vec<Forbidden> {
    let of = |kind: &str| {
        let level = match kind {
            "hostPath" => Level::Baseline,
            _ => Level::Restricted,
        };
        let reason = match kind {
            "hostPath" => "volume",
            _ => "restricted volume types",
        };
        let volumes = json!([{"name": "a", "emptyDir": {}}, {"name": "b", kind: {}}]);
        always(level, reason, vec![("volumes", volumes)])
    };
    let kinds = [
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "gitRepo",
        "nfs",
        "iscsi",
        "glusterfs",
        "rbd",
        "flexVolume",
        "cinder",
        "cephfs",
        "flocker",
        "fc",
        "azureFile",
        "vsphereVolume",
        "quobyte",
        "azureDisk",
        "portworxVolume",
        "scaleIO",
        "storageos",
        "photonPersistentDisk",
        "hostPath",
        "whatever",
    ];
    kinds.into_iter().map(of).collect()
}

/// Changes that a level allows at these versions.
pub fn allowed() -> Vec<(Level, RangeInclusive<u32>, Change)> {
    let (b, r, all) = (Level::Baseline, Level::Restricted, 0..=NEWEST);
    let defaults = json!([
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT"
    ]);
    let volumes = json!([{"name": "b", "emptyDir": {}}, {"name": "c", "secret": {}},
        {"name": "d", "persistentVolumeClaim": {}}, {"name": "e", "downwardAPI": {}},
        {"name": "f", "configMap": {}}, {"name": "g", "projected": {}}, {"name": "h", "csi": {}},
        {"name": "i", "ephemeral": {}}, {"name": "j", "image": {}}]);
    let sysctls = json!([{"name": "kernel.shm_rmid_forced"}, {"name": "net.ipv4.ping_group_range"},
        {"name": "net.ipv4.ip_local_port_range"}, {"name": "net.ipv4.tcp_syncookies"},
        {"name": "net.ipv4.ip_unprivileged_port_start"}]);
    let own_probe = json!({"httpGet": {"port": 8080, "host": ""}, "tcpSocket": {"port": 1}});
    vec![
        (
            r,
            all.clone(),
            vec![(UNCONFINED_APP_ARMOR, json!("runtime/default"))],
        ),
        (
            r,
            all.clone(),
            vec![(UNCONFINED_APP_ARMOR, json!("localhost/foo"))],
        ),
        (
            r,
            all.clone(),
            vec![("P/appArmorProfile", json!({"type": "Localhost"}))],
        ),
        (
            b,
            all.clone(),
            vec![("C/capabilities/add", defaults.clone())],
        ),
        (r, 0..=21, vec![("I/capabilities/add", defaults)]),
        (
            r,
            22..=NEWEST,
            vec![("C/capabilities/add", json!(["NET_BIND_SERVICE"]))],
        ),
        (
            r,
            all.clone(),
            vec![("containers/0/ports", json!([{"containerPort": 1}]))],
        ),
        (
            r,
            all.clone(),
            vec![("containers/0/livenessProbe", own_probe)],
        ),
        (
            r,
            all.clone(),
            vec![
                ("C/privileged", json!(false)),
                ("I/privileged", json!(false)),
            ],
        ),
        (
            r,
            all.clone(),
            vec![
                ("C/procMount", json!("Default")),
                ("hostUsers", json!(false)),
            ],
        ),
        (
            b,
            35..=NEWEST,
            vec![
                ("C/procMount", json!("Unmasked")),
                ("hostUsers", json!(false)),
            ],
        ),
        (r, all.clone(), vec![("volumes", volumes)]),
        (
            r,
            all.clone(),
            vec![
                ("P/runAsNonRoot", Value::Null),
                ("C/runAsNonRoot", json!(true)),
                ("I/runAsNonRoot", json!(true)),
            ],
        ),
        (
            r,
            all.clone(),
            vec![("P/runAsUser", json!(1000)), ("C/runAsUser", json!(1000))],
        ),
        (
            r,
            all.clone(),
            vec![(
                "P/seLinuxOptions",
                json!({"type": "container_t", "level": "s0"}),
            )],
        ),
        (
            r,
            all.clone(),
            vec![("C/seLinuxOptions", json!({"type": "container_init_t"}))],
        ),
        (
            r,
            31..=NEWEST,
            vec![("P/seLinuxOptions", json!({"type": "container_engine_t"}))],
        ),
        (
            r,
            0..=18,
            vec![
                (
                    "@seccomp.security.alpha.kubernetes.io/pod",
                    json!("runtime/default"),
                ),
                (
                    "@container.seccomp.security.alpha.kubernetes.io/c",
                    json!("localhost/x"),
                ),
            ],
        ),
        (
            r,
            19..=NEWEST,
            vec![(
                "@seccomp.security.alpha.kubernetes.io/pod",
                json!("unconfined"),
            )],
        ),
        (
            r,
            19..=NEWEST,
            vec![("P/seccompProfile", json!({"type": "Localhost"}))],
        ),
        (
            r,
            19..=NEWEST,
            vec![
                ("P/seccompProfile", Value::Null),
                ("C/seccompProfile", json!({"type": "RuntimeDefault"})),
                ("I/seccompProfile", json!({"type": "Localhost"})),
            ],
        ),
        (r, all.clone(), vec![("P/sysctls", sysctls)]),
        (
            r,
            37..=NEWEST,
            vec![("P/sysctls", json!([{"name": "net.ipv4.tcp_notsent_lowat"}]))],
        ),
        (
            r,
            all,
            vec![("C/windowsOptions", json!({"hostProcess": false}))],
        ),
        (
            r,
            35..=NEWEST,
            vec![
                ("P/runAsNonRoot", json!(false)),
                ("P/runAsUser", json!(0)),
                ("hostUsers", json!(false)),
            ],
        ),
    ]
}
