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
