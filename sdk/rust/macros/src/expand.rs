use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, GenericArgument, GenericParam, Item, ItemFn, ItemMod, Pat, PatType,
    PathArguments, ReturnType, Type, Visibility, parse2,
};

use crate::text;

/// The module, unchanged, and beside it a type that lists its methods.
pub(crate) fn extension(arguments: TokenStream, item: TokenStream) -> Result<TokenStream, Error> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "#[quadriga_sdk::extension] takes no arguments"));
    }
    let span = first_span(&item);
    let module: ItemMod = parse2(item).map_err(|_| {
        Error::new(
            span,
            "#[quadriga_sdk::extension] goes on a module: `mod my_extension { pub fn greet(name: String) -> String { ... } }`",
        )
    })?;
    let Some((_, items)) = &module.content else {
        let message =
            "#[quadriga_sdk::extension] must see the module's functions: write `mod name { ... }` here";
        return Err(Error::new_spanned(&module, message));
    };

    let mut methods = Vec::new();
    let mut problems: Option<Error> = None;
    for item in items {
        let Item::Fn(function) = item else { continue };
        if !matches!(function.vis, Visibility::Public(_)) {
            continue;
        }
        match method(&module, function) {
            Ok(tokens) => methods.push(tokens),
            Err(error) => match &mut problems {
                Some(problems) => problems.combine(error),
                None => problems = Some(error),
            },
        }
    }
    if let Some(problems) = problems {
        return Err(problems);
    }
    if methods.is_empty() {
        let message = "the module has no `pub fn`, so there is nothing to call";
        return Err(Error::new_spanned(&module.ident, message));
    }

    let span = Span::call_site();
    Ok(quote_spanned! {span=>
        #[allow(unreachable_pub, reason = "`pub` marks the methods")]
        #module

        const _: () = {
            use ::quadriga_sdk::__private as q;

            struct Extension;

            impl q::Extension for Extension {
                const METHODS: &'static [q::Method] = &[#(#methods),*];
            }

            ::quadriga_sdk::__export!(Extension);
        };
    })
}

