//! Where V8 comes from: the cache that the `v8` crate reads, `RUSTY_V8_ARCHIVE`, a folder shared
//! beside the repository, the crate's own download. Where none answers, QuickJS takes its place.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::JsEngine;
use crate::cmd::{self, say};
use crate::files;
use crate::repo::Repo;

/// One look along the chain, with everything that it depends on.
struct Chain<'a> {
    url: String,
    /// The folder inside cargo's home that the `v8` crate's build script looks in.
    cache: PathBuf,
    /// The note that the build script leaves beside a library it has unpacked already.
    unpacked: PathBuf,
    archive: Option<String>,
    shared: PathBuf,
    answers: &'a dyn Fn(&str) -> bool,
}

#[derive(Debug, PartialEq)]
enum Found {
    Cached,
    Archive,
    Shared(PathBuf),
    Download,
    /// Nowhere, and what was tried.
    Nowhere(String),
}

/// V8 where it can be had, else QuickJS, said in one line; or the engine that was asked for.
pub(crate) fn choose(repo: &Repo, wanted: Option<JsEngine>) -> Result<JsEngine> {
    if wanted == Some(JsEngine::QuickJs) {
        return Ok(JsEngine::QuickJs);
    }
    let chain = chain(repo)?;
    match chain.look()? {
        Found::Cached | Found::Archive | Found::Download => {}
        Found::Shared(archive) => {
            say(&format!("setup: taking V8 from {}", archive.display()));
            files::place(&archive, &chain.cached())?;
        }
        Found::Nowhere(why) if wanted.is_none() => {
            say(&format!("setup: no V8 archive ({why}): JavaScript runs on QuickJS"));
            return Ok(JsEngine::QuickJs);
        }
        Found::Nowhere(why) => {
            bail!("no V8 archive ({why}); name one in RUSTY_V8_ARCHIVE, or build with QuickJS")
        }
    }
    Ok(JsEngine::V8)
}

fn chain(repo: &Repo) -> Result<Chain<'static>> {
    let url = url(&version(&repo.root.join("Cargo.lock"))?, &host()?);
    Ok(Chain {
        url,
        cache: cargo_home()?.join(".rusty_v8"),
        unpacked: repo.profile_dir(None, "dev").join("gn_out/obj/librusty_v8.sum"),
        archive: env::var("RUSTY_V8_ARCHIVE").ok().filter(|archive| !archive.is_empty()),
        shared: env::var_os("QUADRIGA_V8_SHARED")
            .map_or_else(|| repo.root.join("../shared/v8"), PathBuf::from),
        answers: &answers,
    })
}

impl Chain<'_> {
    fn look(&self) -> Result<Found> {
        // The build script takes this one before its cache, so a wrong name must not pass unseen.
        if let Some(archive) = &self.archive {
            if !is_url(archive) && !Path::new(archive).is_file() {
                bail!("RUSTY_V8_ARCHIVE names {archive}, which is not a file");
            }
            return Ok(Found::Archive);
        }
        if self.cached().is_file() || fs::read_to_string(&self.unpacked).is_ok_and(|url| url == self.url) {
            return Ok(Found::Cached);
        }
        let shared = match self.shared()? {
            Ok(archive) => return Ok(Found::Shared(archive)),
            Err(why) => why,
        };
        if (self.answers)(&self.url) {
            return Ok(Found::Download);
        }
        Ok(Found::Nowhere(format!("not cached, {shared}, download page out of reach")))
    }

    /// The file that the build script takes instead of downloading.
    fn cached(&self) -> PathBuf {
        let name = self.url.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
        self.cache.join(name.collect::<String>())
    }

    /// The archive in the shared folder, or why there is none to be trusted.
    fn shared(&self) -> Result<Result<PathBuf, String>> {
        let name = self.url.rsplit('/').next().unwrap_or_default();
        let archive = self.shared.join(name);
        if !archive.is_file() {
            return Ok(Err("none shared".to_owned()));
        }
        let sums = fs::read_to_string(self.shared.join("SHA256SUMS")).unwrap_or_default();
        let listed = sums.lines().filter_map(|line| line.split_once(char::is_whitespace));
        let expected = listed.into_iter().find(|(_, file)| file.trim_start_matches([' ', '*']) == name);
        Ok(match expected {
            None => Err(format!("{} is not in SHA256SUMS", archive.display())),
            Some((sum, _)) if sum == files::sha256(&archive)? => Ok(archive),
            Some(_) => Err(format!("{} has another digest than SHA256SUMS says", archive.display())),
        })
    }
}

/// The address that the build script of this version of the crate downloads from.
fn url(version: &str, target: &str) -> String {
    let base = env::var("RUSTY_V8_MIRROR")
        .unwrap_or_else(|_| "https://github.com/denoland/rusty_v8/releases/download".to_owned());
    format!("{base}/v{version}/librusty_v8_simdutf_release_{target}.a.gz")
}

