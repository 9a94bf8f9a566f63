//! Bytes to JSON, along the schema.
use std::borrow::Cow;

use super::super::dir::Records;
use super::super::error::Problem;
use super::super::schema::{Field, Kind, MAX_DEPTH, Reader, Schema, SchemaError, Wire};
use super::{Decoded, EXTRA, Layout, Options, UNKNOWN, Value, base64, head_of, layout, style};

/// The whole image.
pub(super) fn image(bytes: &[u8], options: Options) -> Result<Decoded, Problem> {
    let (kind, at) = head_of(bytes)?;
    let mut records = Records { bytes, at, index: 0 };
    let mut decoder = Decoder { options, unknown: Vec::new() };
    let layout = layout(kind);
    let mut entries = Vec::new();
    while let Some(raw) = records.next_record()? {
        let error = |source| Problem::Entry { index: entries.len(), source };
        let entry = match layout {
            Layout::Entries(schema) => decoder.message(raw, schema, 0).map_err(error)?,
            Layout::Pagemap(head, _) if entries.is_empty() => decoder.message(raw, head, 0).map_err(error)?,
            Layout::Pagemap(_, schema) => decoder.message(raw, schema, 0).map_err(error)?,
            Layout::Payload(schema) => {
                let entry = decoder.message(raw, schema, 0).map_err(error)?;
                let len = length(&entry);
                let payload = records.take(len)?;
                decoder.with_payload(entry, payload)
            }
            Layout::NoSchema => {
                let fields = unknown_fields(raw).map_err(error)?;
                Value::Object(vec![(Cow::Borrowed(UNKNOWN), Value::List(fields))])
            }
            Layout::NoFraming | Layout::Raw => return Err(Problem::NoSchema { kind: kind.name() }),
        };
        entries.push(entry);
    }
    let json = Value::Object(vec![
        (Cow::Borrowed("magic"), Value::text(kind.name())),
        (Cow::Borrowed("entries"), Value::List(entries)),
    ]);
    Ok(Decoded { kind, json, unknown: decoder.unknown, no_schema: matches!(layout, Layout::NoSchema) })
}

/// The payload's length in bytes: the field of this name, which is a required one.
fn length(entry: &Value) -> u64 {
    let Value::Object(fields) = entry else { return 0 };
    match fields.iter().find(|(name, _)| name == "bytes") {
        Some((_, Value::Unsigned(len))) => *len,
        _ => 0,
    }
}

struct Decoder {
    options: Options,
    unknown: Vec<String>,
}

impl Decoder {
    fn message(&mut self, bytes: &[u8], schema: &'static Schema, depth: usize) -> Result<Value, SchemaError> {
        let malformed = |offset| SchemaError::Malformed { message: schema.name, offset };
        if depth > MAX_DEPTH {
            return Err(malformed(0));
        }
        let mut values: Vec<Vec<Value>> = vec![Vec::new(); schema.fields.len()];
        let mut unknown = Vec::new();
        let mut reader = Reader::new(bytes);
        loop {
            let offset = reader.offset();
            let Some(field) = reader.next_field() else { break };
            let (number, wire) = field.ok_or_else(|| malformed(offset))?;
            let Some(index) = schema.fields.iter().position(|f| f.number == number) else {
                let name = format!("{} field {number}", schema.name);
                if !self.unknown.contains(&name) {
                    self.unknown.push(name);
                }
                unknown.push(wire_field(number, wire));
                continue;
            };
            let field = &schema.fields[index];
            match (field.kind, wire) {
                (kind, Wire::Bytes(packed)) if field.repeated && kind.is_varint() => {
                    let mut items = Reader::new(packed);
                    while items.offset() < packed.len() {
                        let item = items.varint().ok_or_else(|| malformed(offset))?;
                        let value = self.scalar(schema, field, Wire::Varint(item)).ok_or_else(|| malformed(offset))?;
                        values[index].push(value);
                    }
                }
                (Kind::Message(inner), Wire::Bytes(b)) => values[index].push(self.message(b, inner, depth + 1)?),
                _ => values[index].push(self.scalar(schema, field, wire).ok_or_else(|| malformed(offset))?),
            }
            if values[index].len() > 1 && !field.repeated {
                return Err(SchemaError::Twice { message: schema.name, field: field.name });
            }
        }
        let mut object = Vec::new();
        for (field, mut list) in schema.fields.iter().zip(values) {
            let value = match (field.repeated, list.pop()) {
                (_, None) if field.required => {
                    return Err(SchemaError::Required { message: schema.name, field: field.name });
                }
                (_, None) => continue,
                (false, Some(value)) => value,
                (true, Some(last)) => {
                    list.push(last);
                    Value::List(list)
                }
            };
            object.push((Cow::Borrowed(field.name), value));
        }
        if !unknown.is_empty() {
            object.push((Cow::Borrowed(UNKNOWN), Value::List(unknown)));
        }
        Ok(Value::Object(object))
    }

