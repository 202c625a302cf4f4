//! Compiled components. What is compiled once serves all extensions that are made of the same
//! component, as long as one of them is there, and their workers too.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use quadriga_abi::Error;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use crate::bindings::ExtensionPre;
use crate::entry;
use crate::guest::Guest;

/// What is compiled at this moment, by the SHA-256 of the components.
#[derive(Default)]
pub(crate) struct Code(Mutex<HashMap<[u8; 32], Known>>);

#[derive(Default)]
struct Known {
    here: Weak<Compiled>,
    elsewhere: Weak<File>,
}

/// A component that can be instantiated.
pub(crate) struct Compiled {
    pub(crate) pre: ExtensionPre<Guest>,
    file: OnceLock<Option<Arc<File>>>,
}

impl Code {
    /// The component in a file. Compiling takes its time: not for an async executor.
    pub(crate) fn open(
        &self,
        engine: &Engine,
        linker: &Linker<Guest>,
        path: &Path,
    ) -> Result<Arc<Compiled>, Error> {
        let bytes = entry::read(path)?;
        let key = Sha256::digest(&bytes).into();
        if let Some(known) = self.0.lock().get(&key).and_then(|known| known.here.upgrade()) {
            return Ok(known);
        }
        // Two that come at once may both compile it, which is no harm.
        let component = entry::compile(engine, path, &bytes)?;
        let compiled = Arc::new(Compiled::new(entry::link(engine, linker, path, &component)?));
        self.keep(key, |known| known.here = Arc::downgrade(&compiled));
        Ok(compiled)
    }

    /// The compiled code of the component in a file, for another process. `None` where it cannot be
    /// handed over: that process compiles it then.
    pub(crate) fn export(
        &self,
        engine: &Engine,
        linker: &Linker<Guest>,
        path: &Path,
    ) -> Result<Option<Arc<File>>, Error> {
        let key = Sha256::digest(entry::read(path)?).into();
        if let Some(file) = self.0.lock().get(&key).and_then(|known| known.elsewhere.upgrade()) {
            return Ok(Some(file));
        }
        let file = self.open(engine, linker, path)?.file();
        if let Some(file) = &file {
            self.keep(key, |known| known.elsewhere = Arc::downgrade(file));
        }
        Ok(file)
    }

    fn keep(&self, key: [u8; 32], keep: impl FnOnce(&mut Known)) {
        let mut all = self.0.lock();
        all.retain(|_, known| known.here.strong_count() + known.elsewhere.strong_count() > 0);
        keep(all.entry(key).or_default());
    }
}

impl Compiled {
    pub(crate) fn new(pre: ExtensionPre<Guest>) -> Self {
        Self { pre, file: OnceLock::new() }
    }

    /// The compiled code as a file without a name, which nobody can write any more.
    fn file(&self) -> Option<Arc<File>> {
        let made = || {
            let bytes = self.pre.instance_pre().component().serialize().ok()?;
            sealed::file(&bytes).ok().map(Arc::new)
        };
        self.file.get_or_init(made).clone()
    }
}

/// Takes over what [`Code::export`] of another process of this release gave. `None` if it is not for
/// this engine.
pub(crate) fn import(engine: &Engine, file: &File) -> Option<Component> {
    let path = sealed::path(file)?;
    #[expect(unsafe_code, reason = "wasmtime runs what it finds there")]
    // SAFETY: the file is our host's, which had its own compiler write it and then sealed it.
    let component = unsafe { Component::deserialize_file(engine, path) };
    component.inspect_err(|error| tracing::debug!(%error, "the host's code is not for this engine")).ok()
}

/// Files in memory that keep what is in them.
#[cfg(target_os = "linux")]
mod sealed {
    use std::fs::File;
    use std::io::{self, Write as _};
    use std::os::fd::AsRawFd as _;
    use std::path::PathBuf;

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

    const SEALS: SealFlags =
        SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

    pub(super) fn file(bytes: &[u8]) -> io::Result<File> {
        let file = memfd_create("quadriga-code", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = File::from(file);
        file.write_all(bytes)?;
        fcntl_add_seals(&file, SEALS)?;
        Ok(file)
    }

    /// Where this process finds it, unless somebody could still write it.
    pub(super) fn path(file: &File) -> Option<PathBuf> {
        let sealed = fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS));
        sealed.then(|| format!("/proc/self/fd/{}", file.as_raw_fd()).into())
    }
}

/// Elsewhere there are no workers to hand them to.
#[cfg(not(target_os = "linux"))]
mod sealed {
    use std::fs::File;
    use std::io;
    use std::path::PathBuf;

    pub(super) fn file(_: &[u8]) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn path(_: &File) -> Option<PathBuf> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::config;

    #[test]
    fn only_what_nobody_can_write_is_taken_over() {
        let (engine, _) = config::engine(None, true).expect("an engine");
        let component = Component::new(&engine, wat::parse_str("(component)").expect("a component"));
        let code = component.and_then(|component| component.serialize()).expect("code");
        let sealed = sealed::file(&code).expect("a file");
        assert!(import(&engine, &sealed).is_some());
        assert!((&sealed).write_all(b"x").is_err() && sealed.set_len(1).is_err());
        // Not what does not fit, and not what others could still change.
        assert!(import(&engine, &sealed::file(&code[..code.len() / 2]).expect("a file")).is_none());
        assert!(import(&engine, &sealed::file(b"#!/bin/sh\n").expect("a file")).is_none());
        let mut open = tempfile::tempfile().expect("a file");
        open.write_all(&code).expect("a copy");
        assert!(import(&engine, &open).is_none());
    }
}
