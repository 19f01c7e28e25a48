//! What credentials look like, wherever they stand: the pattern pass behind the table of places.
//!
//! Most strings hold none, and a look for a few literals says so; expressions run on the rest only.
//! Strong patterns know a credential by itself (a JWT, a PEM key, a vendor's token); weak ones by
//! what stands before it (`password=`, `Bearer`), and are kept from prose, which names such things
//! all the time.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use regex::bytes::{Captures, Regex};
use wide::u8x16;

/// How hard to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Only for what is a credential by itself: identities, names, paths.
    Strong,
    /// Also for what is said to be one: bodies, annotations, messages, user agents.
    Full,
}

/// Nothing shorter is a credential.
pub(crate) const LENGTH_MIN: usize = 7;

/// A literal, and the piece of it that hints search for: one whose first three bytes stand together
/// in audit events as seldom as those of no other of its pieces.
type Literal = (&'static str, &'static str);

/// Of every strong pattern, a part that each of its matches holds, in lower case.
const STRONG: [Literal; 22] = [
    ("eyj", "eyj"),
    ("zxlkagdjaul", "xlkagdjaul"),
    ("private key", "vate"),
    ("ls0tls1crudjtib", "ls0tls1crudjtib"),
    ("akia", "akia"),
    ("asia", "asia"),
    ("ghp_", "ghp_"),
    ("gho_", "gho_"),
    ("ghu_", "ghu_"),
    ("ghs_", "ghs_"),
    ("ghr_", "ghr_"),
    ("github_pat_", "_pat_"),
    ("glpat-", "glpat-"),
    ("xox", "xox"),
    ("xapp-", "xapp-"),
    ("hvs.", "hvs."),
    ("dckr_pat_", "_pat_"),
    ("ya29.", "ya29."),
    ("aiza", "aiza"),
    ("npm_", "npm_"),
    ("sk_live_", "_live_"),
    ("age-secret-key-", "ecret"),
];

/// Of every weak pattern, likewise.
const WEAK: [Literal; 19] = [
    ("bearer", "bearer"),
    ("basic", "basic"),
    ("://", "://"),
    ("pass", "pass"),
    ("cookie", "cookie"),
    ("pwd", "pwd"),
    ("secret", "ecret"),
    ("token", "token"),
    ("credential", "edential"),
    ("sig=", "sig="),
    ("\"auth", "\"auth"),
    ("api_key", "_key"),
    ("api-key", "-key"),
    ("apikey", "pikey"),
    ("access_key", "_key"),
    ("access-key", "-key"),
    ("accesskey", "sskey"),
    ("private", "vate"),
    ("x-amz-", "-amz-"),
];

static STRONG_HINT: LazyLock<AhoCorasick> = LazyLock::new(|| hint(&STRONG.map(|(text, _)| text)));
static FULL_HINT: LazyLock<AhoCorasick> =
    LazyLock::new(|| hint(&literals().map(|(text, _)| *text).collect::<Vec<_>>()));

/// All of them.
pub(crate) fn literals() -> impl Iterator<Item = &'static Literal> {
    STRONG.iter().chain(&WEAK)
}

/// An automaton that looks for these, whatever their case.
pub(crate) fn hint(literals: &[&str]) -> AhoCorasick {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(aho_corasick::AhoCorasickKind::DFA))
        .build(literals)
        .expect("the literals are fixed and a test builds the automaton")
}

static STRONG_PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    compile(&[
        // JSON Web Token (RFC 7519), signed or encrypted; and base64 of one.
        r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,4}",
        r"ZXlKaGJHY2lP[A-Za-z0-9+/=_-]{16,}",
        // PEM private keys, to the end marker or of the text; and base64 of one.
        concat!(
            r"(?s)-----BEGIN [A-Z ]{0,32}PRIVATE KEY.*?",
            r"(?:-----END [A-Z ]{0,32}PRIVATE KEY[A-Z ]{0,8}-----|\z)",
        ),
        concat!(
            r"LS0tLS1CRUdJTiB(?:[SE]U0EgUFJJVkFURSBLRVkt|QUklWQVRFIEtFWS0|FQyBQUklWQVRFIEtFWS0|",
            r"PUEVOU1NIIFBSSVZBVEUgS0VZ|FTkNSWVBURUQgUFJJVkFURSBLRVkt)[A-Za-z0-9+/=]*",
        ),
        // AWS access key ids, with the secret that stands behind.
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b(?:[\s:,;=\x22']{1,8}[A-Za-z0-9/+]{40}\b)?",
        // GitHub, GitLab, Slack, Vault, Docker, Google, npm, Stripe, age.
        r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}",
        r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{10,}|\bhvs\.[A-Za-z0-9_-]{20,}",
        r"\bdckr_pat_[A-Za-z0-9_-]{20,}|\bya29\.[A-Za-z0-9_-]{20,}|\bAIza[A-Za-z0-9_-]{35}",
        r"\bnpm_[A-Za-z0-9]{30,}|\bsk_live_[A-Za-z0-9]{16,}|\bAGE-SECRET-KEY-[A-Z0-9]{40,}",
        // Kubernetes bootstrap tokens (kubeadm: id.secret).
        r"\b(?P<bootstrap>[a-z0-9]{6}\.[a-z0-9]{16})\b",
    ])
});

