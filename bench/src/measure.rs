use std::time::{Duration, Instant};

use crate::ready::Size;
use comfy_table::{CellAlignment, Table, presets};

/// Batches of each side. An odd number has a median.
const BATCHES: usize = 41;

/// How long one batch should take.
const BATCH: Duration = Duration::from_millis(20);

/// One figure: nanoseconds per call through the bare engine and through the dispatcher.
pub(crate) struct Pair {
    pub(crate) name: &'static str,
    pub(crate) bare: f64,
    pub(crate) ours: f64,
    pub(crate) target: &'static str,
    pub(crate) met: fn(bare: f64, ours: f64) -> bool,
}

/// Measures both sides in turn, so that what else the machine does hits them alike.
pub(crate) fn compare(mut bare: impl FnMut(), mut ours: impl FnMut()) -> Pair {
    let (bare_calls, our_calls) = (calls_per_batch(&mut bare), calls_per_batch(&mut ours));
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..BATCHES {
        times[0].push(nanos_per_call(&mut bare, bare_calls));
        times[1].push(nanos_per_call(&mut ours, our_calls));
    }
    let [bare, ours] = times.map(median);
    Pair { name: "", bare, ours, target: "", met: |_, _| true }
}

pub(crate) fn table(figures: &[Pair]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "bare", "through the dispatcher", "over", "ratio", "per second", "target", ""]);
    for Pair { name, bare, ours, target, met } in figures {
        table.add_row([
            (*name).to_owned(),
            nanos(*bare),
            nanos(*ours),
            nanos(ours - bare),
            format!("{:.2}×", ours / bare),
            rate(*ours),
            (*target).to_owned(),
            match met(*bare, *ours) {
                _ if target.is_empty() => "",
                true => "met",
                false => "missed",
            }
            .to_owned(),
        ]);
    }
    for column in 1..=5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

pub(crate) fn json(figures: &[Pair], sizes: &[Size], cores: usize) -> serde_json::Value {
    let figures = figures.iter().map(|Pair { name, bare, ours, target, met }| {
        let met = (!target.is_empty()).then(|| met(*bare, *ours));
        serde_json::json!({
            "name": name,
            "bare_ns": bare,
            "ours_ns": ours,
            "per_second": 1e9 / ours,
            "target": target,
            "met": met,
        })
    });
    let sizes = sizes.iter().map(
        |Size { name, bytes, many }| serde_json::json!({ "name": name, "bytes": bytes, "at_once": many }),
    );
    serde_json::json!({
        "cores": cores,
        "figures": figures.collect::<Vec<_>>(),
        "sizes": sizes.collect::<Vec<_>>(),
    })
}

/// Doubles until a batch takes long enough, which also warms everything up.
fn calls_per_batch(call: &mut impl FnMut()) -> u32 {
    let mut calls = 1;
    while nanos_per_call(call, calls) * f64::from(calls) < BATCH.as_nanos() as f64 {
        calls *= 2;
    }
    calls
}

fn nanos_per_call(call: &mut impl FnMut(), calls: u32) -> f64 {
    let started = Instant::now();
    for _ in 0..calls {
        call();
    }
    started.elapsed().as_nanos() as f64 / f64::from(calls)
}

pub(crate) fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn nanos(nanos: f64) -> String {
    match nanos.abs() {
        ..1e3 => format!("{nanos:.0} ns"),
        ..1e6 => format!("{:.2} µs", nanos / 1e3),
        _ => format!("{:.2} ms", nanos / 1e6),
    }
}

/// How often that goes into a second.
fn rate(nanos: f64) -> String {
    match 1e9 / nanos {
        rate @ 1e6.. => format!("{:.1} M", rate / 1e6),
        rate @ 1e4.. => format!("{:.0} k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}
