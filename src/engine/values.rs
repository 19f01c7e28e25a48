//! The values of the fields of one event, found on demand and kept until the next event.
//!
//! One [`Values`] serves all events of a thread; its buffers are reused, so an event that matches
//! nothing allocates nothing.

use crate::engine::field::{FieldId, FieldTable, NodeId, Source};
use crate::event::json::{skip_blank, skip_string, skip_value};
use crate::event::shape;
use crate::event::value::{Type, Value, unescape};
use crate::event::{Event, Slot};
use ipnet::IpNet;
use std::net::IpAddr;

/// What is evaluated: an audit event, or any JSON object.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// An audit event.
    Audit(&'a Event<'a>),
    /// A JSON value by its raw bytes.
    Json(&'a [u8]),
}

impl<'a> Subject<'a> {
    /// The raw bytes.
    pub fn raw(&self) -> &'a [u8] {
        match self {
            Subject::Audit(event) => event.raw(),
            Subject::Json(raw) => raw,
        }
    }
}

/// Arrays inside arrays beyond this depth are passed over; no Kubernetes object has any.
const ARRAY_DEPTH_MAX: usize = 16;

/// Space for computed values beyond this is given back after the event that needed it.
const MADE_KEPT_BYTES: usize = 1 << 20;

const NONE: u32 = u32::MAX;
const ESCAPED: u32 = 1 << 31;

/// One value of a field: in the raw bytes, or made and kept in `made`.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    /// Length; the highest bit marks a string with escapes. For a made text the bytes are the text.
    length: u32,
    is_made: bool,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    first: u32,
    last: u32,
    is_present: bool,
    is_done: bool,
}

const NOT_LOOKED: Found = Found { first: NONE, last: NONE, is_present: false, is_done: false };

/// The values found so far.
#[derive(Debug, Default)]
pub struct Values {
    entries: Vec<Entry>,
    made: Vec<u8>,
    found: Vec<Found>,
    touched: Vec<FieldId>,
    groups_done: u32,
    proxies: Vec<IpNet>,
}

/// A value as rules see it.
#[derive(Clone, Copy, Debug)]
pub enum Item<'v> {
    /// A JSON value of the event.
    Json(Value<'v>),
    /// A text that was computed.
    Made(&'v str),
}

impl<'v> Item<'v> {
    /// The scalar as text; `None` for null, objects and arrays.
    pub fn text(&self) -> Option<std::borrow::Cow<'v, str>> {
        match self {
            Item::Json(value) => value.text(),
            Item::Made(text) => Some(std::borrow::Cow::Borrowed(text)),
        }
    }

    /// What it is compared by: its text, and a number as it is written, too.
    pub fn texts(self) -> impl Iterator<Item = std::borrow::Cow<'v, str>> {
        let written = self.written().map(std::borrow::Cow::Borrowed);
        self.text().into_iter().chain(written)
    }

    /// A number as it is written, where that may not be its text.
    pub fn written(&self) -> Option<&'v str> {
        match self {
            Item::Json(value) => value.written(),
            Item::Made(_) => None,
        }
    }

    /// The bytes of the text where nothing needs unescaping.
    #[inline]
    pub fn plain(&self) -> Option<&'v [u8]> {
        match self {
            Item::Json(value) => match value.kind() {
                Type::String | Type::Number | Type::Bool => value.plain(),
                _ => None,
            },
            Item::Made(text) => Some(text.as_bytes()),
        }
    }

    /// The bytes that tell it from other values: as written, or the text that was made.
    #[inline]
    pub fn key(&self) -> &'v [u8] {
        match self {
            Item::Json(value) => value.raw(),
            Item::Made(text) => text.as_bytes(),
        }
    }

    /// The address that it spells, an IPv4 address mapped into IPv6 as what it is.
    pub fn address(&self) -> Option<IpAddr> {
        let address = match self.plain() {
            Some(plain) => shape::address(plain),
            None => shape::address(self.text()?.as_bytes()),
        };
        address.map(|address| address.to_canonical())
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Item::Json(value) if value.kind() == Type::Null)
    }

    /// Whether it is an object or an array.
    pub fn is_container(&self) -> bool {
        matches!(self, Item::Json(value) if matches!(value.kind(), Type::Object | Type::Array))
    }
}

