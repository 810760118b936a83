//! The signers of Kubernetes: what each signs (KEP-1513, kubernetes 1.33 `pkg/apis/certificates`).

use std::collections::BTreeSet;

use super::request::Request;

pub const KUBE_APISERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBE_APISERVER_CLIENT_KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// To this group everything is allowed.
pub const MASTERS: &str = "system:masters";
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// What a signer demands of requests.
type Rule = fn(&Request, &BTreeSet<&str>) -> Result<(), String>;

const SIGNERS: [(&str, Rule); 4] = [
    (KUBE_APISERVER_CLIENT, client),
    (KUBE_APISERVER_CLIENT_KUBELET, kubelet_client),
    (KUBELET_SERVING, kubelet_serving),
    (LEGACY_UNKNOWN, anything),
];

/// Whether one of Kubernetes' signers signs this request for these usages. None: it is nobody's here.
pub fn fits(signer: &str, request: &Request, usages: &[&str]) -> Option<Result<(), String>> {
    let (_, rule) = SIGNERS.iter().find(|(name, _)| *name == signer)?;
    if request.organizations().contains(&MASTERS) {
        return Some(Err(format!(
            "use of {signer} signer with {MASTERS} group is not allowed"
        )));
    }
    Some(rule(request, &usages.iter().copied().collect()))
}

fn anything(_: &Request, _: &BTreeSet<&str>) -> Result<(), String> {
    Ok(())
}

fn client(_: &Request, usages: &BTreeSet<&str>) -> Result<(), String> {
    const NEEDED: &str = "client auth";
    const ALLOWED: [&str; 3] = [NEEDED, "digital signature", "key encipherment"];
    if let Some(other) = usages.iter().find(|usage| !ALLOWED.contains(usage)) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    match usages.contains(NEEDED) {
        true => Ok(()),
        false => Err(format!(
            "missing required usage for client certificate: {NEEDED}"
        )),
    }
}

fn kubelet_client(request: &Request, usages: &BTreeSet<&str>) -> Result<(), String> {
    organization(request)?;
    absent(request.dns_names.is_empty(), "DNS")?;
    absent(request.emails.is_empty(), "Email")?;
    absent(request.addresses.is_empty(), "IP")?;
    absent(request.uris.is_empty(), "URI")?;
    node_name(request)?;
    exactly(usages, "client auth")
}

fn kubelet_serving(request: &Request, usages: &BTreeSet<&str>) -> Result<(), String> {
    organization(request)?;
    if request.dns_names.is_empty() && request.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    absent(request.emails.is_empty(), "Email")?;
    absent(request.uris.is_empty(), "URI")?;
    exactly(usages, "server auth")?;
    node_name(request)
}

fn organization(request: &Request) -> Result<(), String> {
    match request.organizations()[..] {
        [NODES] => Ok(()),
        _ => Err(format!("subject organization is not {NODES}")),
    }
}

fn node_name(request: &Request) -> Result<(), String> {
    match request.common_name().starts_with(NODE_PREFIX) {
        true => Ok(()),
        false => Err(format!(
            "subject common name does not begin with {NODE_PREFIX}"
        )),
    }
}

fn absent(is_absent: bool, kind: &str) -> Result<(), String> {
    match is_absent {
        true => Ok(()),
        false => Err(format!("{kind} subjectAltNames are not allowed")),
    }
}

/// Keys that are not of RSA encipher no keys.
fn exactly(usages: &BTreeSet<&str>, purpose: &str) -> Result<(), String> {
    let with_rsa = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    let without = BTreeSet::from(["digital signature", purpose]);
    match *usages == with_rsa || *usages == without {
        true => Ok(()),
        false => {
            let mut words = vec!["digital signature", "key encipherment", purpose];
            words.sort_unstable();
            Err(format!("usages did not match [{}]", words.join(" ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::testing;
    use super::*;

    #[track_caller]
    fn check(signer: &str, request: &str, usages: &[&str], expected: &str) {
        let request = Request::parse(request).unwrap();
        let found = fits(signer, &request, usages).expect("a signer");
        assert_eq!(found.err().unwrap_or_default(), expected);
    }

    #[test]
    fn each_signer_has_its_subjects_names_and_usages() {
        let (client, serving) = (
            &["digital signature", "client auth"][..],
            &["digital signature", "key encipherment", "server auth"][..],
        );
        use testing::{JANE, MASTERS, NODE, SERVING};
        let kubelet = KUBE_APISERVER_CLIENT_KUBELET;
        check(KUBE_APISERVER_CLIENT, JANE, client, "");
        check(
            KUBE_APISERVER_CLIENT,
            JANE,
            serving,
            "invalid usage for client certificate: server auth",
        );
        check(
            KUBE_APISERVER_CLIENT,
            JANE,
            &["digital signature"],
            "missing required usage for client certificate: client auth",
        );
        check(kubelet, NODE, client, "");
        check(
            kubelet,
            JANE,
            client,
            "subject organization is not system:nodes",
        );
        check(
            kubelet,
            SERVING,
            client,
            "DNS subjectAltNames are not allowed",
        );
        check(
            kubelet,
            NODE,
            serving,
            "usages did not match [client auth digital signature key encipherment]",
        );
        check(KUBELET_SERVING, SERVING, serving, "");
        check(
            KUBELET_SERVING,
            NODE,
            serving,
            "DNS or IP subjectAltName is required",
        );
        check(LEGACY_UNKNOWN, JANE, &["any"], "");
        check(
            LEGACY_UNKNOWN,
            MASTERS,
            client,
            "use of kubernetes.io/legacy-unknown signer with system:masters group is not allowed",
        );
        let jane = Request::parse(JANE).unwrap();
        assert_eq!(fits("example.com/mine", &jane, client), None);
    }
}
