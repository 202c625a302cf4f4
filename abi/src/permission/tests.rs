use proptest::prelude::*;

use super::pattern::Pattern;
use super::{
    Access, CallPattern, DataPattern, FsMode, FsPermission, NetPattern, Permissions, StorePattern,
    TopicPattern, normal,
};
use crate::limits::Span;

fn call(text: &str) -> CallPattern {
    CallPattern::try_from(text.to_owned()).unwrap()
}

fn net(text: &str) -> NetPattern {
    NetPattern::try_from(text.to_owned()).unwrap()
}

fn store(text: &str) -> StorePattern {
    StorePattern::try_from(text.to_owned()).unwrap()
}

fn data(text: &str) -> DataPattern {
    DataPattern::try_from(text.to_owned()).unwrap()
}

fn fs(path: &str, mode: FsMode) -> FsPermission {
    FsPermission { path: path.to_owned(), mode }
}

fn of(calls: &[&str], env: &[&str]) -> Permissions {
    Permissions {
        call: calls.iter().map(|text| call(text)).collect(),
        env: env.iter().map(|name| (*name).to_owned()).collect(),
        ..Permissions::default()
    }
}

#[test]
fn intersection_is_what_both_allow() {
    let cases = [
        (of(&["*"], &["A", "B"]), of(&["a.b/m"], &["B"]), of(&["a.b/m"], &["B"])),
        (of(&["a.b/*"], &[]), of(&["*/m"], &["A"]), of(&["a.b/m"], &[])),
        (of(&["a.b/*"], &["A"]), of(&["a.c/*"], &["B"]), of(&[], &[])),
        (of(&["a.b/m"], &["A"]), Permissions::default(), Permissions::default()),
        (of(&["*", "a.b/m"], &[]), of(&["a.b/*", "a.b/m"], &[]), of(&["a.b/*"], &[])),
    ];
    for (ours, theirs, expected) in cases {
        assert_eq!(ours.intersect(&theirs), expected, "{ours:?} and {theirs:?}");
        assert_eq!(theirs.intersect(&ours), expected, "{theirs:?} and {ours:?}");
    }
}

#[test]
fn revoking_takes_whole_entries() {
    let cases = [
        (of(&["a.b/m", "a.c/*"], &["A"]), of(&["a.c/*"], &[]), Ok(of(&["a.b/m"], &["A"]))),
        (of(&["a.b/m", "a.c/*"], &["A"]), of(&["*"], &["A"]), Ok(of(&[], &[]))),
        (of(&["a.b/m"], &["A"]), of(&["a.d/*"], &["B"]), Ok(of(&["a.b/m"], &["A"]))),
        (of(&["a.b/*"], &[]), of(&["a.b/m"], &[]), Err(vec!["call \"a.b/*\"".to_owned()])),
    ];
    for (held, gone, expected) in cases {
        assert_eq!(held.without(&gone), expected, "{held:?} without {gone:?}");
    }
    let held = Permissions {
        net: vec![net("*.example.org:443")],
        fs: vec![fs("data", FsMode::ReadWrite)],
        clock: Some(Span(std::time::Duration::from_millis(1))),
        kv: true,
        ..Permissions::default()
    };
    assert_eq!(held.without(&held), Ok(Permissions::default()));
    let narrower = Permissions { fs: vec![fs("data/a", FsMode::ReadOnly)], ..Permissions::default() };
    assert_eq!(held.without(&narrower), Err(vec!["fs \"data rw\"".to_owned()]));
}

#[test]
fn what_goes_beyond_is_named() {
    let most = Permissions {
        call: vec![call("a.b/*")],
        net: vec![net("*.example.org:443")],
        fs: vec![fs("data", FsMode::ReadOnly)],
        emit: vec![TopicPattern("doc.*".to_owned())],
        ..Permissions::default()
    };
    let asked = Permissions {
        call: vec![call("a.b/m"), call("*")],
        net: vec![net("x.example.org:443"), net("example.org:443")],
        fs: vec![fs("data/a", FsMode::ReadOnly), fs("data", FsMode::ReadWrite)],
        emit: vec![TopicPattern("doc.new".to_owned()), TopicPattern("*".to_owned())],
        kv: true,
        ..Permissions::default()
    };
    let named = ["call \"*\"", "net \"example.org:443\"", "fs \"data rw\"", "emit \"*\"", "kv"];
    assert_eq!(asked.beyond(&most), named);
    assert!(most.beyond(&most.union(&asked)).is_empty());
}