impl Values {
    /// Buffers for a program whose fields these are.
    pub fn new(table: &FieldTable, proxies: &[IpNet]) -> Values {
        Values {
            found: vec![NOT_LOOKED; table.len()],
            proxies: proxies.to_vec(),
            ..Values::default()
        }
    }

    /// Networks whose X-Forwarded-For entries are believed.
    pub fn proxies(&self) -> &[IpNet] {
        &self.proxies
    }

    /// Forgets the last event.
    #[inline]
    pub fn clear(&mut self) {
        for field in self.touched.drain(..) {
            self.found[field.0 as usize] = NOT_LOOKED;
        }
        self.entries.clear();
        self.made.clear();
        if self.made.capacity() > MADE_KEPT_BYTES {
            self.made = Vec::new();
        }
        self.groups_done = 0;
    }

    /// Whether the field is there at all, even null or empty. [`Values::find`] first.
    pub fn is_present(&self, field: FieldId) -> bool {
        self.found[field.0 as usize].is_present
    }

    /// The values of a field; arrays are spread out. [`Values::find`] first.
    pub fn items<'v>(&'v self, field: FieldId, raw: &'v [u8]) -> impl Iterator<Item = Item<'v>> {
        let mut next = self.found[field.0 as usize].first;
        std::iter::from_fn(move || {
            let entry = self.entries.get(next as usize)?;
            next = entry.next;
            let start = entry.start as usize;
            let end = start + (entry.length & !ESCAPED) as usize;
            Some(if entry.is_made {
                Item::Made(std::str::from_utf8(&self.made[start..end]).unwrap_or_default())
            } else {
                Item::Json(Value::new(&raw[start..end], entry.length & ESCAPED != 0))
            })
        })
    }

    /// Finds the values of a field, unless that was done for this event.
    #[inline]
    pub fn find(&mut self, table: &FieldTable, subject: Subject<'_>, field: FieldId) {
        if !self.found[field.0 as usize].is_done {
            self.look(table, subject, field);
        }
    }

    fn look(&mut self, table: &FieldTable, subject: Subject<'_>, field: FieldId) {
        match (table.source(field), subject) {
            (Source::Walk(groups), _) => self.walk_groups(table, subject, groups),
            (Source::Slot(slot), Subject::Audit(event)) => {
                if let Some(value) = event.slot(slot) {
                    self.spread(subject.raw(), value, field);
                }
            }
            (Source::Element(slot, place), Subject::Audit(event)) => {
                let value = event.slot(slot).and_then(|value| element(value, place));
                if let Some(value) = value {
                    self.push_raw(subject.raw(), value, field);
                }
            }
            (Source::Derived(derived), Subject::Audit(event)) => {
                if let Some(text) = derived.value(event, &self.proxies) {
                    self.make(&text, field);
                }
            }
            (Source::Rewrite(base, rewrite), _) => {
                self.find(table, subject, base);
                let texts: Vec<String> = self
                    .items(base, subject.raw())
                    .filter_map(|item| item.text().map(std::borrow::Cow::into_owned))
                    .collect();
                for text in texts {
                    rewrite.apply(&text, &mut |value| self.make(value, field));
                }
            }
            (Source::Whole, _) => {
                let text = unescape(subject.raw());
                self.make(&text, field);
            }
            (Source::Slot(_) | Source::Element(..) | Source::Derived(_), Subject::Json(_)) => {}
        }
        self.touch(field).is_done = true;
    }

    fn touch(&mut self, field: FieldId) -> &mut Found {
        let found = &mut self.found[field.0 as usize];
        if !found.is_done && !found.is_present {
            self.touched.push(field);
        }
        found
    }

    fn push(&mut self, field: FieldId, mut entry: Entry) {
        entry.next = NONE;
        let index = self.entries.len() as u32;
        self.entries.push(entry);
        let found = self.touch(field);
        found.is_present = true;
        let last = std::mem::replace(&mut found.last, index);
        match self.entries.get_mut(last as usize) {
            Some(before) => before.next = index,
            None => self.found[field.0 as usize].first = index,
        }
    }

