//! JSON to bytes, along the schema: the inverse of `decode`, and just as strict.
use std::fmt;

use serde_json::{Map, Value as Json};

use super::super::dir::{head, push_record};
use super::super::kind::ImageKind;
use super::super::schema::{Field, Kind, Schema};
use super::{EXTRA, Layout, UNKNOWN, base64, layout, style};

/// JSON that is not of an image.
#[derive(Debug, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct EncodeError {
    /// Where, as `entries[3].reg.flags`.
    pub at: String,
    /// What is wrong there.
    pub problem: EncodeProblem,
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeProblem {
    /// Another type of value than the field has.
    #[error("{found} where {expected} is wanted")]
    Type {
        /// What is wanted.
        expected: &'static str,
        /// The value, shortened.
        found: String,
    },
    /// A field that must be there is not.
    #[error("missing")]
    Missing,
    /// A field that the message does not have.
    #[error("{message} has no such field")]
    NoSuchField {
        /// The message.
        message: &'static str,
    },
    /// No kind of image has this name.
    #[error("isamorph knows no kind of image named {name:?}")]
    Kind {
        /// The name.
        name: String,
    },
    /// Images of this kind cannot be made without a schema.
    #[error("isamorph has no schema for {kind} images; use crit")]
    NoSchema {
        /// The kind.
        kind: &'static str,
    },
    /// A payload of another length than its entry says.
    #[error("{found} bytes of payload where the entry says {declared}")]
    PayloadLength {
        /// Length that the entry says.
        declared: u64,
        /// Length of the payload.
        found: u64,
    },
}

/// The bytes of an image.
///
/// # Errors
/// It is not the JSON of an image: where, and what is wrong.
pub fn encode(json: &Json) -> Result<Vec<u8>, EncodeError> {
    let name = json.get("magic").ok_or_else(|| missing("magic"))?;
    let name = name.as_str().ok_or_else(|| wrong("magic", "the name of a kind of image", name))?;
    let kind = ImageKind::ALL.iter().copied().find(|k| k.name() == name);
    let kind = kind.ok_or_else(|| error("magic", EncodeProblem::Kind { name: name.to_owned() }))?;
    let entries = json.get("entries").ok_or_else(|| missing("entries"))?;
    let entries = entries.as_array().ok_or_else(|| wrong("entries", "a list", entries))?;
    let mut out = head(kind);
    for (index, entry) in entries.iter().enumerate() {
        let at = format!("entries[{index}]");
        let mut fields = entry.as_object().ok_or_else(|| wrong(&at, "an object", entry))?.clone();
        let schema = match layout(kind) {
            Layout::Entries(schema) | Layout::Payload(schema) => schema,
            Layout::Pagemap(head, _) if index == 0 => head,
            Layout::Pagemap(_, schema) => {
                // The name that this field had when it was the only one: CRIU before 4.1.
                if !fields.contains_key("compat_nr_pages")
                    && let Some(pages) = fields.remove("nr_pages")
                {
                    fields.insert("compat_nr_pages".into(), pages);
                }
                schema
            }
            Layout::NoSchema => &EMPTY,
            Layout::NoFraming | Layout::Raw => {
                return Err(error("magic", EncodeProblem::NoSchema { kind: kind.name() }));
            }
        };
        let payload = match layout(kind) {
            Layout::Payload(_) => Some(payload(&at, &mut fields)?),
            _ => None,
        };
        push_record(&mut out, &message(&at, &fields, schema)?);
        out.extend(payload.unwrap_or_default());
    }
    Ok(out)
}

/// A message of which nothing is known.
static EMPTY: Schema = Schema { name: "an entry without a schema", fields: &[] };

fn payload(at: &str, fields: &mut Map<String, Json>) -> Result<Vec<u8>, EncodeError> {
    let at = format!("{at}.{EXTRA}");
    let bytes = match fields.remove(EXTRA) {
        Some(json) => bytes(&at, &json)?,
        None => return Err(missing(&at)),
    };
    let declared = fields.get("bytes").and_then(Json::as_u64).unwrap_or(0);
    if declared != bytes.len() as u64 {
        return Err(error(&at, EncodeProblem::PayloadLength { declared, found: bytes.len() as u64 }));
    }
    Ok(bytes)
}

fn message(at: &str, fields: &Map<String, Json>, schema: &Schema) -> Result<Vec<u8>, EncodeError> {
    for name in fields.keys().filter(|name| *name != UNKNOWN) {
        if !schema.fields.iter().any(|f| f.name == name) {
            return Err(error(&format!("{at}.{name}"), EncodeProblem::NoSuchField { message: schema.name }));
        }
    }
    let mut ordered: Vec<&Field> = schema.fields.iter().collect();
    ordered.sort_by_key(|f| f.number);
    let mut out = Vec::new();
    for field in ordered {
        let at = format!("{at}.{}", field.name);
        match (fields.get(field.name), field.repeated) {
            (None, _) if field.required => return Err(missing(&at)),
            (None, _) => {}
            (Some(value), false) => one(&mut out, &at, schema, field, value)?,
            (Some(list), true) => {
                for (n, value) in list.as_array().ok_or_else(|| wrong(&at, "a list", list))?.iter().enumerate() {
                    one(&mut out, &format!("{at}[{n}]"), schema, field, value)?;
                }
            }
        }
    }
    if let Some(unknown) = fields.get(UNKNOWN) {
        let at = format!("{at}.{UNKNOWN}");
        for (n, field) in unknown.as_array().ok_or_else(|| wrong(&at, "a list", unknown))?.iter().enumerate() {
            wire_field(&mut out, &format!("{at}[{n}]"), field)?;
        }
    }
    Ok(out)
}

