//! `orchestrator cp`: files as an archive through `tar` in the container.
//!
//! What a container sends is not trusted: nothing is written outside the destination, and links are left out, as
//! kubectl does since CVE-2019-11246.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use kube::api::AttachParams;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::output::printable;
use super::pods::{self, ContainerArgs};
use super::{ClusterArgs, terminal};

/// Bytes of an archive that wait to be written or read.
const PIECES: usize = 16;
const PIECE_BYTES: usize = 64 * 1024;
/// The header of an entry with its long names and attributes, and what fills up the entry before it.
const HEAD_BYTES: u64 = 1024 * 1024;
/// What `tar` in the container has to say.
const COMPLAINT_BYTES: u64 = 16 * 1024;

/// Copy files to and from a container, which needs `tar`
///
/// Examples:
///   orchestrator cp ./data web:/tmp/data
///   orchestrator cp shop/web:/var/log/app.log ./app.log -c app
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Cp {
    /// PATH or [NAMESPACE/]POD:PATH
    from: String,
    /// PATH or [NAMESPACE/]POD:PATH
    to: String,
    /// Let the files have the owner and the rights that new ones have
    #[arg(long)]
    no_preserve: bool,
    #[command(flatten)]
    container: ContainerArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// A side of the copy.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    Here(PathBuf),
    There {
        namespace: Option<String>,
        pod: String,
        path: String,
    },
}

impl Cp {
    pub async fn run(self) -> Result<()> {
        match (Side::parse(&self.from)?, Side::parse(&self.to)?) {
            (
                Side::Here(from),
                Side::There {
                    namespace,
                    pod,
                    path,
                },
            ) => {
                let there = self.reach(namespace, &pod).await?;
                upload(&there, &from, &path, self.no_preserve).await
            }
            (
                Side::There {
                    namespace,
                    pod,
                    path,
                },
                Side::Here(to),
            ) => {
                let there = self.reach(namespace, &pod).await?;
                download(&there, &path, &to).await
            }
            _ => bail!("one of the two paths must be of a pod (POD:PATH), and the other one local"),
        }
    }

    async fn reach(&self, namespace: Option<String>, pod: &str) -> Result<There> {
        let mut cluster = self.cluster.connect().await?;
        if let Some(namespace) = namespace {
            cluster.namespace = namespace;
        }
        let pod = pods::find(&cluster, pod).await?;
        Ok(There {
            container: self.container.choose(&pod)?,
            name: api::meta::name(&pod).to_owned(),
            api: pods::api(&cluster, &pod),
        })
    }
}

impl Side {
    fn parse(text: &str) -> Result<Self> {
        let Some((pod, path)) = text.split_once(':').filter(|(pod, _)| !is_path(pod)) else {
            return Ok(Self::Here(text.into()));
        };
        if path.is_empty() {
            bail!("{text:?} names no path in the pod");
        }
        let (namespace, pod) = match pod.split_once('/') {
            Some((namespace, pod)) => (Some(namespace.to_owned()), pod),
            None => (None, pod),
        };
        if pod.is_empty() || pod.contains('/') {
            bail!("{text:?} is not of the form [NAMESPACE/]POD:PATH");
        }
        Ok(Self::There {
            namespace,
            pod: pod.to_owned(),
            path: path.to_owned(),
        })
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with(['/', '.'])
}

/// A container.
struct There {
    api: kube::Api<k8s_openapi::api::core::v1::Pod>,
    name: String,
    container: String,
}

impl There {
    async fn run(&self, command: Vec<String>, stdin: bool) -> Result<kube::api::AttachedProcess> {
        let wanted = AttachParams {
            container: Some(self.container.clone()),
            stdin,
            stdout: true,
            stderr: true,
            tty: false,
            max_stdin_buf_size: Some(PIECE_BYTES),
            max_stdout_buf_size: Some(PIECE_BYTES),
            max_stderr_buf_size: Some(PIECE_BYTES),
        };
        let process = self.api.exec(&self.name, command, &wanted).await;
        process.context("the command cannot be run in the container")
    }

