//! The trace: what was done, by whom, and how long it took.

use std::sync::Arc;

use parking_lot::Mutex;
use quadriga::abi::NameError;
use quadriga::schemars::JsonSchema;
use quadriga::{HookContext, Provided};
use serde::{Deserialize, Serialize};

/// What is known of a step that was done.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, HookContext)]
#[schemars(crate = "quadriga::schemars")]
#[hook(name = "trace.metrics_collected")]
pub(crate) struct MetricsCollected {
    pub(crate) plan: String,
    pub(crate) step: String,
    pub(crate) agent: String,
    /// Minutes from the beginning of the plan on.
    pub(crate) began: u32,
    pub(crate) ended: u32,
    pub(crate) cost: u32,
}

/// All that was done, in its order.
#[derive(Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<MetricsCollected>>>);

impl Trace {
    pub(crate) fn add(&self, metrics: &MetricsCollected) {
        self.0.lock().push(metrics.clone());
    }

    /// What was done for a plan.
    pub(crate) fn of(&self, plan: &str) -> Vec<MetricsCollected> {
        self.0.lock().iter().filter(|it| it.plan == plan).cloned().collect()
    }

    /// What extensions may ask about the trace, and add to.
    pub(crate) fn api(&self) -> Result<Provided, NameError> {
        let trace = self.clone();
        let api = Provided::new("app.trace")?.function("of", move |(plan,): (String,)| Ok(trace.of(&plan)));
        Ok(api.open("trace"))
    }
}
