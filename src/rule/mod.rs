//! Sigma rule model: what a document means once it is parsed, independent of how it was written.
//!
//! The reader (`parse`, `detection`, `condition`, `correlation`, `filter`, `load`) lowers Sigma
//! YAML to this model; `engine` compiles the model. Everything that Sigma lets an author say in
//! several ways (lists of values, `all`, `neq`, `1 of selection_*`, lists of maps) is lowered to
//! [`Condition`], so the engine knows five shapes only. A second reader, for another rule language,
//! would fill the same model.

pub mod problem;
pub mod yaml;
pub mod number;
pub mod pattern;
pub mod encoding;
pub mod placeholder;
pub mod dialect;
pub mod operand;
pub mod modifier;
pub mod condition;
pub mod detection;
pub mod keys;
pub mod parts;
pub mod correlation;
pub mod filter;
pub mod taxonomy;
pub mod parse;
pub mod definition;
pub mod load;
pub mod convert;
pub mod reach;
pub mod lint;
pub mod shipped;
pub mod pack;

use std::path::PathBuf;
use std::sync::Arc;

use crate::rule::number::Number;

/// How serious an alert is; Sigma's own scale, ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A fact for a timeline.
    Informational,
    /// Context for a hunt, or a refused attempt.
    Low,
    /// Legitimate work of administrators that attackers need too.
    Medium,
    /// Hardly ever legitimate.
    High,
    /// An attacker holds the cluster or takes it with this request.
    Critical,
}

impl Level {
    /// Every level, least first.
    pub const ALL: [Level; 5] =
        [Level::Informational, Level::Low, Level::Medium, Level::High, Level::Critical];

    /// Sigma's word for the level.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Informational => "informational",
            Level::Low => "low",
            Level::Medium => "medium",
            Level::High => "high",
            Level::Critical => "critical",
        }
    }

    /// Reads Sigma's word for a level, exactly as the specification spells it.
    pub fn parse(word: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| level.as_str() == word)
    }
}

/// Where a document stands: the file and the 1-based line of its first key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file as it was named; `embedded:detections/…` for the compiled-in rules.
    pub path: Arc<PathBuf>,
    /// 1-based line.
    pub line: usize,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Which logs a document is about; absent parts select everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logsource {
    /// For instance `application`.
    pub category: Option<String>,
    /// For instance `kubernetes`.
    pub product: Option<String>,
    /// For instance `audit`.
    pub service: Option<String>,
}

/// One Sigma detection or correlation rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The rule's identity: its `id`, else its `name`, else a hash of its title (documented in
    /// `parse`).
    pub id: Arc<str>,
    /// The name that correlations and filters may use instead of the id.
    pub name: Option<String>,
    /// What happens, for people.
    pub title: Arc<str>,
    /// The alert level; Sigma leaves it optional, an absent one counts as `medium`.
    pub level: Level,
    /// `stable`, `test`, `experimental`, `deprecated`, `unsupported`, or empty.
    pub status: String,
    /// What it sees and why it matters.
    pub description: String,
    /// As written, lower case: `attack.t1552.007`, `attack.credential_access`.
    pub tags: Vec<String>,
    /// Known legitimate causes.
    pub falsepositives: Vec<String>,
    /// Where to read on.
    pub references: Vec<String>,
    /// Fields worth showing beside an alert.
    pub fields: Vec<String>,
    /// Which logs the rule is about.
    pub logsource: Logsource,
    /// Every other root key, kept as written (`runbook`, `audit_level`, `pack`, `covers`, …).
    pub custom: serde_json::Map<String, serde_json::Value>,
    /// Whether a match of this rule is an alert by itself. False for a base rule of a correlation
    /// that does not say `generate: true`.
    pub alerts: bool,
    /// Where it was read.
    pub origin: Origin,
    /// What it looks for.
    pub body: Body,
}

/// What a rule looks for.
#[derive(Clone, Debug)]
pub enum Body {
    /// One event at a time.
    Detection(Condition),
    /// Several matches of other rules.
    Correlation(Correlation),
}

