//! OpenAPI v2 in protobuf, as kubectl before 1.29 wants it: the messages of gnostic's
//! `OpenAPIv2.proto` (those fields that our documents have), filled from the JSON document. Pure.

use prost::Message;
use serde_json::{Map, Value};

/// The JSON document as protobuf.
pub fn encode(document: &Value) -> Vec<u8> {
    Document::of(document).encode_to_vec()
}

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<NamedSchemas>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(string, repeated, tag = "1")]
    tags: Vec<String>,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "5")]
    operation_id: String,
    #[prost(string, repeated, tag = "6")]
    produces: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    consumes: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    responses: Option<Responses>,
    #[prost(message, repeated, tag = "13")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(oneof = "parameter::Kind", tags = "1, 2")]
    kind: Option<parameter::Kind>,
}

mod parameter {
    use prost::Oneof;

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        #[prost(message, tag = "1")]
        Body(super::BodyParameter),
        #[prost(message, tag = "2")]
        NonBody(super::NonBodyParameter),
    }
}

#[derive(Clone, PartialEq, Message)]
struct BodyParameter {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    place: String,
    #[prost(bool, tag = "4")]
    required: bool,
    #[prost(message, optional, tag = "5")]
    schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    query: Option<QueryParameter>,
    #[prost(message, optional, tag = "4")]
    path: Option<PathParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct PathParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct Responses {
    #[prost(message, repeated, tag = "1")]
    response_code: Vec<NamedResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedResponseValue {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, tag = "1")]
    description: String,
    #[prost(message, optional, tag = "2")]
    schema: Option<SchemaItem>,
}

#[derive(Clone, PartialEq, Message)]
struct SchemaItem {
    #[prost(message, optional, tag = "1")]
    schema: Option<Schema>,
}

/// `Definitions` and `Properties`: maps are lists of pairs.
#[derive(Clone, PartialEq, Message)]
struct NamedSchemas {
    #[prost(message, repeated, tag = "1")]
    pairs: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(message, optional, tag = "5")]
    default: Option<Any>,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, repeated, tag = "20")]
    enumeration: Vec<Any>,
    #[prost(message, optional, tag = "21")]
    additional_properties: Option<AdditionalProperties>,
    #[prost(message, optional, tag = "22")]
    kind: Option<TypeItem>,
    #[prost(message, optional, tag = "23")]
    items: Option<ItemsItem>,
    #[prost(message, optional, tag = "25")]
    properties: Option<NamedSchemas>,
    #[prost(message, repeated, tag = "31")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct AdditionalProperties {
    #[prost(oneof = "additional::Kind", tags = "1, 2")]
    kind: Option<additional::Kind>,
}

mod additional {
    use prost::Oneof;

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        #[prost(message, boxed, tag = "1")]
        Schema(Box<super::Schema>),
        #[prost(bool, tag = "2")]
        Boolean(bool),
    }
}

