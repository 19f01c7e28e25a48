//! The rules that the binary carries: everything below `detections/`, example filters aside.

use std::path::PathBuf;

use crate::rule::RuleSet;
use crate::rule::definition;
use crate::rule::load::{
    DEFINITIONS_FILE, FILTERS_DIRECTORY, Options, PLACEHOLDERS_FILE, load_texts,
};
use crate::rule::placeholder::Placeholders;
use crate::rule::problem::{Fault, Problem};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/detections.rs"));
}

/// What the path of a shipped rule starts with in messages.
const PREFIX: &str = "embedded:";

/// The shipped rules' texts by path, without placeholders, definitions and example filters.
pub fn texts() -> Vec<(PathBuf, String)> {
    let is_rule = |path: &str| {
        !path.ends_with(PLACEHOLDERS_FILE)
            && !path.ends_with(DEFINITIONS_FILE)
            && !path.contains(&format!("/{FILTERS_DIRECTORY}/"))
    };
    embedded::FILES
        .iter()
        .filter(|(path, _)| is_rule(path))
        .map(|(path, text)| (PathBuf::from(format!("{PREFIX}{path}")), (*text).to_owned()))
        .collect()
}

/// The shipped lists to tune.
///
/// # Errors
/// The fault in the file; a test reads it, so a released binary has none.
pub fn placeholders() -> Result<Placeholders, Fault> {
    Placeholders::read(file(PLACEHOLDERS_FILE))
}

/// Adds the shipped definitions, which mean these lists.
///
/// # Errors
/// A list that a definition needs and that is not there; of the shipped lists none is missing.
pub fn define(lists: &mut Placeholders) -> Result<(), Fault> {
    definition::read(file(DEFINITIONS_FILE), lists)
}

/// How rules about audit events are read, with the shipped lists and definitions.
///
/// # Errors
/// As [`placeholders`] and [`define`].
pub fn options() -> Result<Options, Fault> {
    let mut placeholders = placeholders()?;
    define(&mut placeholders)?;
    Ok(Options { placeholders, taxonomy: true })
}

/// A file at the top of the shipped rules.
fn file(name: &str) -> &'static str {
    let found = embedded::FILES.iter().find(|(path, _)| path.ends_with(&format!("/{name}")));
    found.map_or("", |(_, text)| text)
}

/// The shipped rules.
///
/// # Errors
/// Every problem, by file and line; a test loads them, so a released binary has none.
pub fn load(options: &Options) -> Result<RuleSet, Vec<Problem>> {
    load_texts(&texts(), options)
}

/// The shipped rules with filters from files applied.
///
/// # Errors
/// Every problem, by file and line.
pub fn load_with_filters(filters: &[PathBuf], options: &Options) -> Result<RuleSet, Vec<Problem>> {
    let mut all = texts();
    for path in filters {
        all.extend(crate::rule::load::read_path(path).map_err(|problem| vec![problem])?);
    }
    load_texts(&all, options)
}
