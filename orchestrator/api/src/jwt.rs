//! JSON Web Tokens in compact form (RFC 7515, RFC 7519), as they are read before their signature is believed.
//! Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Longer tokens are not read.
pub const MAX_BYTES: usize = 16 * 1024;

/// A token that anybody may have written.
#[derive(Clone, Debug, PartialEq)]
pub struct Unverified {
    /// `RS256`; whoever verifies the token says which ones are good.
    pub algorithm: String,
    /// The key that is said to have signed it.
    pub key_id: Option<String>,
    /// An object.
    pub claims: Value,
}

impl Unverified {
    /// Reads a token; None if it is not written like one, or asks for more than this to be understood.
    pub fn parse(token: &str) -> Option<Self> {
        if token.len() > MAX_BYTES {
            return None;
        }
        let mut parts = token.split('.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let is_signed = !signature.is_empty() && parts.next().is_none();
        let (header, claims) = (object(header)?, object(claims)?);
        // What a header says to be critical must be understood (RFC 7515, section 4.1.11).
        let is_plain = header.get("crit").is_none() && header.get("b64").is_none();
        if !is_signed || !is_plain {
            return None;
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(id) => Some(id.as_str()?.to_owned()),
        };
        Some(Self {
            algorithm: header["alg"].as_str()?.to_owned(),
            key_id,
            claims,
        })
    }

    /// Who is said to have made it.
    pub fn issuer(&self) -> &str {
        self.claims["iss"].as_str().unwrap_or_default()
    }
}

fn object(part: &str) -> Option<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    let value: Value = serde_json::from_slice(&bytes).ok()?;
    value.is_object().then_some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn part(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    fn token(header: Value, claims: Value) -> String {
        format!("{}.{}.c2ln", part(&header), part(&claims))
    }

    #[test]
    fn a_token_says_its_algorithm_key_and_claims() {
        let read = Unverified::parse(&token(
            json!({"alg": "ES256", "kid": "a"}),
            json!({"iss": "https://i", "sub": "ann"}),
        ));
        let read = read.expect("a token");
        assert_eq!(
            (&*read.algorithm, read.key_id.as_deref()),
            ("ES256", Some("a"))
        );
        assert_eq!(
            (read.issuer(), &read.claims["sub"]),
            ("https://i", &json!("ann"))
        );
    }

    #[test]
    fn what_is_not_a_signed_token_of_plain_form_is_not_read() {
        let good = token(json!({"alg": "RS256"}), json!({}));
        assert!(Unverified::parse(&good).is_some());
        let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
        let deep = format!(
            "{}.{}.c2ln",
            part(&json!({"alg": "RS256"})),
            URL_SAFE_NO_PAD.encode(format!("{{\"a\":{deep}}}"))
        );
        for bad in [
            String::new(),
            "a.b".to_owned(),
            "..".to_owned(),
            good.replace(".c2ln", "."),
            format!("{good}.x"),
            format!("{good}\n.x"),
            token(json!({"alg": "RS256", "crit": ["x"]}), json!({})),
            token(json!({"alg": "RS256", "kid": 7}), json!({})),
            token(json!({"kid": "a"}), json!({})),
            token(json!({"alg": "RS256"}), json!([])),
            token(json!({"alg": "RS256"}), json!({"a": "b".repeat(MAX_BYTES)})),
            deep,
        ] {
            assert_eq!(Unverified::parse(&bad), None, "{bad:.80}");
        }
    }
}
