//! Which user a token of an OpenID Connect issuer is, by its claims. The signature is somebody else's to
//! verify. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// How far the issuer's clock may be ahead of ours, in seconds.
const NOT_BEFORE_LEEWAY_SECONDS: f64 = 300.0;
/// The claim that is no name unless the issuer has verified it.
const EMAIL: &str = "email";
/// Under which `extra` a token's id is kept (KEP-4193).
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// How claims become a user, as kube-apiserver's `--oidc-…` flags say it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Tokens must be of this issuer …
    pub issuer: String,
    /// … for this audience …
    pub client_id: String,
    /// … and have these claims.
    pub required: BTreeMap<String, String>,
    pub username_claim: String,
    /// None: the rule of Kubernetes. `-`: none.
    pub username_prefix: Option<String>,
    /// Empty: no groups.
    pub groups_claim: String,
    pub groups_prefix: String,
}

/// Whom a token names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Person {
    pub name: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
    /// When the token ends, in seconds since 1970.
    pub ends: i64,
}

impl Rules {
    /// The user of a token with these claims.
    ///
    /// # Errors
    /// Why it is nobody; no value of a claim is told.
    pub fn person(&self, claims: &Value, now: i64) -> Result<Person, String> {
        if claims["iss"] != self.issuer.as_str() {
            return Err("the token is of another issuer".to_owned());
        }
        if !audiences(&claims["aud"]).contains(&self.client_id.as_str()) {
            return Err("the token is for another audience".to_owned());
        }
        let ends = self.check_times(claims, now)?;
        for (claim, wanted) in &self.required {
            match &claims[claim] {
                Value::String(value) if value == wanted => {}
                Value::Null => return Err(format!("the required claim {claim} is not there")),
                _ => return Err(format!("the required claim {claim} has another value")),
            }
        }
        let prefix = &self.groups_prefix;
        let groups = self.groups(claims)?;
        Ok(Person {
            name: format!("{}{}", self.prefix(), self.name(claims)?),
            groups: groups
                .iter()
                .map(|group| format!("{prefix}{group}"))
                .collect(),
            extra: extra(claims),
            ends,
        })
    }

    /// A token lasts to its end to the second; one that does not end is not good.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "seconds of this era are exact"
    )]
    fn check_times(&self, claims: &Value, now: i64) -> Result<i64, String> {
        let ends = claims["exp"]
            .as_f64()
            .ok_or("the token does not say when it ends")?;
        if ends < now as f64 {
            return Err("the token has ended".to_owned());
        }
        match &claims["nbf"] {
            Value::Null => {}
            begins => {
                let begins = begins.as_f64().ok_or("the claim nbf is not a time")?;
                if begins > now as f64 + NOT_BEFORE_LEEWAY_SECONDS {
                    return Err("the token is not good yet".to_owned());
                }
            }
        }
        Ok(ends as i64)
    }

    fn name<'a>(&self, claims: &'a Value) -> Result<&'a str, String> {
        let claim = &self.username_claim;
        let name = claims[claim]
            .as_str()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| format!("the claim {claim}, which is the user's name, is not a text"))?;
        match &claims["email_verified"] {
            Value::Null | Value::Bool(true) => Ok(name),
            _ if claim != EMAIL => Ok(name),
            _ => Err("the issuer has not verified the email address".to_owned()),
        }
    }

    /// Names of different issuers do not meet; addresses are the same for all.
    fn prefix(&self) -> String {
        match self.username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) if !prefix.is_empty() => prefix.to_owned(),
            _ if self.username_claim == EMAIL => String::new(),
            _ => format!("{}#", self.issuer),
        }
    }

    /// A list, or one alone.
    fn groups<'a>(&self, claims: &'a Value) -> Result<Vec<&'a str>, String> {
        let claim = &self.groups_claim;
        let wrong = || format!("the claim {claim} is not a list of texts");
        match &claims[claim] {
            _ if claim.is_empty() => Ok(Vec::new()),
            Value::Null => Ok(Vec::new()),
            Value::String(group) => Ok(vec![group]),
            Value::Array(groups) => {
                let text = |group: &'a Value| group.as_str().ok_or_else(wrong);
                groups.iter().map(text).collect()
            }
            _ => Err(wrong()),
        }
    }
}

