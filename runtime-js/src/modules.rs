//! Which modules an extension can import: its own files, by relative paths, and the SDK.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use deno_core::{
    ModuleLoadOptions, ModuleLoadReferrer, ModuleLoadResponse, ModuleLoader, ModuleSource, ModuleSourceCode,
    ModuleSpecifier, ModuleType, ResolutionKind,
};
use deno_error::JsErrorBox;
use quadriga_abi::{Error, ErrorCode};

use crate::typescript;

/// What the package's folder is called inside: guests never learn where it is.
pub(crate) const PACKAGE: &str = "package:///";

/// The built-in copy of the SDK.
const SDK: &str = "quadriga:sdk";
const SDK_SOURCE: &str = include_str!("../../sdk/js/quadriga.js");

/// Loads the modules of one package.
pub(crate) struct PackageLoader {
    root: PathBuf,
    entry: String,
    /// Paths in the package by module URL.
    paths: RefCell<HashMap<String, String>>,
    /// The first failure, which says more than the exception that the engine makes of it.
    failure: RefCell<Option<Error>>,
}

impl PackageLoader {
    /// `entry` is inside `root`; both are canonical.
    pub(crate) fn new(root: &Path, entry: &Path) -> Self {
        let relative = entry.strip_prefix(root).unwrap_or(entry);
        let entry = relative.to_string_lossy().replace('\\', "/");
        Self { root: root.to_owned(), entry, paths: RefCell::default(), failure: RefCell::default() }
    }

    /// The entry's path in the package.
    pub(crate) fn entry(&self) -> &str {
        &self.entry
    }

    /// The entry's module URL.
    pub(crate) fn entry_url(&self) -> Result<ModuleSpecifier, Error> {
        self.url(&self.entry.clone())
            .map_err(|error| Error::new(ErrorCode::EntryInvalid, format!("{}: {error}", self.entry)))
    }

    /// The first failure since this was last asked.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.borrow_mut().take()
    }

    fn url(&self, path: &str) -> Result<ModuleSpecifier, JsErrorBox> {
        let mut url = ModuleSpecifier::parse(PACKAGE).map_err(JsErrorBox::from_err)?;
        url.set_path(path);
        self.paths.borrow_mut().insert(url.as_str().to_owned(), path.to_owned());
        Ok(url)
    }

    fn fail(&self, code: ErrorCode, message: String, hint: Option<&str>) -> JsErrorBox {
        let mut error = Error::new(code, message.clone());
        error.hint = hint.map(str::to_owned);
        self.failure.borrow_mut().get_or_insert(error);
        JsErrorBox::type_error(message)
    }

    fn read(&self, url: &ModuleSpecifier, json: bool) -> Result<String, JsErrorBox> {
        let path = self.paths.borrow().get(url.as_str()).cloned();
        let path =
            path.ok_or_else(|| JsErrorBox::type_error(format!("{url} is no module of the package")))?;
        let code = if path == self.entry { ErrorCode::EntryInvalid } else { ErrorCode::LoadFailed };
        let file = self.root.join(&path).canonicalize();
        let file = file.map_err(|error| self.fail(code, format!("cannot read {path}: {error}"), None))?;
        if !file.starts_with(&self.root) {
            let message = format!("{path} is a link that leaves the package");
            return Err(self.fail(code, message, Some("copy the file into the package")));
        }
        let text = std::fs::read_to_string(&file)
            .map_err(|error| self.fail(code, format!("cannot read {path}: {error}"), None))?;
        match Path::new(&path).extension().and_then(|extension| extension.to_str()) {
            Some("js" | "mjs") => Ok(text),
            Some("ts" | "mts") => {
                typescript::strip(&path, text).map_err(|said| self.fail(code, said, STRIP_HINT))
            }
            Some("json") if json => Ok(text),
            Some("json") => {
                let message = format!("{path} is imported as code");
                Err(self.fail(code, message, Some("import it with { type: \"json\" }")))
            }
            _ => Err(self.fail(code, format!("{path} is no .js, .mjs, .ts, .mts or .json file"), None)),
        }
    }
}

const STRIP_HINT: Option<&str> =
    Some("types are taken out, nothing is compiled: enum, namespace and parameter properties need a bundler");

impl ModuleLoader for PackageLoader {
    fn resolve(
        &self,
        specifier: &str,
        referrer: &str,
        kind: ResolutionKind,
    ) -> Result<ModuleSpecifier, JsErrorBox> {
        if specifier == "quadriga" || specifier == SDK {
            return ModuleSpecifier::parse(SDK).map_err(JsErrorBox::from_err);
        }
        if matches!(kind, ResolutionKind::MainModule) {
            return ModuleSpecifier::parse(specifier).map_err(JsErrorBox::from_err);
        }
        let paths = self.paths.borrow();
        let from = paths.get(referrer).map_or("the extension", String::as_str).to_owned();
        drop(paths);
        if !(specifier.starts_with("./") || specifier.starts_with("../")) {
            let message = format!("{from} imports {specifier:?}, which is not part of the package");
            let hint = "import files of the package by ./ and ../, and \"quadriga\"; bundle or copy other code into the package";
            return Err(self.fail(ErrorCode::LoadFailed, message, Some(hint)));
        }
        match join(&from, specifier) {
            Some(path) => self.url(&path),
            None => {
                let message = format!("{from} imports {specifier:?}, which is outside of the package");
                Err(self.fail(ErrorCode::LoadFailed, message, Some("copy the file into the package")))
            }
        }
    }

    fn load(
        &self,
        url: &ModuleSpecifier,
        _referrer: Option<&ModuleLoadReferrer>,
        options: ModuleLoadOptions,
    ) -> ModuleLoadResponse {
        let source =
            |kind, text: String| ModuleSource::new(kind, ModuleSourceCode::String(text.into()), url, None);
        if url.as_str() == SDK {
            return ModuleLoadResponse::Sync(Ok(source(ModuleType::JavaScript, SDK_SOURCE.to_owned())));
        }
        let json = matches!(options.requested_module_type, deno_core::RequestedModuleType::Json);
        let kind = if json { ModuleType::Json } else { ModuleType::JavaScript };
        ModuleLoadResponse::Sync(self.read(url, json).map(|text| source(kind, text)))
    }
}

/// The path that an import means, or `None` if it leaves the package.
pub(crate) fn join(from: &str, specifier: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in specifier.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            // Another separator, somewhere: such a name is no part of a portable package.
            name if name.contains('\\') => return None,
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn imports_stay_inside() {
        let cases = [
            ("main.js", "./a.js", Some("a.js")),
            ("lib/main.js", "../a.js", Some("a.js")),
            ("lib/main.js", "./deep/../b.js", Some("lib/b.js")),
            ("main.js", "../a.js", None),
            ("lib/main.js", "../../a.js", None),
            ("main.js", "./x/../../lib.js", None),
            ("main.js", "./..\\a.js", None),
        ];
        for (from, specifier, path) in cases {
            assert_eq!(join(from, specifier).as_deref(), path, "{from} {specifier}");
        }
    }
}
