//! Valid inputs to begin with.

use std::sync::LazyLock;

use api::{FieldValidation, Resource};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The forms of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Yaml,
    Protobuf,
    DeleteOptions,
    JsonPatch,
    MergePatch,
    StrategicPatch,
    FieldSet,
    Selector,
    Quantity,
    Pattern,
    Schema,
    Rule,
    /// A CustomResourceDefinition in JSON.
    Definition,
    /// The path of a printer column.
    JsonPath,
    /// A time, a quantity, base64.
    Scalar,
    Spdy,
    WebSocket,
    /// PKCS #10 in DER.
    Request,
    /// A JWT in compact form.
    Token,
    /// A method, a space, a path with its query.
    Path,
    /// The value of `Accept`.
    Accept,
    /// The query of a list or watch.
    ListOptions,
    /// The JSON in a `continue` token.
    Continue,
    /// Headers, one a line.
    Impersonation,
    /// YAML.
    AuditPolicy,
    /// The JSON that a webhook answers with.
    WebhookAnswer,
    /// A document of version 2, or an index of version 3.
    OpenApi,
    /// RFC 7517.
    KeySet,
    /// HTML.
    Page,
    /// The query of a request for a log.
    LogOptions,
    /// A schedule, and a time zone behind a line's end.
    Cron,
    DnsQuery,
    DnsAnswer,
}

/// Inputs of that form.
pub fn of(form: Form) -> Vec<Vec<u8>> {
    let texts = |list: &[&str]| list.iter().map(|text| text.as_bytes().to_vec()).collect();
    match form {
        Form::Json => objects()
            .iter()
            .map(|it| it.to_string().into_bytes())
            .collect(),
        Form::Yaml => objects()
            .iter()
            .map(|it| yaml(it, 0).into_bytes())
            .chain([MERGES.as_bytes().to_vec()])
            .collect(),
        Form::Protobuf => vec![protobuf_namespace(), protobuf_pod()],
        Form::DeleteOptions => texts(DELETE_OPTIONS),
        Form::JsonPatch => texts(JSON_PATCHES),
        Form::MergePatch => texts(MERGE_PATCHES),
        Form::StrategicPatch => texts(STRATEGIC_PATCHES),
        Form::FieldSet => texts(FIELD_SETS),
        Form::Selector => texts(SELECTORS),
        Form::Quantity => texts(QUANTITIES),
        Form::Pattern => texts(PATTERNS),
        Form::Schema => texts(SCHEMAS),
        Form::Rule => texts(RULES),
        Form::Definition => vec![definition().to_string().into_bytes()],
        Form::JsonPath => texts(JSON_PATHS),
        Form::Scalar => texts(SCALARS),
        Form::Spdy => streams::fuzzing::spdy_seeds(),
        Form::WebSocket => streams::fuzzing::websocket_seeds(),
        Form::Request => REQUESTS.iter().map(|pem| der(pem)).collect(),
        Form::Token => tokens(),
        Form::Path => texts(PATHS),
        Form::Accept => texts(ACCEPTS),
        Form::ListOptions => texts(LIST_OPTIONS),
        Form::Continue => texts(CONTINUES),
        Form::Impersonation => texts(IMPERSONATIONS),
        Form::AuditPolicy => texts(AUDIT_POLICIES),
        Form::WebhookAnswer => texts(WEBHOOK_ANSWERS),
        Form::OpenApi => texts(OPEN_APIS),
        Form::KeySet => texts(KEY_SETS),
        Form::Page => texts(PAGES),
        Form::LogOptions => texts(LOG_OPTIONS),
        Form::Cron => texts(CRONS),
        Form::DnsQuery => messages(DNS_QUERIES),
        Form::DnsAnswer => messages(DNS_ANSWERS),
    }
}

