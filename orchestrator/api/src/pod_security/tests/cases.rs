//! What is forbidden and what is allowed, as Kubernetes' fixtures have it: one change of the least pod
//! that a level allows.
//!
//! A line is: the lowest level that forbids it (the highest one that allows it), the first and the last minor
//! version, a part of the reason, the change. The keys of a change are fields below `spec`; `P/` is the security
//! context of the pod, `C/` and `I/` those of the container and the init container, `@` an annotation.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::super::Level;
use super::NEWEST;

/// A change of a pod.
pub type Change = Vec<(String, Value)>;

pub struct Case {
    pub level: Level,
    pub versions: RangeInclusive<u32>,
    /// Empty for what is allowed.
    pub reason: &'static str,
    pub change: Change,
}

pub fn read(table: &'static str) -> Vec<Case> {
    let lines = table.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(case).collect()
}

fn case(line: &'static str) -> Case {
    let parts: Vec<&str> = line.splitn(4, '|').map(str::trim).collect();
    let [level, versions, reason, change] = parts[..] else {
        panic!("{line}");
    };
    let (first, last) = versions.split_once("..").expect("two versions");
    let last = if last.is_empty() {
        NEWEST
    } else {
        last.parse().expect("a version")
    };
    let change: serde_json::Map<String, Value> = serde_json::from_str(change).expect(line);
    Case {
        level: Level::parse(level).expect("a level"),
        versions: first.parse().expect("a version")..=last,
        reason,
        change: change.into_iter().collect(),
    }
}

