//! Points in time finer than a datetime, as an extension's code meets them.

use quadriga::abi::Timestamp;

use super::with;

const MAIN: &str = r#"
import copy
from datetime import datetime, timedelta, timezone
from quadriga import Timestamp

PLAIN = datetime(2024, 2, 29, 12, 30, 0, 5, timezone.utc)

def check(time):
    """`time` is PLAIN and seven nanoseconds."""
    day = timedelta(days=1)
    assert type(time) is Timestamp and isinstance(time, datetime) and time.nanosecond == 7
    assert time == Timestamp.of(PLAIN, 7) and time != PLAIN and hash(time) != hash(PLAIN)
    assert Timestamp.of(PLAIN) == PLAIN and hash(Timestamp.of(PLAIN)) == hash(PLAIN)
    assert PLAIN < time <= time and time > PLAIN and not time < PLAIN and PLAIN <= time
    assert time < Timestamp.of(PLAIN, 8) and sorted([time, PLAIN]) == [PLAIN, time]
    assert (time + day - day) == time == (day + time) - day and (time + day).nanosecond == 7
    assert time - PLAIN == timedelta(0) == PLAIN - time
    assert time.astimezone(timezone(timedelta(hours=2))) == time
    assert time.replace(year=2020).nanosecond == 7 and time.replace(nanosecond=0) == PLAIN
    assert time.isoformat() == "2024-02-29T12:30:00.000005007+00:00"
    assert str(time) == "2024-02-29 12:30:00.000005007+00:00"
    assert repr(time).endswith(", nanosecond=7)")
    assert copy.deepcopy(time) == time
    try:
        Timestamp.of(PLAIN, 1000)
    except ValueError:
        return [time, time + day]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_are_datetimes_with_nanoseconds() {
    let (host, _dir) = with("test.time", &[("main.py", MAIN)]).await;
    let time = Timestamp::new(1_709_209_800, 5007).unwrap();
    let later = Timestamp::new(time.seconds() + 86_400, 5007).unwrap();
    let back: Vec<Timestamp> = host.invoke("test.time", "check", &(time,)).await.unwrap();
    assert_eq!(back, [time, later]);
}
