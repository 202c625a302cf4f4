//! Whether an extension is for this host and for the contract that it speaks.

use quadriga_abi::manifest::Manifest;
use quadriga_abi::{Error, ErrorCode, PROTOCOL};

/// What an extension needs of the host and of the contract that it speaks: a name, a range, and whether
/// that fits.
#[cfg(feature = "home")]
pub(crate) fn host_needs(manifest: &Manifest) -> Vec<(&'static str, String, bool)> {
    let mut needs = Vec::new();
    let host = env!("CARGO_PKG_VERSION").parse::<semver::Version>();
    let bounds = [
        manifest.host.min.as_ref().map(|min| format!(">={min}")),
        manifest.host.max.as_ref().map(|max| format!("<={max}")),
    ];
    let range = bounds.into_iter().flatten().collect::<Vec<_>>().join(", ");
    if let (false, Ok(host)) = (range.is_empty(), host) {
        let fits = manifest.host.min.as_ref().is_none_or(|min| host >= min.0)
            && manifest.host.max.as_ref().is_none_or(|max| host <= max.0);
        needs.push(("host", range, fits));
    }
    if let Some(range) = &manifest.runtime.api {
        needs.push(("contract", range.to_string(), range.0.matches(&contract())));
    }
    needs
}

fn contract() -> semver::Version {
    semver::Version::new(PROTOCOL.major.into(), PROTOCOL.minor.into(), PROTOCOL.patch.into())
}

/// Whether an extension is for this host and for the contract that it speaks.
pub(crate) fn fits_host(manifest: &Manifest) -> Result<(), Error> {
    let id = &manifest.extension.id;
    let wrong =
        |message, hint: String| Err(Error::new(ErrorCode::IncompatibleVersion, message).with_hint(hint));
    let protocol = contract();
    if let Some(range) = manifest.runtime.api.as_ref().filter(|range| !range.0.matches(&protocol)) {
        let message = format!("{id} works with contract {range}; this host speaks {protocol}");
        let hint = format!("take a version of it for contract {protocol}, or a host that speaks {range}");
        return wrong(message, hint);
    }
    let Ok(host) = env!("CARGO_PKG_VERSION").parse::<semver::Version>() else {
        return Ok(());
    };
    match (&manifest.host.min, &manifest.host.max) {
        (Some(min), _) if host < min.0 => wrong(
            format!("{id} needs host {min} or newer; this is {host}"),
            format!("update the host to {min}, or take an older version of {id}"),
        ),
        (_, Some(max)) if host > max.0 => wrong(
            format!("{id} needs host {max} or older; this is {host}"),
            format!("take a newer version of {id}, or host {max}"),
        ),
        _ => Ok(()),
    }
}
