//! certificates.k8s.io/v1 ClusterTrustBundle (KEP-3257): certificates of authorities that pods may be given as
//! files, by its name or by the name of the signer whose they are.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use serde_json::Value;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::{pem, signer_name};
use crate::columns::{Column, NAME, Printer, name, text};
use crate::resource::{Behaviour, Field, Resource, Scope};
use crate::validation::{At, Errors, NameRule, names};

/// Of `spec.trustBundle`.
const MAX_BYTES: usize = 1024 * 1024;

pub fn resource() -> Resource {
    Resource {
        version: "v1".into(),
        definition: "io.k8s.api.certificates.v1.ClusterTrustBundle".into(),
        behaviour: Behaviour::TrustBundle,
        scope: Scope::Cluster,
        fields: vec![Field::of("spec.signerName")],
        // The rest of the rule is in `bundle_name`.
        name_rule: NameRule::PathSegment,
        validate,
        validate_update,
        printer: COLUMNS,
        ..Resource::of::<ClusterTrustBundle>(
            "certificates.k8s.io",
            "certificates",
            "clustertrustbundle",
            "clustertrustbundles",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        Column::text("SignerName", "Whose authorities these are"),
    ],
    cells,
};

fn cells(object: &Value, _: Timestamp) -> Vec<Value> {
    let signer = match text(object, "/spec/signerName") {
        "" => "<none>",
        signer => signer,
    };
    vec![name(object), signer.into()]
}

/// Whether a bundle of this signer (empty: of none) may have this name.
///
/// # Errors
/// Why not, in Kubernetes' words.
pub fn bundle_name(signer: &str, name: &str) -> Result<(), String> {
    if signer.is_empty() {
        return match name.contains(':') {
            true => {
                Err("ClusterTrustBundle without signer name must not have \":\" in its name".into())
            }
            false => names::subdomain(name),
        };
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => names::subdomain(rest),
        None => Err(format!(
            "ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
        )),
    }
}

/// The signer that a bundle of this name has; empty for none.
pub fn signer_of(name: &str) -> String {
    let signer = name.rsplit_once(':').map(|(signer, _)| signer);
    signer.unwrap_or_default().replace(':', "/")
}

/// The certificates of a bundle, as DER, in its order.
///
/// # Errors
/// The first thing that is wrong, by the number of its block.
pub fn anchors(bundle: &str) -> Result<Vec<Vec<u8>>, String> {
    let (mut rest, mut found) = (bundle, Vec::new());
    while let Some((block, after)) = pem::next(rest) {
        let number = found.len();
        if block.kind != "CERTIFICATE" {
            return Err(format!("entry {number} has bad block type: {}", block.kind));
        }
        if block.headers {
            return Err(format!("entry {number} has PEM block headers"));
        }
        let parsed = X509Certificate::from_der(&block.bytes);
        let Ok(([], certificate)) = parsed else {
            return Err(format!("entry {number} does not parse as X.509"));
        };
        if !certificate.is_ca() {
            return Err(format!("entry {number} does not have the CA bit set"));
        }
        found.push(block.bytes);
        rest = after;
    }
    // A reader that goes on behind a broken block would find more than this.
    match rest.contains("-----BEGIN ") {
        true => Err(format!("entry {} does not read as PEM", found.len())),
        false => Ok(found),
    }
}

/// What the pods see of these bundles: each certificate once, in an order that no bundle decides.
pub fn merged<'a>(bundles: impl IntoIterator<Item = &'a str>) -> String {
    // What is stored has been read before; what does not read now is left out.
    let read = bundles
        .into_iter()
        .flat_map(|it| anchors(it).unwrap_or_default());
    let mut all: Vec<Vec<u8>> = read.collect();
    all.sort_unstable();
    all.dedup();
    all.iter()
        .map(|der| pem::block("CERTIFICATE", der))
        .collect()
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    named(object, errors);
    let bundle = spec.field("trustBundle");
    if bundle.text().len() > MAX_BYTES {
        errors.too_long(&bundle, MAX_BYTES);
        return;
    }
    let mut wrong = |why: &str| errors.invalid_value(&bundle, "<value omitted>", why);
    match anchors(bundle.text()) {
        Err(why) => wrong(&why),
        Ok(found) if found.is_empty() => wrong("at least one trust anchor must be provided"),
        Ok(found) => {
            let mut places: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
            for (number, der) in found.iter().enumerate() {
                places.entry(der).or_default().push(number);
            }
            for same in places.into_values().filter(|same| same.len() > 1) {
                let same: Vec<String> = same.iter().map(ToString::to_string).collect();
                wrong(&format!(
                    "duplicate trust anchor (indices [{}])",
                    same.join(" ")
                ));
            }
        }
    }
}

fn named(object: &At<'_>, errors: &mut Errors) {
    let (metadata, spec) = (object.field("metadata"), object.field("spec"));
    let signer = spec.field("signerName");
    if !signer.is_empty() {
        signer_name(&signer, errors);
    }
    let name = metadata.field("name");
    // Without a name there is one to be made, which is judged then.
    if !name.is_empty() {
        errors.check(&name, bundle_name(signer.text(), name.text()));
    }
}

