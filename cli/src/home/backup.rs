//! `quadriga backup` and `quadriga restore`.

use std::process::ExitCode;

use anyhow::Result;
use indicatif::HumanBytes;
use quadriga::home::Backup;

use super::args::{BackupArgs, RestoreArgs};
use crate::host;
use crate::output::{Output, harmless, table};
use crate::package::progress::Progress;

/// Makes a backup, or lists those that were made.
pub(crate) fn backup(args: BackupArgs, output: Output) -> Result<ExitCode> {
    if args.list {
        return list(&Backup::list(&args.into)?, output);
    }
    host::run(async move {
        let made = Backup::make(&args.home.path()?, &args.into, &Progress::of_home(output)).await?;
        let gone = args.keep.map(|count| Backup::retain(&args.into, count.get())).transpose()?;
        if output.json {
            return output.value(&made).map(|()| ExitCode::SUCCESS);
        }
        let (count, size) = (made.extensions.len(), HumanBytes(made.size()));
        let mut text = format!("{}: {count} extensions, {size}", made.path.display());
        for old in gone.into_iter().flatten() {
            text += &format!("\n{} is removed", old.path.display());
        }
        output.text(&harmless(&text)).map(|()| ExitCode::SUCCESS)
    })
}

fn list(backups: &[Backup], output: Output) -> Result<ExitCode> {
    if output.json {
        return output.value(&backups).map(|()| ExitCode::SUCCESS);
    }
    let row = |it: &Backup| {
        let name = it.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        [harmless(&name), it.extensions.len().to_string(), HumanBytes(it.size()).to_string()].to_vec()
    };
    let numbers = ["extensions", "size"];
    let rows = backups.iter().map(row).collect();
    output.text(&table(&["backup", "extensions", "size"], &numbers, rows)).map(|()| ExitCode::SUCCESS)
}

/// Makes a home of a backup.
pub(crate) fn restore(args: RestoreArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let (backup, home) = (Backup::read(&args.backup)?, args.home.path()?);
        backup.restore(&home, &Progress::of_home(output)).await?;
        if output.json {
            return output.value(&backup).map(|()| ExitCode::SUCCESS);
        }
        let text = format!("{}: {} extensions, as they were", home.display(), backup.extensions.len());
        output.text(&harmless(&text)).map(|()| ExitCode::SUCCESS)
    })
}
