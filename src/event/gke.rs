//! Google Cloud's LogEntry of a Kubernetes request, written anew in the shape of an audit event.
//!
//! GKE logs no `audit.k8s.io` events but `google.cloud.audit.AuditLog`: the method and resource
//! name carry what `verb`, `objectRef` and `requestURI` hold, `status` is gRPC's, groups are
//! missing. Of the groups only those are added that Kubernetes gives by the kind of user, without
//! exception.

use std::borrow::Cow;
use std::fmt::Write;

use crate::event::split::value_end;
use crate::event::value::{Type, Value};

/// What a LogEntry came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mapped {
    /// The audit event, fields in the API server's order, and the cluster's name.
    Event {
        /// The event's JSON.
        json: Vec<u8>,
        /// `resource.labels.cluster_name`.
        cluster: Option<String>,
    },
    /// A LogEntry of something else than a Kubernetes request.
    Other {
        /// `resource.labels.cluster_name`.
        cluster: Option<String>,
    },
    /// A row of the audit log that does not say whose service was called.
    Unknown,
    /// Not one whole object.
    Malformed,
}

/// Maps one LogEntry.
pub(crate) fn to_audit(entry: &[u8]) -> Mapped {
    if value_end(entry, 0) != Some(entry.len()) {
        return Mapped::Malformed;
    }
    let entry = Value::of(entry);
    let cluster = text(entry, &["resource", "labels", "cluster_name"]);
    // The sink to BigQuery writes the same payload in a column of its own.
    let row = entry.member("protopayload_auditlog");
    let Some(payload) = entry.member("protoPayload").or(row) else {
        return Mapped::Other { cluster };
    };
    match text(payload, &["serviceName"]).as_deref() {
        Some("k8s.io") => {}
        None if row.is_some() => return Mapped::Unknown,
        _ => return Mapped::Other { cluster },
    }
    Mapped::Event { json: audit_json(entry, payload).into_bytes(), cluster }
}

fn audit_json(entry: Value<'_>, payload: Value<'_>) -> String {
    let method = text(payload, &["methodName"]).unwrap_or_default();
    let verb = method.rsplit('.').next().unwrap_or_default();
    let name = text(payload, &["resourceName"]).unwrap_or_default();
    let target = Target::parse(&name, verb);
    let request = body(payload, "request", "requestJson");
    let response = body(payload, "response", "responseJson");
    let level = match (&request, &response) {
        (_, Some(_)) => "RequestResponse",
        (Some(_), None) => "Request",
        (None, None) => "Metadata",
    };
    let is_start = is_true(entry, "first") && !is_true(entry, "last");
    let stage = if is_start { "ResponseStarted" } else { "ResponseComplete" };

    let mut json = String::from(r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1""#);
    member(&mut json, "level", level);
    member(&mut json, "auditID", &text(entry, &["insertId"]).unwrap_or_default());
    member(&mut json, "stage", stage);
    member(&mut json, "requestURI", &target.uri);
    member(&mut json, "verb", verb);
    write_user(&mut json, payload);
    if let Some(ip) = text(payload, &["requestMetadata", "callerIp"]) {
        push(&mut json, format_args!(",\"sourceIPs\":[{}]", quoted(&ip)));
    }
    if let Some(agent) = text(payload, &["requestMetadata", "callerSuppliedUserAgent"]) {
        member(&mut json, "userAgent", &agent);
    }
    target.write(&mut json);
    write_status(&mut json, payload, verb, &target);
    for (key, body) in [("requestObject", request), ("responseObject", response)] {
        if let Some(body) = body {
            push(&mut json, format_args!(",\"{key}\":{body}"));
        }
    }
    if let Some(time) = text(entry, &["timestamp"]).map(rfc3339) {
        member(&mut json, "requestReceivedTimestamp", &time);
        member(&mut json, "stageTimestamp", &time);
    }
    write_annotations(&mut json, entry, payload);
    json.push('}');
    json
}

/// A body: the object itself, or, in a row of BigQuery, its JSON in a string.
fn body<'e>(payload: Value<'e>, key: &str, column: &str) -> Option<Cow<'e, str>> {
    if let Some(body) = payload.member(key) {
        return Some(String::from_utf8_lossy(body.raw()));
    }
    let body = payload.member(column)?.text()?;
    serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok().then_some(body)
}

