use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value as Json;

use super::model::{Client, Field, Function, Kind, Named, Type};
use super::names::{distinct, pascal, snake};

const RESERVED: [&str; 50] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop",
    "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static",
    "struct", "super", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual",
    "where", "while",
];

/// A client in Rust: functions for an extension, or a struct for a host.
pub(super) fn write(client: &Client, for_host: bool) -> String {
    let writer = Writer { recursive: recursive(&client.types), for_host };
    let Client { extension, version, types, functions } = client;
    let mut out = format!(
        "//! A client of {extension} {version}. `quadriga bindgen` wrote it: do not edit.\n//!\n{}\n\
         #![allow(dead_code, missing_docs, unreachable_pub, unused_imports, clippy::all)]\n\n\
         use std::collections::BTreeMap;\n\n{}\n\
         /// The extension that is called.\n\
         pub const EXTENSION: &str = {extension:?};\n",
        match for_host {
            true => format!("//! Load {extension} before calling it."),
            false => format!(
                "//! The manifest must ask for the calls: `[permissions] call = [\"{extension}/*\"]`."
            ),
        },
        match for_host {
            true => {
                "use quadriga::Dispatcher;\nuse quadriga::abi::{Error, Timestamp, Value};\nuse serde::{Deserialize, Serialize};\n"
            }
            false => {
                "use quadriga_sdk::serde::{Deserialize, Serialize};\nuse quadriga_sdk::{Items, Result, Timestamp, Value, host};\n"
            }
        },
    );
    for named in types {
        out.push('\n');
        out.push_str(&writer.type_text(named));
    }
    let names = distinct(functions.iter().map(|function| name(&function.name)));
    let functions: Vec<_> =
        functions.iter().zip(names).map(|(function, name)| writer.function_text(function, &name)).collect();
    if for_host {
        let methods: String = functions
            .iter()
            .map(|text| text.lines().map(indented).collect::<String>())
            .collect::<Vec<_>>()
            .join("\n");
        let _ = write!(
            out,
            "\n/// The extension behind a dispatcher.\n#[derive(Clone)]\npub struct Client {{\n    dispatcher: Dispatcher,\n}}\n\n\
             impl Client {{\n    /// Calls through a dispatcher that has loaded the extension.\n    \
             pub fn new(dispatcher: &Dispatcher) -> Self {{\n        Self {{ dispatcher: dispatcher.clone() }}\n    }}\n\n{methods}}}\n"
        );
    } else {
        for function in functions {
            out.push('\n');
            out.push_str(&function);
        }
    }
    out
}

fn indented(line: &str) -> String {
    if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }
}

struct Writer {
    /// Types that hold themselves, and need a box for it.
    recursive: BTreeSet<String>,
    for_host: bool,
}

