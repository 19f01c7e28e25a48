//! From the configuration's `rules:` to a compiled engine, and to the same one again on a reload.

use std::collections::HashSet;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use rustc_hash::FxHasher;

use crate::config::Rules;
use crate::engine::Engine;
use crate::engine::field::Shape;
use crate::rule::definition;
use crate::rule::load::{DEFINITIONS_FILE, Options, PLACEHOLDERS_FILE, load_paths};
use crate::rule::pack;
use crate::rule::placeholder::Placeholders;
use crate::rule::problem::{Fault, Problem};
use crate::rule::shipped;
use crate::rule::{Body, RuleSet};
use crate::telemetry::chain;

/// Why rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Problems in the rules, by file and line.
    #[error("{}", listed(.0))]
    Problems(Vec<Problem>),
    /// A list of placeholders or a definition cannot be read.
    #[error("{0}")]
    Placeholders(String),
    /// Nothing is left to match.
    #[error(
        "no rule to match: name files or directories with Sigma rules (*.yml), or a larger pack"
    )]
    Empty,
    /// Rules that cannot be compiled.
    #[error("{0}")]
    Compile(String),
}

impl Error {
    /// The error in one line: of several problems the first.
    pub fn brief(&self) -> String {
        match self {
            Error::Problems(problems) if !problems.is_empty() => problems[0].to_string(),
            error => error.to_string(),
        }
    }
}

/// Rules that were loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The rules of the pack.
    pub rules: RuleSet,
    /// Rules about other logs than Kubernetes audit, which were left out.
    pub left_out: usize,
}

impl Rules {
    /// Loads the rules. Blocks.
    ///
    /// # Errors
    /// [`Error`] with every problem, by file and line.
    pub fn load(&self, placeholder_files: &[PathBuf]) -> Result<Loaded, Error> {
        let options = Options { placeholders: self.lists(placeholder_files)?, taxonomy: true };
        let loaded = match (self.paths.as_slice(), self.filters.as_slice()) {
            ([], []) => shipped::load(&options),
            ([], filters) => shipped::load_with_filters(filters, &options),
            (paths, filters) => load_paths(paths, filters, &options),
        };
        let (rules, left_out) = for_audit_events(loaded.map_err(Error::Problems)?);
        let rules = pack::select(rules, self.pack);
        if rules.rules.is_empty() {
            return Err(Error::Empty);
        }
        Ok(Loaded { rules, left_out })
    }

    /// The shipped lists and definitions, and what the site says in their place.
    fn lists(&self, placeholder_files: &[PathBuf]) -> Result<Placeholders, Error> {
        let shipped = |file: &str, fault: Fault| faulty(Path::new(file), &fault);
        let beside = |name: &str| {
            let paths = self.paths.iter().map(|path| path.join(name));
            paths.filter(|path| path.is_file()).collect::<Vec<_>>()
        };
        let mut lists =
            shipped::placeholders().map_err(|fault| shipped(PLACEHOLDERS_FILE, fault))?;
        for path in beside(PLACEHOLDERS_FILE).iter().chain(placeholder_files) {
            let read = Placeholders::read(&text_of(path)?);
            lists.replace(read.map_err(|fault| faulty(path, &fault))?);
        }
        for (name, values) in &self.placeholders {
            lists.set(name, values.clone());
        }
        shipped::define(&mut lists).map_err(|fault| shipped(DEFINITIONS_FILE, fault))?;
        for path in beside(DEFINITIONS_FILE) {
            let read = definition::read(&text_of(&path)?, &mut lists);
            read.map_err(|fault| faulty(&path, &fault))?;
        }
        Ok(lists)
    }

    /// A number that changes with the files that the rules are read from: their names, sizes and
    /// times, through symbolic links. Blocks.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = FxHasher::default();
        self.paths.iter().chain(&self.filters).for_each(|path| fingerprint(path, 0, &mut hasher));
        hasher.finish()
    }

    /// Loads and compiles the rules for audit events. Blocks.
    ///
    /// # Errors
    /// As [`Rules::load`], and rules that cannot be compiled.
    pub fn compile(&self, proxies: &[IpNet]) -> Result<Arc<Engine>, Error> {
        compile(self.load(&[])?.rules, proxies)
    }
}

/// How deep directories are looked through for changes.
const DEPTH_MAX: usize = 16;

fn fingerprint(path: &Path, depth: usize, hasher: &mut FxHasher) {
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if !metadata.is_dir() {
        path.hash(hasher);
        (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino()).hash(hasher);
        return;
    }
    let Ok(entries) = std::fs::read_dir(path) else { return };
    let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    inside.sort();
    if depth < DEPTH_MAX {
        inside.iter().for_each(|path| fingerprint(path, depth + 1, hasher));
    }
}

/// Compiles rules for audit events.
///
/// # Errors
/// [`Error::Compile`].
pub fn compile(rules: RuleSet, proxies: &[IpNet]) -> Result<Arc<Engine>, Error> {
    let engine = Engine::compile(rules, Shape::Audit, proxies);
    engine.map(Arc::new).map_err(|error| Error::Compile(chain(&error)))
}

/// Leaves out rules about other logs, which a team's folder may hold beside those for Kubernetes,
/// and correlations that rest on them; says how many.
fn for_audit_events(mut rules: RuleSet) -> (RuleSet, usize) {
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
    (rules, left_out)
}

fn text_of(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::Placeholders(format!("{}: cannot be read: {error}", path.display()))
    })
}

fn faulty(path: &Path, fault: &Fault) -> Error {
    let Fault { line, message } = fault;
    Error::Placeholders(format!("{}:{line}: {message}", path.display()))
}

/// Problems, one a line.
pub fn listed(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let plural = if problems.len() == 1 { "" } else { "s" };
    format!("{} problem{plural} in the rules:\n{}", problems.len(), lines.join("\n"))
}
