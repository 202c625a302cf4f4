//! The demo: four extensions in four languages make a site out of a folder of Markdown.

mod contents;
mod extensions;
mod page;
mod progress;
mod report;
mod site;
mod sources;

use std::fs;
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use quadriga::abi::Isolation;
use quadriga::abi::manifest::FILE_NAME;
use quadriga::{Dispatcher, Grant, LoadOptions};

use crate::args::DemoArgs;
use crate::failure::Advice;
use crate::host;
use crate::output::{Output, duration};
use progress::Progress;
use report::Report;
use sources::Sources;

/// These extensions are trusted, and the first load of a component compiles it, which may take its
/// time on a busy machine.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes the site.
pub(crate) fn run(args: DemoArgs, output: Output) -> Result<ExitCode> {
    let started = Instant::now();
    let folders = extensions::FOLDERS.map(|name| args.extensions.join(name));
    check_extensions(&folders)?;
    let out = writable(&args.out)?;
    let sources = Sources::read(&args.dir, &out)?;
    let dispatcher = host::start(Isolation::None, LOAD_TIMEOUT)?;
    host::run(async move {
        let progress = Progress::new(output);
        load(&dispatcher, &folders, &progress).await?;
        let made = site::make(&dispatcher, sources, &out, &progress).await;
        progress.finish();
        let report = Report::new(made?, &dispatcher.list(), &out, started.elapsed());
        report.show(output)?;
        dispatcher.shutdown().await;
        Ok(if report.complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

async fn load(dispatcher: &Dispatcher, folders: &[PathBuf], progress: &Progress) -> Result<()> {
    let options = LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    for folder in folders {
        progress.now(&format!("loading {}", folder.display()));
        let id = dispatcher.load(folder, options.clone()).await?;
        let status = dispatcher.status(id.as_str())?;
        let took = duration(status.load_time);
        progress.line(&format!("loaded {id} on {} in {took}", status.runtime));
    }
    Ok(())
}

fn check_extensions(folders: &[PathBuf]) -> Result<()> {
    for folder in folders {
        if !folder.join(FILE_NAME).is_file() {
            let message = format!("there is no extension in {}", folder.display());
            let hint = "build the four with `cargo xtask guests`, or name their folder with --extensions";
            return Err(Advice::new(message, hint).into());
        }
    }
    Ok(())
}

/// Makes the folder, and makes sure that files can be created in it.
fn writable(out: &Path) -> Result<PathBuf> {
    let cannot = |error| {
        let message = format!("{} cannot be written: {error}", out.display());
        Advice::new(message, "name another folder with --out")
    };
    fs::create_dir_all(out).map_err(cannot)?;
    let probe = out.join(format!(".quadriga-{}", std::process::id()));
    fs::write(&probe, "").and_then(|()| fs::remove_file(&probe)).map_err(cannot)?;
    absolute(out).with_context(|| format!("{} has no absolute path", out.display()))
}
