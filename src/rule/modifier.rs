//! Value modifiers: what `field|contains|all` does to the values, one modifier after the other.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::rule::encoding::{self, Utf16, VARIANTS_MAX};
use crate::rule::number::Number;
use crate::rule::operand::Operand;
use crate::rule::placeholder::{self, Placeholders, Stretch};
use crate::rule::problem::did_you_mean;
use crate::rule::{Comparison, Pattern, Piece, Place, TimePart};

/// A modifier of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modifier {
    /// `contains`, `startswith`, `endswith`.
    At(Place),
    /// `all`: every value of the list must be found.
    All,
    /// `neq`: the item does not hold.
    Neq,
    /// `cased`: case matters.
    Cased,
    /// `exists`: the field is there, or is not.
    Exists,
    /// `re`: a regular expression.
    Re,
    /// `i`, `m`, `s` after `re`.
    Flag(char),
    /// `cidr`: an address inside of a network.
    Cidr,
    /// `base64`: the encoded value.
    Base64,
    /// `base64offset`: the encoded value inside of a longer encoded text.
    Base64Offset,
    /// `wide`, `utf16le`, `utf16be`, `utf16`.
    Wide(Utf16),
    /// `windash`: any dash before parameters.
    Windash,
    /// `gt`, `gte`, `lt`, `lte`.
    Than(Comparison),
    /// `minute` to `year`.
    Part(TimePart),
    /// `fieldref`: the value names another field.
    FieldRef,
    /// `expand`: `%name%` stands for a list.
    Expand,
}

const NAMES: [(&str, Modifier); 34] = [
    ("contains", Modifier::At(Place::Inside)),
    ("startswith", Modifier::At(Place::Prefix)),
    ("endswith", Modifier::At(Place::Suffix)),
    ("all", Modifier::All),
    ("neq", Modifier::Neq),
    ("cased", Modifier::Cased),
    ("exists", Modifier::Exists),
    ("re", Modifier::Re),
    ("i", Modifier::Flag('i')),
    ("ignorecase", Modifier::Flag('i')),
    ("m", Modifier::Flag('m')),
    ("multiline", Modifier::Flag('m')),
    ("s", Modifier::Flag('s')),
    ("dotall", Modifier::Flag('s')),
    ("cidr", Modifier::Cidr),
    ("base64", Modifier::Base64),
    ("base64offset", Modifier::Base64Offset),
    ("wide", Modifier::Wide(Utf16::LittleEndian)),
    ("utf16le", Modifier::Wide(Utf16::LittleEndian)),
    ("utf16be", Modifier::Wide(Utf16::BigEndian)),
    ("utf16", Modifier::Wide(Utf16::Marked)),
    ("windash", Modifier::Windash),
    ("gt", Modifier::Than(Comparison::Gt)),
    ("gte", Modifier::Than(Comparison::Gte)),
    ("lt", Modifier::Than(Comparison::Lt)),
    ("lte", Modifier::Than(Comparison::Lte)),
    ("minute", Modifier::Part(TimePart::Minute)),
    ("hour", Modifier::Part(TimePart::Hour)),
    ("day", Modifier::Part(TimePart::Day)),
    ("week", Modifier::Part(TimePart::Week)),
    ("month", Modifier::Part(TimePart::Month)),
    ("year", Modifier::Part(TimePart::Year)),
    ("fieldref", Modifier::FieldRef),
    ("expand", Modifier::Expand),
];

