//! Which fields the rules name, and where in an event each is found.
//!
//! A field is found in one of four ways: in a slot that the scan remembers, by walking a subtree (a
//! body, annotations, extras) along the paths of all fields at once, by computing it
//! ([`Derived`]), or by rewriting the values of another field. A walk happens at most once an event
//! and only when a rule asks for a field in it.
//!
//! Paths are matched against keys longest first at every level, so a dotted key
//! (`annotations.authorization.k8s.io/decision`) is found as well as nested objects; `\.` in a path
//! is a dot that never separates.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::Slot;
use crate::event::derived::{Derived, clean_path, csr_subject, full_image, image_repository};

/// Index of a field in its [`FieldTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(pub u32);

/// What the events are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// audit.k8s.io/v1 events: slots, derived fields and the `pod.`, `object.` roots exist.
    Audit,
    /// Any JSON objects, taken as they are.
    Json,
}

/// How the values of a field are found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// In a slot of the event.
    Slot(Slot),
    /// By walking every group whose bit is set.
    Walk(u32),
    /// Computed.
    Derived(Derived),
    /// Each value of another field, rewritten.
    Rewrite(FieldId, Rewrite),
    /// One element of a slot's array, by its place.
    Element(Slot, u32),
    /// The whole event as text, for keywords.
    Whole,
}

/// How a value is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// A cleaned path.
    Path,
    /// An image's full name.
    Image,
    /// An image's full name without tag and digest.
    ImageRepository,
    /// The attributes of a certificate request's subject.
    CsrSubject,
}

impl Rewrite {
    /// The rewritten values of one value.
    pub fn apply(self, text: &str, push: &mut dyn FnMut(&str)) {
        match self {
            Rewrite::Path => push(&clean_path(text)),
            Rewrite::Image => push(&full_image(text)),
            Rewrite::ImageRepository => push(&image_repository(text)),
            Rewrite::CsrSubject => csr_subject(text).iter().for_each(|part| push(part)),
        }
    }
}

/// A subtree of the event that is walked as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The slot that holds it; `None` is the event itself.
    pub slot: Option<Slot>,
    /// Walked only for patches: the merged object in responseObject.
    pub is_patch_only: bool,
}

/// Index of a node of the path tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub u32);

/// A place in the tree of all paths.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Fields whose path ends here.
    pub leaves: Vec<FieldId>,
    /// Fields that are one element of the array here, by its place.
    pub elements: Vec<(u32, FieldId)>,
    /// Where each key leads.
    pub children: FxHashMap<Box<[u8]>, NodeId>,
}

/// What stands at the end of a path: all of a field, or the element of its arrays at a place.
type Leaf = (FieldId, Option<u32>);

/// All fields of a program.
#[derive(Clone, Debug)]
pub struct FieldTable {
    shape: Shape,
    ids: FxHashMap<Arc<str>, FieldId>,
    names: Vec<Arc<str>>,
    sources: Vec<Source>,
    only_slots: Vec<Option<Slot>>,
    groups: Vec<Group>,
    /// Per group, the paths below it and the field each belongs to.
    paths: Vec<Vec<(String, Leaf)>>,
    nodes: Vec<Node>,
    roots: Vec<NodeId>,
}

/// Where a pod template stands in the objects that hold one: pods, workloads, cronjobs,
/// podtemplates.
const TEMPLATES: [&str; 4] = ["", "spec.template.", "spec.jobTemplate.spec.template.", "template."];
/// The lists of containers in a pod spec.
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

impl FieldTable {
    /// An empty table for events of this shape.
    pub fn new(shape: Shape) -> FieldTable {
        FieldTable {
            shape,
            ids: FxHashMap::default(),
            names: Vec::new(),
            sources: Vec::new(),
            only_slots: Vec::new(),
            groups: Vec::new(),
            paths: Vec::new(),
            nodes: Vec::new(),
            roots: Vec::new(),
        }
    }