#[test]
fn call_patterns() {
    let cases = [
        ("*", "a.b", "m", true),
        ("a.b/*", "a.b", "m", true),
        ("a.b/*", "a.c", "m", false),
        ("a.b/m", "a.b", "m", true),
        ("a.b/m", "a.b", "n", false),
        ("*/m", "x.y", "m", true),
    ];
    for (text, extension, method, allows) in cases {
        let pattern = call(text);
        assert_eq!(pattern.allows(extension, method), allows, "{text} {extension} {method}");
        assert_eq!(String::from(pattern), text);
    }
    for text in ["", "a.b", "a/m", "a.b/"] {
        assert!(CallPattern::try_from(text.to_owned()).is_err(), "{text}");
    }
}

#[test]
fn net_patterns() {
    let cases = [
        ("api.example.org:443", "api.example.org", 443, true),
        ("api.example.org:443", "API.Example.ORG.", 443, true),
        ("api.example.org:443", "api.example.org", 80, false),
        ("api.example.org:*", "api.example.org", 80, true),
        ("api.example.org:*", "api.example.org", 0, false),
        ("*.example.org:443", "a.b.example.org", 443, true),
        ("*.example.org:443", "example.org", 443, false),
        ("*.example.org:443", ".example.org", 443, false),
        ("*.example.org:443", "badexample.org", 443, false),
        ("*.example.org:443", "a.example.org.evil.test", 443, false),
        ("*:443", "203.0.113.7", 443, true),
        ("*:*", "", 443, false),
        ("127.0.0.1:80", "127.0.0.1", 80, true),
        ("127.0.0.1:80", "127.1", 80, false),
        ("[::1]:80", "0:0:0:0:0:0:0:1", 80, true),
        ("[::1]:80", "[::1]", 80, true),
        ("[::1]:80", "::2", 80, false),
    ];
    for (text, host, port, allows) in cases {
        assert_eq!(net(text).allows(host, port), allows, "{text} {host} {port}");
        assert_eq!(net(text).to_string(), text);
    }
    for text in [
        "", "a", "a:", ":80", "a:0", "a:65536", "a:+1", "a b:1", "*a:1", "*.:1", "*.0.1:1", "::1:80", "[x]:1",
    ] {
        assert!(NetPattern::try_from(text.to_owned()).is_err(), "{text}");
    }
}

#[test]
fn paths() {
    use FsMode::{ReadOnly as Ro, ReadWrite as Rw};
    let cases = [
        ("data", Ro, "data", Ro, true),
        ("data", Ro, "data/a/b", Ro, true),
        ("data/", Ro, "./data//a", Ro, true),
        ("data", Ro, "data", Rw, false),
        ("data", Rw, "data/a", Ro, true),
        ("data", Ro, "database", Ro, false),
        ("data", Ro, "data/../secret", Ro, false),
        ("data", Ro, "x/../data/a", Ro, true),
        (".", Ro, "any/thing", Ro, true),
        (".", Ro, "../outside", Ro, false),
        (".", Ro, "/etc/passwd", Ro, false),
        ("/", Ro, "/etc/passwd", Ro, true),
        ("/", Ro, "etc", Ro, false),
        ("/srv/a", Ro, "/srv/a/../b", Ro, false),
        ("/srv/a", Ro, "/../srv/a", Ro, false),
        ("", Rw, "data", Ro, false),
        ("..", Rw, "data", Ro, false),
        ("data", Ro, "data\\..\\secret", Ro, false),
        ("data", Ro, "data/\0", Ro, false),
    ];
    for (ours, granted, path, wanted, allows) in cases {
        assert_eq!(fs(ours, granted).allows(path, wanted), allows, "{ours} {granted} {path} {wanted}");
    }
}