fn one(out: &mut Vec<u8>, at: &str, schema: &Schema, field: &Field, value: &Json) -> Result<(), EncodeError> {
    let style = style::of(schema.name, field.name);
    let unsigned = |max: u64| {
        let number = value.as_u64().or_else(|| style.parse(value.as_str()?));
        number.filter(|n| *n <= max).ok_or_else(|| wrong(at, "a number that fits the field", value))
    };
    let signed = || value.as_i64().ok_or_else(|| wrong(at, "a number that fits the field", value));
    let zigzag = |n: i64| (n << 1 ^ n >> 63).cast_unsigned();
    let varint = match field.kind {
        Kind::Bool => u64::from(value.as_bool().ok_or_else(|| wrong(at, "true or false", value))?),
        Kind::Uint32 => unsigned(u32::MAX.into())?,
        Kind::Uint64 => unsigned(u64::MAX)?,
        Kind::Int32 | Kind::Sint32 => {
            let n = signed()?;
            let n = i64::from(i32::try_from(n).map_err(|_| wrong(at, "a number of 32 bits", value))?);
            if matches!(field.kind, Kind::Sint32) { zigzag(n) } else { n.cast_unsigned() }
        }
        Kind::Int64 => signed()?.cast_unsigned(),
        Kind::Sint64 => zigzag(signed()?),
        Kind::Enum(names) => {
            let by_name = value.as_str().and_then(|text| names.iter().find(|(_, name)| *name == text));
            let number = by_name.map(|(n, _)| *n).or_else(|| i32::try_from(value.as_i64()?).ok());
            let number = number.ok_or_else(|| wrong(at, "one of the field's names", value))?;
            i64::from(number).cast_unsigned()
        }
        Kind::Fixed32 => {
            key(out, field.number, 5);
            out.extend((unsigned(u32::MAX.into())? as u32).to_le_bytes());
            return Ok(());
        }
        Kind::Fixed64 => {
            key(out, field.number, 1);
            out.extend(unsigned(u64::MAX)?.to_le_bytes());
            return Ok(());
        }
        Kind::String => {
            let text = value.as_str().ok_or_else(|| wrong(at, "a string", value))?;
            length_delimited(out, field.number, text.as_bytes());
            return Ok(());
        }
        Kind::Bytes => {
            length_delimited(out, field.number, &bytes(at, value)?);
            return Ok(());
        }
        Kind::Message(inner) => {
            let fields = value.as_object().ok_or_else(|| wrong(at, "an object", value))?;
            length_delimited(out, field.number, &message(at, fields, inner)?);
            return Ok(());
        }
    };
    key(out, field.number, 0);
    push_varint(out, varint);
    Ok(())
}

/// `{"field": 7, "varint": 1}`.
fn wire_field(out: &mut Vec<u8>, at: &str, json: &Json) -> Result<(), EncodeError> {
    let wanted = "an object of \"field\" and one of \"varint\", \"fixed64\", \"fixed32\", \"bytes\"";
    let number = json.get("field").and_then(Json::as_u64).and_then(|n| u32::try_from(n).ok());
    let number = number.filter(|n| (1..1 << 29).contains(n)).ok_or_else(|| wrong(at, wanted, json))?;
    let given = |name: &str| json.get(name).and_then(Json::as_u64);
    if let Some(v) = given("varint") {
        key(out, number, 0);
        push_varint(out, v);
    } else if let Some(v) = given("fixed64") {
        key(out, number, 1);
        out.extend(v.to_le_bytes());
    } else if let Some(v) = given("fixed32").and_then(|v| u32::try_from(v).ok()) {
        key(out, number, 5);
        out.extend(v.to_le_bytes());
    } else if let Some(text) = json.get("bytes") {
        length_delimited(out, number, &bytes(&format!("{at}.bytes"), text)?);
    } else {
        return Err(wrong(at, wanted, json));
    }
    Ok(())
}

fn bytes(at: &str, json: &Json) -> Result<Vec<u8>, EncodeError> {
    json.as_str().and_then(base64::decode).ok_or_else(|| wrong(at, "base64", json))
}

fn key(out: &mut Vec<u8>, number: u32, wire: u64) {
    push_varint(out, u64::from(number) << 3 | wire);
}

fn length_delimited(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    key(out, number, 2);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn push_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn error(at: &str, problem: EncodeProblem) -> EncodeError {
    EncodeError { at: at.to_owned(), problem }
}

fn missing(at: &str) -> EncodeError {
    error(at, EncodeProblem::Missing)
}

fn wrong(at: &str, expected: &'static str, found: &Json) -> EncodeError {
    error(at, EncodeProblem::Type { expected, found: Short(found).to_string() })
}

/// A value, not longer than a line of a message may be.
struct Short<'a>(&'a Json);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.char_indices().nth(40) {
            Some((end, _)) => write!(f, "{}…", &text[..end]),
            None => f.write_str(&text),
        }
    }
}
