//! How a plan is carried out: by the clock of the scenario, which has no other.

use std::collections::BTreeMap;

use crate::plan::{BeforeExecution, ExecutionCompleted, Plan, State, order};
use crate::platform::Platform;
use crate::role::BeforeAssignment;
use crate::trace::MetricsCollected;

/// Why a plan is not carried out to its end.
enum End {
    /// Extensions stopped it, and the account of the hook says so.
    Stopped,
    Failed(String),
}

impl Platform {
    /// Carries out a plan, if the extensions let it.
    ///
    /// # Errors
    /// If its context is not there.
    pub(crate) async fn execute(&mut self, mut plan: Plan, token: &str) -> Result<(), String> {
        self.contexts.terms(&plan.context)?;
        plan.state = match self.go_through(&mut plan, token).await {
            Ok(()) => State::Done,
            Err(End::Stopped) => State::Stopped,
            Err(End::Failed(why)) => {
                self.transcript.fact(format!("{} fails: {why}", plan.plan));
                State::Failed
            }
        };
        self.plans.put(&plan);
        Ok(())
    }

    async fn go_through(&mut self, plan: &mut Plan, token: &str) -> Result<(), End> {
        let before = BeforeExecution {
            plan: plan.plan.clone(),
            context: plan.context.clone(),
            steps: plan.steps.clone(),
            token: token.to_owned(),
        };
        plan.steps = self.hook(before).await.ok_or(End::Stopped)?.steps;
        // An extension may have changed them into something that is no plan.
        let order = order(&plan.steps).map_err(End::Failed)?;
        let participants = self.contexts.participants(&plan.context).map_err(End::Failed)?;
        let mut free: BTreeMap<String, u32> = BTreeMap::new();
        let mut ended: BTreeMap<&str, u32> = BTreeMap::new();
        let mut cost = 0;
        for name in order {
            let step = &plan.steps[name];
            let ready = step.after.iter().map(|before| ended[before.as_str()]).max().unwrap_or(0);
            let proposed = BeforeAssignment::propose(&plan.plan, (name, step), ready, &participants, &free)
                .map_err(|why| End::Failed(format!("{name}: {why}")))?;
            let given = self.hook(proposed).await.ok_or(End::Stopped)?;
            let who = given.chosen().map_err(|why| End::Failed(format!("{name}: {why}")))?;
            let agent = given.assignee;
            let began = ready.max(who.free);
            let end = began + step.effort.div_ceil(who.level);
            free.insert(agent.clone(), end);
            ended.insert(name, end);
            cost += step.cost;
            self.transcript.fact(format!("{name}: {agent}, from {began} to {end}"));
            let metrics = MetricsCollected {
                plan: plan.plan.clone(),
                step: name.to_owned(),
                agent,
                began,
                ended: end,
                cost: step.cost,
            };
            self.trace.add(&metrics);
            self.hook(metrics).await.ok_or(End::Stopped)?;
        }
        let took = ended.into_values().max().unwrap_or(0);
        self.transcript.fact(format!("{} is done: it took {took} minutes and cost {cost}", plan.plan));
        let (plan, context) = (plan.plan.clone(), plan.context.clone());
        // The plan is done, whatever is said of it now.
        self.hook(ExecutionCompleted { plan, context, took, cost }).await;
        Ok(())
    }
}