    /// What the events are.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no rule names a field.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The field's name as rules write it.
    pub fn name(&self, field: FieldId) -> &Arc<str> {
        &self.names[field.0 as usize]
    }

    /// How the field's values are found.
    pub fn source(&self, field: FieldId) -> Source {
        self.sources[field.0 as usize]
    }

    /// The slot on which the field's values depend, where it is one alone and they are absent when
    /// it is.
    #[inline]
    pub fn only_slot(&self, field: FieldId) -> Option<Slot> {
        self.only_slots[field.0 as usize]
    }

    /// The slot whose bytes alone, or whose absence, decide the field's values; none for bodies.
    pub fn depends_on(&self, field: FieldId) -> Option<Slot> {
        let slot = match self.source(field) {
            Source::Rewrite(base, _) => self.depends_on(base),
            Source::Derived(Derived::ActorKind) => Some(Slot::Username),
            Source::Derived(Derived::Outcome) => Some(Slot::StatusCode),
            Source::Derived(Derived::CredentialId) => Some(Slot::UserExtra),
            Source::Walk(groups) if groups.count_ones() == 1 => {
                self.groups[groups.trailing_zeros() as usize].slot
            }
            source => only_slot(source),
        };
        slot.filter(|slot| !matches!(slot, Slot::RequestObject | Slot::ResponseObject))
    }

    /// The groups, by the bit that [`Source::Walk`] uses.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The root of a group's paths.
    pub fn root(&self, group: usize) -> NodeId {
        self.roots[group]
    }

