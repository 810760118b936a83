//! EncryptionConfiguration (apiserver.config.k8s.io/v1): which resources are encrypted, by which keys.
//! The first provider writes, all of them read. `aesgcm` and `identity` are known here.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::seal::{self, KEY_BYTES, Key, Unsealed};
use sys::files;

/// What the store's keys of objects begin with.
const ROOT: &str = "/registry/";

/// Why nothing can be encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("{path}: {why}")]
    Meaning { path: String, why: String },
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error(transparent)]
    Open(#[from] store::OpenError),
}

/// What is encrypted, as a file says it.
#[derive(Debug, Default)]
pub struct Encryption {
    pub(super) rules: Vec<Rule>,
    pub(super) file: PathBuf,
}

/// How the objects of some resources are stored. By default as they are.
#[derive(Debug, Default)]
pub struct Rule {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.`, `*.*`
    resources: Vec<String>,
    providers: Vec<Provider>,
}

#[derive(Debug)]
enum Provider {
    AesGcm(Vec<Key>),
    /// Not encrypted.
    Identity,
}

impl Encryption {
    /// As the file says. A cluster that has no store yet gets one with a key for Secrets; one that has a
    /// store, and no file, is left as it is.
    pub fn load_or_create(file: &Path, is_new: bool) -> Result<Self, EncryptionError> {
        match Self::read(file)? {
            Some(encryption) => Ok(encryption),
            None if is_new => {
                write(file, &of_keys(&[new_key()]))?;
                Self::read(file).map(Option::unwrap_or_default)
            }
            None => Ok(Self::none(file)),
        }
    }

    /// Nothing is encrypted; what is, is told from what is not.
    pub fn none(file: &Path) -> Self {
        Self {
            rules: Vec::new(),
            file: file.to_owned(),
        }
    }

    /// None: there is no such file.
    pub fn read(file: &Path) -> Result<Option<Self>, EncryptionError> {
        let text = files::read_if_present(file).map_err(|source| EncryptionError::File {
            path: file.display().to_string(),
            source,
        })?;
        let Some(text) = text else {
            return Ok(None);
        };
        let rules = parse(&text).map_err(|why| meaning(file, why))?;
        Ok(Some(Self {
            rules,
            file: file.to_owned(),
        }))
    }

    /// Whether new Secrets are encrypted.
    pub fn is_on(&self) -> bool {
        let key = format!("{ROOT}core/secrets/");
        let rule = self.rules.iter().find(|rule| rule.is_for(&key));
        rule.is_some_and(|rule| rule.writes_with().is_some())
    }
}

impl Rule {
    /// Whether it is for the object with this key.
    pub fn is_for(&self, key: &str) -> bool {
        let mut words = key.strip_prefix(ROOT).unwrap_or_default().split('/');
        let (Some(group), Some(plural)) = (words.next(), words.next()) else {
            return false;
        };
        let group = if group == "core" { "" } else { group };
        is_among(&self.resources, plural, group)
    }

    /// As the file names them.
    pub fn resources(&self) -> &[String] {
        &self.resources
    }

    /// By which keys, without the keys: the first one writes, all of them read. `plain` stands for none.
    pub fn key_names(&self, plain: &str) -> Vec<String> {
        let names = self.providers.iter().flat_map(|provider| match provider {
            Provider::AesGcm(keys) => keys.iter().map(Key::shown).collect(),
            Provider::Identity => vec![plain.to_owned()],
        });
        names.collect()
    }

    pub fn seal(&self, key: &str, plain: &Bytes) -> Bytes {
        match self.writes_with() {
            Some(with) => with.seal(key, plain).into(),
            None => plain.clone(),
        }
    }

    /// The error says nothing about the value but who has encrypted it.
    pub fn open<'a>(&self, key: &str, value: &'a [u8]) -> Result<Unsealed<'a>, String> {
        let Some(by) = seal::sealed_by(value) else {
            let reads = |provider: &Provider| matches!(provider, Provider::Identity);
            return match self.providers.is_empty() || self.providers.iter().any(reads) {
                true => Ok(Unsealed::AsItWas(value)),
                false => Err("it is not encrypted, and identity is no provider for it".to_owned()),
            };
        };
        let keys = self.providers.iter().flat_map(Provider::keys);
        let mut known = keys.filter(|key| key.has_sealed(value)).peekable();
        if known.peek().is_none() {
            return Err(format!(
                "it is encrypted with {by}, which is not in the file"
            ));
        }
        let opened = known.find_map(|with| with.open(key, value));
        opened.map(Unsealed::Decrypted).ok_or_else(|| {
            format!("{by} does not open it: the key is another one, or the value was changed")
        })
    }

    /// Whether a value is stored as it would be now.
    pub fn is_current(&self, value: &[u8]) -> bool {
        match self.writes_with() {
            Some(key) => key.has_sealed(value),
            None => seal::sealed_by(value).is_none(),
        }
    }

    fn writes_with(&self) -> Option<&Key> {
        self.providers.first()?.keys().first()
    }
}

impl Provider {
    fn keys(&self) -> &[Key] {
        match self {
            Self::AesGcm(keys) => keys,
            Self::Identity => &[],
        }
    }
}

/// Whether one of these names, which may hold wildcards, names a resource as a file does, `*.apps` among them.
pub(super) fn named(names: &[String], resource: &str) -> bool {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    is_among(names, plural, group)
}

fn is_among(names: &[String], plural: &str, group: &str) -> bool {
    names.iter().any(|named| {
        let (resource, of) = named.split_once('.').unwrap_or((named, ""));
        (resource == "*" || resource == plural) && (of == "*" || of == group)
    })
}

pub(super) fn meaning(file: &Path, why: String) -> EncryptionError {
    EncryptionError::Meaning {
        path: file.display().to_string(),
        why,
    }
}

/// The rules of a configuration. Errors name fields, never secrets.
fn parse(text: &str) -> Result<Vec<Rule>, String> {
    // The parser's own words could quote a line.
    let documents = api::decode::documents(text.as_bytes());
    let documents = documents.map_err(|_| "neither YAML nor JSON".to_owned())?;
    let file = documents.first().ok_or("there is nothing in it")?;
    check_fields(file, "", &["apiVersion", "kind", "metadata", "resources"])?;
    let known = ["apiserver.config.k8s.io/v1", "v1"];
    if file["kind"] != "EncryptionConfiguration" || !known.iter().any(|v| file["apiVersion"] == *v)
    {
        return Err("not an EncryptionConfiguration of apiserver.config.k8s.io/v1".to_owned());
    }
    let rules = list(&file["resources"], "resources")?;
    let rules = rules.iter().enumerate().map(|(index, rule)| {
        let at = format!("resources[{index}]");
        check_fields(rule, &at, &["resources", "providers"])?;
        let field = format!("{at}.resources");
        let resources = list(&rule["resources"], &field)?.iter();
        let resources = resources.map(|name| match name.as_str() {
            Some(name) if !name.is_empty() => Ok(name.to_owned()),
            _ => Err(format!("{field}: not the name of a resource")),
        });
        let field = format!("{at}.providers");
        let providers = list(&rule["providers"], &field)?.iter().enumerate();
        let providers =
            providers.map(|(index, given)| provider(given, &format!("{field}[{index}]")));
        Ok(Rule {
            resources: resources.collect::<Result<_, String>>()?,
            providers: providers.collect::<Result<_, String>>()?,
        })
    });
    rules.collect()
}

fn provider(given: &Value, at: &str) -> Result<Provider, String> {
    check_fields(given, at, &["aesgcm", "identity"])
        .map_err(|why| format!("{why}: aesgcm and identity are supported"))?;
    match (&given["aesgcm"], &given["identity"]) {
        (Value::Null, Value::Object(_)) => Ok(Provider::Identity),
        (aesgcm @ Value::Object(_), Value::Null) => {
            let at = format!("{at}.aesgcm");
            check_fields(aesgcm, &at, &["keys"])?;
            let field = format!("{at}.keys");
            let keys = list(&aesgcm["keys"], &field)?.iter().enumerate();
            let keys = keys.map(|(index, given)| key(given, &format!("{field}[{index}]")));
            let keys = keys.collect::<Result<Vec<_>, String>>()?;
            match keys.is_empty() {
                true => Err(format!("{field}: there are none")),
                false => Ok(Provider::AesGcm(keys)),
            }
        }
        _ => Err(format!("{at}: must be one provider")),
    }
}

fn key(given: &Value, at: &str) -> Result<Key, String> {
    check_fields(given, at, &["name", "secret"])?;
    let name = given["name"].as_str().unwrap_or_default();
    if name.is_empty() || name.contains(':') {
        return Err(format!("{at}.name: must be a word without a colon"));
    }
    let secret = given["secret"].as_str().unwrap_or_default();
    let secret = STANDARD.decode(secret).unwrap_or_default();
    Key::new(name, &secret)
        .ok_or_else(|| format!("{at}.secret: must be {KEY_BYTES} bytes in base64"))
}

fn list<'a>(value: &'a Value, at: &str) -> Result<&'a [Value], String> {
    let list = value.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| format!("{at}: must be a list that is not empty"))?;
    Ok(list)
}

fn check_fields(value: &Value, at: &str, known: &[&str]) -> Result<(), String> {
    let fields = value
        .as_object()
        .ok_or_else(|| format!("{at}: not an object"))?;
    let mut unknown = fields
        .keys()
        .filter(|field| !known.contains(&field.as_str()));
    match unknown.next() {
        Some(field) => Err(format!("{at}: unknown field {field:?}")),
        None => Ok(()),
    }
}

/// A key in the form of the file.
pub(super) fn new_key() -> Value {
    let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let name = format!("{today}-{}", sys::random::word(6));
    json!({"name": name, "secret": STANDARD.encode(Key::random())})
}

/// A configuration that encrypts Secrets with the first of these keys. Without any it encrypts nothing.
pub(super) fn of_keys(keys: &[Value]) -> Value {
    let mut providers = vec![json!({"identity": {}})];
    if !keys.is_empty() {
        providers.insert(0, json!({"aesgcm": {"keys": keys}}));
    }
    configuration(&providers)
}

/// A configuration that encrypts nothing any more and reads what these keys have encrypted.
pub(super) fn reading_keys(keys: &[Value]) -> Value {
    configuration(&[json!({"identity": {}}), json!({"aesgcm": {"keys": keys}})])
}

fn configuration(providers: &[Value]) -> Value {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    })
}

/// The keys of a configuration that was made here, in the form of the file; the error is that of a file
/// that somebody else has written, which is not to be changed.
pub(super) fn own_keys(file: &Path) -> Result<Vec<Value>, EncryptionError> {
    let Some(text) = files::read_if_present(file).map_err(|source| EncryptionError::File {
        path: file.display().to_string(),
        source,
    })?
    else {
        return Ok(Vec::new());
    };
    parse(&text).map_err(|why| meaning(file, why))?;
    let documents = api::decode::documents(text.as_bytes()).unwrap_or_default();
    let found = documents.first().cloned().unwrap_or_default();
    let providers = found["resources"][0]["providers"].as_array();
    let keys = providers.into_iter().flatten();
    let keys = keys.filter_map(|provider| provider["aesgcm"]["keys"].as_array());
    let keys: Vec<Value> = keys.flatten().cloned().collect();
    let own = [of_keys(&keys), reading_keys(&keys)];
    match own.contains(&found) {
        true => Ok(keys),
        false => {
            let why = "this file was not made by this command: change it by hand, then run rewrite";
            Err(meaning(file, why.to_owned()))
        }
    }
}

/// Writes a configuration, for the owner alone.
pub(super) fn write(file: &Path, configuration: &Value) -> Result<(), EncryptionError> {
    let text = api::decode::to_yaml(configuration);
    let written = files::write_atomic(file, text.as_bytes(), files::PRIVATE);
    written.map_err(|source| EncryptionError::File {
        path: file.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQ/MTIzNDU=";

    fn with(providers: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - resources: [secrets, '*.example.com']\n  providers: {providers}\n"
        )
    }

    #[test]
    fn a_rule_is_for_the_resources_that_it_names() {
        let rules = parse(&with("[{identity: {}}]")).expect("rules");
        for (key, expected) in [
            ("/registry/core/secrets/a/b", true),
            ("/registry/core/configmaps/a/b", false),
            ("/registry/example.com/widgets/a/b", true),
            ("/registry/apps/secrets/a/b", false),
            ("/other/core/secrets/a", false),
        ] {
            assert_eq!(rules[0].is_for(key), expected, "{key}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_its_field_and_without_its_secrets() {
        for (providers, expected) in [
            (
                "[{aescbc: {keys: []}}]",
                "resources[0].providers[0]: unknown field \"aescbc\": aesgcm and identity are",
            ),
            (
                "[{kms: {name: x}}]",
                "resources[0].providers[0]: unknown field \"kms\"",
            ),
            ("[]", "resources[0].providers: must be a list"),
            (
                "[{aesgcm: {keys: []}}]",
                "resources[0].providers[0].aesgcm.keys: must be",
            ),
            (
                "[{aesgcm: {keys: [{name: a, secret: c2VjcmV0}]}}]",
                "resources[0].providers[0].aesgcm.keys[0].secret: must be 32 bytes in base64",
            ),
            (
                "[{aesgcm: {keys: [{name: 'a:b', secret: c2VjcmV0}]}}]",
                "resources[0].providers[0].aesgcm.keys[0].name: must be a word",
            ),
            (
                "[{identity: {}, aesgcm: {}}]",
                "resources[0].providers[0]: must be one provider",
            ),
        ] {
            let why = parse(&with(providers)).expect_err(providers);
            assert!(why.starts_with(expected) && !why.contains("c2Vj"), "{why}");
        }
        let why = parse(&format!("a: [{SECRET}")).expect_err("broken");
        assert_eq!(why, "neither YAML nor JSON");
        assert!(parse("kind: Pod").is_err());
    }

    #[test]
    fn every_provider_reads_and_the_first_one_writes() {
        let one = format!("{{aesgcm: {{keys: [{{name: one, secret: {SECRET}}}]}}}}");
        let rule = |providers: &str| parse(&with(providers)).expect("rules").remove(0);
        let (on, both, off) = (
            rule(&format!("[{one}]")),
            rule(&format!("[{one}, {{identity: {{}}}}]")),
            rule(&format!("[{{identity: {{}}}}, {one}]")),
        );
        let key = "/registry/core/secrets/a/b";
        let plain = Bytes::from_static(b"{}");
        let sealed = on.seal(key, &plain);
        assert_ne!(sealed, plain);
        assert_eq!(off.seal(key, &plain), plain);
        for reader in [&on, &both, &off] {
            let opened = reader.open(key, &sealed).expect("opened");
            assert_eq!(opened.bytes(), b"{}");
        }
        assert!(both.open(key, &plain).is_ok() && on.open(key, &plain).is_err());
        assert!(on.is_current(&sealed) && !off.is_current(&sealed) && off.is_current(&plain));
        let lost = Rule::default().open(key, &sealed).expect_err("lost");
        assert_eq!(
            lost,
            "it is encrypted with key \"one\" of aesgcm, which is not in the file"
        );
    }
}
