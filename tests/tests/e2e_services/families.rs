//! Families of addresses.

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
