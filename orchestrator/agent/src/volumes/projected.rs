//! Which files a volume that the agent writes has: their paths, bytes and modes. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, KeyToPath, Pod,
    ServiceAccountTokenProjection, Volume,
};

use super::fs_group;
use crate::api::sources::{Kind, Sources, TokenWish, Wanted};
use crate::api::trust_bundles::{self, BundleWish};
use crate::pod::downward::{self, Facts};
use crate::pod::env;
use crate::pod::shape;
use crate::runtime::container_spec::SpecError;

const DEFAULT_FILE_MODE: i32 = 0o644;
/// A file may have the bits for reading, writing and executing, and no others.
const MODE_MASK: u32 = 0o777;
/// The kernel's limits.
const NAME_BYTES: usize = 255;
const PATH_BYTES: usize = 4096;

/// The files of one volume, by their path below its root.
pub type Files = BTreeMap<String, File>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    pub mode: u32,
    /// None: the agent's user, root.
    pub owner: Option<u32>,
}

/// The files of a configMap, secret, downwardAPI or projected volume. Where two sources have the
/// same path, the later one has it.
pub fn files(
    pod: &Pod,
    volume: &Volume,
    sources: &Sources,
    facts: &Facts,
) -> Result<Files, SpecError> {
    let mut files = Gathered {
        pod,
        sources,
        facts,
        mode: DEFAULT_FILE_MODE,
        files: Files::new(),
    };
    if let Some(it) = &volume.config_map {
        files.mode = it.default_mode.unwrap_or(files.mode);
        files.keys(Kind::ConfigMap, &it.name, it.optional, it.items.as_deref())?;
    } else if let Some(it) = &volume.secret {
        files.mode = it.default_mode.unwrap_or(files.mode);
        let name = it.secret_name.as_deref().unwrap_or_default();
        files.keys(Kind::Secret, name, it.optional, it.items.as_deref())?;
    } else if let Some(it) = &volume.downward_api {
        files.mode = it.default_mode.unwrap_or(files.mode);
        files.fields(it.items.as_deref())?;
    } else if let Some(it) = &volume.projected {
        files.mode = it.default_mode.unwrap_or(files.mode);
        for source in it.sources.iter().flatten() {
            if let Some(it) = &source.config_map {
                files.keys(Kind::ConfigMap, &it.name, it.optional, it.items.as_deref())?;
            }
            if let Some(it) = &source.secret {
                files.keys(Kind::Secret, &it.name, it.optional, it.items.as_deref())?;
            }
            if let Some(it) = &source.downward_api {
                files.fields(it.items.as_deref())?;
            }
            if let Some(it) = &source.service_account_token {
                files.token(it)?;
            }
            if let Some(it) = &source.cluster_trust_bundle {
                files.trust_bundle(it)?;
            }
        }
    }
    no_file_is_a_directory(&files.files)?;
    Ok(files.files)
}

struct Gathered<'a> {
    pod: &'a Pod,
    sources: &'a Sources,
    facts: &'a Facts,
    /// The mode of files that have none of their own.
    mode: i32,
    files: Files,
}

