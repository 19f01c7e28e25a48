//! Keeps secrets out of what leaves memory: which fields hold them, and what they look like.
//!
//! Matching reads the original bytes; whatever is shown (reasons, URIs, summaries) passes here
//! first. Paths come from the table of places where Kubernetes puts secret material, patterns from
//! the formats of the credentials themselves.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What stands in place of a value.
pub const REDACTED: &str = "[REDACTED]";

/// Parts of a text that are credentials whatever field they stand in. A group named `keep` stays.
static CREDENTIAL: LazyLock<Regex> = LazyLock::new(|| {
    let patterns = [
        // JSON Web Token (RFC 7519): two base64url objects and a signature.
        r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",
        // PEM private keys, to the end marker or of the text.
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
        // AWS access key ids and what follows a secret's name.
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        // GitHub, GitLab, Slack tokens.
        r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}",
        r"\bglpat-[A-Za-z0-9_-]{16,}|\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
        // Kubernetes bootstrap tokens (kubeadm: id.secret).
        r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b",
        // Credentials in an Authorization header.
        r"(?P<keep1>(?i)\b(?:bearer|basic) +)[A-Za-z0-9+/=._~-]{8,}",
        // user:password@ in a URL.
        r"(?P<keep2>://[^/\s:@]{1,256}:)[^/\s@]{1,256}@",
        // name=value, name: value, --name value, for names that say what they hold.
        concat!(
            r"(?P<keep3>(?i)(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|",
            r"private[_-]?key|credential|x-amz-signature|x-amz-credential|x-amz-security-token|",
            r"\bsig)[a-z0-9_-]{0,32}(?:\s*[=:]\s*|\s+))[^\s&,;\x22']{4,}",
        ),
    ];
    Regex::new(&patterns.map(|pattern| format!("(?:{pattern})")).join("|"))
        .expect("the patterns are fixed and a test compiles them")
});

/// The text with everything in it replaced that looks like a credential.
pub fn redact_text(text: &str) -> Cow<'_, str> {
    CREDENTIAL.replace_all(text, |found: &Captures<'_>| {
        let keep = ["keep1", "keep2", "keep3"].iter().find_map(|name| found.name(name));
        let kept = keep.map_or("", |kept| kept.as_str());
        let at = if found.name("keep2").is_some() { "@" } else { "" };
        format!("{kept}{REDACTED}{at}")
    })
}

/// The value of a field as it may be shown: replaced as a whole where the field holds secret
/// material in events about `resource`, else cleaned of credentials.
pub fn redact_field<'v>(field: &str, resource: &str, value: &'v str) -> Cow<'v, str> {
    if holds_secret(field, resource) { Cow::Borrowed(REDACTED) } else { redact_text(value) }
}

/// Whether a field's values are secret material in events about a resource.
pub fn holds_secret(field: &str, resource: &str) -> bool {
    let Some(path) = ["requestObject", "responseObject", "object"]
        .iter()
        .find_map(|root| field.strip_prefix(root))
        .filter(|rest| rest.is_empty() || rest.starts_with('.'))
    else {
        return field == "keywords" || field.starts_with("user.extra.") && !is_public_extra(field);
    };
    let path = path.trim_start_matches('.');
    let starts = |prefixes: &[&str]| {
        prefixes.iter().any(|prefix| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    match resource {
        // A JSON Patch or a whole body of a secret has no safe part but its metadata.
        "secrets" => {
            !starts(&["metadata.name", "metadata.namespace", "type", "kind", "path", "op"])
        }
        "configmaps" => path.is_empty() || starts(&["data", "binaryData", "value"]),
        "tokenreviews" => path.is_empty() || starts(&["spec", "status"]),
        "serviceaccounts" => starts(&["status", "spec.token"]),
        _ => path.is_empty() || path.ends_with("last-applied-configuration"),
    }
}

/// `user.extra` keys that name a credential or a place without being one.
fn is_public_extra(field: &str) -> bool {
    let key = field.trim_start_matches("user.extra.");
    key.starts_with("authentication.kubernetes.io/")
        || matches!(key, "arn" | "canonicalArn" | "sessionName" | "principalId")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_looks_like_a_credential() {
        for (text, expected) in [
            ("/api/v1/secrets?limit=500", "/api/v1/secrets?limit=500"),
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
        ] {
            assert_eq!(holds_secret(field, resource), is_secret, "{field} of {resource}");
        }
    }
}
