//! Rules for a command: the shipped ones, or those named on the command line.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ipnet::IpNet;

use crate::cli::{Error, say};
use crate::config::Rules;
use crate::config::rules::compile;
use crate::engine::Engine;
use crate::report::summary::counted;
use crate::rule::RuleSet;
use crate::rule::pack::Pack;

/// Which rules a command works with.
#[derive(Debug, Default, Clone, Args)]
pub struct RuleArgs {
    /// A Sigma rule, or a directory of them (repeatable); the shipped rules when absent
    #[arg(long = "rules", value_name = "PATH")]
    pub rules: Vec<PathBuf>,
    /// A Sigma filter, or a directory of them, applied to the rules (repeatable)
    #[arg(long = "filters", value_name = "PATH")]
    pub filters: Vec<PathBuf>,
    /// How much of the rules: minimal, standard, or paranoid (everything)
    #[arg(long, value_enum, default_value = "standard")]
    pub pack: Pack,
    /// A YAML file that replaces lists of placeholders.yml
    #[arg(long, value_name = "FILE")]
    pub placeholders: Option<PathBuf>,
}

impl RuleArgs {
    /// Loads the rules.
    ///
    /// # Errors
    /// [`Error::Input`] with every problem, by file and line.
    pub fn load(&self) -> Result<RuleSet, Error> {
        let rules = Rules {
            paths: self.rules.clone(),
            filters: self.filters.clone(),
            pack: self.pack,
            ..Rules::default()
        };
        let files: Vec<PathBuf> = self.placeholders.iter().cloned().collect();
        let loaded = rules.load(&files).map_err(|error| Error::Input(error.to_string()))?;
        if loaded.left_out > 0 {
            let what = counted(loaded.left_out as u64, "rule");
            say(&format!("{what} about other logs than Kubernetes audit left out"));
        }
        Ok(loaded.rules)
    }

    /// Loads and compiles the rules for audit events.
    ///
    /// # Errors
    /// As [`RuleArgs::load`], and rules that cannot be compiled.
    pub fn compile(&self, proxies: &[IpNet]) -> Result<Arc<Engine>, Error> {
        compile(self.load()?, proxies).map_err(|error| Error::Input(error.to_string()))
    }
}
