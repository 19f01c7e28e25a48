//! Starts tracing (text or JSON, to standard error) and owns the process-wide metrics registry.
//!
//! Everything that is logged or counted may be read by people who must not see an event's contents,
//! so fields of log lines and labels of metrics name sources, sinks, rules, files and reasons, and
//! never a user, a namespace, an address or a value.

pub mod metrics;

use std::io::IsTerminal as _;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// An error with its causes, but for those that it has told itself.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let told = inner.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = inner.source();
    }
    text
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The shape of a line: `text` or `json`.
    pub format: Format,
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`) or directives such as
    /// `info,kubewitness::sinks=debug`.
    pub filter: String,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people: time, level, where, message, fields.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Config {
        Config { format: Format::Text, filter: "info".to_owned() }
    }
}

/// Tracing could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is none.
    #[error("log.filter {filter:?} is no level and no list of directives (info,module=debug)")]
    Filter {
        /// As written.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Something else in this process started it.
    #[error("tracing runs already")]
    Running,
}

impl Config {
    /// Refuses a filter that cannot be read.
    ///
    /// # Errors
    /// [`Error::Filter`].
    pub fn check(&self) -> Result<(), Error> {
        self.directives().map(drop)
    }

    fn directives(&self) -> Result<EnvFilter, Error> {
        EnvFilter::builder()
            .parse(&self.filter)
            .map_err(|source| Error::Filter { filter: self.filter.clone(), source })
    }
}

/// Starts logging to standard error, for the whole process.
///
/// # Errors
/// [`Error`]: a wrong filter, or a second start.
pub fn start(config: &Config) -> Result<(), Error> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(config.directives()?)
        .with_writer(std::io::stderr)
        // It would be told on standard error, where it just failed.
        .log_internal_errors(false)
        .with_ansi(is_coloured());
    let started = match config.format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|_| Error::Running)
}

/// Colour only for a terminal that wants it.
fn is_coloured() -> bool {
    let is_unwelcome = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !is_unwelcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_named() {
        let check = |filter: &str| {
            let config = Config { filter: filter.to_owned(), ..Config::default() };
            config.check().map_err(|error| error.to_string())
        };
        assert_eq!(check("info,kubewitness::sinks=debug"), Ok(()));
        let refused = check("kubewitness=loud").unwrap_err();
        assert!(refused.starts_with("log.filter \"kubewitness=loud\" is no level"), "{refused}");
    }
}
