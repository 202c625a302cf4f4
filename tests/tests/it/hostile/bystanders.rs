//! Others, which are called all the time: how long they take while somebody attacks, and before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quadriga::abi::{Isolation, codec};
use quadriga::{CallOptions, Dispatcher, LoadOptions};
use quadriga_tests::{granted, guest};
use tokio::task::JoinHandle;

/// One in the host's process, one in a process of its own.
const OTHERS: [&str; 2] = ["relay.js", "relay.python"];

/// How long a call may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far the calls are apart.
const PACE: Duration = Duration::from_millis(2);

/// Calls before an attack, and how many of those before are held against it.
const BEFORE: usize = 40;
const KEPT: usize = 600;

/// Calls for which a 99th percentile says something.
const ENOUGH: usize = 50;

type Times = Vec<Duration>;

pub(super) struct Bystanders {
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    times: [Arc<Mutex<Times>>; 2],
    /// Of the last calls while nobody attacked.
    before: [Times; 2],
    /// Of all calls, in peace and under attack.
    all: [[Times; 2]; 2],
    rows: Vec<String>,
}

impl Bystanders {
    /// Loads them, and calls them from now on.
    pub(super) async fn start(host: &Dispatcher) -> Self {
        host.load(guest("relay", "js"), granted()).await.unwrap();
        let apart = LoadOptions { isolation: Some(Isolation::Process), ..granted() };
        host.load(guest("relay", "python"), apart).await.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let times: [Arc<Mutex<Times>>; 2] = Default::default();
        let call = |(id, times)| tokio::spawn(call(host.clone(), id, Arc::clone(times), Arc::clone(&over)));
        let tasks = OTHERS.into_iter().zip(&times).map(call).collect();
        let (before, all) = Default::default();
        Self { over, tasks, times, before, all, rows: Vec::new() }
    }

    /// Nobody attacks now.
    pub(super) async fn in_peace(&mut self, what: &str) {
        self.take();
        self.wait(BEFORE, what).await;
        let times = self.take();
        for (n, times) in times.into_iter().enumerate() {
            self.all[0][n].extend(&times);
            self.before[n].extend(times);
            let surplus = self.before[n].len().saturating_sub(KEPT);
            self.before[n].drain(..surplus);
        }
    }

    /// Somebody attacked since then, and has ended. Every call was answered, well and in time, also
    /// those that were under way.
    pub(super) async fn under_attack(&mut self, what: &str) {
        self.wait(1, what).await;
        let cells = self.take().into_iter().enumerate().map(|(n, times)| {
            self.all[1][n].extend(&times);
            cell(&self.before[n], &times)
        });
        let cells: Vec<String> = cells.collect();
        self.rows.push(format!("{what:<64} {}", cells.join("  ")));
    }

    /// Says what was measured: for each of the others the calls, their 99th percentile, and how many
    /// times that is of what it was before.
    pub(super) async fn end(self) -> String {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let head = format!("{:<64} {:>27}  {:>27}", "calls, their p99, against before", OTHERS[0], OTHERS[1]);
        let [peace, attack] = &self.all;
        let cells: Vec<String> =
            peace.iter().zip(attack).map(|(peace, attack)| cell(peace, attack)).collect();
        let all = format!("{:<64} {}", "all of them", cells.join("  "));
        [vec![head], self.rows, vec![all]].concat().join("\n")
    }

    /// So many more calls of each.
    async fn wait(&self, calls: usize, what: &str) {
        let wanted: Vec<usize> = self.times.iter().map(|times| times.lock().unwrap().len() + calls).collect();
        let until = Instant::now() + PATIENCE + PATIENCE;
        while self.times.iter().zip(&wanted).any(|(times, wanted)| times.lock().unwrap().len() < *wanted) {
            assert!(self.tasks.iter().all(|task| !task.is_finished()), "{what}: another was called in vain");
            assert!(Instant::now() < until, "{what}: the others were held up");
            tokio::time::sleep(PACE).await;
        }
    }

    fn take(&self) -> [Times; 2] {
        self.times.each_ref().map(|times| std::mem::take(&mut *times.lock().unwrap()))
    }
}

async fn call(host: Dispatcher, id: &'static str, times: Arc<Mutex<Times>>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        let arguments = codec::arguments(&(2, 3)).unwrap();
        let begun = Instant::now();
        let answer = host.call(id, "add", arguments, CallOptions::default().timeout(PATIENCE)).await;
        let took = begun.elapsed();
        let sum: i64 = codec::from_bytes(&answer.unwrap_or_else(|error| panic!("{id}: {error:?}"))).unwrap();
        assert_eq!(sum, 5, "{id}");
        times.lock().unwrap().push(took);
        tokio::time::sleep(PACE).await;
    }
}

fn cell(before: &Times, during: &Times) -> String {
    let p99 = |times: &Times| {
        let mut sorted = times.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
    };
    let (then, now) = (p99(before), p99(during));
    let ratio = now.as_secs_f64() / then.as_secs_f64();
    let ratio = if during.len() < ENOUGH { "few".to_owned() } else { format!("{ratio:.2}x") };
    format!("{:>6} {:>11} {ratio:>8}", during.len(), format!("{:.2?}", now))
}
