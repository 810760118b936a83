//! The kinds of the group certificates.k8s.io.

pub mod certificate_signing_request;
mod pem;
pub mod request;
pub mod signers;
pub mod trust_bundle;

use crate::validation::{At, Errors, names};

const MAX_DOMAIN_BYTES: usize = 253;

/// A domain, a slash, a namespace, a dot and a name.
const MAX_SIGNER_BYTES: usize = MAX_DOMAIN_BYTES + 1 + 253 + 63 + 1;

/// `example.com/signer-name`
pub(crate) fn signer_name(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        errors.required(at, "signerName must be provided");
        return;
    }
    let parts: Vec<&str> = at.text().split('/').collect();
    let [domain, path] = parts[..] else {
        errors.invalid(
            at,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        return;
    };
    if domain.len() > MAX_DOMAIN_BYTES {
        errors.too_long(at, MAX_DOMAIN_BYTES);
    }
    let mut labels = |part: &str, rule: fn(&str) -> Result<(), String>| {
        let wrong = part
            .split('.')
            .find_map(|label| Some((label, rule(label).err()?)));
        if let Some((label, why)) = wrong {
            errors.invalid_value(at, part, format!("validating label {label:?}: {why}"));
        }
    };
    labels(domain, names::label);
    labels(path, names::subdomain);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.invalid_value(at, domain, why);
    }
    if at.text().len() > MAX_SIGNER_BYTES {
        errors.too_long(at, MAX_SIGNER_BYTES);
    }
}
