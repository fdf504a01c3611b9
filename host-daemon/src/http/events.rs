//! The client's side of server-sent events.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

/// Longest event that is read.
const LONGEST_EVENT: usize = 4 << 20;

/// A stream of events whose data are JSON.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    buffer: Vec<u8>,
}

impl EventStream {
    /// The events of an answer.
    pub fn new(body: Incoming) -> Self {
        Self {
            body,
            buffer: Vec::new(),
        }
    }

    /// The next event that is a `T`; `None` at the end of the stream. Cancel-safe.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(found) = parse(&event) {
                    return Some(found);
                }
            }
            if self.buffer.len() > LONGEST_EVENT {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

fn parse<T: DeserializeOwned>(event: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(event).ok()?;
    let data: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .collect();
    serde_json::from_str(data.trim()).ok()
}
