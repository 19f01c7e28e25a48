//! One self-contained page.
use crate::alert::Alert;
use crate::report::summary::Summary;
use std::io::{self, Write};
pub(crate) struct Html<'w>(&'w mut dyn Write);
impl<'w> Html<'w> {
    pub(crate) fn new(out: &'w mut dyn Write) -> io::Result<Html<'w>> {
        Ok(Html(out))
    }
    pub(crate) fn write(&mut self, _alert: &Alert) -> io::Result<()> {
        Ok(())
    }
    pub(crate) fn finish(self, _summary: &Summary) -> io::Result<()> {
        let _ = self.0;
        Ok(())
    }
}
