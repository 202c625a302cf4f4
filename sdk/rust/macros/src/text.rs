use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Expr, Lit, Meta, Type};

/// A type as an author writes it: tokens print with spaces that nobody types.
pub(crate) fn of_type(ty: &Type) -> String {
    let mut out = String::new();
    write(ty.to_token_stream(), &mut out);
    out
}

/// A name without the `r#` that Rust alone needs.
pub(crate) fn of_ident(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map_or(text.clone(), str::to_owned)
}

/// The doc comment, one line each, without the space behind the slashes.
pub(crate) fn of_doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(line) => Some(line.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    let lines: Vec<_> =
        lines.map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect();
    lines.join("\n").trim().to_owned()
}

fn write(tokens: TokenStream, out: &mut String) {
    let mut after_word = false;
    for token in tokens {
        let is_word = matches!(token, TokenTree::Ident(_) | TokenTree::Literal(_));
        if is_word && after_word {
            out.push(' ');
        }
        after_word = is_word;
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                out.push_str(open);
                write(group.stream(), out);
                out.push_str(close);
            }
            TokenTree::Punct(punct) => match punct.as_char() {
                mark @ (',' | ';') => out.extend([mark, ' ']),
                mark @ ('+' | '=') => out.extend([' ', mark, ' ']),
                '\'' => {
                    out.push('\'');
                    after_word = false;
                }
                mark => out.push(mark),
            },
            TokenTree::Ident(_) | TokenTree::Literal(_) => out.push_str(&token.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::of_type;

    #[test]
    fn types_read_as_written() {
        for text in [
            "i64",
            "&str",
            "Vec<u8>",
            "Result<Vec<(String, i64)>, quadriga_sdk::Error>",
            "HashMap<String, [u8; 32]>",
            "Option<Box<dyn Fn>>",
        ] {
            assert_eq!(of_type(&syn::parse_str(text).unwrap()), text);
        }
    }
}
