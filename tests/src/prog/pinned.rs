//! A loaded datapath's maps as an agent opens them: pinned for as long as the value lives.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use datapath::maps::Maps;
use datapath::{mount, remove_pins};
use orchestrator_common::MAPS;

use super::Datapath;
use crate::netns::{BPFFS, PREFIX};

const NODE: &str = "node-1";

/// One of this process's after the other.
static COUNT: AtomicU32 = AtomicU32::new(0);

pub struct Pinned {
    pub maps: Maps,
    pub dir: PathBuf,
    _pins: Pins,
}

/// Where a killed run's pins are looked for by the next one.
struct Pins(PathBuf);

impl Datapath {
    /// The agent's hands on these maps.
    pub fn pinned(&mut self) -> Result<Pinned> {
        mount::ensure_bpffs(Path::new(BPFFS))?;
        let (process, nth) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = PathBuf::from(BPFFS).join(format!("{PREFIX}{process}-maps-{nth}"));
        let dir = root.join(NODE).join("maps");
        let pins = Pins(root);
        fs::create_dir_all(&dir)?;
        for spec in &MAPS {
            let map = self.ebpf.map(spec.name).context(spec.name)?;
            map.pin(dir.join(spec.name))?;
        }
        Ok(Pinned {
            maps: Maps::open(&dir)?,
            dir,
            _pins: pins,
        })
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // A failure would be a panic in a drop; the next run's sweep gets what is left.
        let _ = remove_pins(&self.0, NODE);
        let _ = fs::remove_dir(&self.0);
    }
}
