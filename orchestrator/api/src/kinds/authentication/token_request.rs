//! authentication.k8s.io/v1 TokenRequest: the body of serviceaccounts/token; no resource of its own.

use k8s_openapi::api::authentication::v1::TokenRequest;
use serde_json::Value;

use crate::defaults::{drop_nulls, set};
use crate::resource::Resource;
use crate::validation::{At, Errors};

/// What a token may last at least and at most, in seconds.
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

pub fn resource() -> Resource {
    Resource {
        verbs: &["create"],
        given: &["status"],
        default,
        validate,
        ..Resource::of::<TokenRequest>(
            "authentication.k8s.io",
            "authentication",
            "tokenrequest",
            "tokenrequests",
        )
    }
}

fn default(object: &mut Value) {
    if object["spec"].is_object() {
        set(&mut object["spec"], "expirationSeconds", || 3600.into());
    }
    drop_nulls(object);
}

fn validate(object: &At<'_>, errors: &mut Errors) {
    let spec = object.field("spec");
    let seconds = spec.field("expirationSeconds");
    if seconds.number() < SHORTEST {
        errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds.number() > LONGEST {
        errors.invalid(
            &seconds,
            "may not specify a duration larger than 2^32 seconds",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_as_kubectl_sends_it_is_not_read() {
        let strict = crate::FieldValidation::Strict;
        let decode = |body: &[u8], format| {
            let decoded = resource()
                .decode(body, format, strict)
                .map_err(|e| e.to_string())?;
            assert_eq!(decoded.warnings, Vec::<String>::new());
            Ok::<_, String>(decoded.object)
        };
        let body = r#"{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1",
            "metadata":{"creationTimestamp":null},"spec":{"audiences":null,
            "expirationSeconds":null,"boundObjectRef":null},
            "status":{"token":"","expirationTimestamp":null}}"#;
        let object = decode(body.as_bytes(), crate::Format::Json).expect("JSON");
        assert_eq!(object.get("status"), None);
        // As Go writes it: runtime.Unknown with an empty ObjectMeta and spec, and a status with an empty token and
        // time.
        let object = b"\x0a\x00\x12\x00\x1a\x04\x0a\x00\x12\x00";
        let mut body =
            b"k8s\0\x0a\x2a\x0a\x18authentication.k8s.io/v1\x12\x0cTokenRequest".to_vec();
        body[5] = u8::try_from(body.len() - 6).expect("short");
        body.extend([0x12, u8::try_from(object.len()).expect("short")]);
        body.extend(object);
        let object = decode(&body, crate::Format::Protobuf).expect("protobuf");
        assert_eq!(object.get("status"), None);
    }

    #[test]
    fn a_token_lasts_ten_minutes_or_more_and_an_hour_by_itself() {
        let mut object = json!({"spec": {"audiences": []}});
        default(&mut object);
        assert_eq!(object["spec"]["expirationSeconds"], 3600);
        let said = |seconds: i64| {
            let object = json!({"spec": {"expirationSeconds": seconds}});
            let mut errors = Errors::default();
            validate(&At::root(&object), &mut errors);
            errors.messages()
        };
        assert!(said(600).is_empty() && said(1 << 32).is_empty());
        assert_eq!(
            said(599),
            [
                "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 \
              minutes"
            ]
        );
        assert_eq!(said((1 << 32) + 1).len(), 1);
    }
}
