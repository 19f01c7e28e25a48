//! Alerts for people and machines to read: table, jsonl, json, csv, html, and the run's summary.
//!
//! Every value of an event may have been chosen by an attacker, so no format passes on what could
//! act on its reader: terminal control sequences and invisible characters ([`escape`]), markup
//! (`html`), formulas (`csv`). Formatters are pure: they write to what they are given, one alert at
//! a time, and hold no alert after `write` returns.

pub mod escape;
pub mod terminal;
pub mod tally;
pub mod summary;
pub mod progress;
mod table;
mod jsonl;
mod json;
mod csv;
mod html;

use std::io::{self, Write};

use crate::alert::Alert;
use crate::report::summary::Summary;
use crate::report::terminal::Terminal;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line an alert for a terminal, cut to its width.
    Table,
    /// One JSON object a line.
    Jsonl,
    /// One JSON array.
    Json,
    /// Comma-separated values with a header, safe to open in a spreadsheet.
    Csv,
    /// One self-contained page.
    Html,
    /// Nothing.
    None,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 6] =
        [Format::Table, Format::Jsonl, Format::Json, Format::Csv, Format::Html, Format::None];

    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Jsonl => "jsonl",
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Html => "html",
            Format::None => "none",
        }
    }

    /// Reads the word on the command line.
    pub fn parse(word: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.as_str() == word)
    }
}

/// Writes alerts in one format as they come. Memory does not grow with their number.
///
/// The destination gets many small writes: hand in a buffered one and flush it afterwards. A report
/// without [`Reporter::finish`] is incomplete.
pub struct Reporter<'w>(Form<'w>);

enum Form<'w> {
    Table(table::Table<'w>),
    Jsonl(jsonl::Jsonl<'w>),
    Json(json::Json<'w>),
    Csv(Box<csv::Csv<'w>>),
    Html(html::Html<'w>),
    None,
}

impl<'w> Reporter<'w> {
    /// Starts a report; `terminal` says how wide and how colourful a table may be.
    ///
    /// Fails when the destination does.
    pub fn new(
        format: Format,
        terminal: Terminal,
        out: &'w mut dyn Write,
    ) -> io::Result<Reporter<'w>> {
        Ok(Reporter(match format {
            Format::Table => Form::Table(table::Table::new(terminal, out)),
            Format::Jsonl => Form::Jsonl(jsonl::Jsonl::new(out)),
            Format::Json => Form::Json(json::Json::new(out)),
            Format::Csv => Form::Csv(Box::new(csv::Csv::new(out)?)),
            Format::Html => Form::Html(html::Html::new(out)?),
            Format::None => Form::None,
        }))
    }

    /// Writes one alert. Fails when the destination does.
    pub fn write(&mut self, alert: &Alert) -> io::Result<()> {
        match &mut self.0 {
            Form::Table(table) => table.write(alert),
            Form::Jsonl(jsonl) => jsonl.write(alert),
            Form::Json(json) => json.write(alert),
            Form::Csv(csv) => csv.write(alert),
            Form::Html(html) => html.write(alert),
            Form::None => Ok(()),
        }
    }

    /// Writes what comes after the last alert. Fails when the destination does.
    pub fn finish(self, summary: &Summary) -> io::Result<()> {
        match self.0 {
            Form::Table(table) => table.finish(summary),
            Form::Json(json) => json.finish(),
            Form::Csv(csv) => csv.finish(),
            Form::Html(html) => html.finish(summary),
            Form::Jsonl(_) | Form::None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