/// Groups named `value…` are what is replaced; without one, the whole match.
static WEAK_PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    let sure = concat!(
        r"(?:password|passwd|passphrase|pwd|api[_-]?key|access[_-]?key|secret[_-]?key|",
        r"secret[_-]?access[_-]?key|private[_-]?key(?:[_-]?id)?|client[_-]?secret|",
        r"access[_-]?token|auth[_-]?token|refresh[_-]?token|x-amz-(?:signature|credential|",
        r"security-token))(?:[_-]?(?:value|base64|b64|hash|[0-9]{1,3}))?",
    );
    let vague = r"(?:secret|token|credentials?)(?:[_-]?(?:value|base64|b64|data|[0-9]{1,3}))?";
    // `serviceaccount:my-token:x` names a thing; a colon alone says nothing.
    let by = r"(?:\\*[\x22']\s*[=:]\s*|\s*=\s*|\s*(?P<colon>:)\s+)";
    let quoted = r"\x22(?:[^\x22\\]|\\.)+|'[^']+|\\+\x22[^\x22\\]+";
    let bare = r"(?:(?:bearer|basic)\s+)?[^\s&,;\x22'\\<>{}()]{3,}";
    compile(&[
        // Credentials in an Authorization header.
        r"(?i)\b(?P<scheme>bearer|basic)\s+(?P<value1>[A-Za-z0-9+/=._~-]{8,})",
        // user:password@ in a URL.
        r"://[^/\s:@\x22'\\]{0,256}:(?P<value2>[^/\s@\x22']{1,256})@",
        // name=value, name: value, "name":"value", for names that say what they hold.
        &format!(
            r"(?i){sure}(?:\\*[\x22'])?\s*[=:]\s*(?:(?P<value3>{bare})|(?P<quoted3>{quoted}))"
        ),
        &format!(r"(?i){vague}{by}(?:(?P<value4>{bare})|(?P<quoted4>{quoted}))"),
        r"(?i)\bsig=(?P<value5>[^\s&,;\x22'\\]{4,})",
        r"\x22auth\\*\x22\s*:\s*(?P<quoted5>\\*\x22[^\x22\\]{4,})",
        // A cookie in a header.
        r"(?i)\bcookie:\s*(?P<value7>[^\r\n\x22'\\]{3,})",
        // --name value
        concat!(
            r"(?i)--?[a-z0-9-]{0,32}(?:password|passwd|pass|pwd|secret|token|api-?key|access-?key|",
            r"private-?key|credential)\s+(?P<value6>[^\s&,;\x22'\[<>-][^\s&,;\x22'<>]{2,})",
        ),
    ])
});

fn compile(patterns: &[&str]) -> Regex {
    let whole = patterns.iter().map(|one| format!("(?:{one})")).collect::<Vec<_>>().join("|");
    regex::bytes::RegexBuilder::new(&whole)
        .unicode(false)
        .build()
        .expect("the patterns are fixed and a test compiles them")
}

/// Whether a text may hold a credential; false is certain. Escapes must be resolved, but for texts
/// without `\u` it makes no difference.
pub(crate) fn is_suspicious(text: &[u8], class: Class) -> bool {
    if text.len() < LENGTH_MIN {
        return false;
    }
    let hint = if class == Class::Full { &FULL_HINT } else { &STRONG_HINT };
    hint.is_match(text) || has_bootstrap_token(text)
}

/// Whether a dot has six letters or digits before it and sixteen behind.
fn has_bootstrap_token(text: &[u8]) -> bool {
    text.len() >= 23 && memchr::memchr_iter(b'.', text).any(|dot| is_bootstrap_dot(text, dot))
}

