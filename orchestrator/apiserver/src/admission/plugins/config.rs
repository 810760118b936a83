//! What a server is told about its plugins: by its flags, and by the file that
//! `--admission-control-config-file` names (`AdmissionConfiguration` of apiserver.config.k8s.io/v1).

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::events::Limit;
use super::{PLUGINS, Standing, node_selector, toleration_limits, tolerations};
use api::pod_security::{Level, Mode, Policy, Version};

/// Bytes of a configuration file.
const MAX_BYTES: u64 = 1024 * 1024;

/// What is on, and how.
#[derive(Clone, Debug, Default)]
pub struct AdmissionConfig {
    enabled: BTreeSet<&'static str>,
    disabled: BTreeSet<&'static str>,
    pub pod_security: PodSecurity,
    pub event_limits: Vec<Limit>,
    pub node_selectors: node_selector::Selectors,
    pub tolerations: toleration_limits::Tolerations,
    pub toleration_seconds: tolerations::Seconds,
}

/// What holds for namespaces that say nothing, and who is exempt.
#[derive(Clone, Debug, Default)]
pub struct PodSecurity {
    pub defaults: Policy,
    pub usernames: Vec<String>,
    pub namespaces: Vec<String>,
    pub runtime_classes: Vec<String>,
}

/// Why a server cannot be told so.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionConfigError {
    #[error(
        "{flag}: there is no admission plugin {name:?}; there are: {}",
        names()
    )]
    UnknownPlugin { flag: &'static str, name: String },
    #[error("--disable-admission-plugins: {0} cannot be turned off: other parts rely on it")]
    Needed(&'static str),
    #[error("{0} is in --enable-admission-plugins and --disable-admission-plugins: give it once")]
    Both(&'static str),
    #[error("--admission-control-config-file: {path}: {why}")]
    File { path: String, why: String },
}

fn names() -> String {
    let names = PLUGINS.iter().map(|plugin| plugin.name);
    names.collect::<Vec<_>>().join(", ")
}

impl AdmissionConfig {
    pub fn new(
        enable: &[String],
        disable: &[String],
        file: Option<&Path>,
    ) -> Result<Self, AdmissionConfigError> {
        let mut config = Self {
            enabled: known("--enable-admission-plugins", enable)?,
            disabled: known("--disable-admission-plugins", disable)?,
            ..Self::default()
        };
        if let Some(both) = config.enabled.intersection(&config.disabled).next() {
            return Err(AdmissionConfigError::Both(both));
        }
        let mut needed = PLUGINS.iter().filter(|it| it.standing == Standing::Always);
        if let Some(plugin) = needed.find(|it| config.disabled.contains(it.name)) {
            return Err(AdmissionConfigError::Needed(plugin.name));
        }
        if let Some(path) = file {
            config
                .read(path)
                .map_err(|why| AdmissionConfigError::File {
                    path: path.display().to_string(),
                    why,
                })?;
        }
        Ok(config)
    }

    pub fn is_on(&self, name: &str) -> bool {
        let mut plugins = PLUGINS.iter();
        let is_on = |standing| standing != Standing::Off;
        let by_default = plugins.any(|it| it.name == name && is_on(it.standing));
        self.enabled.contains(name) || (by_default && !self.disabled.contains(name))
    }

    fn read(&mut self, path: &Path) -> Result<(), String> {
        let whole = document(path)?;
        check_kind(
            &whole,
            "apiserver.config.k8s.io/v1",
            "AdmissionConfiguration",
        )?;
        let plugins = whole["plugins"].as_array();
        for (index, plugin) in plugins.into_iter().flatten().enumerate() {
            let name = plugin["name"].as_str().unwrap_or_default();
            let at = |why: String| format!("plugins[{index}] {name:?}: {why}");
            if !PLUGINS.iter().any(|known| known.name == name) {
                return Err(at("there is no such plugin".to_owned()));
            }
            let own = match plugin["path"].as_str().filter(|path| !path.is_empty()) {
                Some(other) => {
                    let beside = path.parent().unwrap_or(Path::new("")).join(other);
                    document(&beside).map_err(|why| at(format!("{}: {why}", beside.display())))?
                }
                None => plugin["configuration"].clone(),
            };
            self.configure(name, &own).map_err(at)?;
        }
        Ok(())
    }

    fn configure(&mut self, name: &str, own: &Value) -> Result<(), String> {
        match name {
            "PodSecurity" => self.pod_security = PodSecurity::read(own)?,
            "EventRateLimit" => self.event_limits = Limit::read_all(own)?,
            "PodNodeSelector" => self.node_selectors = node_selector::read(own)?,
            "PodTolerationRestriction" => self.tolerations = toleration_limits::read(own)?,
            _ if own.is_null() => {}
            _ => return Err("it has no configuration".to_owned()),
        }
        Ok(())
    }
}

fn known(
    flag: &'static str,
    names: &[String],
) -> Result<BTreeSet<&'static str>, AdmissionConfigError> {
    let find = |name: &String| {
        let found = PLUGINS.iter().find(|plugin| plugin.name == *name);
        found
            .map(|plugin| plugin.name)
            .ok_or_else(|| AdmissionConfigError::UnknownPlugin {
                flag,
                name: name.clone(),
            })
    };
    names.iter().map(find).collect()
}

fn document(path: &Path) -> Result<Value, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let documents = api::decode::documents(&bytes)?;
    match <[Value; 1]>::try_from(documents) {
        Ok([document]) => Ok(document),
        Err(_) => Err("it must hold one document".to_owned()),
    }
}

