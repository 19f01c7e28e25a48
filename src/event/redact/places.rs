//! The table of places where Kubernetes puts secret material, and the walk along its paths.
//!
//! A path is a list of steps: a member's key, `[]` for the elements of an array, `**` (first only)
//! for any steps or none; `x*`, `*x` and `*x*` stand for keys. Where several places name a value,
//! the first of the table decides. The same table says which fields of rules hold secrets.

use std::sync::LazyLock;

use rustc_hash::FxHashMap;

use crate::event::redact::patterns::is_secretive;
use crate::event::redact::scopes::{
    ADMISSION, AWS_AUTH, CHALLENGE, CONFIG_MAP, COREDNS, EVENT, EXTERNAL_SECRET, FAILURE, OBJECT,
    PROVIDER, SEALED_SECRET, SECRET, SECRET_LIKE, STORAGE_CLASS, STRICT, Scopes,
};
use crate::event::shape::ByteSet;

/// What is done with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Nothing by itself; its members are looked at, its text is searched for patterns.
    Search,
    /// Stays byte for byte.
    Keep,
    /// Replaced whatever it is; null stays.
    Whole,
    /// Every member or element replaced whole, or the value where it has none.
    Each,
    /// Every text and number below it replaced, keys and shape kept.
    Leaves,
    /// A command: its words by what they look like.
    Args,
    /// A word of a command of which the words before are not known.
    Arg,
    /// Environment variables or headers: a list of pairs of name and value, or a map.
    Env,
    /// One of them.
    Pair,
    /// Parameters: likewise, of which only those count whose names say so.
    Parameters,
    /// One of them.
    Parameter,
    /// The value of one: replaced, unless nothing about its name and itself is suspicious.
    PairValue {
        /// Whether the name is, or is not known.
        is_secretive: bool,
    },
    /// Extra attributes of an identity: all but the keys known to be safe.
    Extra,
    /// A message that may echo values of the request.
    Message,
    /// A URL: user information and query.
    Url,
    /// A request URI.
    Uri,
    /// A container of texts that may hold anything.
    Text,
    /// A member that no event has: a text that may be a copy of the event.
    Copy,
    /// A JSON document in a string, looked at with these scopes.
    Json(Scopes),
    /// A Kubernetes object, or a JSON Patch of one.
    Root,
    /// A body of an event: a root that is replaced whole when it cannot be read.
    Body,
}

pub(crate) struct Place {
    pub(crate) scopes: Scopes,
    pub(crate) path: &'static [&'static str],
    pub(crate) rule: Rule,
}