    async fn is_directory(&self, path: &str) -> Result<bool> {
        let command = ["test", "-d", path].map(str::to_owned);
        let mut process = self.run(command.to_vec(), false).await?;
        let status = process.take_status().context("no status")?.await;
        Ok(terminal::judge(status).is_ok())
    }
}

async fn upload(there: &There, from: &Path, to: &str, no_preserve: bool) -> Result<()> {
    let own = from.canonicalize();
    let own = own.with_context(|| format!("{} cannot be read", from.display()))?;
    let own = own
        .file_name()
        .context("the root is not copied")?
        .to_owned();
    let to = to.trim_end_matches('/');
    let (directory, name) = if to.is_empty() || there.is_directory(to).await? {
        let directory = if to.is_empty() { "/" } else { to };
        (directory.to_owned(), PathBuf::from(own))
    } else {
        match to.rsplit_once('/') {
            Some(("", name)) => ("/".to_owned(), name.into()),
            Some((directory, name)) => (directory.to_owned(), name.into()),
            None => (".".to_owned(), to.into()),
        }
    };
    let mut command = vec!["tar".to_owned()];
    if no_preserve {
        command.extend(["--no-same-permissions", "--no-same-owner"].map(str::to_owned));
    }
    command.extend(["-xmf", "-", "-C", &directory].map(str::to_owned));
    let mut process = there.run(command, true).await?;
    let status = process.take_status();
    let mut stdin = process.stdin().context("no stdin")?;
    let complaints = complaints(process.stderr());
    let (pieces, mut made) = mpsc::channel(PIECES);
    let from = from.to_owned();
    let packing = tokio::task::spawn_blocking(move || pack(&from, &name, Pipe(pieces)));
    while let Some(piece) = made.recv().await {
        if stdin.write_all(&piece).await.is_err() {
            // Whoever does not read says why.
            break;
        }
    }
    drop(made);
    stdin.shutdown().await.ok();
    let said = complaints.await;
    let ended = match status {
        Some(status) => terminal::judge(status.await),
        None => Ok(()),
    };
    ended.with_context(|| printable(&said))?;
    packing
        .await
        .context("the files cannot be packed")?
        .context("the files cannot be packed")
}

async fn download(there: &There, from: &str, to: &Path) -> Result<()> {
    let command = ["tar", "cf", "-", from].map(str::to_owned).to_vec();
    let mut process = there.run(command, false).await?;
    let status = process.take_status();
    let mut stdout = process.stdout().context("no stdout")?;
    let complaints = complaints(process.stderr());
    let (pieces, arrived) = mpsc::channel(PIECES);
    let (prefix, to) = (
        Path::new(from.trim_start_matches('/')).to_owned(),
        to.to_owned(),
    );
    let unpacking = tokio::task::spawn_blocking(move || {
        unpack(
            Pieces {
                arrived,
                piece: Bytes::new(),
            },
            &prefix,
            &to,
        )
    });
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let length = stdout.read(&mut buffer).await?;
        if length == 0
            || pieces
                .send(Bytes::copy_from_slice(&buffer[..length]))
                .await
                .is_err()
        {
            break;
        }
    }
    drop(pieces);
    let written = unpacking.await.context("the files cannot be unpacked")?;
    let written = written.context("the files cannot be unpacked")?;
    drop(stdout);
    let said = complaints.await;
    if let Some(status) = status {
        terminal::judge(status.await).with_context(|| printable(&said))?;
    }
    if written == 0 {
        bail!("{from}: no such file or directory");
    }
    Ok(())
}

/// What a process writes to stderr, the first of it.
fn complaints<R>(stderr: Option<R>) -> impl Future<Output = String>
where
    R: tokio::io::AsyncRead + Unpin + Send + 'static,
{
    let reading = tokio::spawn(async move {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            let mut stderr = stderr;
            let mut first = (&mut stderr).take(COMPLAINT_BYTES);
            let _ = first.read_to_end(&mut said).await;
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
        String::from_utf8_lossy(&said).trim().to_owned()
    });
    async move { reading.await.unwrap_or_default() }
}

