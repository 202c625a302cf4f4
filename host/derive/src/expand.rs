use proc_macro2::TokenStream;
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, LitStr, Result, Type};

/// Serde's attributes that change neither the names of fields nor which there are.
const OF_STRUCTS: &[&str] = &["bound", "crate", "default", "deny_unknown_fields", "expecting"];
const OF_FIELDS: &[&str] = &[
    "alias",
    "borrow",
    "bound",
    "default",
    "deserialize_with",
    "getter",
    "serialize_with",
    "skip_deserializing",
    "skip_serializing",
    "skip_serializing_if",
    "with",
];

#[derive(Default)]
struct Point {
    name: Option<LitStr>,
    parallel: bool,
    conflict: Option<LitStr>,
    outcome: Option<Type>,
}

pub(crate) fn hook_context(item: &DeriveInput) -> Result<TokenStream> {
    let fields = match &item.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => &fields.named,
            _ => return Err(Error::new_spanned(item, "a context is a struct with named fields")),
        },
        _ => return Err(Error::new_spanned(item, "a context is a struct with named fields")),
    };
    if !item.generics.params.is_empty() {
        return Err(Error::new_spanned(&item.generics, "a context is one type, without parameters"));
    }
    let mut point = Point::default();
    each(&item.attrs, "hook", |meta| {
        if meta.path.is_ident("name") {
            point.name = Some(meta.value()?.parse()?);
        } else if meta.path.is_ident("conflict") {
            point.conflict = Some(meta.value()?.parse()?);
        } else if meta.path.is_ident("parallel") {
            point.parallel = true;
        } else if meta.path.is_ident("outcome") {
            point.outcome = Some(meta.value()?.parse()?);
        } else {
            return Err(meta.error("expected name, parallel, conflict or outcome"));
        }
        Ok(())
    })?;
    each(&item.attrs, "serde", |meta| only(&meta, OF_STRUCTS))?;
    let name = point.name.ok_or_else(|| {
        Error::new_spanned(
            &item.ident,
            "the hook point has no name: #[hook(name = \"plan.before_execution\")]",
        )
    })?;
    let text = name.value();
    if !(1..=256).contains(&text.len())
        || text.chars().any(|char| char == '*' || char.is_whitespace() || char.is_control())
    {
        return Err(Error::new_spanned(
            name,
            "a name has 1 to 256 bytes, and no *, blanks or control characters",
        ));
    }
    let conflict = match point.conflict.as_ref().map(|text| (text.value(), text)) {
        None => quote!(Error),
        Some((text, _)) if text == "error" => quote!(Error),
        Some((text, _)) if text == "first-wins" => quote!(FirstWins),
        Some((text, _)) if text == "last-wins" => quote!(LastWins),
        Some((_, text)) => {
            return Err(Error::new_spanned(text, "expected \"error\", \"first-wins\" or \"last-wins\""));
        }
    };
    if let Some(conflict) = point.conflict.filter(|_| !point.parallel) {
        let message = "conflicts are among handlers that run at the same time: add parallel";
        return Err(Error::new_spanned(conflict, message));
    }
    let fields = fields.iter().map(field).collect::<Result<Vec<_>>>()?;
    let (ident, parallel) = (&item.ident, point.parallel);
    let work = point.outcome.map(|outcome| {
        quote! {
            impl ::quadriga::HookWork for #ident {
                type Outcome = #outcome;

                fn outcome_schema() -> ::quadriga::schemars::Schema {
                    ::quadriga::schemars::schema_for!(#outcome)
                }
            }
        }
    });
    Ok(quote! {
        impl ::quadriga::HookContext for #ident {
            const POINT: &'static ::quadriga::HookPoint = &::quadriga::HookPoint {
                name: #name,
                fields: &[#(#fields),*],
                parallel: #parallel,
                conflict: ::quadriga::Conflict::#conflict,
            };

            fn schema() -> ::quadriga::schemars::Schema {
                ::quadriga::schemars::schema_for!(#ident)
            }
        }

        #work
    })
}

