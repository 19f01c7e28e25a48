//! Undoes gzip piece by piece, and stops where a body grows beyond reason.

use flate2::{Decompress, FlushDecompress, Status};

use crate::ingest::compress::Fault;

/// What a body may become whatever its ratio, for those that are nearly empty.
const RATIO_FREE_BYTES: u64 = 1 << 20;

/// A gzip body, of one member or more, being decompressed.
#[derive(Debug)]
pub struct Inflate {
    state: Decompress,
    is_inside: bool,
    has_begun: bool,
    input: u64,
    output: u64,
    output_max: u64,
    ratio_max: u64,
}

/// Why decompression stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The data is damaged from here on.
    Fault(Fault),
    /// It becomes larger than it may.
    TooLarge,
}

impl Inflate {
    /// Refuses to give more than `output_max` bytes, or `ratio_max` times the input.
    pub fn new(output_max: u64, ratio_max: u64) -> Inflate {
        Inflate {
            state: Decompress::new_gzip(15),
            is_inside: true,
            has_begun: false,
            input: 0,
            output: 0,
            output_max,
            ratio_max,
        }
    }

    /// Takes from the front of `input` and writes to `output`; how many bytes were written. With
    /// nothing written and no input left, more input is needed.
    ///
    /// # Errors
    /// [`Stop`]; what was written before is good.
    pub fn step(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, Stop> {
        loop {
            if !self.is_inside && !self.next_member(input)? {
                return Ok(0);
            }
            let before = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(input, output, FlushDecompress::None);
            let used = (self.state.total_in() - before.0) as usize;
            let made = (self.state.total_out() - before.1) as usize;
            *input = &input[used..];
            self.input += used as u64;
            self.output += made as u64;
            self.has_begun |= used > 0;
            match status {
                Ok(Status::StreamEnd) => self.is_inside = false,
                Ok(_) if used == 0 && made == 0 && !input.is_empty() => {
                    return Err(Stop::Fault(Fault::Corrupt));
                }
                Ok(_) => {}
                Err(_) => return Err(Stop::Fault(Fault::Corrupt)),
            }
            let allowed = self.input.saturating_mul(self.ratio_max).max(RATIO_FREE_BYTES);
            if self.output > self.output_max.min(allowed) {
                return Err(Stop::TooLarge);
            }
            if made > 0 || input.is_empty() {
                return Ok(made);
            }
        }
    }

    /// Says that the input is over.
    ///
    /// # Errors
    /// [`Fault::Truncated`] when it ends inside of compressed data.
    pub fn finish(&self) -> Result<(), Stop> {
        match self.is_inside && self.has_begun {
            true => Err(Stop::Fault(Fault::Truncated)),
            false => Ok(()),
        }
    }

    /// Passes zero padding and begins the next member; false when there is no more input.
    fn next_member(&mut self, input: &mut &[u8]) -> Result<bool, Stop> {
        let padding = input.iter().take_while(|byte| **byte == 0).count();
        *input = &input[padding..];
        match input.first() {
            None => Ok(false),
            Some(0x1f) => {
                self.state = Decompress::new_gzip(15);
                self.is_inside = true;
                Ok(true)
            }
            Some(_) => Err(Stop::Fault(Fault::Garbage)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(bytes: &[u8], piece: usize) -> (Vec<u8>, Result<(), Stop>) {
        let (mut inflate, mut text) = (Inflate::new(10 << 20, 100), Vec::new());
        let mut output = [0; 4096];
        for mut piece in bytes.chunks(piece) {
            loop {
                match inflate.step(&mut piece, &mut output) {
                    Ok(0) if piece.is_empty() => break,
                    Ok(count) => text.extend_from_slice(&output[..count]),
                    Err(stop) => return (text, Err(stop)),
                }
            }
        }
        (text, inflate.finish())
    }

    #[test]
    fn gives_what_there_is_and_stops_bombs() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let gz = gzip(&text);
        let mut broken = gz.clone();
        broken[gz.len() / 2..gz.len() / 2 + 8].fill(0xff);
        let twice = [&gz[..], &gz].concat();
        for (name, bytes, least, result) in [
            ("nothing", vec![], 0, Ok(())),
            ("one member", gz.clone(), text.len(), Ok(())),
            ("two members", twice, 2 * text.len(), Ok(())),
            ("padding", [&gz[..], &[0; 99]].concat(), text.len(), Ok(())),
            ("cut", gz[..gz.len() - 3].to_vec(), text.len(), Err(Stop::Fault(Fault::Truncated))),
            ("garbage", [&gz[..], b"x"].concat(), text.len(), Err(Stop::Fault(Fault::Garbage))),
            ("no gzip", b"{\"kind\":".to_vec(), 0, Err(Stop::Fault(Fault::Corrupt))),
            ("broken", broken, 1000, Err(Stop::Fault(Fault::Corrupt))),
            ("bomb", gzip(&vec![b' '; 9 << 20]), 1 << 19, Err(Stop::TooLarge)),
            (
                "many small bombs",
                gzip(&vec![b' '; 900 << 10]).repeat(30),
                1 << 19,
                Err(Stop::TooLarge),
            ),
        ] {
            for piece in [1 << 20, 1000] {
                let (found, end) = inflate(&bytes, piece);
                assert_eq!(end, result, "{name}");
                assert!(found.len() >= least, "{name}: {}", found.len());
            }
        }
    }
}