/// Inputs that took a parser of that form more than time linear in their bytes. They are parsed as
/// they are: mutated they would only be slow.
pub fn hostile(form: Form) -> Vec<Vec<u8>> {
    if !matches!(form, Form::Json | Form::Yaml | Form::DeleteOptions) {
        return Vec::new();
    }
    let repeated = NESTED
        .iter()
        .map(|open| open.repeat(HOSTILE_BYTES / open.len()));
    let behind = TOKENS.iter().flat_map(|token| {
        let tokens = token.repeat(HOSTILE_BYTES / token.len());
        HOSTILE_DEPTHS
            .iter()
            .map(move |depth| format!("{}{tokens}", "[".repeat(*depth)))
    });
    repeated.chain(behind).map(String::into_bytes).collect()
}

/// Stored objects that patches and applies change.
pub fn stored() -> &'static [(&'static Resource, Value)] {
    static STORED: LazyLock<Vec<(&'static Resource, Value)>> = LazyLock::new(|| {
        let objects = objects().into_iter().filter_map(|object| {
            let kind = object["kind"].as_str()?;
            let resource = api::resources().iter().find(|it| *it.kind == *kind)?;
            let mut object = resource
                .canonical(object, FieldValidation::Strict)
                .ok()?
                .object;
            resource.prepare_for_create(&mut object);
            resource.default(&mut object);
            Some((&**resource, object))
        });
        objects.take(STORED_OBJECTS).collect()
    });
    &STORED
}

/// The first objects, which have lists of every sort.
const STORED_OBJECTS: usize = 3;

fn objects() -> Vec<Value> {
    let labels = json!({"app": "web"});
    let container = json!({
        "name": "web", "image": "nginx:1.7.9", "command": ["a", "b"],
        "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
        "env": [{"name": "A", "value": "b"},
                {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": 2}},
        "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5},
        "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "x"}],
        "securityContext": {"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}},
    });
    let pod = json!({
        "containers": [container], "restartPolicy": "Always", "nodeSelector": {"a": "b"},
        "volumes": [{"name": "data", "projected": {"sources": [{"configMap": {"name": "c"}}]}}],
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": "zone", "operator": "In", "values": ["x", "y"]}]}]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": labels}}],
    });
    let meta = json!({
        "name": "a", "namespace": "default", "labels": labels, "annotations": {"b": "c"},
        "finalizers": ["example.com/wait"],
    });
    let mut jobs = pod.clone();
    jobs["restartPolicy"] = json!("Never");
    let object = |api_version: &str, kind: &str, rest: Value| {
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": meta});
        for (field, value) in rest.as_object().into_iter().flatten() {
            object[field] = value.clone();
        }
        object
    };
    let template = json!({"metadata": {"labels": labels}, "spec": pod});
    vec![
        object("v1", "Pod", json!({"spec": pod})),
        object(
            "apps/v1",
            "Deployment",
            json!({"spec": {
            "replicas": 3, "selector": {"matchLabels": labels}, "template": template,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}}}}),
        ),
        object(
            "v1",
            "Service",
            json!({"spec": {"selector": labels, "type": "NodePort",
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080}]}}),
        ),
        object(
            "v1",
            "ConfigMap",
            json!({"data": {"a": "b"}, "binaryData": {"c": "AAEC"}}),
        ),
        object(
            "v1",
            "Secret",
            json!({"type": "Opaque", "stringData": {"a": "b"}, "data": {"c": "AA=="}}),
        ),
        object(
            "batch/v1",
            "CronJob",
            json!({"spec": {"schedule": "*/5 * * * *", "timeZone": "Europe/Berlin",
            "jobTemplate": {"spec": {"template": {"spec": jobs}}}}}),
        ),
        object(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"maxReplicas": 9,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 60}}}]}}),
        ),
        object(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {},
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                "ports": [{"port": 80, "endPort": 90}]}]}}),
        ),
        object(
            "policy/v1",
            "PodDisruptionBudget",
            json!({"spec": {"minAvailable": "50%",
            "selector": {"matchLabels": labels}}}),
        ),
        object(
            "rbac.authorization.k8s.io/v1",
            "Role",
            json!({"rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        ),
        object(
            "v1",
            "ResourceQuota",
            json!({"spec": {"hard": {"pods": "10", "requests.cpu": "4"},
            "scopes": ["NotBestEffort"]}}),
        ),
        object(
            "v1",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container",
            "default": {"cpu": "1"}, "max": {"cpu": "2"}}]}}),
        ),
        object(
            "admissionregistration.k8s.io/v1",
            "ValidatingAdmissionPolicy",
            json!({"spec": {"failurePolicy": "Ignore",
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"],
                "operations": ["CREATE"], "resources": ["deployments"]}]},
            "matchConditions": [{"name": "c", "expression": "request.userInfo.username != 'a'"}],
            "variables": [{"name": "n", "expression": "object.spec.replicas"}],
            "validations": [{"expression": "variables.n <= 5", "messageExpression": "'n'"}]}}),
        ),
        object(
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            json!({"webhooks": [{"name": "a.example.com", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "timeoutSeconds": 3, "reinvocationPolicy": "IfNeeded",
            "clientConfig": {"service": {"namespace": "a", "name": "b", "path": "/c", "port": 443}},
            "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"],
                "resources": ["pods/*"], "scope": "Namespaced"}],
            "namespaceSelector": {"matchExpressions": [{"key": "k", "operator": "DoesNotExist"}]},
            "matchConditions": [{"name": "c", "expression": "has(object.spec)"}]}]}),
        ),
        object(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"addressType": "IPv4", "ports": [{"name": "http", "port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]}),
        ),
    ]
}

