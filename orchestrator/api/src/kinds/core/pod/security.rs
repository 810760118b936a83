//! Security contexts of pods and containers.

use std::collections::BTreeSet;

use crate::validation::{At, Errors};

const ID: &str = "must be between 0 and 2147483647, inclusive";
const SYSCTL: &str = "must have at most 253 characters and match regex \
    ([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?";

/// Sysctls of the IPC namespace; those of the network namespace begin with `net.`.
const IPC_SYSCTLS: [&str; 4] = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."];

pub fn of_pod(spec: &At<'_>, errors: &mut Errors) {
    let context = spec.field("securityContext");
    ids(&context, &["fsGroup", "runAsGroup", "runAsUser"], errors);
    let groups = context.field("supplementalGroups");
    groups.items().for_each(|group| id(&group, errors));
    errors.one_of_if_any(
        &context.field("fsGroupChangePolicy"),
        &["Always", "OnRootMismatch"],
    );
    errors.one_of_if_any(
        &context.field("supplementalGroupsPolicy"),
        &["Merge", "Strict"],
    );
    profiles(&context, errors);
    sysctls(spec, &context.field("sysctls"), errors);
    let shared = spec.field("shareProcessNamespace");
    if shared.is_true() && spec.field("hostPID").is_true() {
        errors.invalid(
            &shared,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
}

pub fn of_container(container: &At<'_>, host_users: bool, errors: &mut Errors) {
    let context = container.field("securityContext");
    ids(&context, &["runAsGroup", "runAsUser"], errors);
    profiles(&context, errors);
    let mount = context.field("procMount");
    errors.one_of_if_any(&mount, &["Default", "Unmasked"]);
    if mount.text() == "Unmasked" && host_users {
        errors.invalid(&mount, "`hostUsers` must be false to use `Unmasked`");
    }
    if context.field("allowPrivilegeEscalation").value != false {
        return;
    }
    if context.field("privileged").is_true() {
        errors.invalid(
            &context,
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        );
    }
    let capabilities = context.field("capabilities");
    let added = capabilities.field("add");
    if added.items().any(|name| name.text() == "CAP_SYS_ADMIN") {
        errors.invalid(
            &context,
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
        );
    }
}

fn ids(context: &At<'_>, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        id(&context.field(field), errors);
    }
}

fn id(at: &At<'_>, errors: &mut Errors) {
    if !(0..=i64::from(i32::MAX)).contains(&at.number()) {
        errors.invalid(at, ID);
    }
}

fn profiles(context: &At<'_>, errors: &mut Errors) {
    for (field, word) in [
        ("seccompProfile", "seccomp"),
        ("appArmorProfile", "AppArmor"),
    ] {
        let profile = context.field(field);
        if profile.is_null() {
            continue;
        }
        let (kind, local) = (profile.field("type"), profile.field("localhostProfile"));
        match kind.text() {
            "" => errors.required(&kind, &format!("type is required when {field} is set")),
            "Localhost" if local.text().trim().is_empty() => errors.required(
                &local,
                &format!("must be set when {word} type is Localhost"),
            ),
            "Localhost" if field == "seccompProfile" => super::volume::descends(&local, errors),
            "Localhost" if local.text().trim() != local.text() => {
                errors.invalid(&local, "must not be padded with whitespace");
            }
            "Localhost" => {}
            "RuntimeDefault" | "Unconfined" if !local.is_null() => errors.invalid(
                &local,
                format!("can only be set when {word} type is Localhost"),
            ),
            "RuntimeDefault" | "Unconfined" => {}
            _ => errors.not_supported(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
        }
    }
}

fn sysctls(spec: &At<'_>, sysctls: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.field("name");
        let dotted = name.text().replace('/', ".");
        if name.is_empty() {
            errors.required(&name, "");
        } else if !is_sysctl(&dotted) {
            errors.invalid(&name, SYSCTL);
        } else if !seen.insert(name.text().to_owned()) {
            errors.duplicate(&name);
        }
        if dotted.starts_with("net.") && spec.field("hostNetwork").is_true() {
            errors.invalid(&name, "may not be specified when 'hostNetwork' is true");
        }
        let is_ipc = IPC_SYSCTLS.iter().any(|prefix| dotted.starts_with(prefix));
        if is_ipc && spec.field("hostIPC").is_true() {
            errors.invalid(&name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inner = |c: char| edge(c) || c == '-' || c == '_';
    let segment =
        |text: &str| text.starts_with(edge) && text.ends_with(edge) && text.chars().all(inner);
    name.len() <= 253 && name.split('.').all(segment)
}
