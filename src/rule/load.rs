//! Files and texts to a [`RuleSet`]: everything that needs more than one document.
//!
//! References are resolved, filters folded in, field names mapped when asked, and rules sorted by
//! id, so that nothing depends on the order of files. All problems are reported, not only the
//! first.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::rule::correlation::{Draft, Referent};
use crate::rule::filter::Filter;
use crate::rule::keys;
use crate::rule::parse::{self, Document};
use crate::rule::placeholder::Placeholders;
use crate::rule::problem::{Problem, did_you_mean};
use crate::rule::taxonomy;
use crate::rule::{Body, Rule, RuleSet};

/// The most correlations that may stand on one another.
pub const CHAIN_MAX: usize = 16;

/// How deep directories of rules may nest; a loop of symbolic links ends here.
pub const DIRECTORY_DEPTH_MAX: usize = 16;

/// How documents are read.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The lists for `expand`, and the fields that are defined.
    pub placeholders: Placeholders,
    /// Whether bare field names (`apiGroup`, `hostPath`) of Kubernetes audit rules are mapped to
    /// audit paths. Wanted for audit events; not for arbitrary JSON.
    pub taxonomy: bool,
}

/// The file in a directory of rules that holds placeholders and no rules.
pub const PLACEHOLDERS_FILE: &str = "placeholders.yml";
/// The file in a directory of rules that defines fields and holds no rules.
pub const DEFINITIONS_FILE: &str = "definitions.yml";
/// The directory below a directory of rules whose filters are examples, read only when named.
pub const FILTERS_DIRECTORY: &str = "filters";

/// Loads rules, correlations and filters from texts; the path of each is used in messages only.
///
/// # Errors
/// Every problem, by file and line.
pub fn load_texts(texts: &[(PathBuf, String)], options: &Options) -> Result<RuleSet, Vec<Problem>> {
    let mut loading = Loading::default();
    for (path, text) in texts {
        loading.read(path, text, &options.placeholders);
    }
    loading.finish(options)
}

/// Loads rules from files and, recursively, from the `*.yml` and `*.yaml` files of directories, and
/// filters from `filters`. In a directory, [`PLACEHOLDERS_FILE`], [`DEFINITIONS_FILE`] and
/// [`FILTERS_DIRECTORY`] are passed over unless they are named themselves.
///
/// # Errors
/// Every problem, by file and line; a file that cannot be read is one.
pub fn load_paths(
    paths: &[PathBuf],
    filters: &[PathBuf],
    options: &Options,
) -> Result<RuleSet, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut texts = Vec::new();
    for path in paths.iter().chain(filters) {
        match read_path(path) {
            Ok(more) => texts.extend(more),
            Err(problem) => problems.push(problem),
        }
    }
    texts.sort();
    texts.dedup();
    match load_texts(&texts, options) {
        Ok(rules) if problems.is_empty() => Ok(rules),
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more);
            problems.sort();
            Err(problems)
        }
    }
}

/// Reads a file, or every rule file below a directory, with its text.
///
/// # Errors
/// The file that cannot be read, and why.
pub fn read_path(path: &Path) -> Result<Vec<(PathBuf, String)>, Problem> {
    let mut files = Vec::new();
    collect(path, 0, &mut files)?;
    files.sort();
    let read = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) => Err(unreadable(&path, &error)),
    };
    files.into_iter().map(read).collect()
}

fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Problem> {
    let is_named = depth == 0;
    if depth > DIRECTORY_DEPTH_MAX {
        let message = format!("directories nest deeper than {DIRECTORY_DEPTH_MAX}");
        return Err(Problem { path: path.to_owned(), line: 1, message });
    }
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if metadata.is_dir() {
        if !is_named && (name == FILTERS_DIRECTORY || name.starts_with('.')) {
            return Ok(());
        }
        for entry in std::fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
            let entry = entry.map_err(|error| unreadable(path, &error))?;
            collect(&entry.path(), depth + 1, files)?;
        }
        return Ok(());
    }
    let is_rule = (name.ends_with(".yml") || name.ends_with(".yaml"))
        && name != PLACEHOLDERS_FILE
        && name != DEFINITIONS_FILE
        && !name.starts_with('.');
    if is_named || is_rule {
        files.push(path.to_owned());
    }
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem { path: path.to_owned(), line: 1, message: format!("cannot be read: {error}") }
}

