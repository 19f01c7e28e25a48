//! What one slot of an event says of all predicates that depend on it alone.
//!
//! A **facet** is a slot with every predicate whose truth its bytes decide: those of `userAgent`
//! and of `actor.user_agent_family` are one facet. What a value says, the set of predicates that
//! hold, is its **class**: a number. Clusters have thousands of users and a few dozen classes of
//! them. Values repeat, so most classes are found by the bytes of the slot, without reading them.

use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use crate::engine::cost;
use crate::engine::field::{FieldId, FieldTable, Source};
use crate::engine::memo::Memo;
use crate::engine::predicate::{Check, Predicate, PredicateId};
use crate::engine::program::{Program, State};
use crate::engine::values::{Item, Subject, element};
use crate::event::value::{Type, Value};
use crate::event::{Event, Slot};

/// Index of a facet in its [`Facets`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FacetId(u32);

impl FacetId {
    /// Its number.
    pub fn number(self) -> u64 {
        u64::from(self.0)
    }
}

/// A slot and what depends on it.
#[derive(Debug)]
struct Facet {
    slot: Slot,
    /// Whether its fields are those that have but a few words as values: these are told at a glance
    /// and often leave nothing to ask of the others.
    has_words: bool,
    parts: Vec<Part>,
}

/// A field of a facet and what is asked of its values.
#[derive(Debug)]
struct Part {
    field: FieldId,
    /// Of a field that has but a few words as values, the predicates that hold for each.
    words: Vec<(&'static str, Box<[PredicateId]>)>,
    /// Text predicates, which the field's matcher decides together.
    has_text: bool,
    /// Networks, so that an address is read once.
    networks: Vec<(PredicateId, IpNet)>,
    /// Predicates that are decided one by one on each value.
    single: Vec<PredicateId>,
    /// Predicates about the field as a whole.
    whole: Vec<PredicateId>,
}

/// The facets of a program.
#[derive(Debug)]
pub struct Facets {
    list: Vec<Facet>,
    /// Per predicate.
    of: Vec<Option<FacetId>>,
    /// Per predicate, the part of its facet that decides it.
    parts: Vec<PartSet>,
}

/// Parts of one facet, a bit for each; those beyond the last bit share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartSet(u64);

impl PartSet {
    /// Every part.
    const ALL: PartSet = PartSet(u64::MAX);

    fn one(place: usize) -> PartSet {
        PartSet(1 << place.min(u64::BITS as usize - 1))
    }

    fn has(self, place: usize) -> bool {
        self.0 & PartSet::one(place).0 != 0
    }
}

/// Slots whose values hardly repeat: an expression over one is decided only for events for which
/// it matters.
const UNIQUE: [Slot; 14] = [
    Slot::AuditId,
    Slot::RequestUri,
    Slot::Name,
    Slot::ObjectUid,
    Slot::ResourceVersion,
    Slot::User,
    Slot::ObjectRef,
    Slot::ResponseStatus,
    Slot::StatusMessage,
    Slot::StatusDetails,
    Slot::RequestReceivedTimestamp,
    Slot::StageTimestamp,
    Slot::Annotations,
    Slot::AuthenticationMetadata,
];

impl Facets {
    /// The facets of a program for audit events.
    pub fn new(program: &Program) -> Facets {
        let count = program.predicates();
        let (of, parts) = (vec![None; count], vec![PartSet::default(); count]);
        let mut facets = Facets { list: Vec::new(), of, parts };
        for number in 0..program.predicates() {
            let id = PredicateId(number as u32);
            let Some(slot) = slot_of(program, id) else { continue };
            let source = program.fields().source(program.predicate(id).field);
            let has_words = matches!(source, Source::Derived(derived) if derived.words().is_some());
            let is_it = |facet: &Facet| facet.slot == slot && facet.has_words == has_words;
            let known = facets.list.iter().position(is_it);
            let place = known.unwrap_or_else(|| {
                facets.list.push(Facet { slot, has_words, parts: Vec::new() });
                facets.list.len() - 1
            });
            facets.of[number] = Some(FacetId(place as u32));
            facets.parts[number] = facets.list[place].add(id, program.predicate(id));
        }
        for part in facets.list.iter_mut().flat_map(|facet| &mut facet.parts) {
            part.words = part.words(program);
        }
        facets
    }

