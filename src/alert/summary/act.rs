//! What a request does, in words: a verb in two forms and its object.

use crate::alert::Request;
use crate::alert::summary::{VALUE_CHARS_MAX, shorten};

/// What a request does: `list`/`listed` `secrets in all namespaces`.
pub(crate) struct Act {
    /// After "tried to" and "asked to".
    pub(crate) base: String,
    /// After the actor.
    pub(crate) past: String,
    /// What follows either.
    pub(crate) object: String,
}

impl Act {
    fn new(base: &str, past: &str, object: String) -> Act {
        Act { base: base.to_owned(), past: past.to_owned(), object }
    }

    /// Words for a request; `None` when its verb is unknown.
    pub(crate) fn of(request: &Request, command: Option<&str>) -> Option<Act> {
        let verb = request.verb.as_deref().filter(|verb| !verb.is_empty())?;
        let Some(resource) = request.resource.as_deref().filter(|word| !word.is_empty()) else {
            return Some(Act::on_path(verb, request.uri.as_deref().unwrap_or_default()));
        };
        let thing = Thing::of(resource, request);
        let subresource = request.subresource.as_deref().filter(|word| !word.is_empty());
        Some(match subresource {
            None => Act::on_resource(verb, &thing),
            Some(subresource) => Act::on_subresource(verb, subresource, &thing, request, command),
        })
    }

    fn on_path(verb: &str, uri: &str) -> Act {
        let path = shorten(path(uri), VALUE_CHARS_MAX);
        if verb == "get" {
            return Act::new("request", "requested", path);
        }
        Act::new("send", "sent", format!("{} to {path}", verb.to_uppercase()))
    }

    fn on_resource(verb: &str, thing: &Thing<'_>) -> Act {
        match (verb, thing.resource) {
            ("create", "selfsubjectaccessreviews" | "selfsubjectrulesreviews") => {
                return Act::new("ask", "asked", "what it may do".to_owned());
            }
            ("create", "selfsubjectreviews") => {
                return Act::new("ask", "asked", "who it is".to_owned());
            }
            _ => {}
        }
        let (base, past) = match verb {
            "get" => ("read", "read"),
            "list" => ("list", "listed"),
            "watch" => ("watch", "watched"),
            "create" => ("create", "created"),
            "update" => ("update", "updated"),
            "patch" => ("patch", "patched"),
            "delete" => ("delete", "deleted"),
            "deletecollection" => ("delete all", "deleted all"),
            other => return Act::new("send", "sent", format!("{other} to {}", thing.several())),
        };
        let object = match verb {
            "list" | "watch" | "deletecollection" => thing.several(),
            _ => thing.one(),
        };
        Act::new(base, past, object)
    }

    fn on_subresource(
        verb: &str,
        subresource: &str,
        thing: &Thing<'_>,
        request: &Request,
        command: Option<&str>,
    ) -> Act {
        let one = thing.one();
        match (thing.resource, subresource, verb) {
            ("pods", "exec", _) => match command.filter(|command| !command.is_empty()) {
                Some(command) => {
                    let command = shorten(command, VALUE_CHARS_MAX);
                    Act::new("run", "ran", format!("\"{command}\" in {one}"))
                }
                None => Act::new("run", "ran", format!("a command in {one}")),
            },
            ("pods", "attach", _) => Act::new("attach to", "attached to", one),
            ("pods", "portforward", _) => {
                Act::new("open", "opened", format!("a port-forward to {one}"))
            }
            ("pods", "log", _) => Act::new("read", "read", format!("the logs of {one}")),
            ("pods", "eviction", "create") => Act::new("evict", "evicted", one),
            ("pods", "binding", "create") => Act::new("bind", "bound", format!("{one} to a node")),
            ("pods", "ephemeralcontainers", "update" | "patch") => {
                Act::new("add", "added", format!("a debug container to {one}"))
            }
            ("serviceaccounts", "token", "create") => {
                Act::new("request", "requested", format!("a token for {one}"))
            }
            (_, "proxy", _) => {
                let uri = request.uri.as_deref().unwrap_or_default();
                let inner = path(uri).split_once("/proxy").map_or("", |(_, inner)| inner);
                let inner = if inner.is_empty() { "/" } else { inner };
                let inner = shorten(inner, VALUE_CHARS_MAX);
                Act::new("reach", "reached", format!("{inner} through the proxy of {one}"))
            }
            (_, "scale", "update" | "patch") => Act::new("scale", "scaled", one),
            _ => {
                let Act { base, past, .. } = Act::on_resource(verb, thing);
                Act { base, past, object: format!("the {subresource} of {one}") }
            }
        }
    }
}

/// The object of a request; only `resource` and `group` are as long as they came.
struct Thing<'a> {
    resource: &'a str,
    group: &'a str,
    namespace: String,
    name: String,
}

