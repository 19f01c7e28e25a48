//! What the reader's screen can show.

use std::io::IsTerminal;

use terminal_size::{Width, terminal_size_of};

use crate::rule::Level;

/// How wide lines may be and whether they may be coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    /// Columns; `None` when the destination is no terminal: then nothing is cut.
    pub width: Option<usize>,
    /// Whether colour is welcome.
    pub color: bool,
}

impl Terminal {
    /// A file or a pipe: whole values, no colour.
    pub const PLAIN: Terminal = Terminal { width: None, color: false };

    /// Looks at a stream: no terminal is [`Terminal::PLAIN`]; a set, non-empty `NO_COLOR` and
    /// `TERM=dumb` switch colour off.
    #[cfg(unix)]
    pub fn of(stream: &(impl IsTerminal + std::os::fd::AsFd)) -> Terminal {
        if !stream.is_terminal() {
            return Terminal::PLAIN;
        }
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let width = terminal_size_of(stream).map_or(80, |(Width(columns), _)| usize::from(columns));
        Terminal { width: Some(width), color: !is_set("NO_COLOR") && !is_dumb }
    }

    /// The text in a style, or as it is where colour is unwelcome.
    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match style {
            Style::Level(Level::Critical) => "1;31",
            Style::Level(Level::High) => "31",
            Style::Level(Level::Medium) => "33",
            Style::Level(Level::Low) => "36",
            Style::Level(Level::Informational) => "2",
            Style::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// What a piece of text is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Style {
    /// A level, or something of that level.
    Level(Level),
    /// A heading.
    Strong,
}
