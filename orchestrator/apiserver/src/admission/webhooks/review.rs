//! AdmissionReview (admission.k8s.io): what a webhook is asked, and what its answer means. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Value, json};

use crate::authn::User;
use api::Resource;

/// A version of AdmissionReview. The two differ in how strictly an answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V1beta1,
}

impl Version {
    pub fn parse(version: &str) -> Option<Self> {
        match version {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1beta1),
            _ => None,
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// What a webhook is asked about.
pub struct Question<'a> {
    pub uid: &'a str,
    /// What is sent.
    pub kind: &'a Resource,
    pub resource: &'a Resource,
    /// What the client asked for: another version of the same, it may be.
    pub request_kind: &'a Resource,
    pub request_resource: &'a Resource,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub operation: &'static str,
    pub user: &'a User,
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    /// CreateOptions and the like.
    pub options: &'a Value,
}

/// Audit annotations of one answer; the others are left out.
const MAX_ANNOTATIONS: usize = 64;

/// What a webhook says.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    /// The refusal, unless it allows.
    pub refusal: Option<Box<Status>>,
    /// RFC 6902; nothing to change is none.
    pub patch: Option<Vec<u8>>,
    pub warnings: Vec<String>,
    /// For the audit log.
    pub annotations: Vec<(String, String)>,
}

/// Whether a webhook may change what it is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Mutating,
    Validating,
}

impl Question<'_> {
    pub fn review(&self, version: Version) -> Value {
        let mut request = self.request();
        request["object"] = json!(self.object);
        request["oldObject"] = json!(self.old);
        json!({
            "kind": "AdmissionReview",
            "apiVersion": version.api_version(),
            "request": request,
        })
    }

    /// The AdmissionRequest without the two objects.
    pub fn request(&self) -> Value {
        let kind =
            |of: &Resource| json!({"group": of.group, "version": of.version, "kind": of.kind});
        let resource = |of: &Resource| json!({"group": of.group, "version": of.version, "resource": of.plural});
        let mut request = json!({
            "uid": self.uid,
            "kind": kind(self.kind),
            "resource": resource(self.resource),
            "requestKind": kind(self.request_kind),
            "requestResource": resource(self.request_resource),
            "operation": self.operation,
            "userInfo": self.user.info(),
            "dryRun": self.dry_run,
            "options": self.options,
        });
        for (field, word) in [
            ("subResource", self.subresource),
            ("requestSubResource", self.subresource),
            ("name", self.name),
            ("namespace", self.namespace),
        ] {
            if !word.is_empty() {
                request[field] = word.into();
            }
        }
        request
    }
}

/// What an answer means, or what is wrong with it.
pub fn verdict(
    version: Version,
    role: Role,
    uid: &str,
    hook: &str,
    answer: &Value,
) -> Result<Verdict, String> {
    let invalid = |why: String| format!("received invalid webhook response: {why}");
    let response = &answer["response"];
    if !response.is_object() {
        return Err(invalid("webhook response was absent".to_owned()));
    }
    if version == Version::V1 {
        check(role, uid, answer).map_err(invalid)?;
    }
    let patch = response["patch"].as_str().filter(|patch| !patch.is_empty());
    let patch_type = response["patchType"].as_str();
    let warnings = response["warnings"].as_array().into_iter().flatten();
    let warnings = warnings.filter_map(|text| text.as_str().map(str::to_owned));
    let annotations = response["auditAnnotations"]
        .as_object()
        .into_iter()
        .flatten();
    let annotations = annotations
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .take(MAX_ANNOTATIONS);
    let mut verdict = Verdict {
        warnings: warnings.collect(),
        annotations: annotations.collect(),
        ..Verdict::default()
    };
    if response["allowed"] != true {
        verdict.refusal = Some(Box::new(refusal(hook, &response["status"])));
        return Ok(verdict);
    }
    let Some(patch) = patch.filter(|_| role == Role::Mutating) else {
        return Ok(verdict);
    };
    if version == Version::V1 && patch_type != Some("JSONPatch") {
        return Err(format!(
            "unsupported patch type {:?}",
            patch_type.unwrap_or_default()
        ));
    }
    let patch = STANDARD.decode(patch);
    Ok(Verdict {
        patch: Some(patch.map_err(|error| invalid(error.to_string()))?),
        ..verdict
    })
}

