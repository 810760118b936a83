//! CertificateSubjectRestriction, CertificateApproval, CertificateSigning, ClusterTrustBundleAttest, and what NodeRestriction says of
//! nodes' requests (kubernetes 1.33, `plugin/pkg/admission`).

use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::authn::NODE_PREFIX;
use crate::rest::review;
use api::kinds::certificates::request::Request;
use api::kinds::certificates::signers::{
    KUBE_APISERVER_CLIENT, KUBE_APISERVER_CLIENT_KUBELET, KUBELET_SERVING, MASTERS,
};
use api::{ApiError, Behaviour, Subresource};

/// Whether the caller may ask for, decide on or sign such a request, or vouch for a signer's authorities.
pub fn validate(attributes: &Attributes<'_>, object: Option<&Value>) -> Result<(), ApiError> {
    let Some(new) = object else {
        return Ok(());
    };
    let refused = match attributes.resource.behaviour {
        Behaviour::CertificateRequest => request_refused(attributes, new),
        Behaviour::TrustBundle => bundle_refused(attributes, new),
        _ => None,
    };
    refused.map_or(Ok(()), |why| {
        Err(ApiError::forbidden(
            attributes.resource,
            attributes.name,
            why,
        ))
    })
}

fn request_refused(attributes: &Attributes<'_>, new: &Value) -> Option<String> {
    match (attributes.operation, attributes.subresource, attributes.old) {
        (Operation::Create, None, _) => subject_refused(attributes, &new["spec"]),
        (Operation::Update, Some(Subresource::Approval), Some(old)) => {
            signer_refused(attributes, "approve", old)
        }
        (Operation::Update, Some(Subresource::Status), Some(old)) => {
            let is_same = |field: &str| new["status"][field] == old["status"][field];
            match is_same("certificate") && is_same("conditions") {
                true => None,
                false => signer_refused(attributes, "sign", old),
            }
        }
        _ => None,
    }
}

/// Pods trust what stands in a signer's name: only who may `attest` for it writes there. The signer of a bundle
/// does not change, and what leaves its content alone asks for nothing (ClusterTrustBundleAttest).
fn bundle_refused(attributes: &Attributes<'_>, new: &Value) -> Option<String> {
    let signer = new["spec"]["signerName"].as_str().unwrap_or_default();
    let is_same = attributes.old.is_some_and(|old| old["spec"] == new["spec"]);
    if signer.is_empty() || is_same || may_for_signer(attributes, "attest", signer) {
        return None;
    }
    Some(format!(
        "user not permitted to attest for signerName {signer:?}"
    ))
}

fn subject_refused(attributes: &Attributes<'_>, spec: &Value) -> Option<String> {
    let signer = spec["signerName"].as_str().unwrap_or_default();
    let request = spec["request"].as_str().unwrap_or_default();
    let request = match Request::of_spec(request) {
        Ok(request) => request,
        Err(why) => return Some(format!("failed to parse CSR: {why}")),
    };
    if signer == KUBE_APISERVER_CLIENT && request.organizations().contains(&MASTERS) {
        return Some(format!(
            "use of {signer} signer with {MASTERS} group is not allowed"
        ));
    }
    let node = attributes.user.node()?;
    let of_nodes = [KUBE_APISERVER_CLIENT_KUBELET, KUBELET_SERVING].contains(&signer);
    let named = request.common_name().strip_prefix(NODE_PREFIX);
    let is_others = of_nodes && named.is_some_and(|named| named != node);
    is_others.then(|| format!("can only create a node CSR with CN={NODE_PREFIX}{node}"))
}

/// Whether the caller lacks the right to approve or sign for the signer of a request.
fn signer_refused(attributes: &Attributes<'_>, verb: &str, old: &Value) -> Option<String> {
    let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
    let allowed = may_for_signer(attributes, verb, signer);
    (!allowed).then(|| format!("user not permitted to {verb} requests with signerName {signer:?}"))
}

/// Whether the caller has the right for a signer: by its name, or by all names of its domain.
fn may_for_signer(attributes: &Attributes<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    let may = |name: &str| {
        let wish = json!({"resourceAttributes": {"group": "certificates.k8s.io",
            "resource": "signers", "verb": verb, "name": name}});
        review::may(attributes.state, attributes.user, &wish)
    };
    may(signer) || may(&format!("{domain}/*"))
}
