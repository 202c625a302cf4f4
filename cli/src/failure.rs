//! Errors as the user sees them.

use std::fmt;

use anstyle::{AnsiColor, Style};
use quadriga::{abi, package};
use serde::{Deserialize, Serialize};

use crate::output::harmless;

const RED: Style = AnsiColor::Red.on_default().bold();
const CYAN: Style = AnsiColor::Cyan.on_default();
const DIM: Style = Style::new().dimmed();

/// An error of this command with what to do about it.
#[derive(Debug)]
pub(crate) struct Advice {
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// Any error, ready to be shown as text or JSON. A host tells it to its clients as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The code of the extension platform or of packages, or `failed` for what is outside of them.
    pub(crate) code: String,
    pub(crate) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extension: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stack: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<Box<Self>>,
}

/// What a host told.
#[derive(Debug)]
pub(crate) struct Told(pub(crate) Box<Failure>);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Told {}

impl Advice {
    pub(crate) fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Advice {}

impl From<&abi::Error> for Failure {
    fn from(error: &abi::Error) -> Self {
        Self {
            code: error.code.to_string(),
            message: error.message.clone(),
            hint: error.hint.clone(),
            extension: error.extension.clone(),
            stack: error.stack.clone(),
            cause: error.cause.as_ref().map(|cause| Box::new(cause.into())),
        }
    }
}

impl From<&anyhow::Error> for Failure {
    fn from(error: &anyhow::Error) -> Self {
        let links: Vec<_> = error.chain().collect();
        let mut failure: Option<Self> = None;
        // From the innermost out; an error of the platform brings its own causes.
        for link in links.into_iter().rev() {
            if let Some(error) = link.downcast_ref::<abi::Error>() {
                failure = Some(error.into());
                continue;
            }
            if let Some(Told(told)) = link.downcast_ref::<Told>() {
                failure = Some(Failure::clone(told));
                continue;
            }
            if let Some(error) = link.downcast_ref::<package::Error>() {
                let cause = failure.map(Box::new);
                failure = Some(Self::known(error.code(), link.to_string(), error.hint(), cause));
                continue;
            }
            if let Some(error) = link.downcast_ref::<package::SignatureError>() {
                failure = Some(Self::known(error.code(), link.to_string(), error.hint(), None));
                continue;
            }
            let code = failure.as_ref().map_or_else(|| "failed".to_owned(), |cause| cause.code.clone());
            failure = Some(Self {
                code,
                message: link.to_string(),
                hint: link.downcast_ref::<Advice>().map(|advice| advice.hint.clone()),
                extension: None,
                stack: None,
                cause: failure.map(Box::new),
            });
        }
        // A chain has at least one link.
        failure.unwrap_or_else(|| Self::from(&abi::Error::new(abi::ErrorCode::Internal, "no error")))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lead = "error";
        let mut indent = String::new();
        for failure in std::iter::successors(Some(self), |failure| failure.cause.as_deref()) {
            failure.write(f, lead, &indent)?;
            lead = "caused by";
            indent.push_str("  ");
        }
        Ok(())
    }
}

impl Failure {
    fn known(code: &str, message: String, hint: Option<&str>, cause: Option<Box<Self>>) -> Self {
        let (code, hint) = (code.to_owned(), hint.map(str::to_owned));
        Self { code, message, hint, extension: None, stack: None, cause }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, lead: &str, indent: &str) -> fmt::Result {
        let code = match self.code.as_str() {
            "failed" => String::new(),
            code => format!("[{code}]"),
        };
        let mut message = self.message.lines();
        let first = harmless(message.next().unwrap_or_default());
        writeln!(f, "{indent}{RED}{lead}{code}{RED:#}: {first}")?;
        lines(f, &format!("{indent}  "), message)?;
        if let Some(extension) = &self.extension {
            writeln!(f, "{indent}  {DIM}in{DIM:#} {}", harmless(extension))?;
        }
        if let Some(hint) = &self.hint {
            let mut hint = hint.lines();
            writeln!(f, "{indent}  {CYAN}hint{CYAN:#}: {}", harmless(hint.next().unwrap_or_default()))?;
            lines(f, &format!("{indent}  "), hint)?;
        }
        if let Some(stack) = &self.stack {
            writeln!(f, "{indent}  {DIM}stack{DIM:#}:")?;
            lines(f, &format!("{indent}    "), stack.trim_end().lines())?;
        }
        Ok(())
    }
}

fn lines<'a>(f: &mut fmt::Formatter<'_>, indent: &str, lines: impl Iterator<Item = &'a str>) -> fmt::Result {
    for line in lines {
        writeln!(f, "{}", format!("{indent}{}", harmless(line)).trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};
    use quadriga::abi::{Error, ErrorCode};

    use super::{Advice, Failure};

    fn check(error: anyhow::Error, expected: &str) {
        let text = Failure::from(&error).to_string();
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), expected);
    }

    #[test]
    fn errors_are_told_once_with_all_there_is() {
        let inner = Error::new(ErrorCode::ExtensionError, "no \x1b[1mfile")
            .with_stack("Traceback:\n  line 3\n")
            .in_extension("a.py");
        let outer = Error::new(ErrorCode::ExtensionError, "no file")
            .with_hint("make one")
            .in_extension("a.js")
            .with_cause(inner);
        check(
            outer.into(),
            "error[extension_error]: no file\n  in a.js\n  hint: make one\n  \
             caused by[extension_error]: no \\u{1b}[1mfile\n    in a.py\n    stack:\n      Traceback:\n        line 3\n",
        );
    }

    #[test]
    fn context_has_the_code_of_its_cause() {
        let error: anyhow::Error = Error::new(ErrorCode::LoadFailed, "two\nlines").into();
        check(
            error.context("outer"),
            "error[load_failed]: outer\n  caused by[load_failed]: two\n    lines\n",
        );
        check(
            Advice::new("nothing there", "look elsewhere").into(),
            "error: nothing there\n  hint: look elsewhere\n",
        );
        let plain = Err::<(), _>(anyhow!("inner")).context("outer").unwrap_err();
        check(plain, "error: outer\n  caused by: inner\n");
    }
}