#[test]
fn every_access_has_its_permission() {
    let all = Permissions {
        call: vec![CallPattern::ALL],
        net: vec![net("*:*")],
        fs: vec![fs("/", FsMode::ReadWrite)],
        env: vec!["LANG".to_owned()],
        subprocess: vec!["git".to_owned()],
        secrets: vec!["token".to_owned()],
        emit: vec![TopicPattern("doc.*".to_owned())],
        subscribe: vec![TopicPattern("doc.new".to_owned())],
        hooks: vec![TopicPattern("plan.*".to_owned())],
        sensitive: vec![TopicPattern("plan.before:token".to_owned())],
        api: vec![TopicPattern("plan.*".to_owned())],
        kv: true,
        stores: vec![store("orders:ro"), store("cache:rw")],
        data: vec![data("customers:name,city"), data("log:*")],
        clock: Some(Span(std::time::Duration::from_millis(1))),
    };
    let (ro, rw) = (FsMode::ReadOnly, FsMode::ReadWrite);
    let clock = |us| Access::Clock(Span(std::time::Duration::from_micros(us)));
    let cases = [
        (Access::Call { extension: "a.b", method: "m" }, true, "call = [\"a.b/m\"]"),
        (Access::Net { host: "h", port: 1 }, true, "net = [\"h:1\"]"),
        (Access::Net { host: "::1", port: 1 }, true, "net = [\"[::1]:1\"]"),
        (Access::Fs { path: "/x", mode: FsMode::ReadWrite }, true, "fs = [{ path = \"/x\", mode = \"rw\" }]"),
        (Access::Env("LANG"), true, "env = [\"LANG\"]"),
        (Access::Env("HOME"), false, "env = [\"HOME\"]"),
        (Access::Subprocess("git"), true, "subprocess = [\"git\"]"),
        (Access::Subprocess("sh"), false, "subprocess = [\"sh\"]"),
        (Access::Secret("token"), true, "secrets = [\"token\"]"),
        (Access::Secret("other"), false, "secrets = [\"other\"]"),
        (Access::Emit("doc.gone"), true, "emit = [\"doc.gone\"]"),
        (Access::Emit("docs"), false, "emit = [\"docs\"]"),
        (Access::Subscribe("doc.new"), true, "subscribe = [\"doc.new\"]"),
        (Access::Subscribe("doc.gone"), false, "subscribe = [\"doc.gone\"]"),
        (Access::Hook("plan.before"), true, "hooks = [\"plan.before\"]"),
        (Access::Hook("role.before"), false, "hooks = [\"role.before\"]"),
        (Access::Sensitive("plan.before:token"), true, "sensitive = [\"plan.before:token\"]"),
        (Access::Sensitive("plan.before:key"), false, "sensitive = [\"plan.before:key\"]"),
        (Access::Api("plan.analyse"), true, "api = [\"plan.analyse\"]"),
        (Access::Api("role.analyse"), false, "api = [\"role.analyse\"]"),
        (Access::Kv, true, "kv = true"),
        (Access::Store { name: "orders", mode: ro }, true, "stores = [\"orders:ro\"]"),
        (Access::Store { name: "orders", mode: rw }, false, "stores = [\"orders:rw\"]"),
        (Access::Store { name: "cache", mode: ro }, true, "stores = [\"cache:ro\"]"),
        (Access::Store { name: "cache", mode: rw }, true, "stores = [\"cache:rw\"]"),
        (Access::Store { name: "other", mode: ro }, false, "stores = [\"other:ro\"]"),
        (Access::Data { source: "customers", field: "city" }, true, "data = [\"customers:city\"]"),
        (Access::Data { source: "customers", field: "email" }, false, "data = [\"customers:email\"]"),
        (Access::Data { source: "log", field: "line" }, true, "data = [\"log:line\"]"),
        (clock(1000), true, "clock = \"1ms\""),
        (clock(1), false, "clock = \"1us\""),
    ];
    for (access, allowed, request) in cases {
        assert_eq!(all.allows(&access), allowed, "{access}");
        assert!(!Permissions::default().allows(&access), "{access}");
        assert_eq!(access.request(), request);
        let asked = toml::from_str::<Permissions>(request).unwrap();
        assert!(asked.allows(&access), "{access}");
    }
}

fn hosts() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a.test", "b.a.test", "c.b.a.test", "ba.test", "x", "10.0.0.1", "::1"])
        .prop_map(str::to_owned)
}

fn net_entries() -> impl Strategy<Value = NetPattern> {
    let host = prop::sample::select(vec!["*", "*.a.test", "*.b.a.test", "a.test", "b.a.test", "x", "[::1]"]);
    let port = prop::sample::select(vec!["*", "80", "443"]);
    (host, port).prop_map(|(host, port)| net(&format!("{host}:{port}")))
}

fn some_path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "..", ".", "", "ab"]);
    (any::<bool>(), prop::collection::vec(part, 1..6))
        .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
}

fn fs_entries() -> impl Strategy<Value = FsPermission> {
    let mode = prop::sample::select(vec![FsMode::ReadOnly, FsMode::ReadWrite]);
    (some_path(), mode).prop_map(|(path, mode)| fs(&path, mode))
}

fn topics() -> impl Strategy<Value = String> {
    "[ab.*]{0,4}"
}

