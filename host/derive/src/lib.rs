//! The derive macro of `quadriga`. Use it from there.

mod expand;

use proc_macro::TokenStream;

/// Makes a struct the context of a hook point: `#[hook(name = "plan.before_execution")]`.
///
/// With `parallel`, handlers of the same priority run at the same time, and `conflict` says who wins
/// where two change one field: `"error"` (nobody, the default), `"first-wins"` or `"last-wins"`.
/// Fields are what handlers may see; `#[hook(changeable)]` lets them change one, `#[hook(sensitive)]`
/// keeps it from those who were not granted it. The struct also derives serde's `Serialize` and
/// `Deserialize` and schemars' `JsonSchema`; of serde's attributes it takes those that leave the names
/// of fields alone, and `rename`.
#[proc_macro_derive(HookContext, attributes(hook))]
pub fn hook_context(item: TokenStream) -> TokenStream {
    let item = syn::parse_macro_input!(item as syn::DeriveInput);
    expand::hook_context(&item).unwrap_or_else(|error| error.to_compile_error()).into()
}
