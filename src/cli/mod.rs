//! Subcommands: arguments in, exit code out.

pub mod verify;
pub mod archive;
pub mod demo;
pub mod eval;
pub mod replay;
pub mod rules;
pub mod load;
pub mod certs;
pub mod check;
pub mod redrive;
pub mod letters;
pub mod probe;
pub mod reload;
pub mod run;
pub mod spool;
pub mod prove;
pub mod witness;

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::escape::visible;

/// A command that could not be done; the variant decides the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Wrong input or configuration: exit code 2.
    #[error("{0}")]
    Input(String),
    /// It failed while running: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Whoever read the output has gone, such as `head`: exit code 1, and nobody is told.
    #[error("nobody reads the output any more")]
    Unread,
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        match error.kind() {
            ErrorKind::BrokenPipe => Error::Unread,
            _ => Error::Failed(format!("cannot write: {error}")),
        }
    }
}

/// How a command that was done came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Exit code 0.
    Fine,
    /// Something that was asked for did not hold (a case failed, a rule has a fault): exit code 1.
    Failed,
    /// `--fail-on` was met: exit code 3.
    Alarm,
    /// What `verify` found at worst, as an exit code of its own.
    Verdict(u8),
}

/// Finds attacks in Kubernetes audit logs.
#[derive(Debug, Parser)]
#[command(
    name = "kubewitness",
    version,
    about = "Detects attacks in Kubernetes audit logs",
    after_help = "Examples:\n  kubewitness replay /var/log/kubernetes/audit\n  kubewitness \
                  replay --format html -o report.html logs/ webhook-bodies/\n  kubewitness rules \
                  list\n  kubewitness demo"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replay audit logs: real logs in, alerts out
    Replay(Box<replay::ReplayArgs>),
    /// Replay the sample of real audit logs that this binary carries
    Demo(demo::DemoArgs),
    /// Work with detection rules
    #[command(subcommand)]
    Rules(rules::Rules),
    /// Receive events, find attacks, ship alerts and events
    Run(run::RunArgs),
    /// Look whether `run` would work, without changing anything
    Check(check::CheckArgs),
    /// Look into a spool
    #[command(subcommand)]
    Spool(spool::Spool),
    /// Ask an API server of yours what it tells strangers, and whether the audit trail shows it
    Probe(probe::ProbeArgs),
    /// Make certificates and keys
    #[command(subcommand)]
    Certs(certs::Certs),
    /// Verify an archive: every byte proven, or what is missing or changed
    Verify(Box<verify::VerifyArgs>),
    /// Prove one event of an archive with two small files
    Prove(prove::ProveArgs),
    /// Cosign the checkpoints of other installations' archives
    Witness(witness::WitnessArgs),
    /// Make keys, append to and read archives
    #[command(subcommand)]
    Archive(archive::Archive),
}

/// Says something to a person. Names of files and what stands in them are anybody's: they steer no
/// terminal. Whoever closed standard error does not want to know.
pub(crate) fn say(message: &str) {
    let lines: Vec<_> = message.lines().map(visible).collect();
    let _ = writeln!(std::io::stderr(), "kubewitness: {}", lines.join("\n"));
}

/// Writes a line of results.
pub(crate) fn print(line: &str) -> Result<(), Error> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    crate::tls::install();
    let done = match cli.command {
        Command::Replay(args) => replay::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Rules(command) => rules::run(command),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Spool(command) => spool::run(command),
        Command::Probe(args) => probe::run(&args),
        Command::Certs(command) => certs::run(command),
        Command::Verify(args) => verify::run(&args),
        Command::Prove(args) => prove::run(&args),
        Command::Witness(args) => witness::run(&args),
        Command::Archive(command) => archive::run(command),
    };
    match done {
        Ok(Done::Fine) => ExitCode::SUCCESS,
        Ok(Done::Failed) => ExitCode::from(1),
        Ok(Done::Alarm) => ExitCode::from(3),
        Ok(Done::Verdict(code)) => ExitCode::from(code),
        Err(Error::Failed(message)) => {
            say(&message);
            ExitCode::from(1)
        }
        Err(Error::Unread) => ExitCode::from(1),
        Err(Error::Input(message)) => {
            say(&message);
            ExitCode::from(2)
        }
    }
}