    /// The facet that decides a predicate, if one does.
    pub fn of(&self, id: PredicateId) -> Option<FacetId> {
        self.of[id.0 as usize]
    }

    /// The parts that decide these predicates, all of one facet.
    pub fn parts(&self, ids: &[PredicateId]) -> PartSet {
        PartSet(ids.iter().fold(0, |parts, id| parts | self.parts[id.0 as usize].0))
    }

    /// Nanoseconds to learn a value's class.
    pub fn cost_ns(&self, facet: FacetId, fields: &FieldTable) -> f64 {
        /// A look-up by the value's bytes.
        const KNOWN_NS: f64 = 20.0;
        /// A glance.
        const WORDS_NS: f64 = 2.0;
        let Facet { slot, has_words, parts } = &self.list[facet.0 as usize];
        if *has_words {
            return WORDS_NS;
        }
        let read_ns = parts.iter().map(|part| cost::field_ns(fields, part.field)).sum::<f64>();
        KNOWN_NS + if UNIQUE.contains(slot) { read_ns } else { 0.0 }
    }
}

impl Facet {
    fn add(&mut self, id: PredicateId, predicate: &Predicate) -> PartSet {
        let known = self.parts.iter().position(|part| part.field == predicate.field);
        let place = known.unwrap_or_else(|| {
            self.parts.push(Part {
                field: predicate.field,
                words: Vec::new(),
                has_text: false,
                networks: Vec::new(),
                single: Vec::new(),
                whole: Vec::new(),
            });
            self.parts.len() - 1
        });
        let part = &mut self.parts[place];
        match &predicate.check {
            Check::Text { .. } => part.has_text = true,
            Check::Cidr(network) => part.networks.push((id, *network)),
            check if check.is_about_field() => part.whole.push(id),
            _ => part.single.push(id),
        }
        PartSet::one(place)
    }
}

/// The slot whose facet decides a predicate.
fn slot_of(program: &Program, id: PredicateId) -> Option<Slot> {
    let predicate = program.predicate(id);
    let slot = program.fields().depends_on(predicate.field)?;
    let is_decided = match predicate.check {
        Check::FieldRef(..) => false,
        Check::Text { .. } | Check::Any | Check::Null | Check::Exists(_) => true,
        Check::Compare(..) | Check::Cidr(_) => true,
        Check::Wildcard { .. } | Check::Regex(_) => !UNIQUE.contains(&slot),
        Check::TimePart(..) | Check::Elements(..) => !UNIQUE.contains(&slot),
    };
    is_decided.then_some(slot)
}

/// The classes of every facet, numbered.
#[derive(Debug, Default)]
pub struct ClassTable {
    facets: Vec<Numbered>,
    count: usize,
}

/// The classes of one facet.
#[derive(Debug, Default)]
struct Numbered {
    by_hits: FxHashMap<Box<[PredicateId]>, u32>,
    hits: Vec<Box<[PredicateId]>>,
}

impl ClassTable {
    /// The number of the class for which these predicates hold, ascending.
    pub fn number(&mut self, facet: FacetId, hits: &[PredicateId]) -> u32 {
        let place = facet.0 as usize;
        if self.facets.len() <= place {
            self.facets.resize_with(place + 1, Numbered::default);
        }
        let facet = &mut self.facets[place];
        if let Some(class) = facet.by_hits.get(hits) {
            return *class;
        }
        let class = facet.hits.len() as u32;
        facet.hits.push(hits.into());
        facet.by_hits.insert(hits.into(), class);
        self.count += 1;
        class
    }

