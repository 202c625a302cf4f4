//! The functions that a module exports, with what is declared of their parameters and results.

use std::rc::Rc;

use swc_common::{BytePos, Span, Spanned};
use swc_ecma_ast::{
    Decl, DefaultDecl, Expr, Function, ModuleDecl, ModuleItem, Pat, Stmt, TsEntityName, TsType, TsTypeAnn,
    TsTypeParamDecl, VarDecl,
};

use super::files::{File, Files, named, parse_type, string};
use super::jsdoc::{self, Doc};

/// How often an export may be handed on from file to file.
const LONGEST_CHAIN: usize = 16;

/// What is declared of a function.
pub(super) struct Signature {
    /// The author's words about it.
    pub(super) doc: String,
    pub(super) file: Rc<File>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) returns: Option<Box<TsType>>,
    /// Type parameters, which hide types of the same name.
    pub(super) hidden: Vec<String>,
    /// Whether the author declared types: then no parameters means none.
    pub(super) is_typed: bool,
}

pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) ty: Option<Box<TsType>>,
    pub(super) optional: bool,
    pub(super) rest: bool,
}

/// The function that a file exports under a name.
pub(super) fn exported(files: &Files, path: &str, name: &str) -> Option<Signature> {
    find(files, &files.get(path)?, name, LONGEST_CHAIN)
}

fn find(files: &Files, file: &Rc<File>, name: &str, chain: usize) -> Option<Signature> {
    let chain = chain.checked_sub(1)?;
    let mut elsewhere = Vec::new();
    for item in &file.module.body {
        let ModuleItem::ModuleDecl(item) = item else { continue };
        match item {
            ModuleDecl::ExportDecl(export) => {
                if let Some(found) = declared(file, &export.decl, name, export.span.lo) {
                    return Some(found);
                }
            }
            ModuleDecl::ExportDefaultDecl(export) if name == "default" => {
                let DefaultDecl::Fn(function) = &export.decl else { return None };
                return Some(of_function(file, &function.function, export.span.lo));
            }
            ModuleDecl::ExportDefaultExpr(export) if name == "default" => {
                let Expr::Ident(ident) = &*export.expr else { return None };
                return local(file, &ident.sym);
            }
            ModuleDecl::ExportNamed(export) => {
                let Some((orig, _)) = named(&export.specifiers).find(|(_, exported)| exported == name) else {
                    continue;
                };
                return match &export.src {
                    Some(source) => find(files, &files.imported(file, &string(source))?, &orig, chain),
                    None => local(file, &orig),
                };
            }
            ModuleDecl::ExportAll(export) => elsewhere.push(string(&export.src)),
            _ => {}
        }
    }
    let mut elsewhere = elsewhere.iter().filter_map(|source| files.imported(file, source));
    elsewhere.find_map(|other| find(files, &other, name, chain))
}

/// A function that a file declares without exporting it at once.
fn local(file: &Rc<File>, name: &str) -> Option<Signature> {
    file.module.body.iter().find_map(|item| match item {
        ModuleItem::Stmt(Stmt::Decl(decl)) => declared(file, decl, name, decl.span().lo),
        _ => None,
    })
}

fn declared(file: &Rc<File>, decl: &Decl, name: &str, at: BytePos) -> Option<Signature> {
    match decl {
        Decl::Fn(function) if function.ident.sym == name => Some(of_function(file, &function.function, at)),
        Decl::Var(variables) => of_variable(file, variables, name, at),
        _ => None,
    }
}

fn of_variable(file: &Rc<File>, variables: &VarDecl, name: &str, at: BytePos) -> Option<Signature> {
    let variable = variables.decls.iter().find(|variable| {
        matches!(&variable.name, Pat::Ident(ident) if ident.id.sym == name && ident.type_ann.is_none())
    })?;
    match &**variable.init.as_ref()? {
        Expr::Fn(function) => Some(of_function(file, &function.function, at)),
        Expr::Arrow(arrow) => {
            let parts = Parts {
                parameters: arrow.params.iter().collect(),
                returns: arrow.return_type.as_deref(),
                generics: arrow.type_params.as_deref(),
                is_generator: arrow.is_generator,
            };
            Some(signature(file, &parts, at))
        }
        _ => None,
    }
}

