use serde_json::json;

use super::*;
use crate::{FieldValidation, Format};

fn definition(versions: Value) -> Value {
    json!({
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {"group": "stable.example.com", "scope": "Namespaced", "versions": versions},
        "status": {"storedVersions": ["v1"], "acceptedNames": {"kind": "CronTab",
            "listKind": "CronTabList", "plural": "crontabs", "singular": "crontab",
            "shortNames": ["ct"], "categories": ["all"]}},
    })
}

fn version(name: &str, spec: Value) -> Value {
    json!({"name": name, "served": true, "storage": name == "v1",
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": spec},
            "status": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}})
}

fn object(version: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("stable.example.com/{version}"), "kind": "CronTab",
        "metadata": {"name": "a", "namespace": "default"}, "spec": spec})
}

#[test]
fn a_definition_makes_a_resource_like_a_file_of_kinds() {
    let mut v1 = version(
        "v1",
        json!({"image": {"type": "string", "default": "nginx"},
        "n": {"type": "integer", "maximum": 5}}),
    );
    v1["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.n",
        "statusReplicasPath": ".status.n"}});
    v1["selectableFields"] = json!([{"jsonPath": ".spec.image"}]);
    let kind = Kind::of(&definition(json!([v1]))).unwrap();
    assert!(kind.served[0].is_same());
    let of = &kind.storage;
    assert_eq!(of.api_version(), "stable.example.com/v1");
    assert_eq!(of.definition, "com.example.stable.v1.CronTab");
    assert_eq!(of.list_definition(), "com.example.stable.v1.CronTabList");
    assert_eq!(of.subresources, [Subresource::Status, Subresource::Scale]);
    let body = object("v1", json!({"n": 3, "x": 1})).to_string();
    let decoded = of
        .decode(body.as_bytes(), Format::Json, FieldValidation::Warn)
        .unwrap();
    assert_eq!(decoded.warnings, ["unknown field \"spec.x\""]);
    assert_eq!(decoded.object["spec"], json!({"n": 3, "image": "nginx"}));
    let fields = of.selectable_fields(&decoded.object);
    assert_eq!(fields["spec.image"], "nginx");
    let mut made = decoded.object.clone();
    made["status"] = json!({"n": 1});
    of.prepare_for_create(&mut made);
    assert_eq!(
        (made.get("status"), &made["metadata"]["generation"]),
        (None, &json!(1))
    );
    of.validate(&made, None, None).unwrap();
    made["spec"]["n"] = 6.into();
    let refused = of.validate(&made, None, None).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "CronTab.stable.example.com \"a\" is invalid: spec.n: Invalid value: 6: spec.n in body \
         should be less than or equal to 5"
    );
    let scale = crate::scale::of(of, &decoded.object).unwrap();
    assert_eq!(scale["spec"]["replicas"], 3);
    let mut more = scale.clone();
    more["spec"]["replicas"] = 4.into();
    assert_eq!(
        crate::scale::apply(of, &decoded.object, &more).unwrap()["spec"]["n"],
        4
    );
}

#[test]
fn any_change_but_of_metadata_and_of_a_status_of_its_own_counts_a_generation() {
    let of = |subresources: Value| {
        let mut v1 = version("v1", json!({"n": {"type": "integer"}}));
        v1["schema"]["openAPIV3Schema"]["properties"]["top"] = json!({"type": "string"});
        v1["subresources"] = subresources;
        Kind::of(&definition(json!([v1]))).unwrap().storage
    };
    let generation = |of: &Resource, field: &str, value: Value| {
        let mut old = object("v1", json!({"n": 1}));
        old["metadata"]["generation"] = 1.into();
        let mut new = old.clone();
        new[field] = value;
        of.prepare_for_update(&mut new, &old, None);
        new["metadata"]["generation"].as_i64().unwrap()
    };
    let (plain, with_status) = (of(json!({})), of(json!({"status": {}})));
    assert_eq!(generation(&plain, "top", json!("x")), 2);
    assert_eq!(generation(&plain, "status", json!({"n": 1})), 2);
    assert_eq!(generation(&with_status, "status", json!({"n": 1})), 1);
    assert_eq!(generation(&with_status, "spec", json!({"n": 2})), 2);
}

