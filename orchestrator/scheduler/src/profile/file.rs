//! Settings as KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1) has them. What is not known is
//! refused by its path, so that nothing that is asked for is missed in silence. Pure.

mod arguments;

use serde_json::Value;

use super::{Config, Profile, Weights, extenders};
use crate::plugins::Plugin;

/// The fields at the top that mean something to other processes only: there is one scheduler in this server.
const IDLE: [&str; 8] = [
    "apiVersion",
    "kind",
    "clientConnection",
    "leaderElection",
    "enableProfiling",
    "enableContentionProfiling",
    "parallelism",
    "delayCacheUntilActive",
];

/// Reads the settings.
pub fn read(file: &Value) -> Result<Config, String> {
    let mut config = Config::default();
    if file["kind"] != "KubeSchedulerConfiguration" {
        return Err("kind: must be KubeSchedulerConfiguration".to_owned());
    }
    let (mut rated, mut uncounted) = (0, Vec::new());
    for (field, value) in fields(file, "")? {
        match field.as_str() {
            "podInitialBackoffSeconds" => config.first_pause_ms = seconds(value, field)?,
            "podMaxBackoffSeconds" => config.longest_pause_ms = seconds(value, field)?,
            "profiles" => {
                let profiles = items(value, field)?.iter().enumerate();
                let profiles = profiles.map(|(n, it)| profile(it, &format!("profiles[{n}]")));
                config.profiles = profiles.collect::<Result<_, _>>()?;
            }
            "percentageOfNodesToScore" => rated = percentage(value, field)?,
            "extenders" => (config.extenders, uncounted) = extenders::read(value, field)?,
            known if IDLE.contains(&known) => {}
            other => return Err(format!("{other}: not supported")),
        }
    }
    for profile in &mut config.profiles {
        if profile.rated_percent == 0 {
            profile.rated_percent = rated;
        }
        profile.uncounted.names.extend(uncounted.iter().cloned());
    }
    let mut names: Vec<&str> = config.profiles.iter().map(|it| it.name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|two| two[0] == two[1]) || names.is_empty() {
        return Err(
            "profiles: there must be some, each with a schedulerName of its own".to_owned(),
        );
    }
    Ok(config)
}

fn profile(value: &Value, at: &str) -> Result<Profile, String> {
    let name = value["schedulerName"]
        .as_str()
        .unwrap_or(super::DEFAULT_SCHEDULER);
    let mut profile = Profile::named(name);
    for (field, value) in fields(value, at)? {
        let at = format!("{at}.{field}");
        match field.as_str() {
            "schedulerName" => {}
            "percentageOfNodesToScore" => profile.rated_percent = percentage(value, &at)?,
            "plugins" => {
                for (point, set) in fields(value, &at)? {
                    plugins(&mut profile, point, set, &format!("{at}.{point}"))?;
                }
            }
            "pluginConfig" => {
                for (n, it) in items(value, &at)?.iter().enumerate() {
                    let at = format!("{at}[{n}].args");
                    let name = it["name"].as_str().unwrap_or_default();
                    arguments::read(&mut profile, name, &it["args"], &at)?;
                }
            }
            _ => return Err(format!("{at}: not supported")),
        }
    }
    Ok(profile)
}

/// One extension point's `enabled` and `disabled`.
fn plugins(profile: &mut Profile, point: &str, set: &Value, at: &str) -> Result<(), String> {
    let (filters, scores) = match point {
        "multiPoint" => (true, true),
        "preFilter" | "filter" => (true, false),
        "preScore" | "score" => (false, true),
        "postFilter" => (false, false),
        _ => return Err(format!("{at}: plugins cannot be chosen here")),
    };
    for (list, on) in [("disabled", false), ("enabled", true)] {
        for (n, it) in set[list].as_array().into_iter().flatten().enumerate() {
            let name = it["name"].as_str().unwrap_or_default();
            let weight = it["weight"].as_i64();
            let at = format!("{at}.{list}[{n}].name");
            if name == "*" && !on {
                if filters {
                    profile.unfiltered = Plugin::ALL.to_vec();
                }
                if scores {
                    profile.weights = Weights::default();
                }
                profile.preempts &= scores == filters && !filters && point != "postFilter";
                continue;
            }
            let filter = Plugin::ALL.into_iter().find(|plugin| plugin.name() == name);
            if let Some(plugin) = filter.filter(|_| filters) {
                profile.unfiltered.retain(|off| *off != plugin);
                if !on {
                    profile.unfiltered.push(plugin);
                }
            }
            let scored = scores && weigh(profile, name, on, weight);
            let preemption = name == "DefaultPreemption" && !(filters && !scores);
            if preemption {
                profile.preempts = on;
            }
            if !scored && !preemption && filter.is_none() && !ALWAYS.contains(&name) {
                return Err(format!("{at}: there is no plugin \"{name}\" here"));
            }
        }
    }
    Ok(())
}

/// Plugins that are what the scheduler is: they stay on.
const ALWAYS: [&str; 7] = [
    "PrioritySort",
    "DefaultBinder",
    "SchedulingGates",
    "NodeName",
    "ImageLocality",
    "NodeResourcesBalancedAllocation",
    "DefaultPreemption",
];