fn audiences(claim: &Value) -> Vec<&str> {
    match claim {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn extra(claims: &Value) -> BTreeMap<String, Vec<String>> {
    let id = claims["jti"].as_str().filter(|id| !id.is_empty());
    let id = id.map(|id| (CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]));
    id.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn rules() -> Rules {
        Rules {
            issuer: "https://issuer.example".to_owned(),
            client_id: "kubernetes".to_owned(),
            username_claim: "sub".to_owned(),
            groups_claim: "groups".to_owned(),
            groups_prefix: "oidc:".to_owned(),
            required: [("hd".to_owned(), "example.com".to_owned())].into(),
            ..Rules::default()
        }
    }

    fn claims() -> Value {
        json!({"iss": "https://issuer.example", "aud": ["other", "kubernetes"], "exp": NOW + 60,
            "nbf": NOW, "sub": "ann", "groups": ["dev", "ops"], "hd": "example.com", "jti": "7",
            "email": "ann@example.com"})
    }

    #[test]
    fn claims_name_a_user_with_groups_behind_their_prefixes() {
        let person = rules().person(&claims(), NOW).expect("a user");
        assert_eq!(person.name, "https://issuer.example#ann");
        assert_eq!(person.groups, ["oidc:dev", "oidc:ops"]);
        assert_eq!(person.ends, NOW + 60);
        assert_eq!(person.extra[CREDENTIAL_ID], ["JTI=7"]);
        let mut one = claims();
        one["groups"] = json!("dev");
        one["aud"] = json!("kubernetes");
        assert_eq!(
            rules().person(&one, NOW).expect("a user").groups,
            ["oidc:dev"]
        );
    }

    #[test]
    fn a_prefix_is_the_issuer_unless_another_or_none_is_said_or_names_are_addresses() {
        for (prefix, claim, expected) in [
            (None, "sub", "https://issuer.example#ann"),
            (Some(""), "sub", "https://issuer.example#ann"),
            (Some("-"), "sub", "ann"),
            (Some("x:"), "sub", "x:ann"),
            (None, "email", "ann@example.com"),
            (Some("x:"), "email", "x:ann@example.com"),
        ] {
            let rules = Rules {
                username_prefix: prefix.map(str::to_owned),
                username_claim: claim.to_owned(),
                ..rules()
            };
            assert_eq!(rules.person(&claims(), NOW).expect("a user").name, expected);
        }
    }

    #[test]
    fn an_address_that_the_issuer_has_not_verified_is_nobody() {
        let by_email = Rules {
            username_claim: EMAIL.to_owned(),
            ..rules()
        };
        for (verified, good) in [
            (json!(true), true),
            (json!(false), false),
            (json!("true"), false),
            (json!(1), false),
        ] {
            let mut claims = claims();
            claims["email_verified"] = verified;
            assert_eq!(by_email.person(&claims, NOW).is_ok(), good);
            assert!(rules().person(&claims, NOW).is_ok());
        }
    }

    #[test]
    fn a_token_for_others_of_another_time_or_without_a_claim_is_nobody() {
        for (claim, value, why) in [
            ("iss", json!("https://evil.example"), "another issuer"),
            ("iss", json!(["https://issuer.example"]), "another issuer"),
            ("aud", json!("other"), "another audience"),
            ("aud", Value::Null, "another audience"),
            ("exp", json!(NOW - 1), "has ended"),
            ("exp", Value::Null, "when it ends"),
            ("exp", json!("4000000000"), "when it ends"),
            ("nbf", json!(NOW + 301), "not good yet"),
            ("hd", Value::Null, "required claim hd is not there"),
            (
                "hd",
                json!("evil.example"),
                "required claim hd has another value",
            ),
            ("sub", Value::Null, "the user's name"),
            ("sub", json!(""), "the user's name"),
            ("sub", json!(["ann"]), "the user's name"),
            ("groups", json!([1]), "not a list of texts"),
            ("groups", json!({"dev": true}), "not a list of texts"),
        ] {
            let mut claims = claims();
            claims[claim] = value;
            let refused = rules().person(&claims, NOW).expect_err(claim);
            assert!(refused.contains(why), "{claim}: {refused}");
        }
    }
}
