//! The operations of a group and version, for both versions of OpenAPI. Pure.

use serde_json::{Map, Value, json};

use crate::discovery::prefix;
use crate::registry::GroupVersion;
use crate::rest::update::patch_types;
use api::{Resource, Subresource};

/// Which OpenAPI is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

/// Every path of a version of a group; schemas that are not in `schemas` are not referred to.
pub fn of(
    dialect: Dialect,
    version: &GroupVersion,
    schemas: &Map<String, Value>,
) -> Map<String, Value> {
    let writer = Writer { dialect, schemas };
    let root = format!("/{}", prefix(&version.group, &version.version));
    let mut paths = Map::new();
    for resource in version.resources() {
        writer.resource(&root, resource, &mut paths);
    }
    paths
}

struct Writer<'a> {
    dialect: Dialect,
    schemas: &'a Map<String, Value>,
}

/// One operation, before it is written in a dialect.
struct Operation<'a> {
    /// Kubernetes' word for what it does: `list`, `post`, `patch`…
    action: &'static str,
    id: String,
    resource: &'a Resource,
    /// Definition names.
    takes: Option<String>,
    gives: String,
    parameters: &'static [Parameter],
}

/// Name, type, description.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', the output is indented.");
const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "'All' checks the request and writes nothing.",
);
const FIELD_MANAGER: Parameter = (
    "fieldManager",
    "string",
    "The name of whoever makes the change.",
);
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What happens to unknown and duplicate fields: Ignore, Warn or Strict.",
);
const FORCE: Parameter = ("force", "boolean", "Only for server-side apply.");
const LABELS: Parameter = (
    "labelSelector",
    "string",
    "Selects objects by their labels.",
);
const FIELDS: Parameter = (
    "fieldSelector",
    "string",
    "Selects objects by their fields.",
);
const LIMIT: Parameter = (
    "limit",
    "integer",
    "The largest number of objects in one answer.",
);
const CONTINUE: Parameter = ("continue", "string", "Where the last answer ended.");
const WATCH: Parameter = ("watch", "boolean", "Changes instead of a list.");
const BOOKMARKS: Parameter = (
    "allowWatchBookmarks",
    "boolean",
    "Quiet watches tell progress.",
);
const INITIAL: Parameter = (
    "sendInitialEvents",
    "boolean",
    "A watch begins with what there is.",
);
const TIMEOUT: Parameter = ("timeoutSeconds", "integer", "How long a watch lasts.");
const VERSION: Parameter = (
    "resourceVersion",
    "string",
    "The revision to show or to go on from.",
);
const MATCH: Parameter = (
    "resourceVersionMatch",
    "string",
    "How resourceVersion is meant: Exact or NotOlderThan.",
);
const GRACE: Parameter = (
    "gracePeriodSeconds",
    "integer",
    "How long the object may take to end.",
);
const ORPHANS: Parameter = (
    "orphanDependents",
    "boolean",
    "Deprecated: use propagationPolicy.",
);
const PROPAGATION: Parameter = (
    "propagationPolicy",
    "string",
    "What owned objects do: Orphan, Background or Foreground.",
);

