//! The judge of the engine is the k8s-openapi type of each kind: what the engine makes of a value
//! is what the type makes of it, but for what the type does not know: quantities, nulls in lists
//! and maps, zeros that Go leaves out.

use k8s_openapi::serde::{Serialize, de::DeserializeOwned};
use proptest::prelude::*;
use serde_json::json;

use crate::{
    FieldValidation, Format, Resource, find, find_kind, quantity::Quantity, registry::with_schema,
    schema::derived, tests::Tape,
};

use super::*;

/// Decodes through `T`; none if the type refuses the value.
pub(crate) fn typed<T: DeserializeOwned + Serialize>(value: &Value) -> Option<Value> {
    let object: T = serde_json::from_value(value.clone()).ok()?;
    serde_json::to_value(object).ok()
}

/// The kinds that have a type.
fn judged() -> impl Iterator<Item = &'static Resource> {
    with_schema().filter(|resource| derived::origin(&resource.definition).is_none())
}

fn engine(resource: &Resource, value: &Value) -> Result<Value, String> {
    resource
        .canonical(value.clone(), FieldValidation::Ignore)
        .map(|decoded| decoded.object)
        .map_err(|e| e.to_string())
}

/// Engine and type agree on a value that both accept.
fn agree(resource: &Resource, value: &Value) {
    let canonical = match engine(resource, value) {
        Ok(canonical) => canonical,
        Err(error) => {
            let of_a_time = ["Time: Required value", "Timestamp: Required value"];
            assert!(of_a_time.iter().any(|it| error.contains(it)), "{error}");
            assert_eq!((resource.codec.typed)(value), None);
            return;
        }
    };
    assert_eq!(
        (resource.codec.typed)(&canonical).map(without_inner_kinds),
        Some(without_inner_kinds(canonical.clone())),
        "the type keeps a canonical {} as it is",
        resource.kind
    );
    if let Some(through_type) = (resource.codec.typed)(value) {
        assert_eq!(
            engine(resource, &through_type).map(without_inner_kinds),
            Ok(without_inner_kinds(canonical)),
            "the type loses nothing of a {} that the engine keeps, and the reverse",
            resource.kind
        );
    }
}

/// The types write apiVersion and kind into the claims of a StatefulSet, which Go leaves as they were
/// sent.
fn without_inner_kinds(mut object: Value) -> Value {
    let claims = object.pointer_mut("/spec/volumeClaimTemplates");
    for claim in claims.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(claim) = claim.as_object_mut() {
            claim.retain(|field, _| field != "apiVersion" && field != "kind");
        }
    }
    object
}

/// A wrong value in place of the one at `index`, counted from the root.
fn mutate(value: &mut Value, index: &mut usize, wrong: &Value) {
    if *index == 0 {
        *value = wrong.clone();
    }
    let Some(next) = index.checked_sub(1) else {
        *index = usize::MAX;
        return;
    };
    *index = next;
    match value {
        Value::Array(list) => list.iter_mut().for_each(|v| mutate(v, index, wrong)),
        Value::Object(map) => map.values_mut().for_each(|v| mutate(v, index, wrong)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_makes_of_any_object_what_its_type_makes_of_it(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        for resource in judged() {
            agree(resource, &Tape::new(&bytes).object(&resource.definition, 0));
        }
    }

    #[test]
    fn the_engine_refuses_a_value_of_a_wrong_type_where_the_type_refuses_it(
        bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 1usize..200,
    ) {
        let wrongs = [json!(true), json!(3), json!(1.5), json!(70_000_000_000_i64),
            json!(u64::MAX), json!("x"), json!([]), json!({}), json!(["x"]), json!({"x": [3]})];
        for resource in judged() {
            let mut tape = Tape::new(&bytes);
            let Ok(value) = engine(resource, &tape.object(&resource.definition, 0)) else {
                continue;
            };
            for wrong in &wrongs {
                let mut mutated = value.clone();
                mutate(&mut mutated, &mut at.clone(), wrong);
                let accepted = (resource.codec.typed)(&mutated).is_some();
                match engine(resource, &mutated) {
                    Ok(_) => {
                        prop_assert!(accepted, "only the engine accepts {}", mutated);
                        agree(resource, &mutated);
                    }
                    // The types take any text for a quantity.
                    Err(error) => prop_assert!(
                        !accepted || error.contains("quantit"),
                        "{}: only the engine refuses {}", error, mutated
                    ),
                }
            }
        }
    }
}

#[test]
fn the_manifests_of_the_repository_are_decoded_as_their_types_decode_them() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let value: Value = serde::Deserialize::deserialize(document).unwrap();
            let (api_version, kind) = (value["apiVersion"].as_str(), value["kind"].as_str());
            let (group, version) = api_version.unwrap().rsplit_once('/').unwrap_or(("", "v1"));
            if let Some(resource) = find_kind(group, version, kind.unwrap()) {
                agree(resource, &value);
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn what_omitempty_leaves_out_is_absent_and_what_a_pointer_keeps_stays() {
    let deployments = find("apps", "v1", "deployments").unwrap();
    let empty = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "a", "labels": {}, "annotations": {}, "generateName": ""},
        "spec": {
            "replicas": 0, "minReadySeconds": 0, "paused": false,
            "selector": {"matchLabels": {}, "matchExpressions": []},
            "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": ""}},
            "template": {"metadata": {}, "spec": {
                "nodeSelector": {}, "tolerations": [], "volumes": [{"name": "v", "emptyDir": {}}],
                "imagePullSecrets": [], "hostNetwork": false, "priority": 0, "nodeName": "",
                "securityContext": {}, "affinity": {"podAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "", "labelSelector": {}, "namespaceSelector": {}}]}},
                "containers": [{"name": "c", "env": [{"name": "", "value": ""}], "ports": [],
                    "args": [""], "command": [], "stdin": false, "resources": {"limits": {}}}],
            }},
        },
    });
    assert_eq!(
        engine(deployments, &empty).unwrap(),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a"},
            "spec": {
                "replicas": 0,
                "selector": {},
                "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": ""}},
                "template": {"metadata": {}, "spec": {
                    "volumes": [{"name": "v", "emptyDir": {}}], "priority": 0,
                    "securityContext": {}, "affinity": {"podAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [
                            {"topologyKey": "", "labelSelector": {}, "namespaceSelector": {}}]}},
                    "containers": [{"name": "c", "env": [{"name": ""}], "args": [""],
                        "resources": {}}],
                }},
            },
        })
    );
}

