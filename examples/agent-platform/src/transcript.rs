//! The transcript: what happened, in which order, and who had which say. It has no times, so that it
//! is the same each time.

use std::fmt;

use quadriga::abi::manifest::HookMode;
use quadriga::abi::{Error, ErrorCode, ExtensionId};
use quadriga::{Account, Did, Step};
use serde::Serialize;
use serde_json::Value as Json;

/// What happened in a scenario. As text it is for people; as JSON, a list of entries.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Transcript {
    /// What happened, in its order.
    pub entries: Vec<Entry>,
}

/// One thing that happened.
#[derive(Debug, Serialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// A heading of the scenario.
    Note {
        /// What it says.
        text: String,
    },
    /// A command of the scenario.
    Command {
        /// The line that it is on.
        line: usize,
        /// What it is.
        text: String,
    },
    /// What the platform did, or could not do.
    Fact {
        /// What that is.
        text: String,
    },
    /// What extensions had to say at a hook point.
    Hook {
        /// The hook point.
        point: &'static str,
        /// What each did, in the order in which they were asked.
        answers: Vec<Answer>,
        /// Why the platform does not go on, if so.
        stopped: Option<Error>,
    },
    /// An event that the platform is subscribed to.
    Event {
        /// What it is about.
        topic: String,
        /// Who emitted it.
        source: Option<ExtensionId>,
        /// What it says.
        data: Json,
    },
    /// What a function returned.
    Reply {
        /// The value.
        value: Json,
    },
    /// Why a function failed.
    Failure {
        /// The error.
        error: Error,
    },
}

/// What one extension did at a hook point.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Whose answer it is.
    pub extension: ExtensionId,
    /// What it may do.
    pub mode: HookMode,
    /// What it did.
    pub did: Did,
    /// The sensitive fields that it did not see.
    pub withheld: Vec<&'static str>,
}

impl Transcript {
    pub(crate) fn note(&mut self, text: &str) {
        self.entries.push(Entry::Note { text: text.to_owned() });
    }

    pub(crate) fn command(&mut self, line: usize, text: String) {
        self.entries.push(Entry::Command { line, text });
    }

    pub(crate) fn fact(&mut self, text: String) {
        self.entries.push(Entry::Fact { text });
    }

    /// Takes down a hook that somebody answered.
    pub(crate) fn hook(&mut self, point: &'static str, account: Account, stopped: Option<&Error>) {
        let answers: Vec<_> = account
            .steps
            .into_iter()
            .map(|step| {
                let Step { extension, mode, did, withheld, .. } = step;
                Answer { extension, mode, did, withheld }
            })
            .collect();
        if !answers.is_empty() {
            self.entries.push(Entry::Hook { point, answers, stopped: stopped.cloned() });
        }
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.entries.iter().enumerate() {
            if index > 0 && matches!(entry, Entry::Note { .. }) {
                f.write_str("\n")?;
            }
            write!(f, "{entry}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note { text } => line(f, 0, &format!("# {text}")),
            Self::Command { text, .. } => line(f, 0, text),
            Self::Fact { text } => line(f, 1, text),
            Self::Hook { point, answers, stopped } => {
                line(f, 1, point)?;
                answers.iter().try_for_each(|answer| line(f, 2, &answer.to_string()))?;
                match stopped {
                    // The reason is in the last answer.
                    Some(error) if error.code == ErrorCode::HookVetoed => line(f, 2, "it stops here"),
                    Some(error) => line(f, 2, &format!("it stops here: {error}")),
                    None => Ok(()),
                }
            }
            Self::Event { topic, source, data } => {
                let source = source.as_ref().map_or("the platform", ExtensionId::as_str);
                line(f, 1, &format!("{topic} from {source}: {data}"))
            }
            Self::Reply { value: Json::String(text) } => line(f, 1, text),
            Self::Reply { value } => line(f, 1, &format!("{value:#}")),
            Self::Failure { error } => line(f, 1, &format!("{}: {error}", error.code)),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.extension)?;
        match &self.did {
            Did::Nothing if self.mode == HookMode::Modify => f.write_str("changes nothing"),
            Did::Nothing => f.write_str("takes note"),
            Did::Told => f.write_str("is told"),
            Did::Changed(fields) => write!(f, "changes {}", shortened(fields).join(", ")),
            Did::Replaced => f.write_str("puts another outcome in its place"),
            Did::Allowed => f.write_str("allows it"),
            Did::Vetoed(reason) => write!(f, "objects: {reason}"),
            Did::Failed(error) => write!(f, "fails: {}: {error}", error.code),
            Did::Skipped => f.write_str("is left out: it failed too often"),
            Did::Denied => f.write_str("is left out: it may not answer"),
            Did::Loading => f.write_str("is left out: it is being loaded"),
        }?;
        match self.withheld[..] {
            [] => Ok(()),
            _ => write!(f, " ({} withheld)", self.withheld.join(", ")),
        }
    }
}

/// The first two parts of JSON Pointers, each once: which step was changed is told, and not how.
fn shortened(fields: &[String]) -> Vec<&str> {
    let end = |field: &String| field.match_indices('/').nth(2).map_or(field.len(), |(end, _)| end);
    let mut short: Vec<_> = fields.iter().map(|field| &field[..end(field)]).collect();
    short.dedup();
    short
}

/// Writes text with its lines moved to the right. What could drive a terminal becomes visible: much of
/// it is the word of extensions.
fn line(f: &mut fmt::Formatter<'_>, depth: usize, text: &str) -> fmt::Result {
    for line in text.lines() {
        let mut plain = "  ".repeat(depth);
        for char in line.chars() {
            match char.is_control() {
                true => plain.extend(char.escape_default()),
                false => plain.push(char),
            }
        }
        writeln!(f, "{}", plain.trim_end())?;
    }
    Ok(())
}
