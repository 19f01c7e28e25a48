//! One alert a line, in its native JSON form.

use std::io::{self, Write};

use crate::alert::Alert;
use crate::report::escape::{Spelling, write_json};

pub(crate) struct Jsonl<'w> {
    out: &'w mut dyn Write,
}

impl<'w> Jsonl<'w> {
    pub(crate) fn new(out: &'w mut dyn Write) -> Jsonl<'w> {
        Jsonl { out }
    }

    pub(crate) fn write(&mut self, alert: &Alert) -> io::Result<()> {
        write_json(self.out, alert, Spelling::Exact)?;
        self.out.write_all(b"\n")
    }
}
