//! `quadriga trust`, `pin` and `unpin`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use quadriga::abi::ExtensionId;
use quadriga::home::{Home, InstalledState, Terms, TrustLevel, TrustedKey};
use serde_json::json;

use super::args::OneArgs;
use super::trust_args::{
    AddArgs, Age, ListKeysArgs, PinArgs, PolicyArgs, RemoveArgs, TrustArgs, TrustCommand,
};
use super::{actor, said};
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
    host::run(async move {
        let key = public(&args.key)?;
        let home = args.home.open().await?;
        let trusted = home.trust(&key, &args.publisher, args.level, &actor()).await?;
        if output.json {
            return output.value(&trusted).map(|()| ExitCode::SUCCESS);
        }
        let TrustedKey { id, publisher, level, .. } = &trusted;
        let text = format!("{id} signs the extensions of {publisher}, and is trusted: {level}");
        output.text(&harmless(&text)).map(|()| ExitCode::SUCCESS)
    })
}

fn list(args: ListKeysArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let keys = args.home.open().await?.trusted().await?;
        if output.json {
            return output.value(&keys).map(|()| ExitCode::SUCCESS);
        }
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

fn remove(args: RemoveArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let key = match Path::new(&args.key).exists() {
            true => public(&args.key)?.to_string(),
            false => args.key,
        };
        let home = args.home.open().await?;
        let (gone, signed) = home.distrust(&key, &actor()).await?;
        if output.json {
            return output.value(&json!({ "removed": gone, "signed": signed })).map(|()| ExitCode::SUCCESS);
        }
        let mut lines = vec![format!("{} is trusted no more", gone.id)];
        for id in &signed {
            lines.push(affected(&home, id).await?);
        }
        output.text(&harmless(&lines.join("\n"))).map(|()| ExitCode::SUCCESS)
    })
}

/// What comes of it for one that the key signed.
async fn affected(home: &Home, id: &ExtensionId) -> Result<String> {
    let it = home.show(id.as_str()).await?;
    Ok(match (it.state, it.permitted()) {
        (InstalledState::Enabled, Err(error)) => format!("{id} will not start: {error}"),
        _ => format!("{id} is {} now", it.current.trust),
    })
}

fn policy(args: PolicyArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let home = args.home.open().await?;
        let mut policy = home.trust_policy().await?;
        if let Some(level) = args.level {
            let terms = changed(policy.terms(level), &args);
            if terms != policy.terms(level) {
                home.set_terms(level, terms, &actor()).await?;
                policy = home.trust_policy().await?;
            }
        }
        if output.json {
            return output.value(&policy).map(|()| ExitCode::SUCCESS);
        }
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
        let rows = TrustLevel::ALL.into_iter().map(row).collect();
        output.text(&table(&header, &[], rows)).map(|()| ExitCode::SUCCESS)
    })
}

/// Terms with what was typed in the place of what there was.
fn changed(terms: Terms, args: &PolicyArgs) -> Terms {
    let permissions = match args.permissions.as_deref() {
        None => terms.permissions,
        Some("all") => None,
        Some("none") => Some(Default::default()),
        Some(names) => Some(names.split(',').map(|name| name.trim().to_owned()).collect()),
    };
    Terms {
        isolation: args.isolation.unwrap_or(terms.isolation),
        permissions,
        signature: args.signature.unwrap_or(terms.signature),
        minimum_release_age: args.minimum_release_age.map_or(terms.minimum_release_age, |Age(age)| age),
    }
}

/// Keeps an extension at a version.
pub(crate) fn pin(args: PinArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let installed = args.home.open().await?.pin(&args.id, args.at, &actor()).await?;
        let version = installed.pinned.as_ref().map(ToString::to_string).unwrap_or_default();
        said(output, &installed, &format!("{} is pinned to {version}", installed.id))
    })
}

/// Has it updated again.
pub(crate) fn unpin(args: OneArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let installed = args.home.open().await?.unpin(&args.id, &actor()).await?;
        said(output, &installed, &format!("{} is not pinned", installed.id))
    })
}