/// Packs a file, or a directory with all that is in it, under that name.
fn pack(from: &Path, name: &Path, to: Pipe) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(PIECE_BYTES, to));
    archive.follow_symlinks(false);
    match from.is_dir() {
        true => archive.append_dir_all(name, from)?,
        false => archive.append_path_with_name(from, name)?,
    }
    archive.into_inner()?.flush()
}

/// Unpacks what lies at `prefix` in an archive to `to`, or into it where that is a directory; the number of files
/// and directories.
fn unpack(archive: impl Read, prefix: &Path, to: &Path) -> io::Result<usize> {
    let prefix = clean(prefix);
    let base = match (to.is_dir(), prefix.file_name()) {
        (true, Some(name)) => to.join(name),
        _ => to.to_owned(),
    };
    // The library keeps names and attributes of an entry in memory, however long they are.
    let left = Rc::new(Cell::new(HEAD_BYTES));
    let mut archive = tar::Archive::new(Metered {
        inner: archive,
        left: left.clone(),
    });
    let mut written = 0;
    let mut entries = archive.entries()?;
    loop {
        left.set(HEAD_BYTES);
        let Some(entry) = entries.next() else {
            return Ok(written);
        };
        let mut entry = entry?;
        left.set(u64::MAX);
        let path = clean(&entry.path()?);
        let Ok(rest) = path.strip_prefix(&prefix) else {
            eprintln!(
                "warning: {:?} is not below what was asked for, and is left out",
                path
            );
            io::copy(&mut entry, &mut io::sink())?;
            continue;
        };
        let kind = entry.header().entry_type();
        let target = match rest.as_os_str().is_empty() {
            true => base.clone(),
            false => base.join(rest),
        };
        // A link that was there before: the container must not choose which of them are followed.
        if let Some(link) = links(to, &target).next() {
            return Err(io::Error::other(format!("{} is a link", link.display())));
        }
        if kind.is_dir() {
            std::fs::create_dir_all(&target)?;
        } else if kind.is_file() {
            if target.is_symlink() {
                return Err(io::Error::other(format!("{} is a link", target.display())));
            }
            if let Some(parent) = target.parent().filter(|it| !it.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent)?;
            }
            let mut file = std::fs::File::create(&target)?;
            io::copy(&mut entry, &mut file)?;
        } else {
            eprintln!("warning: skipping symlink or special file: {path:?}");
            io::copy(&mut entry, &mut io::sink())?;
            continue;
        }
        written += 1;
    }
}

/// A reader that gives no more than it is let.
struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !into.is_empty() {
            let why = format!("the head of an entry has more than {HEAD_BYTES} bytes");
            return Err(io::Error::other(why));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let length = self.inner.read(&mut into[..most])?;
        self.left.set(left - length as u64);
        Ok(length)
    }
}

/// The links on the way from the destination, which the user has named, to a path below it.
fn links(to: &Path, target: &Path) -> impl Iterator<Item = PathBuf> {
    let below = target.strip_prefix(to).unwrap_or(target).to_owned();
    let mut at = to.to_owned();
    let steps = below.iter().map(ToOwned::to_owned).collect::<Vec<_>>();
    let ways = steps.into_iter().map(move |step| {
        at.push(step);
        at.clone()
    });
    ways.filter(|way| way.is_symlink())
}

/// A path without steps that lead out of it.
fn clean(path: &Path) -> PathBuf {
    let steps = path.components().filter_map(|step| match step {
        Component::Normal(step) => Some(step),
        _ => None,
    });
    steps.collect()
}

