//! The parsers, as functions of bytes that say whether they took them.

use std::collections::BTreeMap;

use api::apply::{self, Writer};
use api::custom::Kind;
use api::jwt::Unverified;
use api::kinds::batch::schedule;
use api::kinds::certificates::request::Request;
use api::kinds::certificates::signers;
use api::oidc::Rules;
use api::quantity::Quantity;
use api::re2::{Finder, Pattern};
use api::schema::structural::{Part, Schema};
use api::selector::{FieldSelector, LabelSelector};
use api::{FieldValidation, Format, Resource, decode, meta, patch};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::seeds::{self, Form};

/// A parser and the form of what it reads.
pub struct Parser {
    pub name: &'static str,
    pub form: Form,
    pub parse: fn(&[u8]) -> bool,
}

pub const PARSERS: &[Parser] = &[
    parser("json", Form::Json, |input| object(input, Format::Json)),
    parser("yaml", Form::Yaml, |input| object(input, Format::Yaml)),
    parser("protobuf", Form::Protobuf, |input| {
        object(input, Format::Protobuf)
    }),
    parser("delete-options", Form::DeleteOptions, delete_options),
    parser("json-patch", Form::JsonPatch, |input| {
        patched(input, patch::json::apply)
    }),
    parser("merge-patch", Form::MergePatch, |input| {
        patched(input, patch::merge::apply)
    }),
    parser("strategic-patch", Form::StrategicPatch, |input| {
        patched(input, patch::strategic::apply)
    }),
    parser("apply", Form::Yaml, applied),
    parser("field-set", Form::FieldSet, field_set),
    parser("label-selector", Form::Selector, label_selector),
    parser("field-selector", Form::Selector, field_selector),
    parser("quantity", Form::Quantity, quantity),
    parser("pattern", Form::Pattern, pattern),
    parser("custom-schema", Form::Schema, custom_schema),
    parser("cel", Form::Rule, rule),
    parser("custom-kind", Form::Definition, custom_kind),
    parser("printer-column", Form::JsonPath, printer_column),
    parser("scalar", Form::Scalar, scalar),
    parser("spdy", Form::Spdy, streams::fuzzing::spdy),
    parser("websocket", Form::WebSocket, streams::fuzzing::websocket),
    parser("certificate-request", Form::Request, certificate_request),
    parser("jwt", Form::Token, token),
    parser("request-path", Form::Path, apiserver::fuzzing::path),
    parser("accept", Form::Accept, apiserver::fuzzing::accept),
    parser(
        "list-options",
        Form::ListOptions,
        apiserver::fuzzing::list_options,
    ),
    parser(
        "continue-token",
        Form::Continue,
        apiserver::fuzzing::continue_token,
    ),
    parser(
        "impersonation",
        Form::Impersonation,
        apiserver::fuzzing::impersonation,
    ),
    parser(
        "audit-policy",
        Form::AuditPolicy,
        apiserver::fuzzing::audit_policy,
    ),
    parser(
        "webhook-answer",
        Form::WebhookAnswer,
        apiserver::fuzzing::webhook_answer,
    ),
    parser("openapi", Form::OpenApi, apiserver::fuzzing::openapi),
    parser("key-set", Form::KeySet, apiserver::fuzzing::key_set),
    parser("proxied-page", Form::Page, apiserver::fuzzing::page),
    parser(
        "log-options",
        Form::LogOptions,
        apiserver::fuzzing::log_options,
    ),
    parser("cron", Form::Cron, cron),
    parser("dns-query", Form::DnsQuery, agent::dns::fuzzing::query),
    parser("dns-answer", Form::DnsAnswer, agent::dns::fuzzing::answer),
];

const fn parser(name: &'static str, form: Form, parse: fn(&[u8]) -> bool) -> Parser {
    Parser { name, form, parse }
}

/// Bytes at an input's beginning that may name its kind.
const HEAD: usize = 80;