/// A CustomResourceDefinition with everything that one may say.
pub fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "default": "a", "pattern": "^[a-z]+$", "maxLength": 20},
            "replicas": {"type": "integer", "minimum": 0, "nullable": true},
            "list": {"type": "array", "maxItems": 9, "x-kubernetes-list-type": "set",
                "items": {"type": "string", "maxLength": 9}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "either": {"x-kubernetes-int-or-string": true}},
            "x-kubernetes-validations": [{"rule": "self.name != 'b'", "messageExpression":
                "'not ' + self.name", "reason": "FieldValueInvalid", "fieldPath": ".name"}]},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"},
            "selector": {"type": "string"}}}}});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": schema},
            "selectableFields": [{"jsonPath": ".spec.name"}],
            "additionalPrinterColumns": [{"name": "N", "type": "integer", "priority": 1,
                "jsonPath": ".spec.replicas", "format": "int32", "description": "d"}],
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}}})
    };
    let mut old = version("v1beta1", false);
    old["deprecated"] = json!(true);
    old["deprecationWarning"] = json!("use v1");
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "trees.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "versions": [version("v1", true), old],
            "names": {"plural": "trees", "singular": "tree", "kind": "Tree", "listKind": "TreeList",
                "shortNames": ["tr"], "categories": ["all"]},
            "conversion": {"strategy": "None"},
        },
    })
}

/// YAML in block style, with everything that is not a list or an object in JSON.
fn yaml(value: &Value, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let below = |value: &Value| match value {
        Value::Object(map) if !map.is_empty() => format!("\n{}", yaml(value, depth + 1)),
        Value::Array(list) if !list.is_empty() => format!("\n{}", yaml(value, depth + 1)),
        scalar => format!(" {scalar}\n"),
    };
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| format!("{indent}{key:?}:{}", below(value)))
            .collect(),
        Value::Array(list) => list
            .iter()
            .map(|it| format!("{indent}-{}", below(it)))
            .collect(),
        scalar => format!("{indent}{scalar}\n"),
    }
}

/// A field of a message: its number, and bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        field.push(length as u8 | 0x80);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend_from_slice(bytes);
    field
}

fn envelope(kind: &str, message: &[u8]) -> Vec<u8> {
    let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &meta), field(2, message)].concat()
}

