//! Keeps secrets out of what leaves memory: which values hold them, and what they look like.
//!
//! Matching reads the original bytes; whatever is durable, sent or shown passes here first. The
//! table in `places.rs` says where Kubernetes puts secret material, `patterns.rs` what credentials
//! look like wherever they stand. [`Redactor`] replaces such values in an event's raw bytes by
//! splicing: every other byte stays as it came.
//!
//! A replaced value becomes `"[REDACTED:<16 hexadecimal digits>]"`, the beginning of an HMAC-SHA256
//! of the unescaped text (of objects, of their bytes), so that equal secrets can be told without
//! being read; without a key, and for values short enough to be guessed, the fixed `"[REDACTED]"`.
//! Marks are left alone, so redacting twice changes nothing.

mod patterns;
mod hints;
mod harmless;
mod splice;
mod scopes;
mod places;
mod fields;
mod texts;
mod walk;
mod members;
mod plain;
mod sites;
mod strings;

use std::borrow::Cow;

use hmac::{Hmac, KeyInit, Mac};
use rustc_hash::FxHashMap;
use sha2::Sha256;

use crate::event::redact::patterns::{Class, is_mark};
use crate::event::redact::places::Rule;
use crate::event::redact::scopes::{OBJECT, STRICT};
use crate::event::redact::texts::{Spans, Words};
use crate::event::redact::walk::{Leftovers, Subject, Walker};
use crate::event::{Event, Slot};

/// What stands in place of a value of which nothing may be known.
pub const REDACTED: &str = "[REDACTED]";

/// Values below this have no fingerprint: they could be guessed.
pub const FINGERPRINT_BYTES_MIN: usize = 16;

/// What is redacted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything that holds or looks like a secret.
    #[default]
    Secrets,
    /// Nothing; must be asked for.
    Off,
}

/// Replaces the secrets in events. Cheap to share, keeps no state between events.
#[derive(Clone)]
pub struct Redactor {
    mode: Mode,
    mac: Option<Hmac<Sha256>>,
}

/// What whoever redacts keeps from event to event: room for work, and what was harmless before.
#[derive(Default)]
pub struct Scratch {
    leftovers: Leftovers,
}

/// What redacting an event did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    /// Values, or parts of values, that were replaced.
    pub count: u32,
    /// Of these, values of the event (bodies mostly) that went whole because they could not be
    /// read to their end.
    pub unreadable: u32,
}

impl Redactor {
    /// Without a key, or with an empty one, marks carry no fingerprints.
    pub fn new(mode: Mode, key: Option<&[u8]>) -> Redactor {
        let mac = key
            .filter(|key| !key.is_empty())
            .map(|key| Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length"));
        Redactor { mode, mac }
    }

    /// Appends the event's bytes to `out`, secrets replaced. Valid JSON stays valid; of a cut event
    /// everything from the first value without an end is replaced. Takes time in proportion to the
    /// bytes, and never fails. What it does depends on nothing in `scratch`.
    pub fn redact(&self, event: &Event<'_>, scratch: &mut Scratch, out: &mut Vec<u8>) -> Redaction {
        let raw = event.raw();
        if self.mode == Mode::Off {
            out.extend_from_slice(raw);
            return Redaction::default();
        }
        let text = |slot| event.text(slot).unwrap_or_default();
        let (namespace, name) = (text(Slot::Namespace), text(Slot::Name));
        let subject = Subject {
            scopes: scopes::scopes_of(&text(Slot::Resource)) & !STRICT,
            namespace: &namespace,
            name: &name,
        };
        let leftovers = std::mem::take(&mut scratch.leftovers);
        let mut walker = Walker::new(self, raw, subject, leftovers);
        walker.event(event);
        let unreadable = walker.unreadable;
        scratch.leftovers = walker.finish();
        let edits = &scratch.leftovers.edits;
        splice::splice(raw, edits, out);
        Redaction { count: edits.len() as u32, unreadable }
    }

    /// The first half of what stands in a mark.
    fn fingerprint(&self, value: &[u8]) -> Option<[u8; 8]> {
        if value.len() < FINGERPRINT_BYTES_MIN {
            return None;
        }
        let mut mac = self.mac.clone()?;
        mac.update(value);
        let mut first = [0u8; 8];
        first.copy_from_slice(&mac.finalize().into_bytes()[..8]);
        Some(first)
    }
}

impl std::fmt::Debug for Scratch {
    /// Shows nothing of the events.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Redactor {
    /// Shows no key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor")
            .field("mode", &self.mode)
            .field("has_key", &self.mac.is_some())
            .finish()
    }
}

/// The text with everything in it replaced that looks like a credential.
pub fn redact_text(text: &str) -> Cow<'_, str> {
    marked(text, |text, spans| patterns::find(text, Class::Full, spans))
}

/// A request URI with its credentials replaced: by the names of parameters, by what they look like,
/// and whatever a query tells a server behind a proxy.
pub fn redact_uri(uri: &str) -> Cow<'_, str> {
    marked(uri, texts::uri)
}

/// A command, its words joined by blanks, with the credentials among them replaced.
pub fn redact_command(command: &str) -> Cow<'_, str> {
    marked(command, texts::command_line)
}

