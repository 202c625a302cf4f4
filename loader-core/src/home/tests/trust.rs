//! Whom an operator trusts, and what comes of that.

use std::time::Duration;

use quadriga_abi::Isolation;
use quadriga_abi::limits::Span;

use super::*;
use crate::home::{Terms, TrustLevel};

/// A home and two publishers' keys.
struct Place {
    folder: TempDir,
    home: Home,
    acme: SecretKey,
    other: SecretKey,
}

/// How a package is offered.
#[derive(Debug, Clone, Copy)]
enum Way<'a> {
    Unsigned,
    /// Signed, for the home to know by whom.
    Signed(&'a SecretKey),
    /// Signed, with the key named.
    Named(&'a SecretKey),
}

impl Place {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let home = Home::open(folder.path().join("home")).await.unwrap();
        let [acme, other] = [SecretKey::generate().unwrap(), SecretKey::generate().unwrap()];
        Self { folder, home, acme, other }
    }

    fn pack(&self, id: &str, version: &str, more: &str) -> PathBuf {
        package(self.folder.path(), id, version, more)
    }

    async fn trust(&self, key: &SecretKey, level: TrustLevel) {
        self.home.trust(&key.public(), "acme", level, ME).await.unwrap();
    }

    /// Changes the terms of a level.
    async fn terms(&self, level: TrustLevel, change: impl FnOnce(&mut Terms)) {
        let mut terms = self.home.trust_policy().await.unwrap().terms(level);
        change(&mut terms);
        self.home.set_terms(level, terms, ME).await.unwrap();
    }
}

fn offered(path: &Path, way: Way<'_>) -> Offer {
    offered_with(path, way, "")
}

fn offered_with(path: &Path, way: Way<'_>, comment: &str) -> Offer {
    let package = open(path);
    let (signature, key) = match way {
        Way::Unsigned => (None, None),
        Way::Signed(key) => (Some(package.sign(key, comment).unwrap()), None),
        Way::Named(key) => (Some(package.sign(key, comment).unwrap()), Some(key.public())),
    };
    Offer { signature, key, ..package.into() }
}

#[tokio::test]
async fn a_signature_counts_for_its_publisher_and_at_its_level() {
    let place = Place::new().await;
    let (home, acme, other) = (&place.home, &place.acme, &place.other);
    place.trust(acme, TrustLevel::High).await;
    home.trust(&other.public(), "other", TrustLevel::Verified, ME).await.unwrap();
    let stranger = SecretKey::generate().unwrap();
    let (ours, theirs) = (place.pack("acme.a", "1.0.0", ""), place.pack("other.a", "1.0.0", ""));
    let (high, untrusted) = (Ok(TrustLevel::High), Ok(TrustLevel::Untrusted));
    let refused = Err(ErrorCode::NotTrusted);
    // Whether unsigned ones are refused, and what is said then.
    let cases = [
        (&ours, Way::Signed(acme), high, high),
        (&ours, Way::Named(acme), high, high),
        (&theirs, Way::Signed(other), Ok(TrustLevel::Verified), Ok(TrustLevel::Verified)),
        // Nobody signs for another.
        (&theirs, Way::Signed(acme), refused, refused),
        (&theirs, Way::Named(acme), refused, refused),
        (&ours, Way::Signed(other), refused, refused),
        // A key that nobody knows is named, or of no use.
        (&ours, Way::Signed(&stranger), refused, refused),
        (&ours, Way::Named(&stranger), untrusted, untrusted),
        (&ours, Way::Unsigned, untrusted, refused),
    ];
    for strict in [false, true] {
        place.terms(TrustLevel::Untrusted, |terms| terms.signature = strict).await;
        for (at, (path, way, lax, demanding)) in cases.iter().enumerate() {
            let expected = if strict { demanding } else { lax };
            let installed = home.install([offered(path, *way)], options()).await;
            let said = installed.map(|mut done| done.came.remove(0).installed);
            let level = said.as_ref().map(|it| it.current.trust).map_err(|error| error.code);
            assert_eq!(level, *expected, "{at} {strict} {said:?}");
            match said {
                Ok(it) => {
                    assert_eq!(
                        it.current.signed.once,
                        *expected == untrusted && !matches!(way, Way::Unsigned)
                    );
                    home.uninstall(it.id.as_str(), Dependents::Refuse, ME).await.map(drop).unwrap();
                }
                Err(_) => nothing_else(home).await,
            }
        }
    }
}

