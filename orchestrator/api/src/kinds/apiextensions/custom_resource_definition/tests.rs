use super::*;
use crate::kinds::testing::{
    assert_refused, assert_wrong, created, refused, row, updated, with, wrong,
};

fn definition() -> Value {
    json!({
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"]},
            "scope": "Namespaced",
            "preserveUnknownFields": false,
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": {"type": "object", "properties": {
                            "cron": {"type": "string", "default": ""},
                            "replicas": {"type": "integer", "minimum": 0, "default": 0},
                            "port": {
                                "x-kubernetes-int-or-string": true,
                                "anyOf": [{"type": "integer"}, {"type": "string"}],
                            },
                        }},
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    },
                }},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas",
                }},
                "additionalPrinterColumns": [
                    {"name": "Spec", "type": "string", "jsonPath": ".spec.cron"},
                ],
                "selectableFields": [{"jsonPath": ".spec.cron"}],
            }],
        },
    })
}

/// Where the schema is in the object, and where Kubernetes says it is.
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";
const SAID: &str = "spec.validation.openAPIV3Schema";

fn second_version(storage: bool) -> Value {
    let mut version = definition()["spec"]["versions"][0].clone();
    version["name"] = "v2".into();
    version["storage"] = storage.into();
    version
}

#[test]
fn a_definition_says_its_names_and_remembers_its_storage_version() {
    let stored = created(&resource(), definition());
    let spec = &stored["spec"];
    assert_eq!(spec["names"]["singular"], "crontab");
    assert_eq!(spec["names"]["listKind"], "CronTabList");
    assert_eq!(spec["conversion"], json!({"strategy": "None"}));
    assert_eq!(spec.get("preserveUnknownFields"), None);
    let cron = &spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    assert_eq!(cron["properties"]["cron"]["default"], "");
    assert_eq!(cron["properties"]["replicas"]["default"], 0);
    assert_eq!(
        stored["status"],
        json!({"acceptedNames": {"kind": "", "plural": ""}, "storedVersions": ["v1"]})
    );
    assert_eq!(stored["metadata"]["generation"], 1);
}

#[test]
fn a_definition_of_an_impossible_kind_is_refused() {
    let names = |part: Value| {
        let mut names = definition()["spec"]["names"].clone();
        for (field, value) in part.as_object().unwrap() {
            names[field] = value.clone();
        }
        names
    };
    assert_wrong(
        &resource(),
        &definition(),
        &[
            (
                "/metadata/name",
                json!("crontabs"),
                r#"metadata.name: Invalid value: "crontabs": must be spec.names.plural+"."+spec.group"#,
            ),
            (
                "/spec/scope",
                json!("World"),
                r#"spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced""#,
            ),
            (
                "/spec/names",
                names(json!({"listKind": "CronTab"})),
                r#"spec.names.listKind: Invalid value: "CronTab": kind and listKind may not be the same"#,
            ),
            (
                "/spec/preserveUnknownFields",
                json!(true),
                "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set \
                 x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
            ),
            (
                "/spec/conversion",
                json!({"strategy": "Webhook"}),
                "[spec.conversion.webhookClientConfig: Required value: required when strategy is \
                 set to Webhook, spec.conversion.conversionReviewVersions: Required value]",
            ),
            (
                "/spec/conversion",
                json!({"strategy": "None", "webhook": {"conversionReviewVersions": ["v1"]}}),
                "spec.conversion.conversionReviewVersions: Forbidden: should not be set when \
                 strategy is not set to Webhook",
            ),
        ],
    );
    for (part, text) in [
        ("kind", "Cron_Tab"),
        ("shortNames", "A"),
        ("singular", "1a"),
    ] {
        let value = match part {
            "shortNames" => json!([text]),
            _ => json!(text),
        };
        let said = wrong(
            &resource(),
            with(&definition(), "/spec/names", names(json!({part: value}))),
        );
        assert!(said.contains(&format!("spec.names.{part}")), "{said}");
    }
}

