//! The connection loop against a scripted server: what a real QEMU does only on bad days.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its fixtures too"
)]

use std::time::Duration;

use serde_json::{Value, json};
use symvirt_qmp::migration::{Endpoint, Outgoing, Settings, Status};
use symvirt_qmp::{Client, CloseReason, Error, ErrorClass, EventError, commands};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

const LIMIT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);
const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10},
    "package": "test"}, "capabilities": ["oob"]}}"#;

/// The server's end, driven line by line by a test.
struct Server {
    from: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    to: OwnedWriteHalf,
}

impl Server {
    async fn say(&mut self, line: &str) {
        self.to
            .write_all(line.replace('\n', " ").as_bytes())
            .await
            .unwrap();
        self.to.write_all(b"\n").await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        let line = self
            .from
            .next_line()
            .await
            .unwrap()
            .expect("the client went away");
        serde_json::from_str(&line).expect("the client sent a broken line")
    }

    async fn answer(&mut self, request: &Value, value: Value) {
        self.say(&json!({"return": value, "id": request["id"]}).to_string())
            .await;
    }
}

async fn connected() -> (Client, Server) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (read, to) = theirs.into_split();
    let mut server = Server {
        from: BufReader::new(read).lines(),
        to,
    };
    let serve = async {
        server.say(GREETING).await;
        let request = server.hear().await;
        assert_eq!(request["execute"], "qmp_capabilities");
        assert_eq!(request["arguments"], json!({"enable": ["oob"]}));
        server.answer(&request, json!({})).await;
    };
    let (client, ()) = tokio::join!(Client::from_stream(ours, "test.qmp", LIMIT), serve);
    (client.unwrap(), server)
}

fn status(running: bool) -> Value {
    json!({"running": running, "status": if running { "running" } else { "paused" }})
}

/// A QEMU whose main loop is stuck answers them all the same.
#[tokio::test]
async fn commands_that_overtake_others_are_those_that_qemu_lets() {
    let (client, mut server) = connected().await;
    let serve = async {
        for (how, command) in [("execute", "stop"), ("exec-oob", "migrate-pause")] {
            let request = server.hear().await;
            assert_eq!(request[how], command);
            server.answer(&request, json!({})).await;
        }
    };
    let execute = async {
        client.execute(commands::stop {}).await.unwrap();
        client.execute(commands::migrate_pause {}).await.unwrap();
    };
    tokio::join!(execute, serve);
}

#[tokio::test]
async fn an_unknown_event_is_kept_raw() {
    let (client, mut server) = connected().await;
    let mut events = client.subscribe();
    server
        .say(
            r#"{"event": "FROM_THE_FUTURE", "data": {"x": [1]},
            "timestamp": {"seconds": 5, "microseconds": 6}}"#,
        )
        .await;
    server.say(r#"{"event": "STOP"}"#).await;
    let event = events.next().await.unwrap();
    assert_eq!(event.name, "FROM_THE_FUTURE");
    assert_eq!(event.data, json!({"x": [1]}));
    assert_eq!(
        event.timestamp.map(|t| (t.seconds, t.microseconds)),
        Some((5, 6))
    );
    let stop = events.next().await.unwrap();
    assert!(stop.decode::<commands::STOP>().is_some());
    assert_eq!(stop.timestamp, None);
}

#[tokio::test]
async fn a_garbage_line_costs_nothing_but_itself() {
    let (client, mut server) = connected().await;
    let serve = async {
        let request = server.hear().await;
        for line in [
            "not json",
            "[]",
            "{\"return\": 1",
            "\u{0}",
            r#"{"return": {}}"#,
        ] {
            server.say(line).await;
        }
        server.answer(&request, status(true)).await;
    };
    let (answer, ()) = tokio::join!(client.execute(commands::query_status {}), serve);
    assert!(answer.unwrap().running);
}

