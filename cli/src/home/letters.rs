//! `quadriga dead-letters`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use quadriga::abi::ExtensionId;
use quadriga::{DeadLetter, Letters};

use super::args::HomeArgs;
use super::operation::Operation;
use super::told;
use crate::failure::Advice;
use crate::output::{Output, table};

/// Show events that were given up, have them delivered once more, or drop them
///
/// A subscription with delivery = "at-least-once" keeps each event until the extension has taken it. One that
/// it failed at too often, or was not allowed to have any more, becomes a dead letter, and takes up room until
/// it is retried or dropped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga dead-letters list
  quadriga dead-letters show 0006447d4d1c2a10
  quadriga dead-letters retry --of acme.orders
  quadriga dead-letters drop 0006447d4d1c2a10")]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(ListArgs),
    Show(ShowArgs),
    /// Have some delivered once more, with as many attempts as at first
    #[command(after_help = "\
Examples:
  quadriga dead-letters retry 0006447d4d1c2a10
  quadriga dead-letters retry --of acme.orders")]
    Retry(SomeArgs),
    /// Forget some
    #[command(after_help = "\
Examples:
  quadriga dead-letters drop 0006447d4d1c2a10
  quadriga dead-letters drop --all")]
    Drop(SomeArgs),
}

/// List them, by when they were emitted
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga dead-letters list
  quadriga dead-letters list acme.orders --json | jq '.[].error.message'")]
struct ListArgs {
    /// The id of an extension; all if left out
    #[arg(value_name = "ID")]
    id: Option<ExtensionId>,

    #[command(flatten)]
    home: HomeArgs,
}

/// Show one, with what it says and why it was given up
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga dead-letters show 0006447d4d1c2a10")]
struct ShowArgs {
    /// Its id, or how that begins
    #[arg(value_name = "LETTER")]
    letter: String,

    #[command(flatten)]
    home: HomeArgs,
}

/// Which ones.
#[derive(Debug, Args)]
struct SomeArgs {
    #[command(flatten)]
    which: WhichArgs,

    #[command(flatten)]
    home: HomeArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WhichArgs {
    /// One, by its id or how that begins
    #[arg(value_name = "LETTER")]
    letter: Option<String>,

    /// All those of one extension
    #[arg(long, value_name = "ID")]
    of: Option<ExtensionId>,

    /// All there are
    #[arg(long)]
    all: bool,
}

/// Carries one of them out.
pub(crate) fn dead_letters(args: DeadLettersArgs, output: Output) -> Result<ExitCode> {
    match args.command {
        Command::List(ListArgs { id, home }) => {
            let which = id.map_or(Letters::All, Letters::Of);
            told(home, Operation::DeadLetters { which }, output, |letters: Vec<DeadLetter>| list(&letters))
        }
        Command::Show(ShowArgs { letter, home }) => {
            let which = Letters::One(letter);
            told(home, Operation::DeadLetters { which }, output, |letters: Vec<DeadLetter>| {
                letters.iter().map(one).collect::<Vec<_>>().join("\n\n")
            })
        }
        Command::Retry(SomeArgs { which, home }) => {
            let which = which.letters()?;
            told(home, Operation::RetryDeadLetters { which }, output, |letters: Vec<DeadLetter>| {
                format!("{} are delivered once more", letters.len())
            })
        }
        Command::Drop(SomeArgs { which, home }) => {
            let which = which.letters()?;
            told(home, Operation::DropDeadLetters { which }, output, |letters: Vec<DeadLetter>| {
                format!("{} are dropped", letters.len())
            })
        }
    }
}

impl WhichArgs {
    fn letters(self) -> Result<Letters> {
        match self {
            Self { letter: Some(letter), .. } => Ok(Letters::One(letter)),
            Self { of: Some(id), .. } => Ok(Letters::Of(id)),
            Self { all: true, .. } => Ok(Letters::All),
            Self { .. } => Err(Advice::new("which ones?", "name one, or say --of ID or --all").into()),
        }
    }
}

fn list(letters: &[DeadLetter]) -> String {
    if letters.is_empty() {
        return "there are no dead letters".to_owned();
    }
    let row = |letter: &DeadLetter| {
        let error = letter.error.as_ref().map_or_else(String::new, |error| error.message.clone());
        let emitted = humantime::format_rfc3339_seconds(letter.emitted).to_string();
        let attempts = letter.attempts.to_string();
        vec![letter.id.clone(), letter.extension.to_string(), letter.topic.clone(), emitted, attempts, error]
    };
    let header = ["letter", "extension", "topic", "emitted", "attempts", "error"];
    table(&header, &["attempts"], letters.iter().map(row).collect())
}

fn one(letter: &DeadLetter) -> String {
    let time = |time| humantime::format_rfc3339_millis(time).to_string();
    let mut lines = vec![
        format!("letter      {}", letter.id),
        format!("extension   {}, method {}", letter.extension, letter.method),
        format!("topic       {}, of the subscription to {}", letter.topic, letter.subscription),
        format!("emitted     {} by {}", time(letter.emitted), by(letter)),
        format!("given up    {} after {} attempts", time(letter.died), letter.attempts),
    ];
    if let Some(error) = &letter.error {
        lines.push(format!("error       {}: {}", error.code, error.message));
    }
    lines.push(format!("data        {}", letter.data));
    lines.join("\n")
}

fn by(letter: &DeadLetter) -> String {
    letter.source.as_ref().map_or_else(|| "the host".to_owned(), ToString::to_string)
}
