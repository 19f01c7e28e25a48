//! What kinds of objects there are for redaction: each has places of its own where secrets stand.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use crate::event::redact::patterns::hint;

/// For what kinds of objects a place holds; a set of bits.
pub(crate) type Scopes = u16;

/// The event itself.
pub(crate) const EVENT: Scopes = 1;
/// Every object in a body.
pub(crate) const OBJECT: Scopes = 2;
pub(crate) const SECRET: Scopes = 4;
pub(crate) const CONFIG_MAP: Scopes = 8;
/// Unknown kinds whose name says that they hold secrets.
pub(crate) const SECRET_LIKE: Scopes = 16;
pub(crate) const STORAGE_CLASS: Scopes = 32;
pub(crate) const EXTERNAL_SECRET: Scopes = 64;
pub(crate) const PROVIDER: Scopes = 128;
pub(crate) const CHALLENGE: Scopes = 256;
/// What admission webhooks changed: an annotation of the event.
pub(crate) const ADMISSION: Scopes = 512;
/// What admission policies found: an annotation of the event.
pub(crate) const FAILURE: Scopes = 1024;
/// Config maps of kube-system whose text rules and people read.
pub(crate) const COREDNS: Scopes = 2048;
pub(crate) const AWS_AUTH: Scopes = 4096;
pub(crate) const SEALED_SECRET: Scopes = 8192;

/// Of every name that has a scope, a part.
static TELLING: LazyLock<AhoCorasick> = LazyLock::new(|| {
    hint(&[
        "secret",
        "token",
        "credential",
        "key",
        "configmap",
        "storageclass",
        "volumesnapshotclass",
        "volumeattributesclass",
        "providerconfig",
        "challenge",
    ])
});

/// A Secret, and nothing around it.
pub(crate) const STRICT: Scopes = 16384;

/// The kinds that are told apart wherever they stand in a body: objects in objects.
pub(crate) const EMBEDDED: Scopes = SECRET | CONFIG_MAP | SEALED_SECRET;

/// The scopes of a resource (`secrets`) or kind (`SecretList`).
pub(crate) fn scopes_of(name: &str) -> Scopes {
    match name {
        "secrets" | "Secret" => return SECRET | STRICT,
        "configmaps" | "ConfigMap" => return CONFIG_MAP,
        _ => {}
    }
    // Most names have nothing of this.
    if !TELLING.is_match(name) {
        return 0;
    }
    let lower = name.to_ascii_lowercase();
    let holds = |part: &str| lower.contains(part);
    let mut scopes = 0;
    if matches!(lower.as_str(), "secret" | "secrets" | "secretlist") {
        scopes |= SECRET | STRICT;
    } else if lower.starts_with("configmap") {
        scopes |= CONFIG_MAP;
    } else if lower.starts_with("sealedsecret") {
        scopes |= SEALED_SECRET;
    } else if ["secret", "token", "credential", "key"].iter().any(|part| holds(part)) {
        scopes |= SECRET_LIKE;
    }
    if holds("storageclass") || holds("volumesnapshotclass") || holds("volumeattributesclass") {
        scopes |= STORAGE_CLASS;
    }
    if holds("secretstore") || holds("externalsecret") || holds("pushsecret") {
        scopes |= EXTERNAL_SECRET;
    }
    if holds("providerconfig") {
        scopes |= PROVIDER;
    }
    if lower.starts_with("challenge") {
        scopes |= CHALLENGE;
    }
    scopes
}
