use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use quadriga::package::{Bounds, Error, Format, GO_ON, Package, SIGNATURE_SUFFIX, SecretKey, Signature};
use serde_json::json;

use super::args::{PackageArgs, SignArgs};
use super::keys;
use crate::failure::Advice;
use crate::output::{Output, harmless};

/// Who signed a package.
pub(super) struct Signer {
    pub(super) key: String,
    pub(super) comment: String,
}

/// Signs a package.
pub(crate) fn sign(args: SignArgs, output: Output) -> Result<ExitCode> {
    let package = Package::open(&args.path, &Bounds::default())?;
    // Nobody signs what nobody could unpack.
    package.inspect(&mut |_| GO_ON)?;
    let place = place(&args.path);
    if package.format() != Format::Oci && !args.force && fs::symlink_metadata(&place).is_ok() {
        let hint = "--force takes the place of an earlier signature";
        return Err(Advice::new(format!("{} is there already", place.display()), hint).into());
    }
    let key = keys::secret(&args.key, args.password_file.as_deref())?;
    let place = add(&package, &args.path, &key, args.comment.as_deref(), args.force)?;
    if output.json {
        let key = key.public();
        output.value(&json!({
            "package": args.path,
            "digest": format!("sha256:{}", package.digest()),
            "signature": place,
            "key": key.id(),
            "public_key": key.to_string(),
        }))?;
    } else {
        let text = format!("signed with {} in {}", key.public().id(), place.display());
        output.text(&harmless(&text))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Signs a package and puts the signature where it belongs.
pub(super) fn add(
    package: &Package,
    path: &Path,
    key: &SecretKey,
    comment: Option<&str>,
    force: bool,
) -> Result<PathBuf> {
    let comment = comment.map_or_else(|| about(path), str::to_owned);
    let signature = package.sign(key, &comment)?;
    if package.format() == Format::Oci {
        package.add_signature(path, &signature)?;
        return Ok(path.to_owned());
    }
    let place = place(path);
    keys::write(&place, &signature.to_string(), force, false)?;
    Ok(place)
}

/// The comment that minisign makes.
fn about(path: &Path) -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("timestamp:{time}\tfile:{name}\thashed")
}

/// Where the signature of a package file is.
fn place(path: &Path) -> PathBuf {
    let mut place = path.as_os_str().to_owned();
    place.push(SIGNATURE_SUFFIX);
    place.into()
}

/// Verifies the signature of a package, if it has one or the user names a key.
pub(super) fn check(package: &Package, args: &PackageArgs) -> Result<Option<Signer>> {
    let signature = find(package, args)?;
    let Some(key) = &args.key else {
        return match signature {
            None => Ok(None),
            Some(signature) => {
                let message =
                    format!("it is signed with {}, and no key was named to verify that", signature.key_id());
                Err(Advice::new(message, "name the publisher's key with --key").into())
            }
        };
    };
    let key = keys::public(key)?;
    let signature = signature.ok_or(Error::NotSigned)?;
    package.verify(&signature, &key)?;
    Ok(Some(Signer { key: key.id(), comment: signature.trusted_comment().to_owned() }))
}

pub(super) fn find(package: &Package, args: &PackageArgs) -> Result<Option<Signature>> {
    let file = match (&args.signature, package.signature()) {
        (Some(file), _) => file.clone(),
        (None, Some(inside)) => return Ok(Some(inside.clone())),
        (None, None) => place(&args.path),
    };
    match fs::symlink_metadata(&file) {
        Ok(_) => Ok(Some(keys::text(&file, "signature")?.parse()?)),
        Err(_) if args.signature.is_none() => Ok(None),
        Err(error) => Err(keys::unreadable(&file, "signature", &error).into()),
    }
}