/// What is done to the values of a field before they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    Replaced,
    Words,
    Command,
    Url,
    Uri,
    Message,
    Text,
}

impl Treatment {
    fn of(field: &str, resource: &str) -> Treatment {
        if holds_secret(field, resource) {
            return Treatment::Replaced;
        }
        if field == "request.command" {
            return Treatment::Command;
        }
        match rule_of(field, resource) {
            Some(Rule::Arg | Rule::Args) => Treatment::Words,
            // The name that says what it is stands beside it, and is not known here.
            Some(Rule::PairValue { .. }) => Treatment::Replaced,
            Some(Rule::Url) => Treatment::Url,
            Some(Rule::Uri) => Treatment::Uri,
            Some(Rule::Message) => Treatment::Message,
            _ => Treatment::Text,
        }
    }

    fn apply(self, value: &str) -> Cow<'_, str> {
        match self {
            Treatment::Replaced => Cow::Borrowed(REDACTED),
            Treatment::Command => redact_command(value),
            Treatment::Words => marked(value, |text, spans| Words::new(false).next(text, spans)),
            Treatment::Url => marked(value, texts::url),
            Treatment::Uri => redact_uri(value),
            Treatment::Message => marked(value, texts::message),
            Treatment::Text => redact_text(value),
        }
    }
}

/// Cleans values of fields before they are shown, and remembers which fields hold what: rules name
/// the same few again and again.
#[derive(Clone, Debug, Default)]
pub struct FieldRedactor {
    known: FxHashMap<Box<str>, (Treatment, bool)>,
    key: String,
}

impl FieldRedactor {
    /// Fields and resources that are remembered; a full memory starts afresh, for clients name
    /// resources.
    const KNOWN_MAX: usize = 4_096;

    /// The value of a field as it may be shown: replaced as a whole where the field holds secret
    /// material in events about `resource`, else cleaned of credentials.
    pub fn redact<'v>(&mut self, field: &str, resource: &str, value: &'v str) -> Cow<'v, str> {
        self.key.clear();
        self.key.extend([resource, "\0", field]);
        if let Some((treatment, is_plain)) = self.known.get(self.key.as_str()) {
            return treatment.apply(whole(value, *is_plain));
        }
        if self.known.len() >= Self::KNOWN_MAX {
            self.known.clear();
        }
        let treatment = Treatment::of(field, resource);
        let is_plain = rule_of(field, resource).is_none();
        self.known.insert(self.key.as_str().into(), (treatment, is_plain));
        treatment.apply(whole(value, is_plain))
    }
}

/// A value as it is; of an object or a list nothing where secrets may be among what it holds: the
/// field has a rule of its own, or one of the keys is on the way to a place of secrets.
fn whole(value: &str, is_plain: bool) -> &str {
    let hidden = match value.as_bytes() {
        [b'{', ..] => "{…}",
        [b'[', ..] => "[…]",
        _ => return value,
    };
    // Values are asked, too: an escaped quote may make keys of them.
    let mut strings = value.split('"');
    if is_plain && !strings.any(fields::is_on_the_way) { value } else { hidden }
}

/// Whether a field's values are secret material in events about a resource, whatever they look
/// like.
pub fn holds_secret(field: &str, resource: &str) -> bool {
    if field == "keywords" {
        return true;
    }
    let Some(path) = below_object(field) else {
        return matches!(
            rule_of(field, resource),
            Some(Rule::Leaves | Rule::Whole | Rule::Json(_))
        );
    };
    // A whole body has secret parts somewhere, and of a body of a secret only few have none.
    let is_harmless = |parts: &[&str]| parts.iter().any(|part| starts(path, part));
    path.is_empty()
        || resource == "secrets"
            && !is_harmless(&["metadata.name", "metadata.namespace", "type", "kind", "path", "op"])
        || resource == "configmaps" && is_harmless(&["data", "binaryData", "value"])
        || resource == "tokenreviews" && is_harmless(&["spec", "status"])
        || resource == "serviceaccounts" && is_harmless(&["status", "spec.token"])
        || matches!(
            rule_of(field, resource),
            Some(Rule::Whole | Rule::Each | Rule::Leaves | Rule::Json(_) | Rule::Extra)
        )
}

/// The path below a body's object.
fn below_object(field: &str) -> Option<&str> {
    ["requestObject", "responseObject", "object", "pod"].iter().find_map(|root| {
        let path = field.strip_prefix(root)?;
        path.strip_prefix('.').or_else(|| path.is_empty().then_some(path))
    })
}