fn protobuf_namespace() -> Vec<u8> {
    envelope("Namespace", &field(1, &field(1, b"protobuf")))
}

/// metadata.name, spec.containers[0].name and image.
fn protobuf_pod() -> Vec<u8> {
    let container = [field(1, b"web"), field(2, b"nginx")].concat();
    let spec = field(2, &container);
    envelope(
        "Pod",
        &[field(1, &field(1, b"a")), field(2, &spec)].concat(),
    )
}

/// The length of a hostile input.
const HOSTILE_BYTES: usize = 256 * 1024;
/// What nests when it is repeated.
const NESTED: &[&str] = &["[", r#"{"a":"#, "{a: ", "[a, ", "- ", "? ", "[\n"];
/// What does not, but had to be compared with every level above it …
const TOKENS: &[&str] = &["a,", "\"a\": 1, ", "[],"];
/// … in lists so deep: within the limit, and far beyond it.
const HOSTILE_DEPTHS: &[usize] = &[90, 4_000];

const DELETE_OPTIONS: &[&str] = &[
    r#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"propagationPolicy":"Foreground"}"#,
    r#"{"preconditions":{"uid":"00000000-0000-4000-8000-000000000001","resourceVersion":"1"},"dryRun":["All"]}"#,
];
const JSON_PATCHES: &[&str] = &[
    r#"[{"op":"add","path":"/metadata/labels/a","value":"b"},{"op":"remove","path":"/metadata/annotations"}]"#,
    r#"[{"op":"test","path":"/spec/replicas","value":3},{"op":"replace","path":"/spec/replicas","value":4}]"#,
    r#"[{"op":"copy","from":"/metadata/labels","path":"/metadata/annotations"},
        {"op":"move","from":"/metadata/annotations/app","path":"/metadata/labels/x~1y"}]"#,
    r#"[{"op":"add","path":"/spec/containers/-","value":{"name":"b","image":"c"}}]"#,
];
const MERGE_PATCHES: &[&str] = &[
    r#"{"metadata":{"labels":{"a":null,"b":"c"}},"spec":{"replicas":4}}"#,
    r#"{"spec":{"template":{"spec":{"containers":[{"name":"web","image":"x"}]}}}}"#,
    "{\"data\":null}",
];
const STRATEGIC_PATCHES: &[&str] = &[
    r#"{"spec":{"containers":[{"name":"web","image":"x","env":[{"name":"A","$patch":"delete"}]}]}}"#,
    r#"{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"web"}],
        "containers":[{"name":"b","image":"c"}]}}}}"#,
    r#"{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}"#,
    r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["example.com/wait"]}}"#,
    r#"{"spec":{"volumes":[{"$patch":"replace"},{"name":"n","emptyDir":{}}]}}"#,
];
const FIELD_SETS: &[&str] = &[
    r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}},"f:finalizers":{"v:\"example.com/wait\"":{}}},
        "f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{},
        "f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{}}}}}}}"#,
    r#"{"f:spec":{"f:template":{"f:spec":{"f:containers":{"i:0":{"f:command":{"v:\"a\"":{}}}}}}}}"#,
    "{}",
];
const SELECTORS: &[&str] = &[
    "app=web",
    "app in (a, b),!gone,tier notin (x),env!=prod,x==y,z",
    "metadata.name=a,status.phase!=Running",
    "example.com/name=a\\,b\\=c",
    "cpu>1,cpu<9",
    "",
];
const QUANTITIES: &[&str] = &[
    "1",
    "100m",
    "1.5Gi",
    "-2e3",
    "12E6",
    ".5",
    "1n",
    "9223372036854775807",
    "0.000000001k",
    "+4Ei",
];
const PATTERNS: &[&str] = &[
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    "(a|b)+c{2,3}",
    "(?P<name>\\w+)\\s[[:digit:]]*",
    "\\p{Greek}|[^\\x00-\\x7f]",
];
const SCHEMAS: &[&str] = &[
    r#"{"type":"object","properties":{"spec":{"type":"object","required":["name"],"properties":{
        "name":{"type":"string","pattern":"^[a-z]+$","maxLength":63,"default":"a"},
        "replicas":{"type":"integer","minimum":0,"maximum":10,"multipleOf":2},
        "mode":{"type":"string","enum":["a","b"]},
        "ports":{"type":"array","maxItems":5,"x-kubernetes-list-type":"map",
            "x-kubernetes-list-map-keys":["name"],
            "items":{"type":"object","properties":{"name":{"type":"string"}}}},
        "any":{"x-kubernetes-preserve-unknown-fields":true},
        "either":{"x-kubernetes-int-or-string":true}}}}}"#,
    r#"{"type":"object","properties":{"a":{"oneOf":[{"type":"string"},{"minimum":1}],"not":{"enum":[3]},
        "nullable":true,"format":"date-time"}},"additionalProperties":{"type":"boolean"}}"#,
];
const RULES: &[&str] = &[
    "self.a == 'b' && self.n > 3",
    "self.l.all(x, x.size() < 4) || has(self.m)",
    "oldSelf.n < self.n",
    "self.a.matches('^[a-z]+$') && !self.a.startsWith('x')",
    "self.l.map(x, x + 'a').exists(y, y == 'xa')",
    "self.l.filter(x, x != '').size() in [1, 2, 3]",
    "quantity('1Gi').isGreaterThan(quantity('1Mi'))",
    "duration('1h') > duration('2m') && timestamp('2026-01-02T03:04:05Z').getFullYear() == 2026",
    "url('https://a.example:80/b?c=d').getHost() == 'a.example:80'",
    "{'a': 1}['a'] == 1 ? true : false",
    "self.m.all(k, self.m[k] > 1.0 && k.upperAscii() == 'K')",
    "'%s is %d'.format([self.a, self.n]) != r\"raw\\n\" + 'a'.split(',').join('-')",
    "ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3')",
    "self.l.sum() == 0 || optional.of(1).orValue(2) == 1",
];