    fn make(&mut self, text: &str, field: FieldId) {
        let start = self.made.len() as u32;
        self.made.extend_from_slice(text.as_bytes());
        self.push(field, Entry { start, length: text.len() as u32, is_made: true, next: NONE });
    }

    /// Adds a value of the raw bytes; an array adds its elements.
    fn spread(&mut self, raw: &[u8], value: Value<'_>, field: FieldId) {
        if value.kind() == Type::Array {
            self.touch(field).is_present = true;
            for element in value.elements() {
                self.push_raw(raw, element, field);
            }
        } else {
            self.push_raw(raw, value, field);
        }
    }

    fn push_raw(&mut self, raw: &[u8], value: Value<'_>, field: FieldId) {
        let start = offset_in(raw, value.raw());
        let is_escaped =
            value.kind() == Type::String && value.raw().len() > 1 && value.plain().is_none();
        let length = value.raw().len() as u32 | if is_escaped { ESCAPED } else { 0 };
        self.push(field, Entry { start, length, is_made: false, next: NONE });
    }

    fn walk_groups(&mut self, table: &FieldTable, subject: Subject<'_>, groups: u32) {
        for (index, group) in table.groups().iter().enumerate() {
            let bit = 1 << index;
            if groups & bit == 0 || self.groups_done & bit != 0 {
                continue;
            }
            self.groups_done |= bit;
            let raw = subject.raw();
            let start = match (subject, group.slot) {
                (Subject::Audit(event), Some(slot)) => {
                    if group.is_patch_only && event.plain(Slot::Verb) != Some(b"patch") {
                        continue;
                    }
                    let Some(value) = event.slot(slot) else { continue };
                    offset_in(raw, value.raw()) as usize
                }
                _ => skip_blank(raw, 0),
            };
            let mut walk = Walk { values: self, table, raw };
            if matches!(subject, Subject::Json(_)) && is_scalar(raw, start) {
                // An element of an array: a number or a word ends with the bytes.
                walk.leaves(start, raw.len(), false, table.root(index));
                walk.element(start, raw.len(), (table.root(index), 0));
                continue;
            }
            // A body that was not whole ends the walk early; what was found before stays.
            if group.slot == Some(Slot::RequestObject) && raw.get(start) == Some(&b'[') {
                walk.json_patch(start, table.root(index));
            }
            let _ = walk.value(start, table.root(index), 0);
        }
    }
}

/// Whether what starts here is a number, `true`, `false` or `null`.
fn is_scalar(raw: &[u8], at: usize) -> bool {
    !matches!(raw.get(at), None | Some(b'{' | b'[' | b'"'))
}

