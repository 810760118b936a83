//! Where the mounts of a container lie once the links of its image are followed, and whether they may.

use k8s_openapi::api::core::v1::{Container as Template, Pod};

use super::Worker;
use crate::network::wiring::PodNetwork;
use crate::pod::refuse;
use crate::pod::shape;
use crate::runtime::container_spec::{self, SpecError, in_container};
use crate::runtime::image_root::{self, Paths, Stop};
use crate::runtime::{ContainerSpec, Image, Runtime, RuntimeError};
use crate::volumes::nested::is_inside;

/// Where an image says its users.
const PASSWD: &str = "/etc/passwd";
/// The longest such file that is read, in bytes.
const PASSWD_LIMIT: usize = 1024 * 1024;

impl<R: Runtime, N: PodNetwork> Worker<R, N> {
    /// Has the container made of the image that is looked at, gives each mount the path that it has in the
    /// end, and refuses those that this leads to where the Engine hides something.
    pub(super) async fn place_mounts(
        &self,
        pod: &Pod,
        template: &Template,
        image: Image,
        spec: &mut ContainerSpec,
    ) -> Result<(), SpecError> {
        let targets: Vec<String> = spec.mounts.iter().map(|it| it.target.clone()).collect();
        let of_mounts = |paths: &Paths| image_root::places(&targets, paths);
        let places = self.ask(&image.id, of_mounts).await?;
        let pods = self.dir.root();
        for (mount, place) in spec.mounts.iter_mut().zip(&places) {
            let source = mount
                .source
                .to_str()
                .filter(|_| !mount.source.starts_with(pods));
            let why = refuse::led_to(place, source).filter(|_| *place != mount.target);
            if let Some(why) = why {
                let field = field(pod, template, &mount.target);
                let message = format!("{field}: a link of the image leads there: {why}");
                return Err(SpecError::config(message));
            }
            mount.target.clone_from(place);
        }
        self.check_image(spec, &places, &image).await?;
        spec.image_id = image.id;
        Ok(())
    }

    /// The group of the user that a container runs as, where the image alone says it and the Engine is to be told.
    pub(super) async fn image_group(
        &self,
        pod: &Pod,
        template: &Template,
        image: &Image,
    ) -> Result<Option<u32>, SpecError> {
        let Some(user) = container_spec::group_asked(pod, template, &image.user) else {
            return Ok(None);
        };
        let way = |paths: &Paths| image_root::place(PASSWD, &[], paths);
        let place = self.ask(&image.id, way).await?;
        let runtime = &self.node.runtime;
        let look = async {
            let root = runtime.root_of(&image.id).await?;
            let read = runtime.file_in_root(&root, &place, PASSWD_LIMIT).await;
            if let Err(error) = runtime.remove(&root).await {
                tracing::warn!(%error, root, "a root that was looked at is left behind");
            }
            read
        };
        let passwd = self.clock.engine(look).await;
        let passwd = passwd.map_err(failed)?.unwrap_or_default();
        let passwd = String::from_utf8_lossy(&passwd);
        Ok(Some(container_spec::group_of(&user, &passwd)))
    }

    /// What the image asks for by itself: volumes, and where the process starts.
    async fn check_image(
        &self,
        spec: &ContainerSpec,
        mounted: &[String],
        image: &Image,
    ) -> Result<(), SpecError> {
        let outermost = |path: &String| !mounted.iter().any(|it| is_inside(path, it));
        for volume in &image.volumes {
            let target = in_container(volume);
            // The Engine makes none where it is given a mount.
            if mounted.contains(&target) && outermost(&target) {
                continue;
            }
            let way = |paths: &Paths| image_root::place(&target, &[], paths);
            let place = self.ask(&image.id, way).await?;
            let around = mounted
                .iter()
                .find(|it| **it == place || is_inside(&place, it));
            let why = match (refuse::led_to(&place, None), around) {
                (Some(why), _) => why,
                (None, Some(around)) => format!("it lies in the volume at {around}"),
                (None, None) => continue,
            };
            let message = format!("the image's own volume {volume:?} cannot be mounted: {why}");
            return Err(SpecError::config(message));
        }
        let working_dir = spec.working_dir.as_deref().unwrap_or(&image.working_dir);
        let target = in_container(working_dir);
        let way = |paths: &Paths| image_root::place(&target, mounted, paths);
        let place = self.ask(&image.id, way).await?;
        if !refuse::works_in(&place) {
            let message = format!("workingDir: no process starts in {place}");
            return Err(SpecError::config(message));
        }
        Ok(())
    }

    /// Answers a question about an image's root, which is looked at as far as it is not known.
    async fn ask<T>(
        &self,
        image: &str,
        question: impl Fn(&Paths) -> Result<T, Stop>,
    ) -> Result<T, SpecError> {
        let mut paths = self.node.image_roots.paths(image);
        let unknown = match question(&paths) {
            Ok(answer) => return Ok(answer),
            Err(Stop::Links(path)) => return Err(circle(&path)),
            Err(Stop::Unknown(path)) => path,
        };
        let runtime = &self.node.runtime;
        let root = self.clock.engine(runtime.root_of(image)).await;
        let root = root.map_err(failed)?;
        let mut next = unknown;
        let answer = loop {
            let found = self.clock.engine(runtime.path_in_root(&root, &next)).await;
            match found {
                Ok(found) => drop(paths.insert(next, found)),
                Err(error) => break Err(failed(error)),
            }
            match question(&paths) {
                Ok(answer) => break Ok(answer),
                Err(Stop::Links(path)) => break Err(circle(&path)),
                Err(Stop::Unknown(path)) => next = path,
            }
        };
        if let Err(error) = self.clock.engine(runtime.remove(&root)).await {
            tracing::warn!(%error, root, "a root that was looked at is left behind");
        }
        self.node.image_roots.add(image, paths);
        answer
    }
}

/// The path of the field that says a mount's target.
fn field(pod: &Pod, template: &Template, target: &str) -> String {
    let position = |all: &[Template]| all.iter().position(|it| it.name == template.name);
    let main = position(shape::main_templates(pod)).map(|index| ("containers", index));
    let init = || position(shape::init_templates(pod)).map(|index| ("initContainers", index));
    let (list, index) = main.or_else(init).unwrap_or(("ephemeralContainers", 0));
    let mut mounts = template.volume_mounts.iter().flatten();
    match mounts.position(|mount| in_container(&mount.mount_path) == target) {
        Some(mount) => format!("spec.{list}[{index}].volumeMounts[{mount}].mountPath"),
        None if container_spec::message_path(template) == target => {
            format!("spec.{list}[{index}].terminationMessagePath")
        }
        None => target.to_owned(),
    }
}

fn circle(path: &str) -> SpecError {
    SpecError::config(format!("{path}: the image's links lead on and on"))
}

fn failed(error: RuntimeError) -> SpecError {
    SpecError {
        reason: "CreateContainerError",
        message: error.to_string(),
    }
}
