//! Finds the extension packages by folder, so that a new one needs no registration and none can be
//! forgotten in one of the languages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::foreign::{self, Toolchain};
use crate::files::entries;
use crate::repo::{EXAMPLE_HOST, Package, Repo};

/// Where the extensions of the demo and of the example host are built into.
pub(super) const SITE: &str = "examples/site";
pub(super) const AGENTS: &str = "examples/agents";

const LANGUAGES: [&str; 4] = ["js", "python", "wasm", "native"];

/// One extension package to build.
pub(crate) struct Guest {
    /// Its sources.
    pub(crate) dir: PathBuf,
    /// Where it goes, inside the target folder.
    pub(crate) dest: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) source: Source,
}

/// What the package is made from.
pub(crate) enum Source {
    /// A folder that only lacks its dependencies.
    Folder,
    /// A member of the workspace.
    Rust { package: String },
    /// A component that another toolchain makes.
    Foreign(Toolchain),
}

/// What the build must know of a `quadriga.toml`.
pub(crate) struct Manifest {
    pub(crate) path: PathBuf,
    pub(crate) entry: String,
    pub(crate) kind: Kind,
}

/// The runtimes that an extension can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    JavaScript,
    Python,
    Wasm,
    Native,
}

pub(crate) fn all(repo: &Repo) -> Result<Vec<Guest>> {
    let mut found = Vec::new();
    for (case, dir) in folders(&repo.root.join("tests/guests"))? {
        four_languages(repo, &dir, &Path::new("guests").join(case), &mut found)?;
    }
    foreign::guests(repo, &mut found)?;
    let hello = repo.root.join("examples/hello");
    if hello.is_dir() {
        four_languages(repo, &hello, Path::new("examples/hello"), &mut found)?;
    }
    let agents = Path::new(EXAMPLE_HOST).join("extensions");
    for (from, to) in [(Path::new(SITE), SITE), (&agents, AGENTS)] {
        for (name, dir) in folders(&repo.root.join(from))? {
            let manifest = Manifest::read(repo, &dir.join("quadriga.toml"))?;
            let source = match manifest.kind {
                Kind::JavaScript | Kind::Python => Source::Folder,
                Kind::Wasm | Kind::Native => Source::Rust { package: package(repo, &dir)?.name.clone() },
            };
            found.push(Guest { dir, dest: Path::new(to).join(name), manifest, source });
        }
    }
    Ok(found)
}

/// Some of `tests/guests`, into a folder of their own.
pub(super) fn cases(repo: &Repo, names: &[&str], dest: &Path) -> Result<Vec<Guest>> {
    let mut found = Vec::new();
    for name in names {
        four_languages(repo, &repo.root.join("tests/guests").join(name), &dest.join(name), &mut found)?;
    }
    Ok(found)
}

/// The same extension in each language: `js/`, `python/`, and one crate in `rust/` for two of them.
fn four_languages(repo: &Repo, case: &Path, dest: &Path, found: &mut Vec<Guest>) -> Result<()> {
    let wanted = languages(repo, case)?;
    for language in LANGUAGES {
        let folder = if matches!(language, "wasm" | "native") { "rust" } else { language };
        let name =
            if folder == "rust" { format!("quadriga.{language}.toml") } else { "quadriga.toml".to_owned() };
        let dir = case.join(folder);
        let path = dir.join(name);
        match (wanted.iter().any(|wanted| wanted == language), path.is_file()) {
            (false, false) => continue,
            (true, true) => {}
            (true, false) => bail!(
                "{} is missing: write it, or list the languages that this guest has in {}, each with the reason",
                repo.relative(&path).display(),
                repo.relative(&case.join("only.txt")).display()
            ),
            (false, true) => bail!(
                "{} is there, but {} leaves {language} out",
                repo.relative(&path).display(),
                repo.relative(&case.join("only.txt")).display()
            ),
        }
        let manifest = Manifest::read(repo, &path)?;
        let kind = Kind::of_folder(language);
        if manifest.kind != kind {
            bail!(
                "{}: [runtime] kind must be `{}` in this folder",
                repo.relative(&path).display(),
                kind.text()
            );
        }
        let source = match kind {
            Kind::JavaScript | Kind::Python => Source::Folder,
            Kind::Wasm | Kind::Native => Source::Rust { package: package(repo, &dir)?.name.clone() },
        };
        found.push(Guest { dir, dest: dest.join(language), manifest, source });
    }
    Ok(())
}

