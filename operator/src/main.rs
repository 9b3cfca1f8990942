//! The operator's program: `zue-operator run`, and what it needs to be installed: `zue-operator crd`, `zue-operator rbac`.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use futures::future::join_all;
use kube::api::{Api, ListParams};
use kube::{Client, Config};
use tokio::sync::watch;
use zue_operator::args::{Check, Cli, Command, Run};
use zue_operator::kubernetes::lease::LeaseHolder;
use zue_operator::kubernetes::within;
use zue_operator::metrics::Metrics;
use zue_operator::observe::watched::Guarded;
use zue_operator::report::farewell;
use zue_operator::run::operator::Settings;
use zue_operator::run::{http, operator};
use zue_operator::{check, crd, domain, rbac};

/// The pause before the API server is asked for the first time again, and the longest one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Run(args) => run(args).await,
        Command::Crd => crd::yaml().map_err(Into::into).and_then(|yaml| tell(&yaml)),
        Command::Rbac => print(&rbac::cluster_role()),
        Command::Check(args) => check_all(&args).await,
    };
    let code = ended.map_or_else(
        |error| {
            zue_telemetry::say(format!("zue-operator: {error:#}"));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    );
    zue_telemetry::finish();
    code
}

fn print(object: &impl serde::Serialize) -> anyhow::Result<()> {
    tell(&serde_yaml::to_string(object)?)
}

fn tell(text: &str) -> anyhow::Result<()> {
    zue_telemetry::print(text).context("standard output cannot be written")
}

async fn check_all(args: &Check) -> anyhow::Result<()> {
    let client = Client::try_from(configured().await?)?;
    for line in check::run(&client, args).await? {
        tell(&format!("{line}\n"))?;
    }
    Ok(())
}

async fn configured() -> anyhow::Result<Config> {
    Config::infer().await.context("no Kubernetes is configured: run in a pod, or set KUBECONFIG")
}

async fn run(args: Run) -> anyhow::Result<()> {
    let Run { namespaces, metrics_address, image, log_format, lease, instance } = args;
    zue_telemetry::init(log_format, "info,kube_client=error")?;
    let client = Client::try_from(configured().await?)?;
    let metrics = Arc::new(Metrics::new()?);
    let ready = Arc::new(AtomicBool::new(false));
    let serving = http::serve(metrics_address, http::routes(Arc::clone(&metrics), Arc::clone(&ready)));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        namespaces = if namespaces.is_empty() { "all".to_owned() } else { namespaces.join(",") },
        "the operator starts"
    );
    let mut lease_holder = LeaseHolder::new(client.clone(), lease, instance.clone());
    // Where there is none, names are told in short.
    let services_suffix = domain::suffix(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let settings = Settings { default_image: image, instance, services_suffix };
    let operator = Operator { client: client.clone(), namespaces: namespaces.clone(), settings, metrics, ready };
    tokio::select! {
        served = serving => return served.with_context(|| format!("cannot serve metrics at {metrics_address}")),
        ended = operator.run(&mut lease_holder) => return ended,
        told = stop() => told.context("cannot listen for signals")?,
    }
    drop(operator);
    if lease_holder.leave().await {
        farewell::say(&client, &namespaces, &lease_holder).await;
    }
    Ok(())
}

/// Acts whenever it holds the Lease; for ever.
async fn take_turns(lease_holder: &mut LeaseHolder, acts: &watch::Sender<bool>, metrics: &Metrics) -> Infallible {
    let told = AtomicBool::new(false);
    let standing_by = || {
        if !told.swap(true, Ordering::Relaxed) {
            tracing::info!("another operator is active; this one stands by");
        }
    };
    loop {
        lease_holder.take(standing_by).await;
        tracing::info!("this operator is active from now on");
        metrics.acts(true);
        acts.send_replace(true);
        lease_holder.keep().await;
        acts.send_replace(false);
        metrics.acts(false);
        told.store(false, Ordering::Relaxed);
    }
}

struct Operator {
    client: Client,
    namespaces: Vec<String>,
    settings: Settings,
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
}

impl Operator {
    /// Watches, and acts whenever it holds the Lease: so all is known when it begins to act.
    async fn run(&self, lease_holder: &mut LeaseHolder) -> anyhow::Result<()> {
        require_crd(&self.client, self.namespaces.first().map(String::as_str)).await?;
        let (acts, seated) = watch::channel(false);
        tokio::select! {
            () = self.watch(seated) => bail!("the watches have ended"),
            never = take_turns(lease_holder, &acts, &self.metrics) => match never {},
        }
    }

    async fn watch(&self, acts: watch::Receiver<bool>) {
        let mut scopes: Vec<Option<String>> = self.namespaces.iter().cloned().map(Some).collect();
        if scopes.is_empty() {
            scopes.push(None);
        }
        let left = Arc::new(AtomicUsize::new(scopes.len()));
        let operating = scopes.into_iter().map(|namespace| {
            let (ready, left) = (Arc::clone(&self.ready), Arc::clone(&left));
            let seen = move || {
                let is_last = left.fetch_sub(1, Ordering::Relaxed) == 1;
                ready.fetch_or(is_last, Ordering::Relaxed);
            };
            let (client, settings, metrics) = (self.client.clone(), self.settings.clone(), Arc::clone(&self.metrics));
            operator::run(client, namespace, settings, metrics, acts.clone(), seen)
        });
        join_all(operating).await;
    }
}

/// A missing CRD is said once and plainly, instead of as a watch that fails for ever. Whatever else fails is tried again: an API server
/// that is away comes back.
async fn require_crd(client: &Client, namespace: Option<&str>) -> anyhow::Result<()> {
    let api: Api<Guarded> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (first, mut pause) = (ListParams::default().limit(1), PAUSE_MIN);
    loop {
        match within("list ZueClusters", api.list(&first)).await {
            Ok(_) => return Ok(()),
            Err(error) if error.code() == Some(404) => {
                bail!("Kubernetes knows no ZueCluster: install the CRD first (zue-operator crd | kubectl apply -f -)")
            }
            Err(error) => tracing::warn!("{error}; next try in {} s", pause.as_secs()),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("the operator stops");
    Ok(())
}
