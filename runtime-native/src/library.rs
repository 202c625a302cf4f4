use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::check_layout_compatibility;
use abi_stable::library::{RawLibrary, lib_header_from_raw_library};
use object::{Architecture, Object, ObjectKind, ObjectSegment, ReadCache, ReadRef};
use quadriga_abi::vtable::{ExtensionModuleRef, HostFunctionsRef};
use quadriga_abi::{Error, ErrorCode};
use quadriga_core::TemporaryFolder;

use crate::error;

/// A library in this process, for good: code that may still run somewhere is never unmapped.
pub(crate) struct Library {
    /// What it exports.
    pub(crate) module: ExtensionModuleRef,
    /// The file that backs its code, which stack traces read. `None` if that is not ours.
    _copy: Option<TemporaryFolder>,
}

impl Library {
    /// Loads a copy of a file. The loader of the operating system knows files by their identity, so
    /// only a copy brings in new code from a path it has seen, and only a copy stays as it is when
    /// the file is overwritten.
    pub(crate) fn open(entry: &Path) -> Result<Self, Error> {
        Self::open_copy(entry).map_err(|error| named(entry, error))
    }

    /// Loads the file itself: for a process that loads it once.
    pub(crate) fn open_in_place(entry: &Path) -> Result<Self, Error> {
        let open = || {
            let file = File::open(entry).map_err(|error| unreadable(&error))?;
            // Its headers alone: all of it would take longer to read than to load.
            check(&ReadCache::new(file))?;
            Self::load(entry, None)
        };
        open().map_err(|error| named(entry, error))
    }

    fn open_copy(entry: &Path) -> Result<Self, Error> {
        let data = fs::read(entry).map_err(|error| unreadable(&error))?;
        check(&data[..])?;
        let failed =
            |error| Error::new(ErrorCode::LoadFailed, format!("no private copy could be made: {error}"));
        let copy = TemporaryFolder::new().map_err(failed)?;
        let path = copy.path().join(entry.file_name().unwrap_or(OsStr::new("library")));
        fs::write(&path, data).map_err(failed)?;
        Self::load(&path, Some(copy))
    }

    fn load(path: &Path, copy: Option<TemporaryFolder>) -> Result<Self, Error> {
        let raw = RawLibrary::load_at(path).map_err(|error| error::library(error, path))?;
        // Leaked at once: what failed to load may have left threads behind.
        let raw: &'static RawLibrary = Box::leak(Box::new(raw));
        Ok(Self { module: root_module(raw, path)?, _copy: copy })
    }

    /// A module of this process.
    #[cfg(test)]
    pub(crate) fn of(module: ExtensionModuleRef) -> Self {
        Self { module, _copy: None }
    }
}

fn named(entry: &Path, mut error: Error) -> Error {
    let name = entry.file_name().unwrap_or(entry.as_os_str()).to_string_lossy();
    error.message.insert_str(0, &format!("{name}: "));
    error
}

fn unreadable(error: &io::Error) -> Error {
    error::entry(format!("it cannot be read: {error}"))
}

#[expect(unsafe_code, reason = "abi_stable trusts the symbol to be what its name says")]
fn root_module(raw: &'static RawLibrary, path: &Path) -> Result<ExtensionModuleRef, Error> {
    // SAFETY: the name is abi_stable's own, and the library is never closed. The header is compared
    // with ours before anything behind it is used.
    let header = unsafe { lib_header_from_raw_library(raw) }.map_err(|error| error::library(error, path))?;
    if header.layout().is_none() {
        return Err(error::unchecked());
    }
    let theirs = header.version_strings().version.as_str();
    let module: ExtensionModuleRef =
        header.init_root_module().map_err(|error| error::layout(error, theirs))?;
    // `init_root_module` compared what the library offers with what we ask for. This is the reverse.
    check_layout_compatibility(module.needs()(), HostFunctionsRef::LAYOUT)
        .map_err(|unfit| error::unfit(&unfit.to_string(), theirs))?;
    Ok(module)
}

/// Refuses what the operating system's loader might crash on: a file that is cut off.
fn check<'a>(data: impl ReadRef<'a>) -> Result<(), Error> {
    let file = object::File::parse(data)
        .map_err(|error| error::entry(format!("it is cut off, or not a library: {error}")))?;
    if file.kind() != ObjectKind::Dynamic {
        return Err(error::entry("it is not a dynamic library").with_hint("build the crate as a `cdylib`"));
    }
    if let Some((name, wanted)) = this_architecture()
        && file.architecture() != wanted
    {
        let theirs = format!("{:?}", file.architecture());
        return Err(error::entry(format!("it is built for {theirs}, and this host runs on {name}")));
    }
    let len = data.len().map_err(|()| error::entry("it has no size"))?;
    let fits = |(start, size): (u64, u64)| start.checked_add(size).is_some_and(|end| end <= len);
    if !file.segments().all(|segment| fits(segment.file_range())) {
        return Err(error::entry("it is cut off"));
    }
    Ok(())
}

fn this_architecture() -> Option<(&'static str, Architecture)> {
    let known = match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        "riscv64" => Architecture::Riscv64,
        _ => return None,
    };
    Some((std::env::consts::ARCH, known))
}

#[cfg(test)]
mod tests {
    #![expect(unsafe_code, reason = "derived")]

    use abi_stable::StableAbi;
    use abi_stable::abi_stability::abi_checking::check_layout_compatibility;

    /// A table of functions as it was, is, and might have been.
    macro_rules! table {
        ($name:ident, $first:ty $(, $more:ident)?) => {
            #[expect(dead_code, reason = "only the layout counts")]
            mod $name {
                #[repr(C)]
                #[derive(abi_stable::StableAbi)]
                #[sabi(kind(Prefix(prefix_ref = TableRef, prefix_fields = TablePrefix)))]
                pub(super) struct Table {
                    #[sabi(last_prefix_field)]
                    pub(super) first: $first,
                    $(pub(super) $more: extern "C" fn(),)?
                }
            }
        };
    }
    table!(older, extern "C" fn(u32));
    table!(newer, extern "C" fn(u32), more);
    table!(other, extern "C" fn(u64), more);

    #[test]
    fn a_host_may_offer_more_than_a_library_knows() {
        let layouts = [older::TableRef::LAYOUT, newer::TableRef::LAYOUT, other::TableRef::LAYOUT];
        let cases = [(0, 0, true), (0, 1, true), (1, 0, false), (0, 2, false), (1, 2, false)];
        for (knows, has, fits) in cases {
            let checked = check_layout_compatibility(layouts[knows], layouts[has]);
            assert_eq!(checked.is_ok(), fits, "{knows} and {has}");
        }
    }
}
