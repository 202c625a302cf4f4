use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::failure::Advice;

const IMAGES: [&str; 8] = ["png", "jpg", "jpeg", "gif", "svg", "webp", "avif", "ico"];

/// Folders that hold no documentation, whatever Markdown is in them.
const SKIPPED: [&str; 2] = ["node_modules", "target"];

/// The files that a site is made of.
pub(super) struct Sources {
    /// The name of the folder.
    pub(super) name: String,
    /// The pages, in the order of the navigation.
    pub(super) pages: Vec<Source>,
    /// The images: paths inside the folder, and where they are.
    pub(super) images: Vec<(String, PathBuf)>,
}

/// A page of Markdown.
pub(super) struct Source {
    /// Its path inside the folder, with forward slashes.
    pub(super) path: String,
    /// Its path inside the site.
    pub(super) target: String,
    pub(super) markdown: String,
}

impl Sources {
    /// Reads the Markdown in a folder; `out` is left out if it is inside.
    pub(super) fn read(dir: &Path, out: &Path) -> Result<Self> {
        let real = dir.canonicalize().map_err(|error| {
            let message = format!("{} cannot be read: {error}", dir.display());
            Advice::new(message, "name a folder that holds Markdown files")
        })?;
        if !real.is_dir() {
            let message = format!("{} is not a folder", dir.display());
            return Err(Advice::new(message, "name the folder that holds the Markdown file").into());
        }
        let name = real.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let mut files = BTreeMap::new();
        walk(&real, "", &out.canonicalize()?, &mut files)?;
        let (pages, images) = files.into_iter().partition::<BTreeMap<_, _>, _>(|(path, _)| is_markdown(path));
        if pages.is_empty() {
            let message = format!("there is no Markdown in {}", dir.display());
            return Err(Advice::new(message, "name a folder with .md files").into());
        }
        let mut sources = Vec::new();
        for (path, target) in targets(pages.keys())? {
            let markdown = fs::read_to_string(&pages[&path]).map_err(|error| {
                let message = format!("{} cannot be read: {error}", pages[&path].display());
                Advice::new(message, "Markdown files must be readable and in UTF-8; fix it or move it away")
            })?;
            sources.push(Source { path, target, markdown });
        }
        sources.sort_by(|a, b| order(&a.target).cmp(&order(&b.target)));
        let images = images.into_iter().filter(|(path, _)| has_extension(path, &IMAGES)).collect();
        Ok(Self { name, pages: sources, images })
    }
}

fn walk(dir: &Path, prefix: &str, out: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let unreadable = |error| {
        let message = format!("{} cannot be read: {error}", dir.display());
        Advice::new(message, "make it readable, or move it away")
    };
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            let message = format!("{} has a name that is not UTF-8", path.display());
            return Err(Advice::new(message, "rename it").into());
        };
        if name.starts_with('.') || SKIPPED.contains(&name.as_str()) || path == out {
            continue;
        }
        // Links are not followed: they may lead out of the folder, or round in circles.
        let kind = entry.file_type().map_err(unreadable)?;
        let inner = format!("{prefix}{name}");
        if kind.is_dir() {
            walk(&path, &format!("{inner}/"), out, files)?;
        } else if kind.is_file() {
            files.insert(inner, path);
        }
    }
    Ok(())
}

/// Where each page goes: `.md` becomes `.html`, and a README stands for a missing index.
fn targets<'a>(paths: impl Iterator<Item = &'a String>) -> Result<Vec<(String, String)>> {
    let mut taken = BTreeMap::new();
    let mut readmes = Vec::new();
    for path in paths {
        let target = format!("{}.html", stem(path));
        let (folder, name) = split(&target);
        if name.eq_ignore_ascii_case("readme.html") {
            readmes.push((path, target.clone(), format!("{folder}index.html")));
        } else {
            take(&mut taken, target, path)?;
        }
    }
    for (path, target, index) in readmes {
        let target = if taken.contains_key(&index) { target } else { index };
        take(&mut taken, target, path)?;
    }
    Ok(taken.into_iter().map(|(target, path)| (path, target)).collect())
}

fn take(taken: &mut BTreeMap<String, String>, target: String, path: &str) -> Result<()> {
    match taken.get(&target) {
        Some(other) => {
            let message = format!("{other} and {path} would both become {target}");
            Err(Advice::new(message, "rename one of them").into())
        }
        None => {
            taken.insert(target, path.to_owned());
            Ok(())
        }
    }
}

/// Pages before folders, and in each the index first.
fn order(target: &str) -> (Vec<(bool, &str)>, bool, &str) {
    let (folder, name) = split(target);
    let folders = folder.split_terminator('/').map(|part| (true, part)).collect();
    (folders, name != "index.html", name)
}

fn split(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |slash| slash + 1))
}

fn stem(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(stem, _)| stem)
}

fn is_markdown(path: &str) -> bool {
    has_extension(path, &["md", "markdown"])
}

fn has_extension(path: &str, extensions: &[&str]) -> bool {
    path.rsplit_once('.').is_some_and(|(_, ours)| extensions.iter().any(|one| one.eq_ignore_ascii_case(ours)))
}

#[cfg(test)]
mod tests {
    use super::{order, targets};

    fn check(paths: &[&str], expected: &[(&str, &str)]) {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let mut found = targets(paths.iter()).unwrap();
        found.sort_by(|a, b| order(&a.1).cmp(&order(&b.1)));
        let found: Vec<_> = found.iter().map(|(path, target)| (path.as_str(), target.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_readme_stands_for_a_missing_index() {
        check(
            &["README.md", "b.md", "g/readme.md", "g/a.MD"],
            &[
                ("README.md", "index.html"),
                ("b.md", "b.html"),
                ("g/readme.md", "g/index.html"),
                ("g/a.MD", "g/a.html"),
            ],
        );
        check(&["README.md", "index.md"], &[("index.md", "index.html"), ("README.md", "README.html")]);
    }

    #[test]
    fn two_sources_of_one_page_are_refused() {
        let paths = ["a.md".to_owned(), "a.markdown".to_owned()];
        let error = targets(paths.iter()).unwrap_err().to_string();
        assert_eq!(error, "a.md and a.markdown would both become a.html");
    }
}