impl Modifier {
    /// Reads a modifier's name.
    ///
    /// # Errors
    /// A message that names the nearest modifier.
    pub fn parse(name: &str) -> Result<Modifier, String> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, modifier)| *modifier).ok_or_else(|| {
            let hint = did_you_mean(name, NAMES.iter().map(|(known, _)| *known));
            format!("unknown modifier {name:?}{hint}")
        })
    }

    /// The modifier's name (its first spelling).
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, modifier)| *modifier == self).map_or("", |(name, _)| name)
    }

    /// Applies the modifier to one value. `position` is its place in the chain, from 0.
    ///
    /// `all` and `neq` speak of the whole item and leave the value as it is.
    ///
    /// # Errors
    /// Why the modifier cannot be applied to this value.
    pub fn apply(
        self,
        operand: Operand,
        position: usize,
        placeholders: &Placeholders,
    ) -> Result<Operand, String> {
        if let Operand::Group(members) = operand {
            let each = |member| self.apply(member, position, placeholders);
            return Ok(Operand::Group(members.into_iter().map(each).collect::<Result<_, _>>()?));
        }
        match self {
            Modifier::All | Modifier::Neq => Ok(operand),
            Modifier::At(place) => at(operand, place),
            Modifier::Cased => cased(operand),
            Modifier::Exists => match operand {
                Operand::Bool(expected) => Ok(Operand::Exists(expected)),
                _ => Err("\"exists\" needs true or false".to_owned()),
            },
            Modifier::Re => {
                if position > 0 {
                    return Err(
                        "\"re\" must be the first modifier; it takes values as written".to_owned()
                    );
                }
                match operand {
                    Operand::Text { written, .. } => {
                        Ok(Operand::Regex { source: written, flags: String::new() })
                    }
                    other => Err(mismatch(self, &other)),
                }
            }
            Modifier::Flag(flag) => match operand {
                Operand::Regex { source, mut flags } => {
                    if !flags.contains(flag) {
                        flags.push(flag);
                    }
                    Ok(Operand::Regex { source, flags })
                }
                _ => Err(format!("{:?} can only follow \"re\"", self.name())),
            },
            Modifier::Cidr => match operand {
                Operand::Text { pattern, .. } => match pattern.as_literal() {
                    Some(text) => network(text).map(Operand::Cidr),
                    None => Err("\"cidr\" takes a network as it is written; no modifier but \
                                 \"expand\" can stand before it"
                        .to_owned()),
                },
                other => Err(mismatch(self, &other)),
            },
            Modifier::Base64 => Ok(Operand::text(&encoding::base64(&bytes(self, operand)?))),
            Modifier::Base64Offset => {
                let texts = encoding::base64_offsets(&bytes(self, operand)?).ok_or_else(|| {
                    "the value is too short for \"base64offset\"; use at least two bytes".to_owned()
                })?;
                Ok(Operand::Group(texts.iter().map(|text| Operand::text(text)).collect()))
            }
            Modifier::Wide(form) => wide(self, operand, form),
            Modifier::Windash => windash(operand),
            Modifier::Than(op) => than(operand, op),
            Modifier::Part(part) => time_part(operand, part),
            Modifier::FieldRef => field_ref(operand),
            Modifier::Expand => expand(operand, placeholders),
        }
    }
}

fn mismatch(modifier: Modifier, operand: &Operand) -> String {
    let name = modifier.name();
    format!("{name:?} cannot be applied to {}; quote it if it is a text", operand.kind())
}

fn at(operand: Operand, place: Place) -> Result<Operand, String> {
    match operand.bytes_as_text()? {
        Operand::Text { mut pattern, cased, written } => {
            if matches!(place, Place::Inside | Place::Suffix) {
                pattern = pattern.with_any_before();
            }
            if matches!(place, Place::Inside | Place::Prefix) {
                pattern = pattern.with_any_after();
            }
            Ok(Operand::Text { pattern, cased, written })
        }
        // A search is unanchored already: `.*` around an expression changes nothing.
        regex @ Operand::Regex { .. } => Ok(regex),
        Operand::FieldRef { other, cased, .. } => Ok(Operand::FieldRef { other, place, cased }),
        other => Err(mismatch(Modifier::At(place), &other)),
    }
}

fn cased(operand: Operand) -> Result<Operand, String> {
    match operand.bytes_as_text()? {
        Operand::Text { pattern, written, .. } => {
            Ok(Operand::Text { pattern, written, cased: true })
        }
        Operand::FieldRef { other, place, .. } => {
            Ok(Operand::FieldRef { other, place, cased: true })
        }
        other => Err(mismatch(Modifier::Cased, &other)),
    }
}

/// The bytes of a text without wildcards, or bytes that are encoded already.
fn bytes(modifier: Modifier, operand: Operand) -> Result<Vec<u8>, String> {
    match operand {
        Operand::Bytes(bytes) => Ok(bytes),
        Operand::Text { pattern, .. } => match pattern.as_literal() {
            Some(text) => Ok(text.as_bytes().to_vec()),
            None => Err(format!(
                "{:?} cannot encode wildcards; escape them, or put \"contains\" after it",
                modifier.name()
            )),
        },
        other => Err(mismatch(modifier, &other)),
    }
}