impl Writer {
    fn derives(&self) -> &'static str {
        match self.for_host {
            true => "#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]\n",
            false => {
                "#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]\n#[serde(crate = \"quadriga_sdk::serde\")]\n"
            }
        }
    }

    fn type_text(&self, named: &Named) -> String {
        let (doc, derives, name) = (doc(&named.doc, ""), self.derives(), &named.name);
        match &named.kind {
            Kind::Object(fields) => {
                let names = distinct(fields.iter().map(|field| self::name(&field.name)));
                let fields: String =
                    fields.iter().zip(names).map(|(field, own)| self.field_text(field, &own)).collect();
                format!("{doc}{derives}pub struct {name} {{\n{fields}}}\n")
            }
            Kind::Texts(texts) if texts.is_empty() => format!("{doc}pub type {name} = Value;\n"),
            Kind::Texts(texts) => {
                let names = distinct(texts.iter().map(|text| pascal(text)));
                let variants = texts.iter().zip(names);
                let variants: String = variants
                    .map(|(text, variant)| format!("    #[serde(rename = {text:?})]\n    {variant},\n"))
                    .collect();
                format!("{doc}{derives}pub enum {name} {{\n{variants}}}\n")
            }
            Kind::Alias(ty) => match untagged(ty) {
                Some(arms) => {
                    let variants = arms.iter().map(|arm| match arm {
                        Type::Nil => "    Nil,\n".to_owned(),
                        arm => format!("    {}({}),\n", variant(arm), self.boxed(arm)),
                    });
                    let variants: String = variants.collect();
                    format!("{doc}{derives}#[serde(untagged)]\npub enum {name} {{\n{variants}}}\n")
                }
                // An alias cannot name itself.
                None if self.recursive.contains(name) => format!("{doc}pub type {name} = Value;\n"),
                None => format!("{doc}pub type {name} = {};\n", self.of(ty)),
            },
        }
    }

    fn field_text(&self, field: &Field, own: &str) -> String {
        let mut out = doc(&field.doc, "    ");
        if own.trim_start_matches("r#") != field.name {
            let _ = writeln!(out, "    #[serde(rename = {:?})]", field.name);
        }
        let inner = self.boxed(field.ty.without_nil().as_ref().unwrap_or(&field.ty));
        let ty = match (field.optional, field.ty.without_nil().is_some()) {
            (false, false) => inner,
            _ => format!("Option<{inner}>"),
        };
        if field.optional {
            out.push_str("    #[serde(default, skip_serializing_if = \"Option::is_none\")]\n");
        }
        let _ = writeln!(out, "    pub {own}: {ty},");
        out
    }

    fn function_text(&self, function: &Function, own: &str) -> String {
        let names = distinct(function.parameters.iter().map(|parameter| name(&parameter.name)));
        let item = self.of(&function.returns);
        // A host gets all items of a stream in a list.
        let returns = match (function.streams, self.for_host) {
            (false, _) => item,
            (true, true) => format!("Vec<{item}>"),
            (true, false) => format!("Items<{item}>"),
        };
        let way = if function.streams { "stream" } else { "call" };
        let (open, result, close) = match self.for_host {
            true => ("pub async fn", format!("Result<{returns}, Error>"), ".await"),
            false => ("pub fn", format!("Result<{returns}>"), ""),
        };
        let receiver = if self.for_host { "&self" } else { "" };
        let call = |arguments: &str| match self.for_host {
            true => format!("self.dispatcher.invoke(EXTENSION, {:?}, &{arguments}){close}", function.name),
            false => format!("host::{way}(EXTENSION, {:?}, {arguments})", function.name),
        };
        let mut parameters = vec![receiver.to_owned()];
        parameters.retain(|parameter| !parameter.is_empty());
        let mut out = doc(&function.doc, "");
        if function.rest.is_some() {
            parameters.push("arguments: &[Value]".to_owned());
            let _ = write!(
                out,
                "{open} {own}({}) -> {result} {{\n    {}\n}}\n",
                parameters.join(", "),
                call("arguments")
            );
            return out;
        }
        for (parameter, name) in function.parameters.iter().zip(&names) {
            let ty = self.borrowed(&parameter.ty, parameter.optional);
            parameters.push(format!("{name}: {ty}"));
        }
        let required = function.parameters.iter().filter(|parameter| !parameter.optional).count();
        let _ = writeln!(out, "{open} {own}({}) -> {result} {{", parameters.join(", "));
        // What is left out at the end is not passed; what is left out before it is nil.
        for count in (required..names.len()).rev() {
            let _ = write!(
                out,
                "    if {}.is_some() {{\n        return {};\n    }}\n",
                names[count],
                call(&tuple(&names[..=count]))
            );
        }
        let _ = writeln!(out, "    {}\n}}", call(&tuple(&names[..required])));
        out
    }

    /// As a function takes it: what can be borrowed is.
    fn borrowed(&self, ty: &Type, optional: bool) -> String {
        if let Some(inner) = ty.without_nil() {
            return format!("Option<{}>", self.borrowed(&inner, false));
        }
        let ty = match ty {
            Type::Text => "&str".to_owned(),
            Type::Bytes => "&[u8]".to_owned(),
            Type::List(item) => format!("&[{}]", self.of(item)),
            Type::Bool | Type::Int(..) | Type::Number | Type::Nil | Type::Timestamp => self.of(ty),
            _ => format!("&{}", self.of(ty)),
        };
        if optional { format!("Option<{ty}>") } else { ty }
    }

    fn boxed(&self, ty: &Type) -> String {
        match ty {
            Type::Named(name) if self.recursive.contains(name) => format!("Box<{name}>"),
            _ => self.of(ty),
        }
    }

    fn of(&self, ty: &Type) -> String {
        if let Some(inner) = ty.without_nil() {
            return format!("Option<{}>", self.boxed(&inner));
        }
        match ty {
            Type::Nil => "()".to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Int(Some(0..), most) if most.is_none_or(|most| most > i64::MAX.into()) => "u64".to_owned(),
            Type::Int(..) => "i64".to_owned(),
            Type::Number => "f64".to_owned(),
            Type::Text => "String".to_owned(),
            Type::Literals(values) if values.iter().all(Json::is_string) => "String".to_owned(),
            Type::Literals(values) if values.iter().all(Json::is_boolean) => "bool".to_owned(),
            Type::Literals(values) if values.iter().all(Json::is_i64) => "i64".to_owned(),
            Type::Bytes => "Vec<u8>".to_owned(),
            Type::Timestamp => "Timestamp".to_owned(),
            Type::List(item) => format!("Vec<{}>", self.of(item)),
            Type::Tuple(items, least, None) if *least == items.len() && (1..=12).contains(least) => {
                let items: Vec<_> = items.iter().map(|item| self.boxed(item)).collect();
                format!("({},)", items.join(", "))
            }
            Type::Map(ints, value) => {
                format!("BTreeMap<{}, {}>", if *ints { "i64" } else { "String" }, self.of(value))
            }
            Type::Named(name) => name.clone(),
            Type::Any | Type::Literals(_) | Type::Tuple(..) | Type::Union(_) => "Value".to_owned(),
        }
    }
}

