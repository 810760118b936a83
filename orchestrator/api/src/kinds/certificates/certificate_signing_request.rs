//! certificates.k8s.io/v1 CertificateSigningRequest.
//!
//! Who asks (`spec.username` and its like) and the times of conditions are the API server's to fill in:
//! here they are cleared on create, and kept.

use std::collections::BTreeSet;

use base64::Engine as _;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};

use super::request::Request;
use super::signers::LEGACY_UNKNOWN;
use super::{pem, signer_name};
use crate::columns::{self, AGE, Column, NAME, Printer, age, list, name, text};
use crate::prepare::{keep, remove};
use crate::resource::{Behaviour, Field, Resource, Scope, Subresource};
use crate::validation::{At, Errors, NameRule};

const MIN_EXPIRATION_SECONDS: i64 = 600;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What has been decided stays.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

/// What only the approval says.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

pub fn resource() -> Resource {
    Resource {
        behaviour: Behaviour::CertificateRequest,
        short_names: vec!["csr".into()],
        scope: Scope::Cluster,
        subresources: vec![Subresource::Approval, Subresource::Status],
        fields: vec![Field::of("spec.signerName")],
        name_rule: NameRule::PathSegment,
        has_status: true,
        create,
        update: |new, old| keep(new, old, "", "spec"),
        validate,
        validate_subresource,
        printer: COLUMNS,
        ..Resource::of::<CertificateSigningRequest>(
            "certificates.k8s.io",
            "certificates",
            "certificatesigningrequest",
            "certificatesigningrequests",
        )
    }
}

const COLUMNS: Printer = Printer {
    columns: &[
        NAME,
        AGE,
        Column::text("SignerName", "Who is to sign"),
        Column::text("Requestor", "Who asks"),
        Column::text("RequestedDuration", "How long the certificate is to last"),
        Column::text("Condition", "What has become of the request"),
    ],
    cells,
};

fn create(object: &mut Value) {
    for field in ["extra", "groups", "uid", "username"] {
        remove(object, "/spec", field);
    }
    object["status"] = json!({});
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let request = spec.field("request");
    if let Err(why) = Request::of_spec(request.text()) {
        errors.invalid(&request, why);
    }
    usages(&spec.field("usages"), errors);
    let signer = spec.field("signerName");
    if signer.text() == LEGACY_UNKNOWN {
        errors.invalid(
            &signer,
            "the legacy signerName is not allowed via this API version",
        );
    } else {
        signer_name(&signer, errors);
    }
    let seconds = spec.field("expirationSeconds");
    if !seconds.is_null() && seconds.number() < MIN_EXPIRATION_SECONDS {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&seconds, why);
    }
}

fn usages(usages: &At<'_>, errors: &mut Errors) {
    if usages.is_empty() {
        errors.required(usages, "usages must be provided");
    }
    let mut seen = BTreeSet::new();
    for usage in usages.items() {
        if !USAGES.contains(&usage.text()) {
            errors.not_supported(&usage, &USAGES);
        }
        if !seen.insert(usage.text().to_owned()) {
            errors.duplicate(&usage);
        }
    }
}

/// Approvers approve or deny, signers sign; neither does the other's work.
fn validate_subresource(sub: Subresource, new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (new, old) = (new.field("status"), old.field("status"));
    let (now, before) = (new.field("conditions"), old.field("conditions"));
    conditions(&now, errors);
    let of = |conditions: &At<'_>, kind: &str| -> Vec<Value> {
        let all = conditions.value.as_array().into_iter().flatten();
        all.filter(|condition| condition["type"] == kind)
            .cloned()
            .collect()
    };
    for kind in FINAL {
        if of(&now, kind).len() < of(&before, kind).len() {
            let why = format!("updates may not remove a condition of type {kind:?}");
            errors.forbidden(&now, &why);
        }
    }
    for kind in DECISIONS.iter().filter(|_| sub != Subresource::Approval) {
        let (now_of, before_of) = (of(&now, kind), of(&before, kind));
        if now_of.len() > before_of.len() {
            let why = format!("updates may not add a condition of type {kind:?}");
            errors.forbidden(&now, &why);
        } else if now_of.len() == before_of.len() && now_of != before_of {
            let why = format!("updates may not modify a condition of type {kind:?}");
            errors.forbidden(&now, &why);
        }
    }
    certificate(
        sub,
        &new.field("certificate"),
        &old.field("certificate"),
        errors,
    );
}

