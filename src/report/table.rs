//! A line an alert, in columns as wide as the terminal allows; two where one would hold no title.
//!
//! Alerts are shown as they come, so the widths depend on the terminal alone. Long values lose
//! their middle. Where there is no terminal, nothing is cut and columns only have a least width.

use std::borrow::Cow;
use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::alert::{Alert, Request};
use crate::report::escape::visible;
use crate::report::summary::{Summary, write_line};
use crate::report::terminal::{Style, Terminal};
use crate::rule::Level;

pub(crate) struct Table<'w> {
    out: &'w mut dyn Write,
    terminal: Terminal,
    layout: Layout,
    is_empty: bool,
}

/// Widths of the columns; 0 leaves a column out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    time: usize,
    level: usize,
    rule: usize,
    actor: usize,
    request: usize,
    source_ip: usize,
    is_cut: bool,
    /// Where actor, request and address stand on a line of their own; 0 where all is one line.
    indent: usize,
}

const GAP: &str = "  ";

/// Narrower terminals get two lines an alert.
const ONE_LINE_MIN: usize = 110;

impl Layout {
    /// Shares out the width; what is narrower than 40 columns is treated as 40.
    fn of(width: Option<usize>) -> Layout {
        let Some(width) = width else {
            return Layout {
                time: 27,
                level: 8,
                rule: 40,
                actor: 28,
                request: 40,
                source_ip: 15,
                is_cut: false,
                indent: 0,
            };
        };
        let width = width.max(40);
        if width < ONE_LINE_MIN {
            return Layout::of_two_lines(width);
        }
        let time = if width >= 120 { 19 } else { 14 };
        let (level, source_ip) = (8, 15);
        let shared = width - (time + level + source_ip + 5 * GAP.len());
        let actor = shared * 26 / 100;
        let rule = (shared - actor) * 48 / 100;
        let request = shared - actor - rule;
        Layout { time, level, rule, actor, request, source_ip, is_cut: true, indent: 0 }
    }

    fn of_two_lines(width: usize) -> Layout {
        let (time, level) = (14, 5);
        let rule = width - (time + level + 2 * GAP.len());
        let indent = if width >= 72 { time + GAP.len() } else { GAP.len() };
        let source_ip = if width >= 72 { 15 } else { 0 };
        let gaps = GAP.len() * if source_ip > 0 { 2 } else { 1 };
        let shared = width - (indent + source_ip + gaps);
        let actor = shared * 42 / 100;
        let request = shared - actor;
        Layout { time, level, rule, actor, request, source_ip, is_cut: true, indent }
    }
}