/// The arms of a union that serde can tell apart by trying: bytes and timestamps it cannot.
fn untagged(ty: &Type) -> Option<&[Type]> {
    let Type::Union(arms) = ty else { return None };
    let simple = |arm: &Type| {
        matches!(arm, Type::Nil | Type::Bool | Type::Int(..) | Type::Number | Type::Text | Type::Named(_))
    };
    let mut names: Vec<String> = arms.iter().map(variant).collect();
    names.sort();
    names.dedup();
    (arms.iter().all(simple) && names.len() == arms.len()).then_some(arms)
}

fn variant(ty: &Type) -> String {
    match ty {
        Type::Nil => "Nil".to_owned(),
        Type::Bool => "Bool".to_owned(),
        Type::Int(..) => "Int".to_owned(),
        Type::Number => "Number".to_owned(),
        Type::Named(name) => format!("Is{name}"),
        _ => "Text".to_owned(),
    }
}

/// The types that hold themselves without a list or a map between.
fn recursive(types: &[Named]) -> BTreeSet<String> {
    let holds: BTreeMap<&str, Vec<&str>> = types
        .iter()
        .map(|named| {
            let held = match &named.kind {
                Kind::Object(fields) => fields.iter().flat_map(|field| field.ty.holds()).collect(),
                Kind::Alias(ty) => ty.holds(),
                Kind::Texts(_) => Vec::new(),
            };
            (named.name.as_str(), held)
        })
        .collect();
    let reaches_itself = |start: &&str| {
        let (mut seen, mut pending) = (BTreeSet::new(), holds[*start].clone());
        while let Some(name) = pending.pop() {
            if name == *start {
                return true;
            }
            if seen.insert(name) {
                pending.extend(holds.get(name).into_iter().flatten());
            }
        }
        false
    };
    holds.keys().filter(|name| reaches_itself(name)).map(|name| (*name).to_owned()).collect()
}

fn tuple(names: &[String]) -> String {
    match names.is_empty() {
        true => "()".to_owned(),
        false => format!("({},)", names.join(", ")),
    }
}

fn name(name: &str) -> String {
    let name = snake(name);
    if RESERVED.contains(&name.as_str()) { format!("{name}_") } else { name }
}

fn doc(doc: &str, indent: &str) -> String {
    doc.replace('\r', "")
        .lines()
        .map(|line| format!("{indent}/// {line}").trim_end().to_owned() + "\n")
        .collect()
}
