//! A lossy byte stream made reliable, between a guest's agent and the daemon that coordinates it.
//!
//! The guest channel is a virtio-serial port: bytes in its chardev may be lost at switchover,
//! the host's end is closed and opened again, and the daemon may go on over another path (from
//! the source's chardev to the destination's, relayed). None of this may lose, repeat or reorder
//! a message.
//!
//! ```text
//!   A                                   B
//!   │ Resume{me: a, you: none, oldest 1}│    connection, or a tick without progress
//!   ├──────────────────────────────────►│    a is new: report Session, forget unacked
//!   │ Resume{me: b, you: (a, 1)}        │
//!   │◄──────────────────────────────────┤
//!   │ Data{a, seq 1, ack 0, Hello}      │
//!   ├──────────────────────────────────►│    deliver Hello
//!   │ Ack{b, ack 1}                     │
//!   │◄──────────────────────────────────┤
//!   │ Data{a, seq 2}  ──► lost          │
//!   │ Data{a, seq 3}                    │
//!   ├──────────────────────────────────►│    a gap: say where we are, once
//!   │ Resume{b, you: (a, 2)}            │
//!   │◄──────────────────────────────────┤    retransmit 2 and 3
//! ```
//!
//! A *session* is one life of one side's memory. Only `Resume` introduces one; data of an unknown
//! session is answered by a `Resume`. When the other side has a new session it has forgotten
//! everything: what was unacknowledged is dropped and [`Received::Session`] reported, so that the
//! agent says `Hello` again. Each side sees one such report at first contact; what was queued
//! before that is kept for whoever comes. Nothing that was written for an earlier life of the
//! receiver is delivered to a later one: every packet says whose numbers it speaks of.
//!
//! Pure: it neither reads a clock (the owner calls [`Link::tick`]) nor draws random numbers (the
//! owner gives the session).

use std::collections::VecDeque;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::frame::{self, Decoder, FrameError};

/// Messages that may wait for their acknowledgement.
pub const MAX_UNACKED: usize = 1024;
/// Bytes that may wait for their acknowledgement: a table of the largest kind, and room.
pub const MAX_UNACKED_BYTES: usize = 2 * frame::MAX_PAYLOAD;
/// Room for the link's own fields in a frame.
const OVERHEAD: usize = 64;
/// Sessions of the peer that are over; frames of theirs still under way are ignored.
const RETIRED: usize = 8;

/// Why a message was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LinkError {
    /// The other side does not acknowledge: treat it as lost.
    #[error("{messages} messages ({bytes} bytes) wait for acknowledgement")]
    Full {
        /// Messages waiting.
        messages: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// It cannot be framed.
    #[error("message cannot be framed")]
    Frame(#[from] FrameError),
}

/// What arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<In> {
    /// The next message, each exactly once and in order within a session.
    Message(In),
    /// The other side has a memory that did not exist before: first contact, or it was restarted.
    /// Earlier messages to it may be lost.
    Session {
        /// Its number.
        peer: u64,
    },
    /// The other side said where it is, and remembers this one: the stream works in both
    /// directions.
    Resumed,
    /// An acknowledged position of the stream holds something else than a message of this type;
    /// it is skipped.
    Malformed(FrameError),
    /// The other side speaks another protocol version.
    Version {
        /// Theirs.
        theirs: u16,
    },
}

/// What a link sends: the payload of one frame.
#[derive(Serialize, Deserialize, Debug)]
pub enum Packet {
    /// Opens the stream, or resumes it.
    Resume {
        /// The sender's session.
        session: u64,
        /// The receiver's session and the number of the next message expected of it.
        peer: Option<(u64, u64)>,
        /// First number that will be (re)transmitted.
        oldest: u64,
        /// Whether the receiver is to say where it is, too.
        probe: bool,
    },
    /// A message.
    Data {
        /// The sender's session.
        session: u64,
        /// The receiver's session: this is not for an earlier life.
        of: u64,
        /// Its number.
        seq: u64,
        /// Everything below this has arrived here.
        ack: u64,
        /// The message, encoded.
        payload: Vec<u8>,
    },
    /// An acknowledgement alone.
    Ack {
        /// The sender's session.
        session: u64,
        /// The receiver's session.
        of: u64,
        /// Everything below this has arrived here.
        ack: u64,
    },
}

#[derive(Debug)]
struct Peer {
    session: u64,
    expected: u64,
    /// A gap was reported at this position already.
    reported_gap: Option<u64>,
}

/// Answers to what one [`Link::receive`] brought, each given once however often it was asked for.
#[derive(Debug, Default)]
struct Owed {
    ack: bool,
    resume: bool,
    /// The resume asks for one in return.
    probe: bool,
    retransmission: bool,
}

