//! Admission policies over HTTP: what is refused, warned of, and changed.

use super::*;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const MUTATING_BINDINGS: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";

fn for_config_maps(operations: &[&str]) -> Value {
    json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": operations,
        "resources": ["configmaps"]}]})
}

fn policy(name: &str, more: Value) -> Value {
    let mut spec = json!({"matchConstraints": for_config_maps(&["CREATE", "UPDATE", "DELETE"])});
    let more = more.as_object().expect("an object").clone();
    spec.as_object_mut().expect("an object").extend(more);
    json!({"metadata": {"name": name}, "spec": spec})
}

fn binding(policy: &str, more: Value) -> Value {
    let mut spec = json!({"policyName": policy, "validationActions": ["Deny"]});
    let more = more.as_object().expect("an object").clone();
    spec.as_object_mut().expect("an object").extend(more);
    json!({"metadata": {"name": format!("{policy}-binding")}, "spec": spec})
}

impl Cluster {
    async fn policed(validations: Value, of_binding: Value) -> Self {
        let cluster = Self::start().await;
        let policy = policy("p", json!({"validations": validations}));
        cluster.post(POLICIES, policy).await.expect(201);
        cluster
            .post(BINDINGS, binding("p", of_binding))
            .await
            .expect(201);
        cluster
    }
}

#[tokio::test]
async fn a_policy_refuses_what_it_does_not_allow() {
    let rule = json!([{"expression": "object == null || object.data.a != 'b'", "message": "no b"}]);
    let cluster = Cluster::policed(rule, json!({})).await;
    let refused = cluster.post(CONFIG_MAPS, config_map("m")).await;
    assert_eq!(
        refused.message(),
        "configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p-binding' \
         denied request: no b"
    );
    assert_eq!(refused.body["reason"], "Invalid");
    refused.expect(422);
    let mut other = config_map("m");
    other["data"]["a"] = json!("c");
    cluster.post(CONFIG_MAPS, other).await.expect(201);
    let path = format!("{CONFIG_MAPS}/m");
    cluster
        .merge(&path, json!({"data": {"a": "b"}}))
        .await
        .expect(422);
    cluster.delete(&path).await.expect(200);
    cluster.post(PODS, pod("p")).await.expect(201);
}

#[tokio::test]
async fn a_policy_is_heard_of_at_once_and_forgotten_at_once() {
    let cluster = Cluster::policed(
        json!([{"expression": "false", "reason": "Forbidden"}]),
        json!({}),
    )
    .await;
    cluster.post(CONFIG_MAPS, config_map("m")).await.expect(403);
    let change = json!({"spec": {"validations": [{"expression": "true"}]}});
    cluster
        .merge(&format!("{POLICIES}/p"), change)
        .await
        .expect(200);
    cluster.post(CONFIG_MAPS, config_map("m")).await.expect(201);
    let change = json!({"spec": {"validations": [{"expression": "false"}]}});
    cluster
        .merge(&format!("{POLICIES}/p"), change)
        .await
        .expect(200);
    cluster.post(CONFIG_MAPS, config_map("n")).await.expect(422);
    cluster
        .delete(&format!("{BINDINGS}/p-binding"))
        .await
        .expect(200);
    cluster.post(CONFIG_MAPS, config_map("n")).await.expect(201);
}

#[tokio::test]
async fn a_policy_may_only_warn() {
    let rule =
        json!([{"expression": "false", "messageExpression": "'about ' + object.metadata.name"}]);
    let cluster = Cluster::policed(rule, json!({"validationActions": ["Warn", "Audit"]})).await;
    let answer = cluster.post(CONFIG_MAPS, config_map("m")).await;
    let warning = answer
        .headers
        .get("warning")
        .expect("a warning")
        .to_str()
        .expect("text");
    assert_eq!(
        warning,
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-binding': \
         about m\""
    );
    answer.expect(201);
}

