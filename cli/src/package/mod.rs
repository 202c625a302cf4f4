//! The commands for packages.

pub(crate) mod args;
mod keys;
pub(crate) mod progress;
mod signature;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use indicatif::HumanBytes;
use quadriga::abi::manifest::Manifest;
use quadriga::package::{
    self, Bounds, Contents, FileKind, Format, PackOptions, Package, PublicKey, SecretKey, Signature,
};
use serde_json::{Value as Json, json};

use crate::host;
use crate::output::{Output, harmless};
use args::{PackArgs, PackageArgs, UnpackArgs, VerifyArgs};
pub(crate) use keys::{keygen, public};
use progress::Progress;
use signature::Signer;
pub(crate) use signature::sign;

/// Makes a package of an extension's folder.
pub(crate) fn pack(args: PackArgs, output: Output) -> Result<ExitCode> {
    // Whatever is wrong about the key is said before the work.
    let key = args.sign.as_deref().map(|key| keys::secret(key, args.password_file.as_deref())).transpose()?;
    host::run_to_the_end(move |stop| pack_with(&args, key.as_ref(), stop, output))
}

fn pack_with(
    args: &PackArgs,
    key: Option<&SecretKey>,
    stop: Arc<AtomicBool>,
    output: Output,
) -> Result<ExitCode> {
    let options =
        PackOptions { format: args.format, allow_secrets: args.allow_secrets, ..PackOptions::default() };
    let progress = Progress::new(output).until(stop);
    let name = |manifest: &Manifest| out_path(args.out.as_deref(), manifest, args.format);
    let built =
        package::pack(&args.dir, name, &options, &mut |done, all| progress.show("packing", done, Some(all)))?;
    let mut signed = None;
    if let Some(key) = key {
        let package = Package::open(&built.path, &options.bounds)?;
        package.expect(&built.digest)?;
        signed = Some(signature::add(&package, &built.path, key, None, false)?);
    }
    progress.finish();
    let mut facts = facts(&built.manifest, &built.contents);
    facts.extend(object(json!({
        "package": built.path,
        "format": built.format,
        "digest": format!("sha256:{}", built.digest),
        "size": built.size,
        "signature": signed,
    })));
    if output.json {
        return output.value(&facts).map(|()| ExitCode::SUCCESS);
    }
    let about = &built.manifest.extension;
    let mut text = format!("{} {} is in {}\n", about.id, about.version, built.path.display());
    text += &summary(&built.contents, built.size);
    text += &format!("\nsha256:{}", built.digest);
    if let Some(Json::String(place)) = facts.get("signature") {
        text += &format!("\nsigned in {place}");
    }
    output.text(&harmless(&text)).map(|()| ExitCode::SUCCESS)
}

/// Where a package goes if the user doesn't say it, or says only the folder.
fn out_path(out: Option<&Path>, manifest: &Manifest, format: Format) -> PathBuf {
    let about = &manifest.extension;
    let name = format!("{}-{}.{}", about.id, about.version, format.extension());
    match out {
        Some(out) if out.is_dir() => out.join(name),
        Some(out) => out.to_owned(),
        None => name.into(),
    }
}

/// Unpacks a package.
pub(crate) fn unpack(args: UnpackArgs, output: Output) -> Result<ExitCode> {
    host::run_to_the_end(move |stop| unpack_with(args, stop, output))
}

fn unpack_with(args: UnpackArgs, stop: Arc<AtomicBool>, output: Output) -> Result<ExitCode> {
    let (package, signer) = open(&args.package)?;
    let out = match args.out {
        Some(out) => out,
        // What it is called is known once it was read.
        None => {
            let (manifest, _) = package.inspect(&mut |_| package::GO_ON)?;
            format!("{}-{}", manifest.extension.id, manifest.extension.version).into()
        }
    };
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (progress, size) = (Progress::new(output).until(stop), package.unpacked_size());
    let unpacked = package.unpack(parent, &mut |done| progress.show("unpacking", done, size))?;
    let (manifest, contents) = (unpacked.manifest.clone(), unpacked.contents.clone());
    let folder = unpacked.keep(&out)?;
    progress.finish();
    let mut facts = checked(&package, &manifest, &contents, signer.as_ref());
    facts.extend(object(json!({ "folder": folder })));
    if output.json {
        return output.value(&facts).map(|()| ExitCode::SUCCESS);
    }
    let about = &manifest.extension;
    let mut text = format!("{} {} is in {}\n", about.id, about.version, folder.display());
    text += &summary(&contents, package.size());
    text += &format!("\n{}", signer_text(signer.as_ref()));
    output.text(&harmless(&text)).map(|()| ExitCode::SUCCESS)
}

