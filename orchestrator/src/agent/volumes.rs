//! A pod's files on the node: its directory, its volumes, its `/etc`.
//!
//! Owns `<data>/pods/<uid>`. Made when the pod starts, gone when it is released.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource,
    KeyToPath, Pod, SecretProjection, Volume,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::container_spec::{self, SpecError};
use super::downward::{self, Facts};
use super::env;
use super::pod_shape;
use super::quantity;
use super::runtime::Mount;
use super::sources::{Kind, Sources};

const DEFAULT_FILE_MODE: i32 = 0o644;

/// Where a pod's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodDir {
    root: PathBuf,
}

/// What a pod's resolver is told besides the pod's own wishes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    pub server: Option<IpAddr>,
    pub domain: String,
}

impl PodDir {
    pub fn new(data_dir: &Path, uid: &str) -> PodDir {
        PodDir {
            root: data_dir.join("pods").join(uid),
        }
    }

    /// Holds the pod's `hosts` and `resolv.conf`.
    pub fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// The file in which one attempt of a container may leave its last words.
    pub fn last_words(&self, container: &str, attempt: u32) -> PathBuf {
        self.root
            .join("last-words")
            .join(format!("{container}-{attempt}"))
    }

    /// Makes that file: any user of the container may write it.
    pub fn make_last_words(&self, container: &str, attempt: u32) -> io::Result<()> {
        make_dir(&self.root.join("last-words"), 0o755)?;
        let path = self.last_words(container, attempt);
        fs::write(&path, b"")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
    }

    /// Writes what every container of the pod sees under `/etc`.
    pub fn write_etc(&self, pod: &Pod, facts: &Facts, dns: &Dns) -> io::Result<()> {
        make_dir(&self.etc(), 0o755)?;
        fs::write(self.etc().join("hosts"), hosts(pod, facts))?;
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        fs::write(self.etc().join("resolv.conf"), resolv_conf(pod, &host, dns))
    }

    /// Makes the pod's volumes; gives where each lies.
    pub fn make_volumes(
        &self,
        pod: &Pod,
        sources: &Sources,
        facts: &Facts,
    ) -> Result<BTreeMap<String, PathBuf>, SpecError> {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        let mut made = BTreeMap::new();
        for volume in volumes.into_iter().flatten() {
            let path = self.make_volume(pod, volume, sources, facts)?;
            made.insert(volume.name.clone(), path);
        }
        Ok(made)
    }

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

    /// Removes everything of the pod; an absent directory is a success.
    pub fn remove(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.root.join("volumes"))
            .into_iter()
            .flatten()
            .flatten()
        {
            // EINVAL: it is no mount, as most are not.
            let _ = umount2(&entry.path(), MntFlags::MNT_DETACH);
        }
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn make_volume(
        &self,
        pod: &Pod,
        volume: &Volume,
        sources: &Sources,
        facts: &Facts,
    ) -> Result<PathBuf, SpecError> {
        if let Some(host_path) = &volume.host_path {
            return use_host_path(host_path);
        }
        let path = self.root.join("volumes").join(&volume.name);
        let fresh = !path.exists();
        make_dir(&path, 0o755).map_err(failed(&volume.name))?;
        if let Some(empty_dir) = &volume.empty_dir {
            if fresh {
                make_empty_dir(&path, empty_dir).map_err(failed(&volume.name))?;
            }
        } else {
            let files = projected_files(pod, volume, sources, facts)?;
            write_files(&path, &files).map_err(failed(&volume.name))?;
        }
        let context = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.security_context.as_ref());
        if let Some(group) = context.and_then(|context| context.fs_group) {
            own_by_group(&path, group).map_err(failed(&volume.name))?;
        }
        Ok(path)
    }
}

