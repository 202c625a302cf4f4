//! The source files of a package, and what each declares.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use swc_common::comments::SingleThreadedComments;
use swc_common::sync::Lrc;
use swc_common::{FileName, SourceMap};
use swc_ecma_ast::{
    Decl, EsVersion, ImportSpecifier, Module, ModuleDecl, ModuleExportName, ModuleItem, Stmt, Str,
    TsInterfaceDecl, TsType, TsTypeAliasDecl,
};
use swc_ecma_parser::{EsSyntax, Syntax, TsSyntax, parse_file_as_module};

use super::jsdoc;
use crate::modules::join;

/// Larger files are generated, and hold no contract that anyone wrote.
const LARGEST: u64 = 1 << 20;

/// The files that have been looked at.
pub(super) struct Files {
    root: PathBuf,
    known: RefCell<HashMap<String, Option<Rc<File>>>>,
}

/// A parsed file.
pub(super) struct File {
    pub(super) path: String,
    pub(super) module: Module,
    pub(super) comments: SingleThreadedComments,
    types: HashMap<String, Declared>,
    /// By local name: the module, and the name there.
    imports: HashMap<String, (String, String)>,
}

/// A type that a file declares.
#[derive(Clone)]
pub(super) enum Declared {
    Interface(Rc<TsInterfaceDecl>),
    Alias(Rc<TsTypeAliasDecl>),
    /// Something that has a name, and no schema.
    Other,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), known: RefCell::default() }
    }

    /// The file at a path of the package.
    pub(super) fn get(&self, path: &str) -> Option<Rc<File>> {
        if let Some(known) = self.known.borrow().get(path) {
            return known.clone();
        }
        let file = self.read(path).map(Rc::new);
        self.known.borrow_mut().insert(path.to_owned(), file.clone());
        file
    }

    /// The file that an import of another means.
    pub(super) fn imported(&self, from: &File, specifier: &str) -> Option<Rc<File>> {
        if !(specifier.starts_with("./") || specifier.starts_with("../")) {
            return None;
        }
        self.get(&join(&from.path, specifier)?)
    }

    /// Where a type of this name, as a file knows it, is declared: the file, and the name there.
    pub(super) fn declaration(&self, file: &Rc<File>, name: &str) -> Option<(Rc<File>, String, Declared)> {
        let (mut file, mut name) = (Rc::clone(file), name.to_owned());
        // Files may import from each other in a circle.
        for _ in 0..16 {
            if let Some(declared) = file.types.get(&name) {
                return Some((file.clone(), name, declared.clone()));
            }
            let (module, there) = file.imports.get(&name)?.clone();
            (file, name) = (self.imported(&file, &module)?, there);
        }
        None
    }

    fn read(&self, path: &str) -> Option<File> {
        let file = self.root.join(path).canonicalize().ok()?;
        let inside =
            file.starts_with(&self.root) && file.metadata().is_ok_and(|about| about.len() <= LARGEST);
        if !inside {
            return None;
        }
        let text = std::fs::read_to_string(&file).ok()?;
        let extension = Path::new(path).extension()?.to_str()?;
        let syntax = match extension {
            "ts" | "mts" => Syntax::Typescript(TsSyntax::default()),
            "js" | "mjs" => Syntax::Es(EsSyntax { import_attributes: true, ..EsSyntax::default() }),
            _ => return None,
        };
        let comments = SingleThreadedComments::default();
        let module = parse(text, syntax, &comments)?;
        let mut found =
            File { path: path.to_owned(), module, comments, types: HashMap::new(), imports: HashMap::new() };
        found.collect();
        Some(found)
    }
}

impl File {
    fn collect(&mut self) {
        let (mut types, mut imports) = (HashMap::new(), HashMap::new());
        for item in &self.module.body {
            match item {
                ModuleItem::Stmt(Stmt::Decl(decl)) => declare(&mut types, decl),
                ModuleItem::ModuleDecl(ModuleDecl::ExportDecl(export)) => declare(&mut types, &export.decl),
                ModuleItem::ModuleDecl(ModuleDecl::Import(import)) => {
                    for specifier in &import.specifiers {
                        let there = match specifier {
                            ImportSpecifier::Named(named) => named.imported.as_ref().map(export_name),
                            ImportSpecifier::Default(_) => Some("default".to_owned()),
                            _ => continue,
                        };
                        let local = specifier.local().sym.to_string();
                        let there = there.unwrap_or_else(|| local.clone());
                        imports.insert(local, (string(&import.src), there));
                    }
                }
                ModuleItem::ModuleDecl(ModuleDecl::ExportNamed(export)) => {
                    let Some(source) = &export.src else { continue };
                    for (orig, exported) in named(&export.specifiers) {
                        imports.insert(exported, (string(source), orig));
                    }
                }
                _ => {}
            }
        }
        for (name, text) in jsdoc::typedefs(&self.comments) {
            if let Some(alias) = alias(&name, &text) {
                types.entry(name).or_insert(Declared::Alias(Rc::new(alias)));
            }
        }
        (self.types, self.imports) = (types, imports);
    }
}

fn declare(types: &mut HashMap<String, Declared>, decl: &Decl) {
    let (name, declared) = match decl {
        Decl::TsInterface(interface) => (&interface.id, Declared::Interface(Rc::new((**interface).clone()))),
        Decl::TsTypeAlias(alias) => (&alias.id, Declared::Alias(Rc::new((**alias).clone()))),
        Decl::TsEnum(declared) => (&declared.id, Declared::Other),
        Decl::Class(class) => (&class.ident, Declared::Other),
        _ => return,
    };
    // One name may be declared in parts, which we don't put together.
    types.entry(name.sym.to_string()).and_modify(|known| *known = Declared::Other).or_insert(declared);
}

/// The pairs of an `export { a as b }`: `a` and `b`.
pub(super) fn named(specifiers: &[swc_ecma_ast::ExportSpecifier]) -> impl Iterator<Item = (String, String)> {
    specifiers.iter().filter_map(|specifier| match specifier {
        swc_ecma_ast::ExportSpecifier::Named(named) => {
            let orig = export_name(&named.orig);
            let exported = named.exported.as_ref().map_or_else(|| orig.clone(), export_name);
            Some((orig, exported))
        }
        _ => None,
    })
}

fn export_name(name: &ModuleExportName) -> String {
    match name {
        ModuleExportName::Ident(ident) => ident.sym.to_string(),
        ModuleExportName::Str(text) => string(text),
    }
}

pub(super) fn string(text: &Str) -> String {
    text.value.to_string_lossy().into_owned()
}

/// A type written by itself, as JSDoc has it.
pub(super) fn parse_type(text: &str) -> Option<Box<TsType>> {
    Some(alias("T", text)?.type_ann)
}

fn alias(name: &str, text: &str) -> Option<TsTypeAliasDecl> {
    let source = format!("type {name} = {text}\n;");
    let comments = SingleThreadedComments::default();
    let module = parse(source, Syntax::Typescript(TsSyntax::default()), &comments)?;
    match module.body.into_iter().next()? {
        ModuleItem::Stmt(Stmt::Decl(Decl::TsTypeAlias(alias))) => Some(*alias),
        _ => None,
    }
}

fn parse(text: String, syntax: Syntax, comments: &SingleThreadedComments) -> Option<Module> {
    let map: Lrc<SourceMap> = Lrc::default();
    let file = map.new_source_file(FileName::Anon.into(), text);
    parse_file_as_module(&file, syntax, EsVersion::latest(), Some(comments), &mut Vec::new()).ok()
}