#[test]
fn a_version_that_could_not_be_served_is_refused() {
    let first = "/spec/versions/0";
    let at = |field: &str| format!("{first}/{field}");
    let cases = [
        (
            at("schema"),
            Value::Null,
            "[spec.versions[0].schema.openAPIV3Schema: Required value, \
             spec.selectableFields[0].jsonPath: Invalid value: \".spec.cron\": is an invalid path: \
             does not refer to a valid field]",
        ),
        (
            at("deprecationWarning"),
            json!("old"),
            r#"spec.versions[0].deprecationWarning: Invalid value: "old": can only be set for deprecated versions"#,
        ),
        (
            at("additionalPrinterColumns"),
            json!([{"name": "A", "type": "text", "jsonPath": "spec"}]),
            r#"[spec.additionalPrinterColumns[0].type: Invalid value: "text": must be one of boolean,date,integer,number,string, spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec": must be a simple json path starting with .]"#,
        ),
        (
            at("subresources/scale"),
            json!({"specReplicasPath": ".status.a", "statusReplicasPath": ""}),
            r#"[spec.subresources.scale.specReplicasPath: Invalid value: ".status.a": should be a json path under .spec, spec.subresources.scale.statusReplicasPath: Required value]"#,
        ),
        (
            at("selectableFields"),
            json!([{"jsonPath": ".spec"}, {"jsonPath": ".spec.none"}]),
            r#"[spec.selectableFields[0].jsonPath: Invalid value: ".spec": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed., spec.selectableFields[1].jsonPath: Invalid value: ".spec.none": is an invalid path: does not refer to a valid field]"#,
        ),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(at, part, why)| (at.as_str(), part.clone(), *why))
        .collect();
    assert_wrong(&resource(), &definition(), &cases);
}

#[test]
fn exactly_one_version_is_stored_and_each_has_a_name_of_its_own() {
    let versions = |storage: bool, name: &str| {
        let mut definition = definition();
        let mut second = second_version(storage);
        second["name"] = name.into();
        definition["spec"]["versions"]
            .as_array_mut()
            .unwrap()
            .push(second);
        wrong(&resource(), definition)
    };
    assert_eq!(versions(false, "v2"), "");
    assert!(
        versions(true, "v2").contains(": must have exactly one version marked as storage version")
    );
    assert!(versions(false, "v1").ends_with(": must contain unique version names"));
}

/// A definition without fields to select, whose schema can be anything.
fn plain() -> Value {
    let mut plain = definition();
    let version = &mut plain["spec"]["versions"][0];
    version.as_object_mut().unwrap().remove("selectableFields");
    plain
}

/// Puts each schema in place of that of the spec, and expects the text after the path of it.
fn assert_schemas(cases: &[(Value, &str)]) {
    let at = format!("{SCHEMA}/properties/spec");
    for (schema, why) in cases {
        let said = wrong(&resource(), with(&plain(), &at, schema.clone()));
        let why = why.replace("@", &format!("{SAID}.properties[spec]"));
        assert_eq!(said, why, "{schema}");
    }
}

#[test]
fn every_value_of_a_schema_has_one_type_said_once() {
    assert_schemas(&[
        (
            json!({}),
            "@.type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({"type": "array"}),
            "@.items: Required value: must be specified",
        ),
        (
            json!({"type": "array", "items": {}}),
            "@.items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({"type": "object", "anyOf": [{"type": "object", "description": "x"}]}),
            "[@.anyOf[0].description: Forbidden: must be empty to be structural, @.anyOf[0].type: Forbidden: must be empty to be structural]",
        ),
        (
            json!({"type": "object", "not": {"default": {}}}),
            "@.not.default: Forbidden: must be undefined to be structural",
        ),
    ]);
}

