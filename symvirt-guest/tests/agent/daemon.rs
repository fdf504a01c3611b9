//! A coordinator's end of the guest channel: link and gang over a unix socket.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use symvirt_protocol::agent::{FromAgent, ToAgent};
use symvirt_protocol::gang::{Effect, Gang, GuestId, Outcome};
use symvirt_protocol::link::{Link, Received};
use symvirt_protocol::transport::Interconnect;

use crate::rank::PATIENCE;

pub struct Daemon {
    listener: UnixListener,
    stream: Option<UnixStream>,
    pub link: Link<ToAgent, FromAgent>,
    pub gang: Gang,
    pub outcomes: Vec<Outcome>,
    pub heard: Vec<FromAgent>,
    pub sessions: usize,
    pub patience: Duration,
}

impl Daemon {
    pub fn listen(path: &Path) -> Self {
        Daemon {
            listener: UnixListener::bind(path).expect("bind host socket"),
            stream: None,
            link: Link::new(1),
            gang: Gang::new(Interconnect::Native),
            outcomes: Vec::new(),
            heard: Vec::new(),
            sessions: 0,
            patience: PATIENCE,
        }
    }

    pub fn accept(&mut self) {
        let (stream, _) = self.listener.accept().expect("agent connects");
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("bound the wait");
        self.stream = Some(stream);
        self.link.reconnected();
        self.write();
    }

    pub fn disconnect(&mut self) {
        self.stream = None;
    }

    pub fn write(&mut self) {
        let output = self.link.take_output();
        if let Some(stream) = &mut self.stream {
            stream.write_all(&output).expect("agent reads");
        }
    }

    pub fn send(&mut self, message: &ToAgent) {
        self.link.send(message).expect("room");
        self.write();
    }

    pub fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { message, .. } => self.send(&message),
                Effect::Outcome(outcome) => self.outcomes.push(outcome),
            }
        }
    }

    /// Relays until `done`, or fails after a while.
    pub fn run(&mut self, what: &str, mut done: impl FnMut(&Daemon) -> bool) {
        let limit = Instant::now() + self.patience;
        let mut buffer = [0; 65536];
        while !done(self) {
            assert!(
                Instant::now() < limit,
                "{what} did not happen; heard {:?}",
                self.heard
            );
            let read = self.stream.as_mut().expect("connected").read(&mut buffer);
            let received = match read {
                Ok(0) => panic!("agent closed the channel"),
                Ok(read) => self.link.receive(&buffer[..read]),
                Err(_) => self.link.tick(),
            };
            for received in received {
                match received {
                    Received::Message(message) => {
                        self.heard.push(message.clone());
                        let effects = self.gang.hear(&GuestId("g1".into()), message);
                        self.apply(effects);
                    }
                    Received::Session { .. } => self.sessions += 1,
                    Received::Resumed => {}
                    Received::Malformed(_) | Received::Version { .. } => panic!("{received:?}"),
                }
            }
            self.write();
        }
    }
}
