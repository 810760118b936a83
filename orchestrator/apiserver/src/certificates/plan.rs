//! What is to be done about a CertificateSigningRequest next. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use api::kinds::certificates::request::Request;
use api::kinds::certificates::signers::{self, KUBE_APISERVER_CLIENT_KUBELET};
use sys::certificates::{self, Leaf};

/// How long requests are kept that were decided, after that, and those that nobody decides (kubernetes 1.33,
/// `pkg/controller/certificates/cleaner`).
const DECIDED_LIFETIME: SignedDuration = SignedDuration::from_hours(1);
const PENDING_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// Clocks differ: a certificate is valid from a little before it was made. One that lasts less than
/// `SHORT` is not made shorter by that.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
const SHORT: SignedDuration = SignedDuration::from_hours(8);
/// No certificate lasts less, unless none of the cluster does.
const SHORTEST: Duration = Duration::from_secs(600);

/// The next step.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// It is approved if its asker may create one of these subresources: the name, and what is then said.
    Ask(Vec<(&'static str, &'static str)>),
    Sign(Box<Leaf>),
    /// Its signer cannot sign it.
    Fail(String),
    Delete,
    /// Until it changes, or until then.
    Wait(Option<Timestamp>),
}

/// Judges a request; certificates last at most `longest`.
pub fn step(csr: &Value, longest: Duration, now: Timestamp) -> Step {
    let over = end(csr);
    if over.is_some_and(|over| over <= now) {
        return Step::Delete;
    }
    let is_issued = csr["status"]["certificate"].is_string();
    if is_issued || has(csr, "Denied") || has(csr, "Failed") {
        return Step::Wait(over);
    }
    let spec = &csr["spec"];
    let signer = spec["signerName"].as_str().unwrap_or_default();
    let usages = spec["usages"].as_array().into_iter().flatten();
    let usages: Vec<&str> = usages.filter_map(Value::as_str).collect();
    let request = Request::of_spec(spec["request"].as_str().unwrap_or_default());
    let request = match request {
        Ok(request) => request,
        Err(why) if has(csr, "Approved") => return Step::Fail(why),
        Err(_) => return Step::Wait(over),
    };
    match (
        signers::fits(signer, &request, &usages),
        has(csr, "Approved"),
    ) {
        (Some(Ok(())), true) => Step::Sign(Box::new(leaf(
            request,
            &usages,
            lasting(spec, longest),
            now,
        ))),
        (Some(Err(why)), true) => Step::Fail(why),
        (Some(Ok(())), false) if signer == KUBE_APISERVER_CLIENT_KUBELET => {
            Step::Ask(recognizers(spec, &request))
        }
        _ => Step::Wait(over),
    }
}

/// The rights with which a node's certificate is approved without anybody: for its own name, for any.
fn recognizers(spec: &Value, request: &Request) -> Vec<(&'static str, &'static str)> {
    let own = spec["username"].as_str() == Some(request.common_name());
    let own = own.then_some((
        "selfnodeclient",
        "Auto approving self kubelet client certificate after SubjectAccessReview.",
    ));
    let any = (
        "nodeclient",
        "Auto approving kubelet client certificate after SubjectAccessReview.",
    );
    own.into_iter().chain([any]).collect()
}

/// When a request is deleted by its age, as things are.
pub fn end(csr: &Value) -> Option<Timestamp> {
    let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    let conditions = csr["status"]["conditions"].as_array();
    let conditions = conditions.map_or(&[][..], Vec::as_slice);
    if conditions.is_empty() {
        return Some(time(&csr["metadata"]["creationTimestamp"])? + PENDING_LIFETIME);
    }
    let certificate = certificate(csr);
    let mut ends = BTreeSet::new();
    for condition in conditions {
        let is_final = match condition["type"].as_str() {
            Some("Denied" | "Failed") => true,
            Some("Approved") => certificate.is_some(),
            _ => false,
        };
        let decided = time(&condition["lastUpdateTime"]).filter(|_| is_final);
        ends.extend(decided.map(|decided| decided + DECIDED_LIFETIME));
    }
    if has(csr, "Approved") {
        ends.extend(certificate.and_then(|pem| certificates::ends(&pem).ok()));
    }
    ends.pop_first()
}

/// The PEM of what was issued.
fn certificate(csr: &Value) -> Option<String> {
    use base64::Engine as _;
    let text = csr["status"]["certificate"].as_str()?;
    let pem = base64::engine::general_purpose::STANDARD
        .decode(text)
        .ok()?;
    String::from_utf8(pem).ok()
}

