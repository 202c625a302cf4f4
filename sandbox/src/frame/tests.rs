use rustix::net::{AddressFamily, SocketFlags, SocketType, shutdown, socketpair};

use super::*;

fn pair(most: usize) -> (OwnedFd, Reader) {
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.unwrap();
    (ours, Reader::new(Arc::new(theirs), most))
}

fn send(socket: &OwnedFd, frame: &Frame) {
    let all = [frame.head(), frame.envelope.payload.to_vec()].concat();
    let mut rest = &all[..];
    while !rest.is_empty() {
        let written = write(socket, [rest, &[]], None, SendFlags::empty()).unwrap();
        rest = &rest[written..];
    }
}

#[test]
fn frames_of_any_size_arrive_in_order_whatever_the_pieces() {
    let (ours, mut reader) = pair(1 << 20);
    let frames: Vec<Frame> = [0, 1, 100, CHUNK - 300, CHUNK, CHUNK + 1, CHUNK - 1, CHUNK * 3, 5, 0, CHUNK, 7]
        .into_iter()
        .enumerate()
        .map(|(n, size)| {
            let mut frame = Frame::new(Kind::Reply, n as u64, vec![n as u8; size]);
            (frame.flags, frame.parent) = (n as u32 & (INPUT | OUTPUT), FROM_GUEST | n as u64);
            frame
        })
        .collect();
    let sent = frames.clone();
    let sender = std::thread::spawn(move || {
        sent.iter().for_each(|frame| send(&ours, frame));
        let bytes: Vec<u8> =
            sent.iter().flat_map(|frame| [frame.head(), frame.envelope.payload.to_vec()].concat()).collect();
        // Once more, in pieces that end anywhere.
        for piece in bytes.chunks(8191) {
            let mut rest = piece;
            while !rest.is_empty() {
                rest = &rest[write(&ours, [rest, &[]], None, SendFlags::empty()).unwrap()..];
            }
        }
    });
    for expected in frames.iter().chain(&frames) {
        let Next::Frame(frame) = reader.next().unwrap() else { panic!("no frame") };
        assert_eq!(&frame, expected);
    }
    sender.join().unwrap();
    assert!(matches!(reader.next().unwrap(), Next::End));
}

#[test]
fn a_look_waits_for_nothing_and_loses_nothing() {
    let (ours, mut reader) = pair(1 << 20);
    let sent = Frame::new(Kind::Reply, 1, vec![7; CHUNK * 3]);
    let bytes = [sent.head(), sent.envelope.payload.to_vec()].concat();
    for piece in bytes.chunks(1000) {
        assert!(matches!(reader.next_until(Instant::now()).unwrap(), Next::Nothing));
        assert_eq!(write(&ours, [piece, &[]], None, SendFlags::empty()).unwrap(), piece.len());
    }
    let Next::Frame(frame) = reader.next_until(Instant::now()).unwrap() else { panic!("no frame") };
    assert_eq!(frame, sent);
}

#[test]
fn what_is_no_frame_is_an_error() {
    let cases: [(&[u8], &str); 4] = [
        (&[0xff; 16], "a frame of 4294967295 bytes, where 17384 are the most"),
        (&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc1, 2, 3, 4], "a frame that cannot be read"),
        (&[4, 0, 0, 0], "the connection ended within a frame"),
        (&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "the connection ended within a frame"),
    ];
    for (bytes, words) in cases {
        let (ours, mut reader) = pair(1000);
        write(&ours, [bytes, &[]], None, SendFlags::empty()).unwrap();
        shutdown(&ours, rustix::net::Shutdown::Both).unwrap();
        let Err(error) = reader.next() else { panic!("{words}") };
        assert!(error.to_string().starts_with(words), "{error}");
    }
}

fn send_packed(socket: &OwnedFd, packed: &Packed) {
    let file = packed.file.as_deref().map(std::os::fd::AsFd::as_fd);
    let written = write(socket, [&packed.head, &packed.payload], file, SendFlags::empty()).unwrap();
    assert_eq!(written, packed.head.len() + packed.payload.len());
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter(|entry| {
            let link = std::fs::read_link(entry.as_ref().unwrap().path());
            link.is_ok_and(|link| link.to_string_lossy().starts_with("/memfd:quadriga"))
        })
        .count()
}

