//! The sandbox's image, made from the product itself: this executable, the shared libraries that it
//! runs with and their loader. Nothing is pulled for it.
//!
//! Owns what is in the image and its name. Handing it to an engine is the runtime's work, which takes no
//! image for ours by its name: its one layer has the digest of the tar that is written here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The name of sandboxes' images; the tag says of what they are made.
pub const REPOSITORY: &str = "orchestrator/pause";
const EXECUTABLE: &str = "/proc/self/exe";
const NAME: &str = "orchestrator";

/// The files of an image, and what they hash to.
pub struct Parts {
    libraries: BTreeMap<String, PathBuf>,
    loader: Option<String>,
    /// SHA-256 of the tar, in hexadecimal digits.
    digest: String,
}

/// Reads what this process is made of.
pub fn parts() -> io::Result<Parts> {
    let libraries = libraries(&std::fs::read_to_string("/proc/self/maps")?);
    let loader = libraries.keys().find(|name| is_loader(name)).cloned();
    let digest = hex::encode(archive(&libraries, Sha256::new())?.finalize());
    Ok(Parts {
        libraries,
        loader,
        digest,
    })
}

/// Repository and tag of a reference that [`Parts::reference`] made.
pub fn split(reference: &str) -> (&str, &str) {
    reference.split_once(':').unwrap_or((reference, "latest"))
}

impl Parts {
    /// The image's name; the same files give the same one.
    pub fn reference(&self) -> String {
        format!("{REPOSITORY}:{}", &self.digest[..12])
    }

    /// What the Engine calls the image's only layer.
    pub fn layer(&self) -> String {
        format!("sha256:{}", self.digest)
    }

    /// Calls the loader by name: the image then needs no link at the path that the executable
    /// was built with.
    pub fn entrypoint(&self) -> Vec<String> {
        let executable = format!("/{NAME}");
        let words: Vec<String> = match &self.loader {
            Some(loader) => {
                vec![
                    format!("/lib/{loader}"),
                    "--library-path".into(),
                    "/lib".into(),
                    executable,
                ]
            }
            None => vec![executable],
        };
        words.into_iter().chain(["pause".to_owned()]).collect()
    }

    /// Writes the image's tar to a file that has no name any more, and rewinds it.
    pub fn write_tar(&self, scratch: &Path) -> io::Result<File> {
        let path = scratch.join(format!(
            "pause-{}-{}.tar",
            &self.digest[..12],
            std::process::id()
        ));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        std::fs::remove_file(&path)?;
        let mut file = archive(&self.libraries, file)?;
        file.rewind()?;
        Ok(file)
    }
}

/// Writes the tar: the same files give the same bytes.
fn archive<W: Write>(libraries: &BTreeMap<String, PathBuf>, to: W) -> io::Result<W> {
    let mut tar = tar::Builder::new(to);
    append(&mut tar, NAME, Path::new(EXECUTABLE))?;
    for (name, path) in libraries {
        append(&mut tar, &format!("lib/{name}"), path)?;
    }
    tar.into_inner()
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut header = tar::Header::new_gnu();
    header.set_size(file.metadata()?.len());
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_cksum();
    tar.append_data(&mut header, name, &mut file)
}

/// The files that are mapped into a process, by base name, but the executable itself.
fn libraries(maps: &str) -> BTreeMap<String, PathBuf> {
    let paths = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let named = paths.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)));
    let libraries = named.filter(|(name, _)| name.contains(".so"));
    libraries
        .map(|(name, path)| (name, path.to_path_buf()))
        .collect()
}

fn is_loader(name: &str) -> bool {
    name.starts_with("ld-linux") || name.starts_with("ld-musl") || name.starts_with("ld-2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_a_process_are_its_mapped_objects_without_the_executable() {
        let maps = "\
55d0-55d1 r--p 00000000 fe:00 1 /usr/local/bin/orchestrator
7f00-7f01 r-xp 00000000 fe:00 2 /usr/lib/x86_64-linux-gnu/libc.so.6
7f02-7f03 r--p 00000000 fe:00 2 /usr/lib/x86_64-linux-gnu/libc.so.6
7f04-7f05 r--p 00000000 fe:00 3 /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
7fff-8000 rw-p 00000000 00:00 0 [stack]
";
        let found = libraries(maps);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            ["ld-linux-x86-64.so.2", "libc.so.6"]
        );
        assert!(is_loader("ld-linux-x86-64.so.2"));
        assert!(!is_loader("libc.so.6"));
    }

    #[test]
    fn the_same_executable_names_the_same_image() {
        let reference = parts().expect("readable").reference();
        assert_eq!(parts().expect("readable").reference(), reference);
        assert_eq!(split(&reference).0, REPOSITORY);
    }
}
