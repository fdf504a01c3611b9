//! What goes out of band: frames and their bytes, as they would be on the wire.

use std::ops::Sub;

use serde::Serialize;
use symvirt_protocol::frame;
use tracing::warn;

/// Frames, and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Volume {
    pub frames: u64,
    pub bytes: u64,
}

impl Volume {
    /// Counts a message that goes to `receivers`, or comes from one sender.
    pub fn count<T: Serialize>(&mut self, message: &T, receivers: usize) {
        match frame::length_of(message) {
            Ok(length) => {
                self.frames += receivers as u64;
                self.bytes += (length * receivers) as u64;
            }
            Err(error) => warn!(%error, "a message without a length"),
        }
    }
}

impl Sub for Volume {
    type Output = Volume;

    fn sub(self, before: Volume) -> Volume {
        Volume {
            frames: self.frames - before.frames,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// Since the rehearsal began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volumes {
    /// On the sockets of the ranks, both ways.
    pub ranks: Volume,
    /// Between agent and coordinator, both ways; in a rehearsal they are one process.
    pub guest: Volume,
}

impl Sub for Volumes {
    type Output = Volumes;

    fn sub(self, before: Volumes) -> Volumes {
        Volumes {
            ranks: self.ranks - before.ranks,
            guest: self.guest - before.guest,
        }
    }
}
