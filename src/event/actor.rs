//! Who did it: the kind of identity behind a username.

use serde::{Deserialize, Serialize};

/// The kind of an identity, by the names that Kubernetes and the managed clouds reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A person, or whatever authenticates as one (certificates, OIDC, a CI's own user). Also
    /// `system:admin`: the administrator of K3s, RKE2 and OpenShift, whose file people hold.
    User,
    /// `system:serviceaccount:<namespace>:<name>`.
    ServiceAccount,
    /// `system:node:<name>`.
    Node,
    /// `system:anonymous`, or nobody: a request that failed authentication has no username.
    Anonymous,
    /// Every other `system:` name, and the clouds' own control-plane identities.
    System,
}

/// Control-plane identities of managed clouds that carry no `system:` prefix: EKS (`eks:…`), AKS
/// (`aksService`, `hcpService`), GKE (`gke-…`).
const CLOUD_PREFIXES: [&[u8]; 2] = [b"eks:", b"gke-"];
const CLOUD_NAMES: [&[u8]; 2] = [b"aksService", b"hcpService"];

impl ActorKind {
    /// The kind of the identity with this `user.username`.
    pub fn of(username: &str) -> ActorKind {
        ActorKind::of_bytes(username.as_bytes())
    }

    /// As [`ActorKind::of`], of a name that nobody has looked at yet.
    #[inline]
    pub fn of_bytes(username: &[u8]) -> ActorKind {
        match username.strip_prefix(b"system:") {
            Some(rest) if rest.starts_with(b"serviceaccount:") => ActorKind::ServiceAccount,
            Some(rest) if rest.starts_with(b"node:") => ActorKind::Node,
            Some(b"anonymous") => ActorKind::Anonymous,
            Some(b"admin") => ActorKind::User,
            Some(_) => ActorKind::System,
            None if username.is_empty() => ActorKind::Anonymous,
            None if CLOUD_NAMES.contains(&username)
                || CLOUD_PREFIXES.iter().any(|prefix| username.starts_with(prefix)) =>
            {
                ActorKind::System
            }
            None => ActorKind::User,
        }
    }

    /// The word that rules and alerts use.
    pub fn as_str(self) -> &'static str {
        match self {
            ActorKind::User => "user",
            ActorKind::ServiceAccount => "service_account",
            ActorKind::Node => "node",
            ActorKind::Anonymous => "anonymous",
            ActorKind::System => "system",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kind() {
        for (username, kind) in [
            ("alice", ActorKind::User),
            ("oidc:grace", ActorKind::User),
            ("masterclient", ActorKind::User),
            ("system:serviceaccount:kube-system:coredns", ActorKind::ServiceAccount),
            ("system:node:worker-1", ActorKind::Node),
            ("system:anonymous", ActorKind::Anonymous),
            ("", ActorKind::Anonymous),
            ("system:kube-scheduler", ActorKind::System),
            ("system:admin", ActorKind::User),
            ("system:administrator", ActorKind::System),
            ("eks:node-manager", ActorKind::System),
            ("aksService", ActorKind::System),
        ] {
            assert_eq!(ActorKind::of(username), kind, "{username}");
        }
    }
}
