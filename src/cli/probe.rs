//! `kubewitness probe`: what an API server tells strangers, and how long the audit trail takes.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use url::Url;

use crate::cli::spool::{Format, checked};
use crate::cli::{Done, Error};
use crate::probe::trail::{Place, Trace, Trail};
use crate::probe::{Answer, Outcome, Probe, Target, Verdict};
use crate::report::escape::{Spelling, visible, write_json};
use crate::telemetry::chain;
use crate::units::Span;

/// Arguments of `probe`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubewitness probe https://10.0.0.10:6443 --ca-file /etc/kubernetes/pki/ca.crt
  kubewitness probe https://10.0.0.10:6443 --ca-file ca.crt --spool /var/lib/kubewitness
  kubewitness probe https://10.0.0.10:6443 --ca-file ca.crt --admin http://127.0.0.1:9090

Only against API servers that you answer for: the requests are those of an attacker's first
minute, they are logged as such, and they raise alerts. Exit code 1: something is open to
everybody that should not be, there was no answer, or an audit event did not arrive in time.")]
pub struct ProbeArgs {
    /// The API server: https://HOST:PORT
    url: Url,
    /// Authorities that its certificate is checked against; the system's when absent
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Accept any certificate
    #[arg(long, conflicts_with = "ca_file")]
    insecure_skip_tls_verify: bool,
    /// Time for one request and its answer
    #[arg(long, value_name = "SPAN", default_value = "10s")]
    timeout: Span,
    /// A node's name, to ask for its kubelet through the API server
    #[arg(long, default_value = "kubewitness-probe")]
    node: String,
    /// A running instance's operator HTTP (`admin.listen`): ask it for each audit event
    #[arg(long, value_name = "URL", conflicts_with_all = ["spool", "events"])]
    admin: Option<Url>,
    /// The spool of a running instance: wait for the audit event of each request in it
    #[arg(long, value_name = "DIR", conflicts_with = "events")]
    spool: Option<PathBuf>,
    /// A file with an event a line (a file sink's, or the audit log): wait for each in it
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// How long to wait for the audit events
    #[arg(long, value_name = "SPAN", default_value = "60s")]
    wait: Span,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Asks, prints, and waits for the trail.
///
/// # Errors
/// A URL, file or spool that cannot be used: wrong input.
pub fn run(args: &ProbeArgs) -> Result<Done, Error> {
    let target = Target {
        url: args.url.clone(),
        ca_file: args.ca_file.clone(),
        is_insecure: args.insecure_skip_tls_verify,
        timeout: args.timeout.0,
        node: args.node.clone(),
    };
    let probe = Probe::new(target).map_err(|error| Error::Input(chain(&error)))?;
    let place = match (&args.admin, &args.spool, &args.events) {
        (Some(url), ..) => Some(Place::Admin(url.clone())),
        (_, Some(dir), _) => Some(Place::Spool(checked(dir)?.to_owned())),
        (.., Some(path)) => Some(Place::Events(path.clone())),
        _ => None,
    };
    let wrong = |error| Error::Input(chain(&error));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let open = |place| runtime.block_on(Trail::open(place, probe.mark())).map_err(wrong);
    let mut trail = place.map(open).transpose()?;
    let mut out = std::io::stdout();
    if args.format == Format::Text {
        writeln!(out, "user agent {}", probe.mark())?;
    }
    let is_told = trail.is_none();
    let answers = runtime.block_on(probe.run(&mut |answer| {
        // Written as it comes; a closed pipe is met again below.
        if is_told && args.format == Format::Text {
            let _ = writeln!(std::io::stdout(), "{}", line(answer, None));
        }
    }));
    if let Some(trail) = &mut trail {
        let user_agents: Vec<String> = answers
            .iter()
            .filter(|answer| answer.verdict() != Verdict::Silent)
            .map(|answer| answer.user_agent.clone())
            .collect();
        let failed = |error| Error::Failed(chain(&error));
        runtime.block_on(trail.follow(&user_agents, args.wait.0)).map_err(failed)?;
    }
    report(&mut out, args, &answers, trail.as_ref())
}

fn report(
    out: &mut dyn Write,
    args: &ProbeArgs,
    answers: &[Answer],
    trail: Option<&Trail>,
) -> Result<Done, Error> {
    let trace = |answer: &Answer| {
        let trace = trail.and_then(|trail| trail.traces().get(&answer.user_agent));
        trace.filter(|trace| trace.events > 0)
    };
    for answer in answers {
        match args.format {
            Format::Text if trail.is_some() => {
                let arrived = Some(trace(answer));
                writeln!(out, "{}", line(answer, arrived))?;
            }
            Format::Text => {}
            Format::Json => write_line(out, answer, trace(answer))?,
        }
    }
    let count = |verdict: Verdict| answers.iter().filter(|one| one.verdict() == verdict).count();
    let (open, silent) = (count(Verdict::Open), count(Verdict::Silent));
    let answered = answers.len() - silent;
    let arrived = answers.iter().filter(|answer| trace(answer).is_some()).count();
    let is_blind = trail.is_some() && arrived < answered;
    if args.format == Format::Text {
        writeln!(out, "{answered} of {} answered, {open} open to everybody", answers.len())?;
        if trail.is_some() {
            writeln!(out, "audit events of {arrived} of {answered} requests arrived")?;
        }
        if is_blind {
            let remedy = "the audit policy drops these, or the trail is cut or slow";
            writeln!(out, "for the others: {remedy} (waited {})", args.wait)?;
        }
    }
    Ok(if open > 0 || answered == 0 || is_blind { Done::Failed } else { Done::Fine })
}

/// The line of a request; `arrived` only where a trail is followed.
fn line(answer: &Answer, arrived: Option<Option<&Trace>>) -> String {
    let status = match &answer.outcome {
        Outcome::Answered { status, .. } => status.to_string(),
        Outcome::Silent(_) => "---".to_owned(),
    };
    let token = if answer.request.has_token { " (unknown token)" } else { "" };
    let took = answer.took.as_millis();
    let mut text = format!(
        "{status}  {:>5} ms  {:<50}  {}",
        took,
        format!("GET {}{token}", visible(&answer.request.target)),
        answer.verdict().as_str(),
    );
    match &answer.outcome {
        Outcome::Answered { version: Some(version), .. } => {
            text.push_str(&format!(" (says {})", visible(version)));
        }
        Outcome::Silent(cause) => text.push_str(&format!(": {}", visible(cause))),
        Outcome::Answered { .. } if answer.verdict() == Verdict::Open => {
            text.push_str(&format!(": tells {}", answer.request.tells));
        }
        Outcome::Answered { .. } => {}
    }
    match arrived {
        None => {}
        Some(None) => text.push_str("; no audit event"),
        Some(Some(trace)) => {
            text.push_str(&format!("; audit event after {} ms", after_ms(answer, trace)));
            if !trace.alerts.is_empty() {
                text.push_str(&format!(", alerts: {}", visible(&trace.alerts.join(", "))));
            }
        }
    }
    text
}

/// From the request to the moment its event was met.
fn after_ms(answer: &Answer, trace: &Trace) -> i64 {
    (trace.seen_us - answer.asked_us).max(0) / 1_000
}

fn write_line(out: &mut dyn Write, answer: &Answer, trace: Option<&Trace>) -> std::io::Result<()> {
    let (status, version, cause) = match &answer.outcome {
        Outcome::Answered { status, version, .. } => (Some(*status), version.as_deref(), None),
        Outcome::Silent(cause) => (None, None, Some(cause.as_str())),
    };
    let value = json!({
        "target": answer.request.target,
        "has_token": answer.request.has_token,
        "user_agent": answer.user_agent,
        "status": status,
        "verdict": answer.verdict(),
        "version": version,
        "cause": cause,
        "took_ms": answer.took.as_millis() as u64,
        "audit_event": trace.map(|trace| json!({
            "after_ms": after_ms(answer, trace),
            "username": trace.username,
            "stage": trace.stage,
            "events": trace.events,
            "alerts": trace.alerts,
        })),
    });
    write_json(out, &value, Spelling::Exact)?;
    out.write_all(b"\n")
}
