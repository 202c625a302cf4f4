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
        let written = write(socket, rest, &[], SendFlags::empty()).unwrap();
        rest = &rest[written..];
    }
}

#[test]
fn frames_of_any_size_arrive_in_order_whatever_the_pieces() {
    let (ours, mut reader) = pair(1 << 20);
    let frames: Vec<Frame> = [0, 1, 100, SMALL - 300, SMALL, SMALL + 1, CHUNK - 1, CHUNK * 3, 5, 0, CHUNK, 7]
        .into_iter()
        .enumerate()
        .map(|(n, size)| {
            let mut frame = Frame::new(Kind::Reply, n as u64, vec![n as u8; size]);
            (frame.flags, frame.parent) = (n as u32, FROM_GUEST | n as u64);
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
                rest = &rest[write(&ours, rest, &[], SendFlags::empty()).unwrap()..];
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
    let sent = Frame::new(Kind::Reply, 1, vec![7; SMALL * 3]);
    let bytes = [sent.head(), sent.envelope.payload.to_vec()].concat();
    for piece in bytes.chunks(1000) {
        assert!(matches!(reader.next_until(Instant::now()).unwrap(), Next::Nothing));
        assert_eq!(write(&ours, piece, &[], SendFlags::empty()).unwrap(), piece.len());
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
        write(&ours, bytes, &[], SendFlags::empty()).unwrap();
        shutdown(&ours, rustix::net::Shutdown::Both).unwrap();
        let Err(error) = reader.next() else { panic!("{words}") };
        assert!(error.to_string().starts_with(words), "{error}");
    }
}
