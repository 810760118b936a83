use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::selection::gather;
use super::{endpoints, mirror, sctp, slices};
use crate::action::{Action, Plan};
use crate::fixture::{controlled_by, now, words, world};
use crate::object::Key;
use client::Kind;

fn service(spec: Value) -> (Kind, Value) {
    let mut value = json!({
        "metadata": {"name": "web", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    for (field, given) in spec.as_object().unwrap() {
        value["spec"][field] = given.clone();
    }
    (Kind::SERVICE, value)
}

fn pod(number: usize, ready: bool) -> (Kind, Value) {
    let value = json!({
        "metadata": {"name": format!("pod-{number}"), "labels": {"app": "web"}},
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "a", "ports": [{"name": "http", "containerPort": 8000 + number}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": format!("10.100.{}.{}", number / 200, number % 200 + 2),
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    });
    (Kind::POD, value)
}

/// The slice that a create wrote, as the server stores it.
fn stored(plan: &Plan) -> Vec<(Kind, Value)> {
    let creates = plan.actions.iter().filter_map(|action| match action {
        Action::Create(create) => Some(create),
        _ => None,
    });
    let named = creates.enumerate().map(|(index, create)| {
        let mut object = create.object.clone();
        if object["metadata"]["name"].is_null() {
            object["metadata"]["name"] = json!(format!("web-{index}"));
        }
        (create.kind, object)
    });
    named.collect()
}

fn plan_slices(objects: Vec<(Kind, Value)>) -> Plan {
    let world = world(objects);
    slices::plan(&gather(&world, &Key::new("ns", "web")).unwrap())
}

fn plan_endpoints(objects: Vec<(Kind, Value)>) -> Plan {
    let world = world(objects);
    endpoints::plan(&gather(&world, &Key::new("ns", "web")).unwrap())
}

fn sizes(plan: &Plan) -> Vec<usize> {
    let slices = stored(plan).into_iter();
    slices
        .map(|(_, slice)| slice["endpoints"].as_array().unwrap().len())
        .collect()
}

#[test]
fn endpoints_are_cut_into_slices_of_a_hundred() {
    let mut objects = vec![service(json!({}))];
    objects.extend((0..250).map(|number| pod(number, true)));
    let plan = plan_slices(objects);
    assert_eq!(sizes(&plan), [100, 100, 50]);
    let slice = &stored(&plan)[0].1;
    assert_eq!(
        slice["metadata"]["labels"],
        json!({
            "team": "a",
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        })
    );
    assert_eq!(
        slice["metadata"]["ownerReferences"],
        controlled_by(Kind::SERVICE, "web")
    );
    assert_eq!(
        slice["ports"],
        json!([{"name": "", "port": 8080, "protocol": "TCP"}])
    );
    let endpoint = &slice["endpoints"][0];
    assert_eq!(endpoint["nodeName"], "node-1");
    assert_eq!(endpoint["targetRef"]["kind"], "Pod");
}

#[test]
fn one_pod_less_changes_one_slice_and_one_more_fills_the_gap() {
    let pods: Vec<_> = (0..250).map(|number| pod(number, true)).collect();
    let mut all = vec![service(json!({}))];
    all.extend(pods.iter().cloned());
    let slices = stored(&plan_slices(all.clone()));
    let mut fewer = all.clone();
    fewer.remove(1);
    fewer.extend(slices.iter().cloned());
    let plan = plan_slices(fewer);
    assert_eq!(plan.actions.len(), 1, "{:?}", words(&plan.actions));
    all.extend(slices);
    assert_eq!(plan_slices(all.clone()), Plan::default());
    all.push(pod(250, true));
    assert_eq!(plan_slices(all).actions.len(), 1);
}

#[test]
fn conditions_tell_of_readiness_and_of_ending() {
    let ending = |ready| {
        let mut pod = pod(1, ready);
        pod.1["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod
    };
    // (pod, published regardless, (ready, serving, terminating))
    let cases = [
        (pod(1, true), false, (true, true, false)),
        (pod(1, false), false, (false, false, false)),
        (ending(true), false, (false, true, true)),
        (ending(false), false, (false, false, true)),
        (pod(1, false), true, (true, false, false)),
        (ending(true), true, (true, true, true)),
    ];
    for (pod, published, (ready, serving, terminating)) in cases {
        let plan = plan_slices(vec![
            service(json!({"publishNotReadyAddresses": published})),
            pod,
        ]);
        let conditions = stored(&plan)[0].1["endpoints"][0]["conditions"].clone();
        let expected = json!({"ready": ready, "serving": serving, "terminating": terminating});
        assert_eq!(conditions, expected);
    }
}

#[test]
fn endpoints_come_before_others_go() {
    // The new pod resolves the port's name to another number: it is in a slice of its own.
    let ports = json!({"ports": [{"name": "web", "port": 80, "targetPort": "http"}]});
    for (old, new) in [(1, 2), (2, 1)] {
        let before = vec![service(ports.clone()), pod(old, true)];
        let slices = stored(&plan_slices(before));
        let mut ending = pod(old, true);
        ending.1["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let mut during = vec![service(ports.clone()), ending, pod(new, true)];
        during.extend(slices.iter().cloned());
        let plan = plan_slices(during);
        assert!(
            matches!(
                plan.actions.as_slice(),
                [Action::Create(_), Action::Patch(_)]
            ),
            "{:?}",
            words(&plan.actions)
        );
        let mut after = vec![service(ports.clone()), pod(new, true)];
        after.extend(slices);
        let plan = plan_slices(after);
        assert!(
            matches!(
                plan.actions.as_slice(),
                [Action::Create(_), Action::Delete(_)]
            ),
            "{:?}",
            words(&plan.actions)
        );
    }
}

#[test]
fn pods_that_cannot_serve_are_no_endpoints() {
    let mut finished = pod(1, true);
    finished.1["status"]["phase"] = json!("Succeeded");
    let mut without_address = pod(2, true);
    without_address.1["status"]["podIP"] = Value::Null;
    let mut foreign = pod(3, true);
    foreign.1["metadata"]["labels"] = json!({"app": "other"});
    let plan = plan_slices(vec![service(json!({})), finished, without_address, foreign]);
    assert_eq!(
        sizes(&plan),
        [0],
        "one empty slice tells that there is no endpoint"
    );
}

#[test]
fn a_named_port_is_each_pods_own() {
    let ports = json!({"ports": [{"name": "web", "port": 80, "targetPort": "http"}]});
    let plan = plan_slices(vec![service(ports), pod(1, true), pod(2, true)]);
    let ports: BTreeMap<i64, usize> = stored(&plan)
        .iter()
        .map(|(_, s)| {
            (
                s["ports"][0]["port"].as_i64().unwrap(),
                s["endpoints"].as_array().unwrap().len(),
            )
        })
        .collect();
    assert_eq!(ports, BTreeMap::from([(8001, 1), (8002, 1)]));
}

#[test]
fn a_port_of_a_sidecar_is_found_by_its_name() {
    let ports = json!({"ports": [{"port": 80, "targetPort": "proxy"}]});
    let mut with = pod(1, true);
    with.1["spec"]["initContainers"] = json!([
        {"name": "once", "ports": [{"name": "proxy", "containerPort": 1}]},
        {"name": "side", "restartPolicy": "Always",
            "ports": [{"name": "proxy", "containerPort": 9000}]},
    ]);
    let plan = plan_slices(vec![service(ports), with]);
    assert_eq!(stored(&plan)[0].1["ports"][0]["port"], 9000);
}

#[test]
fn a_headless_service_is_marked_and_names_its_pods() {
    let mut named = pod(1, true);
    named.1["spec"]["hostname"] = json!("db-0");
    named.1["spec"]["subdomain"] = json!("web");
    let plan = plan_slices(vec![service(json!({"clusterIP": "None"})), named]);
    let slice = &stored(&plan)[0].1;
    assert_eq!(
        slice["metadata"]["labels"]["service.kubernetes.io/headless"],
        ""
    );
    assert_eq!(slice["endpoints"][0]["hostname"], "db-0");
}

#[test]
fn a_service_without_selector_is_left_to_its_user() {
    let world = world([service(json!({"selector": {}}))]);
    assert!(gather(&world, &Key::new("ns", "web")).is_none());
}

#[test]
fn endpoints_keep_ready_and_unready_addresses_apart_and_ending_ones_out() {
    let mut ending = pod(3, true);
    ending.1["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let objects = vec![service(json!({})), pod(1, true), pod(2, false), ending];
    let plan = plan_endpoints(objects.clone());
    let (_, written) = &stored(&plan)[0];
    let subset = &written["subsets"][0];
    let ips = |field: &str| -> Vec<String> {
        let addresses = subset[field].as_array().unwrap().iter();
        addresses
            .map(|address| address["ip"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ips("addresses"), ["10.100.0.3"]);
    assert_eq!(ips("notReadyAddresses"), ["10.100.0.4"]);
    assert_eq!(subset["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
    let again = objects
        .into_iter()
        .chain([(Kind::ENDPOINTS, written.clone())])
        .collect();
    assert_eq!(plan_endpoints(again), Plan::default());
}

#[test]
fn endpoints_of_a_service_that_is_gone_go_unless_the_server_still_has_it() {
    let world = world([(Kind::ENDPOINTS, json!({"metadata": {"name": "web"}}))]);
    let left = world.get(Kind::ENDPOINTS, &Key::new("ns", "web")).unwrap();
    let plan = endpoints::plan_gone(left);
    let [Action::Delete(delete)] = plan.actions.as_slice() else {
        panic!("one deletion")
    };
    assert_eq!(delete.unless_any[0].0, Kind::SERVICE);
}

#[test]
fn a_service_of_two_families_has_slices_of_both() {
    let mut dual = pod(1, true);
    dual.1["status"]["podIPs"] = json!([{"ip": "10.100.0.3"}, {"ip": "fd00:10:100::3"}]);
    let families = json!({"ipFamilies": ["IPv4", "IPv6"]});
    let plan = plan_slices(vec![service(families), dual, pod(2, true)]);
    let written: Vec<_> = stored(&plan)
        .iter()
        .map(|(_, slice)| {
            let endpoints = slice["endpoints"].as_array().unwrap().iter();
            let addresses: Vec<_> = endpoints
                .map(|endpoint| endpoint["addresses"][0].clone())
                .collect();
            json!([slice["addressType"], addresses])
        })
        .collect();
    let expected = [
        json!(["IPv4", ["10.100.0.3", "10.100.0.4"]]),
        json!(["IPv6", ["fd00:10:100::3"]]),
    ];
    assert_eq!(written, expected);
}

fn node(zone: &str) -> (Kind, Value) {
    let labels = json!({"topology.kubernetes.io/zone": zone});
    (
        Kind::NODE,
        json!({"metadata": {"name": "node-1", "labels": labels}}),
    )
}

#[test]
fn ready_endpoints_carry_the_hint_that_the_distribution_asks_for() {
    let zone = json!([{"name": "west"}]);
    let nodes = json!([{"name": "node-1"}]);
    let cases = [
        (Value::Null, true, Value::Null),
        (json!("PreferClose"), true, json!({"forZones": zone})),
        (json!("PreferSameZone"), true, json!({"forZones": zone})),
        (
            json!("PreferSameNode"),
            true,
            json!({"forNodes": nodes, "forZones": zone}),
        ),
        (json!("PreferClose"), false, Value::Null),
    ];
    for (distribution, ready, expected) in cases {
        let plan = plan_slices(vec![
            service(json!({"trafficDistribution": distribution})),
            pod(1, ready),
            node("west"),
        ]);
        let endpoint = stored(&plan)[0].1["endpoints"][0].clone();
        assert_eq!(endpoint["zone"], "west");
        assert_eq!(endpoint["hints"], expected, "{distribution}");
    }
}

const CUSTOM: (&str, &str) = ("10.1.2.3", "fd00::3");

fn custom_endpoints() -> (Kind, Value) {
    let subsets = json!([{
        "addresses": [{"ip": CUSTOM.0}, {"ip": CUSTOM.1}],
        "notReadyAddresses": [{"ip": "10.1.2.4", "nodeName": "node-1"}, {"ip": CUSTOM.0}],
        "ports": [{"name": "a", "port": 8080}, {"name": "b", "port": 53, "protocol": "UDP"}],
    }]);
    (
        Kind::ENDPOINTS,
        json!({"metadata": {"name": "web", "uid": "ep", "labels": {"b": "c"}}, "subsets": subsets}),
    )
}

fn mirrored(objects: Vec<(Kind, Value)>) -> Plan {
    let world = world(objects);
    mirror::plan(&mirror::gather(&world, &Key::new("ns", "web")))
}

#[test]
fn custom_endpoints_are_mirrored_to_slices_of_each_family() {
    let objects = vec![service(json!({"selector": null})), custom_endpoints()];
    let plan = mirrored(objects.clone());
    let slices = stored(&plan);
    let four = &slices[0].1;
    assert_eq!(
        four["metadata"]["labels"],
        json!({
            "b": "c",
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
        })
    );
    assert_eq!(four["metadata"]["ownerReferences"][0]["uid"], "ep");
    let expected = json!([
        {"addresses": [CUSTOM.0], "conditions": {"ready": true}},
        {"addresses": ["10.1.2.4"], "conditions": {"ready": false}, "nodeName": "node-1"},
    ]);
    assert_eq!(four["endpoints"], expected);
    assert_eq!(four["ports"].as_array().unwrap().len(), 2);
    assert_eq!(slices[1].1["addressType"], "IPv6");
    assert_eq!(slices.len(), 2);
    let settled = objects.iter().cloned().chain(slices.clone()).collect();
    assert_eq!(mirrored(settled), Plan::default());
    // Changed endpoints change the slice; none left take it away.
    let mut fewer = custom_endpoints();
    fewer.1["subsets"][0]["notReadyAddresses"] = Value::Null;
    fewer.1["subsets"][0]["addresses"] = json!([{"ip": CUSTOM.0}]);
    let changed: Vec<_> = [objects[0].clone(), fewer]
        .into_iter()
        .chain(slices.clone())
        .collect();
    let words = words(&mirrored(changed).actions);
    assert!(
        words[0].starts_with("patch endpointslices web-0"),
        "{words:?}"
    );
    assert_eq!(words[1], "delete endpointslices web-1");
}

#[test]
fn only_endpoints_of_a_service_without_selector_are_mirrored() {
    let mut skipped = custom_endpoints();
    skipped.1["metadata"]["labels"]["endpointslice.kubernetes.io/skip-mirror"] = "true".into();
    let mut lock = custom_endpoints();
    lock.1["metadata"]["annotations"] = json!({"control-plane.alpha.kubernetes.io/leader": "{}"});
    let own = service(json!({"selector": null}));
    let cases = [
        vec![service(json!({})), custom_endpoints()],
        vec![custom_endpoints()],
        vec![own.clone(), skipped],
        vec![own.clone(), lock],
        vec![
            service(json!({"selector": null, "type": "ExternalName"})),
            custom_endpoints(),
        ],
    ];
    let slices = stored(&mirrored(vec![own, custom_endpoints()]));
    for objects in cases {
        assert_eq!(mirrored(objects.clone()), Plan::default());
        let before = objects.into_iter().chain(slices.clone()).collect();
        let words = words(&mirrored(before).actions);
        let expected = ["delete endpointslices web-0", "delete endpointslices web-1"];
        assert_eq!(words, expected);
    }
}

#[test]
fn a_service_that_loses_its_selector_keeps_its_endpoints_as_the_users() {
    let selected = stored(&plan_slices(vec![service(json!({})), pod(1, true)]));
    let written = stored(&plan_endpoints(vec![service(json!({})), pod(1, true)]));
    let objects: Vec<_> = [service(json!({"selector": null}))]
        .into_iter()
        .chain(selected)
        .chain(written)
        .collect();
    let words = words(&mirrored(objects).actions);
    assert_eq!(
        words,
        ["create endpointslices web-", "delete endpointslices web-0"],
        "the new one is there before the old one goes"
    );
}

fn sctp(spec: Value, condition: Option<&str>) -> (Kind, Value) {
    let mut service = service(spec);
    if let Some(message) = condition {
        service.1["status"]["conditions"] = json!([
            {"type": "Other", "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": sctp::CONDITION, "status": "True", "reason": "R", "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]);
    }
    service
}

fn told_of_sctp(service: (Kind, Value)) -> Vec<String> {
    let world = world(vec![service, pod(1, true)]);
    let view = sctp::gather(&world, &Key::new("ns", "web")).unwrap();
    words(&sctp::plan(&view, now()).actions)
}

#[test]
fn sctp_ports_that_would_have_to_change_are_told_once_and_taken_back() {
    let ports = |port: u16, target: Value| json!({"ports": [{"port": port, "targetPort": target, "protocol": "SCTP"}]});
    assert!(told_of_sctp(sctp(ports(8080, json!(8080)), None)).is_empty());
    let words = told_of_sctp(sctp(ports(80, json!(8080)), None));
    let message = "port 80 leads to 8080: SCTP's checksum covers its ports, so packets that need \
                   another port are dropped; give both the same number";
    assert!(words[0].contains(message), "{words:?}");
    assert_eq!(
        words[1],
        format!("tell PortTranslationUnsupported {message}")
    );
    assert!(told_of_sctp(sctp(ports(80, json!(8080)), Some(message))).is_empty());
    let words = told_of_sctp(sctp(ports(8080, json!(8080)), Some(message)));
    assert!(words[0].contains(r#""type":"Other""#), "{words:?}");
    assert!(!words[0].contains(sctp::CONDITION), "{words:?}");
    let mut node_port = ports(8080, json!(8080));
    node_port["type"] = "NodePort".into();
    node_port["ports"][0]["nodePort"] = 30080.into();
    let words = told_of_sctp(sctp(node_port, None));
    assert!(
        words[0].contains("nodePort 30080 leads to 8080"),
        "{words:?}"
    );
    let named = ports(80, json!("http"));
    assert!(
        told_of_sctp(sctp(named, None)).is_empty(),
        "no such port of SCTP"
    );
}
