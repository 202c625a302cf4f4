//! What a hook costs: where nobody answers it, where one does and changes nothing, and where one in
//! each language makes a change.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::time::Instant;

use anyhow::Result;
use futures_util::FutureExt;
use quadriga::abi::{Isolation, codec};
use quadriga::schemars::JsonSchema;
use quadriga::{CallOptions, Dispatcher, HookContext, Policy};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::measure::{Pair, compare, median};
use crate::ready;

/// Hooks of which the 99th percentile is taken.
const CHAINS: usize = 20_000;

/// What the tests' guest for hooks takes.
#[derive(Clone, Serialize, Deserialize, JsonSchema, HookContext)]
#[schemars(crate = "quadriga::schemars")]
#[hook(name = "bench.plan")]
struct Plan {
    title: String,
    #[hook(changeable)]
    steps: BTreeMap<String, i64>,
}

/// The same at a point of its own.
#[derive(Clone, Serialize, Deserialize, JsonSchema, HookContext)]
#[schemars(crate = "quadriga::schemars")]
#[hook(name = "bench.silent")]
struct Silent {
    title: String,
}

/// A host with one handler in each of these languages.
struct Bed {
    host: Dispatcher,
    folder: TempDir,
}

impl Bed {
    fn new(guests: &Path, languages: &[&str], handler: &str) -> Result<Self> {
        let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
        let host = quadriga::builder().policy(policy).build()?;
        let folder = tempfile::tempdir()?;
        let bed = Self { host, folder };
        for language in languages {
            bed.add(guests, language, &format!("hooks.{language}"), "bench.plan", handler)?;
        }
        Ok(bed)
    }

    fn add(&self, guests: &Path, language: &str, id: &str, point: &str, handler: &str) -> Result<()> {
        let package = self.folder.path().join(id);
        ready::copy(&guests.join("hooks").join(language), &package, &format!("hooks.{language}"), id)?;
        let manifest = package.join("quadriga.toml");
        let asks = format!("[permissions]\nhooks = ['bench.*']\n[hooks.'{point}']\n{handler}");
        std::fs::write(&manifest, std::fs::read_to_string(&manifest)? + "\n" + &asks)?;
        ready::load(&self.host, &package)
    }

    fn hook<T: HookContext>(&self, context: T) {
        let mut hook = pin!(self.host.hook(context));
        let hooked = hook.as_mut().now_or_never().unwrap_or_else(|| quadriga::block_on(hook));
        assert!(hooked.is_ok(), "the hook failed: {hooked:?}", hooked = hooked.err());
    }
}

/// A hook that nobody answers, against a call of a function that does nothing.
pub(crate) fn silent(guests: &Path) -> Result<Pair> {
    let bed = Bed::new(guests, &["native"], "method = 'object'\nmode = 'validate'\non-failure = 'open'")?;
    let context = || std::hint::black_box(Silent { title: String::new() });
    let nothing = || {
        let ready = async { std::hint::black_box(context()) }.now_or_never();
        assert!(ready.is_some());
    };
    Ok(Pair {
        name: "hook, no handler",
        target: "≤ 20 ns over",
        met: |bare, ours| ours - bare <= 20.0,
        ..compare(nothing, || bed.hook(context()))
    })
}

/// A hook with one handler that has nothing to change, against a call of the same method.
pub(crate) fn one(guests: &Path, language: &'static str) -> Result<Pair> {
    let bed = Bed::new(guests, &[language], "method = 'object'\nmode = 'validate'\non-failure = 'open'")?;
    let plan = Plan { title: "good".to_owned(), steps: BTreeMap::from([("first".to_owned(), 1)]) };
    let (id, arguments) = (format!("hooks.{language}"), codec::to_bytes(&(&plan,))?);
    let call = || {
        let options = CallOptions::default();
        let mut call = pin!(bed.host.call(&id, "object", arguments.clone(), options));
        assert!(call.as_mut().now_or_never().unwrap_or_else(|| quadriga::block_on(call)).is_ok());
    };
    Ok(Pair {
        name: if language == "wasm" { "hook, one in wasm" } else { "hook, one in native" },
        target: "≤ 1 µs",
        met: |_, ours| ours <= 1000.0,
        ..compare(call, || bed.hook(plan.clone()))
    })
}

/// A hook with one handler, alone and in a host with 1,000 extensions that answer other hooks: how long
/// one takes, and how many two threads run in a second.
pub(crate) fn crowd(guests: &Path) -> Result<[Pair; 2]> {
    const HANDLER: &str = "method = 'object'\nmode = 'validate'\non-failure = 'open'";
    let alone = Bed::new(guests, &["native"], HANDLER)?;
    let crowd = Bed::new(guests, &["native"], HANDLER)?;
    for number in 0..1000 {
        crowd.add(guests, "wasm", &format!("crowd.e{number}"), &format!("bench.p{number}"), HANDLER)?;
    }
    let plan = Plan { title: "good".to_owned(), steps: BTreeMap::from([("first".to_owned(), 1)]) };
    let one = Pair {
        name: "hook, one of 1 | of 1,000 extensions",
        target: "≤ 1.1×",
        met: |bare, ours| ours <= 1.1 * bare,
        ..compare(|| alone.hook(plan.clone()), || crowd.hook(plan.clone()))
    };
    // What both threads do in the time of one hook, on both hosts in turn.
    let each = |bed: &Bed| {
        let many = |bed: &Bed| (0..CHAINS).for_each(|_| bed.hook(plan.clone()));
        let begun = Instant::now();
        std::thread::scope(|scope| (0..2).for_each(|_| _ = scope.spawn(|| many(bed))));
        begun.elapsed().as_nanos() as f64 / (2 * CHAINS) as f64
    };
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..11 {
        times[0].push(each(&alone));
        times[1].push(each(&crowd));
    }
    let [bare, ours] = times.map(median);
    let two = Pair {
        name: "hook, on two threads, the same",
        bare,
        ours,
        target: "≤ 60 µs each (1,000,000 a minute)",
        met: |_, ours| ours <= 60_000.0,
    };
    Ok([one, two])
}

/// A hook of 2 KiB that one handler in each language changes: half of them take no longer than the
/// first figure, 99 of 100 no longer than the second.
pub(crate) fn four(guests: &Path) -> Result<Pair> {
    let languages = ["js", "native", "python", "wasm"];
    let bed = Bed::new(guests, &languages, "method = 'mark'\nmode = 'modify'\non-failure = 'closed'")?;
    let steps = (0..64).map(|number| (format!("step {number:>10}"), number)).collect();
    let plan = Plan { title: "x".repeat(950), steps };
    assert!((2000..2200).contains(&codec::to_bytes(&plan)?.len()));
    (0..CHAINS / 10).for_each(|_| bed.hook(plan.clone()));
    let mut times = Vec::with_capacity(CHAINS);
    for _ in 0..CHAINS {
        let begun = Instant::now();
        bed.hook(plan.clone());
        times.push(begun.elapsed().as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(Pair {
        name: "hook, four languages, p50 | p99",
        ours: times[CHAINS / 100 * 99],
        target: "p99 < 1 ms",
        met: |_, ours| ours < 1e6,
        bare: median(times),
    })
}
