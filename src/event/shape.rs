//! How identifiers, paths and addresses are spelled, told by looking at each byte once: these are
//! asked of every event, for their values do not repeat.

use std::net::{IpAddr, Ipv4Addr};

use wide::u8x16;

/// A digit of a UUID as the API server writes it.
const LOWER: u8 = 1;
/// A digit that only others write so.
const UPPER: u8 = 2;
/// A hyphen.
const HYPHEN: u8 = 4;
/// Anything else.
const OTHER: u8 = 8;

/// What each byte is to a UUID.
const KINDS: [u8; 256] = {
    let mut kinds = [OTHER; 256];
    let mut byte = 0;
    while byte < kinds.len() {
        kinds[byte] = match byte as u8 {
            b'0'..=b'9' | b'a'..=b'f' => LOWER,
            b'A'..=b'F' => UPPER,
            b'-' => HYPHEN,
            _ => OTHER,
        };
        byte += 1;
    }
    kinds
};

/// A set of bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByteSet([u64; 4]);

impl ByteSet {
    /// Adds a byte.
    pub fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    /// Whether a byte is in it.
    #[inline]
    pub fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }
}

/// How an Audit-ID is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    /// A UUID as the API server makes them: version 4, in lower case.
    Random,
    /// Another UUID, of any version and the RFC's variant.
    Uuid,
    /// Anything else.
    Other,
}

impl Id {
    /// The spelling of an id.
    pub fn of(id: &[u8]) -> Id {
        let Some(id) = id.as_array::<36>() else { return Id::Other };
        let digits = |from: usize, to: usize| {
            id[from..to].iter().fold(0, |kinds, byte| kinds | KINDS[usize::from(*byte)])
        };
        let kinds = digits(0, 8) | digits(9, 13) | digits(14, 18) | digits(19, 23) | digits(24, 36);
        let has_hyphens = [8, 13, 18, 23].iter().all(|place| id[*place] == b'-');
        let is_variant = matches!(id[19], b'8' | b'9' | b'a' | b'b' | b'A' | b'B');
        if kinds & (HYPHEN | OTHER) != 0
            || !has_hyphens
            || !is_variant
            || !matches!(id[14], b'1'..=b'8')
        {
            return Id::Other;
        }
        if kinds == LOWER && id[14] == b'4' { Id::Random } else { Id::Uuid }
    }
}

/// The address that a text spells; IPv4, which nearly all are, in one pass.
pub fn address(text: &[u8]) -> Option<IpAddr> {
    match ipv4(text) {
        Some(v4) => Some(IpAddr::V4(v4)),
        None => std::str::from_utf8(text).ok()?.parse().ok(),
    }
}

/// Four numbers up to 255 without leading zeros and dots between them, as `Ipv4Addr` reads them.
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let (mut place, mut value, mut digits) = (0, 0u16, 0);
    for byte in text {
        match byte {
            b'0'..=b'9' if digits == 0 || value > 0 => {
                value = value * 10 + u16::from(byte - b'0');
                digits += 1;
                octets[place] = u8::try_from(value).ok()?;
            }
            b'.' if digits > 0 && place < 3 => {
                place += 1;
                (value, digits) = (0, 0);
            }
            _ => return None,
        }
    }
    (place == 3 && digits > 0).then(|| Ipv4Addr::from(octets))
}

/// Whether a path has nothing to decode or resolve: no `%`, no `//`, no segment that begins with a
/// dot.
pub fn is_clean(path: &[u8]) -> bool {
    const BLOCK: usize = 16;
    let load = |block: &[u8]| block.as_array::<BLOCK>().map(|block| u8x16::new(*block));
    let is_suspect = |at: usize| {
        let (Some(block), Some(next)) =
            (load(&path[at..at + BLOCK]), load(&path[at + 1..at + 1 + BLOCK]))
        else {
            return true;
        };
        let slash = u8x16::splat(b'/');
        let resolved = next.simd_eq(slash) | next.simd_eq(u8x16::splat(b'.'));
        let suspect = (block.simd_eq(slash) & resolved) | block.simd_eq(u8x16::splat(b'%'));
        suspect.to_bitmask() != 0
    };
    let Some((last, _)) = path.split_last() else { return true };
    if path.len() <= BLOCK {
        let is_resolved = |pair: &[u8]| pair[0] == b'/' && matches!(pair[1], b'/' | b'.');
        return !path.contains(&b'%') && !path.windows(2).any(is_resolved);
    }
    // The last block overlaps the one before it; its pairs end with the last byte.
    let end = path.len() - 1 - BLOCK;
    *last != b'%' && !is_suspect(end) && !(0..end).step_by(BLOCK).any(is_suspect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tells_ids_by_their_spelling() {
        for (id, kind) in [
            ("0b4d1fd9-3d1f-4d2a-8b5e-0f3f9a1c2d3e", Id::Random),
            ("0B4d1fd9-3d1f-4d2a-8b5e-0f3f9a1c2d3e", Id::Uuid),
            ("0b4d1fd9-3d1f-1d2a-8b5e-0f3f9a1c2d3e", Id::Uuid),
            ("0b4d1fd9-3d1f-9d2a-8b5e-0f3f9a1c2d3e", Id::Other),
            ("0b4d1fd9-3d1f-4d2a-7b5e-0f3f9a1c2d3e", Id::Other),
            ("0b4d1fd9-3d1f-4d2a-8b5e00f3f9a1c2d3e", Id::Other),
            ("0b4d1fd9-3d1-f4d2a-8b5e-0f3f9a1c2d3e", Id::Other),
            ("0b4d1fd9-3d1f-4d2a-8b5e-0f3f9a1c2d3g", Id::Other),
            ("0b4d1fd9", Id::Other),
            ("", Id::Other),
        ] {
            assert_eq!(Id::of(id.as_bytes()), kind, "{id}");
        }
    }

    proptest! {
        #[test]
        fn addresses_are_read_as_the_standard_library_reads_them(
            text in "([0-9]{1,3}\\.){0,4}[0-9]{0,4}|[0-9a-f:.]{0,12}|::ffff:10\\.0\\.0\\.[0-9]{1,3}",
        ) {
            prop_assert_eq!(address(text.as_bytes()), text.parse().ok(), "{}", text);
        }

        #[test]
        fn clean_paths_are_those_without_anything_to_resolve(path in "[/.%a]{0,8}[a-z/]{0,40}[/.%a]{0,8}") {
            let is_dirty = path.contains('%') || path.contains("//") || path.contains("/.");
            prop_assert_eq!(is_clean(path.as_bytes()), !is_dirty, "{}", path);
        }
    }
}