/// Anchors, aliases and merge keys.
const MERGES: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: &m {name: a, labels: &l {app: web, b: c}}\n\
data:\n  <<: [*l, {d: e}]\n  <<: &n {f: g, <<: *l}\n  app: h\nimmutable: &x false\n";

const PATHS: &[&str] = &[
    "GET /api/v1/namespaces/a/pods?limit=500&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ&labelSelector=a%3Db",
    "GET /apis/apps/v1/watch/deployments?resourceVersion=7&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
    "DELETE /api/v1/namespaces/a/configmaps?dryRun=All&propagationPolicy=Foreground&gracePeriodSeconds=0",
    "PATCH /api/v1/nodes/n/status?fieldManager=m&force=true&fieldValidation=Strict",
    "GET /api/v1/namespaces/a/services/https:b:c/proxy/d/%2e%2e/e%2Ff/?g=h",
    "POST /api/v1/namespaces/a/pods/b/exec?command=sh&command=-c&stdin=1&tty=true&container=c",
    "PUT /apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
];
const ACCEPTS: &[&str] = &[
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
    "application/vnd.kubernetes.protobuf;q=0.9, application/yaml ; q=1, */*;q=0.1",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
];
const LIST_OPTIONS: &[&str] = &[
    "labelSelector=a%3Db%2Cc+in+%28d%29&fieldSelector=metadata.name%3Da&limit=500",
    "watch=true&resourceVersion=7&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&allowWatchBookmarks=1",
    "resourceVersion=0&resourceVersionMatch=Exact&timeoutSeconds=30&includeObject=Object",
    "dryRun=All&gracePeriodSeconds=0&propagationPolicy=Orphan&orphanDependents=false&pretty=true",
    "fieldManager=m&force=true&fieldValidation=Strict&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ",
];
const CONTINUES: &[&str] = &[
    r#"{"v":"meta.k8s.io/v1","rv":7,"start":"/registry/pods/default/a\u0000"}"#,
    r#"{"v":"meta.k8s.io/v1","rv":-1,"start":""}"#,
];
const IMPERSONATIONS: &[&str] = &[
    "impersonate-user: system:serviceaccount:default:web\nimpersonate-group: a\nimpersonate-group: b",
    "impersonate-user: ann\nimpersonate-uid: 7\nimpersonate-extra-example.com%2fscopes: c",
    "x-remote-user: ann\nx-remote-group: a",
];
const AUDIT_POLICIES: &[&str] = &[
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
- level: None\n  users: [a]\n  verbs: [watch]\n  resources:\n  - group: apps\n    resources: [deployments/*]\n\
- level: Metadata\n  nonResourceURLs: [/healthz*]\n- level: RequestResponse\n  omitManagedFields: true\n",
    r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitManagedFields":true,"rules":[{"level":
        "Request","userGroups":["g"],"namespaces":["n"],"resources":[{"resourceNames":["x"]}]}]}"#,
];
/// Answers to an AdmissionReview, a ConversionReview and a TokenReview.
const WEBHOOK_ANSWERS: &[&str] = &[
    r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u","allowed":true,
        "patchType":"JSONPatch","patch":"W3sib3AiOiJhZGQiLCJwYXRoIjoiL2EiLCJ2YWx1ZSI6MX1d",
        "warnings":["w"],"auditAnnotations":{"k":"v"}}}"#,
    r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u","allowed":false,
        "status":{"code":403,"message":"no","reason":"Forbidden","details":{"causes":[{"field":"a"}]}}}}"#,
    r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","response":{"uid":"u",
        "result":{"status":"Success"},"convertedObjects":[{"apiVersion":"example.com/v2","kind":"Tree",
        "metadata":{"name":"a","uid":"1","labels":{"b":"c"}},"spec":{}}]}}"#,
    r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","status":{"authenticated":true,
        "user":{"username":"ann","uid":"7","groups":["g"],"extra":{"Scopes":["a"]}},"audiences":["k"]}}"#,
];
const OPEN_APIS: &[&str] = &[
    r##"{"swagger":"2.0","parameters":{"p":{"name":"pretty","in":"query","type":"string"}},"paths":{
        "/apis/example.com/v1/trees":{"get":{"tags":["t"],"parameters":[{"$ref":"#/parameters/p"}],
        "responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/Tree"}}},
        "x-kubernetes-action":"list"}}},"definitions":{"Tree":{"type":"object","required":["a"],"properties":{
        "metadata":{"$ref":"#/definitions/Meta"},"a":{"type":"array","items":{"type":"string"},"default":[]},
        "b":{"additionalProperties":{"$ref":"#/definitions/Tree"}},"c":{"enum":["d"]}}},
        "Meta":{"type":"object","properties":{"name":{"type":"integer"}}}}}"##,
    r#"{"paths":{"apis/example.com/v1":{"serverRelativeURL":"/openapi/v3/apis/example.com/v1?hash=07AF"}}}"#,
];
const KEY_SETS: &[&str] = &[
    r#"{"keys":[{"kty":"EC","crv":"P-256","use":"sig","kid":"a","alg":"ES256",
        "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
        {"kty":"RSA","e":"AQAB","kid":"b","n":"sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1Wl"}]}"#,
];
const PAGES: &[&str] = &[
    "<!DOCTYPE html><HTML><head><link rel=x href=/s.css><script src=\"/a.js\">if (a < b) '<a href=\"/n\">'\
</script><title>/t</title></head><body><!-- <a href=\"/no\"> --><a class='b' href = '/x?a=1&amp;b=2'>1 < 2</a>\
<img alt=\"a > b\" src=\"/i.png\"/><form action=//localhost:8001/f><textarea></a></textarea>\u{e9}",
    "<a href=\"http://localhost:8001/a\" ping=/p><style>a{}</style><svg><image href='/i'/></svg>",
];
const JSON_PATHS: &[&str] = &[
    ".status.conditions[?(@.type==\"Ready\")].status",
    ".metadata.labels['b\\.example/c']",
    ".status.deep[*][0:2:1][-1]",
    "..n",
    ".status.conditions[?(@.n>=2)]['type','n']",
    "{.metadata.name}",
];
const SCALARS: &[&str] = &[
    "2026-01-02T03:04:05.000006Z",
    "2026-01-02t03:04:60+02:00",
    "-009999-01-01T00:00:00Z",
    "AAEC/w==",
    "YWJj\nZGVm",
    "1.5Gi",
    "-.5e-3",
];
const LOG_OPTIONS: &[&str] = &[
    "container=a&follow=true&tailLines=10&timestamps=true&sinceTime=2026-01-02T03%3A04%3A05Z",
    "previous=true&limitBytes=100&sinceSeconds=60",
    "stream=Stderr",
];
const CRONS: &[&str] = &[
    "*/5 * * * *\nEurope/Berlin",
    "0 0 1-7,15 JAN-DEC/2 MON\nUTC",
    "@hourly",
    "30 2 29 2 ?\nAmerica/New_York",
    "TZ=UTC 1 2 3 4 5",
];

/// Requests of the tests of `api`, with groups and with names.
const REQUESTS: [&str; 3] = [
    include_str!("../../orchestrator/api/src/kinds/certificates/testdata/jane.csr"),
    include_str!("../../orchestrator/api/src/kinds/certificates/testdata/serving.csr"),
    include_str!("../../orchestrator/api/src/kinds/certificates/testdata/masters.csr"),
];

/// The DER in a PEM text of one block.
fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let text: String = lines.collect();
    STANDARD.decode(text).unwrap_or_default()
}

