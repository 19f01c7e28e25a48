//! Fields that are computed from an event rather than written in it: the request's path without its
//! query, the command of an exec, the source address that can be trusted.
//!
//! Each is a function of the event alone (and of the configured proxies), so rules that use them
//! mean the same live, in replay and in tests.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::event::actor::ActorKind;
use crate::event::shape::{self, Id, is_clean};
use crate::event::value::Type;
use crate::event::{Event, Slot};

/// A derived field that has at most one value an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Derived {
    /// `actor.kind`
    ActorKind,
    /// `actor.name`
    ActorName,
    /// `actor.source_ip`
    SourceIp,
    /// `actor.source_public`
    SourcePublic,
    /// `actor.credential_id`
    CredentialId,
    /// `actor.user_agent_family`
    UserAgentFamily,
    /// `request.path`
    Path,
    /// `request.command`
    Command,
    /// `request.dry_run`
    DryRun,
    /// `request.outcome`
    Outcome,
    /// `request.proxy_path`
    ProxyPath,
    /// `request.path_is_clean`
    PathIsClean,
    /// `request.audit_id_kind`
    AuditIdKind,
    /// `actor.is_forwarded`
    IsForwarded,
    /// `request.annotation_keys`
    AnnotationKeys,
}

impl Derived {
    /// Every derived field with the name by which rules use it.
    pub const ALL: [(Derived, &'static str); 15] = [
        (Derived::ActorKind, "actor.kind"),
        (Derived::ActorName, "actor.name"),
        (Derived::SourceIp, "actor.source_ip"),
        (Derived::SourcePublic, "actor.source_public"),
        (Derived::CredentialId, "actor.credential_id"),
        (Derived::UserAgentFamily, "actor.user_agent_family"),
        (Derived::Path, "request.path"),
        (Derived::Command, "request.command"),
        (Derived::DryRun, "request.dry_run"),
        (Derived::Outcome, "request.outcome"),
        (Derived::ProxyPath, "request.proxy_path"),
        (Derived::PathIsClean, "request.path_is_clean"),
        (Derived::AuditIdKind, "request.audit_id_kind"),
        (Derived::IsForwarded, "actor.is_forwarded"),
        (Derived::AnnotationKeys, "request.annotation_keys"),
    ];

    /// The derived field of this name.
    pub fn of_name(name: &str) -> Option<Derived> {
        Derived::ALL.iter().find(|(_, known)| *known == name).map(|(field, _)| *field)
    }

    /// Computes the field; `None` when the event has nothing to compute it from.
    pub fn value<'a>(self, event: &Event<'a>, proxies: &[IpNet]) -> Option<Cow<'a, str>> {
        match self {
            Derived::ActorKind => Some(Cow::Borrowed(actor_kind(event).as_str())),
            Derived::ActorName => actor_name(event),
            Derived::SourceIp => source_ip(event, proxies),
            Derived::SourcePublic => {
                let address = source_address(event, proxies)?;
                Some(Cow::Borrowed(if is_public(address) { "true" } else { "false" }))
            }
            Derived::CredentialId => event.user_extra(CREDENTIAL_ID),
            Derived::UserAgentFamily => user_agent_family(event),
            Derived::Path => path(event),
            Derived::Command => command(event),
            Derived::DryRun => Some(word(is_dry_run(event))),
            Derived::Outcome => Some(Cow::Borrowed(Outcome::of(event.code()).as_str())),
            Derived::ProxyPath => proxy_path(event),
            Derived::PathIsClean => {
                let uri = bytes(event, Slot::RequestUri)?;
                Some(word(is_clean(&uri[..path_end(&uri)])))
            }
            Derived::AuditIdKind => {
                let id = bytes(event, Slot::AuditId)?;
                Some(Cow::Borrowed(match Id::of(&id) {
                    Id::Random => "random",
                    Id::Uuid => "uuid",
                    Id::Other => "other",
                }))
            }
            Derived::IsForwarded => {
                let addresses = event.slot(Slot::SourceIps)?;
                let is_one = addresses.only_text().is_some();
                Some(word(!is_one && addresses.elements().nth(1).is_some()))
            }
            Derived::AnnotationKeys => {
                let keys = event.slot(Slot::Annotations)?.members().map(|(key, _)| key);
                Some(Cow::Owned(keys.collect::<Vec<_>>().join(" ")))
            }
        }
    }
}

impl Derived {
    /// The values that it can have, where these are a few words.
    pub fn words(self) -> Option<&'static [&'static str]> {
        match self {
            Derived::SourcePublic | Derived::PathIsClean | Derived::IsForwarded => {
                Some(&["true", "false"])
            }
            Derived::AuditIdKind => Some(&["random", "uuid", "other"]),
            _ => None,
        }
    }
}

