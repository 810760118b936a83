use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{FieldValidation, Format, find};

/// `kubectl create deployment d --image=nginx:1 --port=80 --replicas=0` of kubectl 1.33.
const DEPLOYMENT: &str = "\
    6b3873000a150a07617070732f7631120a4465706c6f796d656e7412b2010a1b0a016412001a0022002a003200\
    380042005a080a036170701201641284010800120a0a080a036170701201641a6c0a1a0a0012001a0022002a00\
    3200380042005a080a03617070120164124e12300a056e67696e7812076e67696e783a312a00320a0a00100018\
    5022002a0042006a007200800100880100900100a201001a00320042004a0052005800600068008201008a0100\
    9a0100c2010022020a00280038001a0c0800100018002000280038001a002200";

/// `kubectl create service nodeport x --tcp=80:http` of kubectl 1.33.
const SERVICE: &str = "\
    6b3873000a0d0a02763112075365727669636512650a1b0a017812001a0022002a003200380042005a080a0361\
    707012017812420a1e0a0738302d6874747012035443501850220a080110001a0468747470280012080a036170\
    701201781a0022084e6f6465506f72743a00420052005a00600068001a020a001a002200";

/// `kubectl create secret generic s --from-literal=a=b` of kubectl 1.33.
const SECRET: &str = "\
    6b3873000a0c0a0276311206536563726574121d0a110a017312001a0022002a0032003800420012060a016112\
    01621a001a002200";

/// A volume of 1Gi at nas:/m that may be written, as Go clients encode it.
const VOLUME: &str = "\
    6b3873000a160a027631121050657273697374656e74566f6c756d65123a0a040a02707612300a100a0773746f\
    7261676512050a03314769120d2a0b0a036e617312022f6d18001a0d5265616457726974654d616e791a001a00\
    2200";

/// A claim of 1Gi that wants a volume of no class, which is not the same as the default class.
const CLAIM: &str = "\
    6b3873000a1b0a027631121550657273697374656e74566f6c756d65436c61696d12320a030a016312270a0d52\
    65616457726974654f6e6365121212100a0773746f7261676512050a033147691a002a001a020a001a002200";

fn decoded(group: &str, plural: &str, body: &str) -> Value {
    let body = hex::decode(body).unwrap();
    let resource = find(group, "v1", plural).unwrap();
    resource
        .decode(&body, Format::Protobuf, FieldValidation::Strict)
        .unwrap()
        .object
}

#[test]
fn a_deployment_of_kubectl_is_read_as_its_json_would_be() {
    assert_eq!(
        decoded("apps", "deployments", DEPLOYMENT),
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"labels": {"app": "d"}, "name": "d"},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "d"}},
                "strategy": {},
                "template": {
                    "metadata": {"labels": {"app": "d"}},
                    "spec": {"containers": [{
                        "image": "nginx:1",
                        "name": "nginx",
                        "ports": [{"containerPort": 80}],
                        "resources": {},
                    }]},
                },
            },
            "status": {},
        })
    );
}

#[test]
fn a_service_keeps_the_name_of_its_target_port() {
    let service = decoded("", "services", SERVICE);
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "80-http", "port": 80, "protocol": "TCP", "targetPort": "http"}])
    );
    assert_eq!(service["spec"]["type"], "NodePort");
    assert_eq!(service["spec"].get("publishNotReadyAddresses"), None);
}

#[test]
fn bytes_become_base64() {
    assert_eq!(decoded("", "secrets", SECRET)["data"], json!({"a": "Yg=="}));
}

#[test]
fn the_source_of_a_volume_stands_in_its_spec() {
    let volume = decoded("", "persistentvolumes", VOLUME);
    assert_eq!(
        volume["spec"],
        json!({
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "nfs": {"server": "nas", "path": "/m"},
        })
    );
}

#[test]
fn a_claim_of_no_class_says_so() {
    let claim = decoded("", "persistentvolumeclaims", CLAIM);
    assert_eq!(claim["spec"]["storageClassName"], "");
    assert_eq!(claim["spec"].get("volumeName"), None);
}

#[test]
fn a_body_of_another_kind_is_refused_before_it_is_read() {
    let body = hex::decode(SERVICE).unwrap();
    let pods = find("", "v1", "pods").unwrap();
    let error = pods
        .decode(&body, Format::Protobuf, FieldValidation::Warn)
        .unwrap_err();
    assert!(
        error.to_string().starts_with("Service in version"),
        "{error}"
    );
    assert_eq!(error.code(), 400);
}

/// The names of a message's fields, also of those in messages that are written in place.
fn names_of(message: &str) -> Vec<&'static str> {
    let own = numbers()[message].values().map(|name| &**name);
    own.flat_map(|name| match name.strip_prefix('@') {
        Some(inner) => names_of(inner),
        None => vec![name],
    })
    .collect()
}