/// An element of an array; what is no array is its own first.
pub fn element(value: Value<'_>, place: u32) -> Option<Value<'_>> {
    match value.kind() {
        Type::Array => value.elements().nth(place as usize),
        _ => Some(value).filter(|_| place == 0),
    }
}

/// Where a part stands in the whole it was cut from.
fn offset_in(whole: &[u8], part: &[u8]) -> u32 {
    (part.as_ptr().addr() - whole.as_ptr().addr()) as u32
}

/// A walk along the path tree.
struct Walk<'w, 't> {
    values: &'w mut Values,
    table: &'t FieldTable,
    raw: &'w [u8],
}

impl Walk<'_, '_> {
    /// Takes the value at `at` for the node, returns the index behind it.
    fn value(&mut self, at: usize, node: NodeId, arrays: usize) -> Option<usize> {
        let end = match self.raw.get(at)? {
            b'{' => self.object(at, node)?,
            b'[' => return self.array(at, node, arrays),
            b'"' => {
                let (end, is_escaped) = skip_string(self.raw, at).ok()?;
                self.leaves(at, end, is_escaped, node);
                end
            }
            _ => {
                let end = skip_value(self.raw, at).ok()?;
                self.leaves(at, end, false, node);
                end
            }
        };
        if arrays == 0 {
            self.element(at, end, (node, 0));
        }
        Some(end)
    }

    /// Takes an element of the array at a node for the fields that are the one at its place; what
    /// is no array is its own first.
    fn element(&mut self, start: usize, end: usize, (node, place): (NodeId, u32)) {
        let table = self.table;
        for (_, field) in table.node(node).elements.iter().filter(|(at, _)| *at == place) {
            self.values.push_raw(self.raw, Value::of(&self.raw[start..end]), *field);
        }
    }

    fn leaves(&mut self, start: usize, end: usize, is_escaped: bool, node: NodeId) {
        let table = self.table;
        for &field in &table.node(node).leaves {
            let length = (end - start) as u32 | if is_escaped { ESCAPED } else { 0 };
            let entry = Entry { start: start as u32, length, is_made: false, next: NONE };
            self.values.push(field, entry);
        }
    }

    fn object(&mut self, at: usize, node: NodeId) -> Option<usize> {
        let table = self.table;
        let place = table.node(node);
        if !place.leaves.is_empty() || place.children.is_empty() {
            let end = skip_value(self.raw, at).ok()?;
            self.leaves(at, end, false, node);
            if place.children.is_empty() {
                return Some(end);
            }
        }
        let mut index = skip_blank(self.raw, at + 1);
        loop {
            match self.raw.get(index)? {
                b'}' => return Some(index + 1),
                b',' => index = skip_blank(self.raw, index + 1),
                b'"' => {}
                _ => return None,
            }
            if self.raw.get(index) != Some(&b'"') {
                continue;
            }
            let (behind, is_escaped) = skip_string(self.raw, index).ok()?;
            let key = &self.raw[index + 1..behind - 1];
            let colon = skip_blank(self.raw, behind);
            if self.raw.get(colon) != Some(&b':') {
                return None;
            }
            let start = skip_blank(self.raw, colon + 1);
            let child = if is_escaped {
                place.children.get(unescape(key).as_bytes())
            } else {
                place.children.get(key)
            };
            let end = match child {
                Some(child) => self.value(start, *child, 0)?,
                None => skip_value(self.raw, start).ok()?,
            };
            index = skip_blank(self.raw, end);
        }
    }

    fn array(&mut self, at: usize, node: NodeId, arrays: usize) -> Option<usize> {
        if arrays >= ARRAY_DEPTH_MAX {
            return skip_value(self.raw, at).ok();
        }
        let table = self.table;
        for &field in &table.node(node).leaves {
            self.values.touch(field).is_present = true;
        }
        let mut index = skip_blank(self.raw, at + 1);
        let mut place = 0;
        loop {
            match self.raw.get(index)? {
                b']' => return Some(index + 1),
                b',' => index = skip_blank(self.raw, index + 1),
                _ => {
                    let end = self.value(index, node, arrays + 1)?;
                    if arrays == 0 {
                        self.element(index, end, (node, place));
                    }
                    place += 1;
                    index = skip_blank(self.raw, end);
                }
            }
        }
    }

    /// Takes the operations of a JSON Patch (RFC 6902) for the objects that they write, so that
    /// `add /spec/containers/0/securityContext {"privileged":true}` is seen where the field is.
    fn json_patch(&mut self, at: usize, root: NodeId) {
        let Ok(end) = skip_value(self.raw, at) else { return };
        let operations = Value::new(&self.raw[at..end], false);
        for operation in operations.elements() {
            let path = operation.member("path").and_then(|path| path.text());
            let (Some(path), Some(value)) = (path, operation.member("value")) else { continue };
            let keys: Vec<String> = path
                .split('/')
                .skip(1)
                .map(|key| key.replace("~1", "/").replace("~0", "~"))
                .collect();
            let start = offset_in(self.raw, value.raw()) as usize;
            self.descend(&keys, start, root);
        }
    }

    /// Follows the keys of a JSON pointer; a place in an array (`0`, `-`) stays at its node.
    fn descend(&mut self, keys: &[String], start: usize, root: NodeId) {
        let mut node = root;
        for key in keys {
            match self.table.node(node).children.get(key.as_bytes()) {
                Some(child) => node = *child,
                None if key == "-" || key.bytes().all(|byte| byte.is_ascii_digit()) => {}
                None => return,
            }
        }
        // A value that is not whole gives nothing.
        let _ = self.value(start, node, 0);
    }
}