fn of_function(file: &Rc<File>, function: &Function, at: BytePos) -> Signature {
    let parts = Parts {
        parameters: function.params.iter().map(|parameter| &parameter.pat).collect(),
        returns: function.return_type.as_deref(),
        generics: function.type_params.as_deref(),
        is_generator: function.is_generator,
    };
    signature(file, &parts, at)
}

struct Parts<'a> {
    parameters: Vec<&'a Pat>,
    returns: Option<&'a TsTypeAnn>,
    generics: Option<&'a TsTypeParamDecl>,
    is_generator: bool,
}

fn signature(file: &Rc<File>, parts: &Parts<'_>, at: BytePos) -> Signature {
    let doc = jsdoc::leading(&file.comments, at);
    let parameters =
        parts.parameters.iter().enumerate().map(|(index, pattern)| parameter(pattern, index, &doc));
    let parameters: Vec<_> = parameters.collect();
    let returns = parts.returns.map(|declared| declared.type_ann.clone());
    let returns = returns.or_else(|| parse_type(doc.returns.as_ref()?));
    let is_script = !(file.path.ends_with(".ts") || file.path.ends_with(".mts"));
    Signature {
        is_typed: !is_script || doc.returns.is_some() || !doc.parameters.is_empty(),
        doc: doc.text,
        file: Rc::clone(file),
        parameters,
        returns: returns.and_then(|ty| if parts.is_generator { item(&ty) } else { Some(settled(ty)) }),
        hidden: parts.generics.into_iter().flat_map(names).collect(),
    }
}

fn names(generics: &TsTypeParamDecl) -> impl Iterator<Item = String> {
    generics.params.iter().map(|parameter| parameter.name.sym.to_string())
}

fn parameter(pattern: &Pat, index: usize, doc: &Doc) -> Parameter {
    let (inner, has_default) = match pattern {
        Pat::Assign(assign) => (&*assign.left, true),
        other => (other, false),
    };
    let (name, ty, optional, rest) = match inner {
        Pat::Ident(ident) => (Some(ident.id.sym.to_string()), &ident.type_ann, ident.id.optional, false),
        Pat::Object(object) => (None, &object.type_ann, object.optional, false),
        Pat::Array(array) => (None, &array.type_ann, array.optional, false),
        Pat::Rest(rest) => {
            let name = rest.arg.as_ident().map(|ident| ident.id.sym.to_string());
            (name, &rest.type_ann, true, true)
        }
        _ => (None, &None, false, false),
    };
    let told = match &name {
        Some(name) => doc.parameters.iter().find(|told| told.name == *name),
        // A destructured one has some name in the comment; its place tells which.
        None => doc.parameters.get(index),
    };
    let ty = ty.as_ref().map(|declared| declared.type_ann.clone()).or_else(|| {
        let told = told?;
        let ty = parse_type(&told.ty)?;
        Some(if rest { list_of(ty) } else { ty })
    });
    Parameter {
        name: name.unwrap_or_else(|| format!("argument{index}")),
        ty,
        optional: optional || has_default || told.is_some_and(|told| told.optional),
        rest,
    }
}

fn list_of(item: Box<TsType>) -> Box<TsType> {
    Box::new(TsType::TsArrayType(swc_ecma_ast::TsArrayType { span: Span::default(), elem_type: item }))
}

/// What a generator of this type yields.
fn item(ty: &TsType) -> Option<Box<TsType>> {
    const STREAMS: [&str; 6] = [
        "AsyncGenerator",
        "AsyncIterable",
        "AsyncIterableIterator",
        "Generator",
        "Iterable",
        "IterableIterator",
    ];
    let TsType::TsTypeRef(reference) = ty else { return None };
    let TsEntityName::Ident(name) = &reference.type_name else { return None };
    let first = reference.type_params.as_ref()?.params.first()?;
    STREAMS.contains(&&*name.sym).then(|| first.clone())
}

/// What a promise of this type comes to.
fn settled(ty: Box<TsType>) -> Box<TsType> {
    if let TsType::TsTypeRef(reference) = &*ty
        && let TsEntityName::Ident(name) = &reference.type_name
        && (name.sym == *"Promise" || name.sym == *"PromiseLike")
        && let Some(inner) = reference.type_params.as_ref().and_then(|types| types.params.first())
    {
        return settled(inner.clone());
    }
    ty
}