fn version(lock: &Path) -> Result<String> {
    let text = fs::read_to_string(lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let lock: toml::Table = toml::from_str(&text).context("Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
    packages
        .iter()
        .find(|package| package.get("name").and_then(toml::Value::as_str) == Some("v8"))
        .and_then(|package| package.get("version")?.as_str())
        .map(str::to_owned)
        .context("Cargo.lock holds no package `v8`")
}

fn host() -> Result<String> {
    let about = cmd::output(Command::new("rustc").arg("-vV"))?;
    about
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc names no host")
}

fn cargo_home() -> Result<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

fn answers(url: &str) -> bool {
    let quick =
        ["--fail", "--silent", "--head", "--location", "--connect-timeout", "5", "--max-time", "10", url];
    cmd::succeeds(Command::new("curl").args(quick))
}

fn is_url(text: &str) -> bool {
    text.starts_with("http:") || text.starts_with("https:")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "librusty_v8_simdutf_release_x86_64-unknown-linux-gnu.a.gz";

    /// Lays out a machine, looks along the chain, and returns what was found.
    fn check(lay: impl Fn(&mut Chain, &Path), online: bool) -> Result<Found> {
        let temp = tempfile::tempdir().unwrap();
        let answer = move |_: &str| online;
        let mut chain = Chain {
            url: format!("https://example.org/v1.0.0/{NAME}"),
            cache: temp.path().join("cache"),
            unpacked: temp.path().join("unpacked.sum"),
            archive: None,
            shared: temp.path().join("shared"),
            answers: &answer,
        };
        for dir in [&chain.cache, &chain.shared] {
            fs::create_dir_all(dir).unwrap();
        }
        lay(&mut chain, temp.path());
        chain.look()
    }

    fn share(chain: &Chain, sums: &str) {
        fs::write(chain.shared.join(NAME), "archive").unwrap();
        fs::write(chain.shared.join("SHA256SUMS"), sums).unwrap();
    }

    fn right_sum(chain: &Chain) -> String {
        fs::write(chain.shared.join("sum"), "archive").unwrap();
        format!("{}  {NAME}\n", files::sha256(&chain.shared.join("sum")).unwrap())
    }

    #[test]
    fn the_cache_comes_before_the_shared_folder_and_the_download() {
        let lay = |chain: &mut Chain, _: &Path| {
            fs::write(chain.cached(), "archive").unwrap();
            share(chain, &right_sum(chain));
        };
        assert_eq!(check(lay, true).unwrap(), Found::Cached);
    }

    #[test]
    fn a_library_unpacked_by_an_earlier_build_serves_offline() {
        let lay = |chain: &mut Chain, _: &Path| fs::write(&chain.unpacked, &chain.url).unwrap();
        assert_eq!(check(lay, false).unwrap(), Found::Cached);
        let stale = |chain: &mut Chain, _: &Path| fs::write(&chain.unpacked, "another version").unwrap();
        assert!(matches!(check(stale, false).unwrap(), Found::Nowhere(_)));
    }

    #[test]
    fn the_named_archive_is_used_and_a_wrong_name_is_an_error() {
        let lay = |chain: &mut Chain, temp: &Path| {
            let file = temp.join("v8.a.gz");
            fs::write(&file, "archive").unwrap();
            chain.archive = Some(file.display().to_string());
        };
        assert_eq!(check(lay, false).unwrap(), Found::Archive);
        let wrong = |chain: &mut Chain, _: &Path| chain.archive = Some("no/such/file".to_owned());
        let error = check(wrong, true).unwrap_err().to_string();
        assert_eq!(error, "RUSTY_V8_ARCHIVE names no/such/file, which is not a file");
    }

    #[test]
    fn the_shared_archive_is_used_when_its_digest_is_right() {
        let found = check(|chain, _| share(chain, &right_sum(chain)), true).unwrap();
        assert!(matches!(found, Found::Shared(path) if path.ends_with(NAME)));
    }

    #[test]
    fn a_shared_archive_with_a_wrong_or_no_digest_is_passed_over() {
        for (sums, why) in [
            (format!("{}  {NAME}\n", "0".repeat(64)), "another digest"),
            (String::new(), "not in SHA256SUMS"),
            ("0  some-other-file\n".to_owned(), "not in SHA256SUMS"),
        ] {
            let lay = |chain: &mut Chain, _: &Path| share(chain, &sums);
            assert_eq!(check(lay, true).unwrap(), Found::Download);
            let Found::Nowhere(text) = check(lay, false).unwrap() else { panic!("the archive was taken") };
            assert!(text.contains(why), "{text}");
        }
    }

    #[test]
    fn with_nothing_to_be_had_the_reasons_are_one_line() {
        let found = check(|_, _| {}, false).unwrap();
        let line = "not cached, none shared, download page out of reach";
        assert_eq!(found, Found::Nowhere(line.to_owned()));
    }

    #[test]
    fn the_cache_file_is_named_as_the_crate_names_it() {
        let chain = Chain {
            url: "https://example.org/v150.4.0/lib-a.gz".to_owned(),
            cache: PathBuf::from("cache"),
            unpacked: PathBuf::new(),
            archive: None,
            shared: PathBuf::new(),
            answers: &|_| false,
        };
        assert_eq!(chain.cached(), Path::new("cache/https___example_org_v150_4_0_lib_a_gz"));
    }
}