#[test]
fn large_payloads_lie_in_memory_that_is_used_again() {
    let (ours, mut reader) = pair(64 << 20);
    let lender = Lender::default();
    for round in 0..100_u64 {
        for size in [17 << 10, 100_000, 1 << 20] {
            let sent = Frame::new(Kind::Reply, round, vec![round as u8; size]);
            let packed = sent.pack(&lender);
            assert_eq!(packed.payload.len(), 12, "{size} bytes lie elsewhere");
            send_packed(&ours, &packed);
            let Next::Frame(frame) = reader.next().unwrap() else { panic!("no frame") };
            assert!(frame == sent, "{size} bytes in round {round}");
        }
    }
    // One region of each size for both sides, and perhaps those of other tests.
    assert!((6..=20).contains(&open_files()), "{}", open_files());
    // Those that are not taken yet are not overwritten; what finds no room goes through the socket.
    let frames: Vec<Frame> = (0..20).map(|n| Frame::new(Kind::Reply, n, vec![n as u8; 40 << 10])).collect();
    let packed: Vec<Packed> = frames.iter().map(|frame| frame.pack(&lender)).collect();
    assert_eq!(packed.iter().filter(|packed| packed.payload.len() == 12).count(), 8);
    let sender = std::thread::spawn(move || packed.iter().for_each(|packed| send_all(&ours, packed)));
    for sent in &frames {
        let Next::Frame(frame) = reader.next().unwrap() else { panic!("no frame") };
        assert!(frame == *sent, "frame {}", sent.envelope.id);
    }
    sender.join().unwrap();
}

#[test]
fn a_payload_that_is_read_in_place_keeps_its_place() {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let mut reader = Reader::trusting(Arc::new(theirs), 1 << 20);
    let lender = Lender::default();
    let mut pass = |byte: u8| {
        let packed = Frame::new(Kind::Call, 1, vec![byte; 20_000]).pack(&lender);
        send_packed(&ours, &packed);
        let Next::Frame(frame) = reader.next().unwrap() else { panic!("no frame") };
        (packed.payload, frame.envelope.payload)
    };
    let (first, held) = pass(1);
    let part = held.slice(10..20);
    let (second, other) = pass(2);
    assert_ne!(first, second, "another place, as the first is taken");
    assert!(held.iter().all(|byte| *byte == 1) && other.iter().all(|byte| *byte == 2));
    drop(held);
    assert_ne!(pass(3).0, first, "a part of it is still held");
    drop(part);
    assert_eq!(pass(4).0, first, "free again");
    drop(reader);
    assert!(other.iter().all(|byte| *byte == 2), "the mapping lives as long as what is read of it");
}

fn send_all(socket: &OwnedFd, packed: &Packed) {
    let file = packed.file.as_deref().map(std::os::fd::AsFd::as_fd);
    let bytes = [&packed.head[..], &packed.payload].concat();
    let mut written = write(socket, [&bytes, &[]], file, SendFlags::empty()).unwrap();
    while written < bytes.len() {
        written += write(socket, [&bytes[written..], &[]], None, SendFlags::empty()).unwrap();
    }
}

#[test]
fn shared_memory_that_is_not_what_it_should_be_is_an_error() {
    let lent = |number: u32, length: u64| {
        let mut frame =
            Frame::new(Kind::Reply, 1, [&number.to_le_bytes()[..], &length.to_le_bytes()].concat());
        frame.flags = LENT;
        Packed { head: frame.head(), payload: frame.envelope.payload, file: None }
    };
    let plain: OwnedFd = std::fs::File::open("/dev/zero").unwrap().into();
    let memory = || rustix::fs::memfd_create("other", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
    let (unsealed, short) = (memory(), memory());
    rustix::fs::ftruncate(&short, 5000).unwrap();
    let seals = rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::GROW | rustix::fs::SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&short, seals).unwrap();
    let mut cases = vec![
        (lent(7, 20_000), None, "region 7, which was never sent"),
        (lent(7, 20_000), Some(plain), "a file that is no sealed memory"),
        (lent(7, 20_000), Some(unsealed), "a file that is no sealed memory"),
        (lent(7, 905), Some(short.try_clone().unwrap()), "905 bytes in a region of 5000"),
        (lent(7, u64::MAX), Some(short), "18446744073709551615 bytes in a region of 5000"),
    ];
    // A machine need not have such files, or any pages for them: that is why they are refused.
    let flags = rustix::fs::MemfdFlags::ALLOW_SEALING | rustix::fs::MemfdFlags::HUGETLB;
    match rustix::fs::memfd_create("huge", flags) {
        Ok(huge) => {
            rustix::fs::ftruncate(&huge, 2 << 20).unwrap();
            rustix::fs::fcntl_add_seals(&huge, seals).unwrap();
            cases.push((lent(7, 20_000), Some(huge), "a file that is no sealed memory"));
        }
        Err(error) => println!("no file of huge pages: {error}"),
    }
    for (mut packed, file, words) in cases {
        let (ours, mut reader) = pair(1 << 20);
        packed.file = file.map(Arc::new);
        send_packed(&ours, &packed);
        let Err(error) = reader.next() else { panic!("{words}") };
        assert!(error.to_string().ends_with(words), "{error}");
    }
}
