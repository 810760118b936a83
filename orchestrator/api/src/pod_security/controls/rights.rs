//! What processes may do: privileges, capabilities, users.

use serde_json::Value;

use super::super::containers::{self, Setters, Values, named, quoted};
use super::{Pod, Violation};

/// What a container runtime gives unless it is told otherwise.
const DEFAULT_CAPABILITIES: [&str; 13] = [
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
    "SYS_CHROOT",
];

pub fn privileged(pod: Pod<'_>) -> Option<Violation> {
    let privileged = |container: &Value| container["securityContext"]["privileged"] == true;
    let setters = of_containers(containers::where_(pod.spec, privileged));
    setters.violation("privileged", "must not set securityContext.privileged=true")
}

pub fn escalation(pod: Pod<'_>) -> Option<Violation> {
    let field = "allowPrivilegeEscalation";
    let may = |container: &Value| container["securityContext"][field] != false;
    let setters = of_containers(containers::where_(pod.spec, may));
    setters.violation(
        "allowPrivilegeEscalation != false",
        "must set securityContext.allowPrivilegeEscalation=false",
    )
}

fn of_containers(containers: Vec<&str>) -> Setters<'_> {
    Setters {
        pod: false,
        containers,
    }
}

pub fn added_capabilities(pod: Pod<'_>) -> Option<Violation> {
    let (names, added) = adding(pod.spec, &DEFAULT_CAPABILITIES);
    let what = must_not_include(&added);
    of_containers(names).violation("non-default capabilities", &what)
}

/// The containers that add others than these capabilities, and what they add.
fn adding<'a>(spec: &'a Value, allowed: &[&str]) -> (Vec<&'a str>, Values<'a>) {
    let others = |container: &'a Value| {
        let added = list(container, "add");
        added.filter(|capability| !allowed.contains(capability))
    };
    let names = containers::where_(spec, |container| others(container).next().is_some());
    (names, containers::all(spec).flat_map(others).collect())
}

fn must_not_include(capabilities: &Values<'_>) -> String {
    let capabilities = quoted(capabilities);
    format!("must not include {capabilities} in securityContext.capabilities.add")
}

fn list<'a>(container: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    let list = container["securityContext"]["capabilities"][field].as_array();
    list.into_iter().flatten().filter_map(Value::as_str)
}

pub fn dropped_capabilities(pod: Pod<'_>) -> Option<Violation> {
    let keeping = containers::where_(pod.spec, |container| {
        !list(container, "drop").any(|capability| capability == "ALL")
    });
    let (names, added) = adding(pod.spec, &["NET_BIND_SERVICE"]);
    let drop_all = r#"must set securityContext.capabilities.drop=["ALL"]"#;
    let keeping = (!keeping.is_empty()).then(|| format!("{} {drop_all}", named(&keeping)));
    let adding =
        (!names.is_empty()).then(|| format!("{} {}", named(&names), must_not_include(&added)));
    let details: Vec<String> = [keeping, adding].into_iter().flatten().collect();
    (!details.is_empty()).then(|| Violation {
        reason: "unrestricted capabilities",
        detail: details.join("; "),
    })
}

pub fn proc_mount(pod: Pod<'_>) -> Option<Violation> {
    fn unmasked(container: &Value) -> Option<&str> {
        let kind = container["securityContext"]["procMount"].as_str();
        kind.filter(|kind| *kind != "Default")
    }
    let names = containers::where_(pod.spec, |container| unmasked(container).is_some());
    let kinds: Values<'_> = containers::all(pod.spec).filter_map(unmasked).collect();
    let what = format!(
        "must not set securityContext.procMount to {}",
        quoted(kinds)
    );
    of_containers(names).violation("procMount", &what)
}

pub fn non_root(pod: Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let wrong = Setters::of(pod.spec, "/runAsNonRoot", |value| value == false);
    if !wrong.is_empty() {
        return wrong.violation(REASON, "must not set securityContext.runAsNonRoot=false");
    }
    let says = |holder: &Value| holder["securityContext"]["runAsNonRoot"].is_boolean();
    if says(pod.spec) {
        return None;
    }
    let silent = containers::where_(pod.spec, |container| !says(container));
    (!silent.is_empty()).then(|| Violation {
        reason: REASON,
        detail: format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            named(&silent)
        ),
    })
}

pub fn user(pod: Pod<'_>) -> Option<Violation> {
    let root = Setters::of(pod.spec, "/runAsUser", |value| value.as_i64() == Some(0));
    root.violation("runAsUser=0", "must not set runAsUser=0")
}
