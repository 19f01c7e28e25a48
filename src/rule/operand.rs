//! A value on its way from YAML through its modifiers to tests.

use std::sync::Arc;

use regex_automata::nfa::thompson;

use crate::rule::dialect;
use crate::rule::encoding::TEXT_BYTES_MAX;
use crate::rule::number::Number;
use crate::rule::yaml::{Node, Value};
use crate::rule::{Comparison, Condition, Matcher, Pattern, Piece, Place, Test, TimePart};

/// The most memory one compiled regular expression may take, in bytes.
pub const REGEX_BYTES_MAX: usize = 1 << 20;

/// A regular expression that matches nothing.
pub const NEVER: &str = r"[^\s\S]";

/// A value between two modifiers.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A text.
    Text {
        /// What it matches.
        pattern: Pattern,
        /// Case matters.
        cased: bool,
        /// The text before escapes were read, as `re`, `cidr` and `fieldref` want it.
        written: String,
    },
    /// An encoded text that need not be UTF-8.
    Bytes(Vec<u8>),
    /// An integer, exact.
    Integer(String),
    /// Another number.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// A regular expression.
    Regex {
        /// The expression.
        source: String,
        /// Letters of `ims`.
        flags: String,
    },
    /// A network.
    Cidr(ipnet::IpNet),
    /// A comparison with a number.
    Compare {
        /// Which.
        op: Comparison,
        /// With what.
        than: Number,
    },
    /// A comparison of a part of a timestamp.
    TimePart {
        /// Which part.
        part: TimePart,
        /// Which comparison.
        op: Comparison,
        /// With what.
        than: i64,
    },
    /// A comparison with another field.
    FieldRef {
        /// The other field.
        other: Arc<str>,
        /// Where its value must stand.
        place: Place,
        /// Case matters.
        cased: bool,
    },
    /// Presence.
    Exists(bool),
    /// One of these; empty for a placeholder whose list is empty.
    Group(Vec<Operand>),
}

impl Operand {
    /// A text without wildcards.
    pub fn text(text: &str) -> Operand {
        Operand::Text { pattern: Pattern::literal(text), cased: false, written: text.to_owned() }
    }

    /// The operand that a YAML scalar is; an empty list counts as null.
    ///
    /// # Errors
    /// When the node is a map or a list.
    pub fn from_node(node: &Node) -> Result<Operand, String> {
        match &node.value {
            Value::Null => Ok(Operand::Null),
            Value::Bool(value) => Ok(Operand::Bool(*value)),
            Value::Integer(text) => Ok(Operand::Integer(text.clone())),
            Value::Float(number) => Ok(Operand::Float(*number)),
            Value::Text(text) => Ok(Operand::Text {
                pattern: Pattern::parse(text),
                cased: false,
                written: text.clone(),
            }),
            Value::List(items) if items.is_empty() => Ok(Operand::Null),
            Value::List(_) => Err("a list inside of a list".to_owned()),
            Value::Map(_) => Err("a map where a value should be; a path is written with dots \
                                  (`a.b: x`), a block over an array as `a[any]: {…}`"
                .to_owned()),
        }
    }

