//! Which files a volume that the agent writes has. Pure.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIVolumeFile, KeyToPath, Pod, SecretProjection, Volume,
};

use crate::agent::container_spec::SpecError;
use crate::agent::downward::{self, Facts};
use crate::agent::env;
use crate::agent::pod_shape;
use crate::agent::sources::{Kind, Sources};

const DEFAULT_FILE_MODE: i32 = 0o644;

/// A file of a volume: relative path, bytes, mode.
pub type ProjectedFile = (String, Vec<u8>, i32);

/// The files of a configMap, secret, downwardAPI or projected volume.
pub fn files(
    pod: &Pod,
    volume: &Volume,
    sources: &Sources,
    facts: &Facts,
) -> Result<Vec<ProjectedFile>, SpecError> {
    let mut files = Vec::new();
    if let Some(it) = &volume.config_map {
        let mode = it.default_mode.unwrap_or(DEFAULT_FILE_MODE);
        let from = (Kind::ConfigMap, it.name.as_str(), it.optional);
        keys_to_files(sources, from, it.items.as_deref(), mode, &mut files)?;
    } else if let Some(it) = &volume.secret {
        let mode = it.default_mode.unwrap_or(DEFAULT_FILE_MODE);
        let name = it.secret_name.as_deref().unwrap_or_default();
        let from = (Kind::Secret, name, it.optional);
        keys_to_files(sources, from, it.items.as_deref(), mode, &mut files)?;
    } else if let Some(it) = &volume.downward_api {
        let mode = it.default_mode.unwrap_or(DEFAULT_FILE_MODE);
        downward_files(pod, it.items.as_deref(), mode, facts, &mut files)?;
    } else if let Some(it) = &volume.projected {
        let mode = it.default_mode.unwrap_or(DEFAULT_FILE_MODE);
        for source in it.sources.iter().flatten() {
            if let Some(ConfigMapProjection {
                name,
                items,
                optional,
            }) = &source.config_map
            {
                let from = (Kind::ConfigMap, name.as_str(), *optional);
                keys_to_files(sources, from, items.as_deref(), mode, &mut files)?;
            }
            if let Some(SecretProjection {
                name,
                items,
                optional,
            }) = &source.secret
            {
                let from = (Kind::Secret, name.as_str(), *optional);
                keys_to_files(sources, from, items.as_deref(), mode, &mut files)?;
            }
            let items = source
                .downward_api
                .as_ref()
                .and_then(|it| it.items.as_deref());
            downward_files(pod, items, mode, facts, &mut files)?;
        }
    }
    Ok(files)
}

fn keys_to_files(
    sources: &Sources,
    (kind, name, optional): (Kind, &str, Option<bool>),
    items: Option<&[KeyToPath]>,
    mode: i32,
    files: &mut Vec<ProjectedFile>,
) -> Result<(), SpecError> {
    let Some(entries) = sources.entries(kind, name) else {
        if optional == Some(true) {
            return Ok(());
        }
        let error = env::missing_object(kind, name);
        return Err(SpecError {
            reason: "FailedMount",
            ..error
        });
    };
    match items {
        None => files.extend(entries.into_iter().map(|(key, value)| (key, value, mode))),
        Some(items) => {
            for item in items {
                let value = match entries.get(&item.key) {
                    Some(value) => value.clone(),
                    None if optional == Some(true) => continue,
                    None => {
                        let message =
                            format!("{name:?} references non-existent key {:?}", item.key);
                        return Err(SpecError {
                            reason: "FailedMount",
                            message,
                        });
                    }
                };
                files.push((item.path.clone(), value, item.mode.unwrap_or(mode)));
            }
        }
    }
    Ok(())
}

fn downward_files(
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: i32,
    facts: &Facts,
    files: &mut Vec<ProjectedFile>,
) -> Result<(), SpecError> {
    for item in items.unwrap_or_default() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path, facts)?,
            (None, Some(resource)) => {
                let Some(own) = pod_shape::main_templates(pod).first() else {
                    continue;
                };
                downward::resource(pod, own, resource, facts)?
            }
            (None, None) => continue,
        };
        files.push((
            item.path.clone(),
            text.into_bytes(),
            item.mode.unwrap_or(mode),
        ));
    }
    Ok(())
}