#[tokio::test]
async fn a_key_is_kept_for_one_publisher() {
    let place = Place::new().await;
    let (home, key) = (&place.home, place.acme.public());
    for (publisher, level, code) in [
        ("acme", TrustLevel::Untrusted, Some(ErrorCode::InvalidArguments)),
        ("Acme!", TrustLevel::Low, Some(ErrorCode::InvalidArguments)),
        ("acme", TrustLevel::Low, None),
        ("other", TrustLevel::Low, Some(ErrorCode::InvalidArguments)),
        ("acme", TrustLevel::Verified, None),
    ] {
        let said = home.trust(&key, publisher, level, ME).await.map_err(|error| error.code).err();
        assert_eq!(said, code, "{publisher} {level}");
    }
    let keys = home.trusted().await.unwrap();
    assert_eq!((keys.len(), &*keys[0].publisher, keys[0].level), (1, "acme", TrustLevel::Verified));
    assert_eq!(home.distrust("none", ME).await.unwrap_err().code, ErrorCode::InvalidArguments);
    home.distrust(&key.id().to_lowercase(), ME).await.unwrap();
    assert_eq!(home.trusted().await.unwrap(), []);
    let trail = home.audit().await.unwrap();
    let done: Vec<String> = trail.iter().map(|it| format!("{} {}", it.action, it.extension)).collect();
    assert_eq!(done, ["trust acme.*", "trust acme.*", "distrust acme.*"]);
    let terms = Terms { permissions: Some(["secret".to_owned()].into()), ..Terms::of(TrustLevel::Low) };
    let error = home.set_terms(TrustLevel::Low, terms, ME).await.unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean \"secrets\"?"));
}

#[tokio::test]
async fn what_a_removed_key_signed_is_trusted_no_more() {
    let place = Place::new().await;
    let (home, acme) = (&place.home, &place.acme);
    place.trust(acme, TrustLevel::Medium).await;
    let asks = "[permissions]\nkv = true\nsecrets = ['s']";
    let path = place.pack("acme.a", "1.0.0", asks);
    let all = permissions(serde_json::json!({ "kv": true, "secrets": ["s"] }));
    let offer = Offer { grant: Some(all.clone()), ..offered(&path, Way::Signed(acme)) };
    home.install([offer], InstallOptions { enable: true, ..options() }).await.unwrap();
    let granted = |it: &Installed| it.load_options().unwrap().grant;
    let only = |it: Permissions| crate::Grant::Only(Box::new(it));
    assert_eq!(granted(&home.show("acme.a").await.unwrap()), only(all));
    let (gone, signed) = home.distrust(&acme.public().to_string(), ME).await.unwrap();
    assert_eq!((gone.level, ids(&signed)), (TrustLevel::Medium, vec!["acme.a"]));
    // It runs as what nobody signed does, with less.
    let now = home.show("acme.a").await.unwrap();
    assert_eq!(now.current.trust, TrustLevel::Untrusted);
    assert_eq!(granted(&now), only(permissions(serde_json::json!({ "kv": true }))));
    // Where that has to be signed, it does not run, and is not enabled again.
    place.terms(TrustLevel::Untrusted, |terms| terms.signature = true).await;
    let now = home.show("acme.a").await.unwrap();
    assert_eq!(now.load_options().unwrap_err().code, ErrorCode::NotTrusted);
    home.disable("acme.a", Dependents::Refuse, ME).await.unwrap();
    let error = enable(home, "acme.a").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotTrusted, "{error}");
    place.trust(acme, TrustLevel::Low).await;
    enable(home, "acme.a").await.unwrap();
}