    /// The predicates that hold for a class, ascending.
    pub fn hits(&self, facet: FacetId, class: u32) -> &[PredicateId] {
        &self.facets[facet.0 as usize].hits[class as usize]
    }

    /// How many classes there are.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Tells the number of a class; `None` where numbers hold no more.
type Number<'n> = &'n mut dyn FnMut(FacetId, &[PredicateId]) -> Option<u32>;

/// The classes that a thread has met.
#[derive(Debug, Default)]
pub struct Readings {
    met: Vec<Met>,
    found: Vec<PredicateId>,
    buffer: Vec<u8>,
    address: Address,
}

/// The address read last: several fields hold the same.
#[derive(Debug, Default)]
struct Address {
    text: Vec<u8>,
    address: Option<IpAddr>,
}

impl Address {
    /// The address that an item spells.
    fn of(&mut self, item: &Item<'_>) -> Option<IpAddr> {
        let Some(text) = item.plain() else { return item.address() };
        if self.text != text || self.text.is_empty() {
            self.text.clear();
            self.text.extend_from_slice(text);
            self.address = item.address();
        }
        self.address
    }
}

/// What a thread has met of one facet.
#[derive(Debug, Default)]
struct Met {
    by_value: Memo<u32>,
    of_absence: Option<u32>,
    by_hits: FxHashMap<Box<[PredicateId]>, u32>,
}

impl Readings {
    /// The class of the event's value; of one whose like does not come again, as far as these
    /// parts decide it. `None` where `number` told none.
    #[inline]
    pub fn class(
        &mut self,
        facets: &Facets,
        (facet, parts): (FacetId, PartSet),
        program: &Program,
        state: &mut State,
        event: &Event<'_>,
        number: Number<'_>,
    ) -> Option<u32> {
        if self.met.is_empty() {
            self.met.resize_with(facets.list.len(), Met::default);
        }
        let met = &mut self.met[facet.0 as usize];
        let value = event.slot(facets.list[facet.0 as usize].slot);
        let Some(key) = value.map(|value| value.raw()) else {
            if let Some(class) = met.of_absence {
                return Some(class);
            }
            let class = self.decide(facets, (facet, PartSet::ALL), program, state, event, number);
            self.met[facet.0 as usize].of_absence = class;
            return class;
        };
        if !met.by_value.is_on(key) {
            return self.decide(facets, (facet, parts), program, state, event, number);
        }
        if let Some(class) = met.by_value.get(key) {
            return Some(*class);
        }
        let class = self.decide(facets, (facet, PartSet::ALL), program, state, event, number)?;
        self.met[facet.0 as usize].by_value.insert(key, class);
        Some(class)
    }

    /// Decides every predicate of these parts of a facet.
    fn decide(
        &mut self,
        facets: &Facets,
        (id, parts): (FacetId, PartSet),
        program: &Program,
        state: &mut State,
        event: &Event<'_>,
        number: Number<'_>,
    ) -> Option<u32> {
        let Readings { met, found, buffer, address } = self;
        found.clear();
        let list = facets.list[id.0 as usize].parts.iter().enumerate();
        for (_, part) in list.filter(|(place, _)| parts.has(*place)) {
            part.decide(program, state, event, address, buffer, found);
        }
        found.sort_unstable();
        found.dedup();
        let met = &mut met[id.0 as usize];
        if let Some(class) = met.by_hits.get(found.as_slice()) {
            return Some(*class);
        }
        let class = number(id, found)?;
        met.by_hits.insert(found.as_slice().into(), class);
        Some(class)
    }
}

impl Part {
    /// What holds for each word, where there are no other values.
    fn words(&self, program: &Program) -> Vec<(&'static str, Box<[PredicateId]>)> {
        let Source::Derived(derived) = program.fields().source(self.field) else {
            return Vec::new();
        };
        let words = derived.words().filter(|_| self.whole.is_empty() && self.networks.is_empty());
        let holding = |word: &&'static str| {
            let mut found = Vec::new();
            self.take(
                program,
                &Item::Made(word),
                &mut Address::default(),
                &mut Vec::new(),
                &mut found,
            );
            (*word, found.into())
        };
        words.into_iter().flatten().map(holding).collect()
    }

