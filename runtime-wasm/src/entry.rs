//! Checks a file before it runs: is it a component, and of our contract?

use std::path::Path;

use quadriga_abi::{Error, ErrorCode, PROTOCOL};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use crate::bindings::ExtensionPre;
use crate::guest::Guest;

const GUEST: &str = "quadriga:extension/guest";
const CONTRACT: &str = "quadriga:extension/";

/// Interfaces that the host provides, without their versions. Of HTTP it is the client's side.
const WASI: &[&str] = &[
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];
const HOST: &[&str] = &["quadriga:extension/host", "quadriga:extension/types"];

/// Reads a file that may be a component.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let file = name(path);
    let bytes = std::fs::read(path).map_err(|error| invalid(format!("{file} cannot be read: {error}")))?;
    if !bytes.starts_with(b"\0asm") {
        let message = format!("{file} is no WebAssembly: it does not begin with \\0asm");
        return Err(invalid(message).with_hint("the entry must be a binary component (.wasm)"));
    }
    // Bytes 6 and 7 are the layer: 0 for a module, 1 for a component.
    if bytes.get(6..8) == Some(&[0, 0]) {
        let message = format!("{file} is a core module, not a component");
        let hint = "build it for wasm32-wasip2, or make a component of it: \
                    wasm-tools component new MODULE --adapt ADAPTER -o COMPONENT";
        return Err(invalid(message).with_hint(hint));
    }
    Ok(bytes)
}

/// Compiles a component. That takes its time: not for an async executor.
pub(crate) fn compile(engine: &Engine, path: &Path, bytes: &[u8]) -> Result<Component, Error> {
    Component::new(engine, bytes)
        .map_err(|error| invalid(format!("{} is no valid component: {error:#}", name(path))))
}

/// Links a component with what this host provides, if it is of our contract.
pub(crate) fn link(
    engine: &Engine,
    linker: &Linker<Guest>,
    path: &Path,
    component: &Component,
) -> Result<ExtensionPre<Guest>, Error> {
    let file = name(path);
    check(engine, component, &file)?;
    let linked = linker.instantiate_pre(component).and_then(ExtensionPre::new);
    linked.map_err(|error| invalid(format!("{file} does not fit the contract: {error:#}")))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn check(engine: &Engine, component: &Component, file: &str) -> Result<(), Error> {
    let ty = component.component_type();
    let imports: Vec<String> = ty.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    if let Some(other) = imports.iter().chain(&exports).find_map(|name| other_version(name)) {
        let message = format!("{file} was built for contract {other}; this host speaks {PROTOCOL}");
        let hint = format!("build it with an SDK for contract {PROTOCOL}, or take a host for {other}");
        return Err(Error::new(ErrorCode::IncompatibleVersion, message).with_hint(hint));
    }
    let provided = |name: &&String| {
        let (interface, _) = split_version(name);
        HOST.contains(&interface) || WASI.iter().any(|package| interface.starts_with(package))
    };
    let unknown: Vec<&str> = imports.iter().filter(|name| !provided(name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        let message = format!("{file} imports what no one provides: {}", unknown.join(", "));
        let hint = "a component gets quadriga:extension/host and WASI 0.2 with a client's wasi:http";
        return Err(invalid(message).with_hint(hint));
    }
    if !exports.iter().any(|name| split_version(name).0 == GUEST) {
        let exports = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        let message = format!("{file} does not export {GUEST}; it exports {exports}");
        return Err(invalid(message).with_hint("is it built with the SDK, or for the world in abi/wit?"));
    }
    Ok(())
}

/// The version of our contract that a name carries, if this host cannot serve it.
fn other_version(name: &str) -> Option<&str> {
    let (interface, version) = split_version(name);
    let version = version.filter(|_| interface.starts_with(CONTRACT))?;
    let served = version.parse().is_ok_and(|version| PROTOCOL.serves(version));
    (!served).then_some(version)
}

fn split_version(name: &str) -> (&str, Option<&str>) {
    name.split_once('@').map_or((name, None), |(interface, version)| (interface, Some(version)))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorCode::EntryInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::other_version;

    #[test]
    fn only_our_own_contract_has_versions_that_do_not_fit() {
        let cases = [
            ("quadriga:extension/host@0.1.0", None),
            ("quadriga:extension/guest@0.1.7", None),
            ("quadriga:extension/host", None),
            ("wasi:cli/environment@9.0.0", None),
            ("quadriga:extension/host@0.2.0", Some("0.2.0")),
            ("quadriga:extension/guest@9.0.0", Some("9.0.0")),
            ("quadriga:extension/guest@soon", Some("soon")),
        ];
        for (name, version) in cases {
            assert_eq!(other_version(name), version, "{name}");
        }
    }
}
