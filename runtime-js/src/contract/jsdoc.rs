//! Types in JSDoc comments, rewritten as TypeScript.

use swc_common::BytePos;
use swc_common::comments::{Comment, CommentKind, Comments as _, SingleThreadedComments};

/// What a comment says of a function.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Doc {
    /// What stands before the tags.
    pub(super) text: String,
    pub(super) parameters: Vec<Told>,
    pub(super) returns: Option<String>,
}

/// What a comment says of a parameter or a property.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    pub(super) name: String,
    /// TypeScript.
    pub(super) ty: String,
    pub(super) optional: bool,
}

/// The comment in front of a declaration.
pub(super) fn leading(comments: &SingleThreadedComments, at: BytePos) -> Doc {
    let found = comments.get_leading(at).unwrap_or_default();
    found.iter().rev().find(|comment| is_doc(comment)).map(|comment| read(&comment.text)).unwrap_or_default()
}

/// The types that comments define: names, and TypeScript.
pub(super) fn typedefs(comments: &SingleThreadedComments) -> Vec<(String, String)> {
    let (leading, trailing) = comments.borrow_all();
    let all = leading.values().chain(trailing.values()).flatten().filter(|comment| is_doc(comment));
    all.filter_map(|comment| typedef(&comment.text)).collect()
}

fn is_doc(comment: &Comment) -> bool {
    comment.kind == CommentKind::Block && comment.text.starts_with('*')
}

fn read(comment: &str) -> Doc {
    let mut doc = Doc { text: text(comment), ..Doc::default() };
    let mut named = Vec::new();
    for (tag, rest) in tags(comment) {
        match tag {
            "param" | "arg" | "argument" => named.extend(told(rest)),
            "returns" | "return" => doc.returns = braces(rest).map(|(ty, _)| typescript(ty)),
            _ => {}
        }
    }
    doc.parameters = gathered(named);
    doc
}

/// The author's words, without the stars and the tags.
fn text(comment: &str) -> String {
    let lines = comment.lines().map(|line| line.trim_start_matches([' ', '\t', '*']).trim_end());
    let lines: Vec<_> = lines.take_while(|line| !line.starts_with('@')).collect();
    lines.join("\n").trim().to_owned()
}

fn typedef(comment: &str) -> Option<(String, String)> {
    let mut name = None;
    let mut properties = Vec::new();
    for (tag, rest) in tags(comment) {
        match tag {
            "typedef" => {
                let (ty, rest) = braces(rest).unwrap_or(("Object", rest));
                name = Some((rest.split_whitespace().next()?.to_owned(), typescript(ty)));
            }
            "property" | "prop" => properties.extend(told(rest)),
            _ => {}
        }
    }
    let (name, ty) = name?;
    let ty = if properties.is_empty() { ty } else { object(&gathered(properties)) };
    name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$').then_some((name, ty))
}

/// The tags of a comment, each with what follows it.
fn tags(comment: &str) -> Vec<(&str, &str)> {
    let mut tags: Vec<(&str, &str)> = Vec::new();
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    for line in comment.split_inclusive('\n') {
        let text = line.trim_start_matches([' ', '\t', '*']);
        if text.starts_with('@') {
            starts.push(at + line.len() - text.len());
        }
        at += line.len();
    }
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(comment.len());
        let text = &comment[start + 1..end];
        let length = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
        tags.push((&text[..length], text[length..].trim()));
    }
    tags
}

/// `{type} name`, `{type} [name=default]`.
fn told(rest: &str) -> Option<Told> {
    let (ty, rest) = braces(rest)?;
    let (name, bracketed) = match rest.strip_prefix('[') {
        Some(inner) => (inner.split(['=', ']']).next()?.trim(), true),
        None => (rest.split_whitespace().next()?, false),
    };
    let optional = bracketed || ty.trim_end().ends_with('=');
    Some(Told { name: name.to_owned(), ty: typescript(ty), optional })
}

/// What stands in the braces in front, and what follows them.
fn braces(text: &str) -> Option<(&str, &str)> {
    let inner = text.trim_start().strip_prefix('{')?;
    let mut depth = 1;
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((inner[..at].trim(), inner[at + 1..].trim_start()));
        }
    }
    None
}

