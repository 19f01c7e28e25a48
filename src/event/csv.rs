//! Lines of comma-separated values (RFC 4180), as consoles and query tools of log stores hand out:
//! an event is in one quoted field, its quotes doubled.

use memchr::memmem;

/// The field of a line that is an event, without the doubling; of a cut one what is there. Of
/// several the longest: a client's own text (its user agent) is part of the event, and shorter.
pub(crate) fn event(line: &[u8]) -> Option<Vec<u8>> {
    // Nearly all lines are told by this.
    memmem::find(line, b"{\"\"")?;
    let mut longest: &[u8] = b"";
    let mut at = 0;
    loop {
        if line.get(at) == Some(&b'"') {
            let (field, behind) = quoted(line, at + 1);
            let is_event = field.starts_with(b"{\"\"") && memmem::find(field, b"auditID").is_some();
            if is_event && field.len() > longest.len() {
                longest = field;
            }
            at = behind;
        } else {
            at += line[at..].iter().take_while(|byte| !is_separator(**byte)).count();
        }
        match line.get(at) {
            Some(byte) if is_separator(*byte) => at += 1,
            // Nothing but a separator stands behind a field.
            Some(b'\r') | None => break,
            Some(_) => return None,
        }
    }
    (!longest.is_empty()).then(|| plain(longest))
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b',' | b';' | b'\t')
}

/// What stands up to the quote that closes a field, and where that is passed.
fn quoted(line: &[u8], start: usize) -> (&[u8], usize) {
    let mut at = start;
    while let Some(found) = memchr::memchr(b'"', &line[at..]) {
        let quote = at + found;
        if line.get(quote + 1) != Some(&b'"') {
            return (&line[start..quote], quote + 1);
        }
        at = quote + 2;
    }
    (&line[start..], line.len())
}

fn plain(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = memmem::find(rest, b"\"\"") {
        plain.extend_from_slice(&rest[..=at]);
        rest = &rest[at + 2..];
    }
    plain.extend_from_slice(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_field_with_the_event() {
        for (line, expected) in [
            (r#"2026-11-22 00:20:47.843,"{""auditID"":""a""}""#, Some(r#"{"auditID":"a"}"#)),
            (r#""t","{""auditID"":""a""}",x"#, Some(r#"{"auditID":"a"}"#)),
            (r#"a;;"{""auditID"":""a,b;""}";c"#, Some(r#"{"auditID":"a,b;"}"#)),
            (r#"a,"{""m"":""{\""auditID\"":1}""}""#, Some(r#"{"m":"{\"auditID\":1}"}"#)),
            (r#""{""auditID"":1}","{""auditID"":1,""z"":2}",c"#, Some(r#"{"auditID":1,"z":2}"#)),
            (r#"a,"{""auditID"":1}"b"#, None),
            (r#"a,"host {""auditID"":1}""#, None),
            (r#"a,"{""auditID"":""cut"#, Some(r#"{"auditID":"cut"#)),
            (r#"a,"",b"#, None),
            (r#"a,"{""kind"":""Pod""}""#, None),
            (r#""auditID","x""y""#, None),
            (r#"us":{"code":200},"auditID":""}"#, None),
            ("auditID", None),
        ] {
            let found = event(line.as_bytes()).map(|field| String::from_utf8(field).unwrap());
            assert_eq!(found.as_deref(), expected, "{line}");
        }
    }
}