const fn at(scopes: Scopes, path: &'static [&'static str], rule: Rule) -> Place {
    Place { scopes, path, rule }
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[rustfmt::skip]
pub(crate) const PLACES: &[Place] = &[
    at(EVENT, &["requestObject"], Rule::Body),
    at(EVENT, &["responseObject"], Rule::Body),
    at(EVENT, &["requestURI"], Rule::Uri),
    at(EVENT, &["userAgent"], Rule::Text),
    at(EVENT, &["user", "extra"], Rule::Extra),
    at(EVENT, &["impersonatedUser", "extra"], Rule::Extra),
    at(EVENT, &["responseStatus", "message"], Rule::Message),
    at(EVENT, &["responseStatus", "details", "causes", "[]", "message"], Rule::Message),
    at(EVENT, &["annotations", "patch.webhook.admission.k8s.io/*"], Rule::Json(ADMISSION)),
    at(EVENT, &["annotations", "validation.policy.admission.k8s.io/validation_failure"],
        Rule::Json(FAILURE)),
    at(EVENT, &["annotations", "*/audit-annotation"], Rule::Whole),
    at(EVENT, &["annotations"], Rule::Text),
    at(ADMISSION, &["patch"], Rule::Root),
    at(FAILURE, &["[]", "message"], Rule::Whole),
    at(FAILURE, &["message"], Rule::Whole),
    at(OBJECT, &["items", "[]"], Rule::Root),
    at(OBJECT, &["object"], Rule::Root),
    at(OBJECT, &["rows", "[]", "object"], Rule::Root),
    at(OBJECT, &["requestObject"], Rule::Root),
    at(OBJECT, &["responseObject"], Rule::Root),
    at(OBJECT, &["metadata", "managedFields"], Rule::Keep),
    at(OBJECT, &["**", "annotations", LAST_APPLIED], Rule::Json(OBJECT)),
    at(OBJECT, &["**", "annotations", "vault.hashicorp.com/agent-inject-template-*"], Rule::Whole),
    at(OBJECT, &["message"], Rule::Message),
    at(OBJECT, &["details", "causes", "[]", "message"], Rule::Message),
    at(COREDNS, &["data", "Corefile"], Rule::Text),
    at(AWS_AUTH, &["data", "map*"], Rule::Text),
    at(SECRET, &["data"], Rule::Each),
    at(SECRET, &["metadata", "data"], Rule::Each),
    at(CONFIG_MAP, &["data"], Rule::Each),
    at(CONFIG_MAP, &["binaryData"], Rule::Each),
    at(SECRET_LIKE, &["data*"], Rule::Leaves),
    at(SECRET_LIKE, &["binaryData"], Rule::Leaves),
    at(SECRET_LIKE, &["spec", "*token*"], Rule::Leaves),
    at(SECRET_LIKE, &["spec", "*password*"], Rule::Leaves),
    at(SEALED_SECRET, &["spec", "template", "data"], Rule::Each),
    at(OBJECT, &["**", "stringData"], Rule::Each),
    at(OBJECT, &["status", "token"], Rule::Whole),
    at(OBJECT, &["spec", "token"], Rule::Whole),
    at(OBJECT, &["status", "user", "extra"], Rule::Extra),
    at(OBJECT, &["status", "userInfo", "extra"], Rule::Extra),
    at(OBJECT, &["spec", "extra"], Rule::Extra),
    at(OBJECT, &["secret"], Rule::Leaves),
    at(OBJECT, &["**", "auths"], Rule::Leaves),
    at(OBJECT, &["**", "env"], Rule::Env),
    at(OBJECT, &["**", "envVars"], Rule::Env),
    at(OBJECT, &["**", "extraEnv"], Rule::Env),
    at(OBJECT, &["**", "extraEnvs"], Rule::Env),
    at(OBJECT, &["**", "extraEnvVars"], Rule::Env),
    at(OBJECT, &["**", "params"], Rule::Parameters),
    at(OBJECT, &["**", "httpHeaders"], Rule::Env),
    at(OBJECT, &["**", "command"], Rule::Args),
    at(OBJECT, &["**", "args"], Rule::Args),
    at(OBJECT, &["**", "clientConfig", "url"], Rule::Url),
    at(OBJECT, &["**", "caBundle"], Rule::Whole),
    at(OBJECT, &["**", "volumeAttributes"], Rule::Each),
    at(OBJECT, &["**", "flexVolume", "options"], Rule::Each),
    at(OBJECT, &["**", "azureFile"], Rule::Each),
    at(OBJECT, &["**", "rbd", "keyring"], Rule::Whole),
    at(OBJECT, &["**", "rbd", "secretRef"], Rule::Leaves),
    at(OBJECT, &["**", "cephfs", "secretFile"], Rule::Whole),
    at(OBJECT, &["**", "cephfs", "secretRef"], Rule::Leaves),
    at(OBJECT, &["**", "iscsi", "secretRef"], Rule::Leaves),
    at(STORAGE_CLASS, &["parameters"], Rule::Each),
    at(EXTERNAL_SECRET, &["spec", "provider"], Rule::Leaves),
    at(PROVIDER, &["spec", "credentials"], Rule::Leaves),
    at(CHALLENGE, &["spec", "key"], Rule::Whole),
    at(OBJECT, &["**", "acme", "externalAccountBinding"], Rule::Leaves),
    at(OBJECT, &["**", "acme", "privateKey*"], Rule::Leaves),
    at(OBJECT, &["**", "helm", "parameters", "[]", "value"], Rule::Whole),
    at(OBJECT, &["**", "helm", "values"], Rule::Leaves),
    at(OBJECT, &["**", "helm", "valuesObject"], Rule::Leaves),
    at(OBJECT, &["spec", "values"], Rule::Leaves),
    at(OBJECT, &["**", "files", "[]", "contents", "source"], Rule::Whole),
    at(OBJECT, &["**", "files", "[]", "content"], Rule::Whole),
    at(OBJECT, &["**", "parameters"], Rule::Parameters),
    // Of a Secret all goes that is no known part of it or of what is said about it: clients
    // misspell names, and indent values where they do not belong.
    at(STRICT, &["apiVersion"], Rule::Search),
    at(STRICT, &["kind"], Rule::Search),
    at(STRICT, &["metadata"], Rule::Search),
    at(STRICT, &["type"], Rule::Search),
    at(STRICT, &["immutable"], Rule::Search),
    at(STRICT, &["items"], Rule::Search),
    at(STRICT, &["object"], Rule::Search),
    at(STRICT, &["rows"], Rule::Search),
    at(STRICT, &["columnDefinitions"], Rule::Search),
    at(STRICT, &["status"], Rule::Search),
    at(STRICT, &["reason"], Rule::Search),
    at(STRICT, &["details"], Rule::Search),
    at(STRICT, &["code"], Rule::Search),
    at(STRICT, &["op"], Rule::Search),
    at(STRICT, &["path"], Rule::Search),
    at(STRICT, &["from"], Rule::Search),
    at(STRICT, &["gracePeriodSeconds"], Rule::Search),
    at(STRICT, &["preconditions"], Rule::Search),
    at(STRICT, &["orphanDependents"], Rule::Search),
    at(STRICT, &["propagationPolicy"], Rule::Search),
    at(STRICT, &["dryRun"], Rule::Search),
    at(STRICT, &["$patch"], Rule::Search),
    at(STRICT, &["$setElementOrder*"], Rule::Search),
    at(STRICT, &["*"], Rule::Leaves),
];

/// A step of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Element,
    Key(&'static str),
    Starts(&'static str),
    Ends(&'static str),
    Holds(&'static str),
}

impl Step {
    pub(crate) fn of(text: &'static str) -> Step {
        match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
            ("[]", ..) => Step::Element,
            (_, Some(rest), Some(_)) => Step::Holds(rest.trim_end_matches('*')),
            (_, Some(end), None) => Step::Ends(end),
            (_, None, Some(start)) => Step::Starts(start),
            _ => Step::Key(text),
        }
    }

    /// Whether it leads to the member of this key, or to an element (`None`).
    pub(crate) fn leads_to(self, key: Option<&[u8]>) -> bool {
        match (self, key) {
            (Step::Element, None) => true,
            (Step::Key(text), Some(key)) => key == text.as_bytes(),
            (Step::Starts(start), Some(key)) => key.starts_with(start.as_bytes()),
            (Step::Ends(end), Some(key)) => key.ends_with(end.as_bytes()),
            (Step::Holds(part), Some(key)) => {
                memchr::memmem::find(&key.to_ascii_lowercase(), part.as_bytes()).is_some()
            }
            _ => false,
        }
    }
}

/// A place that may still be reached: its number, and the step to take next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Active {
    place: u16,
    step: u16,
}

/// Stands in [`Active::place`] for all places of the scopes in [`Active::step`], before their first
/// step.
const ROOTED: u16 = u16::MAX;

/// The places, ready to be walked.
pub(crate) struct Table {
    places: Vec<(Scopes, Vec<Step>, Rule)>,
    /// The places that start at a root, by their first key.
    rooted: ByKey,
    /// Those of them that do not start with one key, and all their scopes.
    rooted_otherwise: Vec<u16>,
    otherwise_scopes: Scopes,
    /// The places that start anywhere, by their first key.
    floating: ByKey,
}

/// Places by a key.
#[derive(Default)]
struct ByKey {
    places: FxHashMap<&'static [u8], Vec<u16>>,
    /// What the keys look like at a glance: most of those that are asked for look otherwise.
    looks: ByteSet,
}

impl ByKey {
    fn look_of(key: &[u8]) -> u8 {
        key.first().copied().unwrap_or_default().wrapping_mul(37) ^ key.len() as u8
    }

    fn add(&mut self, key: &'static [u8], place: u16) {
        self.looks.add(ByKey::look_of(key));
        self.places.entry(key).or_default().push(place);
    }

    /// Whether a key looks like one of them.
    #[inline]
    fn may_have(&self, key: &[u8]) -> bool {
        self.looks.has(ByKey::look_of(key))
    }

    #[inline]
    fn get(&self, key: &[u8]) -> Option<&Vec<u16>> {
        if !self.may_have(key) {
            return None;
        }
        self.places.get(key)
    }
}

pub(crate) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table {
        places: Vec::new(),
        rooted: ByKey::default(),
        rooted_otherwise: Vec::new(),
        otherwise_scopes: 0,
        floating: ByKey::default(),
    };
    for (number, place) in (0u16..).zip(PLACES) {
        let path = match place.path {
            ["**", path @ ..] => {
                table.floating.add(path[0].as_bytes(), number);
                path
            }
            path => {
                match Step::of(path[0]) {
                    Step::Key(key) => table.rooted.add(key.as_bytes(), number),
                    _ => {
                        table.rooted_otherwise.push(number);
                        table.otherwise_scopes |= place.scopes;
                    }
                }
                path
            }
        };
        let steps = path.iter().map(|text| Step::of(text)).collect();
        table.places.push((place.scopes, steps, place.rule));
    }
    table
});