proptest! {
    #[test]
    fn net_meets_where_both_allow(a in net_entries(), b in net_entries(), host in hosts(), port in 79_u16..82) {
        let both = a.meet(&b).is_some_and(|both| both.allows(&host, port));
        prop_assert_eq!(both, a.allows(&host, port) && b.allows(&host, port));
        if a.covers(&b) && b.allows(&host, port) {
            prop_assert!(a.allows(&host, port));
        }
    }

    #[test]
    fn any_text_is_a_net_pattern_or_an_error(text in "\\PC{0,40}", host in "\\PC{0,20}") {
        if let Ok(pattern) = NetPattern::try_from(text) {
            let again = net(&pattern.to_string());
            prop_assert_eq!(again.allows(&host, 80), pattern.allows(&host, 80));
        }
    }

    #[test]
    fn fs_meets_where_both_allow(a in fs_entries(), b in fs_entries(), path in some_path()) {
        for mode in [FsMode::ReadOnly, FsMode::ReadWrite] {
            let both = a.meet(&b).is_some_and(|both| both.allows(&path, mode));
            prop_assert_eq!(both, a.allows(&path, mode) && b.allows(&path, mode));
            if a.covers(&b) && b.allows(&path, mode) {
                prop_assert!(a.allows(&path, mode));
            }
        }
    }

    #[test]
    fn nothing_leaves_where_it_starts(path in "[a./\\\\]{0,16}", folder in "[a/]{1,4}") {
        if let Some(clean) = normal(&path) {
            prop_assert!(!clean.split('/').any(|part| part == ".."), "{clean}");
            prop_assert_eq!(clean.starts_with('/'), path.starts_with('/'));
            prop_assert_eq!(normal(&clean), Some(clean.clone()));
        }
        let below = format!("{folder}/{path}");
        if fs(&folder, FsMode::ReadOnly).allows(&below, FsMode::ReadOnly) {
            // The standard library's view of the same path, with each `..` taken at its word.
            let mut resolved = std::path::PathBuf::new();
            for part in std::path::Path::new(&below).components() {
                match part {
                    std::path::Component::ParentDir => drop(resolved.pop()),
                    std::path::Component::CurDir => {}
                    other => resolved.push(other),
                }
            }
            prop_assert!(resolved.starts_with(normal(&folder).unwrap()), "{below}");
        }
    }

    #[test]
    fn topics_meet_where_both_allow(a in topics(), b in topics(), topic in "[ab.]{0,4}") {
        let (a, b) = (TopicPattern(a), TopicPattern(b));
        let both = a.meet(&b).is_some_and(|both| both.allows(&topic));
        prop_assert_eq!(both, a.allows(&topic) && b.allows(&topic), "{} {} {}", a, b, topic);
    }
}

#[test]
fn stores_and_data_are_named() {
    for text in ["orders", "orders:", ":ro", "orders:r", "orders:RW", "a b:ro", "*:ro", "a:b:ro", "a,b:ro"] {
        assert!(StorePattern::try_from(text.to_owned()).is_err(), "{text}");
    }
    for text in ["customers", "customers:", ":a", "customers:a,", "customers:*,a", "c:a:b", "c:a b", "*:a"] {
        assert!(DataPattern::try_from(text.to_owned()).is_err(), "{text}");
    }
    assert!(StorePattern::try_from(format!("{}:ro", "x".repeat(129))).is_err());
    assert_eq!(data("customers:name, city,name").to_string(), "customers:city,name");
    // What both cover.
    let stores = [("a:ro", "a:rw", Some("a:ro")), ("a:rw", "a:rw", Some("a:rw")), ("a:ro", "b:ro", None)];
    for (ours, theirs, both) in stores {
        assert_eq!(store(ours).meet(&store(theirs)), both.map(store), "{ours} {theirs}");
        assert_eq!(store(theirs).meet(&store(ours)), both.map(store), "{theirs} {ours}");
    }
    let sources = [
        ("c:a,b", "c:b,d", Some("c:b")),
        ("c:a", "c:*", Some("c:a")),
        ("c:*", "c:*", Some("c:*")),
        ("c:a", "c:b", None),
        ("c:a", "d:a", None),
    ];
    for (ours, theirs, both) in sources {
        assert_eq!(data(ours).meet(&data(theirs)), both.map(data), "{ours} {theirs}");
        assert_eq!(data(theirs).meet(&data(ours)), both.map(data), "{theirs} {ours}");
    }
    assert!(data("c:*").covers(&data("c:a")) && !data("c:a").covers(&data("c:*")));
}

#[test]
fn the_list_of_names_has_each_permission() {
    let all = serde_json::to_value(Permissions::default()).unwrap();
    let mut names: Vec<&str> = all.as_object().unwrap().keys().map(String::as_str).collect();
    let mut listed = Permissions::NAMES;
    names.sort_unstable();
    listed.sort_unstable();
    assert_eq!(names, listed);
    let some: Permissions = serde_json::from_value(serde_json::json!({
        "kv": true, "env": ["A"], "secrets": ["s"], "clock": "1ms", "stores": ["a:ro"], "data": ["c:a"],
    }))
    .unwrap();
    assert_eq!(some.only(|_| true), some);
    assert_eq!(some.only(|_| false), Permissions::default());
    for kept in Permissions::NAMES {
        let left = some.only(|name| name == kept);
        let expected: Vec<&str> = some.requested().filter(|name| *name == kept).collect();
        assert_eq!(left.requested().collect::<Vec<_>>(), expected);
    }
}
