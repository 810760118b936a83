//! Policies as they come from a store, asked about deployments.

use serde_json::json;

use super::*;
use crate::cel::{Authorizer, Question};

fn policy(spec: Value) -> Policy {
    let mut whole = json!({"matchConstraints": {"resourceRules": [{
        "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["deployments"], "scope": "*"}]}});
    whole
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    let policy = Policy::of(&json!({"metadata": {"name": "p"}, "spec": whole}));
    assert_eq!(policy.broken, None);
    policy
}

fn deployment(replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n", "labels": {"a": "b"}},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [
            {"name": "c", "image": "i"}]}}}})
}

struct Only(&'static str);

impl Authorizer for Only {
    fn check(&self, question: &Question) -> crate::cel::Decision {
        crate::cel::Decision {
            allowed: question.verb == self.0 && question.resource == "deployments",
            ..Default::default()
        }
    }
}

fn request() -> Value {
    json!({"operation": "CREATE", "name": "d", "namespace": "n", "dryRun": false,
        "userInfo": {"username": "u", "groups": ["g"]},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
        "kind": {"group": "apps", "version": "v1", "kind": "Deployment"}})
}

fn asked(policy: &Policy, object: &Value, params: Option<&Value>) -> Verdict {
    let (request, namespace) = (
        request(),
        json!({"metadata": {"name": "n", "labels": {"env": "prod"}}}),
    );
    policy.validate(&Input {
        object: Some(object),
        old: None,
        request: &request,
        namespace: Some(&namespace),
        params,
        authorizer: Some(&Only("scale")),
    })
}

fn refusals(spec: Value, replicas: i64) -> Vec<String> {
    let verdict = asked(
        &policy(spec),
        &deployment(replicas),
        Some(&json!({"max": 3})),
    );
    verdict
        .refusals
        .into_iter()
        .map(|d| format!("{}: {}", d.reason, d.message))
        .collect()
}

#[test]
fn a_validation_that_does_not_hold_refuses_with_its_message() {
    let none: Vec<String> = Vec::new();
    let spec = |more: Value| {
        let mut validation = json!({"expression": "variables.n <= params.max"});
        validation
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [{"name": "n", "expression": "object.spec.replicas"}],
            "validations": [validation]})
    };
    assert_eq!(refusals(spec(json!({})), 3), none);
    for (more, expected) in [
        (
            json!({}),
            "Invalid: failed expression: variables.n <= params.max",
        ),
        (
            json!({"message": " too many ", "reason": "Forbidden"}),
            "Forbidden: too many",
        ),
        (
            json!({"messageExpression": "'%d is more than %d'.format([variables.n, params.max])"}),
            "Invalid: 4 is more than 3",
        ),
        (
            json!({"messageExpression": "string(object.nothing)", "message": "m"}),
            "Invalid: m",
        ),
    ] {
        assert_eq!(refusals(spec(more), 4), [expected]);
    }
}

#[test]
fn expressions_see_the_request_its_namespace_and_what_the_client_may() {
    for expression in [
        "request.operation == 'CREATE' && request.userInfo.groups.exists(g, g == 'g')",
        "namespaceObject.metadata.labels['env'] == 'prod' && oldObject == null",
        "authorizer.group('apps').resource('deployments').namespace('n').check('scale').allowed()",
        "authorizer.requestResource.check('scale').allowed()",
        "!authorizer.path('/healthz').check('get').allowed()",
        "object.metadata.name == request.name && !has(object.metadata.finalizers)",
        "object.spec.template.spec.containers.all(c, c.image.matches('^i'))",
    ] {
        let spec = json!({"validations": [{"expression": expression}]});
        assert_eq!(refusals(spec, 1), Vec::<String>::new(), "{expression}");
    }
}

#[test]
fn an_error_refuses_unless_the_policy_fails_open() {
    let spec = |fails: &str| {
        json!({"failurePolicy": fails, "validations": [
        {"expression": "object.spec.nothing == 1"}]})
    };
    assert_eq!(
        refusals(spec("Fail"), 1),
        [": expression 'object.spec.nothing == 1' resulted in error: no such key: nothing",]
    );
    assert_eq!(refusals(spec("Ignore"), 1), Vec::<String>::new());
    let broken = Policy::of(&json!({"spec": {"validations": [{"expression": "nobody"}]}}));
    let verdict = asked(&broken, &deployment(1), None);
    assert!(
        verdict.refusals[0]
            .message
            .starts_with("compilation failed: "),
        "{verdict:?}"
    );
}

