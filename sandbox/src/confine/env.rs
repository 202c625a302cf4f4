//! The environment.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;

use super::report::Outcome;
use super::{process, sys};

/// Makes these the only variables, and wipes the earlier ones from memory, where `/proc/self/environ`
/// and a guest that reads its process's memory would find them.
pub(super) fn replace(variables: &BTreeMap<String, String>) -> io::Result<Outcome> {
    let stat = process::stat()?;
    sys::wipe_environment(stat.number(50)?, stat.number(51)?);
    for (name, value) in variables {
        sys::set_variable(&CString::new(name.as_str())?, &CString::new(value.as_str())?)?;
    }
    Outcome::reached()
}
