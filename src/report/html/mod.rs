//! One self-contained page: timeline, counts, a table to filter, every alert with its evidence.
//!
//! Layout: the style, the frame of the page, blocks of alerts as they come (a line of JSON each, in
//! script elements that no browser runs), the run's summary, and last the script that shows it all.
//! It parses a block at a time, keeps of each alert what the table needs, and reads the rest again
//! when somebody opens the alert.
//!
//! Why a hostile value stays text: inside the blocks `<`, `>` and `&` are JSON escapes, so no value
//! can end its element; the script creates text nodes only, never markup; and the page's content
//! security policy runs exactly one script and applies one style, both named by their hash, and
//! loads nothing from anywhere. Nothing in the page depends on the clock, so equal runs give equal
//! pages.

use std::io::{self, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::alert::Alert;
use crate::report::escape::{Spelling, write_json};
use crate::report::summary::{self, Summary};
use crate::report::terminal::Terminal;

const FRAME: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// So many alerts share a block; the page parses a whole block to open one of them.
const BLOCK_ALERTS_MAX: usize = 250;

pub(crate) struct Html<'w> {
    out: &'w mut dyn Write,
    in_block: usize,
}

impl<'w> Html<'w> {
    pub(crate) fn new(out: &'w mut dyn Write) -> io::Result<Html<'w>> {
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; \
             base-uri 'none'; form-action 'none'",
            hash(SCRIPT),
            hash(STYLE),
        );
        write!(
            out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>kubewitness report</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n{FRAME}"
        )?;
        Ok(Html { out, in_block: 0 })
    }

    pub(crate) fn write(&mut self, alert: &Alert) -> io::Result<()> {
        if self.in_block == BLOCK_ALERTS_MAX {
            self.end_block()?;
        }
        if self.in_block == 0 {
            writeln!(self.out, "<script type=\"application/x-ndjson\" class=\"alerts\">")?;
        }
        self.in_block += 1;
        write_json(self.out, alert, Spelling::Page)?;
        self.out.write_all(b"\n")
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.in_block > 0 {
            self.in_block = 0;
            self.out.write_all(b"</script>\n")?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self, summary: &Summary) -> io::Result<()> {
        self.end_block()?;
        let summary = Summary { elapsed_seconds: 0.0, ..summary.clone() };
        self.out.write_all(b"<script type=\"application/json\" id=\"summary\">")?;
        write_json(self.out, &summary, Spelling::Page)?;
        self.out.write_all(b"</script>\n<noscript><p>The table needs JavaScript.</p><pre>")?;
        let mut text = Vec::new();
        summary::write(&mut text, &summary, Terminal::PLAIN)?;
        self.out.write_all(markup_escaped(&String::from_utf8_lossy(&text)).as_bytes())?;
        write!(self.out, "</pre></noscript>\n<script>{SCRIPT}</script>\n</body>\n</html>\n")
    }
}

/// The hash by which a content security policy names an inline element.
fn hash(content: &str) -> String {
    BASE64_STANDARD.encode(Sha256::digest(content))
}

fn markup_escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script must not be able to turn text into markup or code, nor to reach the network.
    #[test]
    fn script_only_makes_text() {
        let banned = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "fetch(",
            "XMLHttpRequest",
            "WebSocket",
            "import(",
            "http:",
            "https:",
            "srcdoc",
            "href",
            "createContextualFragment",
            "DOMParser",
            "setHTMLUnsafe",
            "</",
            "<!--",
            "location",
        ];
        for word in banned {
            assert!(!SCRIPT.contains(word), "{word}");
        }
        for word in ["url(", "@import", "expression(", "</"] {
            assert!(!STYLE.contains(word), "{word}");
        }
    }

    #[test]
    fn many_alerts_share_blocks() {
        let json = concat!(
            r#"{"id":"i","time":"2026-11-22T00:16:52Z","kind":"match","cluster":"","#,
            r#""rule":{"id":"r","title":"T","level":"low","source":"sigma"},"actor":{"groups":[],"#,
            r#""source_ips":[]},"request":{},"summary":"S","count":1}"#,
        );
        let alert: Alert = serde_json::from_str(json).unwrap();
        for (alerts, blocks) in [(0, 0), (1, 1), (250, 1), (251, 2), (1000, 4)] {
            let mut out = Vec::new();
            let mut html = Html::new(&mut out).unwrap();
            (0..alerts).for_each(|_| html.write(&alert).unwrap());
            html.finish(&Summary::default()).unwrap();
            let page = String::from_utf8(out).unwrap();
            assert_eq!(page.matches("class=\"alerts\"").count(), blocks, "{alerts}");
            assert_eq!(page.matches("<script").count(), page.matches("</script>").count());
        }
    }
}