#[test]
fn a_message_of_more_parts_than_a_document_may_have_is_refused() {
    // `spec.containers`, many times and empty.
    let spec = [0x12, 0].repeat(crate::decode::limits::MAX_PARTS + 1);
    let sized = |field: u8, bytes: &[u8]| {
        let length = bytes.len();
        let varint = [length | 0x80, (length >> 7) | 0x80, length >> 14].map(|b| b as u8);
        [&[field][..], &varint, bytes].concat()
    };
    let body = [MAGIC, &sized(0x12, &sized(0x12, &spec))].concat();
    let pods = find("", "v1", "pods").unwrap();
    let error = pods.decode(&body, Format::Protobuf, FieldValidation::Warn);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("objects and lists: split it")
    );
}

#[test]
fn every_field_of_every_served_type_has_a_number() {
    for name in crate::schema::published().keys() {
        let Some(definition) = schema::definition(name) else {
            continue;
        };
        let all = names_of(name);
        for field in definition.fields.keys() {
            let kind = ["apiVersion", "kind"].contains(&&**field);
            assert!(kind || all.contains(&&**field), "{name}.{field}");
        }
    }
}

/// A field of a message: texts, and messages in it.
fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u8::try_from(bytes.len()).unwrap();
    assert!(length < 0x80 && number < 64);
    let key = u16::from(number) << 3 | 2;
    let key = match key {
        0..0x80 => vec![key as u8],
        _ => vec![key as u8 & 0x7f | 0x80, (key >> 7) as u8],
    };
    [key, vec![length], bytes.to_vec()].concat()
}

fn message_of(group: &str, plural: &str, message: &[u8]) -> Value {
    let definition = &find(group, "v1", plural).unwrap().definition;
    Reader::default()
        .message(definition, message)
        .map(Value::Object)
        .unwrap()
}

#[test]
fn a_schema_keeps_what_free_form_values_and_either_or_fields_say() {
    let allows = |yes: u8| vec![8, yes];
    let properties =
        |name: &str, schema: Vec<u8>| field(29, [field(1, name), field(2, schema)].concat());
    let of_type = |kind: &str| field(5, kind);
    let schema = [
        properties("a", field(8, field(1, "false"))),
        properties("b", field(30, allows(0))),
        properties(
            "c",
            field(30, [allows(1), field(2, of_type("string"))].concat()),
        ),
        properties("d", field(24, field(1, of_type("string")))),
        properties(
            "e",
            [field(20, field(1, "1")), field(20, field(1, "\"x\""))].concat(),
        ),
    ]
    .concat();
    let mut fields = Map::new();
    let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let definition = schema::definition(name).unwrap();
    Reader::default()
        .fields_into(&mut fields, definition, name, &schema)
        .unwrap();
    assert_eq!(
        fields["properties"],
        json!({
            "a": {"default": false},
            "b": {"additionalProperties": false},
            "c": {"additionalProperties": {"type": "string"}},
            "d": {"items": {"type": "string"}},
            "e": {"enum": [1, "x"]},
        })
    );
}

#[test]
fn messages_in_place_and_lists_in_maps_are_read() {
    let rule = field(3, "pods");
    let operations = [field(1, "CREATE"), field(2, rule)].concat();
    let named = field(3, [field(1, "web"), field(2, operations)].concat());
    let policy = message_of(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        &field(2, field(2, named)),
    );
    assert_eq!(
        policy["spec"]["matchConstraints"]["resourceRules"],
        json!([{"operations": ["CREATE"], "resourceNames": ["web"], "resources": ["pods"]}])
    );
    let extra = [
        field(1, "scopes"),
        field(2, [field(1, "a"), field(1, "b")].concat()),
    ]
    .concat();
    let request = message_of(
        "certificates.k8s.io",
        "certificatesigningrequests",
        &field(2, field(6, extra)),
    );
    assert_eq!(request["spec"]["extra"], json!({"scopes": ["a", "b"]}));
}

proptest! {
    #[test]
    fn no_bytes_upset_the_reader(
        at in 0usize..200, byte: u8, cut in 0usize..200,
        noise in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let deployments = find("apps", "v1", "deployments").unwrap();
        let mut body = hex::decode(DEPLOYMENT).unwrap();
        let at = at.min(body.len() - 1);
        body[at] = byte;
        body.truncate(body.len() - cut.min(body.len()));
        for body in [body, [MAGIC, &noise].concat(), noise] {
            let outcome = deployments.decode(&body, Format::Protobuf, FieldValidation::Warn);
            prop_assert!(outcome.is_ok() || outcome.unwrap_err().code() == 400);
        }
    }
}