/// Puts `options.name` into the type of `options`.
fn gathered(told: Vec<Told>) -> Vec<Told> {
    let mut out: Vec<Told> = Vec::new();
    let mut inner: Vec<(String, Vec<Told>)> = Vec::new();
    for one in told {
        let Some((owner, name)) = one.name.split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())) else {
            out.push(one);
            continue;
        };
        let property = Told { name, ..one };
        match inner.iter_mut().find(|(known, _)| *known == owner) {
            Some((_, properties)) => properties.push(property),
            None => inner.push((owner, vec![property])),
        }
    }
    for (owner, properties) in inner {
        let Some(one) =
            out.iter_mut().find(|one| one.name.trim_end_matches("[]") == owner.trim_end_matches("[]"))
        else {
            continue;
        };
        let list = one.ty.ends_with("[]") || one.ty.starts_with("Array<");
        one.ty = object(&gathered(properties)) + if list { "[]" } else { "" };
    }
    out
}

fn object(properties: &[Told]) -> String {
    let member = |told: &Told| {
        let optional = if told.optional { "?" } else { "" };
        format!("{:?}{optional}: {}", told.name, told.ty)
    };
    format!("{{ {} }}", properties.iter().map(member).collect::<Vec<_>>().join("; "))
}

/// A type as JSDoc writes it, as TypeScript.
fn typescript(ty: &str) -> String {
    let lines = ty.lines().map(|line| line.trim_start_matches([' ', '\t', '*']));
    let joined = lines.collect::<Vec<_>>().join(" ");
    let ty = joined.trim().trim_end_matches('=').trim_start_matches("...").replace(".<", "<");
    let ty = ty.strip_prefix('!').unwrap_or(&ty);
    if ty == "*" || ty == "?" || ty.is_empty() {
        return "any".to_owned();
    }
    if let Some(inner) = ty.strip_prefix('?') {
        return format!("({}) | null", typescript(inner));
    }
    for name in ["Object<", "object<"] {
        if let Some(inner) = ty.strip_prefix(name) {
            return format!("Record<{inner}");
        }
    }
    ty.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Doc, Told, read, typedef};

    fn told(name: &str, ty: &str, optional: bool) -> Told {
        Told { name: name.to_owned(), ty: ty.to_owned(), optional }
    }

    #[test]
    fn comments_tell_types() {
        let cases = [
            (
                "* Adds.\n * @param {number} a - one\n * @param {number} [b=1] other\n * @returns {number}\n",
                Doc {
                    text: "Adds.".to_owned(),
                    parameters: vec![told("a", "number", false), told("b", "number", true)],
                    returns: Some("number".to_owned()),
                },
            ),
            (
                "* @param {?string} a\n * @param {*} b @param {string=} c",
                Doc {
                    parameters: vec![told("a", "(string) | null", false), told("b", "any", false)],
                    returns: None,
                    ..Doc::default()
                },
            ),
            (
                "* @param {{\n *   a: string,\n *   b?: number\n * }} options\n",
                Doc {
                    parameters: vec![told("options", "{ a: string, b?: number }", false)],
                    ..Doc::default()
                },
            ),
            (
                "* @param {Object} o\n * @param {string} o.name\n * @param {string[]} [o.tags]\n",
                Doc {
                    parameters: vec![told("o", "{ \"name\": string; \"tags\"?: string[] }", false)],
                    returns: None,
                    ..Doc::default()
                },
            ),
            (
                "* @param {Array.<Object<string, number>>} a\n* @param {Object.<string, number>} b",
                Doc {
                    parameters: vec![
                        told("a", "Array<Object<string, number>>", false),
                        told("b", "Record<string, number>", false),
                    ],
                    returns: None,
                    ..Doc::default()
                },
            ),
            ("* @param name\n * @return nothing", Doc::default()),
        ];
        for (comment, expected) in cases {
            assert_eq!(read(comment), expected, "{comment}");
        }
    }

    #[test]
    fn comments_define_types() {
        let cases = [
            ("* @typedef {string | number} Id", Some(("Id", "string | number"))),
            (
                "* @typedef {Object} P\n * @property {string} name\n * @property {number} [age]",
                Some(("P", "{ \"name\": string; \"age\"?: number }")),
            ),
            ("* @typedef P\n * @prop {string} name", Some(("P", "{ \"name\": string }"))),
            ("* Nothing here", None),
            ("* @typedef {string} a-b", None),
        ];
        for (comment, expected) in cases {
            let expected = expected.map(|(name, ty)| (name.to_owned(), ty.to_owned()));
            assert_eq!(typedef(comment), expected, "{comment}");
        }
    }
}
