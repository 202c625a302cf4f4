use super::{Check, Manifest, ManifestError};

const GOOD: &str = r#"
[extension]
id = "acme.hello"
version = "1.2.3"
display_name = "Hello"
description = "Greets"
license = "Apache-2.0 OR MIT"
authors = ["A <a@example.org>"]
homepage = "https://example.org"
repository = "https://example.org/git"
type = "service"
category = "demo"
tags = ["a", "b"]

[runtime]
kind = "webassembly"
entry = "build/main.wasm"
api = "^0.1"
isolation = "in-process"
concurrency = 4

[host]
min = "0.1.0"
max = "1.0.0"

[dependencies]
"acme.base" = "^1"
"acme.words" = { version = "^2", contract = "contracts/acme.words.json" }

[optional-dependencies]
"acme.extra" = ">=1, <3"

[capabilities]
provides = ["greeter@1.0.0"]
requires = ["tokenizer@^1"]
contracts = { tokenizer = "contracts/tokenizer.json" }

[permissions]
call = ["acme.base/*"]
net = ["api.example.org:443"]
fs = [{ path = "data", mode = "ro" }]
env = ["LANG"]
kv = true
clock = "1ms"

[limits]
memory = "64MiB"
call-timeout = "5s"
cpu-share = 0.5

[hooks."plan.before"]
method = "check"
mode = "validate"
on-failure = "closed"
deadline = "20ms"
after = ["acme.base"]
priority = -5

[api.plan.analyse]
method = "analyse"
description = "Looks at a plan"

[contract]
check = "both"
methods.analyse = { idempotent = true }

[schedule.tidy]
method = "tidy"
cron = "30 3 * * *"
jitter = "10min"

[config]
schema = { type = "object" }
defaults = { greeting = "hello" }
"#;

fn parse(text: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(text, "quadriga.toml")
}

#[test]
fn reads_every_section() {
    let manifest = parse(GOOD).unwrap();
    assert_eq!(manifest.extension.id.as_str(), "acme.hello");
    assert_eq!(manifest.runtime.concurrency.unwrap().get(), 4);
    assert_eq!(manifest.hooks["plan.before"].priority, -5);
    assert_eq!(manifest.api["plan"]["analyse"].method, "analyse");
    assert_eq!(manifest.config.defaults["greeting"].as_str(), Some("hello"));
    assert_eq!(manifest.requires().next().unwrap().0, "tokenizer");
    let words = &manifest.dependencies["acme.words"];
    assert_eq!(words.contract.as_ref().unwrap().to_string(), "contracts/acme.words.json");
    assert_eq!(manifest.contract.check, Check::Both);
    assert!(manifest.contract.methods["analyse"].idempotent);
}

#[test]
fn written_out_it_reads_back() {
    let manifest = parse(GOOD).unwrap();
    let json = serde_json::to_value(&manifest).unwrap();
    assert_eq!(serde_json::from_value::<Manifest>(json).unwrap(), manifest);
}

