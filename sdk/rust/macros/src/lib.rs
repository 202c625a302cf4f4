//! The attribute macro of `quadriga-sdk`. Use it from there.

mod expand;
mod text;

use proc_macro::TokenStream;

/// Makes an extension of a module: every `pub fn` in it becomes a method that can be called.
///
/// Parameters may be of any type that serde can deserialize, `&str` and `&[u8]` among them, results
/// of any type that it can serialize, or a `Result` of one. An `Option` at the end may be left out
/// by the caller. One module in a crate can be an extension.
#[proc_macro_attribute]
pub fn extension(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::extension(arguments.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}