#[test]
fn keywords_that_no_custom_kind_can_have_are_refused() {
    assert_schemas(&[
        (
            json!({"type": "text"}),
            r#"@.type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
        ),
        (
            json!({"$ref": "#/a"}),
            "@.$ref: Forbidden: $ref is not supported",
        ),
        (
            json!({"type": "object", "patternProperties": {"a": {}}}),
            "@.patternProperties: Forbidden: patternProperties is not supported",
        ),
        (
            json!({"type": "array", "items": [{"type": "string"}]}),
            "@.items: Forbidden: items must be a schema object and not an array",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            "@.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false}),
            "@.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({"type": "string", "x-kubernetes-preserve-unknown-fields": false}),
            "@.x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
    ]);
}

#[test]
fn a_schema_says_of_metadata_at_most_which_names_there_are() {
    let said =
        |at: &str, part: Value| wrong(&resource(), with(&plain(), &format!("{SCHEMA}/{at}"), part));
    let metadata = |part: Value| said("properties/metadata", part);
    let named =
        json!({"properties": {"name": {"type": "string", "maxLength": 9}}, "type": "object"});
    assert_eq!(metadata(named), "");
    assert_eq!(
        metadata(json!({"type": "object", "properties": {"labels": {"type": "object"}}})),
        format!(
            "{SAID}.properties[metadata]: Forbidden: must not specify anything other than name and \
             generateName, but metadata is implicitly specified"
        )
    );
    assert_eq!(
        metadata(json!({"type": "object", "default": {}})),
        format!(
            "{SAID}.properties[metadata].default: Forbidden: must not be set in top-level metadata"
        )
    );
    let open = said("additionalProperties", json!(true));
    assert!(
        open.contains("additionalProperties: Forbidden: must not be used at the root"),
        "{open}"
    );
    let nullable = said("nullable", json!(true));
    assert!(
        nullable.contains("nullable: Forbidden: nullable cannot be true at the root"),
        "{nullable}"
    );
}

#[test]
fn what_a_junctor_narrows_down_is_there() {
    let required = with(
        &definition(),
        &format!("{SCHEMA}/oneOf"),
        json!([{"properties": {"more": {"minimum": 1}}}]),
    );
    let mut required = required;
    required["spec"]["versions"][0]
        .as_object_mut()
        .unwrap()
        .remove("subresources");
    assert_eq!(
        wrong(&resource(), required),
        format!(
            "{SAID}.properties[more]: Required value: because it is defined in {SAID}.oneOf[0].properties[more]"
        )
    );
}

#[test]
fn lists_that_merge_have_items_that_are_told_apart() {
    let spec = format!("{SCHEMA}/properties/spec");
    let at = format!("{SAID}.properties[spec]");
    let list = |kind: &str, keys: Value, items: Value| {
        json!({
            "type": "array", "items": items,
            "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": keys,
        })
    };
    let item =
        json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}});
    let said = |list: Value| wrong(&resource(), with(&plain(), &spec, list));
    assert_eq!(said(list("map", json!(["name"]), item.clone())), "");
    assert_eq!(
        said(list("map", json!([]), item.clone())),
        format!(
            "{at}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
        )
    );
    assert_eq!(
        said(list("map", json!(["id"]), item.clone())),
        format!(
            r#"{at}.x-kubernetes-list-map-keys: Invalid value: ["id"]: entries must all be names of item properties"#
        )
    );
    let optional = with(&item, "/required", json!([]));
    assert_eq!(
        said(list("map", json!(["name"]), optional)),
        format!(
            "{at}.items.properties[name].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
        )
    );
    assert_eq!(
        said(list("set", Value::Null, item.clone())),
        format!(
            "{at}.items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set"
        )
    );
    assert_eq!(
        said(list("bag", Value::Null, item)),
        format!(
            r#"{at}.x-kubernetes-list-type: Unsupported value: "bag": supported values: "atomic", "set", "map""#
        )
    );
}

#[test]
fn a_rule_has_an_expression_and_a_message_of_one_line() {
    let rules = |rule: Value| {
        with(
            &definition(),
            &format!("{SCHEMA}/x-kubernetes-validations"),
            json!([rule]),
        )
    };
    let at = format!("{SAID}.x-kubernetes-validations[0]");
    assert_eq!(
        wrong(
            &resource(),
            rules(json!({"rule": "true", "fieldPath": ".spec.cron"}))
        ),
        ""
    );
    assert_eq!(
        wrong(&resource(), rules(json!({"rule": " "}))),
        format!("{at}.rule: Required value: rule is not specified")
    );
    assert_eq!(
        wrong(&resource(), rules(json!({"rule": "a\nb"}))),
        format!(
            "{at}.message: Required value: message must be specified if rule contains line breaks"
        )
    );
    assert_eq!(
        wrong(
            &resource(),
            rules(json!({"rule": "a", "reason": "Why", "fieldPath": ".x"}))
        ),
        format!(
            r#"[{at}.reason: Unsupported value: "Why": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired", {at}.fieldPath: Invalid value: ".x": must be a valid path]"#
        )
    );
}