fn conditions(conditions: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.field("type"), condition.field("status"));
        if kind.is_empty() {
            errors.required(&kind, "");
        }
        let words: &[&str] = match FINAL.contains(&kind.text()) {
            true => &["True"],
            false => &["False", "True", "Unknown"],
        };
        errors.one_of(&status, words);
        let other = DECISIONS.iter().find(|other| **other != kind.text());
        let decides = DECISIONS.contains(&kind.text());
        if decides && other.is_some_and(|other| seen.contains(*other)) {
            errors.invalid(
                &kind,
                "Approved and Denied conditions are mutually exclusive",
            );
        }
        if !seen.insert(kind.text().to_owned()) {
            errors.duplicate(&kind);
        }
    }
}

fn certificate(sub: Subresource, new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    if !new.is_empty()
        && let Err(why) = pem::certificates(&decoded(new))
    {
        errors.invalid_value(new, "<certificate data>", why);
    }
    if new.text() == old.text() {
        return;
    }
    if sub == Subresource::Approval {
        errors.forbidden(new, "updates may not set certificate content");
    } else if !old.is_empty() {
        errors.forbidden(new, "updates may not modify existing certificate content");
    }
}

fn decoded(at: &At<'_>) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(at.text());
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let duration = columns::number(object, "/spec/expirationSeconds");
    let duration = match duration {
        0 => "<none>".to_owned(),
        seconds => columns::human(seconds),
    };
    vec![
        name(object),
        age(object, now),
        text(object, "/spec/signerName").into(),
        text(object, "/spec/username").into(),
        duration.into(),
        condition(object).into(),
    ]
}

/// `Approved,Issued`
fn condition(object: &Value) -> String {
    let all = list(object, "/status/conditions");
    let has = |kind: &str| all.iter().any(|condition| condition["type"] == kind);
    let decided = ["Denied", "Approved"].into_iter().find(|kind| has(kind));
    let mut shown = vec![decided.unwrap_or("Pending")];
    if has("Failed") {
        shown.push("Failed");
    }
    if !text(object, "/status/certificate").is_empty() {
        shown.push("Issued");
    }
    shown.join(",")
}

#[cfg(test)]
mod tests {
    use super::super::request;
    use super::*;
    use crate::kinds::testing::{assert_wrong, created, refused, row, updated, with};

    fn base64(text: &str) -> Value {
        base64::engine::general_purpose::STANDARD
            .encode(text)
            .into()
    }

    fn pem(kind: &str) -> Value {
        base64(&format!(
            "-----BEGIN {kind}-----\nMIIB\n-----END {kind}-----\n"
        ))
    }

    fn request() -> Value {
        json!({
            "metadata": {"name": "jane"},
            "spec": {
                "request": base64(request::testing::JANE),
                "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["client auth"],
                "expirationSeconds": 86400,
                "username": "root",
                "groups": ["system:masters"],
            },
        })
    }

    fn condition_of(kind: &str) -> Value {
        json!([{"type": kind, "status": "True", "reason": "Because"}])
    }

    #[test]
    fn a_client_does_not_say_who_it_is() {
        let mine = with(
            &request(),
            "/status",
            json!({"conditions": condition_of("Approved")}),
        );
        let stored = created(&resource(), mine);
        assert_eq!(stored["spec"].get("username"), None);
        assert_eq!(stored["spec"].get("groups"), None);
        assert_eq!(stored["spec"]["usages"], json!(["client auth"]));
        assert_eq!(stored["status"], json!({}));
    }

