//! A host that runs a home, and what operators ask it, by command.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use quadriga_tests::with;
use serde_json::{Value as Json, json};

use crate::cli::command;
use crate::manage::Place;

/// A host that runs the home of a place, and what it says.
pub(crate) struct Running {
    pub(crate) child: Child,
    events: BufReader<ChildStdout>,
    /// `ADDRESS:PORT` of its metrics.
    address: String,
}

impl Running {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_with(place, &[])
    }

    fn start_with(place: &Place, more: &[&str]) -> Self {
        let mut command = command();
        // Paths that clients name are not relative to where it is.
        command.current_dir(std::env::temp_dir()).env("QUADRIGA_HOME", place.home());
        command.args(["run", "--metrics", "0", "--json", "--drain", "2s"]).args(more);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let events = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, events, address: String::new() };
        let metrics = running.until("metrics");
        let url = metrics["url"].as_str().unwrap();
        running.address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().to_owned();
        running.until("ready");
        running
    }

    /// Reads what it says up to an event.
    fn until(&mut self, event: &str) -> Json {
        loop {
            let mut line = String::new();
            assert!(self.events.read_line(&mut line).unwrap() > 0, "it ended before {event}");
            let said: Json = serde_json::from_str(&line).unwrap();
            if said["event"] == event {
                return said;
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &process]).status().unwrap().success());
    }

    /// Ends it with a signal, and returns its exit code.
    pub(crate) fn end(mut self, name: &str) -> Option<i32> {
        self.signal(name);
        self.until("stopped");
        self.child.wait().unwrap().code()
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.http(&format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n"))
    }

    /// Sends a request, and returns status and body of the answer.
    fn http(&self, request: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A home with two extensions that are enabled, in two languages.
fn place() -> Place {
    let place = Place::new();
    let packages = ["js", "python"].map(|language| place.package(language, "0.1.0"));
    place.json(&["install", &packages[0], &packages[1], "--enable", "--grant", "requested"]);
    place
}

#[test]
fn what_is_not_called_is_not_loaded_and_the_clock_calls_too() {
    let place = Place::new();
    let packages = ["js", "python", "wasm", "native"].map(|language| place.package(language, "0.1.0"));
    for package in &packages {
        place.json(&["install", package, "--enable", "--grant", "requested"]);
    }
    let folder = place.0.path().join("clock");
    fs::create_dir(&folder).unwrap();
    let manifest = "[extension]\nid = 'test.clock'\nversion = '1.0.0'\n[runtime]\nkind = 'javascript'\n\
                    entry = 'main.js'\n[schedule.beat]\nmethod = 'beat'\nevery = '1s'\n";
    fs::write(folder.join("quadriga.toml"), manifest).unwrap();
    fs::write(folder.join("main.js"), "export const beat = ({ job, missed }) => `${job} ${missed}`;\n")
        .unwrap();
    let built = place.json(&["pack", folder.to_str().unwrap()]);
    place.json(&["install", built["package"].as_str().unwrap(), "--enable"]);
    let running = Running::start_with(&place, &["--lazy"]);
    let states = |place: &Place| {
        let status = place.json(&["status"]);
        let all = status["extensions"].as_array().unwrap().iter();
        all.map(|it| (it["id"].as_str().unwrap().to_owned(), it["state"].as_str().unwrap().to_owned()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = states(&place);
    let greeters = ["hello.js", "hello.native", "hello.python", "hello.wasm"];
    assert!(greeters.iter().all(|id| before[*id] == "asleep"), "{before:?}");
    assert_eq!(place.json(&["health"])["ready"], true);
    for id in greeters {
        let call = json!({ "v": 1, "request": "call", "id": id, "method": "greet", "arguments": ["Ada"] });
        let answer = ask(&place, &call)["answer"].clone();
        assert!(answer.as_str().is_some_and(|it| it.starts_with("Hello, Ada")), "{id}: {answer}");
        assert_eq!(states(&place)[id], "running");
    }
    let job = || place.json(&["jobs", "test.clock"])[0].clone();
    let begun = std::time::Instant::now();
    while job()["runs"] == 0 {
        assert!(begun.elapsed().as_secs() < 60, "{}", job());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!((&job()["failures"], &job()["when"]), (&json!(0), &json!("every 1s")));
    assert_eq!(states(&place)["test.clock"], "running");
    assert!(place.run(&["jobs"]).1.contains("test.clock"));
    assert_eq!(place.fails(&["jobs", "test.clok"]), "unknown_extension");
    assert_eq!(running.end("-TERM"), Some(0));
}

pub(crate) fn socket(place: &Place) -> PathBuf {
    place.home().join("run/host.sock")
}

/// Asks over the socket as any program can.
pub(crate) fn ask(place: &Place, request: &Json) -> Json {
    let mut client = UnixStream::connect(socket(place)).unwrap();
    client.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_home_runs_until_it_is_told_to_end() {
    let place = place();
    for command in [&["status"][..], &["health"], &["metrics"], &["top"], &["reload", "hello.js"]] {
        assert_eq!(place.fails(command), "host_not_running");
    }
    let (_, _, said) = place.run(&["status"]);
    assert!(said.contains("hint: start one: quadriga run --home"), "{said}");
    let running = Running::start(&place);
    assert_eq!((mode(&socket(&place)), mode(socket(&place).parent().unwrap())), (0o600, 0o700));
    let status = place.json(&["status"]);
    assert_eq!((&status["process"], &status["started"]), (&json!(running.child.id()), &json!(true)));
    let states: Vec<(&str, &str)> = status["extensions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["id"].as_str().unwrap(), it["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states, [("hello.js", "running"), ("hello.python", "running")]);
    let call = json!({
        "v": 1, "request": "call", "id": "hello.python", "method": "greet", "arguments": ["Ada"],
    });
    assert_eq!(ask(&place, &call)["answer"], "Hello, Ada");
    let one = place.json(&["status", "hello.python"]);
    assert_eq!((&one["metrics"]["calls"], &one["isolation"]), (&json!(1), &json!("process")));
    assert_eq!(place.json(&["metrics", "hello.python"])[0]["methods"]["greet"]["calls"], 1);
    assert!(place.run(&["metrics"]).1.contains("hello.python"));
    let (code, said, _) = place.run(&["health"]);
    assert_eq!((code, said.matches(" ready ").count()), (Some(0), 2), "{said}");
    assert_eq!(place.fails(&["status", "hello.jss"]), "unknown_extension");
    // Reloads are for one generation after the other.
    let before = one["generation"].as_u64().unwrap();
    assert!(place.json(&["reload", "hello.python"])["generation"].as_u64().unwrap() > before);
    // Whoever wants to run the home too is told who does.
    assert_eq!(place.fails(&["run"]), "home_in_use");
    let (_, _, said) = place.run(&["run"]);
    assert!(said.contains("hint: a host runs it already: end that first"), "{said}");
    assert_eq!(running.end("-TERM"), Some(0));
    assert!(!socket(&place).exists());
    assert_eq!(place.fails(&["status"]), "host_not_running");
    assert_eq!(Running::start(&place).end("-INT"), Some(0));
}

#[test]
fn what_a_killed_host_left_is_replaced() {
    let place = place();
    let mut running = Running::start(&place);
    running.signal("-KILL");
    running.child.wait().unwrap();
    assert!(socket(&place).exists());
    assert_eq!(place.fails(&["status"]), "host_not_running");
    let again = Running::start(&place);
    assert_eq!(place.json(&["status"])["process"], again.child.id());
    assert_eq!(again.end("-TERM"), Some(0));
}

#[test]
fn clients_that_misbehave_hold_nobody_up() {
    let place = place();
    let running = Running::start(&place);
    let say = |bytes: &[u8]| {
        let mut client = UnixStream::connect(socket(&place)).unwrap();
        // It may be sent away before it has said all.
        let _ = client.write_all(bytes);
        client
    };
    let answer = |client: UnixStream| {
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).unwrap();
        serde_json::from_str::<Json>(&line).unwrap()["error"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(answer(say(b"\x00\xff\xfe garbage\n")), "invalid_arguments");
    assert_eq!(answer(say(b"{\"v\":9,\"request\":\"status\"}\n")), "incompatible_version");
    assert_eq!(answer(say(b"{\"v\":1,\"request\":\"dance\"}\n")), "unsupported");
    let endless = vec![b'['; 5 << 20];
    assert_eq!(answer(say(&endless)), "message_too_large");
    drop(say(b"{\"v\":1,\"request\":\"stat"));
    // One connection is for several requests.
    let mut client = say(b"");
    let mut reader = BufReader::new(client.try_clone().unwrap());
    for _ in 0..3 {
        client.write_all(b"{\"v\":1,\"request\":\"health\"}\n").unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Json>(&line).unwrap()["answer"]["ready"], true);
    }
    drop((client, reader));
    // Some say nothing, and some take no answer.
    let idle: Vec<UnixStream> = (0..20).map(|_| say(b"{")).collect();
    let deaf: Vec<UnixStream> =
        (0..20).map(|_| say(&b"{\"v\":1,\"request\":\"status\"}\n".repeat(200))).collect();
    assert_eq!(place.json(&["status"])["started"], true);
    // Beyond a number of them the next is sent away, and told so.
    let more: Vec<UnixStream> = (0..30).map(|_| say(b"")).collect();
    assert_eq!(answer(say(b"")), "overloaded");
    drop((idle, deaf, more));
    let mut tries = 0;
    while place.run(&["status"]).0 != Some(0) {
        tries += 1;
        assert!(tries < 100, "it has no place for anybody any more");
    }
    assert_eq!(running.end("-TERM"), Some(0));
}

#[test]
fn monitoring_systems_read_metrics_and_readiness() {
    let place = place();
    let running = Running::start(&place);
    assert!(running.address.starts_with("127.0.0.1:"), "{}", running.address);
    let call = json!({ "v": 1, "request": "call", "id": "hello.js", "method": "greet", "arguments": "Ada" });
    ask(&place, &call);
    let (status, body) = running.get("/metrics");
    assert_eq!(status, 200);
    let value = |name: &str, labels: &[&str]| {
        let fits = |line: &&str| {
            line.split_once('{')
                .is_some_and(|(there, rest)| there == name && labels.iter().all(|label| rest.contains(label)))
        };
        let line = body.lines().find(fits).unwrap_or_else(|| panic!("no {name} {labels:?} in\n{body}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let greet = ["extension=\"hello.js\"", "method=\"greet\"", "runtime=\"javascript\""];
    assert_eq!(value("quadriga_calls_total", &greet), 1.0);
    assert_eq!(value("quadriga_call_duration_seconds_count", &greet), 1.0);
    assert_eq!(value("quadriga_call_duration_seconds_bucket", &[greet[0], "le=\"+Inf\""]), 1.0);
    assert!(value("quadriga_call_duration_seconds_sum", &greet) > 0.0);
    let python = ["extension=\"hello.python\""];
    assert!(value("quadriga_extension_memory_bytes", &python) > 1e6);
    assert!(value("quadriga_extension_cpu_seconds_total", &python) > 0.0);
    assert_eq!(value("quadriga_extension_ready", &python), 1.0);
    // Each line is a comment, or a sample with a number.
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (name, number) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("quadriga_") && number.parse::<f64>().is_ok(), "{line}");
    }
    assert_eq!(
        place.run(&["metrics", "--prometheus"]).1.matches("# TYPE").count(),
        body.matches("# TYPE").count()
    );
    assert_eq!(running.get("/healthz"), (200, "ok\n".to_owned()));
    let ready = |expected: u16| {
        let (status, body) = running.get("/readyz");
        assert_eq!(status, expected, "{body}");
        serde_json::from_str::<Json>(&body).unwrap()
    };
    assert_eq!(ready(200), json!({ "ready": true, "not-ready": {} }));
    assert_eq!(running.get("/").0, 404);
    let post = "POST /metrics HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(running.http(post).0, 405);
    // One that says nothing holds nobody up.
    let silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(&running.address).unwrap()).collect();
    assert_eq!(running.get("/healthz").0, 200);
    drop(silent);
    assert_eq!(running.end("-TERM"), Some(0));
}

/// Packs an extension that does not start.
fn broken(place: &Place) -> String {
    let broken = place.0.path().join("broken");
    fs::create_dir(&broken).unwrap();
    let manifest = "[extension]\nid = 'a.broken'\nversion = '1.0.0'\n[runtime]\nkind = 'javascript'\nentry = 'main.js'\n";
    fs::write(broken.join("quadriga.toml"), manifest).unwrap();
    fs::write(broken.join("main.js"), "throw new Error('never');\n").unwrap();
    place.json(&["pack", broken.to_str().unwrap()])["package"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_installed_is_listed_by_how_it_does() {
    let place = place();
    place.json(&["disable", "hello.python"]);
    place.json(&["install", &broken(&place), "--enable"]);
    assert_eq!(place.fails(&["list", "--health", "any"]), "host_not_running");
    let running = Running::start(&place);
    let ids = |args: &[&str]| {
        let list = place.json(&[&["list"], args].concat());
        let list = list.as_array().unwrap().iter();
        list.map(|it| (it["id"].as_str().unwrap().to_owned(), it["health"]["ready"].clone()))
            .collect::<Vec<_>>()
    };
    let [broken, js, python] =
        [("a.broken", json!(false)), ("hello.js", json!(true)), ("hello.python", json!(null))]
            .map(|(id, ready)| (id.to_owned(), ready));
    assert_eq!(ids(&["--health", "any"]), [broken.clone(), js.clone(), python]);
    assert_eq!(ids(&["--health", "ready"]), std::slice::from_ref(&js));
    assert_eq!(ids(&["--health", "not-ready"]), [broken]);
    // Together with other filters.
    assert_eq!(ids(&["--health", "ready", "--publisher", "a"]), []);
    assert!(place.json(&["list"])[0].get("health").is_none());
    let said = place.run(&["list", "--health", "any"]).1;
    assert!(said.contains("not ready: did not start: ") && said.contains(" ready"), "{said}");
    assert_eq!(running.end("-TERM"), Some(0));
}

#[test]
fn what_does_not_start_or_is_ill_is_told() {
    let place = Place::new();
    let ill = "[health]\nmethod = 'fail'\ninterval = '100ms'\nfailures = 1000000";
    let folder = with(&quadriga_tests::guest("relay", "js"), ill);
    let ill = place.json(&["pack", folder.path().to_str().unwrap()])["package"].as_str().unwrap().to_owned();
    let broken = broken(&place);
    place.json(&["install", &ill, &broken, "--enable"]);
    let running = Running::start(&place);
    let status = place.json(&["status"]);
    assert!(status["failed"]["a.broken"]["message"].as_str().unwrap().contains("never"), "{status}");
    assert!(place.run(&["status"]).1.contains("a.broken did not start: "));
    assert_eq!(place.fails(&["status", "a.broken"]), "load_failed");
    let (code, said, _) = place.run(&["health"]);
    assert_eq!((code, said.contains("a.broken did not start: ")), (Some(1), true), "{said}");
    assert_eq!(running.get("/readyz").0, 503);
    // It goes on as long as its manifest lets it, and what it says is shown.
    let checked = || place.run(&["health", "relay.js"]);
    let mut tries = 0;
    let said = loop {
        let (code, said, _) = checked();
        assert_eq!(code, Some(0), "{said}");
        if said.contains("in a row: ") {
            break said;
        }
        tries += 1;
        assert!(tries < 200, "{said}");
    };
    assert!(said.contains("failed ") && said.contains(" alive "), "{said}");
    assert_eq!(running.end("-TERM"), Some(0));
}

#[test]
fn what_did_not_start_is_started_by_a_reload() {
    let place = Place::new();
    let picky = place.0.path().join("picky");
    fs::create_dir(&picky).unwrap();
    let manifest = "[extension]\nid = 'a.picky'\nversion = '1.0.0'\n[runtime]\nkind = 'javascript'\nentry = 'main.js'\n\
                    [config.schema.properties]\ncolour = { type = 'string' }\n";
    fs::write(picky.join("quadriga.toml"), manifest).unwrap();
    let code = "import { host } from 'quadriga';\nconst { colour } = host.config();\n\
                if (colour !== 'red') throw new Error(`it is ${colour}`);\nexport const get = () => colour;\n";
    fs::write(picky.join("main.js"), code).unwrap();
    let package = place.json(&["pack", picky.to_str().unwrap()])["package"].as_str().unwrap().to_owned();
    place.json(&["install", &package, "--enable"]);
    let running = Running::start(&place);
    let why = || place.json(&["status"])["failed"]["a.picky"]["message"].as_str().map(str::to_owned);
    assert!(why().unwrap().contains("it is undefined"));
    place.json(&["config", "a.picky", "--set", "colour=\"blue\""]);
    assert_eq!(place.fails(&["reload", "a.picky"]), "load_failed");
    assert!(why().unwrap().contains("it is blue"), "{:?}", why());
    place.json(&["config", "a.picky", "--set", "colour=\"red\""]);
    assert_eq!(place.json(&["reload", "a.picky"])["version"], "1.0.0");
    assert_eq!((why(), &place.json(&["call", "a.picky", "get"])["result"]), (None, &json!("red")));
    place.json(&["disable", "a.picky"]);
    assert_eq!(place.fails(&["reload", "a.picky"]), "unknown_extension");
    assert_eq!(running.end("-TERM"), Some(0));
}

#[test]
fn top_adds_lines_where_there_is_no_terminal() {
    let place = place();
    let running = Running::start(&place);
    let (code, said, _) = place.run(&["top", "--count", "2", "--interval", "50ms", "--sort", "calls"]);
    assert_eq!(code, Some(0));
    assert_eq!(said.matches("extension").count(), 2, "{said}");
    assert!(!said.contains('\x1b'), "{said}");
    let call =
        json!({ "v": 1, "request": "call", "id": "hello.python", "method": "greet", "arguments": "Ada" });
    ask(&place, &call);
    let lines = place.run(&["top", "--count", "1", "--sort", "calls", "--json"]).1;
    let view: Json = serde_json::from_str(lines.trim()).unwrap();
    assert_eq!((&view[0]["extension"], &view[0]["calls"]), (&json!("hello.python"), &json!(1)));
    assert_eq!((&view[1]["extension"], view.as_array().unwrap().len()), (&json!("hello.js"), 2));
    assert_eq!(running.end("-TERM"), Some(0));
}

#[test]
fn a_home_may_have_a_long_path() {
    let place = Place::new();
    let deep = place.0.path().join("a-folder-with-a-long-name/".repeat(6)).join("home");
    let home = ["--home", deep.to_str().unwrap()];
    let mut child = command()
        .args(["run", "--json"])
        .args(home)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"ready\"")));
    let (code, said, _) = place.run(&[&["health"], &home[..]].concat());
    assert_eq!((code, said.as_str()), (Some(0), "nothing runs that could be ill\n"));
    child.kill().unwrap();
    child.wait().unwrap();
}
