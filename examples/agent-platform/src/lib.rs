//! A small platform for agents, as an example of a host: agents join contexts, plans are carried out
//! by them, and extensions have a say in it. docs/agents.md walks through it.
//!
//! The modules `context`, `plan`, `role` and `trace` have each a part of the domain: the hook points
//! that it declares and the API that it opens. [`Platform`] puts them together and plays a
//! [`Scenario`], of which a [`Transcript`] tells.

mod context;
mod execute;
mod golden;
mod plan;
mod platform;
mod role;
mod scenario;
mod trace;
mod transcript;

pub use golden::{Differs, compare};
pub use platform::{Platform, folders};
pub use scenario::{Scenario, Wrong};
pub use transcript::{Entry, Transcript};
