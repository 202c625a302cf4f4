//! `docs/spec-map.toml` names only what exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Finding;
use super::rust_items::Items;
use crate::repo::Repo;

const FILE: &str = "docs/spec-map.toml";

/// How many methods the specification gives each service: none may fall out of the map.
const SERVICES: [(&str, usize); 4] = [
    ("ExtensionManagerService", 17),
    ("PluginLoaderService", 13),
    ("RegistryService", 19),
    ("SandboxManagerService", 17),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecMap {
    #[serde(default)]
    method: Vec<toml::Spanned<Method>>,
    #[serde(default)]
    entity: Vec<toml::Spanned<Entity>>,
}

/// A data model of the specification.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entity {
    name: String,
    status: Status,
    item: Option<String>,
    #[serde(rename = "cli")]
    _cli: Option<String>,
    test: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Method {
    service: String,
    name: String,
    status: Status,
    item: Option<String>,
    #[serde(rename = "cli")]
    _cli: Option<String>,
    test: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Planned,
    Partial,
    Done,
}

pub(super) fn check(repo: &Repo, found: &mut Vec<Finding>) -> Result<()> {
    let text = fs::read_to_string(repo.root.join(FILE)).with_context(|| format!("cannot read {FILE}"))?;
    let items = Items::new(repo);
    let problems = problems(&text, &|item| items.has_item(item), &|test| items.has_test(test))?;
    found.extend(problems.into_iter().map(|(line, what, fix)| Finding {
        file: FILE.into(),
        line,
        what,
        fix,
    }));
    Ok(())
}

type Problem = (usize, String, String);
type Exists<'a> = &'a dyn Fn(&str) -> Result<bool>;

/// What is wrong about the item and the test that a line names, or doesn't.
fn unnamed(
    (line, name, status): (usize, &str, Status),
    item: &Option<String>,
    test: &Option<String>,
    item_exists: Exists,
    test_exists: Exists,
) -> Result<Vec<Problem>> {
    let mut found = Vec::new();
    for (what, named, exists) in [("item", item, item_exists), ("test", test, test_exists)] {
        match named {
            Some(path) if !exists(path)? => {
                let problem = format!("{name}: no {what} `{path}`");
                found.push((line, problem, format!("name a {what} that exists")));
            }
            None if status != Status::Planned => {
                let fix = "name one, or say `status = \"planned\"`".to_owned();
                found.push((line, format!("{name} names no {what}"), fix));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn problems(text: &str, item_exists: Exists, test_exists: Exists) -> Result<Vec<Problem>> {
    let map: SpecMap =
        toml::from_str(text).with_context(|| format!("cannot read {}", Path::new(FILE).display()))?;
    let mut found = Vec::new();
    let mut seen = BTreeMap::<&str, Vec<&str>>::new();
    for method in &map.method {
        let line = text[..method.span().start].lines().count().max(1);
        let Method { service, name, status, item, test, .. } = method.get_ref();
        let of_service = seen.entry(service).or_default();
        if of_service.contains(&name.as_str()) {
            found.push((line, format!("{service}.{name} is there twice"), "keep one".to_owned()));
        }
        of_service.push(name);
        found.extend(unnamed((line, name, *status), item, test, item_exists, test_exists)?);
    }
    for entity in &map.entity {
        let line = text[..entity.span().start].lines().count().max(1);
        let Entity { name, status, item, test, .. } = entity.get_ref();
        found.extend(unnamed((line, name, *status), item, test, item_exists, test_exists)?);
    }
    for (service, expected) in SERVICES {
        let count = seen.remove(service).map_or(0, |methods| methods.len());
        if count != expected {
            found.push((
                1,
                format!("{service} has {count} methods"),
                format!("the specification has {expected}"),
            ));
        }
    }
    for service in seen.keys() {
        found.push((1, format!("the specification has no service {service}"), "rename it".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A complete map whose first method has these lines instead of `status = "planned"`.
    fn check(lines: &str) -> Vec<String> {
        let mut text = String::new();
        for (service, count) in SERVICES {
            for number in 0..count {
                let rest = if text.is_empty() { lines } else { "status = \"planned\"" };
                text += &format!("[[method]]\nservice = \"{service}\"\nname = \"m{number}\"\n{rest}\n");
            }
        }
        let found = problems(&text, &|item| Ok(item == "a::Real"), &|test| Ok(test == "a::real")).unwrap();
        found.into_iter().map(|(line, what, _)| format!("{line}: {what}")).collect()
    }

    #[test]
    fn what_is_named_must_exist() {
        assert_eq!(check("status = \"planned\""), [""; 0]);
        assert_eq!(check("status = \"done\"\nitem = \"a::Real\"\ntest = \"a::real\""), [""; 0]);
        assert_eq!(
            check("status = \"done\"\nitem = \"a::Gone\"\ntest = \"a::real\""),
            ["1: m0: no item `a::Gone`"]
        );
        assert_eq!(check("status = \"partial\"\nitem = \"a::Real\""), ["1: m0 names no test"]);
    }

    #[test]
    fn no_method_falls_out_or_comes_twice() {
        let twice = "status = \"planned\"\n[[method]]\nservice = \"RegistryService\"\nname = \"m0\"\nstatus = \"planned\"";
        let found = check(twice);
        assert!(found.iter().any(|line| line.ends_with("RegistryService.m0 is there twice")), "{found:?}");
        assert!(found.contains(&"1: RegistryService has 20 methods".to_owned()), "{found:?}");
    }
}
