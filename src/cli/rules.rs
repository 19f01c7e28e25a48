//! `kubewitness rules`: list, lint, test, coverage, convert, explain, eval.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;

use crate::cases;
use crate::cli::load::RuleArgs;
use crate::cli::{Done, Error, eval};
use crate::config::rules::listed;
use crate::coverage;
use crate::engine::Engine;
use crate::engine::values::Subject;
use crate::event::decode::{self, Decoded};
use crate::report::escape::visible;
use crate::report::summary::counted;
use crate::rule::Rule;
use crate::rule::lint::lint;
use crate::rule::load::{load_texts, read_path};
use crate::rule::pack::Pack;
use crate::rule::{convert, shipped};
use crate::telemetry::chain;

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub enum Rules {
    /// Print a line a rule: id, level, title
    List {
        /// Which rules
        #[command(flatten)]
        rules: RuleArgs,
    },
    /// Run every rule's own cases (`<rule>.events.jsonl` beside `<rule>.yml`)
    Test {
        /// Rule files or directories
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Also fail on rules without a match or with fewer than two near misses
        #[arg(long)]
        strict: bool,
    },
    /// Advise on rules: unknown fields, rules that can never fire, what they forgot to say
    Lint {
        /// Rule files or directories; the shipped rules when absent
        paths: Vec<PathBuf>,
    },
    /// Print the ATT&CK table, or the page of all rules
    Coverage {
        /// Rule files or directories; the shipped rules when absent
        paths: Vec<PathBuf>,
        /// Print the Markdown page of all rules with their cases instead
        #[arg(long)]
        page: bool,
    },
    /// Print the normal form of rules
    Convert {
        /// Rule files or directories
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Show which part of a rule's condition holds for an event
    Explain {
        /// A rule's id or name, or a rule file
        rule: String,
        /// A file with events in any input form; `-` is standard input
        event: PathBuf,
        /// Which rules
        #[command(flatten)]
        rules: RuleArgs,
    },
    /// Evaluate Sigma documents against any JSON objects, one a line
    Eval {
        /// A rule file or a directory
        rules: PathBuf,
        /// JSON objects, one a line; `-` is standard input
        events: PathBuf,
        /// Read bare field names as the Kubernetes audit fields that SigmaHQ's rules mean
        #[arg(long)]
        taxonomy: bool,
    },
}

/// Runs a subcommand.
///
/// # Errors
/// Wrong rules or files, output that cannot be written.
pub fn run(command: Rules) -> Result<Done, Error> {
    match command {
        Rules::List { rules } => list(&rules),
        Rules::Test { paths, strict } => test(&paths, strict),
        Rules::Lint { paths } => advise(&paths),
        Rules::Coverage { paths, page } => cover(paths, page),
        Rules::Convert { paths } => convert_all(paths),
        Rules::Explain { rule, event, rules } => explain(&rule, &event, rules),
        Rules::Eval { rules, events, taxonomy } => eval::run(&rules, &events, taxonomy),
    }
}

fn list(rules: &RuleArgs) -> Result<Done, Error> {
    let mut out = std::io::stdout().lock();
    for rule in &rules.load()?.rules {
        writeln!(out, "{}\t{}\t{}", rule.id, rule.level.as_str(), rule.title)?;
    }
    Ok(Done::Fine)
}

fn test(paths: &[PathBuf], strict: bool) -> Result<Done, Error> {
    let engine = everything(paths.to_vec()).compile(&[])?;
    let mut files = Vec::new();
    for path in paths {
        let found = read_path(path).map_err(|problem| Error::Input(listed(&[problem])))?;
        files.extend(found.into_iter().map(|(path, _)| path));
    }
    files.sort();
    files.dedup();
    let mut out = std::io::stdout().lock();
    let (mut matches, mut near_misses, mut failures, mut without) = (0, 0, 0, 0);
    for rule_path in &files {
        let path = cases::path_beside(rule_path);
        let Ok(text) = std::fs::read_to_string(&path) else {
            without += 1;
            writeln!(out, "{}: no cases ({} is missing)", rule_path.display(), path.display())?;
            continue;
        };
        let outcome = cases::run(&engine, rule_path, &path, &text);
        for failure in &outcome.failures {
            writeln!(out, "{failure}")?;
        }
        if strict && (outcome.matches < 1 || outcome.near_misses < 2) {
            without += 1;
            writeln!(out, "{}: fewer than one match and two near misses", path.display())?;
        }
        matches += outcome.matches;
        near_misses += outcome.near_misses;
        failures += outcome.failures.len();
    }
    writeln!(
        out,
        "{}: {} and {} as expected, {}, {} without enough cases",
        counted(files.len() as u64, "rule file"),
        counted(matches as u64, "match"),
        counted(near_misses as u64, "near miss"),
        counted(failures as u64, "failure"),
        without,
    )?;
    let is_fine = failures == 0 && (without == 0 || !strict);
    Ok(if is_fine { Done::Fine } else { Done::Failed })
}

fn advise(paths: &[PathBuf]) -> Result<Done, Error> {
    let mut texts = Vec::new();
    for path in paths {
        texts.extend(read_path(path).map_err(|problem| Error::Input(listed(&[problem])))?);
    }
    if paths.is_empty() {
        texts = shipped::texts();
    }
    let options = shipped::options().map_err(|fault| Error::Input(fault.message))?;
    // Rules that do not load are problems, not advice.
    load_texts(&texts, &options).map_err(|problems| Error::Input(listed(&problems)))?;
    let advice = lint(&texts, &options);
    let mut out = std::io::stdout().lock();
    for one in &advice {
        writeln!(out, "{}", visible(&one.to_string()))?;
    }
    writeln!(
        out,
        "{}, {}",
        counted(texts.len() as u64, "file"),
        counted(advice.len() as u64, "remark")
    )?;
    Ok(if advice.is_empty() { Done::Fine } else { Done::Failed })
}

fn everything(paths: Vec<PathBuf>) -> RuleArgs {
    RuleArgs { rules: paths, pack: Pack::Paranoid, ..RuleArgs::default() }
}

fn cover(paths: Vec<PathBuf>, page: bool) -> Result<Done, Error> {
    let rules = everything(paths.clone()).load()?.rules;
    let text = if page {
        let cases = |path: &Path| {
            let text = std::fs::read_to_string(cases::path_beside(path)).unwrap_or_default();
            text.lines().filter(|line| !line.trim().is_empty()).count()
        };
        let name = |path: &Path| {
            let root = paths.iter().find_map(|root| path.strip_prefix(root).ok());
            root.unwrap_or(path).display().to_string()
        };
        coverage::page(&rules, &name, &cases)
    } else {
        coverage::attack_table(&rules)
    };
    write!(std::io::stdout().lock(), "{text}")?;
    Ok(Done::Fine)
}

fn convert_all(paths: Vec<PathBuf>) -> Result<Done, Error> {
    let mut out = std::io::stdout().lock();
    for rule in &everything(paths).load()?.rules {
        for line in convert::rule(rule).lines() {
            writeln!(out, "{}", visible(line))?;
        }
        writeln!(out)?;
    }
    Ok(Done::Fine)
}

fn explain(name: &str, event: &Path, mut rules: RuleArgs) -> Result<Done, Error> {
    if Path::new(name).is_file() {
        rules.rules.push(PathBuf::from(name));
    }
    let engine = rules.compile(&[])?;
    let is_meant = |rule: &Rule| {
        *rule.id == *name
            || rule.name.as_deref() == Some(name)
            || rule.origin.path.as_path() == Path::new(name)
    };
    let positions: Vec<u32> = engine
        .rules()
        .rules
        .iter()
        .filter(|rule| is_meant(rule))
        .filter_map(|rule| engine.position(&rule.id))
        .collect();
    if positions.is_empty() {
        let remedy = "`kubewitness rules list` shows the ids; correlations have no condition";
        return Err(Error::Input(format!("no detection rule {name:?}: {remedy}")));
    }
    let bytes = read_input(event)?;
    let mut printer = Explainer { engine: &engine, positions, events: 0, text: String::new() };
    let mut scratch = decode::Scratch::default();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        decode::decode(line, &mut scratch, &mut |decoded| printer.take(&decoded));
    }
    if printer.events == 0 {
        return Err(Error::Input(format!("{}: holds no audit event", event.display())));
    }
    write!(std::io::stdout().lock(), "{}", printer.text)?;
    Ok(Done::Fine)
}

struct Explainer<'e> {
    engine: &'e Arc<Engine>,
    positions: Vec<u32>,
    events: usize,
    text: String,
}

impl Explainer<'_> {
    fn take(&mut self, decoded: &Decoded<'_>) {
        let Decoded::Event { event, .. } = decoded else { return };
        self.events += 1;
        let mut scratch = self.engine.scratch();
        for position in &self.positions {
            let rule = self.engine.detection(*position);
            let part = self.engine.explain(*position, Subject::Audit(event), &mut scratch);
            self.text.push_str(&format!("event {}: {} ({})\n", self.events, rule.title, rule.id));
            for line in part.lines() {
                self.text.push_str(&visible(line));
                self.text.push('\n');
            }
        }
    }
}

/// Reads a whole small file, or standard input.
pub fn read_input(path: &Path) -> Result<Vec<u8>, Error> {
    let read = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    read.map_err(|error| {
        Error::Input(format!("{}: cannot be read: {}", path.display(), chain(&error)))
    })
}
