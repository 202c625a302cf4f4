//! `quadriga trust`, `pin` and `unpin`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use quadriga::abi::ExtensionId;
use quadriga::home::{Home, Installed, InstalledState, Terms, TrustLevel, TrustPolicy, TrustedKey};
use serde::Deserialize;

use super::args::OneArgs;
use super::operation::Operation;
use super::told;
use super::trust_args::{AddArgs, ListKeysArgs, PinArgs, PolicyArgs, RemoveArgs, TrustArgs, TrustCommand};
use crate::host;
use crate::output::{Output, harmless, table};
use crate::package::public;

/// Adds, lists and removes keys, and shows and changes what they mean.
pub(crate) fn trust(args: TrustArgs, output: Output) -> Result<ExitCode> {
    match args.what {
        TrustCommand::Add(args) => add(args, output),
        TrustCommand::List(args) => list(args, output),
        TrustCommand::Remove(args) => remove(args, output),
        TrustCommand::Policy(args) => policy(args, output),
    }
}

fn add(args: AddArgs, output: Output) -> Result<ExitCode> {
    let AddArgs { key, publisher, level, home } = args;
    let add = Operation::TrustAdd { key: public(&key)?.to_string(), publisher, level };
    told(home, add, output, |TrustedKey { id, publisher, level, .. }: TrustedKey| {
        format!("{id} signs the extensions of {publisher}, and is trusted: {level}")
    })
}

fn list(args: ListKeysArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let answer = args.home.carry_out(Operation::TrustList {}, output).await?;
        if output.json {
            return output.value(&answer).map(|()| ExitCode::SUCCESS);
        }
        let keys: Vec<TrustedKey> = serde_json::from_value(answer)?;
        if keys.is_empty() {
            output.note("no key is trusted");
            return Ok(ExitCode::SUCCESS);
        }
        let row = |it: &TrustedKey| {
            [it.publisher.as_str(), it.level.as_str(), &it.id, &it.key].map(harmless).to_vec()
        };
        let header = ["publisher", "level", "name", "key"];
        output.text(&table(&header, &[], keys.iter().map(row).collect())).map(|()| ExitCode::SUCCESS)
    })
}

/// What came of it for what a key signed.
#[derive(Deserialize)]
struct Removed {
    removed: TrustedKey,
    signed: Vec<ExtensionId>,
}

fn remove(args: RemoveArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let key = match Path::new(&args.key).exists() {
            true => public(&args.key)?.to_string(),
            false => args.key,
        };
        let answer = args.home.carry_out(Operation::TrustRemove { key }, output).await?;
        if output.json {
            return output.value(&answer).map(|()| ExitCode::SUCCESS);
        }
        let Removed { removed, signed } = serde_json::from_value(answer)?;
        let mut lines = vec![format!("{} is trusted no more", removed.id)];
        let all = Home::look(args.home.path()?).await?;
        lines.extend(all.iter().filter(|it| signed.contains(&it.id)).map(affected));
        output.text(&harmless(&lines.join("\n"))).map(|()| ExitCode::SUCCESS)
    })
}

/// What comes of it for one that the key signed.
fn affected(it: &Installed) -> String {
    match (it.state, it.permitted()) {
        (InstalledState::Enabled, Err(error)) => format!("{} will not start: {error}", it.id),
        _ => format!("{} is {} now", it.id, it.current.trust),
    }
}

fn policy(args: PolicyArgs, output: Output) -> Result<ExitCode> {
    let PolicyArgs { level, isolation, permissions, signature, minimum_release_age, home } = args;
    let policy = Operation::TrustPolicy { level, isolation, permissions, signature, minimum_release_age };
    told(home, policy, output, |policy: TrustPolicy| {
        let row = |level: TrustLevel| {
            let Terms { isolation, permissions, signature, minimum_release_age } = policy.terms(level);
            let permissions = match permissions {
                None => "all".to_owned(),
                Some(names) if names.is_empty() => "none".to_owned(),
                Some(names) => names.into_iter().collect::<Vec<_>>().join(","),
            };
            let age = minimum_release_age.map_or("none".to_owned(), |age| age.to_string());
            vec![level.to_string(), isolation.to_string(), signature.to_string(), age, permissions]
        };
        let header = ["level", "isolation", "signature", "age", "permissions"];
        table(&header, &[], TrustLevel::ALL.into_iter().map(row).collect())
    })
}

/// Keeps an extension at a version.
pub(crate) fn pin(args: PinArgs, output: Output) -> Result<ExitCode> {
    let PinArgs { id, at: version, home } = args;
    told(home, Operation::Pin { id, version }, output, |installed: Installed| {
        let version = installed.pinned.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("{} is pinned to {version}", installed.id)
    })
}

/// Has it updated again.
pub(crate) fn unpin(args: OneArgs, output: Output) -> Result<ExitCode> {
    let OneArgs { id, home } = args;
    told(home, Operation::Unpin { id }, output, |it: Installed| format!("{} is not pinned", it.id))
}
