//! Identities that do not depend on when, where or in which order events were read.
//!
//! Both identities are the first 128 bits of SHA-256 over parts that each follow their length as
//! eight bytes, little endian; without the lengths, `("ab", "c")` and `("a", "bc")` would be one.
//!
//! Why a cryptographic hash for requests too: two requests with equal keys raise one alert between
//! them, and the client chooses most of what goes into the key. Against a fast hash it could search
//! for a second request that hides behind the first; here a collision costs about 2^64 tries. The
//! key is computed only for requests that match a rule, so its cost does not show.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What tells one request from another, the same at all its stages. Never the audit id alone, which
/// the client chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestParts<'a> {
    /// The cluster as configured; empty when none is.
    pub cluster: &'a str,
    /// `auditID`.
    pub audit_id: &'a str,
    /// `user.username`; empty when absent.
    pub username: &'a str,
    /// `verb`.
    pub verb: &'a str,
    /// `requestURI`, as it stands in the event.
    pub uri: &'a str,
    /// `requestReceivedTimestamp`, as it stands in the event.
    pub received_at: &'a str,
}

/// The identity of one request.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestKey(pub [u8; 16]);

impl RequestKey {
    /// Computes the key.
    pub fn new(parts: RequestParts<'_>) -> RequestKey {
        let RequestParts { cluster, audit_id, username, verb, uri, received_at } = parts;
        let mut hasher = Sha256::new();
        for part in [cluster, audit_id, username, verb, uri, received_at] {
            absorb(&mut hasher, part.as_bytes());
        }
        RequestKey(first_half(hasher))
    }
}

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(self.0))
    }
}

/// The identity of an alert: 32 hex digits over the rule, the requests it rests on, and the
/// cluster.
///
/// The order of `requests` and repeats in it do not matter. Give all of them, not only those whose
/// evidence is kept.
pub fn alert_id(rule_id: &str, requests: &[RequestKey], cluster: &str) -> String {
    let mut requests = requests.to_vec();
    requests.sort_unstable();
    requests.dedup();
    let mut hasher = Sha256::new();
    absorb(&mut hasher, rule_id.as_bytes());
    absorb(&mut hasher, cluster.as_bytes());
    hasher.update((requests.len() as u64).to_le_bytes());
    for request in requests {
        hasher.update(request.0);
    }
    hex(first_half(hasher))
}

fn absorb(hasher: &mut Sha256, part: &[u8]) {
    hasher.update((part.len() as u64).to_le_bytes());
    hasher.update(part);
}

fn first_half(hasher: Sha256) -> [u8; 16] {
    let digest = hasher.finalize();
    let (half, _) = digest.split_first_chunk::<16>().expect("SHA-256 gives 32 bytes");
    *half
}

fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: RequestParts<'_> = RequestParts {
        cluster: "prod-1",
        audit_id: "37da3cdb-4883-4a0c-b61b-33a4c941a5f0",
        username: "alice",
        verb: "get",
        uri: "/api?timeout=32s",
        received_at: "2026-11-22T00:16:52.710682Z",
    };

    /// These ids are in archives and in other systems: a change here breaks their de-duplication.
    #[test]
    fn ids_are_what_they_were() {
        let key = RequestKey::new(PARTS);
        assert_eq!(format!("{key:?}"), "40fa4558bdaf7f31884cd391e26813f5");
        assert_eq!(alert_id("rule-1", &[key], "prod-1"), "f746501abffe4ba5ab1269803bd9635b");
    }

    #[test]
    fn every_part_counts_and_parts_do_not_run_together() {
        let same = RequestKey::new(PARTS);
        let others = [
            RequestParts { cluster: "prod-2", ..PARTS },
            RequestParts { audit_id: "other", ..PARTS },
            RequestParts { username: "bob", ..PARTS },
            RequestParts { verb: "list", ..PARTS },
            RequestParts { uri: "/api", ..PARTS },
            RequestParts { received_at: "2026-11-22T00:16:52.710683Z", ..PARTS },
            RequestParts { username: "alic", verb: "eget", ..PARTS },
        ];
        for other in others {
            assert_ne!(same, RequestKey::new(other), "{other:?}");
        }
    }

    #[test]
    fn order_and_repeats_do_not_matter() {
        let a = RequestKey::new(PARTS);
        let b = RequestKey::new(RequestParts { verb: "list", ..PARTS });
        let id = alert_id("r", &[a, b], "c");
        assert_eq!(id, alert_id("r", &[b, a], "c"));
        assert_eq!(id, alert_id("r", &[b, a, b], "c"));
        assert_ne!(id, alert_id("r", &[a], "c"));
        assert_ne!(id, alert_id("rc", &[a, b], ""));
        assert_ne!(id, alert_id("r", &[a, b], "d"));
    }
}
