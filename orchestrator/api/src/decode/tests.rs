use serde_json::json;

use super::*;
use crate::find;

fn decode(group: &str, plural: &str, body: &str, mode: FieldValidation) -> Result<Decoded, String> {
    let resource = find(group, "v1", plural).unwrap();
    resource
        .decode(body.as_bytes(), Format::Json, mode)
        .map_err(|e| e.to_string())
}

fn refused(group: &str, plural: &str, body: &str) -> String {
    decode(group, plural, body, FieldValidation::Strict).unwrap_err()
}

const STRANGE: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
    "spec": {"foo": 1, "replicas": 1, "replicas": 2, "template": {"spec": {"containers":
    [{"name": "c", "x": {"y": 1}, "image": "a", "image": "b"}]}}}}"#;

#[test]
fn strict_names_every_unknown_and_duplicate_field_in_order() {
    assert_eq!(
        refused("apps", "deployments", STRANGE),
        r#"Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.foo", duplicate field "spec.replicas", unknown field "spec.template.spec.containers[0].x", duplicate field "spec.template.spec.containers[0].image""#
    );
}

#[test]
fn warn_and_ignore_drop_unknown_fields_and_keep_the_last_duplicate() {
    let warned = decode("apps", "deployments", STRANGE, FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings.len(), 4);
    assert_eq!(warned.warnings[0], r#"unknown field "spec.foo""#);
    assert_eq!(warned.object["spec"].get("foo"), None);
    assert_eq!(warned.object["spec"]["replicas"], 2);
    let ignored = decode("apps", "deployments", STRANGE, FieldValidation::Ignore).unwrap();
    assert_eq!((ignored.object, ignored.warnings.len()), (warned.object, 0));
}

#[test]
fn a_wrong_type_is_told_as_kubernetes_tells_it() {
    let cases = [
        (
            r#"{"spec": {"replicas": "3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"metadata": {"labels": {"a": 1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"spec": {"template": {"spec": {"containers": {"name": "a"}}}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec": {"replicas": 70000000000}}"#,
            "json: cannot unmarshal number 70000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            r#"{"spec": "x"}"#,
            "json: cannot unmarshal string into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            r#"{"spec": {"template": {"spec": {"containers": [{"env": [{"value": true}]}]}}}}"#,
            "json: cannot unmarshal bool into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            r#"{"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "1x"}}}]}}}}"#,
            "unable to parse quantity's suffix",
        ),
        (
            r#"{"metadata": {"creationTimestamp": "now"}}"#,
            r#"parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006""#,
        ),
    ];
    for (body, why) in cases {
        let prefix = r#"Deployment in version "v1" cannot be handled as a Deployment: "#;
        assert_eq!(
            refused("apps", "deployments", body),
            format!("{prefix}{why}")
        );
    }
    let secret = refused("", "secrets", r#"{"data": {"a": "!!"}}"#);
    assert!(
        secret.ends_with(": illegal base64 data at input byte 0"),
        "{secret}"
    );
}

#[test]
fn nulls_are_absent_fields_and_zero_values() {
    let body = r#"{"metadata": {"name": "p", "creationTimestamp": null, "labels": {"a": null}},
        "spec": {"containers": [{"name": "c", "env": null}], "nodeName": null}, "status": null}"#;
    let decoded = decode("", "pods", body, FieldValidation::Strict).unwrap();
    assert_eq!(
        decoded.object,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "labels": {"a": ""}},
            "spec": {"containers": [{"name": "c"}]},
        })
    );
}

#[test]
fn quantities_may_be_numbers_and_become_canonical() {
    let body = r#"{"spec": {"containers": [{"name": "c", "resources":
        {"requests": {"cpu": 1, "memory": "1024Mi"}, "limits": {"cpu": 1.5}}}]}}"#;
    let decoded = decode("", "pods", body, FieldValidation::Strict).unwrap();
    assert_eq!(
        decoded.object["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1500m"}})
    );
}

#[test]
fn a_port_may_be_a_number_or_a_name() {
    let body = r#"{"spec": {"ports": [{"port": 80, "targetPort": "http"},
        {"port": 81, "targetPort": 8081}]}}"#;
    let decoded = decode("", "services", body, FieldValidation::Strict).unwrap();
    assert_eq!(decoded.object["spec"]["ports"][0]["targetPort"], "http");
    assert_eq!(decoded.object["spec"]["ports"][1]["targetPort"], 8081);
}

#[test]
fn yaml_is_decoded_like_json() {
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: y\n  x: z\n";
    let resource = find("", "v1", "configmaps").unwrap();
    let decoded = resource
        .decode(body.as_bytes(), Format::Yaml, FieldValidation::Warn)
        .unwrap();
    assert_eq!(decoded.object["data"], json!({"x": "z"}));
    assert_eq!(decoded.warnings, [r#"duplicate field "data.x""#]);
}

#[test]
fn what_an_object_says_it_is_must_fit_the_path() {
    let wrong_version = r#"{"apiVersion": "apps/v1", "kind": "Deployment"}"#;
    assert_eq!(
        refused("", "pods", wrong_version),
        "the API version in the data (apps/v1) does not match the expected API version (v1)"
    );
    let unknown = refused("", "pods", r#"{"apiVersion": "v1", "kind": "Foo"}"#);
    assert!(
        unknown.contains(r#"no kind "Foo" is registered for version "v1""#),
        "{unknown}"
    );
    let other = refused("", "pods", r#"{"apiVersion": "v1", "kind": "Service"}"#);
    assert!(
        other.starts_with(r#"Service in version "v1" cannot be handled as a Pod: "#),
        "{other}"
    );
    let absent = decode("", "pods", "{}", FieldValidation::Strict).unwrap();
    assert_eq!(absent.object["kind"], "Pod");
}

#[test]
fn what_is_no_object_is_a_bad_request() {
    for body in ["", "[]", "{", "3", r#"{"kind": 3}"#, "null", "{} {}"] {
        let resource = find("", "v1", "pods").unwrap();
        let error = resource.decode(body.as_bytes(), Format::Json, FieldValidation::Warn);
        assert_eq!(error.unwrap_err().code(), 400, "{body}");
    }
}

#[test]
fn metadata_is_stored_right_after_the_kind() {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"metadata": "x"},
        "metadata": {"name": "a"},
    });
    assert_eq!(
        String::from_utf8(to_bytes(&object)).unwrap(),
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"metadata":"x"}}"#
    );
}