#[test]
fn match_conditions_decide_whether_a_policy_is_asked() {
    let spec = |condition: &str| {
        json!({
        "matchConditions": [{"name": "c", "expression": condition}],
        "validations": [{"expression": "false", "message": "no"}]})
    };
    assert_eq!(
        refusals(spec("object.metadata.name == 'd'"), 1),
        ["Invalid: no"]
    );
    assert_eq!(
        refusals(spec("request.userInfo.username != 'u'"), 1),
        Vec::<String>::new()
    );
    assert_eq!(
        refusals(spec("object.nothing == 1"), 1),
        [": expression 'c' resulted in error: no such key: nothing",]
    );
    let said = Conditions::compile(&json!([{"name": "c", "expression": "variables.x"}]), false);
    assert!(
        said.unwrap_err()
            .contains("undeclared reference to 'variables'")
    );
}

#[test]
fn a_policy_that_costs_too_much_ends_early() {
    let list: Vec<i64> = (0..300).collect();
    let object = json!({"metadata": {}, "list": list});
    let slow = "object.list.all(a, object.list.all(b, object.list.all(c, true)))";
    let spec = json!({"validations": vec![json!({"expression": slow}); 20]});
    let began = std::time::Instant::now();
    let refusals = asked(&policy(spec), &object, None).refusals;
    assert!(
        refusals
            .last()
            .unwrap()
            .message
            .contains("running out of cost budget")
    );
    assert!(began.elapsed() < std::time::Duration::from_secs(60));
}

#[test]
fn constraints_are_rules_and_selectors() {
    let constraints = |more: Value| {
        let mut given = json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE"], "resources": ["deployments", "*/status"], "scope": "Namespaced"}]});
        given
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        Constraints::of(&given)
    };
    let request = Request {
        operation: "CREATE",
        group: "apps",
        version: "v1",
        plural: "deployments",
        subresource: "",
        name: "d",
        cluster_scoped: false,
    };
    let matches =
        |more: Value, request: Request<'_>| constraints(more).match_rules([request].into_iter());
    assert!(matches(json!({}), request));
    assert!(matches(
        json!({}),
        Request {
            plural: "x",
            subresource: "status",
            ..request
        }
    ));
    assert!(!matches(
        json!({}),
        Request {
            subresource: "scale",
            ..request
        }
    ));
    assert!(!matches(
        json!({}),
        Request {
            operation: "DELETE",
            ..request
        }
    ));
    assert!(!matches(
        json!({}),
        Request {
            cluster_scoped: true,
            ..request
        }
    ));
    let excluded = |name: &str| {
        json!({"excludeResourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"],
        "operations": ["*"], "resources": ["*"], "resourceNames": [name]}]})
    };
    assert!(matches(excluded("e"), request) && !matches(excluded("d"), request));
    let labelled = constraints(json!({"objectSelector": {"matchLabels": {"a": "b"}}}));
    assert!(labelled.select_object(Some(&deployment(1)), None));
    assert!(!labelled.select_object(Some(&json!({"metadata": {}})), None));
}

#[test]
fn a_mutation_applies_a_part_or_a_patch() {
    let resource = crate::find("apps", "v1", "deployments").unwrap();
    let mutated = |mutations: Value| {
        let (request, object) = (request(), deployment(1));
        policy(json!({"mutations": mutations})).mutate(
            resource,
            &object,
            &Input {
                object: Some(&object),
                old: None,
                request: &request,
                namespace: None,
                params: None,
                authorizer: None,
            },
        )
    };
    let apply = |expression: &str| {
        json!([{"patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": expression}}])
    };
    let patch = |expression: &str| json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]);
    let Mutated::Object(object) = mutated(apply(
        "Object{metadata: Object.metadata{labels: {'x': 'y'}}, spec: Object.spec{template: \
         Object.spec.template{spec: Object.spec.template.spec{containers: \
         [Object.spec.template.spec.containers{name: 'side', image: 's'}]}}}}",
    )) else {
        panic!()
    };
    assert_eq!(object["metadata"]["labels"], json!({"a": "b", "x": "y"}));
    let containers = object["spec"]["template"]["spec"]["containers"]
        .as_array()
        .unwrap();
    assert_eq!(containers.len(), 2);
    let Mutated::Object(object) = mutated(patch(
        "[JSONPatch{op: 'test', path: '/spec/replicas', value: object.spec.replicas}, \
         JSONPatch{op: 'replace', path: '/spec/replicas', value: object.spec.replicas + 4}, \
         JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'c'}]",
    )) else {
        panic!()
    };
    assert_eq!(object["spec"]["replicas"], 5);
    assert_eq!(object["metadata"]["labels"]["a/b"], "c");
    let unchanged = mutated(patch(
        "[JSONPatch{op: 'test', path: '/spec/replicas', value: 9}]",
    ));
    assert_eq!(unchanged, Mutated::Object(deployment(1)));
    let Mutated::Failed(why) = mutated(apply("Object{metadata: Object.metadata{name: 'other'}}"))
    else {
        panic!()
    };
    assert_eq!(why, "metadata.name must not be changed");
}