/// One end. `Out` is what this side sends, `In` what it receives.
#[derive(Debug)]
pub struct Link<Out, In> {
    session: u64,
    next: u64,
    unacked: VecDeque<(u64, Vec<u8>)>,
    unacked_bytes: usize,
    peer: Option<Peer>,
    retired: VecDeque<u64>,
    decoder: Decoder,
    output: Vec<u8>,
    owes: Owed,
    /// The oldest unacknowledged number at the last tick.
    stuck_at: Option<u64>,
    types: PhantomData<fn(Out) -> In>,
}

impl<Out: Serialize, In: DeserializeOwned> Link<Out, In> {
    /// A new end. `session` is a random number that no other life of this side has used.
    pub fn new(session: u64) -> Self {
        Link {
            session,
            next: 1,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            peer: None,
            retired: VecDeque::new(),
            decoder: Decoder::default(),
            output: Vec::new(),
            owes: Owed::default(),
            stuck_at: None,
            types: PhantomData,
        }
    }

    /// The byte stream was opened, or is another one: forgets bytes of the old one and says where
    /// this side is. Bytes not yet taken by [`Link::take_output`] are for the old stream, drop
    /// them: this clears them.
    pub fn reconnected(&mut self) {
        self.decoder.reset();
        self.output.clear();
        self.say_where(true);
    }

    /// Queues a message. It is kept until acknowledged, across any number of reconnections.
    ///
    /// # Errors
    /// The message is not queued; what was queued before is not affected.
    pub fn send(&mut self, message: &Out) -> Result<(), LinkError> {
        let payload = postcard::to_stdvec(message).map_err(FrameError::from)?;
        let length = payload.len();
        if length + OVERHEAD > frame::MAX_PAYLOAD {
            return Err(FrameError::TooLong { length }.into());
        }
        let (messages, bytes) = (self.unacked.len(), self.unacked_bytes);
        if messages >= MAX_UNACKED || bytes + length > MAX_UNACKED_BYTES {
            return Err(LinkError::Full { messages, bytes });
        }
        let seq = self.next;
        self.next += 1;
        self.unacked_bytes += length;
        self.unacked.push_back((seq, payload));
        self.transmit_from(seq);
        Ok(())
    }

    /// Bytes arrived. The answers (acknowledgements, retransmissions) are in the output after it.
    pub fn receive(&mut self, bytes: &[u8]) -> Vec<Received<In>> {
        self.decoder.push(bytes);
        let mut received = Vec::new();
        self.decode(&mut received);
        received
    }

    /// Time passed (a few hundred milliseconds): finds a frame behind one whose rest was lost, and
    /// asks where the other side is if nothing was acknowledged since the last tick.
    pub fn tick(&mut self) -> Vec<Received<In>> {
        self.decoder.resync();
        let mut received = Vec::new();
        self.decode(&mut received);
        let oldest = self.unacked.front().map(|(seq, _)| *seq);
        let silent = self.peer.is_none() || (oldest.is_some() && oldest == self.stuck_at);
        if silent && self.output.is_empty() {
            self.say_where(true);
        }
        self.stuck_at = oldest;
        received
    }

    /// Takes the bytes to be written to the stream.
    pub fn take_output(&mut self) -> Vec<u8> {
        if std::mem::take(&mut self.owes.ack)
            && let Some(Peer {
                session: of,
                expected: ack,
                ..
            }) = self.peer
        {
            let session = self.session;
            self.emit(&Packet::Ack { session, of, ack });
        }
        std::mem::take(&mut self.output)
    }

    /// Whether the other side was heard of.
    pub fn is_established(&self) -> bool {
        self.peer.is_some()
    }

    /// Messages that are not acknowledged yet.
    pub fn unacked(&self) -> usize {
        self.unacked.len()
    }

    fn decode(&mut self, received: &mut Vec<Received<In>>) {
        loop {
            match self.decoder.next::<Packet>() {
                Ok(None) => break,
                Ok(Some(packet)) => self.hear(packet, received),
                Err(FrameError::Version { theirs }) => received.push(Received::Version { theirs }),
                // Garbage that looks like a frame; what it overwrote will be asked for again.
                Err(FrameError::TooLong { .. }) => {}
                Err(error @ FrameError::Malformed(_)) => received.push(Received::Malformed(error)),
            }
        }
        if std::mem::take(&mut self.owes.resume) {
            let probe = std::mem::take(&mut self.owes.probe);
            self.say_where(probe);
        }
        let room = self.output.len() < MAX_UNACKED_BYTES;
        if std::mem::take(&mut self.owes.retransmission) && room {
            self.transmit_from(0);
        }
    }