    /// `None` if the bytes are none of this type.
    fn scalar(&self, schema: &Schema, field: &Field, wire: Wire<'_>) -> Option<Value> {
        let number = |n: u64| {
            let shown = if self.options.pretty { style::of(schema.name, field.name).show(n) } else { None };
            shown.map_or(Value::Unsigned(n), Value::Text)
        };
        Some(match (field.kind, wire) {
            (Kind::Enum(names), Wire::Varint(v)) => {
                let v = i32::try_from(v.cast_signed()).ok()?;
                match names.iter().find(|(n, _)| *n == v) {
                    Some((_, name)) => Value::text(*name),
                    None => Value::signed(v.into()),
                }
            }
            (kind, Wire::Varint(v)) if kind.is_varint() && kind.holds(v) => match kind {
                Kind::Bool => Value::Bool(v == 1),
                Kind::Int32 | Kind::Int64 => Value::signed(v.cast_signed()),
                Kind::Sint32 | Kind::Sint64 => Value::signed((v >> 1).cast_signed() ^ -((v & 1).cast_signed())),
                _ => number(v),
            },
            (Kind::Fixed32, Wire::Fixed32(v)) => number(v.into()),
            (Kind::Fixed64, Wire::Fixed64(v)) => number(v),
            (Kind::String, Wire::Bytes(b)) => Value::text(std::str::from_utf8(b).ok()?),
            (Kind::Bytes, Wire::Bytes(b)) => Value::Text(base64::encode(b)),
            _ => return None,
        })
    }

    fn with_payload(&self, entry: Value, payload: &[u8]) -> Value {
        let Value::Object(mut fields) = entry else { return entry };
        let text = match self.options.no_payload {
            true => format!("... <{} bytes>", payload.len()),
            false => base64::encode(payload),
        };
        fields.push((Cow::Borrowed(EXTRA), Value::Text(text)));
        Value::Object(fields)
    }
}

/// All fields of a message that has no schema.
fn unknown_fields(bytes: &[u8]) -> Result<Vec<Value>, SchemaError> {
    let mut fields = Vec::new();
    let mut reader = Reader::new(bytes);
    loop {
        let offset = reader.offset();
        let Some(field) = reader.next_field() else { return Ok(fields) };
        let (number, wire) = field.ok_or(SchemaError::Malformed { message: "message", offset })?;
        fields.push(wire_field(number, wire));
    }
}

/// `{"field": 7, "varint": 1}`: what can be said of a field without its schema.
fn wire_field(number: u32, wire: Wire<'_>) -> Value {
    let (kind, value) = match wire {
        Wire::Varint(v) => ("varint", Value::Unsigned(v)),
        Wire::Fixed64(v) => ("fixed64", Value::Unsigned(v)),
        Wire::Fixed32(v) => ("fixed32", Value::Unsigned(v.into())),
        Wire::Bytes(b) => ("bytes", Value::Text(base64::encode(b))),
    };
    Value::Object(vec![(Cow::Borrowed("field"), Value::Unsigned(number.into())), (Cow::Borrowed(kind), value)])
}
