#![no_main]

const MOST: usize = 1 << 16;

// What a worker sends to its host, whatever it is, is frames or a reason why it is none, and no frame
// has more than it may.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for payload in quadriga_sandbox::fuzzing::frames(data, MOST) {
        assert!(payload.len() <= MOST + (16 << 10), "a payload of {} bytes", payload.len());
    }
});