impl<'w> Table<'w> {
    pub(crate) fn new(terminal: Terminal, out: &'w mut dyn Write) -> Table<'w> {
        Table { out, terminal, layout: Layout::of(terminal.width), is_empty: true }
    }

    pub(crate) fn write(&mut self, alert: &Alert) -> io::Result<()> {
        if self.is_empty {
            self.is_empty = false;
            let header = ["TIME (UTC)", "LEVEL", "RULE", "ACTOR", "REQUEST", "SOURCE IP"];
            let line = self.line(header.map(Cow::Borrowed), None);
            writeln!(self.out, "{}", self.terminal.paint(Style::Strong, &line))?;
        }
        let level = alert.rule.level;
        let time = alert.time.to_string();
        let time = match self.layout.time {
            14 => time[time.len() - 22..time.len() - 8].replace('T', " "),
            19 => time[time.len() - 27..time.len() - 8].replace('T', " "),
            _ => time,
        };
        let cells = [
            time.into(),
            if self.layout.level >= 8 { word(level) } else { short_word(level) }.into(),
            rule(alert),
            self.actor(alert),
            request(&alert.request).into(),
            alert.actor.source_ip.as_deref().unwrap_or("-").into(),
        ];
        let line = self.line(cells, Some(level));
        writeln!(self.out, "{line}")
    }

    pub(crate) fn finish(self, summary: &Summary) -> io::Result<()> {
        if !self.is_empty {
            writeln!(self.out)?;
        }
        write_line(self.out, summary, self.terminal)
    }

    /// The user name; where space is short, a service account without the words all of them share.
    fn actor<'a>(&self, alert: &'a Alert) -> Cow<'a, str> {
        let name = alert.actor.username.as_deref().unwrap_or_default();
        match name.strip_prefix("system:serviceaccount") {
            Some(rest) if self.layout.is_cut && name.width() > self.layout.actor => {
                Cow::Owned(format!("…{rest}"))
            }
            _ if name.is_empty() => Cow::Borrowed("-"),
            _ => Cow::Borrowed(name),
        }
    }

    /// Fits cells into columns; colours the level.
    fn line(&self, cells: [Cow<'_, str>; 6], level: Option<Level>) -> String {
        let Layout { time, level: level_width, rule, actor, request, source_ip, .. } = self.layout;
        let widths = [time, level_width, rule, actor, request, source_ip];
        match self.layout.indent {
            0 => self.row(&cells, &widths, level),
            indent => {
                let first = self.row(&cells[..3], &widths[..3], level);
                let second = self.row(&cells[3..], &widths[3..], None);
                format!("{first}\n{:indent$}{second}", "")
            }
        }
    }

    fn row(&self, cells: &[Cow<'_, str>], widths: &[usize], level: Option<Level>) -> String {
        let mut line = String::new();
        for (index, (cell, &width)) in cells.iter().zip(widths).enumerate() {
            if width == 0 {
                continue;
            }
            let cell = visible(cell);
            let cell = if self.layout.is_cut { shorten(&cell, width) } else { cell };
            if !line.is_empty() {
                line.push_str(GAP);
            }
            let padding = width.saturating_sub(cell.width());
            match level {
                Some(level) if index == 1 => {
                    line.push_str(&self.terminal.paint(Style::Level(level), &cell));
                }
                _ => line.push_str(&cell),
            }
            line.extend(std::iter::repeat_n(' ', padding));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Informational => "info",
        level => level.as_str(),
    }
}

fn short_word(level: Level) -> &'static str {
    match level {
        Level::Critical => "CRIT",
        Level::High => "HIGH",
        Level::Medium => "MED",
        Level::Low => "LOW",
        Level::Informational => "INFO",
    }
}

/// The rule's title, and how much came together where it was more than one event.
fn rule(alert: &Alert) -> Cow<'_, str> {
    match alert.count {
        0 | 1 => Cow::Borrowed(&alert.rule.title),
        count => Cow::Owned(format!("{} ×{count}", alert.rule.title)),
    }
}

/// `403 list secrets kube-system`, `200 get /version`, `101 create pods/exec shop/web-1`.
fn request(request: &Request) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut words = vec![request.code.map_or("-".to_owned(), |code| code.to_string())];
    words.push(text(&request.verb));
    let resource = text(&request.resource);
    if resource.is_empty() {
        words.push(text(&request.uri));
    } else {
        match text(&request.subresource).as_str() {
            "" => words.push(resource),
            subresource => words.push(format!("{resource}/{subresource}")),
        }
        let (namespace, name) = (text(&request.namespace), text(&request.name));
        words.push(if namespace.is_empty() { name } else { format!("{namespace}/{name}") });
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// Cuts the middle out of a text that needs more than `width` columns.
fn shorten(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return Cow::Borrowed(text);
    }
    if width < 2 {
        return Cow::Borrowed(if width == 0 { "" } else { "…" });
    }
    let (head, tail) = (width / 2, (width - 1) / 2);
    let start = fitting(text.chars(), head);
    let end: String = fitting(text.chars().rev(), tail).chars().rev().collect();
    Cow::Owned(format!("{start}…{end}"))
}

/// As many characters as fit into `width` columns.
fn fitting(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortens_in_the_middle_and_never_beyond_the_width() {
        let cases = [
            ("short", 5, "short"),
            ("abcdefghij", 5, "ab…ij"),
            ("abcdefghij", 6, "abc…ij"),
            ("abcdefghij", 2, "a…"),
            ("abcdefghij", 1, "…"),
            ("漢字漢字漢字", 7, "漢…字"),
        ];
        for (text, width, expected) in cases {
            assert_eq!(shorten(text, width), expected, "{text} in {width}");
        }
    }

    #[test]
    fn columns_fill_the_width() {
        for width in 40..300 {
            let Layout { time, level, rule, actor, request, source_ip, indent, .. } =
                Layout::of(Some(width));
            let columns = [time, level, rule, actor, request, source_ip];
            let rows = if indent == 0 { vec![&columns[..]] } else { columns.chunks(3).collect() };
            for (row, indent) in rows.into_iter().zip([0, indent]) {
                let shown = row.iter().filter(|&&column| column > 0).count();
                let total: usize = indent + row.iter().sum::<usize>() + GAP.len() * (shown - 1);
                assert!(total <= width && total + 3 > width, "{width}: {columns:?}");
            }
        }
    }
}