/// What is wrong with the form of an answer. The older version was never looked at so closely.
fn check(role: Role, uid: &str, answer: &Value) -> Result<(), String> {
    let response = &answer["response"];
    if response["uid"] != uid {
        let got = response["uid"].as_str().unwrap_or_default();
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let gvk = |api_version: &str, kind: &str| format!("{api_version}, Kind={kind}");
    let text = |field: &str| answer[field].as_str().unwrap_or_default();
    let expected = gvk(Version::V1.api_version(), "AdmissionReview");
    let got = gvk(text("apiVersion"), text("kind"));
    if got != expected {
        return Err(format!(
            "expected webhook response of {expected}, got {got}"
        ));
    }
    let patch = response["patch"].as_str().filter(|patch| !patch.is_empty());
    let wrong = match (role, patch, response["patchType"].as_str()) {
        (Role::Validating, Some(_), _) => "validating webhook may not return response.patch",
        (Role::Validating, _, Some(_)) => "validating webhook may not return response.patchType",
        (Role::Mutating, Some(_), None) => {
            "webhook returned response.patch but not response.patchType"
        }
        (Role::Mutating, None, Some(_)) => {
            "webhook returned response.patchType but not response.patch"
        }
        (Role::Mutating, Some(_), Some("")) => {
            "webhook returned invalid response.patchType of \"\""
        }
        _ => return Ok(()),
    };
    Err(wrong.to_owned())
}

/// The Status that a client gets whose request a webhook has refused.
fn refusal(hook: &str, said: &Value) -> Status {
    let said = match said {
        Value::Null => None,
        said => serde_json::from_value::<Status>(said.clone()).ok(),
    };
    let mut status = said.unwrap_or_default();
    // A refusal is no success, whatever it says.
    status.code = Some(status.code.unwrap_or_default()).map(|code| match code {
        400..600 => code,
        _ => 400,
    });
    if !matches!(status.status.as_deref(), Some(word) if !matches!(word, "" | "Success")) {
        status.status = Some("Failure".to_owned());
    }
    let why = [status.message.take(), status.reason.clone()];
    let mut why = why.into_iter().flatten();
    let denied = format!("admission webhook {hook:?} denied the request");
    status.message = Some(match why.find(|text| !text.is_empty()) {
        Some(why) => format!("{denied}: {why}"),
        None => format!("{denied} without explanation"),
    });
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(role: Role, response: Value) -> Result<Verdict, String> {
        let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "response": response});
        verdict(Version::V1, role, "u", "h.x.y", &answer)
    }

    #[test]
    fn an_answer_must_be_to_the_question() {
        for (role, response, expected) in [
            (Role::Mutating, json!(null), "webhook response was absent"),
            (
                Role::Mutating,
                json!({"uid": "v"}),
                "expected response.uid=\"u\", got \"v\"",
            ),
            (
                Role::Mutating,
                json!({"uid": "u", "allowed": true, "patch": "W10="}),
                "webhook returned response.patch but not response.patchType",
            ),
            (
                Role::Mutating,
                json!({"uid": "u", "allowed": true, "patchType": "JSONPatch"}),
                "webhook returned response.patchType but not response.patch",
            ),
            (
                Role::Validating,
                json!({"uid": "u", "allowed": true, "patch": "W10="}),
                "validating webhook may not return response.patch",
            ),
        ] {
            let expected = format!("received invalid webhook response: {expected}");
            assert_eq!(read(role, response), Err(expected));
        }
        let other = json!({"kind": "Pod", "apiVersion": "v1", "response": {"uid": "u"}});
        let why = verdict(Version::V1, Role::Mutating, "u", "h", &other);
        assert!(why.is_err_and(|why| why.ends_with("got v1, Kind=Pod")));
        let merge = json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "Merge"});
        let why = "unsupported patch type \"Merge\"".to_owned();
        assert_eq!(read(Role::Mutating, merge), Err(why));
    }

    #[test]
    fn a_refusal_is_one_whatever_its_status_says() {
        let refused = |status: Value| {
            let verdict = read(Role::Validating, json!({"uid": "u", "status": status}));
            *verdict.expect("valid").refusal.expect("refused")
        };
        let denied = "admission webhook \"h.x.y\" denied the request";
        for (status, code, message) in [
            (json!(null), 400, format!("{denied} without explanation")),
            (
                json!({"code": 200, "status": "Success", "message": "no"}),
                400,
                format!("{denied}: no"),
            ),
            (
                json!({"code": 403, "reason": "Forbidden"}),
                403,
                format!("{denied}: Forbidden"),
            ),
            (
                json!({"code": 9999}),
                400,
                format!("{denied} without explanation"),
            ),
            (json!("odd"), 400, format!("{denied} without explanation")),
        ] {
            let status = refused(status);
            assert_eq!(status.code, Some(code));
            assert_eq!(status.message, Some(message));
            assert_eq!(status.status.as_deref(), Some("Failure"));
        }
    }

    #[test]
    fn the_old_version_is_read_less_strictly() {
        let answer = json!({"response": {"allowed": true, "patch": "W10="}});
        let verdict = verdict(Version::V1beta1, Role::Mutating, "u", "h", &answer);
        assert_eq!(verdict.expect("valid").patch, Some(b"[]".to_vec()));
    }
}
