//! Ranks that find another agent when theirs has gone, and are never welcomed by it.
//!
//! A real agent answers within seconds, or passes on that a coordinator has yet to make up its mind;
//! that one takes longer than the job lasts can only be played.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use symvirt_protocol::frame::{self, Decoder};
use symvirt_protocol::ids::Epoch;
use symvirt_protocol::query::GREETING;
use symvirt_protocol::rank::{FromRank, ToRank, Welcome};
use symvirt_protocol::transport::Transports;
use symvirt_tests::rehearsal::mpirun;
use symvirt_tests::storm::alone;
use symvirt_tests::{built, job};

const RANKS: usize = 2;
/// Less than a rank waits for a welcome, two minutes.
const LIMIT: Duration = Duration::from_secs(60);
/// An agent lives so long.
const LIFE: Duration = Duration::from_millis(500);

/// Welcomes the first joins, and is gone soon; later ones are not answered, and what they say until
/// they end is passed on.
fn play(mut stream: UnixStream, joins: &AtomicUsize, said: &Sender<Vec<FromRank>>) {
    let (mut decoder, mut bytes, mut messages) = (Decoder::default(), [0; 4096], Vec::new());
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if bytes.starts_with(&GREETING) {
            return;
        }
        decoder.push(&bytes[..count]);
        while let Ok(Some(message)) = decoder.next() {
            messages.push(message);
        }
        let is_join = matches!(messages[..], [FromRank::Join(_)]);
        if is_join && joins.fetch_add(1, Ordering::Relaxed) < RANKS {
            stream.write_all(&welcome()).expect("the rank listens");
            return thread::sleep(LIFE);
        }
    }
    said.send(messages).expect("the test waits");
}

fn welcome() -> Vec<u8> {
    let welcome = ToRank::Welcome(Welcome {
        epoch: Epoch(0),
        transports: Transports::default(),
    });
    frame::encode(&welcome).expect("encode")
}

#[test]
fn ranks_that_are_not_welcomed_leave_all_the_same_and_say_so() {
    let _turn = alone();
    let release = built::release();
    let folder = tempfile::tempdir().expect("make a folder");
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("listen");
    let (say, said) = channel();
    thread::spawn(move || {
        let joins = Arc::new(AtomicUsize::new(0));
        for stream in listener.incoming().map_while(Result::ok) {
            let (joins, say) = (joins.clone(), say.clone());
            thread::spawn(move || play(stream, &joins, &say));
        }
    });
    let mut command = Command::new(&release.guest);
    command
        .env("SYMVIRT_LIB", &release.library)
        .env("SYMVIRT_AGENT_SOCKET", &socket)
        .args(["exec", "--"])
        .args(mpirun(RANKS as u32, "halo", &["--seconds", "3"], &[]));
    let outcome = job::run(&mut command, LIMIT).expect("start the launcher");
    assert!(outcome.succeeded(), "{}", outcome.describe());
    for _ in 0..RANKS {
        let messages = said.recv_timeout(LIMIT).expect("another agent is found");
        assert!(
            matches!(
                messages[..],
                [FromRank::Join(_), .., FromRank::Leave { .. }]
            ),
            "{messages:?}"
        );
    }
}
