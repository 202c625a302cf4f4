use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::Span;

/// The shortest interval: a check costs as much as a call.
const SHORTEST: Duration = Duration::from_millis(100);

/// `[health]`: how the host looks on a schedule whether the extension does well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// The exported method that is called, without arguments: the extension does well if it returns, and
    /// not if it fails or is late. If left out, the host asks for a sign of life alone.
    pub method: Option<String>,
    /// How long after one check the next one begins; `"30s"` if left out.
    pub interval: Span,
    /// How long a check may take; `"5s"` if left out.
    pub deadline: Span,
    /// So many failures in a row count as the end of the instance; 3 if left out.
    pub failures: NonZeroU32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        let span = |seconds| Span(Duration::from_secs(seconds));
        let failures = NonZeroU32::MIN.saturating_add(2);
        Self { method: None, interval: span(30), deadline: span(5), failures }
    }
}

impl HealthCheck {
    /// The rules that the types do not keep.
    ///
    /// # Errors
    /// The key to blame, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.interval.0 < SHORTEST {
            return Err(("interval", format!("expected \"100ms\" or more, not \"{}\"", self.interval)));
        }
        if self.deadline.0.is_zero() {
            return Err(("deadline", "nothing is done in no time".into()));
        }
        Ok(())
    }
}