    #[test]
    fn a_request_that_nobody_could_sign_is_refused() {
        let signer = |text: &str| json!(text);
        let bad = pem("CERTIFICATE");
        let unreadable = format!(
            "spec.request: Invalid value: {bad}: PEM block type must be CERTIFICATE REQUEST"
        );
        assert_wrong(
            &resource(),
            &request(),
            &[
                ("/spec/request", bad, &unreadable),
                (
                    "/spec/usages",
                    json!([]),
                    "spec.usages: Required value: usages must be provided",
                ),
                (
                    "/spec/usages",
                    json!(["signing", "signing"]),
                    r#"spec.usages[1]: Duplicate value: "signing""#,
                ),
                (
                    "/spec/signerName",
                    signer(""),
                    "spec.signerName: Required value: signerName must be provided",
                ),
                (
                    "/spec/signerName",
                    signer("kubernetes.io/legacy-unknown"),
                    r#"spec.signerName: Invalid value: "kubernetes.io/legacy-unknown": the legacy signerName is not allowed via this API version"#,
                ),
                (
                    "/spec/signerName",
                    signer("mine"),
                    r#"spec.signerName: Invalid value: "mine": must be a fully qualified domain and path of the form 'example.com/signer-name'"#,
                ),
                (
                    "/spec/signerName",
                    signer("mine/a"),
                    r#"spec.signerName: Invalid value: "mine": should be a domain with at least two segments separated by dots"#,
                ),
                (
                    "/spec/expirationSeconds",
                    json!(60),
                    "spec.expirationSeconds: Invalid value: 60: may not specify a duration less \
                     than 600 seconds (10 minutes)",
                ),
            ],
        );
    }

    #[test]
    fn an_approval_changes_conditions_and_an_update_nothing_but_metadata() {
        let old = created(&resource(), request());
        let mut new = with(&old, "/spec/usages", json!(["server auth"]));
        new["status"] =
            json!({"conditions": condition_of("Approved"), "certificate": pem("CERTIFICATE")});
        let plain = updated(&resource(), &old, new.clone(), None);
        assert_eq!(
            (&plain["spec"], &plain["status"]),
            (&old["spec"], &json!({}))
        );
        let approved = updated(&resource(), &old, new, Some(Subresource::Approval));
        assert_eq!(approved["spec"], old["spec"]);
        assert_eq!(
            approved["status"],
            json!({"conditions": condition_of("Approved")})
        );
    }

    #[test]
    fn a_signer_signs_and_an_approver_decides() {
        let old = created(&resource(), request());
        let change = |old: &Value, status: Value, sub: Subresource| {
            refused(&resource(), old, with(old, "/status", status), Some(sub))
        };
        let approve = json!({"conditions": condition_of("Approved")});
        assert_eq!(change(&old, approve.clone(), Subresource::Approval), "");
        assert_eq!(
            change(&old, approve.clone(), Subresource::Status),
            r#"status.conditions: Forbidden: updates may not add a condition of type "Approved""#
        );
        let approved = with(&old, "/status", approve.clone());
        assert_eq!(
            change(&approved, json!({}), Subresource::Approval),
            r#"status.conditions: Forbidden: updates may not remove a condition of type "Approved""#
        );
        let both = json!({"conditions": [approve["conditions"][0], condition_of("Denied")[0]]});
        assert_eq!(
            change(&approved, both, Subresource::Approval),
            r#"status.conditions[1].type: Invalid value: "Denied": Approved and Denied conditions are mutually exclusive"#
        );
        let signed = with(&approve, "/certificate", pem("CERTIFICATE"));
        assert_eq!(change(&approved, signed.clone(), Subresource::Status), "");
        let issued = with(&old, "/status", signed.clone());
        assert_eq!(
            change(&issued, approve.clone(), Subresource::Status),
            "status.certificate: Forbidden: updates may not modify existing certificate content"
        );
        let key = with(&approve, "/certificate", pem("PRIVATE KEY"));
        assert_eq!(
            change(&approved, key, Subresource::Status),
            r#"status.certificate: Invalid value: "<certificate data>": only CERTIFICATE PEM blocks are allowed, found "PRIVATE KEY""#
        );
    }

    #[test]
    fn a_row_shows_what_has_become_of_the_request() {
        let signed = json!({"conditions": condition_of("Approved"), "certificate": "YQ=="});
        assert_eq!(
            row(&resource(), &with(&request(), "/status", signed)),
            json!([
                "jane",
                "10m",
                "kubernetes.io/kube-apiserver-client",
                "root",
                "24h",
                "Approved,Issued"
            ])
        );
        assert_eq!(condition(&request()), "Pending");
    }
}