/// The `user.extra` key under which Kubernetes 1.32 and later name the credential of a request.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// The bytes of a slot's text, not looked at where nothing in it is escaped.
fn bytes<'a>(event: &Event<'a>, slot: Slot) -> Option<Cow<'a, [u8]>> {
    let value = event.slot(slot)?;
    let text = || value.text().map(|text| Cow::Owned(text.into_owned().into_bytes()));
    value.plain().map(Cow::Borrowed).or_else(text)
}

fn word(holds: bool) -> Cow<'static, str> {
    Cow::Borrowed(if holds { "true" } else { "false" })
}

/// Where the path of a URI ends.
fn path_end(uri: &[u8]) -> usize {
    memchr::memchr2(b'?', b'#', uri).unwrap_or(uri.len())
}

/// How a request ended, by its HTTP status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 100-399; 101 is a session that was opened.
    Success,
    /// 401 or 403.
    Denied,
    /// Every other code from 400 on.
    Failed,
    /// No code: the request is still under way, or the event was cut.
    Unknown,
}

impl Outcome {
    /// The outcome that a status code means.
    pub fn of(code: Option<u16>) -> Outcome {
        match code {
            Some(100..=399) => Outcome::Success,
            Some(401 | 403) => Outcome::Denied,
            Some(400..) => Outcome::Failed,
            Some(_) | None => Outcome::Unknown,
        }
    }

    /// The word that rules use.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Denied => "denied",
            Outcome::Failed => "failed",
            Outcome::Unknown => "unknown",
        }
    }
}

/// The kind of the authenticated identity, never of the impersonated one.
pub fn actor_kind(event: &Event<'_>) -> ActorKind {
    let name = event.slot(Slot::Username);
    match name.filter(|name| name.kind() == Type::String).and_then(|name| name.plain()) {
        Some(plain) => ActorKind::of_bytes(plain),
        None => ActorKind::of(&name.and_then(|name| name.text()).unwrap_or_default()),
    }
}

/// The effective identity: the impersonated user where there is one.
fn actor_name<'a>(event: &Event<'a>) -> Option<Cow<'a, str>> {
    let impersonated = event.slot(Slot::ImpersonatedUser);
    let effective = impersonated.and_then(|user| user.member("username")).and_then(|n| n.text());
    effective.or_else(|| event.text(Slot::Username))
}

/// The last source address that is no trusted proxy: kube-apiserver appends the true peer to what
/// the client claims in X-Forwarded-For, so everything before the last untrusted hop may be forged.
pub fn source_ip<'a>(event: &Event<'a>, proxies: &[IpNet]) -> Option<Cow<'a, str>> {
    let addresses = event.slot(Slot::SourceIps)?;
    if let Some(only) = addresses.only_text() {
        return only.text();
    }
    let addresses: Vec<_> = addresses.elements().filter_map(|value| value.text()).collect();
    let is_proxy = |text: &str| {
        text.parse().is_ok_and(|address: IpAddr| {
            proxies.iter().any(|net| net.contains(&address.to_canonical()))
        })
    };
    let untrusted = addresses.iter().rposition(|address| !is_proxy(address)).unwrap_or(0);
    addresses.into_iter().nth(untrusted)
}

/// The same as an address, if it is one.
fn source_address(event: &Event<'_>, proxies: &[IpNet]) -> Option<IpAddr> {
    let only = event.slot(Slot::SourceIps)?.only_text();
    match only.and_then(|only| only.plain()) {
        Some(plain) => shape::address(plain),
        None => shape::address(source_ip(event, proxies)?.as_bytes()),
    }
}

/// Whether the address is routed on the internet: none of the special-purpose blocks of IANA's
/// registries (RFC 6890 and its updates).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (b == 18 || b == 19)))
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            let is_documentation = first == 0x2001 && v6.segments()[1] == 0xdb8;
            (0x2000..0x4000).contains(&first) && !is_documentation
        }
    }
}

/// The user agent up to the first `/` or blank, lower case.
fn user_agent_family<'a>(event: &Event<'a>) -> Option<Cow<'a, str>> {
    let agent = event.text(Slot::UserAgent)?;
    let end = agent.find(['/', ' ']).unwrap_or(agent.len());
    Some(Cow::Owned(agent[..end].to_lowercase()))
}

