//! Connections of ranks, by number: where the core's outputs to ranks go.

use std::collections::HashMap;

use symvirt_protocol::frame;
use symvirt_protocol::rank::ToRank;
use tokio::sync::mpsc;
use tracing::warn;

use super::core::ConnId;
use super::sockets::Frame;

/// The outboxes of all connected ranks.
#[derive(Debug, Default)]
pub struct Board {
    outboxes: HashMap<ConnId, mpsc::Sender<Frame>>,
}

impl Board {
    /// A rank connected.
    pub fn open(&mut self, conn: ConnId, outbox: mpsc::Sender<Frame>) {
        self.outboxes.insert(conn, outbox);
    }

    /// Ends all connections, and names them.
    pub fn close_all(&mut self) -> impl Iterator<Item = ConnId> + use<> {
        std::mem::take(&mut self.outboxes).into_keys()
    }

    /// Ends a connection, or forgets one that has ended.
    pub fn close(&mut self, conn: ConnId) {
        self.outboxes.remove(&conn);
    }

    /// Writes one frame to each. One that does not read is disconnected: the reader of its
    /// connection then reports it closed.
    pub fn write(&mut self, conns: &[ConnId], message: &ToRank) {
        let frame: Frame = match frame::encode(message) {
            Ok(frame) => frame.into(),
            Err(error) => {
                warn!(%error, "message for ranks cannot be framed");
                return;
            }
        };
        for conn in conns {
            let Some(outbox) = self.outboxes.get(conn) else {
                continue;
            };
            if outbox.try_send(frame.clone()).is_err() {
                warn!(conn = conn.0, reason = "does not read", "disconnected");
                self.outboxes.remove(conn);
            }
        }
    }
}