    /// A node of the path tree.
    pub fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.0 as usize]
    }

    /// The field of this name, added when it is new. Call [`FieldTable::finish`] after the last
    /// one.
    pub fn intern(&mut self, name: &str) -> FieldId {
        if let Some(&field) = self.ids.get(name) {
            return field;
        }
        // A rewritten field names another; intern that one first so that ids stay dense.
        let rewrite = self.rewrite_of(name).map(|(base, rewrite)| (self.intern(base), rewrite));
        let field = self.push(name.into(), Source::Whole);
        let source = match rewrite {
            Some((base, rewrite)) => Source::Rewrite(base, rewrite),
            None => self.place(name, (field, None)),
        };
        self.sources[field.0 as usize] = source;
        field
    }

    /// The field of one element, as it is, of each array that the field of this name is; it has
    /// that name, too. None where its values are not found by a walk.
    pub fn intern_walked_element(&mut self, name: &str, place: usize) -> Option<FieldId> {
        let place = u32::try_from(place).ok()?;
        let is_special = self.rewrite_of(name).is_some()
            || Slot::of_path(name).is_some()
            || Derived::of_name(name).is_some();
        if is_special && self.shape == Shape::Audit {
            return None;
        }
        let id: Arc<str> = format!("{name}[{place}]").into();
        if let Some(&field) = self.ids.get(&id) {
            return Some(field);
        }
        let field = self.push(id, Source::Whole);
        self.names[field.0 as usize] = name.into();
        self.sources[field.0 as usize] = self.place(name, (field, Some(place)));
        Some(field)
    }

    /// The field of one element of a slot's array; none where no slot has this name.
    pub fn intern_element(&mut self, name: &str, place: usize) -> Option<FieldId> {
        let slot = Slot::of_path(name).filter(|_| self.shape == Shape::Audit)?;
        let place = u32::try_from(place).ok()?;
        let name: Arc<str> = format!("{name}[{place}]").into();
        let known = self.ids.get(&name).copied();
        Some(known.unwrap_or_else(|| self.push(name, Source::Element(slot, place))))
    }

    fn push(&mut self, name: Arc<str>, source: Source) -> FieldId {
        let field = FieldId(self.names.len() as u32);
        self.ids.insert(name.clone(), field);
        self.names.push(name);
        self.sources.push(source);
        field
    }

    /// The field that stands for the whole event.
    pub fn intern_whole(&mut self) -> FieldId {
        const WHOLE: &str = "\u{0}whole";
        if let Some(&field) = self.ids.get(WHOLE) {
            return field;
        }
        let field = FieldId(self.names.len() as u32);
        self.ids.insert(WHOLE.into(), field);
        self.names.push("keywords".into());
        self.sources.push(Source::Whole);
        field
    }

    fn rewrite_of(&self, name: &str) -> Option<(&'static str, Rewrite)> {
        match (self.shape, name) {
            (Shape::Json, _) => None,
            (_, "pod.host_path") => Some(("pod.volumes.hostPath.path", Rewrite::Path)),
            (_, "pod.image") => Some(("pod.container.image", Rewrite::Image)),
            (_, "pod.image_repository") => Some(("pod.container.image", Rewrite::ImageRepository)),
            (_, "csr.subject") => Some(("requestObject.spec.request", Rewrite::CsrSubject)),
            _ => None,
        }
    }

    /// Decides where a field is found and notes its paths.
    fn place(&mut self, name: &str, leaf: Leaf) -> Source {
        if self.shape == Shape::Json {
            return self.walk(&[(None, false, name.to_owned())], leaf);
        }
        if let Some(slot) = Slot::of_path(name) {
            return Source::Slot(slot);
        }
        if let Some(derived) = Derived::of_name(name) {
            return Source::Derived(derived);
        }
        if let Some(path) = name.strip_prefix("object.") {
            let request = (Some(Slot::RequestObject), false, path.to_owned());
            let response = (Some(Slot::ResponseObject), true, path.to_owned());
            return self.walk(&[request, response], leaf);
        }
        if let Some(path) = name.strip_prefix("pod.") {
            let paths: Vec<_> = pod_paths(path)
                .into_iter()
                .map(|path| (Some(Slot::RequestObject), false, path))
                .collect();
            return self.walk(&paths, leaf);
        }
        let slot = Slot::ALL
            .iter()
            .filter(|(_, prefix)| {
                name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'))
            })
            .max_by_key(|(_, prefix)| prefix.len());
        match slot {
            Some((slot, prefix)) => {
                let rest = name[prefix.len() + 1..].to_owned();
                self.walk(&[(Some(*slot), false, rest)], leaf)
            }
            None => self.walk(&[(None, false, name.to_owned())], leaf),
        }
    }

    fn walk(&mut self, paths: &[(Option<Slot>, bool, String)], leaf: Leaf) -> Source {
        let mut bits = 0;
        for (slot, is_patch_only, path) in paths {
            let wanted = Group { slot: *slot, is_patch_only: *is_patch_only };
            let known = self.groups.iter().position(|group| *group == wanted);
            let group = known.unwrap_or_else(|| {
                self.groups.push(wanted);
                self.paths.push(Vec::new());
                self.groups.len() - 1
            });
            bits |= 1 << group;
            self.paths[group].push((path.clone(), leaf));
        }
        Source::Walk(bits)
    }

    /// Builds the path tree from the fields interned so far.
    pub fn finish(&mut self) {
        self.nodes.clear();
        self.roots.clear();
        self.only_slots = self.sources.iter().map(|source| only_slot(*source)).collect();
        let mut known = FxHashMap::default();
        for group in 0..self.paths.len() {
            let paths: Vec<_> =
                self.paths[group].iter().map(|(path, leaf)| (split_path(path), *leaf)).collect();
            let root = self.build(paths, &mut known);
            self.roots.push(root);
        }
    }

    /// The node for a set of remaining paths; equal sets share a node, so the tree stays linear in
    /// the paths although a key may swallow several segments.
    fn build(
        &mut self,
        paths: Vec<(Vec<String>, Leaf)>,
        known: &mut FxHashMap<Vec<(Vec<String>, Leaf)>, NodeId>,
    ) -> NodeId {
        if let Some(&node) = known.get(&paths) {
            return node;
        }
        let node = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node::default());
        let mut below: BTreeMap<String, Vec<(Vec<String>, Leaf)>> = BTreeMap::new();
        for (path, leaf) in &paths {
            let place = &mut self.nodes[node.0 as usize];
            match leaf {
                (field, None) if path.is_empty() => place.leaves.push(*field),
                (field, Some(at)) if path.is_empty() => place.elements.push((*at, *field)),
                _ => {}
            }
            for taken in 1..=path.len() {
                let key = path[..taken].join(".");
                below.entry(key).or_default().push((path[taken..].to_vec(), *leaf));
            }
        }
        for (key, rest) in below {
            let child = self.build(rest, known);
            self.nodes[node.0 as usize].children.insert(key.into_bytes().into(), child);
        }
        known.insert(paths, node);
        node
    }
}