/// The path of a request URI: without query, percent-decoded, dot segments and doubled slashes
/// resolved, so that `//api/./v1/%73ecrets` cannot hide from a rule.
fn path<'a>(event: &Event<'a>) -> Option<Cow<'a, str>> {
    if let Some(uri) = event.plain(Slot::RequestUri)
        && let Ok(path) = std::str::from_utf8(&uri[..path_end(uri)])
        && is_clean(path.as_bytes())
    {
        return Some(Cow::Borrowed(path));
    }
    let uri = event.text(Slot::RequestUri)?;
    let path = &uri[..path_end(uri.as_bytes())];
    let is_clean = is_clean(path.as_bytes());
    let cleaned = || clean_path(&percent_decode(path, false));
    Some(Cow::Owned(if is_clean { path.to_owned() } else { cleaned() }))
}

/// Resolves `//`, `/./`, `/../` and a trailing `/` as a file system does; keeps a lone `/`.
pub fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// What follows `/proxy` in the path of a proxy request, `/` when nothing does.
fn proxy_path<'a>(event: &Event<'a>) -> Option<Cow<'a, str>> {
    if event.plain(Slot::Subresource) != Some(b"proxy") {
        return None;
    }
    let path = path(event)?;
    let (_, rest) = path.split_once("/proxy")?;
    Some(Cow::Owned(if rest.is_empty() { "/".to_owned() } else { rest.to_owned() }))
}

/// The `command` parameters of an exec or attach, decoded, joined by one blank.
fn command<'a>(event: &Event<'a>) -> Option<Cow<'a, str>> {
    let uri = event.text(Slot::RequestUri)?;
    let words: Vec<String> = parameters(&uri)
        .filter(|(key, _)| *key == "command")
        .map(|(_, value)| percent_decode(value, true))
        .collect();
    if words.is_empty() {
        // GKE leaves the query out and names the command in a label of its own.
        return event.annotation("command.gke.io/command");
    }
    Some(Cow::Owned(words.join(" ")))
}

/// Whether the request asks for `dryRun=All`, in its query or (deletes) in its DeleteOptions.
fn is_dry_run(event: &Event<'_>) -> bool {
    let asks_for_all = |uri: Cow<'_, str>| {
        parameters(&uri).any(|(key, value)| key == "dryRun" && percent_decode(value, true) == "All")
    };
    // Few queries have a capital R at all.
    let is_possible = event.plain(Slot::RequestUri).is_none_or(|uri| uri.contains(&b'R'));
    let in_query = is_possible && event.text(Slot::RequestUri).is_some_and(asks_for_all);
    let is_delete = event.plain(Slot::Verb).is_some_and(|verb| verb.starts_with(b"delete"));
    in_query
        || (is_delete
            && event
                .slot(Slot::RequestObject)
                .and_then(|options| options.member("dryRun"))
                .is_some_and(|values| values.elements().any(|v| v.plain() == Some(b"All"))))
}