/// Whether the dot at an offset has six letters or digits before it and sixteen behind.
#[inline]
pub(crate) fn is_bootstrap_dot(text: &[u8], dot: usize) -> bool {
    let is_word = |part: &[u8; 16]| {
        let bytes = u8x16::new(*part);
        let is_between = |first, last| {
            let (first, last) = (u8x16::splat(first), u8x16::splat(last));
            bytes.max(first).simd_eq(bytes) & bytes.min(last).simd_eq(bytes)
        };
        (is_between(b'a', b'z') | is_between(b'0', b'9')).to_bitmask() == 0xffff
    };
    let behind = text.get(dot + 1..).and_then(|rest| rest.first_chunk());
    let is_digit = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    behind.is_some_and(is_word)
        && dot.checked_sub(6).is_some_and(|start| text[start..dot].iter().all(is_digit))
}

/// Adds the parts of a text that are credentials to `spans`, in order and apart from each other.
pub(crate) fn find(text: &[u8], class: Class, spans: &mut Vec<(usize, usize)>) {
    if is_suspicious(text, class) {
        find_hinted(text, class, spans);
    }
}

/// The same for a text that is suspicious.
pub(crate) fn find_hinted(text: &[u8], class: Class, spans: &mut Vec<(usize, usize)>) {
    let from = spans.len();
    // Nearly all that is suspicious has a word such as `secret` in it and nothing else.
    if is_suspicious(text, Class::Strong) {
        for found in STRONG_PATTERN.captures_iter(text) {
            if !found.name("bootstrap").is_some_and(|name| is_core_event_name(name.as_bytes())) {
                spans.extend(found.get(0).map(|whole| (whole.start(), whole.end())));
            }
        }
    }
    // Every weak pattern has one of these between a name and its value.
    let is_sign = |byte: &u8| matches!(byte, b'=' | b':' | b' ' | b'\t'..=b'\r');
    if class == Class::Full && text.iter().any(is_sign) {
        let weak = WEAK_PATTERN.captures_iter(text).filter_map(|found| weak_value(&found));
        spans.extend(weak.filter(|(start, end)| !touches_mark(text, *start, *end)));
    }
    merge(spans, from);
}

/// Names of core events end in the time in nanoseconds: sixteen hexadecimal digits, of which the
/// first is a one in this century.
fn is_core_event_name(name: &[u8]) -> bool {
    name[7] == b'1' && name[7..].iter().all(u8::is_ascii_hexdigit)
}

fn weak_value(found: &Captures<'_>) -> Option<(usize, usize)> {
    if let Some(quoted) = ["quoted3", "quoted4", "quoted5"].iter().find_map(|name| found.name(name))
    {
        let text = quoted.as_bytes();
        let quote = text.iter().position(|byte| !matches!(byte, b'\\' | b'"' | b'\''));
        let start = quote.unwrap_or(text.len());
        return (!is_mark(&text[start..]) && start < text.len())
            .then(|| (quoted.start() + start, quoted.end()));
    }
    let value = ["value1", "value2", "value3", "value4", "value5", "value6", "value7"]
        .iter()
        .find_map(|name| found.name(name))?;
    let text = value.as_bytes();
    let is_word = text.iter().all(u8::is_ascii_lowercase);
    let is_scheme_named = found.name("scheme").is_some()
        && [&b"auth"[..], b"token", b"cred"].iter().any(|start| text.starts_with(start));
    let is_prose = is_word && (is_scheme_named || found.name("colon").is_some());
    let is_switch = matches!(text, b"true" | b"false" | b"null" | b"none");
    (!is_prose && !is_switch && !is_mark(text)).then(|| (value.start(), value.end()))
}

/// Puts the spans from `from` on in order, and joins those that overlap.
pub(crate) fn merge(spans: &mut Vec<(usize, usize)>, from: usize) {
    spans[from..].sort_unstable();
    let mut kept = from;
    for index in from..spans.len() {
        let (start, end) = spans[index];
        if kept > from && start < spans[kept - 1].1 {
            spans[kept - 1].1 = spans[kept - 1].1.max(end);
        } else {
            spans[kept] = (start, end);
            kept += 1;
        }
    }
    spans.truncate(kept);
}

/// Whether a part of a text has a piece of what redaction leaves behind: it was looked at before.
fn touches_mark(text: &[u8], start: usize, end: usize) -> bool {
    let from = start.saturating_sub(MARK_LENGTH_MAX - 1);
    memchr::memmem::find_iter(&text[from..end], b"[REDACTED").any(|at| {
        let rest = &text[from + at..];
        let length = memchr::memchr(b']', &rest[..rest.len().min(MARK_LENGTH_MAX)]);
        length.is_some_and(|last| is_mark(&rest[..=last]) && from + at + last >= start)
    })
}

/// The length of a mark with a fingerprint.
const MARK_LENGTH_MAX: usize = 27;

