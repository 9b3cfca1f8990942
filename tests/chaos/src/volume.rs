//! A disk of one replica that can be filled.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::world::{has_loop_devices, run};

#[derive(Debug)]
pub(crate) struct Volume {
    mount: PathBuf,
}

impl Volume {
    /// A file of this length mounted as a disk; memory where that is not allowed.
    pub(crate) fn new(dir: &Path, name: &str, bytes: u64) -> Result<Self> {
        let (mount, image) = (dir.join(name), dir.join(format!("{name}.ext4")));
        std::fs::create_dir_all(&mount)?;
        let to = mount.to_str().context("a path of text")?;
        if has_loop_devices() {
            File::create(&image)?.set_len(bytes)?;
            let image = image.to_str().context("a path of text")?;
            run("mkfs.ext4", &["-q", "-F", "-m", "0", image])?;
            run("mount", &["-o", "loop", image, to])?;
        } else {
            run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", to])?;
        }
        Ok(Self { mount })
    }

    /// The directory of the replica.
    pub(crate) fn data(&self) -> PathBuf {
        self.mount.join("data")
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    /// Takes all room that is left.
    pub(crate) fn fill(&self) -> Result<()> {
        let file = File::options().create(true).append(true).open(self.filler())?;
        let mut piece = self.free()?;
        while piece >= 4096 {
            let at = file.metadata()?.len();
            if fallocate(&file, FallocateFlags::empty(), at, piece).is_err() {
                piece /= 2;
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub(crate) fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    fn free(&self) -> Result<u64> {
        let now = statvfs(&self.mount)?;
        Ok(now.f_bavail * now.f_frsize)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Where something still runs on it, the world takes it away when it ends.
        drop(run("umount", &[self.mount.to_str().unwrap_or_default()]));
    }
}
