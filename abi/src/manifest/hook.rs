use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ExtensionId;
use crate::limits::Span;

/// `[hooks."POINT"]`: how the extension answers a hook point of its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hook {
    /// The exported method that gets the context.
    pub method: String,
    /// What the method may do.
    #[serde(default)]
    pub mode: HookMode,
    /// Whether the host waits for a method that only observes.
    #[serde(default)]
    pub wait: bool,
    /// Lower answers earlier; 0 if left out.
    #[serde(default)]
    pub priority: i32,
    /// Extensions of the same priority that answer later.
    #[serde(default)]
    pub before: Vec<ExtensionId>,
    /// Extensions of the same priority that answer earlier.
    #[serde(default)]
    pub after: Vec<ExtensionId>,
    /// How long it may take, without the work that it stands around; what the host says if it is left
    /// out.
    #[serde(default)]
    pub deadline: Option<Span>,
    /// What becomes of the host's work if the method fails or is late. Has to be said where the
    /// method modifies, validates or stands around the work.
    #[serde(default)]
    pub on_failure: Option<OnFailure>,
}

/// What the handler of a hook may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HookMode {
    /// It is told, and what it returns is not used.
    #[default]
    Observe,
    /// It returns a JSON Merge Patch (RFC 7396), or nothing.
    Modify,
    /// It returns nothing to allow, or a reason why not.
    Validate,
    /// It stands around the host's work: it has that go on by `quadriga.hooks/proceed`, and returns
    /// another outcome, or nothing.
    Around,
}

/// What becomes of the host's work when a handler fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It goes on as if the handler were not there.
    Open,
    /// It does not go on.
    Closed,
}

impl Hook {
    /// Whether a failure stops the host's work.
    pub fn is_closed(&self) -> bool {
        self.on_failure == Some(OnFailure::Closed)
    }

    /// Whether the host waits for the method.
    pub fn is_awaited(&self) -> bool {
        self.wait || self.mode != HookMode::Observe
    }

    /// The rules that look at more than one key.
    ///
    /// # Errors
    /// The key to blame, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match (self.mode, self.on_failure) {
            (HookMode::Observe, Some(OnFailure::Closed)) if !self.wait => {
                Err(("on-failure", "nobody waits for it, so it cannot stop anything: add wait = true".into()))
            }
            (HookMode::Observe, _) => Ok(()),
            _ if self.wait => {
                Err(("wait", "it is for mode = \"observe\" alone: the host waits anyway".into()))
            }
            (_, None) => Err(("mode", "on-failure is missing: say \"open\" or \"closed\"".into())),
            _ => Ok(()),
        }
    }
}
