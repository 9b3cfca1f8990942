//! Calls of kubectl.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use serde_json::Value;

use super::args::Kube;

/// Bytes of output that are kept of one call: far above any object, and a bound for what a server sends.
const OUTPUT_MAX: u64 = 32 << 20;
/// Bytes of a message of failure that are kept.
const SAID_MAX: u64 = 64 << 10;

/// kubectl, with the flags that name cluster and namespace.
pub(super) struct Kubectl {
    flags: Vec<OsString>,
}

impl Kubectl {
    pub(super) fn new(kube: &Kube) -> Self {
        let flag = |name: &str, value: OsString| {
            let mut flag = OsString::from(format!("--{name}="));
            flag.push(value);
            flag
        };
        let Kube { namespace, context, kubeconfig } = kube;
        let given = [
            namespace.as_ref().map(|value| flag("namespace", value.into())),
            context.as_ref().map(|value| flag("context", value.into())),
            kubeconfig.as_ref().map(|value| flag("kubeconfig", value.into())),
        ];
        Self { flags: given.into_iter().flatten().collect() }
    }

    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.args(&self.flags).args(args);
        command
    }

    /// Runs kubectl; gives what it printed.
    ///
    /// # Errors
    /// What it said, when it failed or printed more than 32 MiB.
    pub(super) fn output(&self, args: &[&str]) -> anyhow::Result<Vec<u8>> {
        let mut command = self.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(not_started)?;
        let said = child.stderr.take().map(|stderr| {
            std::thread::spawn(move || {
                let mut said = String::new();
                let _ = stderr.take(SAID_MAX).read_to_string(&mut said);
                said
            })
        });
        let mut output = vec![];
        let mut stdout = child.stdout.take().context("kubectl has no output")?.take(OUTPUT_MAX + 1);
        stdout.read_to_end(&mut output).context("cannot read what kubectl prints")?;
        drop(stdout); // A kubectl that has more to print ends by that.
        let status = child.wait().context("cannot wait for kubectl")?;
        let said = said.and_then(|said| said.join().ok()).unwrap_or_default();
        let call = args.first().copied().unwrap_or_default();
        if u64::try_from(output.len()).unwrap_or(u64::MAX) > OUTPUT_MAX {
            anyhow::bail!("kubectl {call} printed more than {} MiB", OUTPUT_MAX >> 20);
        }
        anyhow::ensure!(status.success(), "kubectl {call} failed: {}", said.trim());
        Ok(output)
    }

    /// Runs kubectl with `-o json`.
    pub(super) fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let output = self.output(&[args, &["-o", "json"]].concat())?;
        serde_json::from_slice(&output).context("kubectl printed something else than JSON")
    }

    /// Runs kubectl on this program's own input and output; gives its exit code.
    pub(super) fn run(&self, args: &[&str]) -> anyhow::Result<ExitCode> {
        let status = self.command(args).status().map_err(not_started)?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
    }

    /// Turns this process into kubectl; returns only when that fails.
    pub(super) fn become_it(&self, args: &[&str]) -> anyhow::Error {
        not_started(self.command(args).exec())
    }
}

pub(super) fn not_started(error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!("kubectl is not in PATH: https://kubernetes.io/docs/tasks/tools/"),
        _ => anyhow::Error::from(error).context("cannot run kubectl"),
    }
}
