//! `kubewitness demo`: a sample of real audit logs, with attacks in it, that the binary carries.

use std::io::Cursor;
use std::path::PathBuf;

use clap::Args;

use crate::cli::load::RuleArgs;
use crate::cli::replay::{OutputArgs, replay};
use crate::cli::{Done, Error};
use crate::ingest::discover::{Discovery, LogFile};
use crate::ingest::marker::Form;
use crate::replay::Options;

/// Recorded from a real kube-apiserver; tests/corpus/README.md says how it was made.
const SAMPLE: &[u8] = include_bytes!("../../tests/corpus/sample.log.gz");

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
    let name = PathBuf::from("sample.log.gz");
    let plain = crate::ingest::compress::open(Box::new(Cursor::new(SAMPLE)));
    let sample = LogFile::from_stream(name, Form::Lines, plain);
    let discovery = Discovery { files: vec![sample], ..Discovery::default() };
    let options = Options { threads: 1, cluster: Some("demo".to_owned()), ..Options::default() };
    replay(&engine, discovery, options, None, &args.output)
}
