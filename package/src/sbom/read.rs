//! What an unpacked extension brings along, as its SBOM says.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Components, LARGEST, find};
use crate::bounds::Bounds;
use crate::error::{Error, Result};
use crate::{SBOM_FILE, source};

/// Something that an extension brings along and that somebody else made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ThirdParty {
    /// Its name, with a scope or group before it.
    pub name: String,
    /// Its version, as it writes it.
    pub version: String,
    /// Its package URL: <https://github.com/package-url/purl-spec>.
    pub purl: Option<String>,
    /// Its licence, as it says: an SPDX expression or any other text.
    pub license: Option<String>,
}

/// What the SBOM of the extension in `dir` names; where a package has none, what would be in it.
///
/// # Errors
/// If the SBOM cannot be read or is none, or the folder cannot be listed.
pub fn third_party(dir: &Path) -> Result<Vec<ThirdParty>> {
    let path = dir.join(SBOM_FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return in_files(dir),
        opened => opened.map_err(Error::io(&path))?,
    };
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(Error::io(&path))?;
    if text.len() as u64 > LARGEST {
        return Err(Error::Sbom(format!("it has more than {LARGEST} bytes")));
    }
    parse(&text)
}

fn in_files(dir: &Path) -> Result<Vec<ThirdParty>> {
    let list = source::list(dir, &Bounds::default(), true)?;
    let files: Vec<_> = list.iter().map(|it| (it.path.as_str(), it.file.as_path())).collect();
    let found: Components = find(&files)?;
    let all = found.into_iter().map(|(url, it)| ThirdParty {
        name: it.name,
        version: it.version,
        purl: Some(url),
        license: it.license,
    });
    Ok(all.collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bom {
    bom_format: String,
    #[serde(default)]
    components: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    purl: Option<String>,
    #[serde(default)]
    licenses: Vec<Choice>,
    #[serde(default)]
    components: Vec<Listed>,
}

/// CycloneDX has one expression, or any number of licences.
#[derive(Deserialize)]
struct Choice {
    expression: Option<String>,
    license: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: Option<String>,
    name: Option<String>,
}

fn parse(text: &[u8]) -> Result<Vec<ThirdParty>> {
    let bom: Bom = serde_json::from_slice(text).map_err(|error| Error::Sbom(error.to_string()))?;
    if bom.bom_format != "CycloneDX" {
        return Err(Error::Sbom(format!("it is {:?}, and not CycloneDX", bom.bom_format)));
    }
    let mut all = Vec::new();
    let mut next = bom.components;
    while let Some(Listed { name, group, version, purl, licenses, components }) = next.pop() {
        let name = if group.is_empty() { name } else { format!("{group}/{name}") };
        all.push(ThirdParty { name, version, purl, license: together(licenses) });
        next.extend(components);
    }
    all.sort_by(|a, b| (&a.purl, &a.name, &a.version).cmp(&(&b.purl, &b.name, &b.version)));
    Ok(all)
}

/// Several licences in a list all hold: nothing says that there is a choice.
fn together(licenses: Vec<Choice>) -> Option<String> {
    let text = |choice: Choice| choice.expression.or_else(|| choice.license.and_then(|it| it.id.or(it.name)));
    let texts: Vec<String> = licenses.into_iter().filter_map(text).collect();
    match &*texts {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(several.iter().map(|it| format!("({it})")).collect::<Vec<_>>().join(" AND ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn listed(components: Json) -> Result<Vec<String>> {
        let bom = json!({ "bomFormat": "CycloneDX", "specVersion": "1.5", "components": components });
        let line = |it: ThirdParty| format!("{} {} {:?}", it.name, it.version, it.license);
        Ok(parse(bom.to_string().as_bytes())?.into_iter().map(line).collect())
    }

    #[test]
    fn licences_stand_in_several_forms() {
        let cases = [
            (json!([]), "None"),
            (json!([{ "expression": "MIT OR ISC" }]), r#"Some("MIT OR ISC")"#),
            (json!([{ "license": { "id": "MIT" } }]), r#"Some("MIT")"#),
            (json!([{ "license": { "name": "Custom" } }]), r#"Some("Custom")"#),
            (
                json!([{ "license": { "id": "MIT" } }, { "license": { "name": "x" } }]),
                r#"Some("(MIT) AND (x)")"#,
            ),
            (json!([{ "license": {} }]), "None"),
        ];
        for (licenses, expected) in cases {
            let found = listed(json!([{ "name": "a", "version": "1", "licenses": licenses }])).unwrap();
            assert_eq!(found, [format!("a 1 {expected}")], "{licenses}");
        }
    }

    #[test]
    fn parts_of_parts_are_found_and_groups_are_named() {
        let inner = json!({ "name": "c", "licenses": [{ "expression": "MIT" }] });
        let found = listed(json!([{ "group": "@a", "name": "b", "version": "1", "components": [inner] }]));
        assert_eq!(found.unwrap(), [r#"@a/b 1 None"#, r#"c  Some("MIT")"#]);
    }

    #[test]
    fn what_is_no_sbom_is_told_so() {
        for text in
            ["", "{}", r#"{ "bomFormat": "SPDX" }"#, r#"{ "bomFormat": "CycloneDX", "components": [1] }"#]
        {
            assert_eq!(parse(text.as_bytes()).unwrap_err().code(), "sbom", "{text}");
        }
    }
}