/// A boolean tree over single tests; the normal form of `detection:` with its `condition:`.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Every part holds. Never empty.
    And(Vec<Condition>),
    /// Some part holds. Never empty.
    Or(Vec<Condition>),
    /// The part does not hold.
    Not(Box<Condition>),
    /// A search identifier, kept for explanations; means what its inside means.
    Named(Arc<str>, Box<Condition>),
    /// One test of one field.
    Test(Test),
}

/// One test: some value of the field satisfies the matcher.
///
/// A field reached through arrays has several values. `Null` and `Exists(false)` speak of the field
/// as a whole: no value, or only nulls.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// The field as written, without modifiers; `None` is a keyword over the whole event.
    pub field: Option<Arc<str>>,
    /// What its value must satisfy.
    pub matcher: Matcher,
}

/// What a value must satisfy.
#[derive(Clone, Debug, PartialEq)]
pub enum Matcher {
    /// The value as text equals the pattern. Numbers and booleans compare by their JSON text.
    Text {
        /// Literal pieces and wildcards.
        pattern: Pattern,
        /// Case matters (`cased`); otherwise Unicode-lowercased on both sides.
        cased: bool,
    },
    /// The `re` modifier: a search, unanchored, case-sensitive unless the flags say otherwise.
    Regex {
        /// The expression in the syntax of the `regex` crate, flags already inside as `(?ims)`; `$`
        /// is, where it is not the end of each line, also before a line break that ends the text.
        source: Arc<str>,
    },
    /// The `cidr` modifier; IPv4-mapped IPv6 addresses count as IPv4.
    Cidr(ipnet::IpNet),
    /// `gt`, `gte`, `lt`, `lte`; a value that is no number never satisfies it.
    Compare {
        /// Which comparison.
        op: Comparison,
        /// The threshold.
        than: Number,
    },
    /// `field: null`: absent, or null.
    Null,
    /// `exists: true|false`: presence only, even when null or empty.
    Exists(bool),
    /// `fieldref`: the value stands in the named relation to some value of the other field.
    FieldRef {
        /// The other field.
        other: Arc<str>,
        /// Where the other value must stand inside this one.
        place: Place,
        /// Case matters.
        cased: bool,
    },
    /// `minute`, `hour`, `day`, `week`, `month`, `year` of a timestamp, in the offset it is written
    /// in.
    TimePart {
        /// Which part.
        part: TimePart,
        /// How it compares.
        op: Comparison,
        /// To what.
        than: i64,
    },
    /// `field[any]: {…}`: one and the same element of the array satisfies the inner condition,
    /// whose fields are relative to the element (`.` is the element itself).
    Elements {
        /// How many elements must.
        quantifier: Quantifier,
        /// What they must satisfy.
        inner: Box<Condition>,
    },
}

/// A comparison of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Neq,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
}

impl Comparison {
    /// Whether `left op right` holds.
    pub fn holds<N: PartialOrd>(self, left: N, right: N) -> bool {
        match self {
            Comparison::Eq => left == right,
            Comparison::Neq => left != right,
            Comparison::Gt => left > right,
            Comparison::Gte => left >= right,
            Comparison::Lt => left < right,
            Comparison::Lte => left <= right,
        }
    }
}

/// Where a text must stand inside another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the whole.
    Whole,
    /// At the start.
    Prefix,
    /// At the end.
    Suffix,
    /// Anywhere.
    Inside,
}

/// A part of a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePart {
    /// 0-59.
    Minute,
    /// 0-23.
    Hour,
    /// Day of the month, 1-31.
    Day,
    /// ISO 8601 week, 1-53.
    Week,
    /// 1-12.
    Month,
    /// For instance 2026.
    Year,
}

/// How many elements of an array must satisfy a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantifier {
    /// At least one.
    Any,
    /// Every one, and there is one.
    All,
    /// Every one, or there is none.
    AllOrEmpty,
    /// Not one.
    None,
    /// The element at this 0-based index.
    Index(usize),
}

/// A text pattern: literals and Sigma's wildcards, escapes already resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// The pieces in order; two literals never stand side by side, nor two `AnyRun`s.
    pub pieces: Vec<Piece>,
}

/// A piece of a [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// This text.
    Literal(String),
    /// `*`: any run of characters, also none, also across lines.
    AnyRun,
    /// `?`: exactly one character.
    AnyOne,
}

