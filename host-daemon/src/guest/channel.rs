//! One guest's channel: opens its byte stream, reopens it whenever it ends or the guest moves, and
//! keeps the link's promise that every message arrives once and in order.
//!
//! Ends when its sender of messages is dropped. Does not know what the messages mean.

use std::sync::Arc;
use std::time::Duration;

use symvirt_protocol::agent::{FromAgent, ToAgent};
use symvirt_protocol::link::{Link, Received};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, trace, warn};

use super::{Connector, Stream};
use crate::config::{HostName, VmName};

/// Pause before a stream that cannot be opened is tried again; doubled each time.
const REOPEN: Duration = Duration::from_millis(50);
/// Longest such pause.
const REOPEN_MAX: Duration = Duration::from_secs(1);
/// Interval at which the link looks after itself.
const TICK: Duration = Duration::from_millis(200);
/// The same while nobody has answered yet: nobody may ever read what is written.
const TICK_SILENT: Duration = Duration::from_secs(1);
/// A stream over which a guest that owes an answer says nothing for so long is opened again: QEMU
/// serves one client of a channel at a time, and lets others connect and wait.
const SILENCE: Duration = Duration::from_secs(10);
const READ: usize = 64 << 10;

/// What a channel tells its coordinator.
pub(super) struct Heard {
    /// Whose channel.
    pub vm: VmName,
    /// What is new.
    pub news: News,
}

/// What is new of a guest.
pub(super) enum News {
    /// Something arrived.
    Received(Received<FromAgent>),
    /// It owes an answer, and nothing has arrived for some time.
    Silence,
}

/// The ends of a channel that it does not own itself.
pub(super) struct Channel {
    pub vm: VmName,
    pub connector: Arc<dyn Connector>,
    /// Where the guest is; the stream is opened anew when it changes.
    pub home: watch::Receiver<HostName>,
    pub outgoing: mpsc::UnboundedReceiver<ToAgent>,
    pub heard: mpsc::Sender<Heard>,
}

enum End {
    /// Open the stream again.
    Stream,
    /// Nobody wants the channel any more.
    Owner,
}

impl Channel {
    /// Runs until the owner lets go.
    pub async fn run(mut self, session: u64) {
        let mut link = Link::new(session);
        let mut pause = REOPEN;
        loop {
            let home = self.home.borrow_and_update().clone();
            let connector = self.connector.clone();
            let stream = tokio::select! {
                stream = connector.connect(home.clone(), self.vm.clone()) => stream,
                open = self.keep(&mut link) => if open {
                    pause = REOPEN;
                    continue;
                } else {
                    return;
                },
            };
            match stream {
                Ok(stream) => {
                    debug!(vm = %self.vm, %home, "guest channel open");
                    pause = REOPEN;
                    link.reconnected();
                    match self.serve(stream, &mut link).await {
                        End::Stream => debug!(vm = %self.vm, %home, "guest channel ended"),
                        End::Owner => return,
                    }
                }
                Err(error) => trace!(vm = %self.vm, %home, %error, "guest channel not open"),
            }
            tokio::select! {
                () = sleep(pause) => pause = REOPEN_MAX.min(pause * 2),
                open = self.keep(&mut link) => if open { pause = REOPEN } else { return },
            }
        }
    }

    /// Queues what is to be sent while no stream is open. Returns true when the guest has moved,
    /// false when the owner has let go.
    async fn keep(&mut self, link: &mut Link<ToAgent, FromAgent>) -> bool {
        loop {
            tokio::select! {
                message = self.outgoing.recv() => match message {
                    Some(message) => queue(&self.vm, link, &message),
                    None => return false,
                },
                moved = self.home.changed() => return moved.is_ok(),
            }
        }
    }

    async fn serve(&mut self, stream: Box<dyn Stream>, link: &mut Link<ToAgent, FromAgent>) -> End {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut buffer = vec![0; READ];
        let mut unwritten: Vec<u8> = Vec::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = Instant::now();
        let mut heard = Instant::now();
        loop {
            if unwritten.is_empty() {
                unwritten = link.take_output();
            }
            tokio::select! {
                read = reader.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return End::Stream,
                    Ok(n) => {
                        heard = Instant::now();
                        for received in link.receive(&buffer[..n]) {
                            if !self.tell(News::Received(received)).await {
                                return End::Owner;
                            }
                        }
                    }
                },
                written = writer.write(&unwritten), if !unwritten.is_empty() => match written {
                    Ok(0) | Err(_) => return End::Stream,
                    Ok(n) => { unwritten.drain(..n); }
                },
                message = self.outgoing.recv() => match message {
                    Some(message) => queue(&self.vm, link, &message),
                    None => return End::Owner,
                },
                moved = self.home.changed() => {
                    return if moved.is_ok() { End::Stream } else { End::Owner };
                }
                _ = ticks.tick() => {
                    let owes = !link.is_established() || link.unacked() > 0;
                    if owes && heard.elapsed() > SILENCE {
                        return match self.tell(News::Silence).await {
                            true => End::Stream,
                            false => End::Owner,
                        };
                    }
                    // A guest that does not read gets nothing more to read.
                    let early = !link.is_established() && asked.elapsed() < TICK_SILENT;
                    if early || !unwritten.is_empty() {
                        continue;
                    }
                    asked = Instant::now();
                    for received in link.tick() {
                        if !self.tell(News::Received(received)).await {
                            return End::Owner;
                        }
                    }
                }
            }
        }
    }

    async fn tell(&self, news: News) -> bool {
        let vm = self.vm.clone();
        self.heard.send(Heard { vm, news }).await.is_ok()
    }
}

fn queue(vm: &VmName, link: &mut Link<ToAgent, FromAgent>, message: &ToAgent) {
    if let Err(error) = link.send(message) {
        // The switch that needed it will run into its time limit and say who is missing.
        warn!(%vm, %error, "message to the agent dropped");
    }
}
