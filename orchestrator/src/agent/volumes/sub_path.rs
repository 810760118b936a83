//! Parts of volumes that are mounted by themselves.

use super::{PodDir, failed, make_dir};
use crate::agent::container_spec::SpecError;
use crate::agent::runtime::Mount;

impl PodDir {
    /// Makes the sources of mounts that lie inside the pod's volumes, and follows their links: one
    /// that leads out of the volumes is refused, or a container could reach the node's files.
    pub fn resolve_sub_paths(&self, mounts: &mut [Mount]) -> Result<(), SpecError> {
        let volumes = self.root.join("volumes");
        for mount in mounts
            .iter_mut()
            .filter(|mount| mount.source.starts_with(&volumes))
        {
            let what = mount.target.clone();
            if !mount.source.exists() {
                make_dir(&mount.source, 0o777).map_err(failed(&what))?;
            }
            let within = volumes.canonicalize().map_err(failed(&what))?;
            let real = mount.source.canonicalize().map_err(failed(&what))?;
            if !real.starts_with(&within) {
                return Err(SpecError::config(format!(
                    "the subPath of {what} leaves its volume"
                )));
            }
            mount.source = real;
        }
        Ok(())
    }
}