/// Verifies a package.
pub(crate) fn verify(args: &VerifyArgs, output: Output) -> Result<ExitCode> {
    let (package, signer) = open(&args.package)?;
    let (progress, size) = (Progress::new(output), package.unpacked_size());
    let (manifest, contents) = package.inspect(&mut |done| progress.show("reading", done, size))?;
    progress.finish();
    if output.json {
        let facts = checked(&package, &manifest, &contents, signer.as_ref());
        return output.value(&facts).map(|()| ExitCode::SUCCESS);
    }
    let about = &manifest.extension;
    let mut text = format!("{} {} is whole\n", about.id, about.version);
    text += &summary(&contents, package.size());
    text += &format!("\nsha256:{}\n{}", package.digest(), signer_text(signer.as_ref()));
    output.text(&harmless(&text)).map(|()| ExitCode::SUCCESS)
}

/// Opens a package and compares it with what the user demands of it.
fn open(args: &PackageArgs) -> Result<(Package, Option<Signer>)> {
    let package = expected(args)?;
    let signer = signature::check(&package, args)?;
    Ok((package, signer))
}

/// The same for who knows other keys than the one that is named: with its signature, which nobody has verified
/// yet, and that key.
pub(crate) fn signed_package(args: &PackageArgs) -> Result<(Package, Option<Signature>, Option<PublicKey>)> {
    let package = expected(args)?;
    let signature = signature::find(&package, args)?;
    let key = args.key.as_deref().map(keys::public).transpose()?;
    Ok((package, signature, key))
}

fn expected(args: &PackageArgs) -> Result<Package> {
    let package = Package::open(&args.path, &Bounds::default())?;
    if let Some(digest) = &args.digest {
        package.expect(digest)?;
    }
    Ok(package)
}

fn checked(
    package: &Package,
    manifest: &Manifest,
    contents: &Contents,
    signer: Option<&Signer>,
) -> serde_json::Map<String, Json> {
    let mut facts = facts(manifest, contents);
    facts.extend(object(json!({
        "format": package.format(),
        "digest": format!("sha256:{}", package.digest()),
        "size": package.size(),
        "signer": signer.map(|signer| json!({ "key": signer.key, "comment": signer.comment })),
    })));
    facts
}

/// What JSON says of every package.
fn facts(manifest: &Manifest, contents: &Contents) -> serde_json::Map<String, Json> {
    object(json!({
        "extension": manifest.extension.id,
        "version": manifest.extension.version,
        "unpacked_size": contents.unpacked_size(),
        "files": contents.files,
    }))
}

fn object(json: Json) -> serde_json::Map<String, Json> {
    match json {
        Json::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}

/// How much of what is in it.
fn summary(contents: &Contents, packed: u64) -> String {
    let mut kinds: BTreeMap<FileKind, usize> = BTreeMap::new();
    for file in &contents.files {
        *kinds.entry(file.kind).or_default() += 1;
    }
    let kinds: Vec<String> = kinds
        .into_iter()
        .filter(|(kind, _)| !matches!(kind, FileKind::Manifest | FileKind::Sbom))
        .map(|(kind, count)| format!("{count} {}", kind_name(kind)))
        .collect();
    format!(
        "{} files ({}), {}, packed {}",
        contents.files.len(),
        kinds.join(", "),
        HumanBytes(contents.unpacked_size()),
        HumanBytes(packed)
    )
}

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Manifest => "manifest",
        FileKind::Code => "code",
        FileKind::Vendored => "vendored",
        FileKind::Docs => "docs",
        FileKind::Tests => "tests",
        FileKind::Sbom => "SBOM",
        FileKind::Resource => "resources",
    }
}

fn signer_text(signer: Option<&Signer>) -> String {
    match signer {
        Some(signer) => format!("signed with {} ({})", signer.key, signer.comment),
        None => "not signed".to_owned(),
    }
}