/// BigQuery writes `2026-11-22 00:16:52.715698 UTC`.
fn rfc3339(time: String) -> String {
    match time.strip_suffix(" UTC") {
        Some(time) => time.replacen(' ', "T", 1) + "Z",
        None => time,
    }
}

/// What the request was for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Target {
    uri: String,
    group: String,
    version: String,
    namespace: String,
    resource: String,
    name: String,
    subresource: String,
}

impl Target {
    /// Reads `core/v1/namespaces/ns/pods/p/exec`; other names are paths of no resource.
    fn parse(resource_name: &str, verb: &str) -> Target {
        let parts: Vec<&str> = resource_name.split('/').filter(|part| !part.is_empty()).collect();
        let [group, version, rest @ ..] = parts.as_slice() else {
            return Target { uri: format!("/{resource_name}"), ..Target::default() };
        };
        let is_version =
            version.starts_with('v') && version[1..].starts_with(|c: char| c.is_ascii_digit());
        if rest.is_empty() || !is_version {
            return Target { uri: format!("/{resource_name}"), ..Target::default() };
        }
        let (namespace, path) = match rest {
            ["namespaces", name, "status" | "finalize", ..] => (*name, rest),
            ["namespaces", namespace, inner @ ..] if !inner.is_empty() => (*namespace, inner),
            ["namespaces", name] => (*name, rest),
            _ => ("", rest),
        };
        let part = |index: usize| path.get(index).copied().unwrap_or_default().to_owned();
        let group = if *group == "core" { "" } else { group };
        let mut target = Target {
            uri: String::new(),
            group: group.to_owned(),
            version: (*version).to_owned(),
            namespace: namespace.to_owned(),
            resource: part(0),
            name: part(1),
            subresource: path.get(2..).unwrap_or_default().join("/"),
        };
        target.uri = target.uri(verb);
        target
    }

    fn uri(&self, verb: &str) -> String {
        let mut uri = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if !self.namespace.is_empty() && self.resource != "namespaces" {
            push(&mut uri, format_args!("/namespaces/{}", self.namespace));
        }
        push(&mut uri, format_args!("/{}", self.resource));
        // A create is posted to the collection; the name in the entry is the new object's.
        let is_collection = verb == "create" && self.subresource.is_empty();
        if !self.name.is_empty() && !is_collection {
            push(&mut uri, format_args!("/{}", self.name));
        }
        if !self.subresource.is_empty() {
            push(&mut uri, format_args!("/{}", self.subresource));
        }
        uri
    }

    fn write(&self, json: &mut String) {
        if self.resource.is_empty() {
            return;
        }
        json.push_str(",\"objectRef\":{\"resource\":");
        json.push_str(&quoted(&self.resource));
        for (key, value) in [
            ("namespace", &self.namespace),
            ("name", &self.name),
            ("apiGroup", &self.group),
            ("apiVersion", &self.version),
            ("subresource", &self.subresource),
        ] {
            if !value.is_empty() {
                member(json, key, value);
            }
        }
        json.push('}');
    }
}

fn write_user(json: &mut String, payload: Value<'_>) {
    let name = text(payload, &["authenticationInfo", "principalEmail"])
        .or_else(|| text(payload, &["authenticationInfo", "principalSubject"]))
        .unwrap_or_default();
    if name.is_empty() {
        json.push_str(",\"user\":{}");
        return;
    }
    let mut groups = Vec::new();
    if let Some(account) = name.strip_prefix("system:serviceaccount:") {
        let namespace = account.split(':').next().unwrap_or_default();
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    } else if name.starts_with("system:node:") {
        groups.push("system:nodes".to_owned());
    }
    groups.push(match name.as_str() {
        "system:anonymous" => "system:unauthenticated".to_owned(),
        _ => "system:authenticated".to_owned(),
    });
    let groups: Vec<String> = groups.iter().map(|group| quoted(group)).collect();
    let groups = groups.join(",");
    push(json, format_args!(",\"user\":{{\"username\":{},\"groups\":[{groups}]}}", quoted(&name)));
}

