//! The lines of QMP, each one JSON object.
//!
//! QEMU's own event type is not used here: it is a closed enumeration, and an event of a newer
//! QEMU must neither be lost nor end the connection.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ErrorClass;
use crate::event::{Event, Timestamp};

/// Number of a command on its connection.
pub type RequestId = u64;

/// One line from QEMU.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// An answer.
    Reply {
        /// Absent only when QEMU could not read a command at all.
        id: Option<RequestId>,
        /// Its content.
        outcome: Result<Value, Refusal>,
    },
    /// An event.
    Event(Event),
    /// The first line of a connection.
    Greeting(Greeting),
    /// Not a QMP message.
    Unknown,
}

/// QEMU's error.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Refusal {
    /// Its class.
    #[serde(deserialize_with = "lenient_class")]
    pub class: ErrorClass,
    /// QEMU's own words.
    pub desc: String,
}

/// What QEMU says when a client connects.
#[derive(Clone, Debug, Deserialize)]
pub struct Greeting {
    /// Version of QEMU.
    #[serde(deserialize_with = "version_triple")]
    pub version: Version,
    /// What can be negotiated, for example `oob`.
    #[serde(default)]
    pub capabilities: Vec<Value>,
}

impl Greeting {
    /// Whether a capability can be negotiated.
    pub fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }
}

/// Version of QEMU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Version {
    /// For example 10.
    pub major: u32,
    /// For example 0.
    pub minor: u32,
    /// For example 2.
    pub micro: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

fn version_triple<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Version, D::Error> {
    #[derive(Deserialize)]
    struct VersionInfo {
        qemu: Version,
    }
    VersionInfo::deserialize(from).map(|info| info.qemu)
}

/// A class that this crate does not know is as good as the generic one.
fn lenient_class<'de, D: serde::Deserializer<'de>>(from: D) -> Result<ErrorClass, D::Error> {
    let name = Value::deserialize(from)?;
    Ok(ErrorClass::deserialize(name).unwrap_or(ErrorClass::GenericError))
}

/// Null is an answer, too.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "return", default, deserialize_with = "present")]
    returned: Option<Value>,
    error: Option<Refusal>,
    id: Option<Value>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    timestamp: Option<Timestamp>,
    #[serde(rename = "QMP")]
    greeting: Option<Greeting>,
}

/// Reads one line; what is not QMP is [`Incoming::Unknown`].
pub fn parse(line: &[u8]) -> Incoming {
    let Ok(line) = serde_json::from_slice::<Line>(line) else {
        return Incoming::Unknown;
    };
    let id = line.id.as_ref().and_then(Value::as_u64);
    match (line.event, line.error, line.returned, line.greeting) {
        (Some(name), ..) => Incoming::Event(Event {
            name,
            data: line.data,
            timestamp: line.timestamp,
        }),
        (None, Some(refusal), ..) => Incoming::Reply {
            id,
            outcome: Err(refusal),
        },
        (None, None, Some(value), _) => Incoming::Reply {
            id,
            outcome: Ok(value),
        },
        (None, None, None, Some(greeting)) => Incoming::Greeting(greeting),
        (None, None, None, None) => Incoming::Unknown,
    }
}

/// Which of QEMU's threads carries a command out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Band {
    /// Its main loop, one command after the other.
    In,
    /// The monitor's own, at once: for the few commands that have to work while the main loop is
    /// stuck. Needs the capability `oob`.
    Out,
}

/// A command as one line, newline included.
///
/// # Errors
/// Arguments that are not JSON.
pub fn command_line(
    command: &str,
    arguments: &Value,
    band: Band,
    id: RequestId,
) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    struct Execute<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        execute: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        exec_oob: Option<&'a str>,
        #[serde(skip_serializing_if = "Value::is_null")]
        arguments: &'a Value,
        id: RequestId,
    }
    let mut line = serde_json::to_vec(&Execute {
        execute: (band == Band::In).then_some(command),
        exec_oob: (band == Band::Out).then_some(command),
        arguments,
        id,
    })?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_null_or_empty_object_is_still_an_answer() {
        for line in [
            &br#"{"return": {}, "id": 7}"#[..],
            br#"{"return": null, "id": 7}"#,
        ] {
            assert!(matches!(
                parse(line),
                Incoming::Reply {
                    id: Some(7),
                    outcome: Ok(_)
                }
            ));
        }
    }

    #[test]
    fn an_error_of_an_unknown_class_keeps_its_text() {
        let line = br#"{"error": {"class": "FutureError", "desc": "no"}, "id": 1}"#;
        match parse(line) {
            Incoming::Reply {
                outcome: Err(refusal),
                ..
            } => {
                assert_eq!(refusal.desc, "no");
                assert_eq!(refusal.class, ErrorClass::GenericError);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_qmp_is_unknown() {
        for line in [&b"garbage"[..], b"[1,2]", b"{}", b"\xff\xfe", b""] {
            assert!(matches!(parse(line), Incoming::Unknown), "{line:?}");
        }
    }

    #[test]
    fn a_command_without_arguments_sends_none() {
        let line = command_line("stop", &Value::Null, Band::In, 3).unwrap();
        assert_eq!(line, b"{\"execute\":\"stop\",\"id\":3}\n");
    }

    #[test]
    fn a_command_out_of_band_is_named_as_one() {
        let line = command_line("migrate-pause", &Value::Null, Band::Out, 4).unwrap();
        assert_eq!(line, b"{\"exec-oob\":\"migrate-pause\",\"id\":4}\n");
    }
}