const READ: &[Parameter] = &[PRETTY];
const LIST: &[Parameter] = &[
    PRETTY, BOOKMARKS, CONTINUE, FIELDS, LABELS, LIMIT, VERSION, MATCH, INITIAL, TIMEOUT, WATCH,
];
const WRITE: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: &[Parameter] = &[PRETTY, DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const DELETE: &[Parameter] = &[PRETTY, DRY_RUN, GRACE, ORPHANS, PROPAGATION];
const DELETE_COLLECTION: &[Parameter] = &[
    PRETTY,
    CONTINUE,
    DRY_RUN,
    FIELDS,
    GRACE,
    LABELS,
    LIMIT,
    ORPHANS,
    PROPAGATION,
    VERSION,
    MATCH,
];
const LOG: &[Parameter] = &[
    PRETTY,
    (
        "container",
        "string",
        "Which container; needed if there are several.",
    ),
    ("follow", "boolean", "Go on with what is written."),
    ("limitBytes", "integer", "At most so many bytes."),
    (
        "previous",
        "boolean",
        "The container before its last restart.",
    ),
    ("sinceSeconds", "integer", "Only what is this new."),
    ("stream", "string", "All, Stdout or Stderr."),
    ("tailLines", "integer", "Only the last lines."),
    ("timestamps", "boolean", "A time before each line."),
];

const STDIN: Parameter = ("stdin", "boolean", "Bytes for the process.");
const STDOUT: Parameter = ("stdout", "boolean", "What the process writes.");
const STDERR: Parameter = ("stderr", "boolean", "What it writes to stderr.");
const TTY: Parameter = ("tty", "boolean", "A terminal around the process.");
const CONTAINER: Parameter = (
    "container",
    "string",
    "Which container; needed if there are several.",
);
const EXEC: &[Parameter] = &[
    ("command", "string", "The command, word by word."),
    CONTAINER,
    STDERR,
    STDIN,
    STDOUT,
    TTY,
];
const ATTACH: &[Parameter] = &[CONTAINER, STDERR, STDIN, STDOUT, TTY];
const PORT_FORWARD: &[Parameter] = &[("ports", "integer", "For WebSockets: which ports.")];
const PROXY: &[Parameter] = &[("path", "string", "What is asked for behind the proxy.")];

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH_BODY: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

impl Writer<'_> {
    fn resource(&self, root: &str, resource: &Resource, paths: &mut Map<String, Value>) {
        let plural = &resource.plural;
        let base = match resource.namespaced() {
            true => format!("{root}/namespaces/{{namespace}}/{plural}"),
            false => format!("{root}/{plural}"),
        };
        paths.insert(base.clone(), self.collection(resource, &base));
        let item = format!("{base}/{{name}}");
        if resource.verbs.contains(&"get") {
            paths.insert(item.clone(), self.item(resource, &item));
        }
        for sub in &resource.subresources {
            let path = format!("{item}/{}", sub.name());
            paths.insert(path.clone(), self.subresource(resource, *sub, &path));
            if *sub == Subresource::Proxy {
                let path = format!("{path}/{{path}}");
                paths.insert(path.clone(), self.connect(resource, *sub, &path));
            }
        }
        if resource.namespaced() {
            let all = format!("{root}/{plural}");
            let list = self.list(
                resource,
                format!("list{}ForAllNamespaces", stem(resource, false)),
            );
            paths.insert(all.clone(), self.path(&all, vec![("get", list)]));
        }
    }

    fn collection(&self, resource: &Resource, path: &str) -> Value {
        let stem = stem(resource, resource.namespaced());
        let object = resource.definition.to_string();
        let mut operations = Vec::new();
        if resource.verbs.contains(&"list") {
            operations.push(("get", self.list(resource, format!("list{stem}"))));
        }
        if resource.verbs.contains(&"create") {
            operations.push((
                "post",
                Operation {
                    action: "post",
                    id: format!("create{stem}"),
                    resource,
                    takes: Some(object.clone()),
                    gives: object,
                    parameters: WRITE,
                },
            ));
        }
        if resource.verbs.contains(&"deletecollection") {
            operations.push((
                "delete",
                Operation {
                    action: "deletecollection",
                    id: format!("deleteCollection{stem}"),
                    resource,
                    takes: Some(DELETE_OPTIONS.to_owned()),
                    gives: STATUS.to_owned(),
                    parameters: DELETE_COLLECTION,
                },
            ));
        }
        self.path(path, operations)
    }

    fn list<'a>(&self, resource: &'a Resource, id: String) -> Operation<'a> {
        Operation {
            action: "list",
            id,
            resource,
            takes: None,
            gives: format!("{}List", resource.definition),
            parameters: LIST,
        }
    }

    fn item(&self, resource: &Resource, path: &str) -> Value {
        let stem = stem(resource, resource.namespaced());
        let mut operations = self.of_object(resource, resource.verbs, &stem);
        if resource.verbs.contains(&"delete") {
            operations.push((
                "delete",
                Operation {
                    action: "delete",
                    id: format!("delete{stem}"),
                    resource,
                    takes: Some(DELETE_OPTIONS.to_owned()),
                    gives: STATUS.to_owned(),
                    parameters: DELETE,
                },
            ));
        }
        self.path(path, operations)
    }

    /// Every method that a subresource takes which connects.
    fn connect(&self, of: &Resource, sub: Subresource, path: &str) -> Value {
        let (word, methods, parameters): (_, &[&'static str], _) = match sub {
            Subresource::Exec => ("Exec", &["get", "post"], EXEC),
            Subresource::Attach => ("Attach", &["get", "post"], ATTACH),
            Subresource::PortForward => ("Portforward", &["get", "post"], PORT_FORWARD),
            _ => (
                "Proxy",
                &["delete", "get", "head", "options", "patch", "post", "put"],
                PROXY,
            ),
        };
        let with_path = if path.ends_with('}') { "WithPath" } else { "" };
        let operations = methods.iter().map(|method| {
            let stem = stem_of(of, method, of.namespaced());
            let operation = Operation {
                action: "connect",
                id: format!("connect{stem}{word}{with_path}"),
                resource: sub.object(of),
                takes: None,
                gives: String::new(),
                parameters,
            };
            (*method, operation)
        });
        self.path(path, operations.collect())
    }

    fn subresource(&self, of: &Resource, sub: Subresource, path: &str) -> Value {
        if sub.connects() {
            return self.connect(of, sub, path);
        }
        let mut word = sub.name().to_owned();
        word[..1].make_ascii_uppercase();
        let stem = format!("{}{word}", stem(of, of.namespaced()));
        let object = sub.object(of);
        let operations = match sub {
            Subresource::Log => vec![(
                "get",
                Operation {
                    action: "get",
                    id: format!("read{stem}"),
                    resource: object,
                    takes: None,
                    gives: String::new(),
                    parameters: LOG,
                },
            )],
            Subresource::Binding | Subresource::Eviction | Subresource::Token => vec![(
                "post",
                Operation {
                    action: "post",
                    id: format!("create{stem}"),
                    resource: object,
                    takes: Some(object.definition.to_string()),
                    gives: object.definition.to_string(),
                    parameters: WRITE,
                },
            )],
            _ => self.of_object(object, sub.verbs(), &stem),
        };
        self.path(path, operations)
    }

    /// get, put and patch of one object.
    fn of_object<'a>(
        &self,
        resource: &'a Resource,
        verbs: &[&str],
        stem: &str,
    ) -> Vec<(&'static str, Operation<'a>)> {
        let object = resource.definition.to_string();
        let operation = |action, word: &str, takes, parameters| Operation {
            action,
            id: format!("{word}{stem}"),
            resource,
            takes,
            gives: object.clone(),
            parameters,
        };
        let mut operations = Vec::new();
        if verbs.contains(&"get") {
            operations.push(("get", operation("get", "read", None, READ)));
        }
        if verbs.contains(&"update") {
            operations.push((
                "put",
                operation("put", "replace", Some(object.clone()), WRITE),
            ));
        }
        if verbs.contains(&"patch") {
            let body = Some(PATCH_BODY.to_owned());
            operations.push(("patch", operation("patch", "patch", body, PATCH)));
        }
        operations
    }

    fn path(&self, path: &str, operations: Vec<(&'static str, Operation<'_>)>) -> Value {
        let mut item = Map::new();
        for (method, operation) in operations {
            item.insert(method.to_owned(), self.operation(&operation));
        }
        let words = ["namespace", "name", "path"]
            .into_iter()
            .filter(|w| path.contains(&format!("{{{w}}}")));
        let parameters: Vec<Value> = words
            .map(|word| {
                let mut parameter = self.parameter(&(word, "string", "In the path."), "path");
                parameter["required"] = true.into();
                parameter
            })
            .collect();
        item.insert("parameters".to_owned(), parameters.into());
        Value::Object(item)
    }

    fn operation(&self, operation: &Operation<'_>) -> Value {
        let Operation {
            action,
            id,
            resource,
            takes,
            gives,
            parameters,
        } = operation;
        let mut parameters: Vec<Value> = parameters
            .iter()
            .map(|parameter| self.parameter(parameter, "query"))
            .collect();
        let tag = [group_word(&resource.group), resource.version.to_string()].join("_");
        let mut out = json!({
            "tags": [tag],
            "description": format!("{action} {}", resource.kind),
            "operationId": id,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {
                "group": resource.group, "version": resource.version, "kind": resource.kind,
            },
        });
        let takes = takes.as_deref().map(|name| self.reference(name));
        let anything: &[&str] = &["*/*"];
        let types: &[&str] = match *action {
            "connect" => anything,
            // By these kubectl chooses how it applies.
            "patch" => patch_types(resource),
            _ => &["application/json", "application/yaml"],
        };
        let mut answer = json!({"description": "OK"});
        match self.dialect {
            Dialect::V2 => {
                if let Some(schema) = takes {
                    let body = json!({"name": "body", "in": "body", "required": true,
                        "schema": schema});
                    parameters.push(body);
                    out["consumes"] = json!(types);
                }
                out["produces"] = match *action {
                    "connect" => json!(anything),
                    _ => json!(["application/json", "application/yaml"]),
                };
                answer["schema"] = self.reference(gives);
            }
            Dialect::V3 => {
                if let Some(schema) = takes {
                    let content: Map<String, Value> = types
                        .iter()
                        .map(|media| ((*media).to_owned(), json!({"schema": schema})))
                        .collect();
                    out["requestBody"] = json!({"content": content, "required": true});
                }
                let media = match *action {
                    "connect" => "*/*",
                    _ => "application/json",
                };
                answer["content"] = json!({media: {"schema": self.reference(gives)}});
            }
        }
        out["parameters"] = parameters.into();
        out["responses"] = json!({"200": answer});
        out
    }

    fn parameter(&self, (name, kind, description): &Parameter, place: &str) -> Value {
        let mut out = json!({"name": name, "in": place, "description": description});
        match self.dialect {
            Dialect::V2 => out["type"] = (*kind).into(),
            Dialect::V3 => out["schema"] = json!({"type": kind}),
        }
        out
    }

    fn reference(&self, name: &str) -> Value {
        let root = match self.dialect {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        };
        match self.schemas.contains_key(name) {
            true => json!({"$ref": format!("{root}{name}")}),
            false => json!({"type": "string"}),
        }
    }
}

/// The middle of an operation's id: `AppsV1NamespacedDeployment`.
fn stem(resource: &Resource, namespaced: bool) -> String {
    stem_of(resource, "", namespaced)
}

/// The same with the method, as connections name it: `CoreV1GetNamespacedPod`.
fn stem_of(resource: &Resource, method: &str, namespaced: bool) -> String {
    let mut method = method.to_owned();
    if let Some(first) = method.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let mut group = group_word(&resource.group);
    group[..1].make_ascii_uppercase();
    let mut version = resource.version.to_string();
    version[..1].make_ascii_uppercase();
    let middle = if namespaced { "Namespaced" } else { "" };
    format!("{group}{version}{method}{middle}{}", resource.kind)
}

/// The first word of a group; the group without a name is the core.
fn group_word(group: &str) -> String {
    match group.split('.').next() {
        None | Some("") => "core".to_owned(),
        Some(word) => word.to_owned(),
    }
}