impl Table {
    /// The places that can be reached from a root of these scopes.
    pub(crate) fn begin(&self, scopes: Scopes, out: &mut Vec<Active>) {
        out.push(Active { place: ROOTED, step: scopes });
    }

    /// Whether a place may begin at the member of this key of an object; false is certain.
    #[inline]
    pub(crate) fn may_begin(&self, key: &[u8]) -> bool {
        self.floating.may_have(key)
    }

    /// Whether one of these places may lead to the member of this key; false is certain.
    #[inline]
    pub(crate) fn may_lead_to(&self, key: &[u8], actives: &[Active]) -> bool {
        actives.iter().any(|active| match active.place {
            ROOTED => active.step & self.otherwise_scopes != 0 || self.rooted.may_have(key),
            place => {
                let steps = &self.places[usize::from(place)].1;
                steps[usize::from(active.step)].leads_to(Some(key))
            }
        })
    }

    /// Steps from the places `from..to` of `actives` to the member of a key, or to an element;
    /// what can be reached behind it is added, and the rule of the first place that ends there
    /// returned.
    #[inline]
    pub(crate) fn step(
        &self,
        scopes: Scopes,
        key: Option<&[u8]>,
        (from, to): (usize, usize),
        actives: &mut Vec<Active>,
    ) -> Option<Rule> {
        let mut reached: Option<u16> = None;
        for index in from..to {
            let active = actives[index];
            if active.place == ROOTED {
                let places = key.and_then(|key| self.rooted.get(key)).into_iter().flatten();
                self.try_first(active.step, places, key, actives, &mut reached);
                if active.step & self.otherwise_scopes != 0 {
                    let places = self.rooted_otherwise.iter();
                    self.try_first(active.step, places, key, actives, &mut reached);
                }
            } else {
                self.try_step(active, key, actives, &mut reached);
            }
        }
        if scopes & OBJECT != 0
            && let Some(places) = key.and_then(|key| self.floating.get(key))
        {
            self.try_first(scopes, places.iter(), key, actives, &mut reached);
        }
        reached.map(|place| self.places[usize::from(place)].2)
    }

