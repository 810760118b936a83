//! What the crate `tests` measures of the API server that no single request shows.

use serde_json::json;

use super::rbac::{Rbac, Subject};
use api::kinds::rbac::GROUP;
use api::rbac::Attributes;

/// Decisions of RBAC among so many bindings.
pub struct Decisions {
    rbac: Rbac,
    bindings: usize,
    groups: [String; 2],
}

impl Decisions {
    /// Each binding gives its own role; to users of their own, or all to one group.
    pub fn among(bindings: usize, all_of_one_group: bool) -> Self {
        let rbac = Rbac::default();
        let note = |name: String, object: serde_json::Value| {
            let key = format!("/registry/{GROUP}/{name}");
            rbac.note(&key, Some(object.to_string().as_bytes()));
        };
        for number in 0..bindings {
            let name = format!("r{number}");
            let rules = json!([{"verbs": ["get", "list"], "apiGroups": ["example.com"],
                "resources": [format!("things{number}")]}]);
            let role = json!({"metadata": {"name": name}, "rules": rules});
            note(format!("clusterroles/{name}"), role);
            let subject = match all_of_one_group {
                true => json!({"kind": "Group", "name": "people"}),
                false => json!({"kind": "User", "name": format!("user-{number}")}),
            };
            let binding = json!({"metadata": {"name": name}, "subjects": [subject],
                "roleRef": {"kind": "ClusterRole", "name": name}});
            note(format!("clusterrolebindings/{name}"), binding);
        }
        Self {
            rbac,
            bindings,
            groups: ["people".to_owned(), "others".to_owned()],
        }
    }

    /// Whether the user of the last binding may read the things of a binding; true for its own.
    pub fn decide(&self, things: usize) -> bool {
        let name = format!("user-{}", self.bindings - 1);
        let subject = Subject {
            name: &name,
            groups: &self.groups,
            everybody: Some("system:authenticated"),
        };
        let resource = format!("things{things}");
        let wanted = Attributes {
            verb: "get",
            group: "example.com",
            resource: &resource,
            namespace: "default",
            ..Attributes::default()
        };
        self.rbac.allows(subject, &wanted).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_are_right_decisions() {
        let own = Decisions::among(10, false);
        assert!(own.decide(9) && !own.decide(8) && !own.decide(10));
        let of_group = Decisions::among(10, true);
        assert!(of_group.decide(0) && of_group.decide(9) && !of_group.decide(10));
    }
}
