//! What a crate's source declares, so that a path written in a document can be looked up.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use syn::{Attribute, ImplItem, Item, TraitItem, Type, Visibility};

use crate::files::entries;
use crate::repo::{Package, Repo};

/// The declarations of our crates, each crate read when it is first asked for.
pub(super) struct Items<'a> {
    repo: &'a Repo,
    crates: RefCell<BTreeMap<String, Declared>>,
}

#[derive(Clone, Default)]
struct Declared {
    /// `name` of each public item, and `Type::name` of each method.
    items: BTreeSet<String>,
    /// The path of each test inside its package.
    tests: Vec<Vec<String>>,
}

impl<'a> Items<'a> {
    pub(super) fn new(repo: &'a Repo) -> Self {
        Self { repo, crates: RefCell::default() }
    }

    /// Whether `crate_name::…::Item` or `crate_name::…::Type::method` is declared.
    pub(super) fn has_item(&self, path: &str) -> Result<bool> {
        let segments: Vec<_> = path.split("::").collect();
        let [package, .., last] = segments[..] else {
            return Ok(false);
        };
        let of_type =
            segments[1..segments.len() - 1].last().filter(|name| name.starts_with(char::is_uppercase));
        let wanted = of_type.map_or_else(|| last.to_owned(), |of_type| format!("{of_type}::{last}"));
        self.look(package, |declared| declared.items.contains(&wanted))
    }

    /// Whether `crate_name::module::test_name` is a test, in the library or in an integration test.
    pub(super) fn has_test(&self, path: &str) -> Result<bool> {
        let Some((package, wanted)) = path.split_once("::") else {
            return Ok(false);
        };
        let wanted: Vec<_> = wanted.split("::").map(str::to_owned).collect();
        self.look(package, |declared| declared.tests.iter().any(|test| test.ends_with(&wanted)))
    }

    fn look(&self, name: &str, look: impl Fn(&Declared) -> bool) -> Result<bool> {
        let Some(package) = self.repo.packages.iter().find(|package| package.crate_name() == name) else {
            return Ok(false);
        };
        let mut crates = self.crates.borrow_mut();
        if !crates.contains_key(name) {
            crates.insert(name.to_owned(), Declared::of(package)?);
        }
        Ok(crates.get(name).is_some_and(look))
    }
}

impl Declared {
    fn of(package: &Package) -> Result<Self> {
        let mut declared = Self::default();
        for part in ["src", "tests"] {
            let dir = package.dir().join(part);
            if dir.is_dir() {
                declared.read_dir(&dir, &[])?;
            }
        }
        // The package of integration tests keeps its sources beside its manifest.
        for (_, file) in entries(package.dir())?.into_iter().filter(|(name, _)| name.ends_with(".rs")) {
            declared.read_file(&file, &[])?;
        }
        Ok(declared)
    }

    fn read_dir(&mut self, dir: &Path, module: &[String]) -> Result<()> {
        for (name, path) in entries(dir)? {
            if path.is_dir() {
                self.read_dir(&path, &joined(module, &name))?;
            } else if let Some(stem) = name.strip_suffix(".rs") {
                let module = if ["lib", "main", "mod"].contains(&stem) {
                    module.to_vec()
                } else {
                    joined(module, stem)
                };
                self.read_file(&path, &module)?;
            }
        }
        Ok(())
    }

    fn read_file(&mut self, path: &Path, module: &[String]) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
        self.read_items(&file.items, module);
        Ok(())
    }

    fn read_items(&mut self, items: &[Item], module: &[String]) {
        for item in items {
            match item {
                Item::Fn(item) => {
                    if is_test(&item.attrs) {
                        self.tests.push(joined(module, &item.sig.ident.to_string()));
                    }
                    self.public(&item.vis, &item.sig.ident);
                }
                Item::Struct(item) => self.public(&item.vis, &item.ident),
                Item::Enum(item) => self.public(&item.vis, &item.ident),
                Item::Type(item) => self.public(&item.vis, &item.ident),
                Item::Trait(item) => {
                    self.public(&item.vis, &item.ident);
                    for method in item.items.iter().filter_map(|inner| match inner {
                        TraitItem::Fn(method) => Some(&method.sig.ident),
                        _ => None,
                    }) {
                        self.items.insert(format!("{}::{method}", item.ident));
                    }
                }
                Item::Impl(block) => {
                    let Type::Path(of) = &*block.self_ty else {
                        continue;
                    };
                    let Some(name) = of.path.segments.last().map(|segment| segment.ident.to_string()) else {
                        continue;
                    };
                    for method in block.items.iter().filter_map(|inner| match inner {
                        ImplItem::Fn(method) if block.trait_.is_some() || is_public(&method.vis) => {
                            Some(&method.sig.ident)
                        }
                        _ => None,
                    }) {
                        self.items.insert(format!("{name}::{method}"));
                    }
                }
                Item::Mod(inner) => {
                    if let Some((_, items)) = &inner.content {
                        self.read_items(items, &joined(module, &inner.ident.to_string()));
                    }
                }
                _ => {}
            }
        }
    }

    fn public(&mut self, visibility: &Visibility, name: &syn::Ident) {
        if is_public(visibility) {
            self.items.insert(name.to_string());
        }
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// `#[test]`, `#[tokio::test]` and their like.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|attribute| attribute.path().segments.last().is_some_and(|last| last.ident == "test"))
}

fn joined(module: &[String], name: &str) -> Vec<String> {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_methods_and_tests_are_looked_up_in_the_source() {
        let temp = tempfile::tempdir().unwrap();
        let src = temp.path().join("src");
        fs::create_dir(&src).unwrap();
        fs::write(temp.path().join("Cargo.toml"), "").unwrap();
        fs::write(
            src.join("route.rs"),
            "pub struct Table; struct Hidden; impl Table { pub fn find(&self) {} fn own(&self) {} }
             pub trait Open { fn open(&self); }
             mod tests { #[test] fn finds() {} #[tokio::test] async fn waits() {} fn helper() {} }",
        )
        .unwrap();
        let package = Package {
            name: "my-crate".to_owned(),
            manifest_path: temp.path().join("Cargo.toml"),
            dependencies: Vec::new(),
            targets: Vec::new(),
        };
        let repo = Repo { root: temp.path().into(), target: temp.path().into(), packages: vec![package] };
        let items = Items::new(&repo);

        for (path, expect) in [
            ("my_crate::Table", true),
            ("my_crate::route::Table::find", true),
            ("my_crate::Open::open", true),
            ("my_crate::Table::own", false),
            ("my_crate::Hidden", false),
            ("my_crate::Other::find", false),
            ("other_crate::Table", false),
        ] {
            assert_eq!(items.has_item(path).unwrap(), expect, "{path}");
        }
        for (path, expect) in [
            ("my_crate::route::tests::finds", true),
            ("my_crate::waits", true),
            ("my_crate::other::finds", false),
            ("my_crate::helper", false),
        ] {
            assert_eq!(items.has_test(path).unwrap(), expect, "{path}");
        }
    }
}