#[test]
fn groups_of_kubernetes_want_an_approval() {
    let mut own = definition();
    own["metadata"]["name"] = "crontabs.x.k8s.io".into();
    own["spec"]["group"] = "x.k8s.io".into();
    let annotated = |text: &str| {
        let annotations = json!({APPROVAL: text});
        wrong(
            &resource(),
            with(&own, "/metadata/annotations", annotations),
        )
    };
    assert_eq!(
        wrong(&resource(), own.clone()),
        r#"metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation "api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111"#
    );
    assert_eq!(annotated("https://github.com/kubernetes-sigs/a/pull/1"), "");
    assert_eq!(annotated("unapproved, a test"), "");
    assert!(annotated("yes").contains("with either a URL or a reason"));
}

#[test]
fn a_stored_version_stays_until_nothing_is_stored_in_it() {
    let old = created(&resource(), definition());
    let mut both = old.clone();
    both["spec"]["versions"][0]["storage"] = false.into();
    both["spec"]["versions"]
        .as_array_mut()
        .unwrap()
        .push(second_version(true));
    let stored = updated(&resource(), &old, both.clone(), None);
    assert_eq!(stored["status"]["storedVersions"], json!(["v1", "v2"]));
    assert_eq!(stored["metadata"]["generation"], 2);
    assert_eq!(refused(&resource(), &old, both, None), "");
    let mut only_second = stored.clone();
    only_second["spec"]["versions"]
        .as_array_mut()
        .unwrap()
        .remove(0);
    assert_eq!(
        refused(&resource(), &stored, only_second.clone(), None),
        r#"status.storedVersions[0]: Invalid value: "v1": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions"#
    );
    let migrated = with(&stored, "/status/storedVersions", json!(["v2"]));
    let migrated = updated(&resource(), &stored, migrated, Some(Subresource::Status));
    assert_eq!(refused(&resource(), &migrated, only_second, None), "");
}

#[test]
fn what_clients_know_of_an_established_kind_does_not_change() {
    let old = created(&resource(), definition());
    let cases = |old: &Value, kind: &str| {
        assert_refused(
            &resource(),
            old,
            &[
                (
                    "/spec/names/plural",
                    json!("tabs"),
                    r#"spec.names.plural: Invalid value: "tabs": field is immutable"#,
                ),
                ("/spec/names/kind", json!("Tab"), kind),
                ("/spec/names/shortNames", json!(["c"]), ""),
            ],
        );
    };
    cases(&old, "");
    let conditions = json!([{"type": "Established", "status": "True"}]);
    cases(
        &with(&old, "/status/conditions", conditions),
        r#"spec.names.kind: Invalid value: "Tab": field is immutable"#,
    );
}

#[test]
fn a_row_shows_when_the_definition_was_made() {
    let row = row(&resource(), &definition());
    assert_eq!(
        row,
        json!(["crontabs.stable.example.com", "2026-01-02T03:04:05Z"])
    );
}

/// What is said of a definition whose `spec` is this schema.
fn wrong_spec(schema: Value) -> Vec<String> {
    let at = format!("{SCHEMA}/properties/spec");
    let mut definition = with(&definition(), &at, schema);
    let version = &mut definition["spec"]["versions"][0];
    for field in [
        "selectableFields",
        "additionalPrinterColumns",
        "subresources",
    ] {
        version.as_object_mut().unwrap().remove(field);
    }
    let said = wrong(&resource(), definition);
    let texts = said.trim_start_matches('[').trim_end_matches(']');
    let texts = texts.split(", spec.validation.openAPIV3Schema");
    let texts: Vec<&str> = texts.collect();
    texts
        .iter()
        .map(|text| text.replace("spec.validation.openAPIV3Schema", ""))
        .collect()
}

