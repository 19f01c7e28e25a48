//! Lines on standard output. Delivered means that the bytes were handed to whatever reads them.

use std::io::{ErrorKind, Write};

use serde::{Deserialize, Serialize};

use crate::sinks::encode::Format;
use crate::sinks::{CheckError, Delivered, Item, SendError, Sink, blocking};

/// What is configured of standard output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How a line is written: `native`, `ecs`, `ocsf`, `cef`, `leef`, `falco`. Default: native.
    pub format: Format,
}

/// Writes one item a line: raw events as stored, alerts and notices as native JSON.
#[derive(Debug, Default)]
pub struct Stdout {
    config: Config,
}

impl Stdout {
    /// A sink of this configuration.
    pub fn new(config: Config) -> Stdout {
        Stdout { config }
    }
}

impl Sink for Stdout {
    async fn send(&mut self, batch: &[Item<'_>]) -> Result<Delivered, SendError> {
        let mut lines = Vec::with_capacity(batch.iter().map(|item| item.bytes().len() + 1).sum());
        for item in batch {
            self.config.format.encode(item, &mut lines);
            lines.push(b'\n');
        }
        let written = blocking(move || {
            let mut out = std::io::stdout().lock();
            out.write_all(&lines).and_then(|()| out.flush())
        });
        match written.await? {
            Ok(()) => Ok(Delivered::default()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                Err(SendError::block("nobody reads standard output", "restart with a reader"))
            }
            Err(error) => Err(SendError::retry(format!("cannot write standard output: {error}"))),
        }
    }

    async fn check(&mut self) -> Result<(), CheckError> {
        Ok(())
    }
}
