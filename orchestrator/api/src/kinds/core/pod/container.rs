//! Containers: names, images, ports, environment, mounts, resources, probes.

use std::collections::BTreeSet;

use super::{security, volume};
use crate::pod_resources::HUGE_PAGES;
use crate::quantity::Quantity;
use crate::validation::addresses::ip;
use crate::validation::{At, Errors, names, resources};

/// What the containers of one pod share.
pub struct Context<'a> {
    pub volumes: &'a volume::Names<'a>,
    pub host_network: bool,
    /// Users of the pod are users of the node.
    pub host_users: bool,
    /// `spec.os.name`.
    pub os: &'a str,
}

/// The signals by which a container can be asked to stop, but for SIGRTMIN+n and SIGRTMAX-n.
const SIGNALS: [&str; 36] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMIN",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

pub fn containers(spec: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    let (main, init) = (spec.field("containers"), spec.field("initContainers"));
    if main.is_empty() {
        errors.required(&main, "");
    }
    let mut seen = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for (container, is_init) in main
        .items()
        .map(|c| (c, false))
        .chain(init.items().map(|c| (c, true)))
    {
        let name = container.field("name");
        if name.is_empty() {
            errors.required(&name, "");
        } else {
            errors.check(&name, names::label(name.text()));
            if !seen.insert(name.text().to_owned()) {
                errors.duplicate(&name);
            }
        }
        one(&container, context, is_init, errors);
        if !is_init {
            used_host_ports(&container, &mut host_ports, errors);
        }
    }
}

/// What holds for containers of every kind.
pub fn one(container: &At<'_>, context: &Context<'_>, is_init: bool, errors: &mut Errors) {
    let image = container.field("image");
    if image.is_empty() {
        errors.required(&image, "");
    } else if image.text().trim() != image.text() {
        errors.invalid(&image, "must not have leading or trailing whitespace");
    }
    errors.one_of(
        &container.field("imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    errors.one_of(
        &container.field("terminationMessagePolicy"),
        &["FallbackToLogsOnError", "File"],
    );
    ports(&container.field("ports"), context, errors);
    environment(&container.field("env"), errors);
    environment_from(&container.field("envFrom"), errors);
    volume::mounts(container, context.volumes, errors);
    volume::devices(container, context.volumes, errors);
    security::of_container(container, context.host_users, errors);
    resources(&container.field("resources"), errors);
    let policy = container.field("restartPolicy");
    if is_init {
        errors.one_of_if_any(&policy, &["Always"]);
    } else if !policy.is_empty() {
        errors.forbidden(&policy, "may not be set for non-init containers");
    }
    let sidecar = is_init && policy.text() == "Always";
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.field(kind);
        if probe.is_null() {
        } else if is_init && !sidecar {
            errors.forbidden(
                &probe,
                "may not be set for init containers without restartPolicy=Always",
            );
        } else {
            self::probe(&probe, kind != "readinessProbe", errors);
        }
    }
    let lifecycle = container.field("lifecycle");
    if is_init && !sidecar && !lifecycle.is_null() {
        errors.forbidden(
            &lifecycle,
            "may not be set for init containers without restartPolicy=Always",
        );
    }
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.field(hook);
        if !hook.is_null() {
            handler(&hook, errors);
        }
    }
    stop_signal(&lifecycle.field("stopSignal"), context, errors);
}

/// KEP-4960: which signals there are depends on the system, so the pod has to name it.
fn stop_signal(signal: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    if signal.is_empty() {
        return;
    }
    if context.os.is_empty() {
        let detail = "may not be set for containers with empty `spec.os.name`";
        return errors.forbidden(signal, detail);
    }
    let real_time = |prefix: &str, most: u8| {
        let number = signal.text().strip_prefix(prefix);
        number.is_some_and(|n| n.parse().is_ok_and(|n: u8| (1..=most).contains(&n)))
    };
    if !real_time("SIGRTMIN+", 15) && !real_time("SIGRTMAX-", 14) {
        errors.one_of(signal, &SIGNALS);
    }
}

fn ports(ports: &At<'_>, context: &Context<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.is_empty() {
            match names::port_name(name.text()) {
                Err(why) => errors.invalid(&name, why),
                Ok(()) if !seen.insert(name.text().to_owned()) => errors.duplicate(&name),
                Ok(()) => {}
            }
        }
        let number = port.field("containerPort");
        if number.number() == 0 {
            errors.required(&number, "");
        } else {
            errors.in_range(&number, 1, 65535);
        }
        let host = port.field("hostPort");
        if host.number() != 0 {
            errors.in_range(&host, 1, 65535);
            if context.host_network && host.number() != number.number() {
                errors.invalid(&number, "must match `hostPort` when `hostNetwork` is true");
            }
        }
        let host_ip = port.field("hostIP");
        if !host_ip.is_empty() {
            ip(&host_ip, errors);
        }
        errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

