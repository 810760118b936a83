//! What names, labels and their like may look like, in Kubernetes' words.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
    characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
    '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or \
    '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
    'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and \
    must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
    '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, \
    '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
    'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or \
    '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
    '[-._a-zA-Z0-9]+')";

const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS \
    subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an \
    alphanumeric character (e.g. '*.example.com', regex used for validation is \
    '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// A DNS label, such as a container's name.
pub fn label(text: &str) -> Result<(), String> {
    length(text, 63)?;
    ensure(is_label(text), LABEL)
}

/// Labels with dots between: most objects' names.
pub fn subdomain(text: &str) -> Result<(), String> {
    length(text, 253)?;
    ensure(text.split('.').all(is_label), SUBDOMAIN)
}

/// A label that begins with a letter: a Service's name.
pub fn label_1035(text: &str) -> Result<(), String> {
    length(text, 63)?;
    let fits = is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    ensure(fits, LABEL_1035)
}

/// `*.` and a subdomain: the host of an Ingress's rule.
pub fn wildcard_subdomain(text: &str) -> Result<(), String> {
    length(text, 253)?;
    let rest = text.strip_prefix("*.");
    ensure(
        rest.is_some_and(|rest| rest.split('.').all(is_label)),
        WILDCARD,
    )
}

/// What can stand between two slashes of a path: the names of roles.
pub fn path_segment(text: &str) -> Result<(), String> {
    match text {
        "." | ".." => Err(format!("may not be '{text}'")),
        _ => match text.chars().find(|c| "/%".contains(*c)) {
            Some(sign) => Err(format!("may not contain '{sign}'")),
            None => Ok(()),
        },
    }
}

/// An address as it is written shortest: the name of an IPAddress.
pub fn ip_address(text: &str) -> Result<(), String> {
    match crate::address::parse_ip(text) {
        Some(address) if address.to_string() == text => Ok(()),
        Some(address) => Err(format!("must be in canonical form (\"{address}\")")),
        None => Err("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()),
    }
}

/// `[prefix/]name`
pub fn label_key(text: &str) -> Result<(), String> {
    let (prefix, name) = match text.split_once('/') {
        Some((_, name)) if name.contains('/') => {
            return Err(format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')",
                QUALIFIED.trim_start_matches("name part ")
            ));
        }
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    match prefix {
        Some("") => return Err("prefix part must be non-empty".into()),
        Some(prefix) => subdomain(prefix).map_err(|why| format!("prefix part {why}"))?,
        None => {}
    }
    if name.is_empty() {
        return Err("name part must be non-empty".into());
    }
    length(name, 63).map_err(|why| format!("name part {why}"))?;
    ensure(is_token(name), QUALIFIED)
}

pub fn label_value(text: &str) -> Result<(), String> {
    length(text, 63)?;
    ensure(text.is_empty() || is_token(text), VALUE)
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Result<(), String> {
    length(text, 253)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    ensure(!text.is_empty() && text.chars().all(fits), CONFIG_KEY)?;
    match text {
        "." => Err("must not be '.'".into()),
        ".." => Err("must not be '..'".into()),
        _ if text.starts_with("..") => Err("must not start with '..'".into()),
        _ => Ok(()),
    }
}

/// The name of a container's port: at most 15 characters, at least one letter.
pub fn port_name(text: &str) -> Result<(), String> {
    length(text, 15)?;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure(
        text.chars().all(fits),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    )?;
    ensure(
        text.contains(|c: char| c.is_ascii_lowercase()),
        "must contain at least one letter (a-z)",
    )?;
    ensure(!text.contains("--"), "must not contain consecutive hyphens")?;
    ensure(
        !text.starts_with('-') && !text.ends_with('-'),
        "must not begin or end with a hyphen",
    )
}

/// The name of an environment variable: anything printable but `=`.
pub fn env_name(text: &str) -> Result<(), String> {
    let fits = |c: char| (c.is_ascii_graphic() || c == ' ') && c != '=';
    ensure(
        !text.is_empty() && text.chars().all(fits),
        "a valid environment variable name must consist only of printable ASCII characters other \
         than '='",
    )
}

/// The name of a header of an HTTP request.
pub fn header(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    ensure(
        !text.is_empty() && text.chars().all(fits),
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
         'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
    )
}

/// The path of a URL.
pub fn http_path(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    ensure(
        !text.is_empty() && text.chars().all(fits),
        "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
    )
}

fn length(text: &str, max: usize) -> Result<(), String> {
    if text.len() > max {
        Err(format!("must be no more than {max} bytes"))
    } else {
        Ok(())
    }
}

fn ensure(fits: bool, message: &str) -> Result<(), String> {
    if fits { Ok(()) } else { Err(message.into()) }
}

fn is_label(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(fits) && text.ends_with(fits) && text.chars().all(|c| fits(c) || c == '-')
}

fn is_token(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(fits)
        && text.ends_with(fits)
        && text.chars().all(|c| fits(c) || "-_.".contains(c))
}