/// The kind that the input names at its beginning, else one that depends on its length.
fn resource_of(input: &[u8]) -> &'static Resource {
    let resources = api::resources();
    let head = &input[..input.len().min(HEAD)];
    let names = |resource: &&std::sync::Arc<Resource>| {
        let kind = resource.kind.as_bytes();
        head.windows(kind.len().max(1)).any(|it| it == kind)
    };
    let found = resources.iter().filter(names);
    let found = found.max_by_key(|resource| resource.kind.len());
    found.unwrap_or(&resources[input.len() % resources.len()])
}

/// What a create does with a body, and what is shown of it.
fn object(input: &[u8], format: Format) -> bool {
    let resource = resource_of(input);
    let mode = match input.len() % 3 {
        0 => FieldValidation::Strict,
        1 => FieldValidation::Warn,
        _ => FieldValidation::Ignore,
    };
    let Ok(decoded) = resource.decode(input, format, mode) else {
        return false;
    };
    stored(resource, decoded.object)
}

/// The canonical object through all that follows decoding.
fn stored(resource: &Resource, mut object: Value) -> bool {
    resource.prepare_for_create(&mut object);
    meta::stamp(
        &mut object,
        "00000000-0000-4000-8000-000000000001",
        Timestamp::UNIX_EPOCH,
    );
    resource.default(&mut object);
    let valid = resource.validate(&object, None, None).is_ok();
    let _ = resource.selectable_fields(&object);
    if valid {
        let _ = (resource.printer.cells)(&object, Timestamp::UNIX_EPOCH);
        let bytes = resource.serialize(&object);
        assert!(serde_json::from_slice::<Value>(&bytes).is_ok_and(|read| read == object));
    }
    valid
}

fn delete_options(input: &[u8]) -> bool {
    let json = decode::delete_options(input, Format::Json).is_ok();
    let yaml = decode::delete_options(input, Format::Yaml).is_ok();
    decode::delete_options(input, Format::Protobuf).is_ok() || yaml || json
}

type Apply = fn(&Resource, &Value, &Value) -> Result<Value, api::ApiError>;

fn patched(input: &[u8], apply: Apply) -> bool {
    let Ok(body) = decode::patch_body(input, Format::Json, FieldValidation::Warn) else {
        return false;
    };
    let mut taken = false;
    for (resource, live) in seeds::stored() {
        let Ok(new) = apply(resource, live, &body.object) else {
            continue;
        };
        if let Ok(decoded) = resource.canonical(new, FieldValidation::Warn) {
            let mut new = decoded.object;
            resource.prepare_for_update(&mut new, live, None);
            resource.default(&mut new);
            taken |= resource.validate(&new, Some(live), None).is_ok();
        }
    }
    taken
}

fn applied(input: &[u8]) -> bool {
    let Ok(body) = decode::patch_body(input, Format::Yaml, FieldValidation::Warn) else {
        return false;
    };
    let mut taken = false;
    for (resource, live) in seeds::stored() {
        for (live, manager) in [(None, "kubectl"), (Some(live), "other")] {
            let writer = writer(manager);
            let first = apply::apply(resource, live, &body.object, &writer, true);
            let Ok(first) = first else {
                continue;
            };
            // The same configuration once more changes nothing.
            let again = apply::apply(resource, Some(&first), &body.object, &writer, false);
            taken |= again.is_ok();
        }
    }
    taken
}

/// managedFields as a client sends them.
fn field_set(input: &[u8]) -> bool {
    let Ok(sent) = serde_json::from_slice::<Value>(input) else {
        return false;
    };
    let mut taken = false;
    for (resource, live) in seeds::stored() {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = json!([{
            "manager": "sent", "operation": "Update", "apiVersion": resource.api_version(),
            "fieldsType": "FieldsV1", "fieldsV1": sent,
        }]);
        let Ok(mut new) = resource.canonical(new, FieldValidation::Ignore) else {
            continue;
        };
        apply::update(resource, Some(live), &mut new.object, &writer("other"));
        let configuration = json!({
            "apiVersion": resource.api_version(), "kind": resource.kind,
            "metadata": {"name": "a", "labels": {"fuzzed": "yes"}},
        });
        let writer = writer("applier");
        taken |= apply::apply(resource, Some(&new.object), &configuration, &writer, true).is_ok();
    }
    taken
}

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        subresource: None,
        now: Timestamp::UNIX_EPOCH,
    }
}

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

