//! Headers of active messages with a [`symvirt_protocol::trailer`]: UCX may read them until the message is
//! sent.

use std::collections::HashMap;
use std::sync::Mutex;

use super::lock;
use super::request::Request;

/// Those of one worker, by the request of the send.
#[derive(Default)]
pub struct Headers(Mutex<HashMap<usize, Box<[u8]>>>);

impl Headers {
    /// Keeps a header for as long as the send is under way.
    pub fn keep(&self, request: *const Request, header: Box<[u8]>) {
        lock(&self.0).insert(request.addr(), header);
    }

    /// The send is over, or never began.
    pub fn drop_of(&self, request: *const Request) {
        lock(&self.0).remove(&request.addr());
    }
}
