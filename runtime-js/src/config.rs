use quadriga_abi::Isolation;
use quadriga_abi::limits::{Limit, Limits};
use quadriga_core::{Language, Support, ThreadClock};

/// The name and version of what reads the extensions, for their descriptions.
pub(crate) const SDK: &str = concat!("quadriga-runtime-js ", env!("CARGO_PKG_VERSION"));

/// The memory of an extension that declares no limit. There always is one: an engine that finds
/// no memory ends the process.
const DEFAULT_MEMORY: usize = 1 << 30;

/// Below this the engine cannot start.
pub(crate) const LEAST_MEMORY: usize = 8 << 20;

/// The stack of an isolate's thread. The engine stops recursion long before, at about one MiB.
pub(crate) const STACK: usize = 8 << 20;

/// What this runtime keeps to.
pub(crate) const SUPPORT: Support = Support {
    isolation: Isolation::InProcess,
    limits: match ThreadClock::EXISTS {
        true => &[Limit::Memory, Limit::CpuTime, Limit::CallTimeout, Limit::OutputRate],
        false => &[Limit::Memory, Limit::CallTimeout, Limit::OutputRate],
    },
    permissions: &["clock", "net"],
};

/// The entry that runs a loose piece of source. No stack shows it.
pub(crate) const SNIPPET: &str = "quadriga-snippet.js";

/// A language that differs from the others in how its files are read alone.
macro_rules! language {
    ($name:literal, $suffix:literal) => {
        Language {
            names: &[$name, $suffix],
            file: concat!("snippet.", $suffix),
            entry: SNIPPET,
            wrapper: concat!("const SOURCE = \"./snippet.", $suffix, "\";\n", include_str!("js/snippet.js")),
        }
    };
}

/// What loose pieces of source come to is in the comment of their wrapper.
pub(crate) const LANGUAGES: [Language; 2] = [language!("javascript", "js"), language!("typescript", "ts")];

/// How many bytes an extension may use: for its heap, and again for its array buffers.
pub(crate) fn memory(limits: &Limits) -> usize {
    limits
        .memory
        .map_or(DEFAULT_MEMORY, |size| usize::try_from(size.0).unwrap_or(usize::MAX))
        .max(LEAST_MEMORY)
}
