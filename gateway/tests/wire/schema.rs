//! The schema as a library reads it: messages made at random, and the JSON that stands for them in
//! this protocol (64-bit numbers as numbers, bytes as the JSON that they hold).

use std::fmt::Write as _;
use std::sync::LazyLock;

use fastrand::Rng;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    Value,
};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/protocol/protobuf");
    let files = protox::compile(["client.proto"], [folder]).expect("the schema compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("the schema is whole")
});

pub(crate) fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("flux.client.{name}"))
        .expect("a message of the schema")
}

/// Text with everything that JSON has to escape.
pub(crate) const TEXTS: [&str; 7] = [
    "",
    "c",
    "news:sport",
    "a\"b\\c",
    "\u{1}\n\r\t",
    "ü\u{1F600}",
    "long long long long long long long long long long long long long long long long long long text",
];

/// JSON on one line.
pub(crate) const JSON: [&str; 6] = [
    "1",
    "{}",
    "null",
    "\"\\u0000\\n\"",
    "[1,{\"a\":[true,-1.5e3]}]",
    "{\"text\":\"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\"}",
];

pub(crate) fn number(rng: &mut Rng) -> u64 {
    match rng.u8(..4) {
        0 => rng.u64(..3),
        1 => rng.u64(..200),
        2 => u64::MAX >> rng.u32(..64),
        _ => rng.u64(..),
    }
}

/// A message with some of its fields set.
pub(crate) fn random(descriptor: &MessageDescriptor, rng: &mut Rng, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let is_message = matches!(field.kind(), Kind::Message(_));
        if rng.bool() || (depth == 0 && is_message) {
            continue;
        }
        let value = if field.is_map() {
            let Kind::Message(entry) = field.kind() else {
                unreachable!("a map's entries are messages")
            };
            let value = entry.map_entry_value_field();
            let entries = (0..rng.usize(..4)).map(|_| {
                let key = MapKey::String((*rng.choice(TEXTS).unwrap()).to_owned());
                (key, one(&value, rng, depth))
            });
            Value::Map(entries.collect())
        } else if field.is_list() {
            Value::List(
                (0..rng.usize(..4))
                    .map(|_| one(&field, rng, depth))
                    .collect(),
            )
        } else {
            one(&field, rng, depth)
        };
        message.set_field(&field, value);
    }
    message
}

fn one(field: &FieldDescriptor, rng: &mut Rng, depth: u32) -> Value {
    match field.kind() {
        Kind::Bool => Value::Bool(rng.bool()),
        Kind::Uint32 => Value::U32(number(rng) as u32),
        Kind::Int32 => Value::I32(number(rng) as i32),
        Kind::Uint64 => Value::U64(number(rng)),
        Kind::Int64 | Kind::Sint64 => Value::I64(number(rng) as i64),
        Kind::String => Value::String((*rng.choice(TEXTS).unwrap()).to_owned()),
        Kind::Bytes => Value::Bytes(rng.choice(JSON).unwrap().as_bytes().into()),
        Kind::Message(inner) => Value::Message(random(&inner, rng, depth - 1)),
        other => unreachable!("the schema has no {other:?}"),
    }
}

/// The message in the protocol's JSON; none where bytes are not JSON.
pub(crate) fn to_json(message: &DynamicMessage) -> Option<String> {
    let mut out = String::new();
    write_message(&mut out, message)?;
    Some(out)
}

fn write_message(out: &mut String, message: &DynamicMessage) -> Option<()> {
    out.push('{');
    for (at, (field, value)) in message.fields().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write!(out, "\"{}\":", field.name()).ok()?;
        write_value(out, value)?;
    }
    out.push('}');
    Some(())
}

fn write_value(out: &mut String, value: &Value) -> Option<()> {
    match value {
        Value::Bool(value) => write!(out, "{value}").ok()?,
        Value::U32(value) => write!(out, "{value}").ok()?,
        Value::I32(value) => write!(out, "{value}").ok()?,
        Value::U64(value) => write!(out, "{value}").ok()?,
        Value::I64(value) => write!(out, "{value}").ok()?,
        Value::String(text) => out.push_str(&serde_json::to_string(text).ok()?),
        Value::Bytes(bytes) => {
            flux_gateway::protocol::json::check_value(bytes).ok()?;
            out.push_str(std::str::from_utf8(bytes).ok()?);
        }
        Value::Message(message) => write_message(out, message)?,
        Value::List(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_value(out, value)?;
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(key.as_str()?).ok()?);
                out.push(':');
                write_value(out, value)?;
            }
            out.push('}');
        }
        other => unreachable!("the schema has no {other:?}"),
    }
    Some(())
}

/// What a document says in the schema's terms: without zero values, and with nothing that the
/// schema does not know.
pub(crate) fn meaning(
    document: &serde_json::Value,
    descriptor: &MessageDescriptor,
) -> serde_json::Value {
    let fields = document.as_object().expect("a message is an object");
    let mut out = serde_json::Map::new();
    for (name, value) in fields {
        let field = descriptor
            .get_field_by_name(name)
            .unwrap_or_else(|| panic!("{} has no {name}", descriptor.name()));
        let meant = if field.is_map() {
            let Kind::Message(entry) = field.kind() else {
                unreachable!("a map's entries are messages")
            };
            let inner = entry.map_entry_value_field();
            let entries = value.as_object().expect("a map is an object");
            serde_json::Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), meant(value, &inner)))
                    .collect(),
            )
        } else if field.cardinality() == Cardinality::Repeated {
            let values = value.as_array().expect("a repeated field is an array");
            values.iter().map(|value| meant(value, &field)).collect()
        } else {
            meant(value, &field)
        };
        let is_zero = match &meant {
            serde_json::Value::Bool(value) => !value,
            serde_json::Value::Number(value) => value.as_u64() == Some(0),
            serde_json::Value::String(text) => text.is_empty(),
            serde_json::Value::Array(values) => values.is_empty(),
            serde_json::Value::Object(fields) => field.is_map() && fields.is_empty(),
            serde_json::Value::Null => false,
        };
        if field.kind() == Kind::Bytes || !is_zero {
            out.insert(name.clone(), meant);
        }
    }
    serde_json::Value::Object(out)
}

fn meant(value: &serde_json::Value, field: &FieldDescriptor) -> serde_json::Value {
    match field.kind() {
        Kind::Message(inner) => meaning(value, &inner),
        _ => value.clone(),
    }
}