    /// The array that the field's slot holds.
    fn array<'a>(&self, program: &Program, event: &Event<'a>) -> Option<Value<'a>> {
        let Source::Slot(slot) = program.fields().source(self.field) else { return None };
        event.slot(slot).filter(|value| value.kind() == Type::Array)
    }

    /// Adds the predicates that hold for one value.
    fn take(
        &self,
        program: &Program,
        item: &Item<'_>,
        address: &mut Address,
        buffer: &mut Vec<u8>,
        found: &mut Vec<PredicateId>,
    ) {
        if self.has_text {
            program.matcher(self.field).test(item, buffer, &mut |id| found.push(id));
        }
        for id in &self.single {
            if program.is_possible(*id, |necessary| found.contains(&necessary))
                && program.predicate(*id).check.holds_on(item)
            {
                found.push(*id);
            }
        }
        if !self.networks.is_empty()
            && let Some(address) = address.of(item)
        {
            let within = self.networks.iter().filter(|(_, net)| net.contains(&address));
            found.extend(within.map(|(id, _)| *id));
        }
    }

    /// Adds the predicates that hold.
    fn decide(
        &self,
        program: &Program,
        state: &mut State,
        event: &Event<'_>,
        address: &mut Address,
        buffer: &mut Vec<u8>,
        found: &mut Vec<PredicateId>,
    ) {
        if !self.words.is_empty()
            && let Source::Derived(derived) = program.fields().source(self.field)
        {
            let word = derived.value(event, state.values.proxies());
            let known = self.words.iter().find(|(known, _)| word.as_deref() == Some(known));
            return found.extend(known.into_iter().flat_map(|(_, holding)| holding));
        }
        let mut is_null = true;
        let mut take = |item: &Item<'_>| {
            is_null &= item.is_null();
            self.take(program, item, address, buffer, found);
        };
        let is_present = each_value(program, self.field, state, event, &mut take);
        for id in &self.whole {
            let holds = match &program.predicate(*id).check {
                Check::Null => is_null,
                Check::Exists(wanted) => is_present == *wanted,
                Check::Elements(..) if let Some(value) = self.array(program, event) => program
                    .holds_on_elements(*id, value.elements().map(Item::Json), &mut state.blocks),
                _ => program.test(*id, state, Subject::Audit(event)),
            };
            if holds {
                found.push(*id);
            }
        }
    }
}

/// Hands over the values of a field, as [`Values::find`] would keep them; whether it is there.
///
/// [`Values::find`]: crate::engine::values::Values::find
fn each_value(
    program: &Program,
    field: FieldId,
    state: &mut State,
    event: &Event<'_>,
    take: &mut dyn FnMut(&Item<'_>),
) -> bool {
    let fields = program.fields();
    match fields.source(field) {
        Source::Slot(slot) => {
            let Some(value) = event.slot(slot) else { return false };
            if value.kind() == Type::Array {
                value.elements().for_each(|element| take(&Item::Json(element)));
            } else {
                take(&Item::Json(value));
            }
            true
        }
        Source::Element(slot, place) => {
            let value = event.slot(slot).and_then(|value| element(value, place));
            value.is_some_and(|value| {
                take(&Item::Json(value));
                true
            })
        }
        Source::Derived(derived) => {
            let text = derived.value(event, state.values.proxies());
            text.as_ref().is_some_and(|text| {
                take(&Item::Made(text));
                true
            })
        }
        _ => {
            let subject = Subject::Audit(event);
            state.values.find(fields, subject, field);
            state.values.items(field, subject.raw()).for_each(|item| take(&item));
            state.values.is_present(field)
        }
    }
}
