//! Plans: steps that build on each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use quadriga::abi::NameError;
use quadriga::schemars::JsonSchema;
use quadriga::{HookContext, Provided};
use serde::{Deserialize, Serialize};

use crate::platform::{refused, unknown};

/// The steps of a plan, by name.
pub(crate) type Steps = BTreeMap<String, Step>;

/// A step of a plan.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "quadriga::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    /// The skill that it takes.
    pub(crate) needs: String,
    /// The steps that have to be done before it begins.
    #[serde(default)]
    pub(crate) after: BTreeSet<String>,
    /// The minutes that it takes at level 1; at level 2 half of that.
    pub(crate) effort: u32,
    pub(crate) cost: u32,
}

/// A plan, and how far it is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "quadriga::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) plan: String,
    pub(crate) context: String,
    pub(crate) steps: Steps,
    #[serde(skip_deserializing)]
    pub(crate) state: State,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(crate = "quadriga::schemars")]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    #[default]
    Planned,
    /// An extension objected, or one without which plans are not carried out failed.
    Stopped,
    /// It could not be carried out to its end.
    Failed,
    Done,
}

/// Before a plan is carried out.
#[derive(Debug, Serialize, Deserialize, JsonSchema, HookContext)]
#[schemars(crate = "quadriga::schemars")]
#[hook(name = "plan.before_execution")]
pub(crate) struct BeforeExecution {
    pub(crate) plan: String,
    pub(crate) context: String,
    #[hook(changeable)]
    pub(crate) steps: Steps,
    /// What the one who wants it carried out has shown.
    #[hook(sensitive)]
    pub(crate) token: String,
}

/// A plan was carried out.
#[derive(Debug, Serialize, Deserialize, JsonSchema, HookContext)]
#[schemars(crate = "quadriga::schemars")]
#[hook(name = "plan.execution_completed")]
pub(crate) struct ExecutionCompleted {
    pub(crate) plan: String,
    pub(crate) context: String,
    /// Minutes from the beginning of its first step to the end of its last.
    pub(crate) took: u32,
    pub(crate) cost: u32,
}

/// All plans.
#[derive(Clone, Default)]
pub(crate) struct Plans(Arc<Mutex<BTreeMap<String, Plan>>>);

impl Plans {
    /// Keeps a plan, or what has become of it.
    pub(crate) fn put(&self, plan: &Plan) {
        self.0.lock().insert(plan.plan.clone(), plan.clone());
    }

    /// # Errors
    /// If there is no such plan.
    pub(crate) fn get(&self, plan: &str) -> Result<Plan, String> {
        self.0.lock().get(plan).cloned().ok_or_else(|| unknown("plan", plan))
    }

    /// What extensions may ask about plans, and add to.
    pub(crate) fn api(&self) -> Result<Provided, NameError> {
        let (all, one) = (self.clone(), self.clone());
        let api = Provided::new("app.plan")?
            .typed("list", [], move |()| Ok(all.0.lock().keys().cloned().collect::<Vec<_>>()))
            .doc("The names of all plans.")
            .typed("get", ["plan"], move |(plan,): (String,)| one.get(&plan).map_err(refused))
            .doc("One plan, and how far it is.");
        Ok(api.open("plan"))
    }
}

/// The order in which steps are gone through: each after those that it builds on, and by name where
/// that leaves a choice.
///
/// # Errors
/// If a step builds on one that is not there, or on itself.
pub(crate) fn order(steps: &Steps) -> Result<Vec<&str>, String> {
    for (name, step) in steps {
        if let Some(missing) = step.after.iter().find(|before| !steps.contains_key(*before)) {
            return Err(format!("{name} comes after {missing}, which is no step"));
        }
    }
    let mut order: Vec<&str> = Vec::new();
    while order.len() < steps.len() {
        let ready = |(name, step): &(&String, &Step)| {
            !order.contains(&name.as_str())
                && step.after.iter().all(|before| order.contains(&before.as_str()))
        };
        match steps.iter().find(ready) {
            Some((name, _)) => order.push(name),
            None => {
                let left: Vec<_> =
                    steps.keys().map(String::as_str).filter(|name| !order.contains(name)).collect();
                return Err(format!("{} wait for each other", left.join(", ")));
            }
        }
    }
    Ok(order)
}
