use schemars::JsonSchema;
use serde::Deserialize;

/// What a method that is subscribed to a topic gets.
///
/// ```
/// #[quadriga_sdk::extension]
/// mod stock {
///     use quadriga_sdk::{Event, host};
///
///     /// In the manifest: `[events."orders.*"]` with `method = "ordered"`.
///     pub fn ordered(event: Event<u32>) {
///         host::log::info(format!("{} of {}", event.data, event.topic));
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
pub struct Event<T> {
    /// What it is about.
    pub topic: String,
    /// The id of the extension that emitted it; `None` for the host.
    pub source: Option<String>,
    /// What it says.
    pub data: T,
}
