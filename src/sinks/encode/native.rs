//! The native form: the stored bytes as one line.

use crate::sinks::Item;

/// Line ends, which JSON allows between its tokens only, become blanks.
pub(crate) fn encode(item: &Item<'_>, out: &mut Vec<u8>) {
    put_flat(item.bytes(), out);
}

/// Writes JSON on one line.
pub(crate) fn put_flat(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(json);
    let written = out.get_mut(start..).unwrap_or_default();
    if memchr::memchr2(b'\n', b'\r', written).is_some() {
        written.iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    }
}
