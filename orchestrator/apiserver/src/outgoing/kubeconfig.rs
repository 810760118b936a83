//! A server that a kubeconfig names: how Kubernetes' API server is told of webhooks that are not in its
//! own objects (audit, authentication, authorisation).

use std::path::{Path, PathBuf};

use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{ClientConfig, Trusted};
use sys::certificates::Credentials;

/// The server of the current context, or of the only one. Paths in the file are relative to it. The
/// error names the file and the field, and nothing secret.
pub fn read(path: &Path) -> Result<ClientConfig, String> {
    let failed = |why: String| format!("{}: {why}", path.display());
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let directory = path.parent().unwrap_or(Path::new(""));
    of(&text, directory).map_err(failed)
}

fn of(text: &[u8], directory: &Path) -> Result<ClientConfig, String> {
    let documents = api::decode::documents(text)?;
    let config = documents.first().ok_or("there is nothing in it")?;
    let context = match config["current-context"].as_str() {
        Some(name) if !name.is_empty() => named(config, "contexts", name)?["context"].clone(),
        _ => config["contexts"][0]["context"].clone(),
    };
    let pick = |list: &str, word: &str, inner: &str| match context[word].as_str() {
        Some(name) => named(config, list, name).map(|found| found[inner].clone()),
        None => Ok(config[list][0][inner].clone()),
    };
    let (cluster, user) = (
        pick("clusters", "cluster", "cluster")?,
        pick("users", "user", "user")?,
    );
    let server = cluster["server"].as_str().unwrap_or_default();
    let trusted = match material(&cluster, "certificate-authority", directory)? {
        _ if cluster["insecure-skip-tls-verify"] == true => Trusted::Anybody,
        Some(pem) => Trusted::Bundle(pem),
        None => Trusted::System,
    };
    let mut client = ClientConfig::at(server, trusted).map_err(|why| format!("server: {why}"))?;
    client.tls_name = cluster["tls-server-name"].as_str().map(str::to_owned);
    for field in ["exec", "auth-provider", "username", "password"] {
        if !user[field].is_null() {
            return Err(format!(
                "users: {field} is not supported: a certificate or a token is"
            ));
        }
    }
    let certificate = material(&user, "client-certificate", directory)?;
    let key = material(&user, "client-key", directory)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            client.credentials = Some(Credentials { certificate, key })
        }
        (None, None) => {}
        _ => return Err("users: a client certificate and its key come together".to_owned()),
    }
    if let Some(token) = token(&user, directory)? {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let mut value = value.map_err(|_| "users: the token has no form in a header".to_owned())?;
        value.set_sensitive(true);
        client.authorization = Some(value);
    }
    Ok(client)
}

fn named<'a>(config: &'a Value, list: &str, name: &str) -> Result<&'a Value, String> {
    let all = config[list].as_array().into_iter().flatten();
    let mut all = all.filter(|item| item["name"] == name);
    all.next()
        .ok_or_else(|| format!("{list}: there is no {name:?}"))
}

/// What a field or the file that it names holds: `FIELD-data` in base64 comes first.
fn material(of: &Value, field: &str, directory: &Path) -> Result<Option<String>, String> {
    let data = format!("{field}-data");
    if let Some(text) = of[&data].as_str().filter(|text| !text.is_empty()) {
        let bytes = STANDARD
            .decode(text)
            .map_err(|_| format!("{data}: not base64"))?;
        return String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| format!("{data}: not PEM"));
    }
    file(of, field, directory)
}

fn token(user: &Value, directory: &Path) -> Result<Option<String>, String> {
    match user["token"].as_str().filter(|token| !token.is_empty()) {
        Some(token) => Ok(Some(token.to_owned())),
        None => file(user, "tokenFile", directory),
    }
}

fn file(of: &Value, field: &str, directory: &Path) -> Result<Option<String>, String> {
    let Some(path) = of[field].as_str().filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let path: PathBuf = directory.join(path);
    let read = std::fs::read_to_string(&path);
    read.map(Some)
        .map_err(|error| format!("{field}: {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
current-context: b
clusters:
- name: one
  cluster: {server: 'https://127.0.0.1:8443/audit', certificate-authority: ca.pem, tls-server-name: log}
- name: two
  cluster: {server: 'http://127.0.0.1/'}
users:
- {name: x, user: {token: SECRET}}
contexts:
- {name: a, context: {cluster: two, user: x}}
- {name: b, context: {cluster: one, user: x}}
";

    #[test]
    fn the_current_context_says_where_whom_to_trust_and_what_to_show() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), "PEM").expect("a file");
        let client = of(CONFIG.as_bytes(), directory.path()).expect("a client");
        assert_eq!(client.url, "https://127.0.0.1:8443/audit");
        assert_eq!(client.trusted, Trusted::Bundle("PEM".to_owned()));
        assert_eq!(client.tls_name.as_deref(), Some("log"));
        let authorization = client.authorization.as_ref();
        assert_eq!(
            authorization.map(HeaderValue::as_bytes),
            Some(&b"Bearer SECRET"[..])
        );
        assert!(!format!("{authorization:?} {client:?}").contains("SECRET"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_its_field_and_without_its_secrets() {
        let nowhere = Path::new("/nonexistent");
        for (from, to, expected) in [
            (
                "current-context: b",
                "current-context: c",
                "contexts: there is no \"c\"",
            ),
            (
                "current-context: b",
                "current-context: a",
                "server: url \"http://127.0.0.1/\": not",
            ),
            (
                "tls-server-name",
                "tls-server-name",
                "certificate-authority: /nonexistent/ca.pem",
            ),
            ("certificate-authority: ca.pem, ", "", ""),
            (
                "certificate-authority: ca.pem",
                "certificate-authority-data: '%'",
                "certificate-authority-data: not base64",
            ),
            (
                "user: {token",
                "user: {exec: {command: x}, token",
                "certificate-authority: /",
            ),
        ] {
            let text = CONFIG.replace(from, to);
            let why = of(text.as_bytes(), nowhere).err().unwrap_or_default();
            assert!(
                why.starts_with(expected) && !why.contains("SECRET"),
                "{to}: {why}"
            );
        }
        let text = CONFIG.replace("certificate-authority: ca.pem, ", "");
        let text = text.replace("user: {token", "user: {exec: {command: x}, token");
        let why = of(text.as_bytes(), nowhere).expect_err("refused");
        assert!(why.starts_with("users: exec is not supported"), "{why}");
    }
}