/// The parameters of a URI's query, still encoded.
fn parameters(uri: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Decodes `%XX` (and `+` as a blank in queries); a broken escape stays as it is, bytes that are no
/// UTF-8 become U+FFFD.
pub fn percent_decode(text: &str, plus_is_blank: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let hex = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
        match (byte, hex(index + 1), hex(index + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                index += 2;
            }
            (b'+', ..) if plus_is_blank => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A container image by its full name: registry, repository and tag or digest spelled out, as the
/// container runtimes resolve it (`nginx` is `docker.io/library/nginx:latest`).
pub fn full_image(image: &str) -> String {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let repository = image_repository(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    match (digest, last.split_once(':')) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, Some((_, tag))) => format!("{repository}:{tag}"),
        (None, None) => format!("{repository}:latest"),
    }
}

/// The image's full name without tag and digest.
pub fn image_repository(image: &str) -> String {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let name = match name[slash..].find(':') {
        Some(colon) => &name[..slash + colon],
        None => name,
    };
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

/// The attributes of a certificate request's subject (`CN=alice`, `O=system:masters`): `request` is
/// the base64 of a PEM block, as CertificateSigningRequest's `spec.request` holds it. Empty when it
/// cannot be decoded.
pub fn csr_subject(request: &str) -> Vec<String> {
    use base64::Engine as _;
    use x509_cert::der::Decode as _;
    use x509_cert::der::oid::db::rfc4519::{COMMON_NAME, ORGANIZATION_NAME};

    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(request.trim()) else {
        return Vec::new();
    };
    let Ok((_, der)) = x509_cert::der::pem::decode_vec(&pem) else { return Vec::new() };
    let Ok(csr) = x509_cert::request::CertReq::from_der(&der) else { return Vec::new() };
    let attributes = csr.info.subject.0.iter().flat_map(|set| set.0.iter());
    attributes
        .map(|attribute| {
            let name = match attribute.oid {
                COMMON_NAME => "CN".to_owned(),
                ORGANIZATION_NAME => "O".to_owned(),
                other => other.to_string(),
            };
            format!("{name}={}", String::from_utf8_lossy(attribute.value.value()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, event: &str, expected: Option<&str>) {
        let text = format!(r#"{{"auditID":"a","stage":"s","verb":"get",{event}}}"#);
        let event = Event::parse(text.as_bytes()).expect("an event");
        let field = Derived::of_name(name).expect("a derived field");
        let proxies = ["10.9.0.0/16".parse().expect("a net")];
        assert_eq!(field.value(&event, &proxies).as_deref(), expected, "{name} of {text}");
    }

    #[test]
    fn computes_each_field() {
        check("actor.kind", r#""user":{}"#, Some("anonymous"));
        check("actor.kind", r#""user":{"username":"system:node:n"}"#, Some("node"));
        check("actor.name", r#""user":{"username":"a"}"#, Some("a"));
        let both = r#""user":{"username":"a"},"impersonatedUser":{"username":"b"}"#;
        check("actor.name", both, Some("b"));
        check("actor.source_ip", r#""sourceIPs":["1.1.1.1","10.1.1.1"]"#, Some("10.1.1.1"));
        check("actor.source_ip", r#""sourceIPs":["1.1.1.1","10.9.1.1"]"#, Some("1.1.1.1"));
        check("actor.source_ip", r#""sourceIPs":["10.9.1.1"]"#, Some("10.9.1.1"));
        check("actor.source_public", r#""sourceIPs":["8.8.8.8"]"#, Some("true"));
        check("actor.source_public", r#""sourceIPs":["100.64.1.1"]"#, Some("false"));
        check("actor.source_public", r#""sourceIPs":["::ffff:10.0.0.1"]"#, Some("false"));
        check("actor.source_public", r#""sourceIPs":["2a00:1450::1"]"#, Some("true"));
        check("actor.user_agent_family", r#""userAgent":"Kubectl/v1 (x)""#, Some("kubectl"));
        check("request.path", r#""requestURI":"/api/v1/pods?limit=1""#, Some("/api/v1/pods"));
        check(
            "request.path",
            r#""requestURI":"//api/./v1/x/../%73ecrets/""#,
            Some("/api/v1/secrets"),
        );
        let exec = r#""requestURI":"/x/exec?command=sh\u0026command=-c\u0026command=a%26b+c\u0026tty=true""#;
        check("request.command", exec, Some("sh -c a&b c"));
        check("request.command", r#""requestURI":"/x?tty=true""#, None);
        check("request.dry_run", r#""requestURI":"/x?dryRun=All""#, Some("true"));
        check("request.dry_run", r#""requestURI":"/x?dryRun=""#, Some("false"));
        check("request.outcome", r#""responseStatus":{"code":101}"#, Some("success"));
        check("request.outcome", r#""responseStatus":{"code":403}"#, Some("denied"));
        check("request.outcome", r#""responseStatus":{"code":404}"#, Some("failed"));
        check("request.outcome", r#""level":"Metadata""#, Some("unknown"));
        let annotations = r#""annotations":{"a/b":"c","d":"e"}"#;
        check("request.annotation_keys", annotations, Some("a/b d"));
        check("request.annotation_keys", r#""annotations":{}"#, Some(""));
        let proxy =
            r#""objectRef":{"subresource":"proxy"},"requestURI":"/api/v1/nodes/n/proxy/run/a?b""#;
        check("request.proxy_path", proxy, Some("/run/a"));
    }

    #[test]
    fn names_images_in_full() {
        for (image, full, repository) in [
            ("nginx", "docker.io/library/nginx:latest", "docker.io/library/nginx"),
            ("a/b:1", "docker.io/a/b:1", "docker.io/a/b"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x"),
            ("ghcr.io/o/i:2@sha256:ab", "ghcr.io/o/i@sha256:ab", "ghcr.io/o/i"),
        ] {
            assert_eq!(full_image(image), full);
            assert_eq!(image_repository(image), repository);
        }
    }

    #[test]
    fn cleans_paths() {
        for (path, clean) in
            [("/", "/"), ("//etc/", "/etc"), ("/a/../..", "/"), ("", ""), ("/./x", "/x")]
        {
            assert_eq!(clean_path(path), clean, "{path}");
        }
    }

    #[test]
    fn reads_the_subject_of_a_certificate_request() {
        // openssl req -new -newkey ed25519 -nodes -subj "/O=system:masters/CN=eve" | base64 -w0
        let request = include_str!("../../tests/corpus/csr.b64");
        assert_eq!(csr_subject(request), ["O=system:masters", "CN=eve"]);
        assert!(csr_subject("bm90IGEgY3Ny").is_empty());
    }
}
