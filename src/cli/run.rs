//! `kubewitness run`: sources to spool to sinks, until a signal or a failure.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{AdminServer, Status, Views, observe_spool};
use crate::cli::check::ConfigArgs;
use crate::cli::reload::Reload;
use crate::cli::{Done, Error};
use crate::config::{Config, Source};
use crate::event::redact::Redactor;
use crate::ingest::kafka::Source as KafkaSource;
use crate::ingest::log::LogSource;
use crate::ingest::sample;
use crate::ingest::standing::Standing;
use crate::ingest::webhook::WebhookSource;
use crate::pipeline::Clock;
use crate::pipeline::graph::{Pipeline, Setup};
use crate::pipeline::health::Health;
use crate::sinks::frame::Frame;
use crate::spool::Spool;
use crate::telemetry;
use crate::telemetry::chain;

/// How often gauges are set that nobody counts along the way.
const OBSERVE: Duration = Duration::from_secs(2);
/// How long threads that still write are waited for at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubewitness run --config /etc/kubewitness/kubewitness.yaml

SIGTERM and SIGINT drain and exit with 0; a second one exits at once. SIGHUP reloads rules.")]
pub struct RunArgs {
    /// Which configuration
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Runs until a signal ends it.
///
/// # Errors
/// A wrong configuration or wrong rules: wrong input. What fails while running; a supervisor
/// starts the process again, and nothing acknowledged is lost.
pub fn run(args: &RunArgs) -> Result<Done, Error> {
    let config = args.config.load()?;
    telemetry::start(&config.log).map_err(|error| Error::Input(chain(&error)))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(serve(config));
    runtime.shutdown_timeout(FAREWELL);
    done.map(|()| Done::Fine)
}

/// Everything, built back to front: what a part needs is there before it.
async fn serve(config: Config) -> Result<(), Error> {
    let mut signals = Signals::listen()?;
    let metrics = telemetry::metrics::install().map_err(|error| Error::Failed(chain(&error)))?;
    let proxies: Vec<IpNet> = config.trusted_proxies.iter().map(|network| network.0).collect();
    let reload = Reload::new(config.rules.clone(), proxies);
    let engine = reload.load().await.map_err(Error::Input)?;
    let rules = engine.rules().rules.len();
    let pipeline = start(&config, engine).await?;
    let (sources_stop, admin_stop) = (CancellationToken::new(), CancellationToken::new());
    let (mut sources, standings) = start_sources(&config, &pipeline, &sources_stop).await?;
    let admin = AdminServer::bind(config.admin.clone()).await;
    let admin = admin.map_err(|error| Error::Failed(error.to_string()))?;
    let spool = Arc::downgrade(pipeline.spool());
    let (health, stop) = (pipeline.health(), sources_stop.clone());
    let views = views(health, spool, reload.clone(), standings, stop);
    let admin = tokio::spawn(admin.run(views, metrics, admin_stop.clone()));
    tracing::info!(cluster = config.cluster, rules, sources = sources.len(), "running");

    tokio::spawn(reload.clone().watch(pipeline.orders(), sources_stop.clone()));
    let mut observe = tokio::time::interval(OBSERVE);
    let ended = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Asked::Reload => reload.ask(),
                Asked::End => break Ok(()),
            },
            failure = pipeline.failed() => break Err(failure),
            Some(source) = sources.join_next() => break Err(end_of(source)),
            _ = observe.tick() => observe_spool(pipeline.spool(), config.spool.bytes_max.0),
        }
    };
    let Err(failure) = ended else {
        let result = tokio::select! {
            result = drain(pipeline, sources, &sources_stop, &config) => result,
            () = signals.end() => Err("a second signal while draining".to_owned()),
        };
        admin_stop.cancel();
        // Its task ends when what is under way is answered.
        let _ = admin.await;
        return result.map_err(Error::Failed);
    };
    Err(Error::Failed(failure))
}

/// Opens the spool, makes the sinks, recovers the state, and starts all of them.
async fn start(config: &Config, engine: Arc<crate::engine::Engine>) -> Result<Pipeline, Error> {
    let options = config.spool.options();
    let dir = config.spool.dir.clone();
    let open = {
        let options = options.clone();
        move || Spool::open(&dir, options)
    };
    let opened = tokio::task::spawn_blocking(open).await;
    let opened = opened.map_err(|error| Error::Failed(error.to_string()))?;
    let (spool, recovery) = opened.map_err(|error| Error::Failed(chain(&error)))?;
    for damage in &recovery.damages {
        let (file, reason) = (damage.file.as_str(), damage.reason.name());
        tracing::error!(
            file,
            offset = damage.offset,
            bytes = damage.bytes,
            reason,
            "spool damaged"
        );
    }
    let unusable = |error| Error::Input(chain(&error));
    config.sinks.iter().for_each(say_caveat);
    let sinks = config.sinks.iter().map(Frame::open).collect::<Result<Vec<_>, _>>();
    let key = config.redaction.key_file.as_deref().map(read_key).transpose()?;
    let setup = Setup {
        config: config.pipeline.clone(),
        cluster: Some(config.cluster.clone()),
        engine,
        redactor: Redactor::new(config.redaction.mode.into(), key.as_deref()),
        seal_to: config.redaction.seal_to.map(|key| key.0),
        spool: (spool, options, recovery),
        sinks: sinks.map_err(unusable)?,
        clock: Clock::real(),
        rehearsal: Some(sample::batch()),
    };
    Pipeline::start(setup).await.map_err(|error| Error::Failed(chain(&error)))
}

