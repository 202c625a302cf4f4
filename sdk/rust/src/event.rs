use quadriga_abi::{Delivery, Overflow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Names it, if it is delivered at least once: it may come more than once, and has the same each time.
    #[serde(default)]
    pub id: Option<String>,
    /// Which attempt this is, from 1 on, if it is delivered at least once.
    #[serde(default)]
    pub attempt: Option<u32>,
}

/// What a subscription wants: see `[events]` of the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Subscribe {
    /// What becomes of events that find its queue full.
    pub overflow: Overflow,
    /// How sure it is that each event arrives.
    pub delivery: Delivery,
    /// With [`Delivery::AtLeastOnce`]: how often the method is called for one event; 5 if left out.
    pub attempts: Option<u32>,
    /// How long after the first failure the next attempt comes, such as `"1s"`; twice as long after each
    /// further one.
    pub first_delay: Option<String>,
    /// The longest time between two attempts, such as `"1min"`.
    pub longest_delay: Option<String>,
}