pub const FORBIDDEN: &str = r#"
baseline | 0.. | forbidden AppArmor profile | {"@container.apparmor.security.beta.kubernetes.io/c": "unconfined"}
baseline | 0.. | forbidden AppArmor profile | {"@container.apparmor.security.beta.kubernetes.io/i": "unconfined"}
baseline | 0.. | forbidden AppArmor profile | {"P/appArmorProfile": {"type": "Unconfined"}}
baseline | 0.. | forbidden AppArmor profile | {"I/appArmorProfile": {"type": "Unconfined"}}
baseline | 0.. | capabilities | {"C/capabilities/add": ["NET_RAW"]}
baseline | 0.. | capabilities | {"I/capabilities/add": ["NET_RAW"]}
baseline | 0.. | capabilities | {"C/capabilities/add": ["chown"]}
baseline | 0.. | capabilities | {"C/capabilities/add": ["CAP_CHOWN"]}
baseline | 0.. | capabilities | {"C/capabilities/add": ["ALL"]}
baseline | 0.. | host namespaces | {"hostIPC": true}
baseline | 0.. | host namespaces | {"hostNetwork": true}
baseline | 0.. | host namespaces | {"hostPID": true}
baseline | 0.. | volume | {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "hostPath": {}}]}
baseline | 0.. | volume | {"volumes": [{"name": "a", "hostPath": {}}, {"name": "b", "hostPath": {}}]}
baseline | 0.. | hostPort | {"containers/0/ports": [{"containerPort": 1, "hostPort": 1}, {"containerPort": 2}]}
baseline | 0.. | hostPort | {"initContainers/0/ports": [{"containerPort": 1, "hostPort": 1}]}
baseline | 0.. | privileged | {"C/privileged": true, "C/allowPrivilegeEscalation": null}
baseline | 0.. | privileged | {"I/privileged": true, "I/allowPrivilegeEscalation": null}
baseline | 0..34 | procMount | {"C/procMount": "Unmasked", "hostUsers": false}
baseline | 0..34 | procMount | {"I/procMount": "Unmasked", "hostUsers": false}
baseline | 0.. | procMount | {"C/procMount": "Unmasked", "hostUsers": true}
baseline | 0.. | procMount | {"I/procMount": "Unmasked"}
baseline | 0.. | seLinuxOptions | {"P/seLinuxOptions": {"type": "somevalue"}}
baseline | 0.. | seLinuxOptions | {"C/seLinuxOptions": {"type": "somevalue"}}
baseline | 0.. | seLinuxOptions | {"I/seLinuxOptions": {"type": "somevalue"}}
baseline | 0.. | seLinuxOptions | {"P/seLinuxOptions": {"user": "somevalue"}}
baseline | 0.. | seLinuxOptions | {"P/seLinuxOptions": {"role": "somevalue"}}
baseline | 0..30 | seLinuxOptions | {"P/seLinuxOptions": {"type": "container_engine_t"}}
baseline | 0..18 | seccompProfile | {"@seccomp.security.alpha.kubernetes.io/pod": "unconfined"}
baseline | 0..18 | seccompProfile | {"@container.seccomp.security.alpha.kubernetes.io/c": "unconfined"}
baseline | 0..18 | seccompProfile | {"@container.seccomp.security.alpha.kubernetes.io/i": "unconfined"}
baseline | 19.. | seccompProfile | {"P/seccompProfile": {"type": "Unconfined"}}
baseline | 19.. | seccompProfile | {"C/seccompProfile": {"type": "Unconfined"}}
baseline | 19.. | seccompProfile | {"I/seccompProfile": {"type": "Unconfined"}}
baseline | 19.. | seccompProfile | {"P/seccompProfile": null, "C/seccompProfile": {"type": "RuntimeDefault"}, "I/seccompProfile": {"type": "Unconfined"}}
baseline | 0.. | forbidden sysctls | {"P/sysctls": [{"name": "othersysctl"}]}
baseline | 0..26 | forbidden sysctls | {"P/sysctls": [{"name": "net.ipv4.ip_local_reserved_ports"}]}
baseline | 0..28 | forbidden sysctls | {"P/sysctls": [{"name": "net.ipv4.tcp_keepalive_time"}]}
baseline | 0..28 | forbidden sysctls | {"P/sysctls": [{"name": "net.ipv4.tcp_fin_timeout"}]}
baseline | 0..28 | forbidden sysctls | {"P/sysctls": [{"name": "net.ipv4.tcp_keepalive_intvl"}]}
baseline | 0..28 | forbidden sysctls | {"P/sysctls": [{"name": "net.ipv4.tcp_keepalive_probes"}]}
baseline | 0..31 | forbidden sysctls | {"P/sysctls": [{"name": "net.ipv4.tcp_rmem"}]}
baseline | 0..31 | forbidden sysctls | {"P/sysctls": [{"name": "net.ipv4.tcp_wmem"}]}
baseline | 0..36 | forbidden sysctls | {"P/sysctls": [{"name": "net.ipv4.tcp_slow_start_after_idle"}]}
baseline | 0..36 | forbidden sysctls | {"P/sysctls": [{"name": "net.ipv4.tcp_notsent_lowat"}]}
baseline | 0.. | hostProcess | {"hostNetwork": true, "P/windowsOptions": {"hostProcess": true}}
baseline | 0.. | hostProcess | {"C/windowsOptions": {"hostProcess": true}, "I/windowsOptions": {"hostProcess": true}}
baseline | 34.. | probe or lifecycle host | {"containers/0/livenessProbe": {"httpGet": {"host": "bad.host", "port": 8080}}}
baseline | 34.. | probe or lifecycle host | {"containers/0/livenessProbe": {"httpGet": {"host": "127.0.0.1", "port": 8080}}}
baseline | 34.. | probe or lifecycle host | {"initContainers/0/readinessProbe": {"tcpSocket": {"host": "8.8.8.8", "port": 8080}}}
baseline | 34.. | probe or lifecycle host | {"containers/0/readinessProbe": {"tcpSocket": {"host": "::1", "port": 8080}}}
baseline | 34.. | probe or lifecycle host | {"containers/0/startupProbe": {"tcpSocket": {"host": "a", "port": 8080}}}
baseline | 34.. | probe or lifecycle host | {"containers/0/lifecycle": {"postStart": {"httpGet": {"host": "bad.host", "port": 8080}}}}
baseline | 34.. | probe or lifecycle host | {"containers/0/lifecycle": {"preStop": {"tcpSocket": {"host": "bad.host", "port": 8080}}}}
restricted | 8.. | allowPrivilegeEscalation != false | {"C/allowPrivilegeEscalation": true}
restricted | 8.. | allowPrivilegeEscalation != false | {"I/allowPrivilegeEscalation": true}
restricted | 8.. | allowPrivilegeEscalation != false | {"C/allowPrivilegeEscalation": null}
restricted | 8.. | allowPrivilegeEscalation != false | {"C": null}
restricted | 22.. | unrestricted capabilities | {"C/capabilities/drop": []}
restricted | 22.. | unrestricted capabilities | {"I/capabilities/drop": []}
restricted | 22.. | unrestricted capabilities | {"C/capabilities/drop": ["SYS_ADMIN", "NET_RAW", "CHOWN", "MKNOD", "NET_BIND_SERVICE"]}
restricted | 22.. | unrestricted capabilities | {"C/capabilities": {"drop": ["ALL"], "add": ["CHOWN", "NET_BIND_SERVICE"]}}
restricted | 0.. | runAsNonRoot != true | {"P/runAsNonRoot": null}
restricted | 0.. | runAsNonRoot != true | {"P/runAsNonRoot": false}
restricted | 0.. | runAsNonRoot != true | {"C/runAsNonRoot": false}
restricted | 0.. | runAsNonRoot != true | {"I/runAsNonRoot": false}
restricted | 0..34 | runAsNonRoot != true | {"P/runAsNonRoot": null, "hostUsers": false}
restricted | 23.. | runAsUser=0 | {"P/runAsUser": 0}
restricted | 23.. | runAsUser=0 | {"C/runAsUser": 0}
restricted | 23.. | runAsUser=0 | {"I/runAsUser": 0}
restricted | 23..34 | runAsUser=0 | {"P/runAsUser": 0, "hostUsers": false}
restricted | 19.. | seccompProfile | {"P/seccompProfile": null}
restricted | 19.. | seccompProfile | {"P/seccompProfile": null, "C/seccompProfile": {"type": "RuntimeDefault"}}
restricted | 19.. | seccompProfile | {"P/seccompProfile": null, "I/seccompProfile": {"type": "RuntimeDefault"}}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "gcePersistentDisk": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "awsElasticBlockStore": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "gitRepo": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "nfs": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "iscsi": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "glusterfs": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "rbd": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "flexVolume": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "cinder": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "cephfs": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "flocker": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "fc": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "azureFile": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "vsphereVolume": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "quobyte": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "azureDisk": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "photonPersistentDisk": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "portworxVolume": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "scaleIO": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "storageos": {}}]}
restricted | 0.. | restricted volume types | {"volumes": [{"name": "a", "whatever": {}}]}
"#;

