//! A world of its own for everything that is started: namespaces of networks, mounts and processes. The kernel takes all of it away
//! when the program ends, however it ends.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Set within, to whether loop devices may be mounted.
const INSIDE: &str = "ZUE_CHAOS_INSIDE";

/// Starts this program again within a world of its own; comes back within.
pub(crate) fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        run("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
        return run("ip", &["link", "set", "lo", "up"]);
    }
    let is_root = std::fs::metadata("/proc/self")?.uid() == 0;
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare.args((!is_root).then_some("--map-root-user"));
    unshare.arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    let error = unshare.env(INSIDE, if is_root { "root" } else { "user" }).exec();
    Err(error).context("unshare cannot be run: it is part of util-linux")
}

/// Returns whether files may be mounted as disks.
pub(crate) fn has_loop_devices() -> bool {
    std::env::var_os(INSIDE).is_some_and(|inside| inside == "root")
}

/// Runs a command to its end.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<()> {
    feed(program, args, "")
}

/// Runs a command to its end, with this input.
pub(crate) fn feed(program: &str, args: &[&str], input: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{program} cannot be run"))?;
    child.stdin.take().context("its input is piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {} {input}: {}", args.join(" "), said.trim());
    Ok(())
}