impl Gathered<'_> {
    /// The keys of a ConfigMap or a Secret: all of them, or those that are listed.
    fn keys(
        &mut self,
        kind: Kind,
        name: &str,
        optional: Option<bool>,
        items: Option<&[KeyToPath]>,
    ) -> Result<(), SpecError> {
        let optional = optional == Some(true);
        let Some(entries) = self.sources.entries(kind, name) else {
            if optional {
                return Ok(());
            }
            return Err(unmountable(env::missing_object(kind, name).message));
        };
        // An empty list lists nothing and means all, as an absent one does.
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, value) in entries {
                self.add(key, value.clone(), None)?;
            }
            return Ok(());
        };
        for item in items {
            match entries.get(&item.key) {
                Some(value) => self.add(&item.path, value.clone(), item.mode)?,
                None if optional => {}
                None => {
                    let what = match kind {
                        Kind::ConfigMap => "configmap references non-existent config key",
                        Kind::Secret => "references non-existent secret key",
                    };
                    return Err(unmountable(format!("{what}: {}", item.key)));
                }
            }
        }
        Ok(())
    }

    /// Fields of the pod and resources of its containers.
    fn fields(&mut self, items: Option<&[DownwardAPIVolumeFile]>) -> Result<(), SpecError> {
        for item in items.unwrap_or_default() {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => downward::field(self.pod, &field.field_path, self.facts),
                (None, Some(resource)) => {
                    let Some(own) = shape::main_templates(self.pod).first() else {
                        continue;
                    };
                    downward::resource(self.pod, own, resource, self.facts)
                }
                (None, None) => continue,
            };
            let text = text.map_err(|error| unmountable(error.message))?;
            self.add(&item.path, text.into_bytes(), item.mode)?;
        }
        Ok(())
    }

    /// Certificates of authorities; an optional file is there and empty.
    fn trust_bundle(&mut self, wanted: &ClusterTrustBundleProjection) -> Result<(), SpecError> {
        let wish = BundleWish::of(wanted);
        let found = self.sources.objects.get(&Wanted::Bundles(wish.clone()));
        let text = match found.map(|found| trust_bundles::text(found)) {
            Some(Ok(text)) => text.to_vec(),
            Some(Err(why)) => return Err(unmountable(why.to_owned())),
            None if wanted.optional == Some(true) => Vec::new(),
            None => return Err(unmountable(no_bundle(&wish))),
        };
        self.add_private(&wanted.path, text)
    }

    /// A token is for the pod's user or group alone, if it says which that is (KEP-2451).
    fn token(&mut self, wanted: &ServiceAccountTokenProjection) -> Result<(), SpecError> {
        let token = match self.sources.tokens.get(&TokenWish::of(wanted)) {
            Some(Ok(token)) => token.0.as_bytes().to_vec(),
            Some(Err(why)) => return Err(unmountable(format!("failed to fetch token: {why}"))),
            None => return Err(unmountable("failed to fetch token".to_owned())),
        };
        self.add_private(&wanted.path, token)
    }

    fn add_private(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), SpecError> {
        let owner = shape::common_user(self.pod);
        let private = owner.is_some() || fs_group(self.pod)?.is_some();
        self.add(path, bytes, private.then_some(0o600))?;
        if let Some(file) = self.files.get_mut(&clean(path)?) {
            file.owner = owner;
        }
        Ok(())
    }

    fn add(&mut self, path: &str, bytes: Vec<u8>, mode: Option<i32>) -> Result<(), SpecError> {
        let mode = mode.unwrap_or(self.mode);
        // What is negative or has other bits is refused by validation.
        let mode = u32::try_from(mode).unwrap_or_default() & MODE_MASK;
        let file = File {
            bytes,
            mode,
            owner: None,
        };
        self.files.insert(clean(path)?, file);
        Ok(())
    }
}

fn no_bundle(wish: &BundleWish) -> String {
    match wish {
        BundleWish::Named(name) => {
            format!(
                "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io {name:?} not found"
            )
        }
        BundleWish::OfSigner { .. } => {
            "combination of signerName and labelSelector matched zero ClusterTrustBundles"
                .to_owned()
        }
    }
}

/// A path that stays below the volume and is none of the writer's own names.
fn clean(path: &str) -> Result<String, SpecError> {
    let refuse = |why: &str| Err(unmountable(format!("invalid path {path:?}: {why}")));
    if path.len() > PATH_BYTES {
        return refuse(&format!("must be at most {PATH_BYTES} bytes"));
    }
    if path.contains('\0') {
        return refuse("must not contain NUL");
    }
    let mut names = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => names.push(name.to_str().unwrap_or_default()),
            Component::CurDir => {}
            Component::ParentDir => return refuse("must not contain '..'"),
            Component::RootDir | Component::Prefix(_) => return refuse("must be relative"),
        }
    }
    match names.first() {
        None => return refuse("must not be empty"),
        Some(first) if first.starts_with("..") => return refuse("must not start with '..'"),
        Some(_) => {}
    }
    if names.iter().any(|name| name.len() > NAME_BYTES) {
        return refuse(&format!("a name must be at most {NAME_BYTES} bytes"));
    }
    Ok(names.join("/"))
}

fn no_file_is_a_directory(files: &Files) -> Result<(), SpecError> {
    let conflict = files.keys().find_map(|path| {
        let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
        above.find(|above| files.contains_key(*above))
    });
    match conflict {
        None => Ok(()),
        Some(path) => {
            let message = format!("path {path:?} is a file and a directory");
            Err(unmountable(message))
        }
    }
}

fn unmountable(message: String) -> SpecError {
    SpecError {
        reason: "FailedMount",
        message,
    }
}

#[cfg(test)]
#[path = "projected_tests.rs"]
mod tests;