#[tokio::test]
async fn a_binding_brings_parameters() {
    let cluster = Cluster::start().await;
    let policy = policy(
        "p",
        json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConditions": [{"name": "others", "expression": "object.metadata.name != params.metadata.name"}],
            "validations": [{"expression": "object.data.a == params.data.wanted"}],
        }),
    );
    cluster.post(POLICIES, policy).await.expect(201);
    let params =
        json!({"name": "params", "namespace": "default", "parameterNotFoundAction": "Deny"});
    cluster
        .post(BINDINGS, binding("p", json!({"paramRef": params})))
        .await
        .expect(201);
    let refused = cluster.post(CONFIG_MAPS, config_map("m")).await;
    assert!(
        refused.message().ends_with(
            "failed to configure binding: no params found for policy binding with `Deny` \
         parameterNotFoundAction"
        ),
        "{}",
        refused.message()
    );
    let change = json!({"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}});
    cluster
        .merge(&format!("{BINDINGS}/p-binding"), change)
        .await
        .expect(200);
    let params = json!({"metadata": {"name": "params"}, "data": {"wanted": "b"}});
    cluster.post(CONFIG_MAPS, params).await.expect(201);
    cluster.post(CONFIG_MAPS, config_map("m")).await.expect(201);
    let change = json!({"data": {"wanted": "c"}});
    cluster
        .merge(&format!("{CONFIG_MAPS}/params"), change)
        .await
        .expect(200);
    cluster.post(CONFIG_MAPS, config_map("n")).await.expect(422);
}

#[tokio::test]
async fn selectors_and_namespaces_narrow_a_policy() {
    let only = json!({"matchResources": {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}});
    let cluster = Cluster::policed(json!([{"expression": "false"}]), only).await;
    cluster.post(CONFIG_MAPS, config_map("m")).await.expect(201);
    let elsewhere = "/api/v1/namespaces/kube-system/configmaps";
    cluster.post(elsewhere, config_map("m")).await.expect(422);
}

#[tokio::test]
async fn an_expression_that_does_not_compile_is_refused_when_it_is_written() {
    let cluster = Cluster::start().await;
    let cases = [
        (
            json!({"validations": [{"expression": "object.a +"}]}),
            "spec.validations[0].expression: Invalid value: \"object.a +\": compilation failed: ERROR: <input>:1:11: Syntax error",
        ),
        (
            json!({"validations": [{"expression": "1"}]}),
            "spec.validations[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
        ),
        (
            json!({"validations": [{"expression": "true", "messageExpression": "nobody"}]}),
            "spec.validations[0].messageExpression: Invalid value: \"nobody\": compilation failed",
        ),
        (
            json!({"variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}], "validations": [{"expression": "variables.b == 1"}]}),
            "spec.variables[0].expression: Invalid value: \"variables.b\": compilation failed: ERROR: <input>:1:10: undefined field 'b'",
        ),
        (
            json!({"matchConditions": [{"name": "c", "expression": "params.a"}], "validations": [{"expression": "true"}]}),
            "spec.matchConditions[0].expression: Invalid value: \"params.a\": compilation failed",
        ),
    ];
    for (spec, why) in cases {
        let refused = cluster.post(POLICIES, policy("p", spec)).await;
        assert!(refused.message().contains(why), "{}", refused.message());
        refused.expect(422);
    }
}

#[tokio::test]
async fn a_policy_changes_what_it_is_for() {
    let cluster = Cluster::start().await;
    let mutations = json!([
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{labels: {'by': request.userInfo.username}}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "has(object.data.x) ? [] : [JSONPatch{op: 'add', path: '/data/x', value: 'y'}]"}},
    ]);
    let mut made = policy(
        "p",
        json!({"mutations": mutations, "reinvocationPolicy": "IfNeeded"}),
    );
    made["spec"]["matchConstraints"] = for_config_maps(&["CREATE"]);
    cluster.post(MUTATING, made).await.expect(201);
    let mut bound = binding("p", json!({}));
    bound["spec"]
        .as_object_mut()
        .expect("an object")
        .remove("validationActions");
    cluster.post(MUTATING_BINDINGS, bound).await.expect(201);
    let map = cluster.post(CONFIG_MAPS, config_map("m")).await.expect(201);
    assert_eq!(map["metadata"]["labels"]["by"], "test");
    assert_eq!(map["data"], json!({"a": "b", "x": "y"}));
    let change = json!({"spec": {"mutations": [{"patchType": "JSONPatch", "jsonPatch": {
        "expression": "[JSONPatch{op: 'remove', path: '/nothing'}]"}}]}});
    cluster
        .merge(&format!("{MUTATING}/p"), change)
        .await
        .expect(200);
    let refused = cluster.post(CONFIG_MAPS, config_map("n")).await;
    assert!(
        refused
            .message()
            .starts_with("policy 'p' with binding 'p-binding' denied request: JSON Patch: "),
        "{}",
        refused.message()
    );
    refused.expect(403);
}
