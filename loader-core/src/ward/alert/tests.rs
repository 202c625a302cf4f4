use std::time::{Duration, Instant, SystemTime};

use super::{Letters, Sample, Trigger, teeth};

/// A sample per second of a generation: what `counts` changes in them.
fn series(generation: u64, seconds: u64, counts: impl Fn(u64, &mut Sample)) -> Vec<Sample> {
    let sample = |second| {
        let mut sample = Sample::nothing(SystemTime::UNIX_EPOCH, generation);
        sample.uptime = Duration::from_secs(second);
        if second > 0 {
            counts(second, &mut sample);
        }
        sample
    };
    (0..=seconds).map(sample).collect()
}

#[test]
fn triggers_see_what_they_are_for() {
    let within = Duration::from_secs(5);
    let denials = Trigger::DenialBurst { count: 10, within };
    let spawns = Trigger::SpawnAttempts { count: 3, within };
    let egress = Trigger::EgressSpike { bytes: 1000, factor: 4.0, within };
    let errors = Trigger::ErrorRate { share: 0.5, factor: 2.0, calls: 10, within };
    let memory = Trigger::MemorySawtooth { falls: 2, share: 0.5, within: Duration::from_secs(20) };
    let cases: [(&str, Trigger, Vec<Sample>, Option<&str>); 17] = [
        ("nothing", denials, Vec::new(), None),
        ("few denials", denials, series(1, 9, |t, s| s.denied = t), None),
        ("many", denials, series(1, 9, |t, s| s.denied = 2 * t), Some("10 accesses were denied within 5s")),
        ("long ago", denials, series(1, 9, |_, s| s.denied = 20), None),
        ("before the first sample", denials, series(1, 1, |_, s| s.denied = 20), Some("20 accesses")),
        ("spawns", spawns, series(1, 3, |t, s| s.spawns = t), Some("3 times within 5s to start")),
        ("steady egress", egress, series(1, 20, |t, s| s.egress = 500 * t), None),
        ("little egress", egress, series(1, 20, |t, s| s.egress = if t > 17 { 900 } else { 0 }), None),
        (
            "a spike",
            egress,
            series(1, 20, |t, s| s.egress = if t > 17 { 100 * t + 9000 } else { 100 * t }),
            Some("sent 9500 bytes within 5s, and 500 in the span before"),
        ),
        ("steady errors", errors, series(1, 20, |t, s| (s.calls, s.errors) = (10 * t, 6 * t)), None),
        ("few calls", errors, series(1, 3, |t, s| (s.calls, s.errors) = (t, t)), None),
        (
            "errors from the start",
            errors,
            series(1, 3, |t, s| (s.calls, s.errors) = (9 * t, 6 * t)),
            Some("67 %"),
        ),
        (
            "a change",
            errors,
            series(1, 20, |t, s| (s.calls, s.errors) = (10 * t, t + 8 * t.saturating_sub(15))),
            Some("90 % of 50 calls within 5s failed, and 10 % in the span before"),
        ),
        ("steady memory", memory, series(1, 20, |_, s| s.memory = Some(100)), None),
        ("growing memory", memory, series(1, 20, |t, s| s.memory = Some(100 * t)), None),
        (
            "a sawtooth",
            memory,
            series(1, 20, |t, s| s.memory = Some(10 + 100 * (t % 6))),
            Some("fell 3 times"),
        ),
        ("an engine that cannot tell", memory, series(1, 20, |_, _| {}), None),
    ];
    for (name, trigger, samples, expected) in cases {
        match (trigger.look(&samples), expected) {
            (Some((evidence, shown)), Some(words)) => {
                assert!(evidence.contains(words), "{name}: {evidence}");
                assert!(!shown.is_empty() && shown.last() == samples.last(), "{name}");
            }
            (seen, expected) => assert_eq!(seen.map(|(words, _)| words).as_deref(), expected, "{name}"),
        }
    }
}

