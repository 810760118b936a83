//! Settings as KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1) has them. What is not known is
//! refused by its path, so that nothing that is asked for is missed in silence. Pure.

use serde_json::Value;

use super::{Config, Profile, Strategy, Weights};
use crate::plugins::Plugin;

/// Kubernetes rates by requested-to-capacity shapes of 0 to 10.
const SHAPE_SCALE: i64 = 10;
/// The fields at the top that mean something to other processes only: there is one scheduler in this server.
const IDLE: [&str; 9] = [
    "apiVersion",
    "kind",
    "clientConnection",
    "leaderElection",
    "enableProfiling",
    "enableContentionProfiling",
    "parallelism",
    "percentageOfNodesToScore",
    "delayCacheUntilActive",
];

/// Reads the settings.
pub fn read(file: &Value) -> Result<Config, String> {
    let mut config = Config::default();
    if file["kind"] != "KubeSchedulerConfiguration" {
        return Err("kind: must be KubeSchedulerConfiguration".to_owned());
    }
    for (field, value) in fields(file, "")? {
        match field.as_str() {
            "podInitialBackoffSeconds" => config.first_pause_ms = seconds(value, field)?,
            "podMaxBackoffSeconds" => config.longest_pause_ms = seconds(value, field)?,
            "profiles" => {
                let profiles = items(value, field)?.iter().enumerate();
                let profiles = profiles.map(|(n, it)| profile(it, &format!("profiles[{n}]")));
                config.profiles = profiles.collect::<Result<_, _>>()?;
            }
            known if IDLE.contains(&known) => {}
            other => return Err(format!("{other}: not supported")),
        }
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
            "plugins" => {
                for (point, set) in fields(value, &at)? {
                    plugins(&mut profile, point, set, &format!("{at}.{point}"))?;
                }
            }
            "pluginConfig" => {
                for (n, it) in items(value, &at)?.iter().enumerate() {
                    let at = format!("{at}[{n}].args");
                    let name = it["name"].as_str().unwrap_or_default();
                    arguments(&mut profile, name, &it["args"], &at)?;
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

fn arguments(profile: &mut Profile, plugin: &str, args: &Value, at: &str) -> Result<(), String> {
    match plugin {
        "NodeResourcesFit" => {
            let strategy = &args["scoringStrategy"];
            if strategy.is_null() {
                return Ok(());
            }
            profile.fit.strategy = match strategy["type"].as_str() {
                None | Some("LeastAllocated") => Strategy::LeastAllocated,
                Some("MostAllocated") => Strategy::MostAllocated,
                Some("RequestedToCapacityRatio") => {
                    let shape = &strategy["requestedToCapacityRatio"]["shape"];
                    let at = format!("{at}.scoringStrategy.requestedToCapacityRatio.shape");
                    Strategy::RequestedToCapacityRatio(points(shape, &at)?)
                }
                Some(_) => return Err(format!("{at}.scoringStrategy.type: not supported")),
            };
            if let Some(resources) = strategy["resources"].as_array() {
                profile.fit.resources = resources.iter().map(resource).collect();
            }
        }
        "NodeResourcesBalancedAllocation" => {
            if let Some(resources) = args["resources"].as_array() {
                profile.balanced = resources.iter().map(|it| resource(it).0).collect();
            }
        }
        "InterPodAffinity" => {
            if let Some(weight) = args["hardPodAffinityWeight"].as_i64() {
                profile.hard_affinity_weight = weight.clamp(0, 100);
            }
            profile.ignores_wishes_of_placed = args["ignorePreferredTermsOfExistingPods"] == true;
        }
        "PodTopologySpread" => {
            let own = args["defaultConstraints"]
                .as_array()
                .is_some_and(|it| !it.is_empty());
            if own {
                return Err(format!("{at}.defaultConstraints: not supported"));
            }
            if args["defaultingType"] == "List" {
                profile.weights.default_spread = 0;
            }
        }
        "DefaultPreemption" | "VolumeBinding" => {}
        _ => {
            return Err(format!(
                "{at}: there is nothing to set of \"{plugin}\" here"
            ));
        }
    }
    Ok(())
}

fn points(shape: &Value, at: &str) -> Result<Vec<(i64, i64)>, String> {
    let points = items(shape, at)?.iter().map(|point| {
        let use_percent = point["utilization"].as_i64().unwrap_or(0);
        (
            use_percent,
            point["score"].as_i64().unwrap_or(0) * SHAPE_SCALE,
        )
    });
    let points: Vec<(i64, i64)> = points.collect();
    let rises = points.windows(2).all(|two| two[0].0 < two[1].0);
    let within = points
        .iter()
        .all(|(x, y)| (0..=100).contains(x) && (0..=100).contains(y));
    if points.is_empty() || !rises || !within {
        return Err(format!(
            "{at}: utilizations must rise from 0 to 100, scores be 0 to 10"
        ));
    }
    Ok(points)
}

fn resource(value: &Value) -> (String, i64) {
    let name = value["name"].as_str().unwrap_or_default();
    (
        name.to_owned(),
        value["weight"]
            .as_i64()
            .filter(|weight| *weight > 0)
            .unwrap_or(1),
    )
}

fn seconds(value: &Value, at: &str) -> Result<i64, String> {
    let seconds = value
        .as_i64()
        .filter(|seconds| (1..=3600).contains(seconds));
    seconds
        .map(|it| it * 1000)
        .ok_or_else(|| format!("{at}: must be 1 to 3600 seconds"))
}

fn fields<'a>(value: &'a Value, at: &str) -> Result<&'a serde_json::Map<String, Value>, String> {
    value
        .as_object()
        .ok_or_else(|| format!("{at}: must be an object"))
}

fn items<'a>(value: &'a Value, at: &str) -> Result<&'a Vec<Value>, String> {
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
        assert!(matches!(read.fit.strategy, Strategy::MostAllocated));
        assert_eq!(read.fit.resources, [("cpu".to_owned(), 3)]);
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
        let extended = json!({"kind": "KubeSchedulerConfiguration", "extenders": []});
        assert_eq!(read(&extended).unwrap_err(), "extenders: not supported");
    }
}