fn method(module: &ItemMod, function: &ItemFn) -> Result<TokenStream, Error> {
    check_signature(function)?;
    let signature = &function.sig;
    let parameters = signature.inputs.iter().map(parameter).collect::<Result<Vec<_>, _>>()?;
    let required = parameters.iter().rposition(|(_, ty)| !is_option(ty)).map_or(0, |last| last + 1);

    let listed = parameters.iter().enumerate().map(|(index, (name, ty))| {
        let (ty, optional) = (text::of_type(ty), index >= required);
        quote! { q::Parameter { name: #name, ty: #ty, optional: #optional } }
    });
    let taken = parameters.iter().enumerate().map(|(index, (_, ty))| {
        quote_spanned! {ty.span()=> arguments.take(#index)? }
    });
    let item = match &signature.output {
        ReturnType::Default => None,
        ReturnType::Type(_, ty) => streamed(ty),
    };
    let returns = match &signature.output {
        ReturnType::Default => quote! { "()" },
        ReturnType::Type(_, ty) => text::of_type(item.unwrap_or(ty)).into_token_stream(),
    };
    let streams = item.is_some();
    let reply = if streams { format_ident!("stream") } else { format_ident!("reply") };
    let reply_span = match &signature.output {
        ReturnType::Default => signature.ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    let (path, ident) = (&module.ident, &signature.ident);
    let is_async = signature.asyncness.is_some();
    let schemas = schemas(path, ident, parameters.len(), is_async);
    let name = text::of_ident(ident);
    let doc = text::of_doc(&function.attrs);
    let cfg = function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let run = format_ident!("run");
    let returned = quote_spanned! {reply_span=> #path::#ident(#(#taken),*) };
    let returned = if is_async {
        quote! { q::block_on(#returned)? }
    } else {
        returned
    };
    let body = quote_spanned! {reply_span=> q::Returned(#returned).#reply(out) };
    Ok(quote! {
        #(#cfg)*
        q::Method {
            name: #name,
            doc: #doc,
            parameters: &[#(#listed),*],
            required: #required,
            returns: #returns,
            streams: #streams,
            schemas: #schemas,
            run: {
                #[allow(unused_mut, unused_imports, unused_variables)]
                fn #run(mut arguments: q::Arguments<'_>, out: &mut Vec<u8>) -> Result<(), q::Failure> {
                    use q::ReplyWithValue as _;
                    #body
                }
                #run
            },
        }
    })
}

/// A function that finds the schemas of a method's types. The types may be private to the module,
/// so they are inferred from the function and never named.
fn schemas(path: &Ident, ident: &Ident, count: usize, is_async: bool) -> TokenStream {
    let (future, gives) = if is_async {
        (quote! { F: ::core::future::Future<Output = R>, }, quote! { F })
    } else {
        (quote! {}, quote! { R })
    };
    let types: Vec<_> = (0..count).map(|index| format_ident!("A{index}")).collect();
    let shapes: Vec<_> = (0..count).map(|index| format_ident!("a{index}")).collect();
    quote! {{
        #[allow(unused_imports, non_snake_case)]
        fn schemas(out: &mut q::Schemas) {
            use q::{NoSchema as _, NotResult as _};

            fn infer<#(#types,)* #future R>(_: fn(#(#types),*) -> #gives) -> (#(q::Shape<#types>,)* q::ShapeOf<R>) {
                (#(q::Shape::<#types>::new(),)* q::ShapeOf::<R>::new())
            }
            let (#(#shapes,)* returns) = infer(#path::#ident);
            #(let schema = #shapes.schema(out.takes()); out.parameter(schema);)*
            let schema = returns.value().schema(out.gives());
            out.result(schema);
        }
        schemas
    }}
}

fn check_signature(function: &ItemFn) -> Result<(), Error> {
    let signature = &function.sig;
    let refuse = |at: &dyn ToTokens, message: String| Err(Error::new_spanned(at, message));
    let name = text::of_ident(&signature.ident);
    if let Some(receiver) = signature.receiver() {
        return refuse(
            receiver,
            format!("`{name}` takes self: methods are plain functions, keep state in a static"),
        );
    }
    for parameter in &signature.generics.params {
        if !matches!(parameter, GenericParam::Lifetime(_)) {
            return refuse(
                parameter,
                format!("`{name}` is generic: callers can't choose a Rust type, so name one"),
            );
        }
    }
    if let Some(abi) = &signature.abi {
        return refuse(abi, format!("`{name}` is an extern function: methods are plain functions"));
    }
    if let syn::Safety::Unsafe(token) = &signature.safety {
        return refuse(
            token,
            format!("`{name}` is unsafe: methods can be called by anyone with any arguments"),
        );
    }
    if let Some(variadic) = &signature.variadic {
        return refuse(variadic, format!("`{name}` is variadic: take a Vec instead"));
    }
    Ok(())
}

/// The name and type of a parameter.
fn parameter(argument: &FnArg) -> Result<(String, &Type), Error> {
    let FnArg::Typed(PatType { pat, ty, .. }) = argument else {
        return Err(Error::new_spanned(argument, "methods are plain functions"));
    };
    let Pat::Ident(pattern) = &**pat else {
        return Err(Error::new_spanned(pat, "give the parameter a name: callers see it"));
    };
    match &**ty {
        Type::ImplTrait(_) => {
            return Err(Error::new_spanned(ty, "callers can't choose a Rust type, so name one"));
        }
        Type::Reference(reference) if reference.mutability.is_some() || !is_borrowable(&reference.elem) => {
            let message =
                "only `&str` and `&[u8]` can be borrowed from the arguments: take this one by value";
            return Err(Error::new_spanned(ty, message));
        }
        _ => {}
    }
    Ok((text::of_ident(&pattern.ident).trim_start_matches('_').to_owned(), ty))
}

fn is_borrowable(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.path.is_ident("str"),
        Type::Slice(slice) => matches!(&*slice.elem, Type::Path(path) if path.path.is_ident("u8")),
        _ => false,
    }
}

fn is_option(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Option"))
}

/// The type of the items if a method returns a `Stream` of them, or a `Result` of one.
fn streamed(ty: &Type) -> Option<&Type> {
    let (name, first) = generic(ty)?;
    match name.to_string().as_str() {
        "Stream" => Some(first),
        "Result" => generic(first).filter(|(name, _)| *name == "Stream").map(|(_, item)| item),
        _ => None,
    }
}

/// The name of a generic type, and its first argument.
fn generic(ty: &Type) -> Option<(&Ident, &Type)> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Type(first) => Some((&last.ident, first)),
        _ => None,
    }
}

/// Where the item starts, behind its attributes.
fn first_span(item: &TokenStream) -> Span {
    struct Attributes(TokenStream);
    impl syn::parse::Parse for Attributes {
        fn parse(input: syn::parse::ParseStream<'_>) -> Result<Self, Error> {
            input.call(Attribute::parse_outer)?;
            input.parse().map(Self)
        }
    }
    let rest = parse2::<Attributes>(item.clone()).map_or_else(|_| item.clone(), |found| found.0);
    rest.into_iter().next().map_or_else(Span::call_site, |token| token.span())
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::extension;

    #[test]
    fn wrong_use_is_explained() {
        let cases = [
            (quote! { fn greet() {} }, "goes on a module"),
            (quote! { mod far_away; }, "must see the module's functions"),
            (quote! { mod m { fn private() {} } }, "there is nothing to call"),
            (quote! { mod m { pub fn f<T>(x: T) {} } }, "`f` is generic"),
            (quote! { mod m { pub fn f<const N: usize>() {} } }, "`f` is generic"),
            (quote! { mod m { pub fn f(x: impl Clone) {} } }, "callers can't choose a Rust type"),
            (quote! { mod m { pub fn f(self) {} } }, "`f` takes self"),
            (quote! { mod m { pub fn f(&self, x: i64) {} } }, "`f` takes self"),
            (quote! { mod m { pub unsafe fn f() {} } }, "`f` is unsafe"),
            (quote! { mod m { pub extern "C" fn f() {} } }, "extern function"),
            (quote! { mod m { pub fn f((a, b): (i64, i64)) {} } }, "give the parameter a name"),
            (quote! { mod m { pub fn f(x: &String) {} } }, "take this one by value"),
            (quote! { mod m { pub fn f(x: &mut [u8]) {} } }, "take this one by value"),
        ];
        for (item, words) in cases {
            let error = extension(quote! {}, item.clone()).expect_err(&item.to_string());
            assert!(error.to_string().contains(words), "{item}: {error}");
        }
        let error = extension(quote! { name = "x" }, quote! { mod m {} }).unwrap_err();
        assert!(error.to_string().contains("takes no arguments"), "{error}");
    }

    #[test]
    fn every_problem_is_told() {
        let item = quote! { mod m { pub unsafe fn f() {} pub fn g<T>() {} } };
        assert_eq!(extension(quote! {}, item).unwrap_err().into_iter().count(), 2);
    }

    #[test]
    fn public_functions_become_methods() {
        let item = quote! {
            mod m {
                /// Says hello.
                ///
                /// Politely.
                pub fn greet(name: &str, _times: Option<u8>) -> Vec<u8> {}
                fn helper() {}
                pub fn r#type(value: Option<bool>, other: i64) {}
                pub fn rows() -> Result<Stream<Row>, Error> {}
                pub async fn later(id: u64) -> Result<Row, Error> {}
            }
        };
        let text = extension(quote! {}, item).unwrap().to_string();
        let expected = [
            r#"name : "greet" , doc : "Says hello.\n\nPolitely.""#,
            r#"name : "name" , ty : "&str" , optional : false"#,
            r#"name : "times" , ty : "Option<u8>" , optional : true"#,
            r#"returns : "Vec<u8>""#,
            r#"name : "type" , doc : """#,
            r#"name : "value" , ty : "Option<bool>" , optional : false"#,
            r#"returns : "()""#,
            r#"returns : "Row" , streams : true"#,
            r#"returns : "Result<Row, Error>" , streams : false"#,
            "q :: block_on (m :: later (arguments . take (0usize) ?)) ?",
        ];
        for part in expected {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains(r#"name : "helper""#));
    }
}
