//! The tests' guest for hooks: the same behaviour in each language.

#[quadriga_sdk::extension]
mod hooks {
    use std::collections::BTreeMap;

    use quadriga_sdk::serde::{Deserialize, Serialize};
    use quadriga_sdk::{Error, JsonSchema, Value, host};

    const LANGUAGE: &str = if cfg!(target_family = "wasm") { "wasm" } else { "native" };

    /// What is planned.
    #[derive(Deserialize, JsonSchema)]
    #[serde(crate = "quadriga_sdk::serde")]
    #[schemars(crate = "quadriga_sdk::schemars")]
    pub struct Plan {
        title: String,
        steps: BTreeMap<String, i64>,
    }

    /// What changes.
    #[derive(Serialize, JsonSchema)]
    #[serde(crate = "quadriga_sdk::serde")]
    #[schemars(crate = "quadriga_sdk::schemars")]
    pub struct Patch {
        steps: BTreeMap<String, i64>,
    }

    /// Adds a step under its language: how many there were.
    pub fn mark(plan: Plan) -> Patch {
        let count = i64::try_from(plan.steps.len()).unwrap_or(i64::MAX);
        Patch { steps: BTreeMap::from([(LANGUAGE.to_owned(), count)]) }
    }

    /// Objects to a bad plan.
    pub fn object(plan: Plan) -> Option<String> {
        (plan.title == "bad").then(|| format!("{LANGUAGE} objects"))
    }

    /// Fails.
    pub fn fail(_plan: Plan) -> Result<(), Error> {
        Err(Error::new(format!("{LANGUAGE} fails")))
    }

    /// Never returns.
    pub fn late(_plan: Plan) {
        loop {
            std::hint::spin_loop();
        }
    }

    /// Stands around the work: does without it, lets it be, or adds to what comes of it.
    pub fn around(plan: Plan) -> Result<Option<String>, Error> {
        if plan.title == "cached" {
            return Ok(Some(format!("from {LANGUAGE}")));
        }
        let title = plan.title.clone();
        let made: String = host::proceed(mark(plan))?;
        Ok((title != "look").then(|| format!("{made}, {LANGUAGE}")))
    }

    /// Has the host run the hook again.
    pub fn again(_plan: Plan) -> Result<(), Error> {
        host::call::<Value>("app.host", "plan", ()).map(drop)
    }
}