#[test]
fn earlier_generations_do_not_count() {
    let trigger = Trigger::DenialBurst { count: 10, within: Duration::from_secs(100) };
    let mut samples = series(1, 9, |_, s| s.denied = 50);
    samples.extend(series(2, 3, |t, s| s.denied = t));
    assert_eq!(trigger.look(&samples), None);
}

/// A second, and what is seen then.
type Seen = (u64, Option<usize>);

#[test]
fn letters_are_counted_within_the_span() {
    // How many are enough, the seconds at which they come, and at each what is seen in a span of ten.
    let cases: [(u64, &[Seen]); 7] = [
        (1, &[(0, Some(1)), (1, None), (9, None), (10, Some(3)), (30, Some(1))]),
        (0, &[(0, Some(1)), (1, None)]),
        (3, &[(0, None), (1, None), (2, Some(3)), (3, None), (4, None)]),
        (3, &[(0, None), (5, None), (10, None), (14, Some(3))]),
        (3, &[(0, None), (9, None), (18, None), (27, None)]),
        // Those that came while nothing was told count afterwards.
        (3, &[(0, None), (0, None), (0, Some(3)), (8, None), (9, None), (9, None), (10, Some(4))]),
        (u64::MAX, &[(0, None), (1, None)]),
    ];
    let begun = Instant::now();
    for (count, times) in cases {
        let mut letters = Letters::default();
        for (second, expected) in times {
            let now = begun + Duration::from_secs(*second);
            assert_eq!(letters.add(now, count, Duration::from_secs(10)), *expected, "{count} {times:?}");
        }
    }
    let (mut letters, within) = (Letters::default(), Duration::from_secs(10));
    let many = (0..5000).filter_map(|_| letters.add(begun, 10, within)).count();
    assert_eq!((many, letters.times.len()), (1, super::LETTERS));
}

#[test]
fn teeth_are_rises_and_falls() {
    let cases: [(&[u64], u32); 8] = [
        (&[], 0),
        (&[5], 0),
        (&[100, 10], 0),
        (&[10, 100, 10], 1),
        (&[10, 100, 10, 100], 1),
        (&[10, 100, 10, 100, 10], 2),
        (&[10, 100, 70, 100, 70, 100], 0),
        (&[50, 10, 40, 100, 60, 20, 90, 5], 2),
    ];
    for (values, expected) in cases {
        assert_eq!(teeth(values.iter().copied(), 0.5), expected, "{values:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_series_makes_a_trigger_panic(
        values in proptest::collection::vec((0_u64..4, 0_u64..50, 0_u64..1000), 1..40),
        share in 0.0..1.0,
    ) {
        let (mut uptime, mut generation, mut samples) = (0, 0, Vec::new());
        let mut total = Sample::nothing(SystemTime::UNIX_EPOCH, 0);
        for (kind, step, memory) in values {
            if kind == 0 {
                (generation, uptime) = (generation + 1, 0);
                total = Sample::nothing(SystemTime::UNIX_EPOCH, generation);
            }
            uptime += step;
            total.uptime = Duration::from_secs(uptime);
            (total.calls, total.errors) = (total.calls + step + 1, total.errors + step / 2);
            (total.denied, total.egress, total.spawns) = (total.denied + kind, total.egress + memory, total.spawns + kind);
            total.memory = Some(memory);
            samples.push(total);
        }
        let within = Duration::from_secs(10);
        for trigger in [
            Trigger::DenialBurst { count: 3, within },
            Trigger::ErrorRate { share, factor: 1.5, calls: 3, within },
            Trigger::MemorySawtooth { falls: 2, share, within },
            Trigger::EgressSpike { bytes: 100, factor: 2.0, within },
            Trigger::SpawnAttempts { count: 3, within },
            Trigger::DeadLetters { count: 3, within },
            Trigger::Ended,
        ] {
            let _ = trigger.look(&samples);
        }
    }
}