fn has(csr: &Value, kind: &str) -> bool {
    let conditions = csr["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// How long a certificate is to last: as long as is asked, within the bounds.
fn lasting(spec: &Value, longest: Duration) -> Duration {
    let asked = spec["expirationSeconds"].as_u64().map(Duration::from_secs);
    asked.map_or(longest, |asked| asked.max(SHORTEST).min(longest))
}

fn leaf(request: Request, usages: &[&str], lasting: Duration, now: Timestamp) -> Leaf {
    let lasting = SignedDuration::try_from(lasting).unwrap_or(SHORT);
    let begins = now - BACKDATE;
    let ends = match lasting < SHORT {
        true => now.saturating_add(lasting),
        false => begins.saturating_add(lasting),
    };
    Leaf {
        subject: request.subject,
        dns_names: request.dns_names,
        addresses: request.addresses,
        emails: request.emails,
        uris: request.uris,
        public_key: request.public_key,
        usages: usages.iter().map(|&usage| usage.to_owned()).collect(),
        begins,
        ends: ends.unwrap_or(now),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;
    use sys::certificates::{Identity, make_key, make_request};

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn now() -> Timestamp {
        "2026-11-30T12:00:00Z".parse().expect("a time")
    }

    fn csr(signer: &str, seconds: Value, conditions: Value) -> Value {
        let who = Identity::new("system:node:a", &["system:nodes"]);
        let pem = make_request(&make_key().expect("a key"), &who, &[]).expect("a request");
        json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-11-30T11:59:00Z"},
            "spec": {"request": STANDARD.encode(pem), "signerName": signer,
                "usages": ["client auth", "digital signature"],
                "expirationSeconds": seconds, "username": "system:node:a"},
            "status": {"conditions": conditions},
        })
    }

    fn condition(kind: &str) -> Value {
        json!([{"type": kind, "status": "True", "lastUpdateTime": "2026-11-30T11:30:00Z"}])
    }

    fn hours(hours: i64) -> SignedDuration {
        SignedDuration::from_hours(hours)
    }

    #[test]
    fn who_asks_is_asked_for_its_own_right_first() {
        let mut csr = csr(KUBE_APISERVER_CLIENT_KUBELET, Value::Null, json!([]));
        let rights = |csr: &Value| match step(csr, DAY, now()) {
            Step::Ask(rights) => rights.into_iter().map(|(name, _)| name).collect(),
            other => panic!("{other:?}"),
        };
        let own: Vec<&str> = rights(&csr);
        assert_eq!(own, ["selfnodeclient", "nodeclient"]);
        csr["spec"]["username"] = json!("system:node:b");
        assert_eq!(rights(&csr), ["nodeclient"]);
        csr["spec"]["usages"] = json!(["server auth"]);
        let pending = "2026-12-01T11:59:00Z".parse().ok();
        assert_eq!(step(&csr, DAY, now()), Step::Wait(pending));
    }

    #[test]
    fn a_certificate_lasts_as_asked_within_the_bounds_and_begins_before_it_was_made() {
        let kubelet = KUBE_APISERVER_CLIENT_KUBELET;
        let minutes = SignedDuration::from_mins;
        for (asked, longest, ends) in [
            (Value::Null, DAY, hours(24) - minutes(5)),
            (json!(3600), DAY, hours(1)),
            (json!(7 * 24 * 3600), DAY, hours(24) - minutes(5)),
            (json!(3600), Duration::from_secs(60), minutes(1)),
        ] {
            let csr = csr(kubelet, asked, condition("Approved"));
            let Step::Sign(leaf) = step(&csr, longest, now()) else {
                panic!("not signed");
            };
            assert_eq!((leaf.begins, leaf.ends), (now() - BACKDATE, now() + ends));
        }
    }

    #[test]
    fn what_is_decided_goes_after_an_hour_and_what_is_not_after_a_day() {
        let other = "example.com/mine";
        for (conditions, certificate, lives) in [
            (
                json!([]),
                false,
                Some(hours(24) - SignedDuration::from_mins(1)),
            ),
            (
                condition("Denied"),
                false,
                Some(SignedDuration::from_mins(30)),
            ),
            (
                condition("Failed"),
                false,
                Some(SignedDuration::from_mins(30)),
            ),
            (
                condition("Approved"),
                true,
                Some(SignedDuration::from_mins(30)),
            ),
            // Another signer may take its time.
            (condition("Approved"), false, None),
        ] {
            let mut csr = csr(other, Value::Null, conditions.clone());
            if certificate {
                csr["status"]["certificate"] = STANDARD.encode("not PEM").into();
            }
            let over = lives.map(|lives| now() + lives);
            assert_eq!(step(&csr, DAY, now()), Step::Wait(over), "{conditions}");
            if let Some(over) = over {
                assert_eq!(step(&csr, DAY, over), Step::Delete, "{conditions}");
            }
        }
    }

    #[test]
    fn an_issued_request_goes_with_its_certificate() {
        let authority = sys::certificates::Authority::create("test", now()).expect("one");
        let kubelet = KUBE_APISERVER_CLIENT_KUBELET;
        let mut approved = condition("Approved");
        approved[0]["lastUpdateTime"] = json!("2026-11-30T12:00:00Z");
        let mut csr = csr(kubelet, json!(600), approved);
        let Step::Sign(leaf) = step(&csr, DAY, now()) else {
            panic!("not signed");
        };
        let signed = authority.sign(&leaf).expect("a certificate");
        csr["status"]["certificate"] = STANDARD.encode(signed).into();
        let over = now() + SignedDuration::from_secs(600);
        assert_eq!(step(&csr, DAY, now()), Step::Wait(Some(over)));
        assert_eq!(step(&csr, DAY, over), Step::Delete);
    }
}