/// All four languages, or those that `only.txt` lists as `language: reason`.
fn languages(repo: &Repo, case: &Path) -> Result<Vec<String>> {
    let only = case.join("only.txt");
    if !only.is_file() {
        return Ok(LANGUAGES.map(str::to_owned).to_vec());
    }
    let text = fs::read_to_string(&only)?;
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .enumerate()
        .map(|(number, line)| match line.split_once(':') {
            Some((language, why)) if LANGUAGES.contains(&language.trim()) && !why.trim().is_empty() => {
                Ok(language.trim().to_owned())
            }
            _ => bail!(
                "{}:{}: expected `language: reason` with one of {}",
                repo.relative(&only).display(),
                number + 1,
                LANGUAGES.join(", ")
            ),
        })
        .collect()
}

fn package<'a>(repo: &'a Repo, dir: &Path) -> Result<&'a Package> {
    repo.packages
        .iter()
        .find(|package| package.dir() == dir)
        .with_context(|| format!("{} is not a member of the workspace", repo.relative(dir).display()))
}

fn folders(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = entries(dir)?;
    found.retain(|(_, path)| path.is_dir());
    Ok(found)
}

impl Manifest {
    pub(super) fn read(repo: &Repo, path: &Path) -> Result<Self> {
        let shown = repo.relative(path).display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let table: toml::Table = toml::from_str(&text).with_context(|| format!("{shown}"))?;
        let text = |key: &str| {
            table
                .get("runtime")
                .and_then(|runtime| runtime.get(key)?.as_str())
                .with_context(|| format!("{shown}: [runtime] {key} is missing"))
        };
        let kind = text("kind")?;
        let kind = [Kind::JavaScript, Kind::Python, Kind::Wasm, Kind::Native]
            .into_iter()
            .find(|known| known.text() == kind)
            .with_context(|| format!("{shown}: [runtime] kind `{kind}` is not known"))?;
        Ok(Self { path: path.to_path_buf(), entry: text("entry")?.to_owned(), kind })
    }
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::JavaScript => "javascript",
            Self::Python => "python",
            Self::Wasm => "webassembly",
            Self::Native => "native",
        }
    }

    fn of_folder(language: &str) -> Self {
        match language {
            "js" => Self::JavaScript,
            "python" => Self::Python,
            "wasm" => Self::Wasm,
            _ => Self::Native,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The build itself would stop here, before any test could find its guest missing.
    #[test]
    fn a_guest_that_a_language_lacks_fails_the_build() {
        let temp = tempfile::tempdir().unwrap();
        let case = temp.path().join("tests/guests/flow");
        let manifests = [
            ("js/quadriga.toml", "javascript"),
            ("python/quadriga.toml", "python"),
            ("rust/quadriga.wasm.toml", "webassembly"),
            ("rust/quadriga.native.toml", "native"),
        ];
        for (file, kind) in manifests {
            let file = case.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, format!("[runtime]\nkind = '{kind}'\nentry = 'main'\n")).unwrap();
        }
        let guest = Package {
            name: "guest-flow".to_owned(),
            manifest_path: case.join("rust/Cargo.toml"),
            dependencies: Vec::new(),
            targets: Vec::new(),
        };
        let repo = Repo { root: temp.path().into(), target: "/target".into(), packages: vec![guest] };
        let found = || {
            cases(&repo, &["flow"], Path::new("guests"))
                .map(|found| found.len())
                .map_err(|error| error.to_string())
        };
        assert_eq!(found(), Ok(4));
        for (file, _) in manifests {
            let (file, aside) = (case.join(file), case.join("aside"));
            fs::rename(&file, &aside).unwrap();
            let error = found().unwrap_err();
            let missing = format!("{} is missing", repo.relative(&file).display());
            assert!(error.contains(&missing) && error.contains("only.txt"), "{error}");
            fs::rename(&aside, &file).unwrap();
        }

        fs::write(case.join("only.txt"), "js: it says why\npython: and here\n").unwrap();
        assert!(found().unwrap_err().contains("leaves wasm out"));
        fs::write(case.join("only.txt"), "js: it says why\npython:\n").unwrap();
        assert!(found().unwrap_err().contains("only.txt:2: expected `language: reason`"));
    }

    #[test]
    fn every_language_has_every_guest_of_the_conformance_suite() {
        let repo = Repo::find().unwrap();
        let suite = ["conformance", "counter", "flow", "relay"];
        let found = cases(&repo, &suite, Path::new("guests")).unwrap();
        assert_eq!(found.len(), suite.len() * LANGUAGES.len());
    }
}
