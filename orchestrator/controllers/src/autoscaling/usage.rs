//! How many replicas would use of a metric what is aimed at: Kubernetes' rules for pods that are not ready or not
//! measured, which are counted so that they make the answer more careful. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::samples::{Sample, Samples};
use crate::object::{Object, Phase, PodRow};

/// A young pod's CPU says nothing of later.
const WARM_UP: SignedDuration = SignedDuration::from_mins(5);
/// A pod that became unready within this after its start never was ready.
const FIRST_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// How far the ratio of used and wanted may lie from 1 without anything being done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub up: f64,
    pub down: f64,
}

impl Tolerance {
    pub fn spares(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

pub type PodRef<'a> = (&'a Object, &'a PodRow);

/// What is aimed at.
#[derive(Clone, Copy, Debug)]
pub enum Aim<'a> {
    /// So many percent of what pods request of a resource, all containers or one.
    Utilization(u32, &'a str, Option<&'a str>),
    /// So many thousandths a pod.
    Average(f64),
}

/// An answer, and what pods use now: thousandths a pod, and percent of what they request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    pub replicas: f64,
    pub average: f64,
    pub percent: Option<f64>,
}

/// The pods by what is known of them.
struct Groups<'a> {
    ready: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

/// How many replicas would be right. `samples` are of the pods that are measured.
pub fn replicas(
    pods: &[PodRef],
    mut samples: Samples,
    aim: Aim,
    is_cpu: bool,
    current: f64,
    tolerance: Tolerance,
    now: Timestamp,
) -> Result<Answer, String> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".into());
    }
    let groups = group(pods, &samples, is_cpu, now);
    samples.retain(|name, _| {
        let name = name.as_str();
        !groups.ignored.contains(name) && !groups.unready.contains(name)
    });
    // What a server says of pods that nobody asked for does not count.
    samples.retain(|name, _| pods.iter().any(|(pod, _)| pod.key.name == *name));
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let (ratio, average, percent) = ratio(pods, &samples, aim)?;
    let answer = |replicas: f64| Answer {
        replicas,
        average,
        percent,
    };
    let counts_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !counts_unready && groups.missing.is_empty() {
        return Ok(match tolerance.spares(ratio) {
            true => answer(current),
            false => answer((ratio * groups.ready as f64).ceil()),
        });
    }
    let mut assume = |names: &BTreeSet<&str>, of: &dyn Fn(&str) -> Result<f64, String>| {
        for name in names {
            let sample = Sample {
                millis: of(name)?,
                at: None,
                window: SignedDuration::ZERO,
            };
            samples.insert((*name).to_owned(), sample);
        }
        Ok::<(), String>(())
    };
    // Going down, a pod that is not measured uses all that it may; going up, nothing.
    if ratio < 1.0 {
        assume(&groups.missing, &|name| most(pods, name, aim))?;
    } else if ratio > 1.0 {
        assume(&groups.missing, &|_| Ok(0.0))?;
    }
    if counts_unready {
        assume(&groups.unready, &|_| Ok(0.0))?;
    }
    let (new, ..) = self::ratio(pods, &samples, aim)?;
    let turned = (ratio < 1.0 && new > 1.0) || (ratio > 1.0 && new < 1.0);
    if tolerance.spares(new) || turned {
        return Ok(answer(current));
    }
    let replicas = (new * samples.len() as f64).ceil();
    let against = (new < 1.0 && replicas > current) || (new > 1.0 && replicas < current);
    Ok(answer(if against { current } else { replicas }))
}

fn group<'a>(pods: &[PodRef<'a>], samples: &Samples, is_cpu: bool, now: Timestamp) -> Groups<'a> {
    let mut groups = Groups {
        ready: 0,
        unready: BTreeSet::new(),
        missing: BTreeSet::new(),
        ignored: BTreeSet::new(),
    };
    for (pod, row) in pods {
        let name = pod.key.name.as_str();
        let sample = samples.get(name);
        if pod.meta.deleting.is_some() || row.phase == Phase::Failed {
            groups.ignored.insert(name);
        } else if row.phase == Phase::Pending {
            groups.unready.insert(name);
        } else if let Some(sample) = sample {
            if is_cpu && is_cold(row, sample, now) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        } else {
            groups.missing.insert(name);
        }
    }
    groups
}

/// Its CPU is that of a start.
fn is_cold(row: &PodRow, sample: &Sample, now: Timestamp) -> bool {
    let (Some(since), Some(started)) = (row.ready_since, row.started) else {
        return true;
    };
    if started + WARM_UP > now {
        return !row.ready || sample.at.is_none_or(|at| at < since + sample.window);
    }
    !row.ready && started + FIRST_READINESS > since
}

/// Used over wanted, thousandths a pod, percent of requests.
fn ratio(pods: &[PodRef], samples: &Samples, aim: Aim) -> Result<(f64, f64, Option<f64>), String> {
    let count = samples.len() as f64;
    let used: f64 = samples.values().map(|sample| sample.millis).sum();
    match aim {
        Aim::Average(wanted) if wanted > 0.0 => Ok((used / count / wanted, used / count, None)),
        Aim::Average(_) => Err("the target is not above zero".into()),
        Aim::Utilization(wanted, resource, container) => {
            // All pods must say what they request, also those that do not count now.
            for (pod, row) in pods {
                requested(pod, row, resource, container)?;
            }
            let counted = pods
                .iter()
                .filter(|(pod, _)| samples.contains_key(&pod.key.name));
            let requests: Result<Vec<f64>, String> = counted
                .map(|(pod, row)| requested(pod, row, resource, container))
                .collect();
            let requests: f64 = requests?.iter().sum();
            if requests <= 0.0 || wanted == 0 {
                return Err("no metrics returned matched known pods".into());
            }
            let percent = (used * 100.0 / requests).floor();
            Ok((percent / f64::from(wanted), used / count, Some(percent)))
        }
    }
}

fn requested(
    pod: &Object,
    row: &PodRow,
    resource: &str,
    container: Option<&str>,
) -> Result<f64, String> {
    let mut all = 0.0;
    let containers = row.requests.iter();
    let mut found = false;
    for it in containers.filter(|it| container.is_none_or(|name| name == it.container)) {
        let request = match resource {
            "cpu" => it.cpu_millis,
            _ => it.memory_bytes.map(|bytes| bytes.saturating_mul(1000)),
        };
        let request = request.ok_or_else(|| {
            let (container, name) = (&it.container, &pod.key.name);
            format!("missing request for {resource} in container {container} of Pod {name}")
        })?;
        found = true;
        all += request as f64;
    }
    match (found, container) {
        (false, Some(name)) => {
            let pod = &pod.key.name;
            Err(format!("container {name} not found in Pod {pod}"))
        }
        _ => Ok(all),
    }
}

/// What a pod may use: its whole request, or what is aimed at if that is more.
fn most(pods: &[PodRef], name: &str, aim: Aim) -> Result<f64, String> {
    match aim {
        Aim::Average(wanted) => Ok(wanted),
        Aim::Utilization(wanted, resource, container) => {
            let found = pods.iter().find(|(pod, _)| pod.key.name == name);
            let request = match found {
                Some((pod, row)) => requested(pod, row, resource, container)?,
                None => 0.0,
            };
            Ok(request * f64::from(wanted.max(100)) / 100.0)
        }
    }
}
