use serde_json::Value as Json;

use super::model::{Client, Field, Function, Kind, Named, Type};
use super::names::{distinct, plain};

/// The largest size of a whole `number`; beyond it ints are `bigint`.
const SAFE: i128 = (1 << 53) - 1;

const RESERVED: [&str; 41] = [
    "arguments",
    "await",
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "eval",
    "export",
    "extends",
    "false",
    "finally",
    "for",
    "function",
    "given",
    "host",
    "if",
    "import",
    "in",
    "instanceof",
    "let",
    "new",
    "null",
    "return",
    "static",
    "super",
    "switch",
    "this",
    "throw",
    "true",
    "try",
    "typeof",
    "void",
    "yield",
];

/// A client in TypeScript, for an extension.
pub(super) fn write(client: &Client) -> String {
    let Client { extension, version, types, functions } = client;
    let mut out = format!(
        "// A client of {extension} {version}. `quadriga bindgen` wrote it: do not edit.\n\
         // The manifest must ask for the calls: [permissions] call = [\"{extension}/*\"]\n\
         import {{ host }} from \"quadriga\";\n\n\
         const EXTENSION = {};\n",
        text(extension)
    );
    for named in types {
        out.push('\n');
        out.push_str(&type_text(named));
    }
    let names = distinct(functions.iter().map(|function| name(&function.name)));
    for (function, name) in functions.iter().zip(names) {
        out.push('\n');
        out.push_str(&function_text(function, &name));
    }
    out.push_str(
        "\n/** The arguments that a call passes: those at the end that were left out are not among them. */\n\
         function given(...args: any[]): any[] {\n\
         \x20 while (args.length > 0 && args[args.length - 1] === undefined) args.pop();\n\
         \x20 return args;\n\
         }\n",
    );
    out
}

fn type_text(named: &Named) -> String {
    let (doc, name) = (doc(&named.doc, ""), &named.name);
    match &named.kind {
        Kind::Object(fields) => {
            let fields: String = fields.iter().map(field_text).collect();
            format!("{doc}export interface {name} {{\n{fields}}}\n")
        }
        Kind::Texts(texts) => {
            let texts: Vec<_> = texts.iter().map(|one| text(one)).collect();
            format!(
                "{doc}export type {name} = {};\n",
                if texts.is_empty() { "never".to_owned() } else { texts.join(" | ") }
            )
        }
        Kind::Alias(ty) => format!("{doc}export type {name} = {};\n", of(ty)),
    }
}

fn field_text(field: &Field) -> String {
    let optional = if field.optional { "?" } else { "" };
    let key = if plain(&field.name) == field.name { field.name.clone() } else { text(&field.name) };
    format!("{}  {key}{optional}: {};\n", doc(&field.doc, "  "), of(&field.ty))
}

fn function_text(function: &Function, own: &str) -> String {
    let names = distinct(function.parameters.iter().map(|parameter| name(&parameter.name)));
    let mut parameters: Vec<String> = function
        .parameters
        .iter()
        .zip(&names)
        .map(|(parameter, name)| {
            format!("{name}{}: {}", if parameter.optional { "?" } else { "" }, of(&parameter.ty))
        })
        .collect();
    let mut passed = names;
    if let Some(rest) = &function.rest {
        parameters.push(format!("...others: {}", list(rest)));
        passed.push("...others".to_owned());
    }
    let passed = if passed.is_empty() { String::new() } else { format!(", ...given({})", passed.join(", ")) };
    let doc = doc(&function.doc, "");
    let (result, call) = match function.streams {
        true => (format!("AsyncIterableIterator<{}>", of(&function.returns)), "stream"),
        false => (format!("Promise<{}>", result(&function.returns)), "call"),
    };
    format!(
        "{doc}export function {own}({}): {result} {{\n  return host.{call}(EXTENSION, {}{passed});\n}}\n",
        parameters.join(", "),
        text(&function.name),
    )
}

/// A result is never `undefined`, but nobody looks at one that is only nil.
fn result(ty: &Type) -> String {
    if *ty == Type::Nil { "void".to_owned() } else { of(ty) }
}

fn of(ty: &Type) -> String {
    match ty {
        Type::Any => "any".to_owned(),
        Type::Nil => "null".to_owned(),
        Type::Bool => "boolean".to_owned(),
        Type::Int(Some(least), Some(most)) if *least >= -SAFE && *most <= SAFE => "number".to_owned(),
        Type::Int(..) => "number | bigint".to_owned(),
        Type::Number => "number".to_owned(),
        Type::Text => "string".to_owned(),
        Type::Bytes => "Uint8Array".to_owned(),
        Type::Timestamp => "Date".to_owned(),
        Type::Literals(values) => values.iter().map(Json::to_string).collect::<Vec<_>>().join(" | "),
        Type::List(item) => list(item),
        Type::Tuple(items, least, more) => {
            let items = items.iter().enumerate().map(|(index, item)| match index < *least {
                true => of(item),
                false => format!("({})?", of(item)),
            });
            let more = more.iter().map(|more| format!("...{}", list(more)));
            format!("[{}]", items.chain(more).collect::<Vec<_>>().join(", "))
        }
        Type::Map(true, value) => format!("Map<number, {}>", of(value)),
        Type::Map(false, value) => format!("Record<string, {}>", of(value)),
        Type::Union(arms) => arms.iter().map(of).collect::<Vec<_>>().join(" | "),
        Type::Named(name) => name.clone(),
    }
}

fn list(item: &Type) -> String {
    let item = of(item);
    if item.contains(' ') { format!("({item})[]") } else { format!("{item}[]") }
}

fn name(name: &str) -> String {
    let name = plain(name);
    if RESERVED.contains(&name.as_str()) { format!("{name}_") } else { name }
}

/// JSON is a literal here too, but for two line ends.
fn text(text: &str) -> String {
    Json::from(text).to_string().replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

fn doc(doc: &str, indent: &str) -> String {
    let doc = doc.replace("*/", "*\\/").replace('\r', "");
    match doc.lines().count() {
        0 => String::new(),
        1 => format!("{indent}/** {doc} */\n"),
        _ => {
            let lines: String = doc.lines().map(|line| format!("{indent} * {line}\n")).collect();
            format!("{indent}/**\n{lines}{indent} */\n")
        }
    }
}