#[tokio::test]
async fn a_level_has_its_isolation_and_its_permissions() {
    let place = Place::new().await;
    let (home, acme) = (&place.home, &place.acme);
    let asks = "[permissions]\nkv = true\nsecrets = ['s']\nsubprocess = ['p']";
    let path = place.pack("acme.a", "1.0.0", asks);
    let each = [
        ("kv", serde_json::json!({ "kv": true })),
        ("secrets", serde_json::json!({ "secrets": ["s"] })),
        ("subprocess", serde_json::json!({ "subprocess": ["p"] })),
    ];
    place.terms(TrustLevel::High, |terms| terms.permissions = Some(Default::default())).await;
    place.terms(TrustLevel::High, |terms| terms.isolation = Isolation::Container).await;
    let cases = [
        (TrustLevel::Untrusted, Isolation::InProcess, "kv"),
        (TrustLevel::Low, Isolation::InProcess, "kv secrets"),
        (TrustLevel::Medium, Isolation::InProcess, "kv secrets subprocess"),
        (TrustLevel::High, Isolation::Container, ""),
        (TrustLevel::Verified, Isolation::None, "kv secrets subprocess"),
    ];
    for (level, isolation, may) in cases {
        if level > TrustLevel::Untrusted {
            place.trust(acme, level).await;
        }
        let way = if level > TrustLevel::Untrusted { Way::Signed(acme) } else { Way::Unsigned };
        home.install([offered(&path, way)], options()).await.unwrap();
        let now = home.show("acme.a").await.unwrap();
        assert_eq!(now.load_options().unwrap().isolation, Some(isolation), "{level}");
        for (name, grant) in &each {
            let granted = home.grant("acme.a", &permissions(grant.clone()), ME).await;
            let code = granted.err().map(|error| error.code);
            let expected = (!may.split(' ').any(|it| it == *name)).then_some(ErrorCode::PermissionDenied);
            assert_eq!(code, expected, "{level} {name}");
        }
        home.uninstall("acme.a", Dependents::Refuse, ME).await.unwrap();
        // Nor with the installation.
        let all = permissions(serde_json::json!({ "kv": true, "secrets": ["s"], "subprocess": ["p"] }));
        let offer = Offer { grant: Some(all), ..offered(&path, way) };
        let done = home.install([offer], options()).await.map_err(|error| error.code);
        assert_eq!(done.is_ok(), may.split(' ').count() == 3, "{level}: {done:?}");
        if done.is_ok() {
            home.uninstall("acme.a", Dependents::Refuse, ME).await.unwrap();
        }
    }
    // A host that cannot isolate so far does not load it.
    let host = crate::Dispatcher::builder().runtime(crate::MockRuntime::new()).build().unwrap();
    place.terms(TrustLevel::Untrusted, |terms| terms.isolation = Isolation::Vm).await;
    let enabled = InstallOptions { enable: true, ..options() };
    let plain = place.pack("acme.b", "1.0.0", "");
    home.install([offered(&plain, Way::Unsigned)], enabled).await.unwrap();
    let failed = crate::home::start(&host, &home.list().await.unwrap()).await;
    assert_eq!(failed[0].1.code, ErrorCode::IsolationUnavailable);
}