/// What stands between wildcards is encoded by itself, a character that `?` stands for is two.
fn wide(modifier: Modifier, operand: Operand, form: Utf16) -> Result<Operand, String> {
    if let Operand::Text { pattern, cased, written } = &operand
        && pattern.has_wildcard()
    {
        let mut encoded = Pattern { pieces: Vec::new() };
        for piece in &pattern.pieces {
            match piece {
                Piece::Literal(text) => {
                    let text = Operand::Bytes(encoding::utf16(text, form)).bytes_as_text()?;
                    let Operand::Text { pattern, .. } = text else { continue };
                    encoded.extend(&pattern);
                }
                Piece::AnyOne => (0..2).for_each(|_| encoded.push(Piece::AnyOne)),
                Piece::AnyRun => encoded.push(Piece::AnyRun),
            }
        }
        return Ok(Operand::Text { pattern: encoded, cased: *cased, written: written.clone() });
    }
    let text = String::from_utf8(bytes(modifier, operand)?)
        .map_err(|_| "the value is already encoded".to_owned())?;
    Ok(Operand::Bytes(encoding::utf16(&text, form)))
}

/// Reads a network as strictly as Python's `ip_network`; a bare address is a network of one.
fn network(text: &str) -> Result<ipnet::IpNet, String> {
    let net = network_of(text)
        .ok_or_else(|| format!("{text:?} is no network; write for instance 10.0.0.0/8"))?;
    if net.addr() != net.network() {
        let meant = net.trunc();
        return Err(format!("{text:?} has bits set beyond its prefix; did you mean {meant}?"));
    }
    Ok(unmapped(net))
}

/// An address without leading zeros, which to some are octal, and behind a slash the length of its
/// prefix or, of IPv4, a mask of the network's bits or of the host's.
fn network_of(text: &str) -> Option<ipnet::IpNet> {
    let Some((address, prefix)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(ipnet::IpNet::from);
    };
    let address: IpAddr = address.parse().ok()?;
    let length = match prefix.parse::<Ipv4Addr>() {
        Ok(mask) if address.is_ipv4() => {
            let mask = u32::from(mask);
            let is_prefix = |mask: u32| mask.leading_ones() + mask.trailing_zeros() >= u32::BITS;
            let of_network = [mask, !mask].into_iter().find(|mask| is_prefix(*mask))?;
            u8::try_from(of_network.leading_ones()).ok()?
        }
        _ if prefix.bytes().all(|byte| byte.is_ascii_digit()) => prefix.parse().ok()?,
        _ => return None,
    };
    ipnet::IpNet::new(address, length).ok()
}