/// The end of a pipe that is written to on a thread that may wait.
struct Pipe(mpsc::Sender<Bytes>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The end that is read from.
struct Pieces {
    arrived: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.arrived.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(into.len());
        into[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_of_a_pod_where_a_colon_is_in_no_path() {
        let there = |namespace: Option<&str>, pod: &str, path: &str| Side::There {
            namespace: namespace.map(str::to_owned),
            pod: pod.to_owned(),
            path: path.to_owned(),
        };
        for (text, expected) in [
            ("web:/tmp/a", Some(there(None, "web", "/tmp/a"))),
            ("shop/web:a", Some(there(Some("shop"), "web", "a"))),
            ("./a:b", Some(Side::Here("./a:b".into()))),
            ("a", Some(Side::Here("a".into()))),
            ("web:", None),
            ("a/b/c:d", None),
        ] {
            assert_eq!(Side::parse(text).ok(), expected, "{text}");
        }
    }

    /// An archive whose names are written as they are.
    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            let size = match kind.is_file() {
                true => content.len() as u64,
                false => 0,
            };
            header.set_size(size);
            if kind.is_symlink() {
                header.set_link_name(content).unwrap();
            }
            header.set_cksum();
            archive
                .append(&header, &content.as_bytes()[..size as usize])
                .unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn nothing_of_an_archive_is_written_outside_the_destination() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("to");
        let said = archive(&[
            ("data", tar::EntryType::Directory, ""),
            ("data/a", tar::EntryType::Regular, "a"),
            ("data/../../../evil", tar::EntryType::Regular, "b"),
            ("/etc/evil", tar::EntryType::Regular, "c"),
            ("data/link", tar::EntryType::Symlink, "/"),
            ("data/link/evil", tar::EntryType::Regular, "d"),
        ]);
        let written = unpack(&said[..], Path::new("data"), &to).unwrap();
        assert_eq!(written, 4);
        assert_eq!(std::fs::read_to_string(to.join("a")).unwrap(), "a");
        assert!(to.join("evil").is_file() && to.join("link/evil").is_file());
        let names = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(names, 1);
    }

    #[test]
    fn links_that_are_there_lead_no_file_of_a_container_out_of_the_destination() {
        for linked in ["data", "data/sub"] {
            let directory = tempfile::tempdir().unwrap();
            let (home, to) = (directory.path().join("home"), directory.path().join("to"));
            std::fs::create_dir_all(&home).unwrap();
            let link = to.join(linked);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&home, &link).unwrap();
            for kind in [tar::EntryType::Regular, tar::EntryType::Directory] {
                let said = archive(&[("data/sub/evil", kind, "b")]);
                assert!(unpack(&said[..], Path::new("data"), &to).is_err());
            }
            assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0, "{linked}");
        }
    }

    #[test]
    fn names_without_end_take_no_memory_and_long_ones_are_read() {
        let directory = tempfile::tempdir().unwrap();
        for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(1 << 40);
            header.set_cksum();
            let taken = Rc::new(Cell::new(u64::MAX));
            let endless = Metered {
                inner: Read::chain(&header.as_bytes()[..], io::repeat(b'a')),
                left: taken.clone(),
            };
            assert!(unpack(endless, Path::new("data"), directory.path()).is_err());
            assert!(u64::MAX - taken.get() <= HEAD_BYTES);
        }
        let mut archive = tar::Builder::new(Vec::new());
        let name = format!("data/{}/{}", "n".repeat(200), "m".repeat(200));
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        archive.append_data(&mut header, &name, &b"x"[..]).unwrap();
        let said = archive.into_inner().unwrap();
        let to = directory.path().join("to");
        assert_eq!(unpack(&said[..], Path::new("data"), &to).unwrap(), 1);
        let file = to.join(name.trim_start_matches("data/"));
        assert_eq!(std::fs::read(file).unwrap(), b"x");
    }

    #[test]
    fn what_is_packed_is_unpacked_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("from");
        std::fs::create_dir_all(from.join("b")).unwrap();
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        std::fs::write(from.join("b/c"), &bytes).unwrap();
        let (pieces, arrived) = mpsc::channel(PIECES);
        let packing = std::thread::spawn(move || pack(&from, Path::new("x"), Pipe(pieces)));
        let to = directory.path().join("to");
        let pieces = Pieces {
            arrived,
            piece: Bytes::new(),
        };
        let written = unpack(pieces, Path::new("x"), &to).unwrap();
        packing.join().unwrap().unwrap();
        assert_eq!(written, 3);
        assert_eq!(std::fs::read(to.join("b/c")).unwrap(), bytes);
    }
}
