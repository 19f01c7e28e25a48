//! What an operator says about a log to follow, and what of it makes no sense.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ingest::log::Error;
use crate::ingest::log::family::name_of;
use crate::ingest::log::name::{LogName, live_name};
use crate::units::Span;

/// Files that the log backend, a container runtime or anything else writes audit events to, line by
/// line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The source's name in records, metrics and logs; positions are kept under it, so a source
    /// that is renamed starts anew. Default `log`.
    #[serde(default = "name")]
    pub name: String,
    /// The file that is being written, or a pattern (`*`, `?`, `[…]`, `**`), or a list of these.
    /// Rotated siblings beside it are found by their names and need not be matched.
    pub path: Paths,
    /// The cluster that the events are of. Default: the configuration's.
    #[serde(default)]
    pub cluster: Option<String>,
    /// What is read of files that are there when the source starts for the first time: all
    /// (`beginning`) or nothing (`end`). Default `beginning`.
    #[serde(default)]
    pub start: Start,
    /// How often files are looked at, whatever the system tells of changes. Default `250ms`.
    #[serde(default = "poll_interval")]
    pub poll_interval: Span,
    /// How often patterns are looked through for new files. Default `5s`.
    #[serde(default = "discover_interval")]
    pub discover_interval: Span,
    /// A notice is raised when nothing is written for so long. Default: absent, never.
    #[serde(default)]
    pub silent_after: Option<Span>,
}

/// A path, or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "a path, a pattern, or a list of them")]
pub enum Paths {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

/// Where reading starts when nothing is known of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With everything that is there.
    #[default]
    Beginning,
    /// Behind everything that is there.
    End,
}

impl Paths {
    /// The paths and patterns.
    pub fn patterns(&self) -> &[String] {
        match self {
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }
}

impl Config {
    /// The defaults, for this path or pattern.
    pub fn new(path: &str) -> Config {
        Config {
            name: name(),
            path: Paths::One(path.to_owned()),
            cluster: None,
            start: Start::default(),
            poll_interval: poll_interval(),
            discover_interval: discover_interval(),
            silent_after: None,
        }
    }

    /// Whether the source would read this file: a sink must not write what a source reads.
    pub fn reads(&self, path: &Path) -> bool {
        self.path.patterns().iter().any(|pattern| {
            let own = Path::new(pattern);
            let is_sibling = own.parent() == path.parent()
                && LogName::parse(&name_of(own), &name_of(path)).is_some();
            let live = path.with_file_name(live_name(&name_of(path)));
            let is_match = glob::Pattern::new(pattern)
                .is_ok_and(|pattern| pattern.matches_path(path) || pattern.matches_path(&live));
            is_sibling || is_match
        })
    }

    /// Says what makes no sense. Looks at no file.
    ///
    /// # Errors
    /// The first thing that is wrong, and what to write instead.
    pub fn check(&self) -> Result<(), Error> {
        let problem = |problem: String| Err(Error::Config { name: self.name.clone(), problem });
        if self.name.is_empty() {
            return problem("name is empty; leave it out or give one".to_owned());
        }
        if self.path.patterns().is_empty() {
            return problem("path is empty; name the file of --audit-log-path".to_owned());
        }
        for path in self.path.patterns() {
            if path == "-" || !Path::new(path).is_absolute() {
                return problem(format!("path {path:?} is not absolute; write it from / on"));
            }
            if path.ends_with('/') || name_of(Path::new(path)).is_empty() {
                return problem(format!("path {path:?} names no file; use {path}*.log"));
            }
            if let Err(error) = glob::Pattern::new(path) {
                return problem(format!("path {path:?}: {}", error.msg));
            }
        }
        for (key, span) in [
            ("poll_interval", Some(self.poll_interval)),
            ("discover_interval", Some(self.discover_interval)),
            ("silent_after", self.silent_after),
        ] {
            if span.is_some_and(|span| span.0.is_zero()) {
                return problem(format!("{key} is 0; write a span such as 1s"));
            }
        }
        Ok(())
    }
}

fn name() -> String {
    "log".to_owned()
}

fn poll_interval() -> Span {
    Span::from_millis(250)
}

fn discover_interval() -> Span {
    Span::from_secs(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_shortest_form() {
        let text = r#"{"path":"/var/log/kubernetes/audit/audit.log"}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config, Config::new("/var/log/kubernetes/audit/audit.log"));
        config.check().unwrap();
        let text = r#"{"path":["/a/x.log","/b/*.log"],"start":"end","silent_after":"5m"}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.path.patterns().len(), 2);
        assert_eq!(config.start, Start::End);
    }

    #[test]
    fn says_what_makes_no_sense() {
        for (text, expected) in [
            (r#"{"path":"audit.log"}"#, "not absolute"),
            (r#"{"path":"-"}"#, "not absolute"),
            (r#"{"path":[]}"#, "path is empty"),
            (r#"{"path":"/var/log/"}"#, "names no file"),
            (r#"{"path":"/var/log/a[.log"}"#, "/var/log/a[.log"),
            (r#"{"path":"/a.log","poll_interval":"0"}"#, "poll_interval is 0"),
            (r#"{"path":"/a.log","name":""}"#, "name is empty"),
        ] {
            let config: Config = serde_json::from_str(text).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(serde_json::from_str::<Config>(r#"{"path":"/a","paths":1}"#).is_err());
    }

    #[test]
    fn knows_what_it_reads() {
        for (own, path, expected) in [
            ("/l/audit.log", "/l/audit.log", true),
            ("/l/audit.log", "/l/audit-2026-03-03T14-28-05.286.log.gz", true),
            ("/l/audit.log", "/l/alerts.jsonl", false),
            ("/l/audit.log", "/m/audit.log", false),
            ("/l/*.log", "/l/alerts.log", true),
            ("/l/*.log", "/l/alerts.jsonl", false),
        ] {
            assert_eq!(Config::new(own).reads(Path::new(path)), expected, "{own} {path}");
        }
    }
}