/// Whether the document is of the kind; older versions of the same group are read as well.
pub fn check_kind(document: &Value, version: &str, kind: &str) -> Result<(), String> {
    let group = version.split('/').next().unwrap_or_default();
    let said = document["apiVersion"].as_str().unwrap_or_default();
    if said.split('/').next() != Some(group) || document["kind"] != kind {
        return Err(format!("it must be of kind {kind} of {version}"));
    }
    Ok(())
}

/// A field that nobody knows is a typing error, which must not leave a namespace open.
pub fn check_fields(object: &Value, at: &str, fields: &[&str]) -> Result<(), String> {
    let unknown = object.as_object().into_iter().flatten();
    let mut unknown = unknown.filter(|(field, _)| !fields.contains(&field.as_str()));
    match unknown.next() {
        Some((field, _)) => Err(format!("unknown field \"{at}{field}\"")),
        None => Ok(()),
    }
}

impl PodSecurity {
    fn read(own: &Value) -> Result<Self, String> {
        let version = "pod-security.admission.config.k8s.io/v1";
        check_kind(own, version, "PodSecurityConfiguration")?;
        let fields = ["apiVersion", "kind", "defaults", "exemptions"];
        check_fields(own, "", &fields)?;
        let (defaults, exemptions) = (&own["defaults"], &own["exemptions"]);
        let mut made = Self {
            usernames: names_of(exemptions, "usernames")?,
            namespaces: names_of(exemptions, "namespaces")?,
            runtime_classes: names_of(exemptions, "runtimeClasses")?,
            defaults: Policy::default(),
        };
        let lists = ["usernames", "namespaces", "runtimeClasses"];
        check_fields(exemptions, "exemptions.", &lists)?;
        let mut known = Vec::new();
        for mode in Mode::ALL {
            let (level, version) = (mode.name(), format!("{}-version", mode.name()));
            let standard = mode.of_mut(&mut made.defaults);
            let wrong = |field: &str, value: &str, rule: &str| {
                format!("defaults.{field}: Invalid value: {value:?}: {rule}")
            };
            if let Some(text) = defaults[level].as_str() {
                let parsed = Level::parse(text);
                standard.level = parsed.ok_or_else(|| wrong(level, text, Level::RULE))?;
            }
            if let Some(text) = defaults[&version].as_str() {
                let parsed = Version::parse(text);
                standard.version = parsed.ok_or_else(|| wrong(&version, text, Version::RULE))?;
            }
            known.extend([level.to_owned(), version]);
        }
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        check_fields(defaults, "defaults.", &known)?;
        Ok(made)
    }
}

