//! Objects to plans that their context does not allow or cannot pay for.

#[quadriga_sdk::extension]
mod policy {
    use std::collections::{BTreeMap, BTreeSet};

    use quadriga_sdk::{Error, host};
    use serde::Deserialize;

    /// What it has to know of a plan.
    #[derive(Deserialize)]
    pub struct Plan {
        context: String,
        steps: BTreeMap<String, Step>,
    }

    /// What it has to know of a step.
    #[derive(Deserialize)]
    pub struct Step {
        needs: String,
        cost: u64,
    }

    /// What a context says of its plans.
    #[derive(Deserialize)]
    struct Terms {
        budget: u64,
        allows: BTreeSet<String>,
    }

    /// Returns why a plan may not be carried out, if so.
    pub fn check(plan: Plan) -> Result<Option<String>, Error> {
        let Plan { context, steps } = plan;
        let terms: Terms = host::call("app.context", "terms", (&context,))?;
        if let Some((name, step)) = steps.iter().find(|(_, step)| !terms.allows.contains(&step.needs)) {
            return Ok(Some(format!("{name} needs to {}, which {context} does not allow", step.needs)));
        }
        let cost: u64 = steps.values().map(|step| step.cost).sum();
        let budget = terms.budget;
        Ok((cost > budget).then(|| format!("it costs {cost}, and the budget of {context} is {budget}")))
    }
}