    fn hear(&mut self, packet: Packet, received: &mut Vec<Received<In>>) {
        let (Packet::Resume { session, .. }
        | Packet::Data { session, .. }
        | Packet::Ack { session, .. }) = packet;
        if self.retired.contains(&session) {
            return;
        }
        match packet {
            Packet::Resume {
                peer: Some((of, _)),
                ..
            } if of != self.session => {
                // It does not know of this life yet, and means an earlier one.
                (self.owes.resume, self.owes.probe) = (true, true);
            }
            Packet::Resume {
                session,
                peer,
                oldest,
                probe,
            } => {
                self.meet(session, oldest, received);
                if let Some((_, expected)) = peer {
                    self.acknowledge(expected);
                    received.push(Received::Resumed);
                }
                self.owes.resume |= probe;
                self.owes.retransmission = true;
            }
            Packet::Data {
                session,
                of,
                seq,
                ack,
                payload,
            } => {
                let known = self.peer.as_mut().filter(|peer| peer.session == session);
                let Some(peer) = known.filter(|_| of == self.session) else {
                    (self.owes.resume, self.owes.probe) = (true, true);
                    return;
                };
                // A peer that begins at the end of all numbers has said its last word.
                let next = seq.checked_add(1).filter(|_| seq == peer.expected);
                if let Some(next) = next {
                    peer.expected = next;
                    peer.reported_gap = None;
                    self.owes.ack = true;
                    received.push(match frame::decode_payload(&payload) {
                        Ok(message) => Received::Message(message),
                        Err(error) => Received::Malformed(error),
                    });
                } else if seq < peer.expected {
                    self.owes.ack = true;
                } else if peer.reported_gap.replace(peer.expected) != Some(peer.expected) {
                    self.owes.resume = true;
                }
                self.acknowledge(ack);
            }
            Packet::Ack { session, of, ack } => {
                let known = self
                    .peer
                    .as_ref()
                    .is_some_and(|peer| peer.session == session);
                if known && of == self.session {
                    self.acknowledge(ack);
                }
            }
        }
    }

    /// A life of the other side says that it goes on from `oldest`: a new one, or a known one that
    /// has dropped what it wrote for our own earlier life.
    fn meet(&mut self, session: u64, oldest: u64, received: &mut Vec<Received<In>>) {
        match &mut self.peer {
            Some(peer) if peer.session == session => peer.expected = peer.expected.max(oldest),
            Some(earlier) => {
                let new = Peer {
                    session,
                    expected: oldest,
                    reported_gap: None,
                };
                let earlier = std::mem::replace(earlier, new);
                self.retired.push_back(earlier.session);
                if self.retired.len() > RETIRED {
                    self.retired.pop_front();
                }
                // Written for a memory that is gone.
                self.unacked.clear();
                self.unacked_bytes = 0;
                received.push(Received::Session { peer: session });
            }
            None => {
                self.peer = Some(Peer {
                    session,
                    expected: oldest,
                    reported_gap: None,
                });
                received.push(Received::Session { peer: session });
            }
        }
    }

    /// Everything below `ack` has arrived on the other side.
    fn acknowledge(&mut self, ack: u64) {
        while let Some((seq, payload)) = self.unacked.front()
            && *seq < ack
        {
            self.unacked_bytes -= payload.len();
            self.unacked.pop_front();
        }
    }

    fn say_where(&mut self, probe: bool) {
        let session = self.session;
        let peer = self.peer.as_ref().map(|peer| (peer.session, peer.expected));
        let oldest = self.unacked.front().map_or(self.next, |(seq, _)| *seq);
        self.emit(&Packet::Resume {
            session,
            peer,
            oldest,
            probe,
        });
    }

    fn transmit_from(&mut self, first: u64) {
        let Some(Peer {
            session: of,
            expected: ack,
            ..
        }) = self.peer
        else {
            return;
        };
        let session = self.session;
        let unacked = std::mem::take(&mut self.unacked);
        for (seq, payload) in unacked.iter().filter(|(seq, _)| *seq >= first) {
            let payload = payload.clone();
            self.emit(&Packet::Data {
                session,
                of,
                seq: *seq,
                ack,
                payload,
            });
        }
        self.unacked = unacked;
    }

    fn emit(&mut self, packet: &Packet) {
        // `send` has checked the only field that can be long.
        if let Ok(frame) = frame::encode(packet) {
            self.output.extend_from_slice(&frame);
        }
    }
}