fn validate_update(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let signer = |object: &At<'_>| object.field("spec").field("signerName").text().to_owned();
    if signer(new) != signer(old) {
        errors.invalid(&new.field("spec").field("signerName"), "field is immutable");
    }
}

#[cfg(test)]
pub mod testing {
    //! Certificates that `openssl req -x509` has made.

    pub const AUTHORITY_A: &str = include_str!("testdata/authority-a.crt");
    pub const AUTHORITY_B: &str = include_str!("testdata/authority-b.crt");
    /// It may sign no others.
    pub const LEAF: &str = include_str!("testdata/leaf.crt");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{assert_refused, assert_wrong, created, row, wrong};

    fn bundle() -> Value {
        json!({
            "metadata": {"name": "example.com:mine:first"},
            "spec": {"signerName": "example.com/mine", "trustBundle": testing::AUTHORITY_A},
        })
    }

    #[test]
    fn a_bundle_has_authorities_and_a_name_that_says_whose() {
        let whole = bundle();
        let name = "/metadata/name";
        let trust = "/spec/trustBundle";
        let omitted =
            |why: &str| format!("spec.trustBundle: Invalid value: \"<value omitted>\": {why}");
        let (first, leaf) = (testing::AUTHORITY_A, testing::LEAF);
        let twice = format!("{first}{}{first}", testing::AUTHORITY_B);
        let key = first.replace("CERTIFICATE", "PRIVATE KEY");
        let headers = first.replacen("-----\n", "-----\nA: b\n\n", 1);
        let broken = format!("{first}-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
        let empty = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert_wrong(
            &resource(),
            &whole,
            &[
                (
                    name,
                    json!("first"),
                    "metadata.name: Invalid value: \"first\": ClusterTrustBundle \
                    for signerName example.com/mine must be named with prefix example.com:mine:",
                ),
                (
                    trust,
                    json!("none"),
                    &omitted("at least one trust anchor must be provided"),
                ),
                (
                    trust,
                    json!(key),
                    &omitted("entry 0 has bad block type: PRIVATE KEY"),
                ),
                (
                    trust,
                    json!(headers),
                    &omitted("entry 0 has PEM block headers"),
                ),
                (
                    trust,
                    json!(empty),
                    &omitted("entry 0 does not parse as X.509"),
                ),
                (
                    trust,
                    json!(leaf),
                    &omitted("entry 0 does not have the CA bit set"),
                ),
                (
                    trust,
                    json!(broken),
                    &omitted("entry 1 does not read as PEM"),
                ),
                (
                    trust,
                    json!(twice),
                    &omitted("duplicate trust anchor (indices [0 2])"),
                ),
                (
                    trust,
                    json!("x".repeat(MAX_BYTES + 1)),
                    "spec.trustBundle: Too long: may not be more than 1048576 bytes",
                ),
            ],
        );
    }

    #[test]
    fn the_signer_of_a_bundle_never_changes() {
        let stored = created(&resource(), bundle());
        let other = json!("example.com/yours");
        let name = "metadata.name: Invalid value: \"example.com:mine:first\": ClusterTrustBundle for \
                    signerName example.com/yours must be named with prefix example.com:yours:";
        let immutable = "spec.signerName: Invalid value: \"example.com/yours\": field is immutable";
        let both = format!("[{name}, {immutable}]");
        assert_refused(&resource(), &stored, &[("/spec/signerName", other, &both)]);
    }

    #[test]
    fn a_bundle_of_no_signer_has_a_plain_name() {
        let mut object = bundle();
        object["spec"].as_object_mut().unwrap().remove("signerName");
        object["metadata"]["name"] = json!("a:b");
        let why = "metadata.name: Invalid value: \"a:b\": ClusterTrustBundle without signer name must \
                   not have \":\" in its name";
        assert_eq!(wrong(&resource(), object.clone()), why);
        object["metadata"]["name"] = json!("plain");
        let stored = created(&resource(), object);
        assert_eq!(row(&resource(), &stored), json!(["plain", "<none>"]));
    }

    #[test]
    fn the_signer_of_a_bundle_is_in_its_name() {
        assert_eq!(signer_of("example.com:mine:first"), "example.com/mine");
        assert_eq!(signer_of("plain"), "");
        assert!(bundle_name("example.com/mine", "example.com:mine:Not").is_err());
        assert_eq!(bundle_name("", "plain"), Ok(()));
    }

    #[test]
    fn bundles_are_merged_without_what_stands_between_and_twice() {
        let (a, b) = (testing::AUTHORITY_A, testing::AUTHORITY_B);
        let first = format!("text\n{a}more\n{b}");
        let both = merged([first.as_str(), a]);
        assert_eq!(both, merged([b, a]), "in one order");
        assert_eq!(anchors(&both).map(|it| it.len()), Ok(2));
        assert!(!both.contains("text") && both.lines().all(|line| line.len() <= 64));
        assert_eq!(merged([]), "");
    }
}
