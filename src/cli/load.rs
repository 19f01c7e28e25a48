//! Rules for a command: the shipped ones, or those named on the command line.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use ipnet::IpNet;

use crate::cli::Error;
use crate::engine::Engine;
use crate::engine::field::Shape;
use crate::rule::load::{Options, PLACEHOLDERS_FILE, load_paths};
use crate::rule::pack::{self, Pack};
use crate::rule::placeholder::Placeholders;
use crate::rule::problem::Problem;
use crate::rule::shipped;
use crate::rule::{Body, RuleSet};

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
        let mut placeholders = shipped::placeholders()
            .map_err(|fault| Error::Input(format!("{PLACEHOLDERS_FILE}: {}", fault.message)))?;
        let beside = self.rules.iter().map(|path| path.join(PLACEHOLDERS_FILE));
        let named = self.placeholders.iter().cloned();
        for path in beside.filter(|path| path.is_file()).chain(named) {
            placeholders.replace(read_placeholders(&path)?);
        }
        let options = Options { placeholders, taxonomy: true };
        let loaded = if self.rules.is_empty() && self.filters.is_empty() {
            shipped::load(&options)
        } else if self.rules.is_empty() {
            shipped::load_with_filters(&self.filters, &options)
        } else {
            load_paths(&self.rules, &self.filters, &options)
        };
        let rules = loaded.map_err(|problems| Error::Input(listed(&problems)))?;
        let rules = pack::select(for_audit_events(rules), self.pack);
        if rules.rules.is_empty() {
            let remedy = "name files or directories with Sigma rules (*.yml), or a larger --pack";
            return Err(Error::Input(format!("no rule to match: {remedy}")));
        }
        Ok(rules)
    }

    /// Loads and compiles the rules for audit events.
    ///
    /// # Errors
    /// As [`RuleArgs::load`], and rules that cannot be compiled.
    pub fn compile(&self, proxies: &[IpNet]) -> Result<Arc<Engine>, Error> {
        let engine = Engine::compile(self.load()?, Shape::Audit, proxies);
        engine.map(Arc::new).map_err(|error| Error::Input(chain(&error)))
    }
}

/// Leaves out rules about other logs, which a team's folder may hold beside those for Kubernetes,
/// and correlations that rest on them.
fn for_audit_events(mut rules: RuleSet) -> RuleSet {
    let before = rules.rules.len();
    rules.rules.retain(|rule| match rule.body {
        Body::Correlation(_) => true,
        Body::Detection(_) => rule.logsource.is_kubernetes_audit(),
    });
    loop {
        let known: HashSet<_> = rules.rules.iter().map(|rule| rule.id.clone()).collect();
        rules.rules.retain(|rule| match &rule.body {
            Body::Correlation(correlation) => correlation.rules.iter().all(|id| known.contains(id)),
            Body::Detection(_) => true,
        });
        if rules.rules.len() == known.len() {
            break;
        }
    }
    let left_out = before - rules.rules.len();
    if left_out > 0 {
        let what = counted(left_out, "rule");
        eprintln!("kubewitness: {what} about other logs than Kubernetes audit left out");
    }
    rules
}

fn read_placeholders(path: &Path) -> Result<Placeholders, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::Input(format!("{}: cannot be read: {error}", path.display())))?;
    Placeholders::read(&text).map_err(|fault| {
        Error::Input(format!("{}:{}: {}", path.display(), fault.line, fault.message))
    })
}

/// Problems, one a line.
pub fn listed(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    format!("{} in the rules:\n{}", counted(problems.len(), "problem"), lines.join("\n"))
}

/// `1 problem`, `2 problems`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
