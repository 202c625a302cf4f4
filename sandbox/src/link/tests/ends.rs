//! Ends of workers that the host brings about or sees by itself, whatever they say.

use super::*;
use crate::confine::CgroupLimits;

const IDLE: &str = "#!/bin/sh\nexec sleep 60\n";
const BUSY: &str = "#!/bin/sh\nwhile :; do :; done\n";

/// Takes memory once it is told to, as much as it gets of a gigabyte.
const HUNGRY: &str = "#!/bin/sh\nwhile [ ! -e \"$0.go\" ]; do sleep 0.01; done\n\
                      ulimit -v 1000000\nexec tail /dev/zero\n";

/// One that has a call under way, which may use so much processor time.
async fn limited(script: &str, limit: Duration) -> (Worker, Outcome) {
    let mut worker = Worker::start(script).await;
    worker.say(&hello());
    worker.loaded.take().unwrap().await.unwrap().unwrap();
    worker.link.limit_cpu(limit);
    let answer = worker.link.call(Call::remote(0, Envelope::new(Kind::Call, 1, b"\x90".to_vec()), None));
    (worker, answer)
}

/// Nobody in it looks at the clock, or says what it shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hides_its_processor_time_is_ended_by_its_host() {
    let limit = Duration::from_millis(100);
    let (idle, _waiting) = limited(IDLE, limit).await;
    let (busy, answer) = limited(BUSY, limit).await;
    let answered = tokio::time::timeout(SOON, answer.result()).await.expect("an answer");
    let error = answered.unwrap_err();
    assert_eq!(error.code, ErrorCode::CpuLimit, "{error:?}");
    assert_names(&busy.end().await, "a call used up its processor time, and went on");
    // Who only waits uses none.
    assert!(!idle.link.is_over());
}

/// Two share a cgroup: what one was killed for says nothing about the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_for_want_of_memory_is_told_of_once() {
    let limits = CgroupLimits { memory: Some(48 << 20), ..CgroupLimits::default() };
    let Ok(cgroup) = Cgroup::create("test", &limits).map(Arc::new) else {
        return eprintln!("SKIPPED: no cgroup limits memory here");
    };
    let hungry = Worker::start_in(Some(&cgroup), HUNGRY).await;
    let other = Worker::start_in(Some(&cgroup), IDLE).await;
    std::fs::write(hungry._kept.0.path().join("sleeper.go"), "").unwrap();
    let end = hungry.end().await;
    assert_eq!(end.code, ErrorCode::MemoryLimit, "{end:?}");
    other.link.child.kill();
    assert_names(&other.end().await, "was ended by signal 9");
}