fn only_slot(source: Source) -> Option<Slot> {
    match source {
        Source::Slot(slot) | Source::Element(slot, _) => Some(slot),
        Source::Derived(Derived::SourceIp | Derived::SourcePublic | Derived::IsForwarded) => {
            Some(Slot::SourceIps)
        }
        Source::Derived(Derived::UserAgentFamily) => Some(Slot::UserAgent),
        Source::Derived(Derived::Path | Derived::PathIsClean) => Some(Slot::RequestUri),
        Source::Derived(Derived::AuditIdKind) => Some(Slot::AuditId),
        Source::Derived(Derived::AnnotationKeys) => Some(Slot::Annotations),
        _ => None,
    }
}

/// The segments of a path; `\.` is a dot inside a segment, `\\` a backslash; `.` alone is the value
/// itself.
fn split_path(path: &str) -> Vec<String> {
    if path == "." {
        return Vec::new();
    }
    let mut segments = vec![String::new()];
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '.' => segments.push(String::new()),
            '\\' => segments.last_mut().expect("never empty").extend(characters.next()),
            other => segments.last_mut().expect("never empty").push(other),
        }
    }
    segments
}

/// Where a path of the pod spec (or `metadata.…` of the pod) can stand in requestObject.
fn pod_paths(path: &str) -> Vec<String> {
    let is_metadata = path == "metadata" || path.starts_with("metadata.");
    let mut places = Vec::new();
    for template in TEMPLATES {
        let root = if is_metadata { template.to_owned() } else { format!("{template}spec.") };
        match path.strip_prefix("container") {
            Some(rest) if rest.is_empty() || rest.starts_with('.') => {
                places.extend(CONTAINERS.iter().map(|list| format!("{root}{list}{rest}")));
            }
            _ => places.push(format!("{root}{path}")),
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_source_of_each_kind_of_field() {
        let mut table = FieldTable::new(Shape::Audit);
        for (name, is_expected) in [
            ("verb", (|s| matches!(s, Source::Slot(Slot::Verb))) as fn(Source) -> bool),
            ("actor.kind", |s| matches!(s, Source::Derived(Derived::ActorKind))),
            ("requestObject.spec.replicas", |s| matches!(s, Source::Walk(_))),
            ("annotations.a.b/c", |s| matches!(s, Source::Walk(_))),
            ("pod.host_path", |s| matches!(s, Source::Rewrite(_, Rewrite::Path))),
        ] {
            let field = table.intern(name);
            assert!(is_expected(table.source(field)), "{name}: {:?}", table.source(field));
            assert_eq!(table.intern(name), field, "interned once");
        }
    }

    #[test]
    fn spells_out_where_pods_stand() {
        let paths = pod_paths("container.image");
        assert_eq!(paths.len(), 12);
        assert!(paths.contains(&"spec.jobTemplate.spec.template.spec.initContainers.image".into()));
        assert!(pod_paths("metadata.labels").contains(&"spec.template.metadata.labels".into()));
        assert!(pod_paths("containers").contains(&"spec.containers".into()));
    }

    #[test]
    fn splits_paths_at_free_dots() {
        for (path, segments) in [
            ("a.b", vec!["a", "b"]),
            (r"a.b\.c/d", vec!["a", "b.c/d"]),
            (".", vec![]),
            (r"a\\.b", vec![r"a\", "b"]),
        ] {
            assert_eq!(split_path(path), segments, "{path}");
        }
    }
}