#[tokio::test]
async fn an_update_says_what_is_different_and_what_is_worse_needs_consent() {
    let place = Place::new().await;
    let (home, acme, other) = (&place.home, &place.acme, &place.other);
    place.trust(acme, TrustLevel::Medium).await;
    home.trust(&other.public(), "acme", TrustLevel::Medium, ME).await.unwrap();
    let process =
        "isolation = 'process'\n[capabilities]\nprovides = ['a@1.0.0', 'b@1.0.0']\nrequires = ['x@^1']";
    let before = place.pack("acme.a", "1.0.0", process);
    home.install([offered(&before, Way::Signed(acme))], options()).await.unwrap();
    let id = |key: &SecretKey| key.public().id();
    let better =
        "isolation = 'container'\n[capabilities]\nprovides = ['b@1.0.0', 'c@1.0.0']\nrequires = ['y@^1']";
    let weaker =
        "isolation = 'in-process'\n[capabilities]\nprovides = ['a@1.0.0', 'b@1.0.0']\nrequires = ['x@^1']";
    let cases = [
        (process, Way::Signed(acme), None),
        // A publisher may have two keys.
        (process, Way::Signed(other), None),
        (better, Way::Signed(acme), None),
        (weaker, Way::Signed(acme), Some("may run less isolated: in-process instead of process")),
        (process, Way::Unsigned, Some("is trusted less: untrusted instead of medium")),
    ];
    for (at, (manifest, way, why)) in cases.into_iter().enumerate() {
        let version = format!("{}.0.0", at + 2);
        let path = place.pack("acme.a", &version, manifest);
        let mut done = home.update([offered(&path, way)], options()).await;
        if let Some(why) = why {
            let error = done.unwrap_err();
            assert_eq!(error.code, ErrorCode::ConsentRequired, "{at}: {error}");
            assert!(error.message.contains(why), "{at}: {error}");
            let consent = InstallOptions { consent: true, ..options() };
            done = home.update([offered(&path, way)], consent).await;
        }
        let came = done.unwrap().came.remove(0);
        let said = came.differs.lines();
        let expected: Vec<String> = match at {
            0 => vec![],
            1 => vec![format!("it is signed by {}; before by {}", id(other), id(acme))],
            2 => vec![
                "it now provides c@1.0.0".to_owned(),
                "it no longer provides a@1.0.0".to_owned(),
                "it now needs y@^1".to_owned(),
                "it no longer needs x@^1".to_owned(),
                "it wants isolation container; before it was process".to_owned(),
            ],
            3 => vec!["it wants isolation in-process; before it was process".to_owned()],
            _ => vec![
                "its trust level is untrusted; before it was medium".to_owned(),
                format!("it is signed by nobody; before by {}", id(acme)),
            ],
        };
        assert_eq!(said, expected, "{at}");
        home.rollback("acme.a", Dependents::Refuse, ME).await.unwrap();
    }
    // Signed with a key that was named once, and then by somebody else.
    let stranger = SecretKey::generate().unwrap();
    let once = place.pack("acme.b", "1.0.0", "");
    home.install([offered(&once, Way::Named(&stranger))], options()).await.unwrap();
    let next = place.pack("acme.b", "2.0.0", "");
    let error = home.update([offered(&next, Way::Unsigned)], options()).await.unwrap_err();
    let why = format!("acme.b 2.0.0 is signed by nobody, and was with {}", id(&stranger));
    assert_eq!((error.code, &error.message), (ErrorCode::ConsentRequired, &why));
    home.update([offered(&next, Way::Named(&stranger))], options()).await.unwrap();
}

#[tokio::test]
async fn a_release_has_to_be_old_enough_where_the_policy_says_so() {
    let place = Place::new().await;
    let (home, acme) = (&place.home, &place.acme);
    place.trust(acme, TrustLevel::Medium).await;
    let day = Duration::from_secs(24 * 3600);
    place.terms(TrustLevel::Medium, |terms| terms.minimum_release_age = Some(Span(day))).await;
    let path = place.pack("acme.a", "1.0.0", "");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let cases = [
        (String::new(), false),
        ("timestamp:soon".to_owned(), false),
        (format!("timestamp:{now}\tfile:a"), false),
        (format!("timestamp:{}", now + 10 * day.as_secs()), false),
        (format!("timestamp:{}", u64::MAX), false),
        (format!("timestamp:{}\tfile:a\thashed", now - day.as_secs() - 60), true),
    ];
    for (comment, is_ripe) in cases {
        let done = home.install([offered_with(&path, Way::Signed(acme), &comment)], options()).await;
        let code = done.as_ref().map(drop).map_err(|error| error.code);
        let expected = if is_ripe { Ok(()) } else { Err(ErrorCode::ReleaseTooNew) };
        assert_eq!(code, expected, "{comment}");
    }
    let signed = home.show("acme.a").await.unwrap().current.signed;
    assert!(signed.at.is_some() && signed.key == Some(acme.public().to_string()) && !signed.once);
    // So is an update, and a roll-back not: that version was there before.
    let next = place.pack("acme.a", "2.0.0", "");
    let offer = |age: u64| offered_with(&next, Way::Signed(acme), &format!("timestamp:{}", now - age));
    assert_eq!(home.update([offer(0)], options()).await.unwrap_err().code, ErrorCode::ReleaseTooNew);
    home.update([offer(2 * day.as_secs())], options()).await.unwrap();
    home.rollback("acme.a", Dependents::Refuse, ME).await.unwrap();
}

