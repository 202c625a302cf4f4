//! What the engine made of our own scripts when it first compiled them, for the isolates after that one.
//! Nothing of a guest is in it.
//!
//! The bytes stay in this process: whoever could change them could run code in it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use deno_core::{ExtCodeCache, ModuleSourceCode, ModuleSpecifier, SourceCodeCacheInfo};

/// By the name of the script, for good: there is a handful.
static SCRIPTS: LazyLock<Mutex<HashMap<String, &'static [u8]>>> = LazyLock::new(Mutex::default);

/// Finds and keeps them.
struct Compiled;

/// What an isolate is given to find them, where others may follow it. QuickJS compiles anew each time.
pub(crate) fn cache(wanted: bool) -> Option<Rc<dyn ExtCodeCache>> {
    (wanted && cfg!(not(feature = "quickjs"))).then(|| Rc::new(Compiled) as _)
}

fn scripts() -> MutexGuard<'static, HashMap<String, &'static [u8]>> {
    SCRIPTS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ExtCodeCache for Compiled {
    fn get_code_cache_info(
        &self,
        script: &ModuleSpecifier,
        _source: &ModuleSourceCode,
        _module: bool,
    ) -> SourceCodeCacheInfo {
        // The sources are compiled into this program, and the engine looks whether they fit.
        let data = scripts().get(script.as_str()).map(|bytes| Cow::Borrowed(*bytes));
        SourceCodeCacheInfo { hash: 0, data }
    }

    fn code_cache_ready(&self, script: ModuleSpecifier, _hash: u64, bytes: &[u8], _module: bool) {
        scripts().entry(script.into()).or_insert_with(|| Vec::leak(bytes.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::{Compiled, ExtCodeCache, ModuleSourceCode, ModuleSpecifier, cache};

    #[test]
    fn what_was_compiled_first_stays() {
        let source = ModuleSourceCode::String("1".to_owned().into());
        let script = |name: &str| ModuleSpecifier::parse(&format!("ext:test/{name}.js")).expect("a url");
        let found = |name: &str| Compiled.get_code_cache_info(&script(name), &source, false).data;
        assert_eq!(found("one"), None);
        for bytes in [b"first", b"later"] {
            Compiled.code_cache_ready(script("one"), 0, bytes, false);
            assert_eq!((found("one").as_deref(), found("two")), (Some(&b"first"[..]), None));
        }
        assert_eq!((cache(true).is_some(), cache(false).is_some()), (cfg!(not(feature = "quickjs")), false));
    }
}