#[test]
fn required_fields_are_there_even_if_they_were_left_out() {
    let pods = find("", "v1", "pods").unwrap();
    let sparse = json!({"spec": {"containers": [null, {"ports": [{}]}]}});
    assert_eq!(
        engine(pods, &sparse).unwrap(),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": [
            {"name": ""}, {"name": "", "ports": [{"containerPort": 0}]}]}})
    );
}

#[test]
fn a_required_time_is_asked_for() {
    let services = find("", "v1", "services").unwrap();
    let service = json!({"status": {"conditions": [{"type": "a", "status": "True"}]}});
    assert_eq!(
        engine(services, &service).unwrap_err(),
        r#"Service in version "v1" cannot be handled as a Service: status.conditions[0].lastTransitionTime: Required value"#
    );
}

#[test]
fn every_quantity_is_canonical_wherever_it_is() {
    let pods = find("", "v1", "pods").unwrap();
    let pod = json!({
        "spec": {
            "containers": [{"name": "c", "env": [{"name": "e", "valueFrom": {"resourceFieldRef":
                {"divisor": "1000m", "resource": "limits.cpu"}}}]}],
            "overhead": {"cpu": "0.5"},
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1024Ki"}}],
        },
        "status": {"containerStatuses": [{"name": "c", "ready": true, "restartCount": 0,
            "image": "", "imageID": "", "allocatedResources": {"memory": 1024}}]},
    });
    let decoded = engine(pods, &pod).unwrap();
    let at = |pointer: &str| decoded.pointer(pointer).cloned().unwrap();
    let divisor = "/spec/containers/0/env/0/valueFrom/resourceFieldRef/divisor";
    assert_eq!(at(divisor), "1");
    assert_eq!(at("/spec/overhead/cpu"), "500m");
    assert_eq!(at("/spec/volumes/0/emptyDir/sizeLimit"), "1Mi");
    let allocated = at("/status/containerStatuses/0/allocatedResources/memory");
    assert_eq!(allocated, Quantity::from_units(1024).to_string());
}

#[test]
fn free_form_data_is_left_as_it_is() {
    let maps = find("", "v1", "configmaps").unwrap();
    let fields = json!({"f:data": {".": {}, "f:a": null, "x": [0, "", false, null]}});
    let value = json!({"metadata": {"managedFields": [{"manager": "m", "fieldsV1": fields}]}});
    let decoded = engine(maps, &value).unwrap();
    assert_eq!(decoded["metadata"]["managedFields"][0]["fieldsV1"], fields);
}

#[test]
fn a_patched_value_of_too_many_levels_is_refused() {
    let maps = find("", "v1", "configmaps").unwrap();
    let deep = (0..limits::MAX_DEPTH + 1).fold(json!(1), |inner, _| json!({"x": inner}));
    let error = engine(
        maps,
        &json!({"metadata": {"managedFields": [{"fieldsV1": deep}]}}),
    );
    assert!(error.unwrap_err().contains("exceeded max depth"));
    let body = json!({"metadata": {"x": deep}}).to_string();
    let error = maps.decode(body.as_bytes(), Format::Json, FieldValidation::Ignore);
    assert_eq!(error.unwrap_err().code(), 400);
}

#[test]
fn a_null_where_a_map_has_times_is_dropped() {
    let budgets = find("policy", "v1", "poddisruptionbudgets").unwrap();
    let budget = json!({"metadata": {"name": "a"}, "status": {"disruptedPods": {"p": null}}});
    let canonical = engine(budgets, &budget).unwrap();
    assert_eq!(canonical["status"].get("disruptedPods"), None);
}