#[tokio::test]
async fn what_is_pinned_stays_at_its_version() {
    let place = Place::new().await;
    let home = &place.home;
    let [one, two, three] = ["1.0.0", "2.0.0", "3.0.0"].map(|version| place.pack("acme.a", version, ""));
    install(home, &one).await.unwrap();
    assert_eq!(home.pin("acme.b", None, ME).await.unwrap_err().code, ErrorCode::NotInstalled);
    home.pin("acme.a", None, ME).await.unwrap();
    let before = state(home).await;
    assert_eq!(update(home, &two).await.unwrap_err().code, ErrorCode::Pinned);
    assert_eq!(state(home).await, before);
    nothing_else(home).await;
    // To the version that is wanted it goes, and stays there.
    home.pin("acme.a", Some("2.0.0".parse().unwrap()), ME).await.unwrap();
    update(home, &two).await.unwrap();
    for error in [
        update(home, &three).await.unwrap_err(),
        home.rollback("acme.a", Dependents::Refuse, ME).await.unwrap_err(),
    ] {
        assert_eq!(error.code, ErrorCode::Pinned);
    }
    let unpin = InstallOptions { unpin: true, ..options() };
    let came = home.update(offer(&three), unpin).await.unwrap().came.remove(0);
    assert_eq!(came.installed.pinned, None);
    home.pin("acme.a", None, ME).await.unwrap();
    assert_eq!(home.unpin("acme.a", ME).await.unwrap().pinned, None);
    home.rollback("acme.a", Dependents::Refuse, ME).await.unwrap();
    let done: Vec<String> = home.audit().await.unwrap().into_iter().map(|entry| entry.action).collect();
    assert_eq!(done.join(" "), "install pin pin update update pin unpin rollback");
}

#[tokio::test]
async fn grants_say_what_is_granted_and_why_the_rest_is_not() {
    let place = Place::new().await;
    let (home, acme) = (&place.home, &place.acme);
    let asks = "[permissions]\nkv = true\nenv = ['A', 'B']\nsecrets = ['s']\nnet = ['*.x.org:443']";
    let path = place.pack("acme.a", "1.0.0", asks);
    place.trust(acme, TrustLevel::Medium).await;
    let granted = serde_json::json!({ "env": ["A"], "secrets": ["s"], "net": ["a.x.org:443"] });
    let offer = Offer { grant: Some(permissions(granted)), ..offered(&path, Way::Signed(acme)) };
    home.install([offer], options()).await.unwrap();
    let joined = |it: &Installed| {
        let it = it.grants();
        [it.asks, it.granted, it.not_granted, it.withheld].map(|list| list.join(", "))
    };
    let asks = "net \"*.x.org:443\", env \"A\", env \"B\", secrets \"s\", kv";
    let now = home.show("acme.a").await.unwrap();
    assert_eq!(
        joined(&now),
        [asks, "net \"a.x.org:443\", env \"A\", secrets \"s\"", "net \"*.x.org:443\", env \"B\", kv", "",]
    );
    // What a level no longer lets it have it does not have, whatever it was granted.
    home.distrust(&acme.public().to_string(), ME).await.unwrap();
    let now = home.show("acme.a").await.unwrap();
    assert_eq!(
        joined(&now),
        [asks, "net \"a.x.org:443\", env \"A\"", "net \"*.x.org:443\", env \"B\", kv", "secrets \"s\"",]
    );
    assert_eq!((now.grants().trust, now.grants().state), (TrustLevel::Untrusted, InstalledState::Disabled));
}