/// A correlation rule: a condition on several matches within a time span.
#[derive(Clone, Debug)]
pub struct Correlation {
    /// What is counted or ordered.
    pub kind: CorrelationKind,
    /// Ids of the referenced rules, resolved, in the order written.
    pub rules: Vec<Arc<str>>,
    /// The names under which `condition` (extended temporal form) and `aliases` refer to them,
    /// parallel to `rules`.
    pub rule_names: Vec<String>,
    /// Fields whose values together are the key; an alias name stands for itself here.
    pub group_by: Vec<Arc<str>>,
    /// Alias name → per rule id, the field that plays the part.
    pub aliases: Vec<Alias>,
    /// The window, in microseconds.
    pub timespan_us: i64,
    /// Whether the referenced rules still alert by themselves.
    pub generate: bool,
}

/// The name of an alias, and for each rule id the field that plays its part.
pub type Alias = (Arc<str>, Vec<(Arc<str>, Arc<str>)>);

/// What a correlation counts or orders.
#[derive(Clone, Debug, PartialEq)]
pub enum CorrelationKind {
    /// The number of matches satisfies every comparison.
    EventCount(Vec<Threshold>),
    /// The number of distinct tuples of the fields satisfies every comparison.
    ValueCount {
        /// The fields of the tuple.
        fields: Vec<Arc<str>>,
        /// Comparisons, all of which must hold.
        thresholds: Vec<Threshold>,
    },
    /// All referenced rules (or as many as the thresholds say) matched, in any order.
    Temporal(TemporalCondition),
    /// The referenced rules matched in the order written.
    TemporalOrdered(TemporalCondition),
    /// An aggregate of a numeric field.
    Aggregate {
        /// Which aggregate.
        function: Aggregate,
        /// The field; matches without a number in it do not count.
        field: Arc<str>,
        /// Comparisons, all of which must hold.
        thresholds: Vec<Threshold>,
    },
    /// Our extension: a tuple of values that was not seen in the group within the time span before.
    NewTerms(NewTerms),
}

/// `new_terms`: first seen, rare combination, dormant identity. Documented in docs/correlations.md.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTerms {
    /// The fields of the term.
    pub fields: Vec<Arc<str>>,
    /// Time from the first match of the rule (any group) during which terms are learnt in silence.
    pub learning_us: i64,
    /// A group younger than this (in matches) stays silent: rare combinations of a known identity.
    pub group_matches_min: u64,
    /// Alert on a term that was seen before but not for this long; `None` alerts on unseen terms.
    pub dormant_us: Option<i64>,
}

/// One comparison with a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Which comparison.
    pub op: Comparison,
    /// With what; integers and floats of any sign.
    pub than: f64,
}

/// Of more rules in order every choice of them could not be tried: a condition on them is refused.
pub const ORDERED_RULES_MAX: usize = 10;

/// The condition of a temporal correlation.
#[derive(Clone, Debug, PartialEq)]
pub enum TemporalCondition {
    /// Every referenced rule.
    All,
    /// The number of different referenced rules satisfies the comparisons.
    Count(Vec<Threshold>),
    /// The extended form: a boolean expression over the rules' names, `a and not b`.
    Expression(RuleExpression),
}

/// A boolean expression over referenced rules, by their index in [`Correlation::rules`].
#[derive(Clone, Debug, PartialEq)]
pub enum RuleExpression {
    /// The rule matched within the window.
    Rule(usize),
    /// All hold.
    And(Vec<RuleExpression>),
    /// Some hold.
    Or(Vec<RuleExpression>),
    /// It does not hold.
    Not(Box<RuleExpression>),
}

/// An aggregate function over the numbers in a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aggregate {
    /// Their sum.
    Sum,
    /// Their mean.
    Avg,
    /// The nearest-rank percentile, 0-100; of 50 and an even number, the mean of the middle two.
    Percentile(f64),
}

/// All rules loaded together: immutable, swapped whole. Filters are already folded into the
/// detections they apply to; references are resolved; order is that of the ids, so that nothing
/// depends on the order of files.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// Detection and correlation rules, sorted by id.
    pub rules: Vec<Rule>,
}