#[derive(Clone, PartialEq, Message)]
struct ItemsItem {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeItem {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

/// Any value as YAML; JSON is YAML.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
}

impl Document {
    fn of(value: &Value) -> Self {
        let path = |(name, value): (&String, &Value)| NamedPathItem {
            name: name.clone(),
            value: Some(PathItem::of(value)),
        };
        Self {
            swagger: text(value, "swagger"),
            info: Some(Info {
                title: text(&value["info"], "title"),
                version: text(&value["info"], "version"),
            }),
            paths: Some(Paths {
                path: fields(&value["paths"]).map(path).collect(),
            }),
            definitions: Some(NamedSchemas::of(&value["definitions"])),
        }
    }
}

impl PathItem {
    fn of(value: &Value) -> Self {
        let operation = |method: &str| value.get(method).map(Operation::of);
        Self {
            get: operation("get"),
            put: operation("put"),
            post: operation("post"),
            delete: operation("delete"),
            patch: operation("patch"),
            parameters: items(&value["parameters"])
                .map(ParametersItem::of)
                .collect(),
        }
    }
}

impl Operation {
    fn of(value: &Value) -> Self {
        let response = |(code, value): (&String, &Value)| NamedResponseValue {
            name: code.clone(),
            value: Some(ResponseValue {
                response: Some(Response {
                    description: text(value, "description"),
                    schema: value.get("schema").map(|schema| SchemaItem {
                        schema: Some(Schema::of(schema)),
                    }),
                }),
            }),
        };
        Self {
            tags: texts(&value["tags"]),
            description: text(value, "description"),
            operation_id: text(value, "operationId"),
            produces: texts(&value["produces"]),
            consumes: texts(&value["consumes"]),
            parameters: items(&value["parameters"])
                .map(ParametersItem::of)
                .collect(),
            responses: Some(Responses {
                response_code: fields(&value["responses"]).map(response).collect(),
            }),
            vendor_extension: extensions(value),
        }
    }
}

impl ParametersItem {
    fn of(value: &Value) -> Self {
        let required = value["required"] == true;
        let (name, place) = (text(value, "name"), text(value, "in"));
        let (description, kind) = (text(value, "description"), text(value, "type"));
        let kind = match place.as_str() {
            "body" => parameter::Kind::Body(BodyParameter {
                name,
                place,
                required,
                schema: value.get("schema").map(Schema::of),
            }),
            "path" => parameter::Kind::NonBody(NonBodyParameter {
                query: None,
                path: Some(PathParameter {
                    required,
                    place,
                    description,
                    name,
                    kind,
                }),
            }),
            _ => parameter::Kind::NonBody(NonBodyParameter {
                query: Some(QueryParameter {
                    required,
                    place,
                    description,
                    name,
                    kind,
                }),
                path: None,
            }),
        };
        Self {
            parameter: Some(Parameter { kind: Some(kind) }),
        }
    }
}

impl NamedSchemas {
    fn of(value: &Value) -> Self {
        let pair = |(name, value): (&String, &Value)| NamedSchema {
            name: name.clone(),
            value: Some(Schema::of(value)),
        };
        Self {
            pairs: fields(value).map(pair).collect(),
        }
    }
}

impl Schema {
    fn of(value: &Value) -> Self {
        let additional = value.get("additionalProperties").map(|value| {
            let kind = match value {
                Value::Bool(any) => additional::Kind::Boolean(*any),
                schema => additional::Kind::Schema(Box::new(Self::of(schema))),
            };
            AdditionalProperties { kind: Some(kind) }
        });
        let kind = match &value["type"] {
            Value::String(kind) => Some(TypeItem {
                value: vec![kind.clone()],
            }),
            Value::Array(_) => Some(TypeItem {
                value: texts(&value["type"]),
            }),
            _ => None,
        };
        Self {
            reference: text(value, "$ref"),
            format: text(value, "format"),
            description: text(value, "description"),
            default: value.get("default").map(Any::of),
            required: texts(&value["required"]),
            enumeration: items(&value["enum"]).map(Any::of).collect(),
            additional_properties: additional,
            kind,
            items: value.get("items").map(|items| ItemsItem {
                schema: vec![Self::of(items)],
            }),
            properties: value.get("properties").map(NamedSchemas::of),
            vendor_extension: extensions(value),
        }
    }
}

impl Any {
    fn of(value: &Value) -> Self {
        Self {
            yaml: format!("{value}\n"),
        }
    }
}

fn extensions(value: &Value) -> Vec<NamedAny> {
    fields(value)
        .filter(|(name, _)| name.starts_with("x-"))
        .map(|(name, value)| NamedAny {
            name: name.clone(),
            value: Some(Any::of(value)),
        })
        .collect()
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    items(value)
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_keeps_schemas_parameters_and_extensions() {
        let document = json!({
            "swagger": "2.0",
            "info": {"title": "t", "version": "v"},
            "paths": {"/x": {"patch": {
                "parameters": [{"name": "dryRun", "in": "query", "type": "string"}],
                "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/A"}}},
                "x-kubernetes-group-version-kind": {"group": "", "kind": "A", "version": "v1"},
            }}},
            "definitions": {"A": {"type": "object",
                "properties": {"b": {"type": "array", "items": {"type": "string"}}}}},
        });
        let decoded = Document::decode(&encode(&document)[..]).expect("protobuf");
        assert_eq!(decoded, Document::of(&document));
        let path = decoded
            .paths
            .expect("paths")
            .path
            .remove(0)
            .value
            .expect("an item");
        let patch = path.patch.expect("an operation");
        assert_eq!(
            patch.vendor_extension[0].name,
            "x-kubernetes-group-version-kind"
        );
        assert!(
            patch.vendor_extension[0]
                .value
                .as_ref()
                .is_some_and(|any| any.yaml.contains("v1"))
        );
        assert_eq!(patch.parameters.len(), 1);
    }
}
