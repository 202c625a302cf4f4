//! How far an operation is.

use std::fmt;
use std::sync::Arc;

/// Is told what an operation does, how many bytes of it are done, and of how many, if that is known.
/// The one that is made by default is told nothing.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Hearer>>);

type Hearer = dyn Fn(&'static str, u64, Option<u64>) + Send + Sync;

impl Progress {
    /// Has `hear` told, on any thread and often: it should be quick.
    pub fn new(hear: impl Fn(&'static str, u64, Option<u64>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }

    pub(super) fn tell(&self, what: &'static str, done: u64, of: Option<u64>) {
        if let Some(hear) = &self.0 {
            hear(what, done, of);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress(..)" } else { "Progress" })
    }
}