/// A network of IPv4-mapped addresses is one of IPv4: as such they are compared.
fn unmapped(net: ipnet::IpNet) -> ipnet::IpNet {
    let ipnet::IpNet::V6(v6) = net else { return net };
    let (Some(address), Some(length)) =
        (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
    else {
        return net;
    };
    ipnet::Ipv4Net::new(address, length).map_or(net, ipnet::IpNet::V4)
}

fn windash(operand: Operand) -> Result<Operand, String> {
    let Operand::Text { pattern, cased, written } = operand else {
        return Err(mismatch(Modifier::Windash, &operand));
    };
    let variants = encoding::windash(&pattern).ok_or_else(|| {
        format!(
            "\"windash\" would make more than {VARIANTS_MAX} values; \
             use fewer dashes or shorter texts"
        )
    })?;
    let member = |pattern| Operand::Text { pattern, cased, written: written.clone() };
    Ok(Operand::Group(variants.into_iter().map(member).collect()))
}

fn than(operand: Operand, op: Comparison) -> Result<Operand, String> {
    match operand {
        Operand::Integer(text) => match Number::parse(&text) {
            Some(than) => Ok(Operand::Compare { op, than }),
            None => Err(format!("{text} is too large to compare")),
        },
        Operand::Float(than) if than.is_finite() => {
            Ok(Operand::Compare { op, than: Number::Real(than) })
        }
        Operand::TimePart { part, op: Comparison::Eq, than } => {
            Ok(Operand::TimePart { part, op, than })
        }
        _ => Err(format!("{:?} needs a number, not {}", Modifier::Than(op).name(), operand.kind())),
    }
}

fn time_part(operand: Operand, part: TimePart) -> Result<Operand, String> {
    let name = Modifier::Part(part).name();
    match &operand {
        Operand::Integer(text) => match text.parse::<i64>() {
            Ok(than) => Ok(Operand::TimePart { part, op: Comparison::Eq, than }),
            Err(_) => Err(format!("{text} is no {name}")),
        },
        _ => Err(format!("{name:?} needs a whole number, not {}", operand.kind())),
    }
}

fn field_ref(operand: Operand) -> Result<Operand, String> {
    match operand {
        Operand::Text { pattern, cased, written } => {
            if pattern.has_wildcard() {
                return Err("\"fieldref\" names a field and takes no wildcards; \
                     contains, startswith and endswith stand behind it"
                    .to_owned());
            }
            if written.is_empty() {
                return Err("\"fieldref\" names no field".to_owned());
            }
            Ok(Operand::FieldRef { other: Arc::from(written), place: Place::Whole, cased })
        }
        other => Err(mismatch(Modifier::FieldRef, &other)),
    }
}

fn expand(operand: Operand, placeholders: &Placeholders) -> Result<Operand, String> {
    match operand {
        Operand::Text { pattern, cased, written } => {
            let mut variants = vec![Pattern { pieces: Vec::new() }];
            for piece in &pattern.pieces {
                let parts = match piece {
                    Piece::Literal(text) => placeholder::stretches(text),
                    _ => {
                        variants.iter_mut().for_each(|variant| variant.push(piece.clone()));
                        continue;
                    }
                };
                for part in parts {
                    variants = multiply(&variants, &filled(&part, placeholders)?)?;
                }
            }
            let member = |pattern| Operand::Text { pattern, cased, written: written.clone() };
            Ok(Operand::Group(variants.into_iter().map(member).collect()))
        }
        Operand::Regex { source, flags } => {
            let mut variants = vec![String::new()];
            for part in placeholder::stretches(&source) {
                let fills: Vec<String> = match &part {
                    Stretch::Text(text) => vec![text.clone()],
                    Stretch::Name(_) => filled(&part, placeholders)?
                        .iter()
                        .map(placeholder::pattern_as_regex)
                        .collect(),
                };
                limit(variants.len() * fills.len())?;
                let longer = |variant: &String| -> Vec<String> {
                    fills.iter().map(|fill| format!("{variant}{fill}")).collect()
                };
                variants = variants.iter().flat_map(longer).collect();
            }
            let member = |source| Operand::Regex { source, flags: flags.clone() };
            Ok(Operand::Group(variants.into_iter().map(member).collect()))
        }
        other => Err(mismatch(Modifier::Expand, &other)),
    }
}

/// What may stand in the place of a stretch.
fn filled(part: &Stretch, placeholders: &Placeholders) -> Result<Vec<Pattern>, String> {
    match part {
        Stretch::Text(text) => Ok(vec![Pattern::literal(text)]),
        Stretch::Name(name) => match placeholders.get(name) {
            Some(values) => Ok(values.iter().map(|value| Pattern::parse(value)).collect()),
            None => Err(format!(
                "no list for the placeholder %{name}%{}; add it to the placeholders",
                did_you_mean(name, placeholders.names())
            )),
        },
    }
}

fn multiply(variants: &[Pattern], fills: &[Pattern]) -> Result<Vec<Pattern>, String> {
    limit(variants.len() * fills.len())?;
    let longer = |variant: &Pattern| -> Vec<Pattern> {
        let join = |fill| {
            let mut whole = variant.clone();
            whole.extend(fill);
            whole
        };
        fills.iter().map(join).collect()
    };
    Ok(variants.iter().flat_map(longer).collect())
}

fn limit(variants: usize) -> Result<(), String> {
    match variants {
        0..=VARIANTS_MAX => Ok(()),
        _ => Err(format!("placeholders would make more than {VARIANTS_MAX} values")),
    }
}
