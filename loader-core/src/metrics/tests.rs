use super::*;

fn counted(nanos: &[u64]) -> Histogram {
    let mut all = empty();
    nanos.iter().for_each(|nanos| all.increment(*nanos).unwrap());
    all
}

#[test]
fn buckets_count_exactly_what_is_below_their_bounds() {
    let all = counted(&[0, 1022, 1023, 1024, 5_000, (1 << 36) - 1, 1 << 36]);
    let buckets = buckets(&all);
    let at = |nanos: u64| buckets.iter().find(|it| it.at_most == Duration::from_nanos(nanos)).unwrap().calls;
    assert_eq!((at(1023), at(4095), at(16383), at((1 << 36) - 1)), (3, 4, 5, 6));
    assert!(buckets.windows(2).all(|pair| pair[0].calls <= pair[1].calls));
    assert_eq!(calls(&all), 7);
}

#[test]
fn sums_and_percentiles_are_near() {
    let values: Vec<u64> = (1..=1000).map(|n| n * 1_000).collect();
    let all = counted(&values);
    let sum = values.iter().sum::<u64>() as f64;
    assert!((duration(&all).as_nanos() as f64 / sum - 1.0).abs() < 1.0 / 64.0);
    let read = summary(&all, 3, 2);
    assert_eq!((read.calls, read.errors, read.in_flight), (1000, 3, 2));
    for (measured, exact) in [(read.p50, 500_000.0), (read.p90, 900_000.0), (read.p99, 990_000.0)] {
        let share = measured.as_nanos() as f64 / exact;
        assert!((1.0..1.0 + 1.0 / 32.0).contains(&share), "{measured:?}");
    }
    assert_eq!(summary(&empty(), 0, 0), Metrics::default());
}

#[test]
fn methods_are_counted_apart_and_only_once_called() {
    let counters = Counters::new(3);
    counters.begin(1);
    counters.record(1, Tick::now(), None);
    counters.begin(1);
    counters.record(1, Tick::now(), Some(ErrorCode::Unsupported));
    counters.begin(2);
    // No such method.
    counters.record(3, Tick::now(), None);
    assert_eq!((counters.calls(), counters.errors(), counters.called().count()), (2, 1, 2));
    let [one, two] = [1, 2].map(|place| counters.cells[place].get().unwrap().read());
    assert_eq!((one.total.calls, one.total.errors, one.total.in_flight), (2, 1, 0));
    assert_eq!(one.errors_by_code, BTreeMap::from([("unsupported", 1)]));
    assert!(one.last.is_some());
    assert_eq!((two.total.calls, two.total.in_flight, two.last), (0, 1, None));
}