fn label_selector(input: &[u8]) -> bool {
    let Some(Ok(selector)) = text(input).map(LabelSelector::parse) else {
        return false;
    };
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    let matches = selector.matches(&labels);
    // What it prints, it reads as the same.
    let shown = selector.to_string();
    let again = LabelSelector::parse(&shown);
    assert!(
        again.is_ok_and(|again| again.matches(&labels) == matches),
        "{shown}"
    );
    true
}

fn field_selector(input: &[u8]) -> bool {
    let Some(Ok(selector)) = text(input).map(FieldSelector::parse) else {
        return false;
    };
    for (resource, live) in seeds::stored() {
        if selector
            .check(&resource.kind, &resource.selectable_field_names())
            .is_ok()
        {
            let _ = selector.matches(&resource.selectable_fields(live));
        }
    }
    true
}

fn quantity(input: &[u8]) -> bool {
    let Some(Ok(quantity)) = text(input).map(Quantity::parse) else {
        return false;
    };
    let again = Quantity::parse(&quantity.to_string());
    assert!(again.is_ok_and(|again| again == quantity), "{quantity}");
    true
}

fn pattern(input: &[u8]) -> bool {
    let Some(text) = text(input) else {
        return false;
    };
    if let Ok(pattern) = Pattern::new(text) {
        let _ = pattern.is_match("a text of some words", &mut pattern.scratch());
    }
    Finder::new(text).is_ok_and(|finder| finder.find_all("a text of some words", 10).is_ok())
}

/// The schema of a custom kind, and an object that it judges.
fn custom_schema(input: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(input) else {
        return false;
    };
    let Ok(schema) = Schema::compile(&value) else {
        return false;
    };
    for object in [&value, &json!({"spec": {"replicas": 3, "name": "a"}})] {
        let _ = schema.validate(object, None, Part::Whole);
        let _ = schema.validate(object, Some(&value), Part::Whole);
    }
    true
}

/// A CustomResourceDefinition as it is created, the kinds that it makes, and an object of each.
fn custom_kind(input: &[u8]) -> bool {
    let definitions = api::find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let Some(Ok(decoded)) =
        definitions.map(|it| it.decode(input, Format::Json, FieldValidation::Ignore))
    else {
        return false;
    };
    if !definitions.is_some_and(|it| stored(it, decoded.object.clone())) {
        return false;
    }
    // A definition that is valid makes a kind.
    let kind = custom(&decoded.object).expect("a valid definition");
    for served in &kind.served {
        let resource = &served.resource;
        let object = json!({
            "apiVersion": resource.api_version(), "kind": resource.kind,
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {"replicas": 3, "name": "a"}, "status": {"replicas": "x"},
        });
        let _ = resource
            .canonical(object, FieldValidation::Ignore)
            .map(|decoded| stored(resource, decoded.object));
    }
    true
}

/// The kind of a definition, with the defaults that a create gives it.
fn custom(definition: &Value) -> Result<Kind, String> {
    let mut definition = definition.clone();
    if let Some(resource) = api::find("apiextensions.k8s.io", "v1", "customresourcedefinitions") {
        resource.default(&mut definition);
    }
    Kind::of(&definition)
}

/// The path of a printer column, on an object with lists in it.
fn printer_column(input: &[u8]) -> bool {
    let Some(path) = text(input) else {
        return false;
    };
    let mut definition = seeds::definition();
    let types = ["string", "integer", "date", "number", "boolean"];
    let columns = types.map(|kind| json!({"name": kind, "type": kind, "jsonPath": path}));
    definition["spec"]["versions"][0]["additionalPrinterColumns"] = json!(columns);
    let definitions = api::find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let valid = definitions.is_some_and(|it| stored(it, definition.clone()));
    let Ok(kind) = custom(&definition) else {
        return false;
    };
    let object = json!({
        "metadata": {"name": "a", "labels": {"b.example/c": "d"}},
        "status": {"conditions": [{"type": "Ready", "status": "True", "n": 3},
            {"type": "Other", "since": "2026-01-02T03:04:05Z"}], "deep": [[[1, 2], [3]], []]},
    });
    let cells = kind.storage.cells(&object, Timestamp::UNIX_EPOCH);
    assert!(cells.len() <= types.len() + 2, "{cells:?}");
    valid
}