#[derive(Default)]
struct Loading {
    rules: Vec<Rule>,
    drafts: Vec<(Rule, Draft)>,
    filters: Vec<Filter>,
    problems: Vec<Problem>,
}

impl Loading {
    fn read(&mut self, path: &Path, text: &str, placeholders: &Placeholders) {
        let path = Arc::new(path.to_owned());
        match parse::documents(&path, text, placeholders) {
            Ok(documents) => {
                for document in documents {
                    match document {
                        Document::Rule(rule) => self.rules.push(rule),
                        Document::Correlation(rule, draft) => self.drafts.push((rule, draft)),
                        Document::Filter(filter) => self.filters.push(filter),
                    }
                }
            }
            Err(faults) => self.problems.extend(faults.into_iter().map(|fault| Problem {
                path: path.to_path_buf(),
                line: fault.line,
                message: fault.message,
            })),
        }
    }

    fn problem(&mut self, rule: &Rule, line: usize, message: String) {
        self.problems.push(Problem { path: rule.origin.path.to_path_buf(), line, message });
    }

    fn finish(mut self, options: &Options) -> Result<RuleSet, Vec<Problem>> {
        self.check_unique();
        for filter in &self.filters {
            self.rules.iter_mut().for_each(|rule| filter.apply(rule));
        }
        self.resolve();
        self.check_cycles();
        if options.taxonomy {
            self.rules.iter_mut().for_each(taxonomy::apply);
        }
        if !self.problems.is_empty() {
            self.problems.sort();
            return Err(self.problems);
        }
        set_alerts(&mut self.rules);
        self.rules.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(RuleSet { rules: self.rules })
    }

    /// Ids and names are unique, and no name is the id of another rule.
    fn check_unique(&mut self) {
        let mut seen: HashMap<String, String> = HashMap::new();
        let mut found = Vec::new();
        for rule in self.rules.iter().chain(self.drafts.iter().map(|(rule, _)| rule)) {
            let id = ("id", rule.id.to_string());
            let name =
                rule.name.clone().filter(|name| **name != *rule.id).map(|name| ("name", name));
            for (what, word) in std::iter::once(id).chain(name) {
                let message = match seen.get(&word) {
                    Some(first) => format!("duplicate {what} {word:?}; it is also at {first}"),
                    None => {
                        seen.insert(word, rule.origin.to_string());
                        continue;
                    }
                };
                let path = rule.origin.path.to_path_buf();
                found.push(Problem { path, line: rule.origin.line, message });
            }
        }
        self.problems.extend(found);
    }

    /// Turns drafts into correlations.
    fn resolve(&mut self) {
        let drafts = std::mem::take(&mut self.drafts);
        let mut referents: HashMap<String, Referent> = HashMap::new();
        let all = self.rules.iter().chain(drafts.iter().map(|(rule, _)| rule));
        for rule in all {
            let referent = Referent { id: Arc::clone(&rule.id), name: rule.name.clone() };
            for key in rule.name.iter().cloned().chain([rule.id.to_string()]) {
                referents.insert(key, referent.clone());
            }
        }
        let find = |reference: &str| {
            referents.get(reference).or_else(|| referents.get(&keys::normal_id(reference)))
        };
        let known = |reference: &str| did_you_mean(reference, referents.keys().map(String::as_str));
        for (mut rule, draft) in drafts {
            match draft.resolve(find, known) {
                Ok(correlation) => {
                    rule.body = Body::Correlation(correlation);
                    self.rules.push(rule);
                }
                Err(fault) => self.problem(&rule, fault.line, fault.message),
            }
        }
    }