#[tokio::test]
async fn a_late_answer_is_discarded_and_the_connection_stays_usable() {
    let (client, mut server) = connected().await;
    let late = client
        .execute_within(commands::query_status {}, SHORT)
        .await;
    assert!(matches!(&late, Err(Error::Timeout { command, .. }) if command == "query-status"));
    let serve = async {
        let first = server.hear().await;
        let second = server.hear().await;
        server.answer(&first, status(false)).await;
        server.answer(&second, status(true)).await;
    };
    let (answer, ()) = tokio::join!(client.execute(commands::query_status {}), serve);
    assert!(
        answer.unwrap().running,
        "the answer of another command was taken"
    );
}

#[tokio::test]
async fn dropped_futures_leave_whole_lines_and_no_waiters() {
    let (client, mut server) = connected().await;
    for turn in 0..200u32 {
        let mut execute = Box::pin(client.execute(commands::query_status {}));
        // Poll a few times, or never, then drop.
        for _ in 0..turn % 3 {
            tokio::select! {
                biased;
                answer = &mut execute => panic!("nobody answered, yet {answer:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    let last = async {
        loop {
            let request = server.hear().await;
            if request["execute"] == "stop" {
                server.answer(&request, json!({})).await;
                return;
            }
            assert_eq!(request["execute"], "query-status");
            server.answer(&request, status(true)).await;
        }
    };
    let (answer, ()) = tokio::join!(client.execute(commands::stop {}), last);
    answer.unwrap();
}

#[tokio::test]
async fn answers_find_their_callers_in_any_order() {
    let (client, mut server) = connected().await;
    let serve = async {
        let mut requests = Vec::new();
        for _ in 0..8 {
            requests.push(server.hear().await);
        }
        for request in requests.iter().rev() {
            server
                .answer(request, json!({ "echo": request["arguments"]["n"] }))
                .await;
        }
    };
    let calls = futures_util::future::join_all((0..8).map(|n| {
        let client = client.clone();
        async move {
            client
                .execute_raw("x-echo", json!({ "n": n }))
                .await
                .unwrap()["echo"]
                .clone()
        }
    }));
    let (echoes, ()) = tokio::join!(calls, serve);
    assert_eq!(echoes, (0..8).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_end_of_the_connection_reaches_every_waiter_with_socket_and_command() {
    let (client, mut server) = connected().await;
    let mut events = client.subscribe();
    let serve = async {
        server.hear().await;
        server.hear().await;
        server
            .say(r#"{"event": "SHUTDOWN", "data": {"guest": false, "reason": "x"}}"#)
            .await;
        drop(server);
    };
    let (one, two, ()) = tokio::join!(
        client.execute(commands::query_status {}),
        client.execute(commands::stop {}),
        serve
    );
    for (error, command) in [
        (one.unwrap_err(), "query-status"),
        (two.unwrap_err(), "stop"),
    ] {
        assert!(error.is_closed());
        let text = error.to_string();
        assert!(
            text.contains("test.qmp") && text.contains(command),
            "{text}"
        );
    }
    assert_eq!(
        events.next().await.unwrap().name,
        "SHUTDOWN",
        "events before the end are kept"
    );
    assert!(matches!(
        events.next().await,
        Err(EventError::Closed { .. })
    ));
    assert!(matches!(client.closed().await, CloseReason::EndOfStream));
    let after = client.execute(commands::cont {}).await.unwrap_err();
    assert!(after.is_closed(), "{after}");
    assert!(matches!(
        client.subscribe().next().await,
        Err(EventError::Closed { .. })
    ));
}

#[tokio::test]
async fn a_refusal_keeps_its_class_and_words() {
    let (client, mut server) = connected().await;
    let serve = async {
        let request = server.hear().await;
        let id = &request["id"];
        let error = json!({"class": "DeviceNotFound", "desc": "Device 'hca' not found"});
        server
            .say(&json!({"error": error, "id": id}).to_string())
            .await;
    };
    let command = commands::device_del { id: "hca".into() };
    let (answer, ()) = tokio::join!(client.execute(command), serve);
    let error = answer.unwrap_err();
    assert!(error.is_class(&ErrorClass::DeviceNotFound));
    assert_eq!(error.refusal(), Some("Device 'hca' not found"));
}

#[tokio::test]
async fn an_answer_of_another_shape_is_an_error_of_that_command_only() {
    let (client, mut server) = connected().await;
    let serve = async {
        let request = server.hear().await;
        server.answer(&request, json!({"running": "maybe"})).await;
        let request = server.hear().await;
        server.answer(&request, status(true)).await;
    };
    let calls = async {
        let first = client.execute(commands::query_status {}).await;
        assert!(matches!(first, Err(Error::Decode { .. })), "{first:?}");
        client.execute(commands::query_status {}).await.unwrap();
    };
    tokio::join!(calls, serve);
}

#[tokio::test]
async fn a_subscriber_that_lags_is_told_how_much_it_lost() {
    let (client, mut server) = connected().await;
    let mut slow = client.subscribe();
    let serve = async {
        for n in 0..3000 {
            server
                .say(&json!({"event": "TICK", "data": {"n": n}}).to_string())
                .await;
        }
        let request = server.hear().await;
        server.answer(&request, json!({})).await;
    };
    // The answer comes after all events, so they have all been read by then.
    let (answer, ()) = tokio::join!(client.execute(commands::stop {}), serve);
    answer.unwrap();
    let Err(EventError::Lagged { missed, .. }) = slow.next().await else {
        panic!("lag was not reported")
    };
    let next = slow.next().await.unwrap();
    assert_eq!(next.data["n"], missed, "events lost and kept do not add up");
}

#[tokio::test]
async fn a_server_that_does_not_greet_is_not_waited_for_forever() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let error = Client::from_stream(ours, "held.qmp", SHORT)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NoGreeting { .. }), "{error}");
}

#[tokio::test]
async fn something_else_than_qmp_is_named_as_such() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap();
    let error = Client::from_stream(ours, "ssh.sock", LIMIT)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("SSH-2.0-OpenSSH"), "{error}");
}

#[tokio::test]
async fn a_missing_socket_is_an_error_after_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let error = Client::connect(folder.path().join("none"), SHORT)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}

