//! A home with a thousand extensions, against one with a single extension: to list it, and to start a host
//! with all of them enabled, each loaded when it is first called.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use quadriga::Policy;
use quadriga::abi::Isolation;
use quadriga::home::{Home, InstallOptions, InstalledState, Offer, start_lazily};
use quadriga::package::{Bounds, GO_ON, PackOptions, Package, pack};
use tempfile::TempDir;

use crate::measure::{Pair, compare};

/// Extensions in the larger home.
const MANY: usize = 1000;

/// To list both homes, and to start both.
pub(crate) fn rows() -> Result<[Pair; 2]> {
    let runtime = tokio::runtime::Runtime::new()?;
    let folder = TempDir::new()?;
    let one = runtime.block_on(home(folder.path(), "one", 1))?;
    let many = runtime.block_on(home(folder.path(), "many", MANY))?;
    let list = |home: &Path, count: usize| {
        let listed = runtime.block_on(Home::look(home));
        assert!(listed.is_ok_and(|list| list.len() == count), "it lists something else");
    };
    let start = |home: &Path, count: usize| {
        let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
        let started = runtime.block_on(async {
            let (host, list) = (quadriga::builder().policy(policy).build()?, Home::look(home).await?);
            assert!(list.iter().all(|it| it.state == InstalledState::Enabled), "one is not enabled");
            anyhow::ensure!(start_lazily(&host, &list).await.is_empty(), "one does not start");
            Ok(host.list().len())
        });
        assert!(started.is_ok_and(|loaded| loaded == count), "not all start");
    };
    Ok([
        Pair {
            name: "home, list 1,000",
            target: "≤ 50 ms",
            met: |_, ours| ours <= 50e6,
            ..compare(|| list(&one, 1), || list(&many, MANY))
        },
        Pair {
            name: "home, start 1,000 lazily",
            target: "≤ 2 s",
            met: |_, ours| ours <= 2e9,
            ..compare(|| start(&one, 1), || start(&many, MANY))
        },
    ])
}

/// A home with so many extensions, all enabled.
async fn home(folder: &Path, name: &str, count: usize) -> Result<PathBuf> {
    let mut offers = Vec::new();
    for number in 0..count {
        let (source, packed) = (TempDir::new()?, folder.join(format!("{name}-{number}.qx")));
        let manifest = format!(
            "[extension]\nid = 'bench.e{number}'\nversion = '1.0.0'\n\
             [runtime]\nkind = 'javascript'\nentry = 'main.js'\n"
        );
        fs::write(source.path().join("quadriga.toml"), manifest)?;
        fs::write(source.path().join("main.js"), "export const echo = (value) => value;\n")?;
        pack(source.path(), |_| packed.clone(), &PackOptions::default(), &mut |_, _| GO_ON)?;
        offers.push(Offer::from(Package::open(&packed, &Bounds::default())?));
    }
    let path = folder.join(name);
    let home = Home::open(&path).await?;
    let options = InstallOptions { enable: true, actor: "bench".to_owned(), ..InstallOptions::default() };
    home.install(offers, options).await?;
    home.close().await;
    Ok(path)
}
