//! A view of what extensions do, drawn anew each second.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::json;
use tokio::sync::mpsc;

use super::args::{Sort, TopArgs};
use super::client;
use super::protocol::Request;
use super::show::{Metrics, memory, read};
use crate::output::{Output, duration, harmless, table};

/// Moves to the top, and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What one extension did from one view to the next.
struct Row {
    it: Metrics,
    /// Processors in use: 0.5 is half of one.
    cpu: Option<f64>,
    /// Calls per second.
    calls: Option<f64>,
}

/// What was seen in the view before.
type Seen = HashMap<String, (u64, u64, Option<Duration>)>;

/// Shows views until somebody has seen enough.
pub(crate) fn top(args: &TopArgs, output: Output) -> Result<ExitCode> {
    let home = args.home.path()?;
    let drawn = !output.json && io::stdout().is_terminal();
    let keys = if drawn && io::stdin().is_terminal() { Keys::read() } else { None };
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the command could not start its threads")?;
    let result = executor.block_on(views(args, output, &home, drawn, keys));
    executor.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

async fn views(
    args: &TopArgs,
    output: Output,
    home: &Path,
    drawn: bool,
    mut keys: Option<Keys>,
) -> Result<()> {
    let mut ticks = tokio::time::interval(args.interval.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut seen, mut at, mut shown) = (Seen::new(), Instant::now(), 0_u64);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = Keys::quit(&mut keys) => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        let home = home.to_owned();
        let ask = move || client::ask(&home, &Request::Metrics { id: None, prometheus: false });
        let answer = tokio::select! {
            answer = tokio::task::spawn_blocking(ask) => answer.context("the question panicked")??,
            () = Keys::quit(&mut keys) => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let all: Vec<Metrics> = read(answer)?;
        let elapsed = at.elapsed();
        at = Instant::now();
        let rows = rows(all, &mut seen, elapsed, args.sort);
        match (output.json, drawn) {
            (true, _) => output.text(&line(&rows))?,
            (false, true) => output.text(&format!("{CLEAR}{}\n\nq ends it", view(&rows)))?,
            (false, false) => output.text(&format!("{}\n", view(&rows)))?,
        }
        shown += 1;
        if args.count.is_some_and(|count| shown >= count.get()) {
            return Ok(());
        }
    }
}

/// Compares with the view before, and sorts: the busiest first.
fn rows(all: Vec<Metrics>, seen: &mut Seen, elapsed: Duration, sort: Sort) -> Vec<Row> {
    let seconds = elapsed.as_secs_f64().max(1e-3);
    let compare = |it: Metrics| {
        let (calls, cpu) = (it.total.calls, it.usage.cpu_time);
        let before = seen.get(&it.id).filter(|before| before.0 == it.generation);
        let row = (
            before.map(|before| calls.saturating_sub(before.1) as f64 / seconds),
            before.and_then(|before| Some(cpu?.saturating_sub(before.2?).as_secs_f64() / seconds)),
        );
        Row { it, calls: row.0, cpu: row.1 }
    };
    let mut rows: Vec<Row> = all.into_iter().map(compare).collect();
    *seen = rows
        .iter()
        .map(|row| (row.it.id.clone(), (row.it.generation, row.it.total.calls, row.it.usage.cpu_time)))
        .collect();
    let key = |row: &Row| match sort {
        // Before there is something to compare with: what they have used so far.
        Sort::Cpu => row.cpu.or(row.it.usage.cpu_time.map(|time| time.as_secs_f64())).unwrap_or(0.0),
        Sort::Calls => row.calls.unwrap_or(row.it.total.calls as f64),
    };
    rows.sort_by(|a, b| key(b).total_cmp(&key(a)).then_with(|| a.it.id.cmp(&b.it.id)));
    rows
}

fn view(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "nothing runs".to_owned();
    }
    let row = |row: &Row| {
        let number = |value: Option<f64>, unit: &str| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}{unit}"))
        };
        let total = &row.it.total;
        vec![
            harmless(&row.it.id),
            harmless(&row.it.state),
            number(row.cpu.map(|cpu| cpu * 100.0), " %"),
            memory(row.it.usage.memory),
            number(row.calls, ""),
            total.calls.to_string(),
            total.errors.to_string(),
            total.in_flight.to_string(),
            duration(total.p50),
            duration(total.p99),
            row.it.restarts.to_string(),
        ]
    };
    let header = [
        "extension",
        "state",
        "cpu",
        "memory",
        "calls/s",
        "calls",
        "errors",
        "in flight",
        "p50",
        "p99",
        "restarts",
    ];
    table(&header, &header[2..], rows.iter().map(row).collect())
}

/// One view as one line of JSON.
fn line(rows: &[Row]) -> String {
    let row = |row: &Row| {
        json!({
            "extension": row.it.id,
            "state": row.it.state,
            "cpu": row.cpu,
            "memory": row.it.usage.memory,
            "calls-per-second": row.calls,
            "calls": row.it.total.calls,
            "errors": row.it.total.errors,
            "in-flight": row.it.total.in_flight,
            "restarts": row.it.restarts,
        })
    };
    json!(rows.iter().map(row).collect::<Vec<_>>()).to_string()
}

/// Keys of the terminal as they are pressed, without Enter. The terminal is as before when this ends.
struct Keys {
    pressed: mpsc::Receiver<u8>,
    before: Termios,
}

impl Keys {
    /// `None` if the terminal cannot do that: Ctrl-C is enough.
    fn read() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut single = before.clone();
        single.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &single).ok()?;
        let (tell, pressed) = mpsc::channel(8);
        std::thread::spawn(move || {
            for key in io::stdin().lock().bytes().map_while(Result::ok) {
                if tell.blocking_send(key).is_err() {
                    return;
                }
            }
        });
        Some(Self { pressed, before })
    }

    /// Resolves when q is pressed.
    async fn quit(keys: &mut Option<Self>) {
        while let Some(keys) = keys {
            match keys.pressed.recv().await {
                Some(b'q' | b'Q') => return,
                Some(_) => {}
                None => break,
            }
        }
        std::future::pending().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // Nothing is left to do about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
