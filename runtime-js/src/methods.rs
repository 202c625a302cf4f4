//! What an entry module exports.

use deno_core::v8;
use quadriga_abi::{Error, ErrorCode, Method, Parameter};

/// An exported function.
pub(crate) struct Export {
    pub(crate) function: v8::Global<v8::Function>,
    /// How many arguments a call must have.
    pub(crate) required: usize,
    pub(crate) method: Method,
}

impl Export {
    /// What a call answers that has fewer arguments.
    pub(crate) fn too_few(&self, given: usize) -> Error {
        let names: Vec<&str> =
            self.method.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
        let (name, required) = (&self.method.name, self.required);
        let message =
            format!("{name}({}) takes at least {required} arguments, {given} given", names.join(", "));
        Error::new(ErrorCode::InvalidArguments, message)
    }
}

/// The functions that a module exports, in the order of the source, with `source` as its author
/// wrote it.
pub(crate) fn exports<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    namespace: v8::Local<'s, v8::Object>,
    source: &str,
) -> Vec<Export> {
    let names = namespace.get_own_property_names(scope, v8::GetPropertyNamesArgs::default());
    let Some(names) = names else { return Vec::new() };
    let mut exports = Vec::new();
    for index in 0..names.length() {
        let Some(name) = names.get_index(scope, index).filter(|name| name.is_string()) else { continue };
        let Some(value) = namespace.get(scope, name) else { continue };
        let Ok(function) = v8::Local::<v8::Function>::try_from(value) else { continue };
        let name = name.to_rust_string_lossy(scope);
        let text = function.to_rust_string_lossy(scope);
        if text.starts_with("class") {
            continue;
        }
        let mut method = Method::named(&name);
        method.streams = is_generator(&text);
        let mut required = length(scope, function);
        let (place, list) = match signature(source, &name) {
            Some((place, list)) => (place, Some(list)),
            None => (usize::MAX, parameter_list(&text)),
        };
        if let Some(list) = list {
            method.parameters = parameters(list);
            required = method.parameters.iter().take_while(|parameter| !parameter.optional).count();
        }
        let function = v8::Global::new(scope, function);
        exports.push((place, Export { function, required, method }));
    }
    // A namespace lists its names by the alphabet.
    exports.sort_by_key(|(place, _)| *place);
    exports.into_iter().map(|(_, export)| export).collect()
}

/// Whether the source of a function is that of a generator.
fn is_generator(text: &str) -> bool {
    let text = text.strip_prefix("async").map_or(text, str::trim_start);
    text.strip_prefix("function").map_or(text, str::trim_start).starts_with('*')
}

fn length<'s>(scope: &mut v8::PinScope<'s, '_>, function: v8::Local<'s, v8::Function>) -> usize {
    let Some(key) = v8::String::new(scope, "length") else { return 0 };
    let value = function.get(scope, key.into());
    value.and_then(|value| value.uint32_value(scope)).unwrap_or(0) as usize
}

/// Where the source declares `function NAME`, and its list of parameters.
fn signature<'a>(source: &'a str, name: &str) -> Option<(usize, &'a str)> {
    let declares = |at: usize| {
        let before = source[..at].trim_end();
        let before = before.strip_suffix('*').map_or(before, str::trim_end);
        before.ends_with("function") && !source[at + name.len()..].starts_with(is_name)
    };
    let (at, _) = source.match_indices(name).find(|(at, _)| declares(*at))?;
    parameter_list(&source[at..]).map(|list| (at, list))
}

/// What stands between the first parenthesis and its partner.
fn parameter_list(text: &str) -> Option<&str> {
    let open = text.find('(')?;
    if text[..open].contains("=>") {
        return None;
    }
    let mut depth = 0_usize;
    for (at, char) in text[open..].char_indices() {
        match char {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[open + 1..open + at]);
        }
    }
    None
}

/// Takes a list of parameters apart. It reads names, types and whether they may be left out, and
/// gives what it does not understand a name of its own.
fn parameters(list: &str) -> Vec<Parameter> {
    let pieces = split(list);
    let pieces = pieces.iter().map(|piece| piece.trim()).filter(|piece| !piece.is_empty());
    pieces
        .enumerate()
        .map(|(index, piece)| {
            let rest = piece.starts_with("...");
            let piece = piece.trim_start_matches("...");
            let end = piece.find(|c| !is_name(c)).unwrap_or(piece.len());
            let (name, after) = piece.split_at(end);
            let name = if name.is_empty() { format!("argument{index}") } else { name.to_owned() };
            let after = after.trim_start();
            let asked = after.starts_with('?');
            let declared = after.trim_start_matches('?').trim_start().strip_prefix(':');
            let ty = declared.map(|ty| before_default(ty).trim().to_owned()).filter(|ty| !ty.is_empty());
            let default = before_default(after).len() < after.len();
            Parameter { name, ty, optional: rest || asked || default }
        })
        .collect()
}

/// What stands before a default value.
fn before_default(text: &str) -> &str {
    let bytes = text.as_bytes();
    let default = |at: &usize| bytes[*at] == b'=' && bytes.get(at + 1) != Some(&b'>');
    (0..bytes.len()).find(default).map_or(text, |at| &text[..at])
}

/// Splits at the commas that stand in no brackets.
fn split(list: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    let mut previous = ' ';
    for (at, char) in list.char_indices() {
        match char {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '>' if previous != '=' => depth -= 1,
            ',' if depth == 0 => {
                pieces.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        previous = char;
    }
    pieces.push(&list[start..]);
    pieces
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests {
    use super::{parameters, signature};

    #[test]
    fn signatures() {
        let cases = [
            ("export function f() {}", ""),
            ("export async function f(a, b) {}", "a b"),
            ("export function f(a, b = 1, ...c) {}", "a b? c?"),
            (
                "function ff(x) {}\nexport function f(a: Map<string, number>, b?: () => void) {}",
                "a:Map<string, number> b?:() => void",
            ),
            ("export function* f({ a, b }: Options, c: string = \"x\") {}", "argument0 c?:string"),
        ];
        for (source, expect) in cases {
            let (_, list) = signature(source, "f").unwrap();
            let seen: Vec<String> = parameters(list)
                .into_iter()
                .map(|p| {
                    let ty = p.ty.map(|ty| format!(":{ty}")).unwrap_or_default();
                    format!("{}{}{ty}", p.name, if p.optional { "?" } else { "" })
                })
                .collect();
            assert_eq!(seen.join(" "), expect, "{source}");
        }
    }
}
