//! Compiles `proto/` to Rust types, and to the tables that validation walks (no `protoc` needed).
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

const PACKAGE: &str = ".isamorph.criu.";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut files: Vec<PathBuf> = fs::read_dir("proto")?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "proto"));
    files.sort();
    let set = protox::compile(&files, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("schema.rs"), tables(&set)?)?;
    prost_build::Config::new().compile_fds(set)?;
    Ok(())
}

/// One static table per message: prost neither checks `required` nor keeps unknown fields, so both
/// are checked on the wire bytes against these.
fn tables(set: &FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    for file in &set.file {
        for e in &file.enum_type {
            enumeration(&mut text, "", e)?;
        }
        for m in &file.message_type {
            for e in &m.enum_type {
                enumeration(&mut text, &format!("{}.", m.name()), e)?;
            }
            message(&mut text, m)?;
        }
    }
    Ok(text)
}

fn enumeration(text: &mut String, scope: &str, e: &EnumDescriptorProto) -> std::fmt::Result {
    // Names without the prefix that proto2's scoping makes necessary: they are CRIU's own then.
    let prefix = screaming(e.name()) + "_";
    let values: Vec<_> =
        e.value.iter().map(|v| (v.number(), v.name().strip_prefix(&prefix).unwrap_or(v.name()))).collect();
    writeln!(text, "static ENUM_{}: &[(i32, &str)] = &{values:?};", ident(&format!("{scope}{}", e.name())))
}

fn message(text: &mut String, m: &DescriptorProto) -> Result<(), Box<dyn Error>> {
    let name = m.name();
    writeln!(text, "static {}: Schema = Schema {{ name: {name:?}, fields: &[", ident(name))?;
    for f in &m.field {
        let type_name = f.type_name().strip_prefix(PACKAGE).unwrap_or_default();
        let kind = match f.r#type() {
            Type::Message => format!("Message(&{})", ident(type_name)),
            Type::Enum => format!("Enum(ENUM_{})", ident(type_name)),
            other => format!("{other:?}"),
        };
        writeln!(
            text,
            "    Field {{ number: {}, name: {:?}, kind: Kind::{kind}, required: {}, repeated: {} }},",
            f.number(),
            f.name(),
            f.label() == Label::Required,
            f.label() == Label::Repeated
        )?;
    }
    writeln!(text, "] }};")?;
    writeln!(text, "impl Described for proto::{name} {{ const SCHEMA: &'static Schema = &{}; }}", ident(name))?;
    Ok(())
}

fn ident(name: &str) -> String {
    screaming(&name.replace('.', "_"))
}

/// `FdType` to `FD_TYPE`.
fn screaming(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}
