//! What only pods of one operating system have. Pod Security asks less of a pod that says that it is for
//! Windows, which is safe only while such a pod cannot set what it is not asked about.

use crate::validation::{At, Errors};

const WINDOWS: &str = "cannot be set for a windows pod";
const LINUX: &str = "windows options cannot be set for a linux pod";

/// Fields of the pod itself that Linux alone has.
const OF_LINUX_POD: [&str; 4] = ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
/// The same of the security context of a pod.
const OF_LINUX_POD_CONTEXT: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
];
/// The same of the security context of a container.
const OF_LINUX_CONTAINER_CONTEXT: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];
const OF_WINDOWS: [&str; 1] = ["windowsOptions"];

/// Refuses fields of the other system than the one that the pod names.
pub fn check(spec: &At<'_>, errors: &mut Errors) {
    let name = spec.field("os");
    let (of_pod, of_container, why): (&[&str], &[&str], _) = match name.field("name").text() {
        "windows" => (&OF_LINUX_POD_CONTEXT, &OF_LINUX_CONTAINER_CONTEXT, WINDOWS),
        "linux" => (&OF_WINDOWS, &OF_WINDOWS, LINUX),
        _ => return,
    };
    refuse(&spec.field("securityContext"), of_pod, why, errors);
    if why == WINDOWS {
        refuse(spec, &OF_LINUX_POD, why, errors);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.field(list).items() {
            refuse(
                &container.field("securityContext"),
                of_container,
                why,
                errors,
            );
        }
    }
}

/// A list that is empty and a switch that is off, which is as good as absent for the pod's own ones, are
/// let pass.
fn refuse(holder: &At<'_>, fields: &[&str], why: &str, errors: &mut Errors) {
    for field in fields {
        let at = holder.field(field);
        let is_unset = match *field {
            "hostPID" | "hostIPC" => !at.is_true(),
            "sysctls" | "supplementalGroups" => at.is_empty(),
            _ => at.is_null(),
        };
        if !is_unset {
            errors.forbidden(&at, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(spec: Value) -> Vec<String> {
        let (pod, mut errors) = (json!({"spec": spec}), Errors::default());
        check(&At::root(&pod).field("spec"), &mut errors);
        errors.messages()
    }

    #[test]
    fn a_pod_has_nothing_of_the_other_system() {
        let windows = json!({"os": {"name": "windows"}, "hostPID": true, "hostIPC": false,
            "securityContext": {"runAsNonRoot": true, "sysctls": [], "runAsUser": 1},
            "containers": [{"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}],
            "ephemeralContainers": [{"securityContext": {"privileged": true}}]});
        let forbidden = |path: &str| format!("{path}: Forbidden: {WINDOWS}");
        assert_eq!(
            refused(windows),
            [
                "spec.securityContext.runAsUser",
                "spec.hostPID",
                "spec.containers[0].securityContext.capabilities",
                "spec.ephemeralContainers[0].securityContext.privileged",
            ]
            .map(forbidden)
        );
        let linux = json!({"os": {"name": "linux"}, "hostPID": true,
            "initContainers": [{"securityContext": {"windowsOptions": {}}}]});
        let why =
            format!("spec.initContainers[0].securityContext.windowsOptions: Forbidden: {LINUX}");
        assert_eq!(refused(linux), [why]);
        let silent = json!({"hostPID": true, "securityContext": {"windowsOptions": {}}});
        assert!(refused(silent).is_empty());
    }
}