fn field(field: &Field) -> Result<TokenStream> {
    let ident = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut name = ident.strip_prefix("r#").unwrap_or(&ident).to_owned();
    let (mut changeable, mut sensitive) = (false, false);
    each(&field.attrs, "hook", |meta| {
        if meta.path.is_ident("changeable") {
            changeable = true;
        } else if meta.path.is_ident("sensitive") {
            sensitive = true;
        } else {
            return Err(meta.error("expected changeable or sensitive"));
        }
        Ok(())
    })?;
    each(&field.attrs, "serde", |meta| {
        if meta.path.is_ident("rename") {
            // Other forms name it differently in the two directions.
            let text: LitStr = meta.value()?.parse()?;
            name = text.value();
            return Ok(());
        }
        only(&meta, OF_FIELDS)
    })?;
    Ok(quote! {
        ::quadriga::HookField { name: #name, changeable: #changeable, sensitive: #sensitive }
    })
}

/// Goes through the attributes of a name.
fn each(
    attributes: &[Attribute],
    name: &str,
    mut take: impl FnMut(ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    let mut of_name = attributes.iter().filter(|attribute| attribute.path().is_ident(name));
    of_name.try_for_each(|attribute| attribute.parse_nested_meta(&mut take))
}

/// Passes over an attribute of serde that is among the known ones.
fn only(meta: &ParseNestedMeta<'_>, known: &[&str]) -> Result<()> {
    if !known.iter().any(|name| meta.path.is_ident(name)) {
        let message = "a hook's context has to show the names of its fields: of serde's attributes only those \
            that leave them alone, and rename, are known here";
        return Err(meta.error(message));
    }
    if meta.input.peek(syn::Token![=]) {
        meta.value()?.parse::<syn::Expr>()?;
    } else if meta.input.peek(syn::token::Paren) {
        let inner;
        syn::parenthesized!(inner in meta.input);
        inner.parse::<TokenStream>()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::hook_context;

    #[test]
    fn what_is_no_context_is_said() {
        let table = [
            ("enum Plan { A }", "struct with named fields"),
            ("struct Plan(u8);", "struct with named fields"),
            ("#[hook(name = \"p\")] struct Plan<T> { a: T }", "without parameters"),
            ("struct Plan { a: u8 }", "has no name"),
            ("#[hook(name = \"a b\")] struct Plan { a: u8 }", "no *, blanks"),
            ("#[hook(nam = \"p\")] struct Plan { a: u8 }", "expected name, parallel, conflict or outcome"),
            ("#[hook(name = \"p\", conflict = \"error\")] struct Plan { a: u8 }", "add parallel"),
            ("#[hook(name = \"p\", parallel, conflict = \"all\")] struct Plan { a: u8 }", "\"first-wins\""),
            (
                "#[hook(name = \"p\")] struct Plan { #[hook(secret)] a: u8 }",
                "expected changeable or sensitive",
            ),
            // A sensitive field under another name would be seen by everybody.
            (
                "#[hook(name = \"p\")] #[serde(rename_all = \"camelCase\")] struct Plan { a: u8 }",
                "show the names",
            ),
            ("#[hook(name = \"p\")] #[serde(from = \"Other\")] struct Plan { a: u8 }", "show the names"),
            ("#[hook(name = \"p\")] struct Plan { #[serde(flatten)] a: Other }", "show the names"),
            (
                "#[hook(name = \"p\")] struct Plan { #[serde(rename(serialize = \"b\"))] a: u8 }",
                "expected `=`",
            ),
        ];
        for (item, words) in table {
            let error = hook_context(&syn::parse_str(item).unwrap()).unwrap_err();
            assert!(error.to_string().contains(words), "{item}: {error}");
        }
    }

    #[test]
    fn fields_have_the_names_that_handlers_see() {
        let item = "#[hook(name = \"p\")] #[serde(deny_unknown_fields)] struct Plan {
            #[hook(changeable)] #[serde(default, rename = \"kind\")] a: u8,
            #[hook(sensitive)] #[serde(skip_serializing_if = \"Option::is_none\")] r#type: Option<u8>,
        }";
        let text = hook_context(&syn::parse_str(item).unwrap()).unwrap().to_string();
        for part in [
            "name : \"kind\" , changeable : true , sensitive : false",
            "name : \"type\" , changeable : false , sensitive : true",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