/// A `/etc/hosts` with the pod itself and its aliases.
fn hosts(pod: &Pod, facts: &Facts) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let spec = pod.spec.as_ref();
    let addrs = if pod_shape::host_network(pod) {
        Some(facts.node_ips)
    } else {
        facts.pod_ips
    };
    let name = container_spec::hostname(pod);
    for address in addrs.iter().flat_map(|addrs| addrs.iter()) {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    for alias in spec
        .and_then(|spec| spec.host_aliases.as_ref())
        .into_iter()
        .flatten()
    {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

/// A `/etc/resolv.conf` after the pod's DNS policy. Without a cluster DNS it is the node's.
fn resolv_conf(pod: &Pod, host: &str, dns: &Dns) -> String {
    let spec = pod.spec.as_ref();
    let policy = spec
        .and_then(|spec| spec.dns_policy.as_deref())
        .unwrap_or("ClusterFirst");
    let cluster = match policy {
        "ClusterFirst" if !pod_shape::host_network(pod) => dns.server,
        "ClusterFirstWithHostNet" => dns.server,
        _ => None,
    };
    let mut text = match (policy, cluster) {
        ("None", _) => String::new(),
        (_, Some(server)) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            let domain = if dns.domain.is_empty() {
                "cluster.local"
            } else {
                &dns.domain
            };
            format!(
                "search {namespace}.svc.{domain} svc.{domain} {domain}\n\
                 nameserver {server}\noptions ndots:5\n"
            )
        }
        (_, None) => host.to_owned(),
    };
    if let Some(config) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        for server in config.nameservers.iter().flatten() {
            text.push_str(&format!("nameserver {server}\n"));
        }
        let searches = config.searches.as_deref().unwrap_or_default().join(" ");
        if !searches.is_empty() {
            text.push_str(&format!("search {searches}\n"));
        }
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            let value = option
                .value
                .as_ref()
                .map(|value| format!(":{value}"))
                .unwrap_or_default();
            text.push_str(&format!("options {name}{value}\n"));
        }
    }
    text
}

fn make_empty_dir(path: &Path, wanted: &EmptyDirVolumeSource) -> io::Result<()> {
    if wanted.medium.as_deref() == Some("Memory") {
        let bytes = wanted
            .size_limit
            .as_ref()
            .and_then(quantity::milli)
            .map(|it| it / 1000);
        let options = bytes
            .map(|bytes| format!("size={bytes}"))
            .unwrap_or_default();
        mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}

fn use_host_path(wanted: &HostPathVolumeSource) -> Result<PathBuf, SpecError> {
    let path = PathBuf::from(&wanted.path);
    let kind = wanted.type_.as_deref().unwrap_or_default();
    match kind {
        // What is not there is made a directory, as the container engines do.
        "" if !path.exists() => make_dir(&path, 0o755).map_err(failed(&wanted.path))?,
        "DirectoryOrCreate" if !path.exists() => {
            make_dir(&path, 0o755).map_err(failed(&wanted.path))?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::write(&path, b"").map_err(failed(&wanted.path))?;
        }
        _ => {}
    }
    let found = fs::metadata(&path);
    let fits = match (kind, &found) {
        ("", _) => true,
        ("Directory" | "DirectoryOrCreate", Ok(found)) => found.is_dir(),
        ("File" | "FileOrCreate", Ok(found)) => found.is_file(),
        (_, Ok(_)) => true,
        (_, Err(_)) => false,
    };
    if fits {
        return Ok(path);
    }
    let message = format!(
        "hostPath type check failed: {} is not a {kind}",
        wanted.path
    );
    Err(SpecError {
        reason: "FailedMount",
        message,
    })
}

/// A file of a volume: relative path, bytes, mode.
type ProjectedFile = (String, Vec<u8>, i32);

fn projected_files(
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

fn write_files(root: &Path, files: &[ProjectedFile]) -> io::Result<()> {
    for (name, bytes, mode) in files {
        let relative = Path::new(name);
        let stays = relative
            .components()
            .all(|it| matches!(it, std::path::Component::Normal(_)));
        if !stays {
            let message = format!("path {name:?} leaves its volume");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let path = root.join(relative);
        if let Some(parent) = path.parent() {
            make_dir(parent, 0o755)?;
        }
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(*mode as u32))?;
    }
    Ok(())
}

/// Gives a volume to the pod's group: new files in it belong to the group, too.
fn own_by_group(path: &Path, group: i64) -> io::Result<()> {
    let group = u32::try_from(group).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    std::os::unix::fs::chown(path, None, Some(group))?;
    let metadata = fs::metadata(path)?;
    let extra = if metadata.is_dir() { 0o2070 } else { 0o060 };
    let mode = metadata.permissions().mode() | extra;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if !entry.file_type()?.is_symlink() {
                own_by_group(&entry.path(), group.into())?;
            }
        }
    }
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> SpecError {
    let what = what.to_owned();
    move |e| SpecError {
        reason: "FailedMount",
        message: format!("volume {what:?}: {e}"),
    }
}
