//! Pods and pod templates: everything but the containers themselves.

use super::{container, os, placement, security, volume, whole};
use crate::validation::addresses::ip;
use crate::validation::{At, Errors, names, object};

/// What a text must look like.
type Rule = fn(&str) -> Result<(), String>;

/// What a resolver takes.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_BYTES: usize = 2048;

/// The longest that a pod may run: 2³¹−1 seconds.
const MAX_SECONDS: i64 = i32::MAX as i64;

pub fn pod(pod: &At<'_>, errors: &mut Errors) {
    pod_spec(&pod.field("spec"), errors);
}

pub fn new_pod(pod: &At<'_>, errors: &mut Errors) {
    let spec = pod.field("spec");
    let ephemeral = spec.field("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.forbidden(&ephemeral, "cannot be set on create");
    }
}

/// A template, whose pods must have labels that its owner selects.
pub fn template(template: &At<'_>, errors: &mut Errors) {
    let metadata = template.field("metadata");
    object::labels(&metadata.field("labels"), errors);
    object::annotations(&metadata.field("annotations"), errors);
    let spec = template.field("spec");
    pod_spec(&spec, errors);
    let ephemeral = spec.field("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.forbidden(
            &ephemeral,
            "ephemeral containers not allowed in pod template",
        );
    }
}

fn pod_spec(spec: &At<'_>, errors: &mut Errors) {
    let volumes = volume::volumes(&spec.field("volumes"), errors);
    let os = spec.field("os");
    let os = os.field("name");
    let context = container::Context {
        volumes: &volumes,
        host_network: spec.field("hostNetwork").is_true(),
        host_users: spec.field("hostUsers").value != false,
        os: os.text(),
    };
    container::containers(spec, &context, errors);
    errors.one_of(
        &spec.field("restartPolicy"),
        &["Always", "OnFailure", "Never"],
    );
    errors.one_of(
        &spec.field("dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    seconds(spec, errors);
    placement::placement(spec, errors);
    security::of_pod(spec, errors);
    dns(spec, errors);
    named_fields(spec, errors);
    host_aliases(&spec.field("hostAliases"), errors);
    container::amounts(&spec.field("overhead"), errors);
    whole::validate(spec, errors);
}

fn seconds(spec: &At<'_>, errors: &mut Errors) {
    let grace = spec.field("terminationGracePeriodSeconds");
    errors.not_negative(&grace);
    let deadline = spec.field("activeDeadlineSeconds");
    if !deadline.is_null() {
        errors.in_range(&deadline, 1, MAX_SECONDS);
    }
}

fn named_fields(spec: &At<'_>, errors: &mut Errors) {
    let rules: [(&str, Rule); 6] = [
        ("nodeName", names::subdomain),
        ("serviceAccountName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
        ("priorityClassName", names::subdomain),
        ("runtimeClassName", names::subdomain),
    ];
    for (field, rule) in rules {
        let at = spec.field(field);
        if !at.is_empty() {
            errors.check(&at, rule(at.text()));
        }
    }
    let os = spec.field("os");
    if !os.is_null() {
        errors.one_of(&os.field("name"), &["linux", "windows"]);
        os::check(spec, errors);
    }
}

fn host_aliases(aliases: &At<'_>, errors: &mut Errors) {
    for alias in aliases.items() {
        ip(&alias.field("ip"), errors);
        let names = alias.field("hostnames");
        for name in names.items() {
            errors.check(&name, names::subdomain(name.text()));
        }
    }
}

fn dns(spec: &At<'_>, errors: &mut Errors) {
    let config = spec.field("dnsConfig");
    let servers = config.field("nameservers");
    let count = |list: &At<'_>| list.value.as_array().map_or(0, Vec::len);
    if count(&servers) > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.invalid(&servers, detail);
    }
    if spec.field("dnsPolicy").text() == "None" && servers.is_empty() {
        errors.required(
            &servers,
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    for server in servers.items() {
        ip(&server, errors);
    }
    let searches = config.field("searches");
    if count(&searches) > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.invalid(&searches, detail);
    }
    let bytes: usize = searches.items().map(|search| search.text().len() + 1).sum();
    if bytes.saturating_sub(1) > MAX_SEARCH_BYTES {
        let detail = format!(
            "must not have more than {MAX_SEARCH_BYTES} characters (including spaces) in the \
             search list"
        );
        errors.invalid(&searches, detail);
    }
    for search in searches.items() {
        let name = search.text().strip_suffix('.').unwrap_or(search.text());
        // The underscore is allowed since 1.32, and the root alone.
        if search.text() != "." {
            errors.check(&search, names::subdomain(&name.replace('_', "a")));
        }
    }
    let options = config.field("options");
    for option in options.items() {
        let name = option.field("name");
        if name.is_empty() {
            errors.required(&name, "must not be empty");
        }
    }
}
