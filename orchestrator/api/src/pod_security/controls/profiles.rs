//! What keeps containers apart from the node's kernel: AppArmor, SELinux, seccomp.

use serde_json::Value;

use super::super::containers::{self, Setters, Values, named, plural, quoted};
use super::{Pod, Violation};

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The types of profile that confine.
const CONFINING: [&str; 2] = ["RuntimeDefault", "Localhost"];

pub const SELINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t"];
pub const SELINUX_TYPES_1_31: &[&str] = &[
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

pub fn app_armor(pod: Pod<'_>) -> Option<Violation> {
    let mut types = Values::new();
    let setters = profiles(pod.spec, "/appArmorProfile", &mut types);
    let annotations = pod.metadata["annotations"].as_object();
    let annotations = annotations.into_iter().flatten();
    let wrong = annotations.filter_map(|(key, value)| {
        let profile = value.as_str().unwrap_or_default();
        let is_confined =
            matches!(profile, "" | "runtime/default") || profile.starts_with("localhost/");
        let is_wrong = key.starts_with(APP_ARMOR_ANNOTATION) && !is_confined;
        is_wrong.then(|| format!("{key}={profile:?}"))
    });
    let mut wrong: Vec<String> = wrong.collect();
    wrong.sort();
    if setters.is_empty() && wrong.is_empty() {
        return None;
    }
    let also = (!wrong.is_empty()).then(|| plural("annotation", wrong.len()));
    let reason = match types.len() + wrong.len() {
        1 => "forbidden AppArmor profile",
        _ => "forbidden AppArmor profiles",
    };
    let values = types.into_iter().map(str::to_owned).chain(wrong);
    let (setters, values) = (setters.text(also), quoted(values));
    Some(Violation {
        reason,
        detail: format!("{setters} must not set AppArmor profile type to {values}"),
    })
}

/// Who sets a profile of a type that does not confine, and the types.
fn profiles<'a>(spec: &'a Value, pointer: &str, types: &mut Values<'a>) -> Setters<'a> {
    Setters::of(spec, pointer, |profile| {
        let kind = profile["type"].as_str().unwrap_or_default();
        let is_wrong = !CONFINING.contains(&kind);
        if is_wrong {
            types.insert(kind);
        }
        is_wrong
    })
}

pub fn selinux(pod: Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let (mut types, mut user, mut role) = (Values::new(), false, false);
    let setters = Setters::of(pod.spec, "/seLinuxOptions", |options| {
        let text = |field: &str| options[field].as_str().unwrap_or_default();
        let is_wrong = !allowed.contains(&text("type"));
        if is_wrong {
            types.insert(text("type"));
        }
        let (sets_user, sets_role) = (!text("user").is_empty(), !text("role").is_empty());
        user |= sets_user;
        role |= sets_role;
        is_wrong || sets_user || sets_role
    });
    let wrong_types =
        (!types.is_empty()).then(|| format!("{} {}", plural("type", types.len()), quoted(&types)));
    let user = user.then(|| "user may not be set".to_owned());
    let role = role.then(|| "role may not be set".to_owned());
    let wrong: Vec<String> = [wrong_types, user, role].into_iter().flatten().collect();
    let what = format!(
        "set forbidden securityContext.seLinuxOptions: {}",
        wrong.join("; ")
    );
    setters.violation("seLinuxOptions", &what)
}

/// Before 1.19 annotations named the profile.
pub fn seccomp_annotations(pod: Pod<'_>) -> Option<Violation> {
    let of_containers =
        containers::all(pod.spec).map(|it| format!("{SECCOMP_ANNOTATION}{}", containers::name(it)));
    let keys = std::iter::once(SECCOMP_POD_ANNOTATION.to_owned()).chain(of_containers);
    let wrong = keys.filter_map(|key| {
        let profile = pod.metadata["annotations"][&key].as_str()?;
        let is_confined = matches!(profile, "runtime/default" | "docker/default")
            || profile.starts_with("localhost/");
        (!is_confined).then(|| format!("{key}={profile:?}"))
    });
    let mut wrong: Vec<String> = wrong.collect();
    wrong.sort();
    wrong.dedup();
    (!wrong.is_empty()).then(|| {
        let word = plural("annotation", wrong.len());
        Violation {
            reason: "seccompProfile",
            detail: format!("forbidden {word} {}", wrong.join(", ")),
        }
    })
}

pub fn seccomp_allowed(pod: Pod<'_>) -> Option<Violation> {
    let mut types = Values::new();
    let setters = profiles(pod.spec, "/seccompProfile", &mut types);
    let types = quoted(types);
    let what = format!("must not set securityContext.seccompProfile.type to {types}");
    setters.violation("seccompProfile", &what)
}

pub fn seccomp_required(pod: Pod<'_>) -> Option<Violation> {
    if let Some(forbidden) = seccomp_allowed(pod) {
        return Some(forbidden);
    }
    let has_profile = |holder: &Value| holder["securityContext"]["seccompProfile"].is_object();
    if has_profile(pod.spec) {
        return None;
    }
    let without = containers::where_(pod.spec, |container| !has_profile(container));
    (!without.is_empty()).then(|| Violation {
        reason: "seccompProfile",
        detail: format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
             \"Localhost\"",
            named(&without)
        ),
    })
}
