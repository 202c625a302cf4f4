//! Scenarios: what was done on the platform, one JSON value per line.

use serde::Deserialize;

use crate::context::{ParticipantJoined, Terms};
use crate::plan::Plan;

/// A recorded scenario.
#[derive(Debug)]
pub struct Scenario {
    pub(crate) file: String,
    pub(crate) lines: Vec<(usize, Command)>,
}

/// A line that is no command, or one that makes no sense where it stands.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct Wrong {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// What a line has the platform do.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(crate) enum Command {
    /// Says what comes next.
    Note(Note),
    /// Opens a context.
    Open(Terms),
    /// Has an agent join one.
    Join(ParticipantJoined),
    /// Makes a plan.
    Plan(Plan),
    /// Carries a plan out.
    Execute(Execute),
    /// Calls a function of an API: the platform's own, or one that an extension has added.
    Ask(Ask),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    pub(crate) text: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Execute {
    pub(crate) plan: String,
    /// What the one who wants it carried out shows.
    pub(crate) token: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// The API: `context`, `plan` or `trace`.
    pub(crate) api: String,
    pub(crate) function: String,
    #[serde(default)]
    pub(crate) with: Vec<serde_json::Value>,
}

impl Scenario {
    /// Reads a scenario. `file` is what errors call it.
    ///
    /// # Errors
    /// At the first line that is no command. Lines with nothing on them are passed over.
    pub fn parse(file: &str, text: &str) -> Result<Self, Wrong> {
        let written = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let lines = written.map(|(index, line)| {
            let command = serde_json::from_str(line).map_err(|error| Wrong {
                file: file.to_owned(),
                line: index + 1,
                message: message(&error),
            })?;
            Ok((index + 1, command))
        });
        Ok(Self { file: file.to_owned(), lines: lines.collect::<Result<_, _>>()? })
    }
}

/// The message of an error in a line, with the column where the JSON itself is wrong.
fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.split_once(" at line ").map_or(&*text, |(message, _)| message);
    match error.is_data() {
        true => message.to_owned(),
        false => format!("column {}: {message}", error.column()),
    }
}