#[test]
fn a_status_is_written_without_anything_else() {
    let mut v1 = version("v1", json!({"n": {"type": "integer"}}));
    v1["subresources"] = json!({"status": {}});
    let of = Kind::of(&definition(json!([v1]))).unwrap().storage;
    let old = object("v1", json!({"n": 1}));
    let mut new = object("v1", json!({"n": 2}));
    new["metadata"]["labels"] = json!({"a": "b"});
    new["status"] = json!({"n": 7});
    of.prepare_for_update(&mut new, &old, Some(Subresource::Status));
    let mut expected = old.clone();
    expected["status"] = json!({"n": 7});
    assert_eq!(new, expected);
}

#[test]
fn versions_are_renamed_and_each_has_its_own_defaults() {
    let versions = json!([
        version("v1", json!({"a": {"type": "string", "default": "A"}})),
        version(
            "v2",
            json!({"a": {"type": "string"}, "b": {"type": "string", "default": "B"}})
        ),
    ]);
    let kind = Kind::of(&definition(versions)).unwrap();
    let v2 = &kind.served[1];
    let shown = v2.to_served(object("v1", json!({"a": "x"}))).unwrap();
    assert_eq!(shown, object("v2", json!({"a": "x", "b": "B"})));
    let stored = v2.to_stored(object("v2", json!({"b": "y"}))).unwrap();
    assert_eq!(stored, object("v1", json!({"a": "A"})));
    // What is stored is read by the version that it was stored in.
    let bytes = object("v2", json!({"c": 1})).to_string();
    let read: Value = serde_json::from_slice(&kind.storage.read(bytes.as_bytes())).unwrap();
    assert_eq!(read, object("v2", json!({"b": "B"})));
}

#[test]
fn a_deprecated_version_says_what_to_use_instead() {
    let mut old = version("v1beta1", json!({}));
    old["deprecated"] = true.into();
    let warning = |old: &Value| {
        let kind = Kind::of(&definition(json!([version("v1", json!({})), old]))).unwrap();
        kind.served[1].resource.deprecation.clone().unwrap()
    };
    assert_eq!(
        warning(&old),
        "stable.example.com/v1beta1 CronTab is deprecated; use stable.example.com/v1 CronTab"
    );
    old["deprecationWarning"] = "gone soon".into();
    assert_eq!(warning(&old), "gone soon");
}

#[test]
fn a_kind_that_goes_takes_no_new_objects() {
    let kind = Kind::of(&definition(json!([version("v1", json!({}))]))).unwrap();
    let (before, after) = (&kind.served[0].resource, &kind.closing().served[0].resource);
    assert!(before.verbs.contains(&"create") && !after.verbs.contains(&"create"));
    assert!(after.verbs.contains(&"deletecollection"));
    let custom = |resource: &Resource| resource.custom.clone().unwrap();
    assert!(custom(before).is_of(&custom(after)));
}

#[test]
fn fields_of_a_custom_kind_have_owners() {
    let mut v1 = version(
        "v1",
        json!({
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"known": {"type": "string"}}},
            "list": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object", "required": ["name"],
                "properties": {"name": {"type": "string"}, "v": {"type": "string"}}}},
        }),
    );
    v1["subresources"] = json!({"status": {}});
    let of = Kind::of(&definition(json!([v1]))).unwrap().storage;
    let by = |manager| crate::apply::Writer {
        manager,
        subresource: None,
        now: Timestamp::UNIX_EPOCH,
    };
    let one = object(
        "v1",
        json!({"free": {"x": {"y": 1}}, "list": [{"name": "a", "v": "1"}]}),
    );
    let made = crate::apply::apply(&of, None, &one, &by("one"), false).unwrap();
    let two = object("v1", json!({"list": [{"name": "b", "v": "2"}]}));
    let both = crate::apply::apply(&of, Some(&made), &two, &by("two"), false).unwrap();
    assert_eq!(
        both["spec"],
        json!({"free": {"x": {"y": 1}},
            "list": [{"name": "a", "v": "1"}, {"name": "b", "v": "2"}]})
    );
    let other = object("v1", json!({"free": {"x": {"y": 2}}}));
    let refused = crate::apply::apply(&of, Some(&both), &other, &by("two"), false);
    assert!(refused.unwrap_err().to_string().contains(".spec.free.x.y"));
}