fn starts(path: &str, part: &str) -> bool {
    path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn rule_of(field: &str, resource: &str) -> Option<Rule> {
    match below_object(field) {
        Some(path) => fields::rule_of_field(path, OBJECT | scopes::scopes_of(resource)),
        None => fields::rule_of_field(field, scopes::EVENT),
    }
}

/// The text with the spans that are found in it replaced.
fn marked(text: &str, spans_in: impl Fn(&[u8], &mut Spans)) -> Cow<'_, str> {
    let mut spans = Spans::new();
    if !is_mark(text.as_bytes()) {
        spans_in(text.as_bytes(), &mut spans);
    }
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (start, end) in spans {
        out.push_str(&String::from_utf8_lossy(&text.as_bytes()[copied..start]));
        out.push_str(REDACTED);
        copied = end;
    }
    out.push_str(&String::from_utf8_lossy(&text.as_bytes()[copied..]));
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_looks_like_a_credential() {
        for (text, expected) in [
            ("/api/v1/secrets?limit=500", "/api/v1/secrets?limit=500"),
            ("password=correct, horse", "password=[REDACTED], horse"),
            ("token: authentication failed", "token: authentication failed"),
            ("basic authentication failed", "basic authentication failed"),
            ("privateKey: -----BEGIN PRIVATE KEY-----\nabc", "privateKey: [REDACTED]"),
            (r#"{"password": "correct horse"}"#, r#"{"password": "[REDACTED]"}"#),
            ("token: [REDACTED:0123456789abcdef]", "token: [REDACTED:0123456789abcdef]"),
            (
                "system:serviceaccount:my-secret:reader-1",
                "system:serviceaccount:my-secret:reader-1",
            ),
            ("/x?token=abcdef&watch=1", "/x?token=[REDACTED]&watch=1"),
            ("mysql -u root --password hunter22", "mysql -u root --password [REDACTED]"),
            (
                "curl -H Authorization: Bearer abcdefghijk",
                "curl -H Authorization: Bearer [REDACTED]",
            ),
            ("https://u:pass@host/x", "https://u:[REDACTED]@host/x"),
            ("eyJhbGciOiJSUzI1.eyJzdWIiOiJ4eHg.c2ln x", "[REDACTED] x"),
            ("key AKIAIOSFODNN7EXAMPLE", "key [REDACTED]"),
            ("abcdef.0123456789abcdef", "[REDACTED]"),
            ("-----BEGIN RSA PRIVATE KEY-----\nabc", "[REDACTED]"),
            ("kube-system/coredns-5d78c9869d", "kube-system/coredns-5d78c9869d"),
        ] {
            assert_eq!(redact_text(text), expected);
        }
    }

    #[test]
    fn knows_the_fields_that_hold_secrets() {
        for (field, resource, is_secret) in [
            ("requestObject.data.password", "secrets", true),
            ("requestObject.type", "secrets", false),
            ("object.data.Corefile", "configmaps", true),
            ("object.metadata.name", "configmaps", false),
            ("responseObject.status.token", "serviceaccounts", true),
            ("requestObject.spec.token", "tokenreviews", true),
            ("pod.container.image", "pods", false),
            ("user.extra.authentication.kubernetes.io/credential-id", "pods", false),
            ("user.extra.oidc-claim", "pods", true),
            ("keywords", "pods", true),
            ("verb", "secrets", false),
            ("objectRef.resource", "secrets", false),
            ("objectRef.namespace", "configmaps", false),
            ("requestObject.webhooks.clientConfig.caBundle", "x", true),
            (
                "object.metadata.annotations.kubectl.kubernetes.io/last-applied-configuration",
                "x",
                true,
            ),
            ("pod.container.args", "pods", false),
            ("annotations.authorization.k8s.io/reason", "pods", false),
        ] {
            assert_eq!(holds_secret(field, resource), is_secret, "{field} of {resource}");
        }
    }

    #[test]
    fn shows_of_a_field_what_is_no_secret() {
        let mut redactor = FieldRedactor::default();
        for (field, value, expected) in [
            ("pod.container.env.value", "debug", REDACTED),
            ("requestObject.spec.params.value", "debug", REDACTED),
            ("request.command", "redis-cli -a hunter2 ping", "redis-cli -a [REDACTED] ping"),
            (
                "request.command",
                "sh -c curl -u a:b http://c",
                "sh -c curl -u a:[REDACTED] http://c",
            ),
            ("pod.container.env.value", "c0ffee-c0ffee", REDACTED),
            ("pod.container.args", "--token=abc", "--token=[REDACTED]"),
            ("requestObject.spec", r#"{"containers":[{"env":[{"name":"A","#, "{…}"),
            ("requestObject.spec.containers.env", r#"[{"name":"A","value":"b"}]"#, "[…]"),
            ("pod.container.env", r#"{"name":"A","value":"hunter2"}"#, "{…}"),
            ("requestObject.template", r#"{"data":{"a":"b"}}"#, "{…}"),
            (
                "requestObject.subjects",
                r#"{"kind":"User","name":"eve","apiGroup":"g"}"#,
                r#"{"kind":"User","name":"eve","apiGroup":"g"}"#,
            ),
            ("pod.container.args", "curl http://x | sh", "curl http://x | sh"),
            ("requestURI", "/x/proxy/run?cmd=id", "/x/proxy/run?cmd=[REDACTED]"),
            (
                "responseStatus.message",
                "Invalid value: \"abc\": no",
                "Invalid value: \"[REDACTED]\": no",
            ),
        ] {
            assert_eq!(redactor.redact(field, "pods", value), expected, "{field}");
        }
    }
}
