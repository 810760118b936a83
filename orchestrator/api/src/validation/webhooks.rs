//! Where a webhook is: a URL, or a path of a Service.

use super::{At, Errors, names};

const FORM: &str = "; desired format: https://host[/path]";

/// Versions of a review that this server understands.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// The configuration of a webhook's client: a URL or a Service.
pub fn client(config: &At<'_>, errors: &mut Errors) {
    let (url, service) = (config.field("url"), config.field("service"));
    match (url.is_null(), service.is_null()) {
        (false, true) => https_url(&url, errors),
        (true, false) => service_reference(&service, errors),
        _ => errors.required(config, "exactly one of url or service is required"),
    }
}

/// The versions that a webhook understands; one of them is one of this server's.
pub fn review_versions(versions: &At<'_>, missing: &str, errors: &mut Errors) {
    if versions.is_empty() {
        errors.required(versions, missing);
        return;
    }
    let mut seen = Vec::new();
    for version in versions.items() {
        if seen.contains(&version.text().to_owned()) {
            errors.invalid(&version, "duplicate version");
            continue;
        }
        seen.push(version.text().to_owned());
        errors.check(&version, names::label_1035(version.text()));
    }
    if !seen
        .iter()
        .any(|version| REVIEWS.contains(&version.as_str()))
    {
        let why = format!("must include at least one of {}", REVIEWS.join(", "));
        errors.invalid(versions, why);
    }
}

fn https_url(at: &At<'_>, errors: &mut Errors) {
    let (rest, fragment) = at.text().split_once('#').unwrap_or((at.text(), ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once(':').unwrap_or(("", rest));
    let authority = rest.strip_prefix("//").unwrap_or_default();
    let authority = authority.split('/').next().unwrap_or_default();
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if scheme != "https" {
        let why = format!("'https' is the only allowed URL scheme{FORM}");
        errors.invalid_value(at, scheme, why);
    }
    if host.is_empty() {
        errors.invalid_value(at, host, format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        errors.invalid_value(at, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid_value(at, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid_value(at, query, "query parameters are not permitted in the URL");
    }
}

fn service_reference(service: &At<'_>, errors: &mut Errors) {
    for field in ["name", "namespace"] {
        let part = service.field(field);
        if part.is_empty() {
            errors.required(&part, "");
        }
    }
    let port = service.field("port");
    if !(1..=65535).contains(&port.number()) {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.invalid(&port, why);
    }
    let path = service.field("path");
    match path.text() {
        "" | "/" => {}
        "//" => errors.invalid(&path, "segment[0] may not be empty"),
        text => segments(&path, text, errors),
    }
}

fn segments(path: &At<'_>, text: &str, errors: &mut Errors) {
    if !text.starts_with('/') {
        errors.invalid(path, "must start with a '/'");
    }
    let text = text.strip_prefix('/').unwrap_or(text);
    let text = text.strip_suffix('/').unwrap_or(text);
    for (at, segment) in text.split('/').enumerate() {
        if segment.is_empty() {
            errors.invalid(path, format!("segment[{at}] may not be empty"));
        } else if let Err(why) = names::subdomain(segment) {
            errors.invalid(path, format!("segment[{at}]: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(config: Value) -> Vec<String> {
        let mut errors = Errors::default();
        let root = json!({"c": config});
        client(&At::root(&root).field("c"), &mut errors);
        errors.messages()
    }

    #[test]
    fn a_webhook_is_at_a_url_or_at_a_service() {
        let none: Vec<String> = Vec::new();
        assert_eq!(said(json!({"url": "https://a.example:8443/check"})), none);
        let service = |path: &str| {
            said(json!({"service": {"name": "a", "namespace": "b", "port": 443, "path": path}}))
        };
        for path in ["", "/", "/validate", "/a/b/"] {
            assert_eq!(service(path), none, "{path}");
        }
        let cases = [
            (
                json!({}),
                "c: Required value: exactly one of url or service is required",
            ),
            (
                json!({"url": "http://a"}),
                r#"c.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]"#,
            ),
            (
                json!({"url": "https:///a"}),
                r#"c.url: Invalid value: "": host must be specified; desired format: https://host[/path]"#,
            ),
            (
                json!({"url": "https://me@a"}),
                r#"c.url: Invalid value: "me": user information is not permitted in the URL"#,
            ),
            (
                json!({"url": "https://a/?b=c"}),
                r#"c.url: Invalid value: "b=c": query parameters are not permitted in the URL"#,
            ),
            (
                json!({"service": {"name": "a", "port": 443, "namespace": ""}}),
                "c.service.namespace: Required value",
            ),
        ];
        for (config, why) in cases {
            assert_eq!(said(config), [why]);
        }
        assert_eq!(
            service("a//b"),
            [
                r#"c.service.path: Invalid value: "a//b": must start with a '/'"#,
                r#"c.service.path: Invalid value: "a//b": segment[1] may not be empty"#,
            ]
        );
    }
}
