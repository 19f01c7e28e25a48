//! Lines of comma-separated values (RFC 4180), as consoles and query tools of log stores hand out:
//! an event is in one quoted field, its quotes doubled.

use memchr::memmem;

/// The field of a line that holds an event, without the doubling; of a cut one what is there.
pub(crate) fn event(line: &[u8]) -> Option<Vec<u8>> {
    // Nearly all lines are told by this.
    memmem::find(line, b"\"\"")?;
    let mut at = 0;
    loop {
        if line.get(at) == Some(&b'"') {
            let (field, behind) = quoted(line, at + 1);
            if is_doubled(field) && memmem::find(field, b"auditID").is_some() {
                return Some(plain(field));
            }
            at = behind;
        } else {
            at += line[at..].iter().take_while(|byte| !is_separator(**byte)).count();
        }
        if !line.get(at).is_some_and(|byte| is_separator(*byte)) {
            return None;
        }
        at += 1;
    }
}

/// Whether a line is the names of columns and no piece of JSON.
pub(crate) fn is_header(line: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_@.- \"[]()".contains(byte);
    let line = line.trim_ascii();
    line.len() <= 4 << 10
        && line.first().is_some_and(|byte| byte.is_ascii_alphabetic() || b"_@\"".contains(byte))
        && line.iter().any(|byte| is_separator(*byte))
        && line.iter().all(|byte| is_name(byte) || is_separator(*byte))
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

/// Whether each quote is one of a pair, and there are some.
fn is_doubled(field: &[u8]) -> bool {
    memmem::find(field, b"\"\"").is_some()
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
            (r#"a;;"host p: {""auditID"":""a,b;""}";c"#, Some(r#"host p: {"auditID":"a,b;"}"#)),
            (r#"a,"{""m"":""{\""auditID\"":1}""}""#, Some(r#"{"m":"{\"auditID\":1}"}"#)),
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

    #[test]
    fn tells_the_names_of_columns() {
        for (line, expected) in [
            ("@timestamp,@message", true),
            ("\"TimeGenerated [UTC]\",log_s", true),
            ("\"_time\",\"_raw\"\r", true),
            ("message", false),
            ("200},\"user\"", false),
            ("", false),
        ] {
            assert_eq!(is_header(line.as_bytes()), expected, "{line}");
        }
    }
}