pub const ALLOWED: &str = r#"
restricted | 0.. | | {"@container.apparmor.security.beta.kubernetes.io/c": "runtime/default"}
restricted | 0.. | | {"@container.apparmor.security.beta.kubernetes.io/c": "localhost/foo"}
restricted | 0.. | | {"P/appArmorProfile": {"type": "Localhost"}}
baseline | 0.. | | {"C/capabilities/add": ["AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"]}
restricted | 0..21 | | {"I/capabilities/add": ["AUDIT_WRITE", "CHOWN", "SYS_CHROOT"]}
restricted | 22.. | | {"C/capabilities/add": ["NET_BIND_SERVICE"]}
restricted | 0.. | | {"containers/0/ports": [{"containerPort": 1}]}
restricted | 0.. | | {"containers/0/livenessProbe": {"httpGet": {"port": 8080, "host": ""}}}
restricted | 0.. | | {"containers/0/readinessProbe": {"tcpSocket": {"port": 8080}}}
restricted | 0.. | | {"C/privileged": false, "I/privileged": false}
restricted | 0.. | | {"C/procMount": "Default", "hostUsers": false}
baseline | 35.. | | {"C/procMount": "Unmasked", "I/procMount": "Unmasked", "hostUsers": false}
restricted | 0.. | | {"volumes": [{"name": "b", "emptyDir": {}}, {"name": "c", "secret": {}}, {"name": "d", "persistentVolumeClaim": {}}]}
restricted | 0.. | | {"volumes": [{"name": "e", "downwardAPI": {}}, {"name": "f", "configMap": {}}, {"name": "g", "projected": {}}]}
restricted | 0.. | | {"volumes": [{"name": "h", "csi": {}}, {"name": "i", "ephemeral": {}}, {"name": "j", "image": {}}]}
restricted | 0.. | | {"P/runAsNonRoot": null, "C/runAsNonRoot": true, "I/runAsNonRoot": true}
restricted | 0.. | | {"P/runAsUser": 1000, "C/runAsUser": 1000, "I/runAsUser": 1000}
restricted | 0.. | | {"P/seLinuxOptions": {"type": "container_t", "level": "s0"}}
restricted | 0.. | | {"C/seLinuxOptions": {"type": "container_init_t"}, "I/seLinuxOptions": {"type": "container_kvm_t"}}
restricted | 31.. | | {"P/seLinuxOptions": {"type": "container_engine_t"}}
restricted | 0..18 | | {"@seccomp.security.alpha.kubernetes.io/pod": "runtime/default"}
restricted | 0..18 | | {"@container.seccomp.security.alpha.kubernetes.io/c": "localhost/testing"}
restricted | 19.. | | {"@seccomp.security.alpha.kubernetes.io/pod": "unconfined"}
restricted | 19.. | | {"P/seccompProfile": {"type": "Localhost"}}
restricted | 19.. | | {"P/seccompProfile": null, "C/seccompProfile": {"type": "RuntimeDefault"}, "I/seccompProfile": {"type": "Localhost"}}
restricted | 0.. | | {"P/sysctls": [{"name": "kernel.shm_rmid_forced"}, {"name": "net.ipv4.ping_group_range"}, {"name": "net.ipv4.tcp_syncookies"}]}
restricted | 0.. | | {"P/sysctls": [{"name": "net.ipv4.ip_local_port_range"}, {"name": "net.ipv4.ip_unprivileged_port_start"}]}
restricted | 29.. | | {"P/sysctls": [{"name": "net.ipv4.ip_local_reserved_ports"}, {"name": "net.ipv4.tcp_keepalive_time"}]}
restricted | 37.. | | {"P/sysctls": [{"name": "net.ipv4.tcp_notsent_lowat"}, {"name": "net.ipv4.tcp_wmem"}]}
restricted | 0.. | | {"C/windowsOptions": {"hostProcess": false}}
restricted | 35.. | | {"P/runAsNonRoot": false, "P/runAsUser": 0, "hostUsers": false}
"#;