fn names_of(exemptions: &Value, list: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    let listed = exemptions[list].as_array();
    for (index, name) in listed.into_iter().flatten().enumerate() {
        let wrong = |why: &str| Err(format!("exemptions.{list}[{index}]: {why}"));
        match name.as_str() {
            None | Some("") => return wrong("must not be empty"),
            Some(name) if names.iter().any(|other| other == name) => {
                return wrong(&format!("Duplicate value: {name:?}"));
            }
            Some(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str) -> Result<AdmissionConfig, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admission.yaml");
        std::fs::write(&path, text).expect("written");
        let config = AdmissionConfig::new(&[], &[], Some(&path));
        config.map_err(|error| error.to_string())
    }

    fn pod_security(own: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n\
             - name: PodSecurity\n  configuration:\n    \
             apiVersion: pod-security.admission.config.k8s.io/v1\n    \
             kind: PodSecurityConfiguration\n{own}"
        )
    }

    #[test]
    fn plugins_are_turned_on_and_off_by_their_names() {
        let names = |list: &[&str]| {
            list.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let config =
            |on: &[&str], off: &[&str]| AdmissionConfig::new(&names(on), &names(off), None);
        let default = config(&[], &[]).expect("right");
        assert!(default.is_on("PodSecurity") && default.is_on("NodeRestriction"));
        assert!(!default.is_on("AlwaysPullImages") && !default.is_on("Nothing"));
        let other = config(&["AlwaysPullImages"], &["PodSecurity"]).expect("right");
        assert!(other.is_on("AlwaysPullImages") && !other.is_on("PodSecurity"));
        for (on, off, expected) in [
            (
                &["Nope"][..],
                &[][..],
                "--enable-admission-plugins: there is no admission plugin \"Nope\"",
            ),
            (
                &[],
                &["podsecurity"],
                "--disable-admission-plugins: there is no admission plugin",
            ),
            (
                &[],
                &["NodeRestriction"],
                "NodeRestriction cannot be turned off",
            ),
            (
                &["Priority"],
                &["Priority"],
                "Priority is in --enable-admission-plugins and",
            ),
        ] {
            let why = config(on, off).expect_err("wrong").to_string();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn a_file_says_what_holds_for_namespaces_that_say_nothing_and_who_is_exempt() {
        let text = pod_security(
            "    defaults: {enforce: baseline, enforce-version: v1.30, warn: restricted}\n    \
             exemptions: {usernames: [u], runtimeClasses: [], namespaces: [kube-system]}\n",
        );
        let config = with_file(&text).expect("right").pod_security;
        assert_eq!(config.defaults.enforce.to_string(), "baseline:v1.30");
        assert_eq!(config.defaults.warn.to_string(), "restricted:latest");
        assert_eq!(config.defaults.audit.to_string(), "privileged:latest");
        assert_eq!(config.namespaces, ["kube-system"]);
        assert_eq!(config.usernames, ["u"]);
    }

    #[test]
    fn a_file_with_a_typing_error_starts_no_server() {
        let cases = [
            (
                "    defaults: {enforce: Baseline}\n",
                "defaults.enforce: Invalid value: \"Baseline\"",
            ),
            (
                "    defaults: {enforce-version: v2}\n",
                "defaults.enforce-version: Invalid value",
            ),
            (
                "    defaults: {enfroce: baseline}\n",
                "unknown field \"defaults.enfroce\"",
            ),
            ("    exemption: {}\n", "unknown field \"exemption\""),
            (
                "    exemptions: {usernames: [a, a]}\n",
                "exemptions.usernames[1]: Duplicate",
            ),
            (
                "    exemptions: {namespaces: ['']}\n",
                "exemptions.namespaces[0]: must not be empty",
            ),
        ];
        for (own, expected) in cases {
            let why = with_file(&pod_security(own)).expect_err("wrong");
            assert!(why.contains(expected), "{why}");
        }
        for (text, expected) in [
            ("a: [", "admission.yaml: "),
            ("kind: Other\n", "it must be of kind AdmissionConfiguration"),
            (
                "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\n\
                 plugins: [{name: Nope}]\n",
                "plugins[0] \"Nope\": there is no such plugin",
            ),
        ] {
            let why = with_file(text).expect_err("wrong");
            assert!(why.contains(expected), "{why}");
        }
        let missing = AdmissionConfig::new(&[], &[], Some(Path::new("/nowhere/x.yaml")));
        assert!(missing.is_err());
    }
}
