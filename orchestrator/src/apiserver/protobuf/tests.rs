//! Bodies as Go writes them, built by hand.

use serde_json::json;

use super::*;

/// A field of bytes.
fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("a short field");
    [&[number << 3 | 2, length][..], value].concat()
}

/// A field that is a small number.
fn varint(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let types = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [
        MAGIC,
        &bytes(1, &types),
        &bytes(2, raw),
        &bytes(3, b""),
        &bytes(4, b""),
    ]
    .concat()
}

#[test]
fn a_config_map_keeps_its_maps() {
    let metadata = [
        bytes(1, b"web"),
        bytes(2, b""),
        bytes(8, b""),
        bytes(11, &[bytes(1, b"app"), bytes(2, b"x")].concat()),
    ]
    .concat();
    let entry = [bytes(1, b"key"), bytes(2, b"value")].concat();
    let binary = [bytes(1, b"bin"), bytes(2, &[0, 255])].concat();
    let raw = [bytes(1, &metadata), bytes(2, &entry), bytes(3, &binary)].concat();
    assert_eq!(
        decode(&body("v1", "ConfigMap", &raw)),
        Ok(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "web", "labels": {"app": "x"}},
            "data": {"key": "value"},
            "binaryData": {"bin": "AP8="},
        }))
    );
}

#[test]
fn what_go_writes_unset_is_left_out_and_zeros_that_are_meant_stay() {
    // hostNetwork, which is no pointer, and terminationGracePeriodSeconds, which is one.
    let port = [bytes(1, b""), varint(2, 0), varint(3, 80), bytes(4, b"TCP")].concat();
    let container = [
        bytes(1, b"c"),
        bytes(2, b"nginx"),
        bytes(6, &port),
        bytes(8, b""),
    ]
    .concat();
    let spec = [bytes(2, &container), varint(4, 0), varint(11, 0)].concat();
    let pod = decode(&body("v1", "Pod", &bytes(2, &spec))).expect("a pod");
    assert_eq!(
        pod["spec"],
        json!({
            "containers": [{"name": "c", "image": "nginx", "resources": {},
                "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
            "terminationGracePeriodSeconds": 0,
        })
    );
}

#[test]
fn fields_of_an_inner_message_become_the_outer_ones() {
    // spec.volumes[0] = {name, volumeSource: {emptyDir: {}}}
    let volume = [bytes(1, b"v"), bytes(2, &bytes(2, b""))].concat();
    let pod = decode(&body("v1", "Pod", &bytes(2, &bytes(1, &volume)))).expect("a pod");
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "v", "emptyDir": {}}])
    );
}

#[test]
fn ports_may_be_names_and_unset_ones_are_left_out() {
    let port = |target: &[u8]| [varint(3, 80), bytes(4, target), varint(5, 0)].concat();
    let named = [varint(1, 1), varint(2, 0), bytes(3, b"http")].concat();
    let unset = [varint(1, 0), varint(2, 0), bytes(3, b"")].concat();
    let spec = [bytes(1, &port(&named)), bytes(1, &port(&unset))].concat();
    let service = decode(&body("v1", "Service", &bytes(2, &spec))).expect("a Service");
    let expected = json!([{"port": 80, "targetPort": "http"}, {"port": 80}]);
    assert_eq!(service["spec"]["ports"], expected);
}

#[test]
fn negative_numbers_are_written_in_ten_bytes() {
    let raw = [vec![1 << 3], vec![0xff; 9], vec![1]].concat();
    let options = decode(&body("v1", "DeleteOptions", &raw)).expect("options");
    assert_eq!(options["gracePeriodSeconds"], -1);
}

#[test]
fn every_served_kind_has_its_field_numbers() {
    for resource in api::resources() {
        let definition = schema::definition(resource.definition).expect("a definition");
        let numbers = numbers(resource.definition).expect("numbers");
        for field in definition
            .fields
            .keys()
            .filter(|f| !matches!(&***f, "apiVersion" | "kind"))
        {
            assert!(
                numbers.values().any(|name| **name == **field),
                "{} {field}",
                resource.kind
            );
        }
    }
}

#[test]
fn nonsense_is_refused() {
    for broken in [&b"{}"[..], b"k8s\0\xff", b"k8s\0\x12\x7f", b"k8s\0\x0b"] {
        assert_eq!(decode(broken).map_err(|error| error.code()), Err(400));
    }
    let unknown = decode(&body("v1", "Odd", b""))
        .expect_err("not served")
        .to_string();
    assert_eq!(unknown, "no kind \"Odd\" is registered for version \"v1\"");
}