impl<'a> Thing<'a> {
    fn of(resource: &'a str, request: &'a Request) -> Thing<'a> {
        let namespace = match resource {
            "namespaces" => "", // the event repeats the name there
            _ => request.namespace.as_deref().unwrap_or_default(),
        };
        Thing {
            resource,
            group: request.api_group.as_deref().unwrap_or_default(),
            namespace: shorten(namespace, VALUE_CHARS_MAX),
            name: shorten(request.name.as_deref().unwrap_or_default(), VALUE_CHARS_MAX),
        }
    }

    /// Whether the resource is one of Kubernetes' own, whose names need no group.
    fn is_built_in(&self) -> bool {
        !self.group.contains('.') || self.group.ends_with(".k8s.io")
    }

    /// `secrets in namespace shop`, `nodes`, `widgets.example.com across the cluster`.
    fn several(&self) -> String {
        if !self.name.is_empty() {
            return self.one();
        }
        let resource = self.plural();
        if !self.namespace.is_empty() {
            return format!("{resource} in namespace {}", self.namespace);
        }
        match scope(self.resource) {
            Scope::Namespaced if self.is_built_in() => format!("{resource} in all namespaces"),
            Scope::Cluster if self.is_built_in() => resource,
            _ => format!("{resource} across the cluster"),
        }
    }

    /// `secret shop/db`, `a pod in namespace shop`, `node worker-1`.
    fn one(&self) -> String {
        let resource = if self.is_built_in() { singular(self.resource) } else { self.plural() };
        match (self.namespace.as_str(), self.name.as_str()) {
            ("", "") => with_article(&resource),
            ("", name) => format!("{resource} {name}"),
            (namespace, "") => format!("{} in namespace {namespace}", with_article(&resource)),
            (namespace, name) => format!("{resource} {namespace}/{name}"),
        }
    }

    fn plural(&self) -> String {
        if self.is_built_in() {
            return self.resource.to_owned();
        }
        format!("{}.{}", self.resource, self.group)
    }
}

enum Scope {
    Namespaced,
    Cluster,
    Unknown,
}

/// The scope of the resources whose listing people ask about; the rest needs no table.
fn scope(resource: &str) -> Scope {
    const NAMESPACED: &[&str] = &[
        "bindings",
        "configmaps",
        "controllerrevisions",
        "cronjobs",
        "daemonsets",
        "deployments",
        "endpoints",
        "endpointslices",
        "events",
        "horizontalpodautoscalers",
        "ingresses",
        "jobs",
        "leases",
        "limitranges",
        "networkpolicies",
        "persistentvolumeclaims",
        "poddisruptionbudgets",
        "pods",
        "podtemplates",
        "replicasets",
        "replicationcontrollers",
        "resourceclaims",
        "resourcequotas",
        "rolebindings",
        "roles",
        "secrets",
        "serviceaccounts",
        "services",
        "statefulsets",
    ];
    const CLUSTER: &[&str] = &[
        "apiservices",
        "certificatesigningrequests",
        "clusterrolebindings",
        "clusterroles",
        "componentstatuses",
        "csidrivers",
        "csinodes",
        "customresourcedefinitions",
        "flowschemas",
        "ingressclasses",
        "mutatingwebhookconfigurations",
        "namespaces",
        "nodes",
        "persistentvolumes",
        "priorityclasses",
        "prioritylevelconfigurations",
        "runtimeclasses",
        "storageclasses",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "validatingwebhookconfigurations",
        "volumeattachments",
    ];
    if NAMESPACED.contains(&resource) {
        Scope::Namespaced
    } else if CLUSTER.contains(&resource) {
        Scope::Cluster
    } else {
        Scope::Unknown
    }
}

/// One of a built-in resource: `policies` → `policy`, `ingresses` → `ingress`.
fn singular(resource: &str) -> String {
    const SPOKEN: [(&str, &str); 3] = [
        ("serviceaccounts", "service account"),
        ("certificatesigningrequests", "certificate signing request"),
        ("endpoints", "endpoints"),
    ];
    if let Some((_, spoken)) = SPOKEN.iter().find(|(plural, _)| *plural == resource) {
        return (*spoken).to_owned();
    }
    let cut = |end: &str, new: &str| Some(format!("{}{new}", resource.strip_suffix(end)?));
    cut("ies", "y")
        .or_else(|| cut("sses", "ss"))
        .or_else(|| cut("uses", "us"))
        .or_else(|| cut("s", ""))
        .unwrap_or_else(|| resource.to_owned())
}

fn with_article(noun: &str) -> String {
    match noun.as_bytes().first() {
        Some(b'a' | b'e' | b'i' | b'o') => format!("an {noun}"),
        _ => format!("a {noun}"),
    }
}

fn path(uri: &str) -> &str {
    uri.split_once('?').map_or(uri, |(path, _)| path)
}