/// A text as a time, base64 and a quantity of an object: what is canonical stays as it is.
fn scalar(input: &[u8]) -> bool {
    let Some(text) = text(input) else {
        return false;
    };
    let objects = [
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"},
            "spec": {"renewTime": text}}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "a", "creationTimestamp": text}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"},
            "data": {"a": text}}),
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "a"},
            "spec": {"hard": {"cpu": text}}}),
    ];
    let mut taken = false;
    for object in objects {
        let Some(resource) = api::resources()
            .iter()
            .find(|it| object["kind"] == *it.kind)
        else {
            continue;
        };
        let Ok(once) = resource.canonical(object, FieldValidation::Strict) else {
            continue;
        };
        let again = resource.canonical(once.object.clone(), FieldValidation::Strict);
        assert!(
            again.is_ok_and(|again| again.object == once.object),
            "{}",
            once.object
        );
        taken = true;
    }
    taken
}

/// A rule of a custom kind: parsed, checked and evaluated on an object and an older one.
fn rule(input: &[u8]) -> bool {
    let Some(text) = text(input) else {
        return false;
    };
    let texts =
        json!({"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 10}});
    let schema = json!({
        "type": "object",
        "properties": {
            "a": {"type": "string", "maxLength": 20}, "n": {"type": "integer"}, "l": texts,
            "m": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "number"}},
        },
        "x-kubernetes-validations": [{"rule": text, "message": "no"}],
    });
    let Ok(schema) = Schema::compile(&schema) else {
        return false;
    };
    let object = json!({"a": "b", "n": 4, "l": ["x", "yy"], "m": {"k": 1.5}});
    let old = json!({"a": "c", "n": 3, "l": [], "m": {}});
    let causes = schema.validate(&object, None, Part::Whole);
    let _ = schema.validate(&object, Some(&old), Part::Whole);
    causes.is_empty()
}

/// A request for a certificate as DER, through all that is looked at before it is signed. What does not
/// bear the signature of its key is refused, but not before it was read.
fn certificate_request(input: &[u8]) -> bool {
    let pem = seeds::pem("CERTIFICATE REQUEST", input);
    // A PEM text may be damaged as well.
    let _ = Request::parse(&String::from_utf8_lossy(input));
    let Ok(request) = Request::parse(&pem) else {
        return false;
    };
    for signer in [
        "kube-apiserver-client",
        "kube-apiserver-client-kubelet",
        "kubelet-serving",
    ] {
        let _ = signers::fits(
            &format!("kubernetes.io/{signer}"),
            &request,
            &["client auth"],
        );
    }
    true
}

/// A schedule and its time zone, with the times of some years.
fn cron(input: &[u8]) -> bool {
    let Some(text) = text(input) else {
        return false;
    };
    let (schedule, zone) = text.split_once('\n').unwrap_or((text, "UTC"));
    let (Ok(schedule), Ok(zone)) = (schedule::parse(schedule), TimeZone::get(zone)) else {
        return false;
    };
    let mut at = Timestamp::UNIX_EPOCH;
    for _ in 0..3 {
        let Some(next) = schedule.next(at, &zone) else {
            break;
        };
        assert!(next > at, "{next} does not come after {at}");
        at = next;
    }
    let _ = schedule.last(Timestamp::UNIX_EPOCH, at, &zone);
    true
}

/// A token as it is read before its signature is believed, and whom it would name.
fn token(input: &[u8]) -> bool {
    let Some(read) = text(input).and_then(Unverified::parse) else {
        return false;
    };
    let rules = Rules {
        issuer: read.issuer().to_owned(),
        client_id: "kubernetes".to_owned(),
        username_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        ..Rules::default()
    };
    if let Ok(person) = rules.person(&read.claims, 0) {
        assert!(person.name.starts_with(read.issuer()), "{}", person.name);
    }
    true
}
