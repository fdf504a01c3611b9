//! A rank that speaks the protocol and does nothing else.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use symvirt_protocol::frame::{self, Decoder};
use symvirt_protocol::ids::{ProcId, WorkerId};
use symvirt_protocol::rank::{Blob, FromRank, Join, Load, Stall, ToRank, Welcome, WorkerCount};

/// Longest wait for anything in these tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Rank {
    pub process: ProcId,
    stream: UnixStream,
    decoder: Decoder,
}

pub fn join(process: ProcId) -> Join {
    Join {
        process,
        pid: std::process::id(),
        program: "simulated".into(),
        mpi_rank: Some(process.0 as u32),
        ucx_version: "0.0".into(),
        epoch: Default::default(),
        blobs: Vec::new(),
    }
}

pub fn worker(process: ProcId) -> WorkerId {
    WorkerId { process, index: 0 }
}

impl Rank {
    pub fn connect(socket: &Path, process: ProcId) -> Self {
        let stream = UnixStream::connect(socket).expect("connect to agent");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("bound the wait");
        Rank {
            process,
            stream,
            decoder: Decoder::default(),
        }
    }

    pub fn say(&mut self, message: &FromRank) {
        let frame = frame::encode(message).expect("short");
        self.stream.write_all(&frame).expect("agent reads");
    }

    pub fn write_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("agent reads");
    }

    /// The next message, `None` at the end of the connection.
    pub fn hear(&mut self) -> Option<ToRank> {
        loop {
            if let Some(message) = self.decoder.next().expect("a frame") {
                return Some(message);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(read) => self.decoder.push(&buffer[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("rank {} waits: {error}", self.process),
            }
        }
    }

    pub fn join(&mut self) -> Welcome {
        self.say(&FromRank::Join(join(self.process)));
        match self.hear() {
            Some(ToRank::Welcome(welcome)) => welcome,
            other => panic!("no welcome but {other:?}"),
        }
    }

    /// The library's answer to a message.
    pub fn answer(&self, message: &ToRank) -> Option<FromRank> {
        let worker = worker(self.process);
        Some(match *message {
            ToRank::Welcome(_) | ToRank::Matched { .. } | ToRank::SlowDown { .. } => return None,
            ToRank::Prepare { epoch, .. } => FromRank::Published {
                epoch,
                blobs: vec![Blob {
                    object: worker,
                    bytes: vec![7; 100],
                }],
                hellos: Vec::new(),
                opens: Vec::new(),
            },
            ToRank::Peers { epoch, .. } => FromRank::Ready { epoch },
            ToRank::Commit { epoch, .. } => FromRank::Counters {
                epoch,
                sent: vec![WorkerCount { worker, count: 3 }],
                syncs: Vec::new(),
                late: Vec::new(),
                atomics: false,
                load: Load {
                    room: u64::MAX,
                    ..Load::default()
                },
            },
            ToRank::Expect {
                epoch, weigh: true, ..
            } => FromRank::Weighed { epoch },
            ToRank::Expect { epoch, .. } | ToRank::Proceed { epoch } => {
                let stall = Stall {
                    total_us: 100,
                    drain_us: 50,
                    ..Stall::default()
                };
                FromRank::Drained { epoch, stall }
            }
            ToRank::Release { epoch } => FromRank::Released {
                epoch,
                release_us: 5,
                stall: None,
            },
            ToRank::Open { epoch } => FromRank::Opened {
                epoch,
                stall: Stall {
                    total_us: 900,
                    ..Stall::default()
                },
            },
            ToRank::Abort { epoch } => FromRank::Aborted { epoch },
        })
    }

    /// Answers until the connection ends or `until` says so.
    pub fn serve(&mut self, mut until: impl FnMut(&ToRank) -> bool) {
        while let Some(message) = self.hear() {
            if let Some(answer) = self.answer(&message) {
                self.say(&answer);
            }
            if until(&message) {
                return;
            }
        }
    }
}
