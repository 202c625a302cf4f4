//! Whatever happens meanwhile, each event that was emitted is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use proptest::prelude::*;
use quadriga_core::{Grant, LoadOptions};
use tempfile::TempDir;

use super::{BOTH, Guests, Store, emit, events, host, keeps, one};
use crate::common::{load, until};

/// What happens while events are emitted.
#[derive(Debug, Clone)]
enum Step {
    /// Fails so many times before it is taken.
    Emit(u32),
    Reload,
    /// Another host in the place of this one, which has no time to end anything.
    Restart,
    Pause,
    Resume,
    Broken(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u32..3).prop_map(Step::Emit),
        1 => Just(Step::Reload),
        1 => Just(Step::Restart),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        1 => any::<bool>().prop_map(Step::Broken),
    ];
    proptest::collection::vec(step, 1..30)
}

async fn run(steps: &[Step]) -> (Vec<i64>, Vec<i64>) {
    let (guests, store) = (Guests::default(), Store::default());
    let mut current = host(&guests, &store);
    let dir = load(&current, "x.a", &keeps("attempts = 4"), Grant::Requested).await;
    let options = || LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    let mut kept = Vec::new();
    for (number, step) in (0..).zip(steps) {
        match step {
            Step::Emit(fails) => {
                guests.fails(number, *fails);
                kept.extend(emit(&current, number).is_ok().then_some(number));
            }
            Step::Reload => current.reload("x.a").await.unwrap(),
            Step::Restart => {
                drop(current);
                current = host(&guests, &store);
                current.load(dir.path(), options()).await.unwrap();
            }
            Step::Pause => drop(current.pause("x.a").unwrap()),
            Step::Resume => current.resume("x.a").await.unwrap(),
            Step::Broken(broken) => store.broken.store(*broken, SeqCst),
        }
    }
    store.broken.store(false, SeqCst);
    // What the store was not told while it was broken the next host does once more.
    drop(current);
    let last = host(&guests, &store);
    last.load(dir.path(), options()).await.unwrap();
    until(async || store.events.lock().unwrap().is_empty()).await;
    (kept, guests.taken())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_fails_each_that_was_emitted_is_taken_and_in_order(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (kept, taken) = runtime.block_on(run(&steps));
        let mut first = Vec::new();
        taken.iter().for_each(|number| if !first.contains(number) { first.push(*number) });
        // One whose emitter was told of a failure may have been kept all the same.
        first.retain(|number| kept.contains(number));
        prop_assert_eq!(first, kept);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_through_reloads_and_failures() {
    const EMITTERS: i64 = 4;
    const EACH: i64 = 25;
    let (guests, store) = (Guests::default(), Store::default());
    let host = host(&guests, &store);
    let dir: TempDir = load(&host, "x.a", &keeps("attempts = 9"), Grant::Requested).await;
    let mut loaded = vec![dir];
    let failing = Arc::new(AtomicU32::new(0));
    for emitter in 0..EMITTERS {
        loaded.push(load(&host, &format!("x.e{emitter}"), BOTH, Grant::Requested).await);
    }
    let emitting = (0..EMITTERS).map(|emitter| {
        let (host, guests, failing) = (host.clone(), guests.clone(), Arc::clone(&failing));
        tokio::spawn(async move {
            for n in 0..EACH {
                let number = emitter * EACH + n;
                if n % 5 == 2 {
                    guests.fails(number, 2);
                    failing.fetch_add(2, SeqCst);
                }
                events(&host, &format!("x.e{emitter}"), "emit", ("a.b", number)).await.unwrap();
            }
        })
    });
    let emitting: Vec<_> = emitting.collect();
    for _ in 0..3 {
        host.reload("x.a").await.unwrap();
    }
    for task in emitting {
        task.await.unwrap();
    }
    until(async || store.events.lock().unwrap().is_empty()).await;
    let taken = guests.taken();
    assert_eq!(taken.len() as i64, EMITTERS * EACH, "each once, for nothing was lost on the way");
    for emitter in 0..EMITTERS {
        let its: Vec<i64> = taken.iter().copied().filter(|number| number / EACH == emitter).collect();
        assert_eq!(its, (emitter * EACH..(emitter + 1) * EACH).collect::<Vec<_>>());
    }
    assert_eq!(one(&host, "x.a").failed, u64::from(failing.load(SeqCst)));
}