    /// The word for the operand's type in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Operand::Text { .. } => "a text",
            Operand::Bytes(_) => "an encoded text",
            Operand::Integer(_) | Operand::Float(_) => "a number",
            Operand::Bool(_) => "a boolean",
            Operand::Null => "null",
            Operand::Regex { .. } => "a regular expression",
            Operand::Cidr(_) => "a network",
            Operand::Compare { .. } => "a comparison",
            Operand::TimePart { .. } => "a part of a time",
            Operand::FieldRef { .. } => "a field reference",
            Operand::Exists(_) => "a test for presence",
            Operand::Group(_) => "a group",
        }
    }

    /// Turns encoded bytes back into a text, for what can follow an encoding.
    ///
    /// # Errors
    /// When they are no UTF-8.
    pub fn bytes_as_text(self) -> Result<Operand, String> {
        match self {
            Operand::Bytes(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Operand::text(&text)),
                Err(_) => Err("the encoded value is no text; put \"base64\" or \"base64offset\" \
                               after the encoding"
                    .to_owned()),
            },
            other => Ok(other),
        }
    }

    /// Lowers the operand to tests of a field; `None` for a group without members, which never
    /// holds.
    ///
    /// # Errors
    /// Why the field (or a keyword, when there is none) cannot be tested this way.
    pub fn lower(self, field: Option<&Arc<str>>) -> Result<Option<Condition>, String> {
        if let Operand::Group(members) = self {
            let mut tests = Vec::with_capacity(members.len());
            for member in members {
                tests.extend(member.lower(field)?);
            }
            return Ok(Condition::any_of(tests));
        }
        let matcher = self.into_matcher(field.is_none())?;
        if let Matcher::Text { pattern, .. } = &matcher
            && pattern.size() > TEXT_BYTES_MAX
        {
            let size = pattern.size();
            return Err(format!("a text of {size} bytes is longer than {TEXT_BYTES_MAX}"));
        }
        Ok(Some(Condition::Test(Test { field: field.cloned(), matcher })))
    }

    fn into_matcher(self, keyword: bool) -> Result<Matcher, String> {
        let kind = self.kind();
        let text = |pattern: Pattern, cased: bool| {
            let pattern =
                if keyword { pattern.with_any_before().with_any_after() } else { pattern };
            Matcher::Text { pattern, cased }
        };
        match self.bytes_as_text()? {
            Operand::Text { pattern, cased, .. } => {
                check_stretches(&pattern)?;
                Ok(text(pattern, cased))
            }
            Operand::Integer(number) => Ok(text(Pattern::literal(&number), false)),
            Operand::Bool(value) => Ok(text(Pattern::literal(&value.to_string()), false)),
            Operand::Float(number) => match Number::real(number) {
                None => Err("a number must be finite".to_owned()),
                // With its fraction: a keyword 1.0 is not in every line with a 1.
                Some(_) if keyword => Ok(text(Pattern::literal(&format!("{number:?}")), false)),
                Some(than) => Ok(Matcher::Compare { op: Comparison::Eq, than }),
            },
            Operand::Regex { source, flags } => {
                Ok(Matcher::Regex { source: checked_regex(&source, &flags)? })
            }
            _ if keyword => Err(format!("{kind} is no keyword; it needs a field")),
            Operand::Null => Ok(Matcher::Null),
            Operand::Cidr(net) => Ok(Matcher::Cidr(net)),
            Operand::Compare { op, than } => Ok(Matcher::Compare { op, than }),
            Operand::TimePart { part, op, than } => Ok(Matcher::TimePart { part, op, than }),
            Operand::FieldRef { other, place, cased } => {
                Ok(Matcher::FieldRef { other, place, cased })
            }
            Operand::Exists(expected) => Ok(Matcher::Exists(expected)),
            Operand::Bytes(_) | Operand::Group(_) => Err(format!("{kind} cannot be tested")),
        }
    }
}

/// The most characters between two `*` of a pattern that has a `?` among them.
const STRETCH_CHARS_MAX: usize = 256;

/// A stretch with a `?` is tried at every place of a text, so its length is part of the time that
/// takes.
fn check_stretches(pattern: &Pattern) -> Result<(), String> {
    let chars = |piece: &Piece| match piece {
        Piece::Literal(text) => text.chars().count(),
        Piece::AnyOne | Piece::AnyRun => 1,
    };
    for stretch in pattern.pieces.split(|piece| *piece == Piece::AnyRun) {
        let length: usize = stretch.iter().map(chars).sum();
        if length > STRETCH_CHARS_MAX && stretch.contains(&Piece::AnyOne) {
            return Err(format!(
                "more than {STRETCH_CHARS_MAX} characters with a ? among them and no *; use \"re\""
            ));
        }
    }
    Ok(())
}

/// The expression with its flags inside, provided that it compiles within [`REGEX_BYTES_MAX`].
fn checked_regex(source: &str, flags: &str) -> Result<Arc<str>, String> {
    let portable = dialect::portable(source)?;
    let source = match flags {
        "" => portable,
        _ => format!("(?{flags}){portable}"),
    };
    match compiles(&source) {
        Ok(()) => Ok(Arc::from(source)),
        Err(error) if error.size_limit().is_some() => Err(format!(
            "the expression needs more than {REGEX_BYTES_MAX} bytes; use smaller repetitions"
        )),
        Err(error) => {
            let cause = std::error::Error::source(&error);
            let reason = cause.map_or_else(|| error.to_string(), ToString::to_string);
            let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(format!("invalid regular expression {source:?}: {last}"))
        }
    }
}

/// Compiles an expression as far as it takes to know that it is valid and of what size; the rest is
/// done when a text is first matched with it, which for most never happens.
fn compiles(source: &str) -> Result<(), Box<thompson::BuildError>> {
    let limit = thompson::Config::new().nfa_size_limit(Some(REGEX_BYTES_MAX));
    thompson::Compiler::new().configure(limit).build(source).map(drop).map_err(Box::new)
}