#[tokio::test]
async fn the_numbers_of_a_status_come_with_it_and_not_before() {
    let (client, mut server) = connected().await;
    let endpoint = Endpoint::Unix("stream".into());
    let active = json!({"status": "active", "ram": {"remaining": 5}});
    let attach = Outgoing::attach(&client, &endpoint, SHORT);
    let (outgoing, ()) = tokio::join!(attach, async {
        let query = server.hear().await;
        server.answer(&query, json!({"status": "setup"})).await;
    });
    let outgoing = outgoing.unwrap();
    let serve = async {
        for _ in 0..2 {
            let query = server.hear().await;
            server.answer(&query, active.clone()).await;
        }
        let event = r#"{"event": "MIGRATION", "data": {"status": "active"}}"#;
        server.say(event).await;
        loop {
            let query = server.hear().await;
            server.answer(&query, active.clone()).await;
        }
    };
    let seen = tokio::select! {
        seen = outgoing.wait_until(LIMIT, |progress| progress.remaining > 0) => seen.unwrap(),
        () = serve => unreachable!("it serves for ever"),
    };
    assert_eq!((seen.status, seen.remaining), (Status::active, 5));
}

#[tokio::test]
async fn a_migration_begins_when_qemu_has_let_go_of_the_one_before() {
    let (client, mut server) = connected().await;
    let endpoint = Endpoint::Unix("stream".into());
    let settings = Settings::live();
    let start = Outgoing::start(&client, &endpoint, &settings, LIMIT);
    let (started, looks) = tokio::join!(start, async {
        let mut looks = 0;
        loop {
            let request = server.hear().await;
            let name = request.get("execute").or(request.get("exec-oob"));
            let name = name.and_then(Value::as_str).unwrap().to_owned();
            let answer = match name.as_str() {
                "query-migrate-capabilities" => json!([]),
                "query-yank" => {
                    looks += 1;
                    match looks {
                        1 | 2 => json!([{ "type": "migration" }]),
                        _ => json!([{ "type": "chardev", "id": "monitor" }]),
                    }
                }
                _ => json!({}),
            };
            server.answer(&request, answer).await;
            if name == "migrate" {
                return looks;
            }
        }
    });
    started.unwrap();
    assert_eq!(looks, 3);
}
