//! All alerts as one JSON array, an element a line.

use std::io::{self, Write};

use crate::alert::Alert;
use crate::report::escape::{Spelling, write_json};

pub(crate) struct Json<'w> {
    out: &'w mut dyn Write,
    is_empty: bool,
}

impl<'w> Json<'w> {
    pub(crate) fn new(out: &'w mut dyn Write) -> Json<'w> {
        Json { out, is_empty: true }
    }

    pub(crate) fn write(&mut self, alert: &Alert) -> io::Result<()> {
        self.out.write_all(if self.is_empty { b"[\n" } else { b",\n" })?;
        self.is_empty = false;
        write_json(self.out, alert, Spelling::Exact)
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        self.out.write_all(if self.is_empty { b"[]\n" } else { b"\n]\n" })
    }
}
