//! What is valid in a pod's spec and hardly meant.

use std::collections::BTreeSet;

use serde_json::Value;

/// The warnings about the spec at a JSON pointer of the object.
pub fn of(object: &Value, spec: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let path = spec.trim_start_matches('/').replace('/', ".");
    for list in ["initContainers", "containers"] {
        let containers = object.pointer(spec).and_then(|spec| spec[list].as_array());
        for (number, container) in containers.into_iter().flatten().enumerate() {
            let at = format!("{path}.{list}[{number}]");
            hidden_variables(container, &at, &mut warnings);
        }
    }
    warnings
}

/// Lists of variables merge by name: of two with one name, `apply` loses one.
fn hidden_variables(container: &Value, at: &str, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    let variables = container["env"].as_array().into_iter().flatten();
    for (number, variable) in variables.enumerate() {
        let name = variable["name"].as_str().unwrap_or_default();
        if !seen.insert(name) {
            warnings.push(format!(
                "{at}.env[{number}]: hides previous definition of {name:?}, which may be dropped when \
                 using apply"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_variable_that_is_named_twice_is_told_with_its_place() {
        let env = json!([{"name": "A"}, {"name": "B"}, {"name": "A"}]);
        let template = json!({"spec": {"containers": [{"name": "c", "env": env}]}});
        let deployment = json!({"spec": {"template": template}});
        assert_eq!(
            of(&deployment, "/spec/template/spec"),
            [
                "spec.template.spec.containers[0].env[2]: hides previous definition of \"A\", which may be \
              dropped when using apply"
            ]
        );
        assert_eq!(of(&json!({}), "/spec"), Vec::<String>::new());
    }
}
