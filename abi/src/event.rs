use serde::{Deserialize, Serialize};

/// What becomes of events that find the queue of a subscription full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// They are dropped: what waits already is delivered.
    #[default]
    DropNewest,
    /// They push out what has waited longest.
    DropOldest,
}

/// How sure it is that a subscriber gets each event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// It is handed over once, and lost if that fails.
    #[default]
    AtMostOnce,
    /// It is kept until the method has taken it without an error, and handed over again until then: also
    /// after a restart of the host, and so perhaps twice.
    AtLeastOnce,
}

/// What became of an event when it was emitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Emitted {
    /// The queues that it stands in now.
    pub queued: u32,
    /// The events that were dropped for it: this one or older ones, by what each subscriber chose.
    pub dropped: u32,
}
