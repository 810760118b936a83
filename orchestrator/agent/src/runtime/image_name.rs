//! Which texts name an image. The Engine is asked by paths and queries that are made of the name, so
//! nothing else gets that far. Pure.

/// `[registry[:port]/]name[/name…][:tag][@digest]`, or the beginning of an id.
pub fn is_reference(text: &str) -> bool {
    let (text, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    let (name, tag) = match text.rsplit_once(':') {
        // A colon before the last slash is a registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    };
    let mut parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 1 && is_registry(parts[0]) {
        parts.remove(0);
    }
    text.len() <= 255
        && parts.into_iter().all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

/// A first part is a registry if it has what no name has: a dot, a port, or the name `localhost`.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let digits = |port: &str| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let letter = |c: char| c.is_ascii_alphanumeric();
    let label = |label: &str| {
        label.starts_with(letter)
            && label.ends_with(letter)
            && label.chars().all(|c| letter(c) || c == '-')
    };
    let named = host.split('.').all(label);
    let is_one = text.contains(['.', ':']) || host == "localhost";
    is_one && (address || named) && port.is_none_or(digits)
}

/// Lowercase letters and digits, with separators between.
fn is_component(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(letter)
        && text.ends_with(letter)
        && text.chars().all(|c| letter(c) || "._-".contains(c))
        && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn is_digest(text: &str) -> bool {
    let (algorithm, hex) = text.split_once(':').unwrap_or_default();
    let letter = |c: char| c.is_ascii_alphanumeric() || "+._-".contains(c);
    algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
        && algorithm.chars().all(letter)
        && hex.len() >= 32
        && hex.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::is_reference;

    #[test]
    fn a_reference_is_what_the_engine_takes_for_one() {
        let digest = "a".repeat(64);
        for good in [
            "nginx",
            "nginx:1.7.9",
            "library/nginx:latest",
            "registry.k8s.io/e2e-test-images/agnhost:2.21",
            "localhost:5000/a/b_c",
            "localhost/a",
            "[2001:db8::1]:5000/a:v1",
            "10.0.0.1:5000/a",
            "a/b/c/d",
            "8d1f0a1c2b3c",
            &format!("nginx@sha256:{digest}"),
            &format!("nginx:1@sha256:{digest}"),
            &format!("sha256:{digest}"),
        ] {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "",
            "-v",
            "--privileged",
            "/nginx",
            "nginx/",
            "a//b",
            "../containers/x/json?",
            "..",
            "a/../../b",
            "Nginx",
            "nginx:",
            "nginx: latest",
            "nginx?x=1",
            "nginx#x",
            "nginx%2f..",
            "ngi\nnx",
            "ngi\0nx",
            "user:secret@registry.example/a",
            "https://registry.example/a",
            "nginx@sha256:short",
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
    }
}
