//! Where paths of a container lead in the root of its image. Pure, but for [`Known`], which remembers.
//!
//! An image can have links, and runc follows them when it mounts: with `/x -> /dev` in the image a volume at
//! `/x` would cover `/dev`. Nobody changes a root before its container is started, so that each mount is given
//! to the Engine with the path that links lead it to, and judged by that. Where a way meets another mount it
//! ends: what lies there is not the image's.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use super::container_spec::in_container;
use crate::runtime::InRoot;

/// Links on one way; Linux follows as many.
const LINK_LIMIT: usize = 40;
/// Images, and paths of each, that are remembered.
const IMAGE_LIMIT: usize = 256;
const PATH_LIMIT: usize = 1024;

/// The Engine mounts file systems of its own there: what the image has below is covered.
const ENGINE_DIRS: [&str; 3] = ["/dev", "/proc", "/sys"];
/// The Engine puts these into each root.
const ENGINE_PATHS: [&str; 7] = [
    "/dev",
    "/etc",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
];

/// What is known of one image: by path.
pub type Paths = BTreeMap<String, InRoot>;

/// Why a way does not come to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// This path of the image has to be looked at first.
    Unknown(String),
    /// The links of this path lead on and on.
    Links(String),
}

/// Where each target lies in the end, in the order of `targets`, whose mounts are made in the order of depth.
pub fn places(targets: &[String], paths: &Paths) -> Result<Vec<String>, Stop> {
    let mut order: Vec<usize> = (0..targets.len()).collect();
    order.sort_by_key(|index| targets[*index].split('/').count());
    let mut found: Vec<Option<String>> = vec![None; targets.len()];
    for index in order {
        let mounted: Vec<String> = found.iter().flatten().cloned().collect();
        found[index] = Some(place(&targets[index], &mounted, paths)?);
    }
    Ok(found.into_iter().flatten().collect())
}

/// Where one path lies, beside what is mounted.
pub fn place(target: &str, mounted: &[String], paths: &Paths) -> Result<String, Stop> {
    let mut rest = steps(target);
    let mut done = String::new();
    let mut links = 0;
    while let Some(step) = rest.pop() {
        let here = format!("{done}/{step}");
        let known = match ENGINE_PATHS.contains(&here.as_str()) {
            true => &InRoot::Other,
            false => paths.get(&here).ok_or(Stop::Unknown(here.clone()))?,
        };
        match known {
            InRoot::Link(to) => {
                links += 1;
                if links > LINK_LIMIT {
                    return Err(Stop::Links(target.to_owned()));
                }
                let to = match to.starts_with('/') {
                    true => in_container(to),
                    false => in_container(&format!("{done}/{to}")),
                };
                rest.extend(steps(&to));
                done.clear();
                continue;
            }
            InRoot::Other => done = here,
            InRoot::Absent => return Ok(as_written(&here, rest)),
        }
        if ENGINE_DIRS.contains(&done.as_str()) || mounted.contains(&done) {
            return Ok(as_written(&done, rest));
        }
    }
    Ok(as_written(&done, rest))
}

/// The steps of an absolute path, the last one first.
fn steps(path: &str) -> Vec<String> {
    let steps = path.rsplit('/').filter(|step| !step.is_empty());
    steps.map(str::to_owned).collect()
}

fn as_written(done: &str, rest: Vec<String>) -> String {
    let rest = rest.into_iter().rev();
    in_container(&rest.fold(done.to_owned(), |path, step| format!("{path}/{step}")))
}

/// What all images of a node are known to have. An image never changes under its id.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<String, Paths>>);

impl Known {
    pub fn paths(&self, image: &str) -> Paths {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(image).cloned().unwrap_or_default()
    }

    /// Adds what was looked at. What is too much makes room for it and is looked at again.
    pub fn add(&self, image: &str, paths: Paths) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= IMAGE_LIMIT && !all.contains_key(image) {
            all.clear();
        }
        let known = all.entry(image.to_owned()).or_default();
        if known.len() + paths.len() > PATH_LIMIT {
            known.clear();
        }
        known.extend(paths.into_iter().take(PATH_LIMIT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where targets lead in an image that has these links and nothing else that is asked for but directories.
    fn led(targets: &[&str], links: &[(&str, &str)]) -> Result<Vec<String>, Stop> {
        let targets: Vec<String> = targets.iter().map(|it| (*it).to_owned()).collect();
        let mut paths = Paths::new();
        loop {
            match places(&targets, &paths) {
                Err(Stop::Unknown(path)) => {
                    let link = links.iter().find(|(from, _)| *from == path);
                    let is = link.map_or(InRoot::Other, |(_, to)| InRoot::Link((*to).to_owned()));
                    assert_eq!(paths.insert(path, is), None, "asked once");
                }
                other => return other,
            }
        }
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        for (target, links, place) in [
            ("/a/b", &[][..], "/a/b"),
            ("/x", &[("/x", "/dev")], "/dev"),
            ("/x/null", &[("/x", "dev/")], "/dev/null"),
            ("/a/x", &[("/a/x", "../../../proc/sys")], "/proc/sys"),
            (
                "/x",
                &[("/x", "/y"), ("/y", "/z/w"), ("/z", "/sys")],
                "/sys/w",
            ),
            ("/var/run/x", &[("/var/run", "/run")], "/run/x"),
            ("/lib/x", &[("/lib", "usr/lib")], "/usr/lib/x"),
            ("/x", &[("/x", "/")], "/"),
        ] {
            assert_eq!(led(&[target], links).unwrap(), [place], "{target}");
        }
    }

    #[test]
    fn links_that_lead_in_a_circle_come_to_an_end() {
        let circle = [("/a", "/b"), ("/b", "/a")];
        assert_eq!(led(&["/a/c"], &circle), Err(Stop::Links("/a/c".to_owned())));
    }

    #[test]
    fn what_the_engine_makes_is_not_asked_of_the_image() {
        let none = Paths::new();
        let targets = [
            "/dev/shm",
            "/etc/hosts",
            "/etc/resolv.conf",
            "/dev/termination-log",
        ];
        let targets = targets.map(str::to_owned);
        assert_eq!(places(&targets, &none).unwrap(), targets);
    }

    #[test]
    fn a_way_ends_at_another_mount() {
        let links = [("/var/run", "/run"), ("/run/x", "/dev"), ("/a/b", "/dev")];
        let found = led(&["/var/run/x", "/run", "/a", "/a/b"], &links);
        assert_eq!(found.unwrap(), ["/run/x", "/run", "/a", "/a/b"]);
    }

    #[test]
    fn what_is_below_nothing_is_as_written() {
        let paths = Paths::from([("/a".to_owned(), InRoot::Absent)]);
        let targets = ["/a/b/c".to_owned()];
        assert_eq!(places(&targets, &paths).unwrap(), targets);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = Known::default();
        for number in 0..3 * IMAGE_LIMIT {
            let path = (format!("/{number}"), InRoot::Other);
            known.add(&number.to_string(), Paths::from([path.clone()]));
            known.add("one", Paths::from([path]));
        }
        assert!(known.0.lock().unwrap().len() <= IMAGE_LIMIT);
        let many = (0..2 * PATH_LIMIT).map(|it| (it.to_string(), InRoot::Other));
        known.add("one", many.collect());
        assert!(known.paths("one").len() <= PATH_LIMIT);
    }
}