fn write_status(json: &mut String, payload: Value<'_>, verb: &str, target: &Target) {
    let code = text(payload, &["status", "code"]).and_then(|code| code.parse().ok()).unwrap_or(0);
    let is_new = verb == "create" && target.subresource.is_empty();
    let code = if code == 0 && is_new { 201 } else { http_code(code) };
    json.push_str(",\"responseStatus\":{\"metadata\":{}");
    if let Some(message) = text(payload, &["status", "message"]) {
        member(json, "message", &message);
    }
    push(json, format_args!(",\"code\":{code}}}"));
}

/// The HTTP status of a `google.rpc.Code`; numbers that are none are HTTP's own.
fn http_code(code: u16) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        100.. => code,
        _ => 500,
    }
}

fn write_annotations(json: &mut String, entry: Value<'_>, payload: Value<'_>) {
    const DECISION: &str = "authorization.k8s.io/decision";
    let mut annotations = Vec::new();
    if let Some(labels) = entry.member("labels") {
        for (key, value) in labels.members() {
            if let Some(value) = value.text() {
                annotations.push((key.into_owned(), value.into_owned()));
            }
        }
    }
    if !annotations.iter().any(|(key, _)| key == DECISION)
        && let Some(checks) = payload.member("authorizationInfo")
    {
        // A check that was not granted has no such member: false is JSON's default here.
        let granted = |check: Value<'_>| text(check, &["granted"]).as_deref() == Some("true");
        let decision = if checks.elements().all(granted) { "allow" } else { "forbid" };
        annotations.push((DECISION.to_owned(), decision.to_owned()));
    }
    if annotations.is_empty() {
        return;
    }
    let members: Vec<String> = annotations
        .iter()
        .map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)))
        .collect();
    push(json, format_args!(",\"annotations\":{{{}}}", members.join(",")));
}

fn is_true(entry: Value<'_>, key: &str) -> bool {
    text(entry, &["operation", key]).as_deref() == Some("true")
}

fn text(value: Value<'_>, path: &[&str]) -> Option<String> {
    let mut value = value;
    for key in path {
        if value.kind() != Type::Object {
            return None;
        }
        value = value.member(key)?;
    }
    value.text().map(|text| text.into_owned())
}

fn member(json: &mut String, key: &str, value: &str) {
    push(json, format_args!(",\"{key}\":{}", quoted(value)));
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rebuilds_the_uri_and_the_target() {
        for (name, verb, uri, resource, object, subresource) in [
            (
                "core/v1/namespaces/ns/pods/p/exec",
                "create",
                "/api/v1/namespaces/ns/pods/p/exec",
                "pods",
                "p",
                "exec",
            ),
            (
                "core/v1/namespaces/ns/pods/p",
                "create",
                "/api/v1/namespaces/ns/pods",
                "pods",
                "p",
                "",
            ),
            ("core/v1/namespaces/ns", "delete", "/api/v1/namespaces/ns", "namespaces", "ns", ""),
            (
                "core/v1/namespaces/ns/finalize",
                "update",
                "/api/v1/namespaces/ns/finalize",
                "namespaces",
                "ns",
                "finalize",
            ),
            ("core/v1/nodes", "list", "/api/v1/nodes", "nodes", "", ""),
            (
                "rbac.authorization.k8s.io/v1/clusterrolebindings/b",
                "patch",
                "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/b",
                "clusterrolebindings",
                "b",
                "",
            ),
            ("healthz", "get", "/healthz", "", "", ""),
            ("apis/v1beta1", "get", "/apis/v1beta1", "", "", ""),
        ] {
            let target = Target::parse(name, verb);
            assert_eq!(target.uri, uri);
            let found = (target.resource, target.name, target.subresource);
            assert_eq!(
                found,
                (resource.to_owned(), object.to_owned(), subresource.to_owned()),
                "{name}"
            );
        }
    }
}
