//! The controls, and since which version each is as it is.

mod host;
mod profiles;
mod rights;
mod volumes;

use super::{Level, Pod, Violation};

/// What a control has against a pod.
pub type Check = fn(Pod<'_>) -> Option<Violation>;

/// A control of the standards.
pub struct Control {
    /// As Kubernetes names it; violations are told in this order, those of `baseline` first.
    pub id: &'static str,
    pub level: Level,
    /// The minor versions of Kubernetes 1 from which on each check is in force, the oldest first.
    since: &'static [(u32, Check)],
    /// The control of a lower level that need not be asked where this one is.
    pub replaces: Option<&'static str>,
}

impl Control {
    const fn baseline(id: &'static str, since: &'static [(u32, Check)]) -> Self {
        Self {
            id,
            level: Level::Baseline,
            since,
            replaces: None,
        }
    }

    const fn restricted(id: &'static str, since: &'static [(u32, Check)]) -> Self {
        Self {
            level: Level::Restricted,
            ..Self::baseline(id, since)
        }
    }

    const fn instead_of(self, id: &'static str) -> Self {
        Self {
            replaces: Some(id),
            ..self
        }
    }

    /// The check that is in force at a version; None: there was none yet.
    pub fn at(&self, minor: u32) -> Option<Check> {
        let newest_first = self.since.iter().rev();
        let mut known = newest_first.filter(|(since, _)| *since <= minor);
        known.next().map(|(_, check)| *check)
    }

    /// The versions at which it changed.
    #[cfg(test)]
    pub fn versions(&self) -> impl Iterator<Item = u32> {
        self.since.iter().map(|(since, _)| *since)
    }
}

pub const CONTROLS: &[Control] = &[
    Control::baseline("appArmorProfile", &[(0, profiles::app_armor)]),
    Control::baseline("capabilities_baseline", &[(0, rights::added_capabilities)]),
    Control::baseline("hostNamespaces", &[(0, host::namespaces)]),
    Control::baseline("hostPathVolumes", &[(0, volumes::host_path)]),
    Control::baseline("hostPorts", &[(0, host::ports)]),
    Control::baseline(
        "hostProbesAndHostLifecycle",
        &[(34, host::probes_and_hooks)],
    ),
    Control::baseline("privileged", &[(0, rights::privileged)]),
    Control::baseline(
        "procMount",
        &[
            (0, rights::proc_mount),
            (35, |pod| outside_user_namespace(pod, rights::proc_mount)),
        ],
    ),
    Control::baseline(
        "seLinuxOptions",
        &[
            (0, |pod| profiles::selinux(pod, profiles::SELINUX_TYPES)),
            (31, |pod| {
                profiles::selinux(pod, profiles::SELINUX_TYPES_1_31)
            }),
        ],
    ),
    Control::baseline(
        "seccompProfile_baseline",
        &[
            (0, profiles::seccomp_annotations),
            (19, profiles::seccomp_allowed),
        ],
    ),
    Control::baseline(
        "sysctls",
        &[
            (0, |pod| host::sysctls(pod, 0)),
            (27, |pod| host::sysctls(pod, 27)),
            (29, |pod| host::sysctls(pod, 29)),
            (32, |pod| host::sysctls(pod, 32)),
            (37, |pod| host::sysctls(pod, 37)),
        ],
    ),
    Control::baseline("windowsHostProcess", &[(0, host::windows_process)]),
    Control::restricted(
        "allowPrivilegeEscalation",
        &[
            (8, rights::escalation),
            (25, |pod| unless_windows(pod, rights::escalation)),
        ],
    ),
    Control::restricted(
        "capabilities_restricted",
        &[
            (22, rights::dropped_capabilities),
            (25, |pod| unless_windows(pod, rights::dropped_capabilities)),
        ],
    )
    .instead_of("capabilities_baseline"),
    Control::restricted("procMount_restricted", &[(35, rights::proc_mount)])
        .instead_of("procMount"),
    Control::restricted("restrictedVolumes", &[(0, volumes::restricted)])
        .instead_of("hostPathVolumes"),
    Control::restricted(
        "runAsNonRoot",
        &[
            (0, rights::non_root),
            (35, |pod| outside_user_namespace(pod, rights::non_root)),
        ],
    ),
    Control::restricted(
        "runAsUser",
        &[
            (23, rights::user),
            (35, |pod| outside_user_namespace(pod, rights::user)),
        ],
    ),
    Control::restricted(
        "seccompProfile_restricted",
        &[
            (19, profiles::seccomp_required),
            (25, |pod| unless_windows(pod, profiles::seccomp_required)),
        ],
    )
    .instead_of("seccompProfile_baseline"),
];

/// What Linux alone has is not asked of a pod that says that it is for Windows.
fn unless_windows(pod: Pod<'_>, check: Check) -> Option<Violation> {
    match pod.spec["os"]["name"] == "windows" {
        true => None,
        false => check(pod),
    }
}

/// Root of a user namespace is nobody on the node (KEP-127).
fn outside_user_namespace(pod: Pod<'_>, check: Check) -> Option<Violation> {
    match pod.spec["hostUsers"] == false {
        true => None,
        false => check(pod),
    }
}