/// No two containers may take the same port of the node.
fn used_host_ports(container: &At<'_>, used: &mut BTreeSet<String>, errors: &mut Errors) {
    let ports = container.field("ports");
    for port in ports.items() {
        let host = port.field("hostPort");
        if host.number() == 0 {
            continue;
        }
        let protocol = port.field("protocol").text().to_owned();
        let key = format!(
            "{}/{protocol}/{}",
            port.field("hostIP").text(),
            host.number()
        );
        if !used.insert(key) {
            errors.duplicate(&host);
        }
    }
}

fn environment(env: &At<'_>, errors: &mut Errors) {
    for variable in env.items() {
        let name = variable.field("name");
        if name.is_empty() {
            errors.required(&name, "");
        } else {
            errors.check(&name, names::env_name(name.text()));
        }
        let from = variable.field("valueFrom");
        if from.is_null() {
            continue;
        }
        if !variable.field("value").is_empty() {
            errors.invalid_value(&from, "", "may not be specified when `value` is not empty");
        }
        match from.entries().count() {
            0 => errors.invalid_value(
                &from,
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or \
                 `secretKeyRef`",
            ),
            1 => {}
            _ => errors.invalid_value(
                &from,
                "",
                "may not have more than one field specified at a time",
            ),
        }
    }
}

fn environment_from(sources: &At<'_>, errors: &mut Errors) {
    for source in sources.items() {
        let prefix = source.field("prefix");
        if !prefix.is_empty() {
            errors.check(&prefix, names::env_name(prefix.text()));
        }
        let (map, secret) = (source.field("configMapRef"), source.field("secretRef"));
        match (map.is_null(), secret.is_null()) {
            (true, true) => errors.invalid_value(
                &source,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            ),
            (false, false) => errors.invalid_value(
                &source,
                "",
                "may not have more than one field specified at a time",
            ),
            _ => {}
        }
    }
}

/// Requests and limits, each by itself and both together.
pub fn resources(resources: &At<'_>, errors: &mut Errors) {
    let (limits, requests) = (resources.field("limits"), resources.field("requests"));
    amounts(&limits, errors);
    amounts(&requests, errors);
    let names = || [&limits, &requests].into_iter().flat_map(At::entries);
    let has_pages = names().any(|(name, _)| name.starts_with(HUGE_PAGES));
    if has_pages && !names().any(|(name, _)| ["cpu", "memory"].contains(&name)) {
        errors.forbidden(resources, "HugePages require cpu or memory");
    }
    for (name, request) in requests.entries() {
        let limit = limits.key(name);
        let amounts = (
            Quantity::parse(request.text()),
            Quantity::parse(limit.text()),
        );
        if limit.is_null() {
            if !resources::can_overcommit(name) {
                errors.required(
                    &limits,
                    "Limit must be set for non overcommitable resources",
                );
            }
        } else if let (Ok(asked), Ok(most)) = amounts {
            let detail = if asked != most && !resources::can_overcommit(name) {
                format!("must be equal to {name} limit of {most}")
            } else if asked > most {
                format!("must be less than or equal to {name} limit of {most}")
            } else {
                continue;
            };
            errors.invalid_value(&requests, request.text(), detail);
        }
    }
}

/// A list of amounts of resources by name.
pub fn amounts(list: &At<'_>, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        resources::of_container(&amount, name, errors);
        resources::amount(&amount, name, errors);
    }
}

fn probe(probe: &At<'_>, restarts: bool, errors: &mut Errors) {
    handler(probe, errors);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        errors.not_negative(&probe.field(field));
    }
    let successes = probe.field("successThreshold");
    if restarts && successes.number() != 1 {
        errors.invalid(&successes, "must be 1");
    }
    let grace = probe.field("terminationGracePeriodSeconds");
    if !grace.is_null() && !restarts {
        errors.invalid(&grace, "must not be set for readinessProbes");
    } else if !grace.is_null() && grace.number() <= 0 {
        errors.invalid(&grace, "must be greater than 0");
    }
}

fn handler(handler: &At<'_>, errors: &mut Errors) {
    let kinds = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
    let mut given = 0;
    for kind in kinds {
        let action = handler.field(kind);
        if action.is_null() {
            continue;
        }
        given += 1;
        if given > 1 {
            errors.forbidden(&action, "may not specify more than 1 handler type");
            continue;
        }
        match kind {
            "exec" if action.field("command").is_empty() => {
                errors.required(&action.field("command"), "");
            }
            "httpGet" => {
                let path = action.field("path");
                if path.is_empty() {
                    errors.required(&path, "");
                }
                port(&action.field("port"), errors);
                headers(&action.field("httpHeaders"), errors);
                errors.one_of(&action.field("scheme"), &["HTTP", "HTTPS"]);
            }
            "tcpSocket" | "grpc" => port(&action.field("port"), errors),
            _ => {}
        }
    }
    if given == 0 {
        errors.required(handler, "must specify a handler type");
    }
}

fn headers(headers: &At<'_>, errors: &mut Errors) {
    for header in headers.items() {
        let name = header.field("name");
        errors.check(&name, names::header(name.text()));
    }
}

/// A port by number or by name.
pub fn port(port: &At<'_>, errors: &mut Errors) {
    if port.value.is_string() {
        errors.check(port, names::port_name(port.text()));
    } else {
        errors.in_range(port, 1, 65535);
    }
}
