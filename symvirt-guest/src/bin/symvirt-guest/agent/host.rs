//! The conversation with the coordinator: the link over the port.
//!
//! Survives every loss of the port; what ranks say in the meantime is kept by the link. Only when
//! that is full the coordinator is given up as forgotten, and met anew when it comes back.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use anyhow::Context;
use symvirt_protocol::agent::{FromAgent, ToAgent};
use symvirt_protocol::link::{Link, Received};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::port::{self, Chunk, Happening, Location};

/// How often the link looks whether it makes progress.
const TICK: Duration = Duration::from_millis(250);

/// What the agent needs to know of its coordinator.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// It is there and has no memory of this agent.
    Session,
    /// The channel is open or closed, both sides remember.
    Present(bool),
    /// It has not listened for so long that it is given up.
    Forgotten,
    /// It says something.
    Said(ToAgent),
}

/// The agent's end of the guest channel.
#[derive(Debug)]
pub struct Host {
    link: Link<FromAgent, ToAgent>,
    happenings: mpsc::Receiver<Happening>,
    chunks: SyncSender<Chunk>,
    /// The opening of the port that bytes are for, while it is open.
    opening: Option<u64>,
    unwritten: VecDeque<Chunk>,
    ticks: tokio::time::Interval,
    ready: VecDeque<Event>,
    named_version: bool,
}

impl Host {
    /// Begins to look for the port.
    pub fn start(location: Location) -> anyhow::Result<Self> {
        let (happenings, chunks) = port::start(location).context("start the port's threads")?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Ok(Host {
            link: Link::new(random()?),
            happenings,
            chunks,
            opening: None,
            unwritten: VecDeque::new(),
            ticks,
            ready: VecDeque::new(),
            named_version: false,
        })
    }

    /// Tells the coordinator; kept until it has heard it.
    pub fn send(&mut self, message: &FromAgent) -> anyhow::Result<()> {
        if let Err(error) = self.link.send(message) {
            warn!(%error, "coordinator is given up");
            self.link = Link::new(random()?);
            self.ready.push_back(Event::Forgotten);
            if self.opening.is_some() {
                self.link.reconnected();
            }
        }
        self.write();
        Ok(())
    }

    /// The next event. Cancel-safe.
    pub async fn next(&mut self) -> anyhow::Result<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let received = tokio::select! {
                happening = self.happenings.recv() => {
                    match happening.context("the port's threads have ended")? {
                        Happening::Opened(number) => {
                            self.opening = Some(number);
                            self.unwritten.clear();
                            self.link.reconnected();
                            Vec::new()
                        }
                        Happening::Closed => {
                            self.opening = None;
                            self.ready.push_back(Event::Present(false));
                            Vec::new()
                        }
                        Happening::Bytes(bytes) => self.link.receive(&bytes),
                    }
                }
                _ = self.ticks.tick() => self.link.tick(),
            };
            for received in received {
                self.note(received);
            }
            self.write();
        }
    }

    fn note(&mut self, received: Received<ToAgent>) {
        match received {
            Received::Session { peer } => {
                debug!(peer, "coordinator");
                self.ready.push_back(Event::Session);
            }
            Received::Message(message) => {
                self.ready.push_back(Event::Present(true));
                self.ready.push_back(Event::Said(message));
            }
            Received::Resumed => self.ready.push_back(Event::Present(true)),
            Received::Malformed(error) => warn!(%error, "coordinator sent no message"),
            Received::Version { theirs } => {
                if !std::mem::replace(&mut self.named_version, true) {
                    let ours = symvirt_protocol::PROTOCOL_VERSION;
                    warn!(theirs, ours, "coordinator speaks another protocol version");
                }
            }
        }
    }

    /// Hands the link's bytes to the port as far as it takes them.
    fn write(&mut self) {
        let output = self.link.take_output();
        // Bytes for a closed port are dropped: the link says them again.
        let Some(number) = self.opening else { return };
        if !output.is_empty() {
            self.unwritten.push_back((number, output));
        }
        while let Some(chunk) = self.unwritten.pop_front() {
            match self.chunks.try_send(chunk) {
                Ok(()) => {}
                Err(TrySendError::Full(chunk) | TrySendError::Disconnected(chunk)) => {
                    self.unwritten.push_front(chunk);
                    return;
                }
            }
        }
    }
}

/// A number that no other life of this agent has.
fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("read random bytes: {error}"))?;
    Ok(u64::from_le_bytes(bytes))
}