/// Whether the text is what redaction leaves behind.
pub(crate) fn is_mark(text: &[u8]) -> bool {
    let Some(inner) = text.strip_prefix(b"[REDACTED").and_then(|rest| rest.strip_suffix(b"]"))
    else {
        return false;
    };
    let is_hex = |digits: &[u8]| {
        digits.len() == 16 && digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    inner.is_empty() || inner.strip_prefix(b":").is_some_and(is_hex)
}

/// Parts of names whose values are credentials; names are compared in lower case and without `_`
/// and `-`.
const NAMES: [&str; 27] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "secretkey",
    "signature",
    "authorization",
    "cookie",
    "bearer",
    "assertion",
    "jwt",
    "xamz",
    "signingkey",
    "encryptionkey",
    "apisecret",
    "passcode",
    "mnemonic",
    "creds",
    "masterkey",
    "sessionkey",
    "authkey",
];

static NAME: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .kind(Some(aho_corasick::AhoCorasickKind::DFA))
        .build(NAMES)
        .expect("the names are fixed and a test builds the automaton")
});

/// Ends of such names that make them name something else.
const NOT_VALUES: [&str; 9] =
    ["file", "path", "dir", "name", "ttl", "issuer", "namespace", "type", "seconds"];

/// Whether a variable, flag, header or parameter of this name holds a credential.
pub(crate) fn is_secretive(name: &[u8]) -> bool {
    let name = folded(name);
    let is_named = NAME.is_match(&name)
        || matches!(name.as_str(), "sig" | "auth" | "key" | "pass" | "pw" | "code" | "pin")
        || name.ends_with("pass");
    is_named && !NOT_VALUES.iter().any(|end| name.ends_with(end))
}

/// Ends of member names whose values are credentials in whatever object.
const MEMBERS: [&str; 22] = [
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "secretkey",
    "accesskey",
    "privatekey",
    "clientsecret",
    "authtoken",
    "accesstoken",
    "refreshtoken",
    "bearertoken",
    "idtoken",
    "jointoken",
    "webhooksecret",
    "encryptionkey",
    "signingkey",
    "sharedkey",
    "psk",
    "connectionstring",
    "passwordhash",
    "clientkeydata",
];

/// Whether a string member of this name is a credential in whatever object it stands. Names that
/// Kubernetes uses for references (`secret`, `key`, `secretName`) are none.
pub(crate) fn is_secretive_member(name: &[u8]) -> bool {
    let end = |n: usize| name.len().checked_sub(n).map_or(b' ', |at| name[at] | 0x20);
    // Nearly all names are passed over by their last letters.
    if !matches!(
        (end(2), end(1)),
        (b'r' | b'w', b'd')
            | (b's', b'e' | b'k' | b'h')
            | (b'e', b'y' | b't' | b'n')
            | (b'n', b'g')
            | (b't', b'a')
    ) {
        return false;
    }
    let name = folded(name);
    name == "token" || MEMBERS.iter().any(|member| name.ends_with(member))
}

fn folded(name: &[u8]) -> String {
    name.iter()
        .filter(|byte| !matches!(byte, b'_' | b'-' | b'.' | b' '))
        .map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect()
}

/// Whether a value is nothing but plain words, numbers, addresses and paths: `debug`, `8080`,
/// `/usr/bin/env`, `https://db.prod.svc:5432`. Whatever mixes letters and digits is not.
pub(crate) fn is_plain(text: &[u8]) -> bool {
    let is_part = |part: &[u8]| {
        let part = part.strip_prefix(b"v").filter(|rest| !rest.is_empty()).unwrap_or(part);
        let all = |test: fn(&u8) -> bool, most: usize| part.len() <= most && part.iter().all(test);
        let capital = part.first().is_some_and(u8::is_ascii_uppercase);
        all(u8::is_ascii_digit, 6)
            || all(u8::is_ascii_lowercase, 16)
            || all(u8::is_ascii_uppercase, 5)
            || capital && part.len() <= 16 && part[1..].iter().all(u8::is_ascii_lowercase)
    };
    text.len() <= 128
        && text
            .split(|byte| matches!(byte, b'-' | b'_' | b'.' | b'/' | b':' | b',' | b' '))
            .all(is_part)
        && !has_bootstrap_token(text)
        && !NAME.is_match(text)
}

/// Whether a word of a command is long and mixed enough to be a credential: no blanks, slashes or
/// dots, and two kinds of characters.
pub(crate) fn is_opaque(word: &[u8]) -> bool {
    let is_charset = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'=' | b'_' | b'-');
    let count = |test: fn(&u8) -> bool| usize::from(word.iter().any(test));
    let kinds =
        count(u8::is_ascii_digit) + count(u8::is_ascii_lowercase) + count(u8::is_ascii_uppercase);
    word.len() >= 12 && word.iter().all(is_charset) && kinds >= 2
}