/// A PEM text of one block.
pub fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
}

fn tokens() -> Vec<Vec<u8>> {
    let token = |header: Value, claims: Value| {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2lnbmF0dXJl", part(header), part(claims)).into_bytes()
    };
    let claims = json!({"iss": "https://issuer.example", "aud": ["kubernetes"], "sub": "ann",
        "exp": 4_000_000_000_i64, "nbf": 0, "groups": ["dev"], "email_verified": true, "jti": "7"});
    vec![
        token(json!({"alg": "RS256", "kid": "one", "typ": "JWT"}), claims),
        token(
            json!({"alg": "ES256"}),
            json!({"iss": "", "exp": 1.5, "groups": "dev"}),
        ),
    ]
}

/// Messages in hexadecimal digits: a question for a Service's address with EDNS, one for a port, one for
/// an address's name.
const DNS_QUERIES: &[&str] = &[
    "123401000001000000000001037765620473686f7003737663\
     07636c7573746572056c6f63616c0000010001000029100000000000000c000a00080102030405060708",
    "000101000001000000000000055f68747470045f746370037765620473686f7003737663\
     07636c7573746572056c6f63616c0000210001",
    "00020120000100000000000002313002393602313002303107696e2d61646472046172706100000c0001",
];

/// Answers for `a.example`: an address behind an alias with its name compressed, and a denial.
const DNS_ANSWERS: &[&str] = &[
    "0001818000010002000000000161076578616d706c650000010001\
     c00c000500010000003c00040162c00ec027000100010000003c0004c0000201",
    "0001818300010000000100000161076578616d706c650000010001\
     c00e000600010000003c001e026e73c00e04686f7374c00e0000000100000e10000003840009 3a800000003c",
];

/// The bytes of messages.
fn messages(digits: &[&str]) -> Vec<Vec<u8>> {
    let of = |digits: &&str| {
        let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.chunks_exact(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        pairs.filter_map(byte).collect()
    };
    digits.iter().map(of).collect()
}
