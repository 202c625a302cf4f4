//! Which licences an operator accepts, and what comes of that.

use super::*;
use crate::home::{LicensePolicy, Licenses};

/// Packs an extension of a licence that brings an npm package of another one.
fn licensed(folder: &Path, id: &str, version: &str, own: Option<&str>, part: Option<&str>) -> PathBuf {
    let package = part.map(|license| {
        let license = if license.is_empty() { String::new() } else { format!(r#", "license": "{license}""#) };
        format!(r#"{{ "name": "part", "version": "2.1.0"{license} }}"#)
    });
    let files: Vec<(&str, &str)> =
        package.iter().map(|it| ("node_modules/part/package.json", &**it)).collect();
    let about = own.map(|license| format!("license = '{license}'")).unwrap_or_default();
    package_of(folder, id, version, [&about, ""], &files)
}

fn policy(allow: &[&str], deny: &[&str], unknown: bool) -> LicensePolicy {
    let set = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect();
    let allow = (!allow.is_empty()).then(|| set(allow));
    LicensePolicy { allow, deny: set(deny), unknown, ..LicensePolicy::default() }
}

#[tokio::test]
async fn what_is_denied_is_not_installed_and_the_part_is_named() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let pack = |own, part| {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let version = format!("{}.0.0", COUNT.fetch_add(1, Ordering::SeqCst));
        licensed(folder.path(), "a.b", &version, own, part)
    };
    let part = "brings part 2.1.0 (pkg:npm/part@2.1.0), which";
    let cases = [
        (policy(&[], &[], true), Some("AGPL-3.0-only"), Some("GPL-3.0-only"), String::new()),
        (policy(&["MIT"], &[], false), Some("MIT"), Some("MIT OR ISC"), String::new()),
        (
            policy(&["MIT"], &[], true),
            Some("ISC"),
            None,
            "is licensed under \"ISC\": ISC is not among the licences that are allowed".to_owned(),
        ),
        (
            policy(&[], &["AGPL-3.0-only"], true),
            Some("MIT"),
            Some("AGPL-3.0-only"),
            format!("{part} is licensed under \"AGPL-3.0-only\": AGPL-3.0-only is denied"),
        ),
        // Deprecated, as npm's packages still write it.
        (
            policy(&[], &["GPL-3.0-only"], true),
            Some("MIT"),
            Some("GPL-3.0"),
            format!("{part} is licensed under \"GPL-3.0\": GPL-3.0 is denied"),
        ),
        (policy(&["MIT"], &[], true), None, Some(""), String::new()),
        (
            policy(&["MIT"], &[], false),
            None,
            Some(""),
            "has no known licence: it says nothing of a licence, and what is unknown is denied; another part of it is denied too".to_owned(),
        ),
        (
            policy(&[], &[], false),
            Some("MIT"),
            Some("Custom"),
            format!("{part} is licensed under \"Custom\": that is no SPDX expression, and what is unknown is denied"),
        ),
    ];
    for (policy, own, brought, why) in cases {
        home.set_license_policy(policy.clone(), ME).await.unwrap();
        let path = pack(own, brought);
        match install(&home, &path).await {
            Ok(_) => {
                assert_eq!(why, "", "{policy:?} {own:?} {brought:?}");
                home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
            }
            Err(error) => {
                assert_eq!(error.code, ErrorCode::LicenseDenied, "{error}");
                let said = error.message.split_once(".0.0 ").unwrap().1;
                assert_eq!(said, why, "{policy:?} {own:?} {brought:?}");
                assert!(error.hint.as_ref().unwrap().contains("--exception a.b"));
                nothing_else(&home).await;
                // Unless the policy does not hold for it.
                let exceptions = ["a.b".parse().unwrap()].into();
                home.set_license_policy(LicensePolicy { exceptions, ..policy }, ME).await.unwrap();
                install(&home, &path).await.unwrap();
                home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_policy_holds_for_updates_rollbacks_and_what_is_enabled() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let make = |version, own| licensed(folder.path(), "a.b", version, Some(own), None);
    let [one, two, three] = [make("1.0.0", "ISC"), make("2.0.0", "MIT"), make("3.0.0", "ISC")];
    install(&home, &one).await.unwrap();
    update(&home, &two).await.unwrap();
    assert_eq!(home.set_license_policy(policy(&["MIT"], &[], false), ME).await.unwrap(), []);
    let code = |result: Result<Changes, Error>| result.map(drop).map_err(|error| error.code);
    let denied = Err(ErrorCode::LicenseDenied);
    assert_eq!(code(home.update(offer(&three), options()).await), denied);
    assert_eq!(code(home.rollback("a.b", Dependents::Refuse, ME).await), denied);
    enable(&home, "a.b").await.unwrap();
    nothing_else(&home).await;
    // What is enabled goes on, and is told.
    let refused = home.set_license_policy(policy(&[], &["MIT"], false), ME).await.unwrap();
    let said: Vec<String> = refused.iter().flat_map(Licenses::denied).map(|it| format!("{it:?}")).collect();
    assert_eq!((refused.len(), said.len(), refused[0].id.as_str()), (1, 1, "a.b"));
    assert_eq!(home.show("a.b").await.unwrap().state, InstalledState::Enabled);
    home.show("a.b").await.unwrap().load_options().unwrap();
    home.disable("a.b", Dependents::Refuse, ME).await.unwrap();
    assert_eq!(code(enable(&home, "a.b").await), denied);
    // Nor is it for the sake of another one.
    let needs = package(folder.path(), "a.c", "1.0.0", "[dependencies]\n'a.b' = '*'");
    let with = InstallOptions { enable: true, needs: Needs::Enable, ..options() };
    home.set_license_policy(policy(&[], &["MIT"], true), ME).await.unwrap();
    assert_eq!(code(home.install(offer(&needs), with.clone()).await), denied);
    install(&home, &needs).await.unwrap();
    assert_eq!(code(home.enable("a.c", Needs::Enable, ME).await), denied);
    home.set_license_policy(LicensePolicy::default(), ME).await.unwrap();
    home.enable("a.c", Needs::Enable, ME).await.unwrap();
    let trail = home.audit().await.unwrap();
    let changes = trail.iter().filter(|it| it.action == "licence policy").count();
    assert_eq!((changes, &trail.last().unwrap().extension), (4, &"a.c".to_owned()));
}

#[tokio::test]
async fn another_version_is_taken_than_one_that_is_denied() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    home.set_license_policy(policy(&["MIT"], &[], false), ME).await.unwrap();
    let one = licensed(folder.path(), "a.b", "1.0.0", Some("MIT"), None);
    let [two, three] = ["2.0.0", "3.0.0"].map(|it| licensed(folder.path(), "a.b", it, Some("ISC"), None));
    let offers = |paths: &[&PathBuf]| paths.iter().map(|path| Offer::from(open(path))).collect::<Vec<_>>();
    for enable in [false, true] {
        let options = InstallOptions { enable, ..options() };
        let error = home.install(offers(&[&two, &three]), options.clone()).await.unwrap_err();
        assert!(error.code == ErrorCode::LicenseDenied && error.message.contains("a.b 3.0.0"), "{error}");
        let came = home.install(offers(&[&two, &one, &three]), options).await.unwrap().came;
        assert_eq!(came[0].installed.current.version.to_string(), "1.0.0");
        home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
    }
    // Of those that provide what is needed too.
    let provides = "[capabilities]\nprovides = ['disk@1.0.0']";
    home.set_license_policy(LicensePolicy::default(), ME).await.unwrap();
    for (id, license) in [("a.p", "ISC"), ("a.q", "MIT")] {
        let about = format!("license = '{license}'");
        install(&home, &package_of(folder.path(), id, "1.0.0", [&about, provides], &[])).await.unwrap();
    }
    let needs = ["license = 'MIT'", "[capabilities]\nrequires = ['disk@^1']"];
    install(&home, &package_of(folder.path(), "a.c", "1.0.0", needs, &[])).await.unwrap();
    home.set_license_policy(policy(&["MIT"], &[], false), ME).await.unwrap();
    let changes = home.enable("a.c", Needs::Enable, ME).await.unwrap();
    assert_eq!(ids(&changes.enabled), ["a.q", "a.c"]);
}

#[tokio::test]
async fn licences_are_looked_at_without_working_with_the_home() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("home");
    assert_eq!(Home::look_at_licenses(&path).await.unwrap(), (LicensePolicy::default(), Vec::new()));
    let home = Home::open(&path).await.unwrap();
    install(&home, &licensed(folder.path(), "a.b", "1.0.0", Some("MIT"), Some("ISC"))).await.unwrap();
    install(&home, &package(folder.path(), "a.c", "1.0.0", "")).await.unwrap();
    let wanted =
        LicensePolicy { exceptions: ["a.c".parse().unwrap()].into(), ..policy(&["MIT"], &[], false) };
    home.set_license_policy(wanted.clone(), ME).await.unwrap();
    let (policy, all) = Home::look_at_licenses(&path).await.unwrap();
    assert_eq!(policy, wanted);
    let line = |it: &Licenses| {
        let parts = it.parts.iter().map(|it| {
            format!(
                "{} {} {} {}",
                it.name,
                it.version,
                it.license.as_deref().unwrap_or("-"),
                it.denied.is_some()
            )
        });
        format!("{} {} {}: {}", it.id, it.excepted, it.denied().count(), parts.collect::<Vec<_>>().join(", "))
    };
    let lines: Vec<String> = all.iter().map(line).collect();
    assert_eq!(
        lines,
        ["a.b false 1: a.b 1.0.0 MIT false, part 2.1.0 ISC true", "a.c true 0: a.c 1.0.0 - true",]
    );
    let wrong = LicensePolicy { deny: ["MTI".to_owned()].into(), ..LicensePolicy::default() };
    let error = home.set_license_policy(wrong, ME).await.unwrap_err();
    assert_eq!(
        (error.code, error.hint.as_deref()),
        (ErrorCode::InvalidArguments, Some("did you mean \"MIT\"?"))
    );
    // An SBOM that somebody made of no use is not taken for an empty one.
    let installed = home.show("a.b").await.unwrap();
    fs::write(installed.current.folder.join(quadriga_package::SBOM_FILE), "{}").unwrap();
    let error = enable(&home, "a.b").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::LicenseDenied);
    assert!(error.message.contains("a.b 1.0.0 brings .quadriga/sbom.cdx.json, which has no known licence: the package's SBOM is of no use"), "{error}");
    let denied = |all: &[Licenses]| all[0].denied().map(|it| it.name.clone()).collect::<Vec<_>>();
    assert_eq!(denied(&Home::look_at_licenses(&path).await.unwrap().1), [quadriga_package::SBOM_FILE]);
    // Unless nothing is denied, or not of it.
    home.set_license_policy(LicensePolicy::default(), ME).await.unwrap();
    assert!(denied(&Home::look_at_licenses(&path).await.unwrap().1).is_empty());
    let excepted = LicensePolicy { exceptions: ["a.b".parse().unwrap()].into(), ..wanted };
    home.set_license_policy(excepted, ME).await.unwrap();
    enable(&home, "a.b").await.unwrap();
}