    /// A correlation that refers to itself, also through others, is a problem; so is one to which
    /// too many ways lead.
    fn check_cycles(&mut self) {
        let mut references: BTreeMap<Arc<str>, &[Arc<str>]> = BTreeMap::new();
        for rule in &self.rules {
            if let Body::Correlation(correlation) = &rule.body {
                references.insert(Arc::clone(&rule.id), &correlation.rules);
            }
        }
        // A match goes every way from its rule up to a correlation: over layers of correlations the
        // ways multiply.
        let mut ways: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        // Take away what depends on nothing that is left; a cycle, or too long a chain, remains.
        for _ in 0..CHAIN_MAX {
            let free: Vec<Arc<str>> = references
                .iter()
                .filter(|(_, rules)| rules.iter().all(|rule| !references.contains_key(rule)))
                .map(|(id, _)| Arc::clone(id))
                .collect();
            for id in free {
                let below = references.remove(&id).unwrap_or_default();
                let ways_to = |rule: &Arc<str>| ways.get(rule).copied().unwrap_or(1);
                let sum = below.iter().map(ways_to).fold(0, usize::saturating_add);
                ways.insert(id, sum);
            }
        }
        let problem = |rule: &Rule| {
            let message = if references.contains_key(&rule.id) {
                format!(
                    "the correlation refers to itself through others, or stands on a chain of more \
                     than {CHAIN_MAX} correlations"
                )
            } else if ways.get(&rule.id).is_some_and(|ways| *ways > WAYS_MAX) {
                format!(
                    "more than {WAYS_MAX} ways lead to this correlation through others; refer to \
                     fewer"
                )
            } else {
                return None;
            };
            let (path, line) = (rule.origin.path.to_path_buf(), rule.origin.line);
            Some(Problem { path, line, message })
        };
        let found: Vec<Problem> = self.rules.iter().filter_map(problem).collect();
        self.problems.extend(found);
    }
}

/// The most ways from rules to one correlation.
const WAYS_MAX: usize = 10_000;

/// A base rule alerts by itself only when a correlation over it says `generate: true`.
fn set_alerts(rules: &mut [Rule]) {
    let mut is_base: HashMap<Arc<str>, bool> = HashMap::new();
    for rule in rules.iter() {
        if let Body::Correlation(correlation) = &rule.body {
            for base in &correlation.rules {
                *is_base.entry(Arc::clone(base)).or_default() |= correlation.generate;
            }
        }
    }
    for rule in rules {
        rule.alerts = is_base.get(&rule.id).copied().unwrap_or(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str) -> String {
        let detection = "detection: {s: {a: 1}, condition: s}";
        format!("title: {id}\nid: {id}\nlogsource: {{product: p}}\n{detection}")
    }

    #[test]
    fn ways_through_correlations_must_not_multiply() {
        for (layers, is_refused) in [(8, false), (9, true)] {
            let mut text = ["a0", "b0", "c0"].map(rule).join("\n---\n");
            for layer in 1..=layers {
                let below = ["a", "b", "c"].map(|name| format!("{name}{}", layer - 1)).join(", ");
                for name in ["a", "b", "c"] {
                    text += &format!(
                        "\n---\ntitle: {name}\nid: {name}{layer}\ncorrelation: {{type: temporal, \
                         rules: [{below}], timespan: 1m}}"
                    );
                }
            }
            let loaded = load_texts(&[("r.yml".into(), text)], &Options::default());
            let problems = loaded.err().unwrap_or_default();
            let is_told = |problem: &Problem| problem.message.contains("ways lead to");
            assert_eq!(problems.iter().any(is_told), is_refused, "{layers}: {problems:?}");
        }
    }

    #[test]
    fn directories_are_read_without_placeholders_filters_and_hidden_files() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("b/two.yaml", &rule("two"));
        write("a/one.yml", &rule("one"));
        write("a/one.events.jsonl", "{}");
        write("placeholders.yml", "list: []");
        write("definitions.yml", "field: f");
        write("filters/site.yml", "title: f");
        write(".hidden/three.yml", "title: t");
        let paths = [directory.path().to_owned()];
        let rules = load_paths(&paths, &[], &Options::default()).unwrap();
        let ids: Vec<&str> = rules.rules.iter().map(|rule| &*rule.id).collect();
        assert_eq!(ids, ["one", "two"]);
        let filters = [directory.path().join("filters")];
        let problems = load_paths(&paths, &filters, &Options::default()).unwrap_err();
        assert_eq!(problems.len(), 1, "a filter that is named is read: {problems:?}");
    }

    #[test]
    fn what_cannot_be_read_is_a_problem() {
        let paths = [PathBuf::from("no/such/rule.yml")];
        let problems = load_paths(&paths, &[], &Options::default()).unwrap_err();
        assert!(problems[0].to_string().starts_with("no/such/rule.yml:1: cannot be read"));
    }
}
