//! `kubewitness demo`: a sample of real audit logs, with attacks in it, that the binary carries.

use clap::Args;

use crate::cli::load::RuleArgs;
use crate::cli::replay::{OutputArgs, replay};
use crate::cli::{Done, Error};
use crate::ingest::discover::Discovery;
use crate::ingest::sample;
use crate::replay::Options;

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubewitness demo
  kubewitness demo --level high
  kubewitness demo --format html -o report.html")]
pub struct DemoArgs {
    /// Which rules
    #[command(flatten)]
    pub rules: RuleArgs,
    /// What to print and where
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Replays the sample.
///
/// # Errors
/// Wrong rules, a destination that cannot be written.
pub fn run(args: &DemoArgs) -> Result<Done, Error> {
    let engine = args.rules.compile(&[])?;
    let discovery = Discovery { files: vec![sample::file()], ..Discovery::default() };
    let options = Options { threads: 1, cluster: Some("demo".to_owned()), ..Options::default() };
    replay(&engine, discovery, options, None, &args.output)
}
