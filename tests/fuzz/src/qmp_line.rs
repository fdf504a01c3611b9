//! One line of QEMU's monitor.

use serde_json::{Value, json};
use symvirt_qmp::Event;
use symvirt_qmp::wire::{Band, Incoming, command_line, parse};

/// A line.
pub fn check(line: &[u8]) {
    match parse(line) {
        Incoming::Event(event) => {
            let again = json!({
                "event": event.name, "data": event.data, "timestamp": event.timestamp,
            });
            assert!(is_event(&again, &event), "{again}");
            decoded(&event);
        }
        Incoming::Reply { .. } | Incoming::Greeting(_) | Incoming::Unknown => {}
    }
    if let Ok(Value::Object(said)) = serde_json::from_slice::<Value>(line) {
        answers(&said);
        // What came from QEMU can be given back to it, on one line.
        let arguments = Value::Object(said);
        let command = command_line("device_add", &arguments, Band::In, 7).expect("plain data");
        let end = command.iter().position(|byte| *byte == b'\n');
        assert_eq!(end, Some(command.len() - 1));
    }
}

fn is_event(line: &Value, expected: &Event) -> bool {
    matches!(parse(line.to_string().as_bytes()), Incoming::Event(event) if event == *expected)
}

/// Who waits for a command gets whatever was returned.
fn answers(said: &serde_json::Map<String, Value>) {
    let [Some(returned), Some(id)] = ["return", "id"].map(|key| said.get(key)) else {
        return;
    };
    let line = json!({ "return": returned, "id": id }).to_string();
    match parse(line.as_bytes()) {
        Incoming::Reply {
            id: heard,
            outcome: Ok(value),
        } => assert_eq!((heard, &value), (id.as_u64(), returned)),
        other => panic!("{line} is {other:?}"),
    }
}

/// Events that the daemon looks at are what they are, or passed over.
fn decoded(event: &Event) {
    use qapi_qmp::{DEVICE_DELETED, DEVICE_UNPLUG_GUEST_ERROR, MIGRATION, SHUTDOWN, STOP};
    let kinds = [
        event.decode::<DEVICE_DELETED>().is_some(),
        event.decode::<DEVICE_UNPLUG_GUEST_ERROR>().is_some(),
        event.decode::<MIGRATION>().is_some(),
        event.decode::<SHUTDOWN>().is_some(),
        event.decode::<STOP>().is_some(),
    ];
    assert!(kinds.into_iter().filter(|is| *is).count() <= 1);
}