/// Sets the weight of a score; false if there is none of the name.
fn weigh(profile: &mut Profile, name: &str, on: bool, weight: Option<i64>) -> bool {
    let usual = Profile::named("").weights;
    let weights = &mut profile.weights;
    let (place, usual) = match name {
        "TaintToleration" => (&mut weights.taints, usual.taints),
        "NodeAffinity" => (&mut weights.node_affinity, usual.node_affinity),
        "NodeResourcesFit" => (&mut weights.fit, usual.fit),
        "NodeResourcesBalancedAllocation" => (&mut weights.balanced, usual.balanced),
        "ImageLocality" => (&mut weights.images, usual.images),
        "InterPodAffinity" => (&mut weights.pod_affinity, usual.pod_affinity),
        "PodTopologySpread" => {
            weights.default_spread = if on { usual.default_spread } else { 0 };
            (&mut weights.spread, usual.spread)
        }
        _ => return false,
    };
    let weight = weight.filter(|weight| *weight > 0).unwrap_or(usual);
    *place = if on { weight } else { 0 };
    true
}

/// Zero, which in Kubernetes is a share of its own choice, is all here: rating costs little.
fn percentage(value: &Value, at: &str) -> Result<usize, String> {
    let given = value.as_u64().and_then(|it| usize::try_from(it).ok());
    given
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| format!("{at}: not in valid range [0-100]"))
}

fn seconds(value: &Value, at: &str) -> Result<i64, String> {
    let seconds = value
        .as_i64()
        .filter(|seconds| (1..=3600).contains(seconds));
    seconds
        .map(|it| it * 1000)
        .ok_or_else(|| format!("{at}: must be 1 to 3600 seconds"))
}

pub(super) fn fields<'a>(
    value: &'a Value,
    at: &str,
) -> Result<&'a serde_json::Map<String, Value>, String> {
    value
        .as_object()
        .ok_or_else(|| format!("{at}: must be an object"))
}

pub(super) fn items<'a>(value: &'a Value, at: &str) -> Result<&'a Vec<Value>, String> {
    value
        .as_array()
        .ok_or_else(|| format!("{at}: must be a list"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(profile: Value) -> Result<Profile, String> {
        let file = json!({"kind": "KubeSchedulerConfiguration", "profiles": [profile]});
        read(&file).map(|mut config| config.profiles.remove(0))
    }

    #[test]
    fn profiles_choose_plugins_weights_and_strategies() {
        let read = of(json!({
            "schedulerName": "packing",
            "plugins": {
                "multiPoint": {"disabled": [{"name": "PodTopologySpread"}]},
                "score": {"enabled": [{"name": "NodeResourcesFit", "weight": 7}],
                          "disabled": [{"name": "ImageLocality"}]},
                "postFilter": {"disabled": [{"name": "DefaultPreemption"}]},
            },
            "pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {
                "type": "MostAllocated", "resources": [{"name": "cpu", "weight": 3}]}}}],
        }));
        let read = read.unwrap();
        assert_eq!(read.name, "packing");
        assert_eq!(read.unfiltered, [Plugin::PodTopologySpread]);
        let weights = &read.weights;
        assert_eq!(
            (weights.fit, weights.images, weights.spread, weights.taints),
            (7, 0, 0, 3)
        );
        assert!(!read.preempts);
        assert!(matches!(
            read.fit.strategy,
            crate::profile::Strategy::MostAllocated
        ));
        assert_eq!(read.fit.resources, [("cpu".to_owned(), 3)]);
    }

    #[test]
    fn what_holds_for_all_profiles_holds_where_a_profile_says_nothing() {
        let file = json!({
            "kind": "KubeSchedulerConfiguration",
            "percentageOfNodesToScore": 30,
            "profiles": [{"percentageOfNodesToScore": 5}, {"schedulerName": "other"}],
            "extenders": [{"urlPrefix": "http://a", "managedResources": [
                {"name": "example.com/fpga", "ignoredByScheduler": true}]}],
        });
        let config = read(&file).unwrap();
        let rated: Vec<usize> = config.profiles.iter().map(|it| it.rated_percent).collect();
        assert_eq!(rated, [5, 30]);
        assert!(config.profiles[1].uncounted.has("example.com/fpga"));
        assert_eq!(config.extenders.len(), 1);
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_path() {
        let cases = [
            (
                json!({"plugins": {"filter": {"enabled": [{"name": "Mine"}]}}}),
                "profiles[0].plugins.filter.enabled[0].name: there is no plugin \"Mine\" here",
            ),
            (
                json!({"plugins": {"reserve": {}}}),
                "profiles[0].plugins.reserve: plugins cannot be chosen here",
            ),
            (json!({"more": 1}), "profiles[0].more: not supported"),
        ];
        for (profile, expected) in cases {
            assert_eq!(of(profile).unwrap_err(), expected);
        }
        let twice = json!({"kind": "KubeSchedulerConfiguration", "profiles": [{}, {}]});
        assert!(
            read(&twice)
                .unwrap_err()
                .contains("schedulerName of its own")
        );
        let file =
            |field: &str, value: Value| json!({"kind": "KubeSchedulerConfiguration", field: value});
        let why = read(&file("extenders", json!([{"more": 1}]))).unwrap_err();
        assert_eq!(why, "extenders[0].more: not supported");
        let why = read(&file("percentageOfNodesToScore", json!(101))).unwrap_err();
        assert_eq!(why, "percentageOfNodesToScore: not in valid range [0-100]");
    }
}