    /// Takes the first step of those of the places that have one of the scopes.
    #[inline]
    fn try_first<'t>(
        &self,
        scopes: Scopes,
        places: impl Iterator<Item = &'t u16>,
        key: Option<&[u8]>,
        actives: &mut Vec<Active>,
        reached: &mut Option<u16>,
    ) {
        for &place in places.filter(|place| self.scopes(**place) & scopes != 0) {
            self.try_step(Active { place, step: 0 }, key, actives, reached);
        }
    }

    #[inline]
    fn try_step(
        &self,
        active: Active,
        key: Option<&[u8]>,
        actives: &mut Vec<Active>,
        reached: &mut Option<u16>,
    ) {
        let steps = &self.places[usize::from(active.place)].1;
        if !steps[usize::from(active.step)].leads_to(key) {
            return;
        }
        let step = active.step + 1;
        if usize::from(step) < steps.len() {
            actives.push(Active { place: active.place, step });
        } else {
            *reached = Some(reached.map_or(active.place, |other| other.min(active.place)));
        }
    }

    fn scopes(&self, place: u16) -> Scopes {
        self.places[usize::from(place)].0
    }
}

/// The rule of a member (`None`: an element) of a value with this rule, where no place names it.
pub(crate) fn below(rule: Rule, key: Option<&[u8]>) -> Rule {
    match (rule, key) {
        (Rule::Keep, _) => Rule::Keep,
        (Rule::Whole | Rule::Each, _) => Rule::Whole,
        (Rule::Leaves, _) => Rule::Leaves,
        (Rule::Args, None) => Rule::Arg,
        (Rule::Env, None) => Rule::Pair,
        (Rule::Env, Some(name)) => Rule::PairValue { is_secretive: is_secretive(name) },
        (Rule::Parameters, None) => Rule::Parameter,
        (Rule::Parameters, Some(name)) if is_secretive(name) => Rule::Leaves,
        (Rule::Pair | Rule::Parameter, Some(b"value")) => Rule::PairValue { is_secretive: true },
        (Rule::Extra, Some(key)) if !is_safe_extra(key) => Rule::Leaves,
        _ => Rule::Search,
    }
}

/// Keys of `extra` that name a credential or a place without being one.
pub(crate) fn is_safe_extra(key: &[u8]) -> bool {
    key.starts_with(b"authentication.kubernetes.io/")
        || matches!(key, b"arn" | b"canonicalArn" | b"sessionName" | b"principalId")
}