/// Each case replaces one line of the good manifest; the error must point at that line and say
/// the words.
#[test]
fn errors_name_place_and_expectation() {
    let cases = [
        (r#"id = "acme.hello""#, r#"id = "Acme""#, 6, "publisher.name"),
        (r#"version = "1.2.3""#, r#"version = "1.2""#, 11, "expected a semantic version"),
        (r#"license = "Apache-2.0 OR MIT""#, r#"license = "Apache 2""#, 11, "expected an SPDX licence"),
        (r#"category = "demo""#, r#"colour = "red""#, 1, "unknown field `colour`, expected one of"),
        (
            r#"type = "service""#,
            r#"type = "gadget""#,
            8,
            "unknown variant `gadget`, expected one of `protocol`",
        ),
        (r#"tags = ["a", "b"]"#, r#"tags = ["a", "a"]"#, 8, "\"a\" is a duplicate"),
        (r#"tags = ["a", "b"]"#, r#"category = "again""#, 1, "duplicate key"),
        (r#"entry = "build/main.wasm""#, r#"entry = "../main.wasm""#, 9, "leaves the package"),
        (r#"entry = "build/main.wasm""#, r#"entry = "/main.wasm""#, 9, "leaves the package"),
        (r#"entry = "build/main.wasm""#, r#"entry = 5"#, 9, "expected a string"),
        (r#"api = "^0.1""#, r#"api = "new""#, 7, "expected a range of semantic versions"),
        (r#"concurrency = 4"#, r#"concurrency = 0"#, 15, "nonzero"),
        (r#"isolation = "in-process""#, r#"isolation = "strong""#, 13, "expected one of `none`"),
        (r#"max = "1.0.0""#, r#"max = "0.0.1""#, 7, "older than min"),
        (r#""acme.base" = "^1""#, r#""acme.hello" = "^1""#, 16, "depends on itself"),
        (r#""acme.extra" = ">=1, <3""#, r#""acme.base" = "1""#, 15, "is a duplicate"),
        (r#"version = "^2","#, r#"version = "two","#, 28, "expected a range of semantic versions"),
        (r#"version = "^2","#, r#"versions = "^2","#, 18, "unknown field `versions`"),
        (r#"contract = "contracts/acme.words.json""#, r#"contract = "../x.json""#, 45, "leaves the package"),
        (r#""acme.base" = "^1""#, r#""acme.base" = 1"#, 15, "expected a range of versions, or a table"),
        (r#"contracts = { tokenizer ="#, r#"contracts = { stemmer ="#, 25, "not among the capabilities"),
        (r#"{ idempotent = true }"#, r#"{ idempotent = "yes" }"#, 34, "expected a boolean"),
        (r#"{ idempotent = true }"#, r#"{ idempotnt = true }"#, 21, "unknown field `idempotnt`"),
        (r#"cron = "30 3 * * *""#, r#"cron = "30 3""#, 8, "is no time for cron"),
        (r#"cron = "30 3 * * *""#, r#"every = "10ms""#, 9, "expected \"1s\" or more"),
        (r#"check = "both""#, r#"check = "all""#, 9, "unknown variant `all`, expected one of `none`"),
        (r#"provides = ["greeter@1.0.0"]"#, r#"provides = ["greeter"]"#, 12, "expected name@version"),
        (r#"requires = ["tokenizer@^1"]"#, r#"requires = ["tokenizer@one"]"#, 12, "expected name@version"),
        (r#"call = ["acme.base/*"]"#, r#"call = ["acme"]"#, 8, "no call permission"),
        (
            r#"fs = [{ path = "data", mode = "ro" }]"#,
            r#"fs = [{ path = "data", mode = "x" }]"#,
            31,
            "expected `ro` or `rw`",
        ),
        (
            r#"fs = [{ path = "data", mode = "ro" }]"#,
            r#"fs = [{ path = "../data", mode = "ro" }]"#,
            6,
            "leaves where it starts",
        ),
        (r#"env = ["LANG"]"#, r#"subprocess = ["./tool"]"#, 14, "is no program: expected a plain name"),
        (r#"env = ["LANG"]"#, r#"subprocess = ["/bin/../tool"]"#, 14, "is no program"),
        (r#"net = ["api.example.org:443"]"#, r#"net = ["api.example.org"]"#, 7, "it has no port"),
        (r#"memory = "64MiB""#, r#"memory = "64 MB""#, 10, "is no size"),
        (r#"call-timeout = "5s""#, r#"call-timeout = "soon""#, 16, "is no time span"),
        (r#"cpu-share = 0.5"#, r#"cpu-share = -1.0"#, 13, "above 0"),
        (r#"priority = -5"#, r#"priority = "high""#, 12, "expected i32"),
        (
            r#"mode = "validate""#,
            r#"mode = "decide""#,
            8,
            "unknown variant `decide`, expected one of `observe`",
        ),
        (r#"on-failure = "closed""#, r#"on-failure = "ajar""#, 14, "unknown variant `ajar`"),
        (r#"deadline = "20ms""#, r#"deadline = "soon""#, 12, "is no time span"),
    ];
    for (good, bad, column, words) in cases {
        assert!(GOOD.contains(good), "{good}");
        let error = parse(&GOOD.replacen(good, bad, 1)).expect_err(bad);
        let line = 1 + GOOD[..GOOD.find(good).unwrap()].matches('\n').count();
        assert!(error.message.contains(words), "{bad}: {error}");
        assert_eq!((error.line, error.column), (line, column), "{error}");
        assert!(error.to_string().starts_with(&format!("quadriga.toml:{line}:{column}: ")));
    }
}

#[test]
fn missing_sections_are_named() {
    for (text, words) in [
        ("", "missing field `extension`"),
        ("[extension]\nid = 'a.b'\nversion = '1.0.0'\n", "missing field `runtime`"),
        ("[extension\n", "unclosed table"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.message.contains(words), "{error}");
    }
}

#[test]
fn schema_accepts_what_the_parser_names() {
    let schema = Manifest::json_schema();
    let properties = schema["properties"].as_object().unwrap();
    for section in
        ["extension", "runtime", "host", "dependencies", "permissions", "limits", "hooks", "events", "api"]
    {
        assert!(properties.contains_key(section), "{section}");
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn dependencies_name_methods_and_shapes() {
    let text = r#"
        extension = { id = "a.b", version = "1.0.0" }
        runtime = { kind = "x", entry = "x" }
        [dependencies."a.c"]
        version = "1"
        methods.split = { output = { type = "array", items = { type = "string" } } }
    "#;
    let manifest = parse(text).unwrap();
    let needed = &manifest.dependencies["a.c"].methods["split"];
    assert_eq!(needed.output.as_ref().unwrap()["items"]["type"], "string");
    let json = serde_json::to_value(&manifest).unwrap();
    assert_eq!(serde_json::from_value::<Manifest>(json).unwrap(), manifest);
}

#[test]
fn either_may_ask_for_checks() {
    use Check::{Arguments, Both, None, Results};
    for (a, b, both) in
        [(None, None, None), (None, Results, Results), (Arguments, Results, Both), (Both, None, Both)]
    {
        assert_eq!((a.or(b), b.or(a)), (both, both));
    }
}

proptest::proptest! {
    #[test]
    fn any_text_parses_or_fails(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }
}

#[test]
fn hooks_say_what_their_mode_needs() {
    // What follows `method`, and the error, if any.
    let table = [
        ("", ""),
        ("wait = true", ""),
        ("on-failure = 'open'", ""),
        ("wait = true\non-failure = 'closed'", ""),
        ("mode = 'modify'\non-failure = 'open'", ""),
        ("mode = 'validate'\non-failure = 'closed'", ""),
        ("on-failure = 'closed'", "nobody waits for it"),
        ("mode = 'modify'", "on-failure is missing"),
        ("mode = 'validate'", "on-failure is missing"),
        ("mode = 'modify'\non-failure = 'open'\nwait = true", "the host waits anyway"),
        ("mode = 'around'\non-failure = 'closed'", ""),
        ("mode = 'around'", "on-failure is missing"),
        ("mode = 'around'\non-failure = 'open'\nwait = true", "the host waits anyway"),
        ("mode = 'beside'", "unknown variant `beside`"),
    ];
    let head = "[extension]\nid = 'a.b'\nversion = '1.0.0'\n[runtime]\nkind = 'x'\nentry = 'x'\n";
    for (more, words) in table {
        match parse(&format!("{head}[hooks.'plan.before']\nmethod = 'm'\n{more}\n")) {
            Ok(_) => assert_eq!(words, "", "{more}"),
            Err(error) => {
                assert!(!words.is_empty() && error.message.contains(words), "{more}: {error}");
                assert!(error.line > 7, "{error}");
            }
        }
    }
    let error = parse(&format!("{head}[hooks.'plan.*']\nmethod = 'm'\n")).unwrap_err();
    assert!(error.message.contains("\"plan.*\" is no hook point") && error.line == 7, "{error}");
}
