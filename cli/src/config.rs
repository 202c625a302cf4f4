//! `quadriga config`, and the settings that other commands give to extensions.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use quadriga::abi::manifest::Manifest;
use quadriga::home::Home;
use quadriga::{Configuration, Origin, Settings, settings_from_environment, settings_from_file};
use serde_json::Value as Json;

use crate::args::{ConfigArgs, SettingArgs};
use crate::failure::Advice;
use crate::home::operation::Operation;
use crate::inspect;
use crate::output::{Output, harmless, table};
use crate::{home, host};

impl SettingArgs {
    /// All layers for an extension: what its home keeps, files, the environment, what was typed.
    pub(crate) fn layers(
        &self,
        manifest: &Manifest,
        kept: Option<&Settings>,
    ) -> Result<Vec<(Origin, Settings)>> {
        let mut layers: Vec<_> = kept.map(|kept| (Origin::Home, kept.clone())).into_iter().collect();
        for path in &self.config_file {
            layers.push(settings_from_file(path)?);
        }
        layers.extend(settings_from_environment(manifest, |name| std::env::var(name).ok())?);
        layers.push((Origin::RunTime, self.config.iter().cloned().collect()));
        Ok(layers)
    }
}

/// Shows the settings of an extension with where each comes from, or has its home keep others.
pub(crate) fn run(args: ConfigArgs, output: Output) -> Result<ExitCode> {
    let id = home::id_of(&args.ext);
    if !args.set.is_empty() || !args.unset.is_empty() {
        let Some(id) = id else { return Err(only_installed(&args.ext)) };
        let (set, unset) = (args.set.into_iter().collect(), args.unset);
        let configure = Operation::Configure { id: id.clone(), set, unset };
        return home::told(args.home, configure, output, move |kept: Settings| {
            let names: Vec<&str> = kept.keys().map(String::as_str).collect();
            let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
            format!("{id}: set in its home: {names}")
        });
    }
    host::run(async move {
        let (manifest, kept) = match &id {
            Some(id) => {
                let installed = Home::look_at(args.home.path()?, id.as_str()).await?;
                (installed.current.manifest, Some(installed.config))
            }
            None => (inspect::read(&args.ext)?, None),
        };
        shown(&manifest, &args.settings.layers(&manifest, kept.as_ref())?, output)
    })
}

fn only_installed(path: &Path) -> anyhow::Error {
    let hint = "give its id, or try settings on it with --config KEY=JSON";
    Advice::new(format!("{} is not installed, so nothing keeps its settings", path.display()), hint).into()
}

fn shown(manifest: &Manifest, layers: &[(Origin, Settings)], output: Output) -> Result<ExitCode> {
    let all = Configuration::resolve(manifest, layers.iter().cloned())?;
    if output.json {
        return output.value(&all).map(|()| ExitCode::SUCCESS);
    }
    if all.settings.is_empty() {
        output.note("it has no settings");
        return Ok(ExitCode::SUCCESS);
    }
    let row = |name: &String, value: &Json, origin: &Origin| {
        [name.clone(), value.to_string(), origin.to_string()].map(|cell| harmless(&cell)).to_vec()
    };
    let rows = all.settings.iter().map(|(name, it)| row(name, &it.value, &it.origin)).collect();
    output.text(&table(&["setting", "value", "from"], &[], rows)).map(|()| ExitCode::SUCCESS)
}
