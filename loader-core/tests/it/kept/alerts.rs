//! What dead letters lead to by rules.

use std::time::Duration;

use quadriga_core::{Action, Alert, AlertRule, Monitor, State, Trigger};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn watched(guests: &Guests, rules: Option<Vec<AlertRule>>) -> Dispatcher {
    let monitor = rules.map_or_else(Monitor::default, |rules| Monitor { rules, ..Monitor::default() });
    let policy = Policy { monitor, ..Policy::default() };
    let builder = Dispatcher::builder().runtime(guests.runtime()).event_store(Store::default());
    builder.policy(policy).build().unwrap()
}

async fn next(alerts: &mut tokio::sync::broadcast::Receiver<Alert>) -> Alert {
    tokio::time::timeout(Duration::from_secs(10), alerts.recv()).await.expect("no alert came").unwrap()
}

/// Has so many events given up.
async fn give_up(host: &Dispatcher, guests: &Guests, numbers: std::ops::Range<i64>) {
    let before = one(host, "x.a").dead;
    let count = usize::try_from(numbers.end - numbers.start).unwrap();
    for number in numbers {
        guests.fails(number, 2);
        emit(host, number).unwrap();
    }
    until(async || one(host, "x.a").dead == before + count).await;
}

#[tokio::test]
async fn ten_in_a_minute_are_told_of_by_default() {
    let guests = Guests::default();
    let host = watched(&guests, None);
    let mut alerts = host.alerts();
    let _a = load(&host, "x.a", &keeps("attempts = 2"), Grant::Requested).await;
    let _calm = load(&host, "x.calm", &keeps("").replace("'take'", "'other'"), Grant::Requested).await;
    give_up(&host, &guests, 0..9).await;
    assert!(alerts.try_recv().is_err());
    give_up(&host, &guests, 9..25).await;
    let alert = next(&mut alerts).await;
    let evidence = "10 events were given up within 60s; the last, on a.b for a.* (take), at attempt 2: no 2";
    assert_eq!((alert.extension.as_str(), alert.rule.as_str()), ("x.a", "dead letters"));
    assert_eq!((alert.evidence.as_str(), alert.action), (evidence, Action::None));
    assert!(alerts.try_recv().is_err(), "once within its span");
    assert_eq!(host.activity("x.a").unwrap().alerts, [alert]);
    assert!(host.activity("x.calm").unwrap().alerts.is_empty());
    // No samples are taken for that.
    assert!(host.activity("x.a").unwrap().series.is_empty());
    assert_eq!(host.status("x.a").unwrap().state, State::Running);
}

#[tokio::test]
async fn they_count_for_all_subscriptions_and_generations_of_an_extension() {
    let guests = Guests::default();
    let trigger = Trigger::DeadLetters { count: 3, within: MINUTE };
    let rule = AlertRule { name: "given up".to_owned(), trigger, action: Action::None };
    let host = watched(&guests, Some(vec![rule]));
    let mut alerts = host.alerts();
    let _a = load(&host, "x.a", &keeps("attempts = 2"), Grant::Requested).await;
    give_up(&host, &guests, 0..2).await;
    host.reload("x.a").await.unwrap();
    let kept = BTreeMap::from([("delivery", "at-least-once")]);
    events(&host, "x.a", "subscribe", ("a.c", "take", &kept)).await.unwrap();
    // What it may not have is given up at once.
    assert_eq!(host.revoke("x.a", &subscribing()).unwrap(), Effect::Now);
    host.emit("a.c", &codec::to_bytes(&7).unwrap()).unwrap();
    let alert = next(&mut alerts).await;
    assert_eq!(alert.rule, "given up");
    assert!(
        alert.evidence.starts_with("3 events were given up within 60s; the last, on a.c for a."),
        "{alert:?}"
    );
    assert!(alert.evidence.contains("at attempt 1: "), "{alert:?}");
}

#[tokio::test]
async fn what_the_rule_says_is_done() {
    let cases = [
        (Action::Throttle { calls_per_second: 1 }, State::Throttled),
        (Action::Pause, State::Paused),
        (Action::Quarantine, State::Quarantined),
    ];
    for (action, state) in cases {
        let guests = Guests::default();
        let trigger = Trigger::DeadLetters { count: 1, within: MINUTE };
        let rule = AlertRule { name: "no letters".to_owned(), trigger, action };
        let host = watched(&guests, Some(vec![rule]));
        let mut alerts = host.alerts();
        let _a = load(&host, "x.a", &keeps("attempts = 1"), Grant::Requested).await;
        guests.fails(1, 1);
        emit(&host, 1).unwrap();
        assert_eq!(next(&mut alerts).await.action, action);
        let status = host.status("x.a").unwrap();
        assert_eq!(status.state, state);
        assert!(status.reason.unwrap().starts_with("no letters: 1 event was given up"));
        // What comes after it is kept, and delivered once it goes on.
        emit(&host, 2).unwrap();
        host.resume("x.a").await.unwrap();
        until(async || guests.taken() == [2]).await;
    }
}
