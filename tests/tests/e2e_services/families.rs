//! Families of addresses, and a protocol that is neither TCP nor UDP.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};
use tests::cluster::wait;

use crate::setting::{Setting, service};

/// What is asked for, and the families and the policy that it gives.
const WANTED: [(&str, &str, &[&str], &str); 5] = [
    ("plain", "{}", &["IPv4"], "SingleStack"),
    (
        "six",
        r#"{"ipFamilies": ["IPv6"]}"#,
        &["IPv6"],
        "SingleStack",
    ),
    (
        "prefer",
        r#"{"ipFamilyPolicy": "PreferDualStack"}"#,
        &["IPv4", "IPv6"],
        "PreferDualStack",
    ),
    (
        "require",
        r#"{"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}"#,
        &["IPv4", "IPv6"],
        "RequireDualStack",
    ),
    (
        "turned",
        r#"{"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}"#,
        &["IPv6", "IPv4"],
        "RequireDualStack",
    ),
];

pub fn addresses_in_order(setting: &Setting) {
    for (name, asked, families, policy) in WANTED {
        let mut spec: Value = serde_json::from_str(asked).unwrap();
        spec["selector"] = json!({"app": "web"});
        spec["ports"] = json!([{"port": 80}]);
        setting.create(&service(name, &spec)).unwrap();
        let spec = setting.spec(name);
        assert_eq!(spec["ipFamilies"], json!(families), "{name}");
        assert_eq!(spec["ipFamilyPolicy"], policy, "{name}");
        let addresses: Vec<IpAddr> = serde_json::from_value(spec["clusterIPs"].clone()).unwrap();
        let of = |address: &IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        assert_eq!(
            addresses.iter().map(of).collect::<Vec<_>>(),
            families,
            "{name}"
        );
        assert_eq!(spec["clusterIP"], spec["clusterIPs"][0], "{name}");
        wait("a slice for each family, and no other", || {
            let slices = setting.slices(name)?;
            let mut kinds: Vec<&str> = slices
                .iter()
                .filter_map(|slice| slice["addressType"].as_str())
                .collect();
            let mut families = families.to_vec();
            kinds.sort_unstable();
            families.sort_unstable();
            Ok((kinds == families).then_some(()))
        });
        for address in addresses {
            setting.serves("node-1", SocketAddr::new(address, 80));
        }
        setting.delete(&format!("service {name}"));
    }
}

/// The API's part, down to what nodes are told; what happens to packets is shown where there are
/// packets to look at.
pub fn sctp(setting: &Setting) {
    let ports = json!([{"port": 5060, "targetPort": 5061, "protocol": "SCTP", "nodePort": 30130}]);
    let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports});
    setting.create(&service("sctp", &spec)).unwrap();
    let port = setting.spec("sctp")["ports"][0].clone();
    assert_eq!(
        (&port["protocol"], &port["nodePort"]),
        (&json!("SCTP"), &json!(30130))
    );
    let table = setting.kubectl.run("get service sctp").unwrap();
    assert!(table.contains("5060:30130/SCTP"), "{table}");
    wait("two pods are its endpoints", || {
        let slices = setting.slices("sctp")?;
        let Some(slice) = slices.first() else {
            return Ok(None);
        };
        let port = (&slice["ports"][0]["port"], &slice["ports"][0]["protocol"]);
        let endpoints = slice["endpoints"].as_array().map(Vec::len);
        Ok((port == (&json!(5061), &json!("SCTP")) && endpoints == Some(2)).then_some(()))
    });
    setting.delete("service sctp");
}