fn ruled(rule: Value) -> Value {
    json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {
        "n": {"type": "integer"},
        "list": {"type": "array", "items": {"type": "string"}},
    }})
}

#[test]
fn a_rule_must_compile() {
    let at = ".properties[spec].x-kubernetes-validations[0]";
    let cases = [
        (json!({"rule": "self.n > 0"}), None),
        (
            json!({"rule": "self.m > 0"}),
            Some((
                "rule",
                r#"{"rule":"self.m > 0"}: compilation failed: ERROR: <input>:1:5: undefined field 'm'"#,
            )),
        ),
        (
            json!({"rule": "self.n"}),
            Some((
                "rule",
                r#"{"rule":"self.n"}: cel expression must evaluate to a bool"#,
            )),
        ),
        (
            json!({"rule": "self.n >"}),
            Some((
                "rule",
                r#"{"rule":"self.n >"}: compilation failed: ERROR: <input>:1:9: Syntax error: mismatched input '<EOF>'"#,
            )),
        ),
        (
            json!({"rule": "true", "messageExpression": "1"}),
            Some((
                "messageExpression",
                r#"{"messageExpression":"1","rule":"true"}: messageExpression must evaluate to a string"#,
            )),
        ),
        (
            json!({"rule": "true", "messageExpression": "x"}),
            Some((
                "messageExpression",
                r#"{"messageExpression":"x","rule":"true"}: messageExpression compilation failed: ERROR"#,
            )),
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            Some((
                "optionalOldSelf",
                "true: may not be set if oldSelf is not used in rule",
            )),
        ),
    ];
    for (rule, expected) in cases {
        let said = wrong_spec(ruled(rule)).concat();
        match expected {
            Some((field, why)) => {
                let why = format!("{at}.{field}: Invalid value: {why}");
                assert!(said.starts_with(&why), "{said}");
            }
            None => assert_eq!(said, ""),
        }
    }
}

#[test]
fn a_rule_that_could_cost_too_much_is_refused() {
    let slow = json!({"rule": "self.list.all(a, self.list.all(b, a != b))"});
    let said = wrong_spec(ruled(slow.clone()));
    assert_eq!(
        said[0],
        ".properties[spec].x-kubernetes-validations[0].rule: Forbidden: estimated \
        rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding \
        maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    );
    assert!(said[1].starts_with(": Forbidden: x-kubernetes-validations estimated cost total"));
    let mut bounded = ruled(slow);
    bounded["properties"]["list"]["maxItems"] = json!(50);
    bounded["properties"]["list"]["items"]["maxLength"] = json!(20);
    assert_eq!(wrong_spec(bounded), [""]);
}

#[test]
fn the_old_value_is_known_only_where_items_are() {
    let list = |kind: Value| {
        let mut list = json!({"type": "array", "maxItems": 5, "items": {
            "type": "object", "required": ["k"],
            "properties": {"k": {"type": "string", "maxLength": 9}},
            "x-kubernetes-validations": [{"rule": "self.k == oldSelf.k"}]}});
        list.as_object_mut()
            .unwrap()
            .extend(kind.as_object().unwrap().clone());
        json!({"type": "object", "properties": {"list": list}})
    };
    let map = json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]});
    assert_eq!(wrong_spec(list(map)), [""]);
    let said = wrong_spec(list(json!({}))).concat();
    assert!(
        said.contains("oldSelf cannot be used on the uncorrelatable portion"),
        "{said}"
    );
}

#[test]
fn defaults_and_patterns_fit_their_schema() {
    let field = |schema: Value| wrong_spec(json!({"type": "object", "properties": {"x": schema}}));
    assert_eq!(field(json!({"type": "integer", "default": 1})), [""]);
    assert_eq!(
        field(json!({"type": "integer", "minimum": 5, "default": 1})),
        [
            ".properties[spec].properties[x].default: Invalid value: 1:  in body should be greater than \
         or equal to 5",
        ]
    );
    assert_eq!(
        field(json!({"type": "string", "pattern": "("})).concat(),
        ".properties[spec].\
        properties[x].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: \
        error parsing regexp: missing closing ): `(`"
    );
}