fn read_key(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Input(format!("{}: {error}", path.display())))
}

/// The name of a source, and how it ended.
type Ended = (String, Result<(), String>);

async fn start_sources(
    config: &Config,
    pipeline: &Pipeline,
    stop: &CancellationToken,
) -> Result<(JoinSet<Ended>, Vec<(String, Standing)>), Error> {
    let mut sources = JoinSet::new();
    let mut standings = Vec::new();
    let has_callers = config.sources.iter().any(|source| matches!(source, Source::Webhook(_)));
    let patient = match has_callers {
        true => pipeline.intake().patient(),
        false => pipeline.intake(),
    };
    for source in &config.sources {
        let name = source.name().to_owned();
        let mut standing = Standing::default();
        let (intake, stop) = match source {
            Source::Webhook(_) => (pipeline.intake(), stop.clone()),
            Source::Log(_) | Source::Kafka(_) => (patient.clone(), stop.clone()),
        };
        match source {
            Source::Webhook(config) => {
                let bound = WebhookSource::bind(config.clone(), intake, stop).await;
                let source = bound.map_err(|error| Error::Failed(chain(&error)))?;
                sources.spawn(async move {
                    source.run().await;
                    (name, Ok(()))
                });
            }
            Source::Kafka(config) => {
                let source = KafkaSource::new(config.clone(), intake, stop);
                let source = source.map_err(|error| Error::Input(chain(&error)))?;
                sources.spawn(async move {
                    let ended = source.run().await;
                    (name, ended.map_err(|error| chain(&error)))
                });
            }
            Source::Log(config) => {
                let known = pipeline.checkpoints(&name).iter();
                let checkpoints: BTreeMap<String, Vec<u8>> =
                    known.map(|one| (one.key.clone(), one.value.clone())).collect();
                let source = LogSource::new(config.clone(), checkpoints, intake, stop);
                let source = source.map_err(|error| Error::Input(chain(&error)))?;
                standing = source.standing();
                sources.spawn(async move {
                    let ended = source.run().await;
                    (name, ended.map_err(|error| chain(&error)))
                });
            }
        }
        standings.push((source.name().to_owned(), standing));
    }
    Ok((sources, standings))
}

/// Why a source that nobody stopped is no more.
fn end_of(ended: Result<Ended, tokio::task::JoinError>) -> String {
    match ended {
        Ok((name, Ok(()))) => format!("source {name} ended"),
        Ok((name, Err(cause))) => format!("source {name} ended: {cause}"),
        Err(error) => format!("a source ended: {error}"),
    }
}

/// Sources first, then what they sent, then the sinks.
async fn drain(
    pipeline: Pipeline,
    mut sources: JoinSet<Ended>,
    stop: &CancellationToken,
    config: &Config,
) -> Result<(), String> {
    tracing::info!("draining");
    stop.cancel();
    while let Some(ended) = sources.join_next().await {
        if let Ok((name, Err(cause))) = ended {
            tracing::warn!(source = name, cause, "the source did not end well");
        }
    }
    let drained = pipeline.drain(config.pipeline.drain_max.0).await?;
    tracing::info!(sinks_behind = drained.sinks_behind, "drained");
    Ok(())
}

fn views(
    health: Health,
    spool: Weak<Spool>,
    reload: Reload,
    standings: Vec<(String, Standing)>,
    stop: CancellationToken,
) -> Views {
    let status = |name: &str, ok: &str, result: Result<(), String>| match result {
        Ok(()) => Status::ok(name, ok),
        Err(cause) => Status::failed(name, cause),
    };
    let live = health.clone();
    Views {
        live: Box::new(move || vec![status("pipeline", "it turns", live.live())]),
        ready: Box::new(move || {
            let mut problems = standings
                .iter()
                .filter_map(|(name, standing)| Some(format!("{name}: {}", standing.problem()?)));
            let sources = match problems.next() {
                _ if stop.is_cancelled() => Status::failed("sources", "draining"),
                Some(problem) => Status::failed("sources", problem),
                None => Status::ok("sources", format!("{} up", standings.len())),
            };
            let rules = Status::ok("rules", reload.status());
            vec![rules, status("spool", "takes batches", health.ready()), sources]
        }),
        spool,
    }
}

/// What a signal asks for.
enum Asked {
    End,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, Error> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// Passes over what else is asked.
    async fn end(&mut self) {
        while !matches!(self.next().await, Asked::End) {}
    }
}

/// Says what `delivered` does not mean of a sink, in the log and as a metric.
fn say_caveat(sink: &crate::sinks::config::Config) {
    let (name, caveat) = (sink.common.name.clone(), sink.caveat());
    if let Some(caveat) = caveat {
        tracing::warn!(sink = %name, "{caveat}");
    }
    let is_best_effort = f64::from(u8::from(caveat.is_some()));
    metrics::gauge!("kubewitness_sink_best_effort", "sink" => name).set(is_best_effort);
}
