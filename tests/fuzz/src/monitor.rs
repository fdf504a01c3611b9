//! All that a monitor says on one connection.

use std::cell::LazyCell;
use std::time::Duration;

use serde_json::{Value, json};
use symvirt_qmp::{Client, Error, commands, migration, objects};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

thread_local! {
    static RUNTIME: LazyCell<Runtime> = LazyCell::new(|| {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("threads and descriptors")
    });
}

/// Longer than any answer takes here: who waits for it waits for ever.
const LIMIT: Duration = Duration::from_secs(5);

/// Its lines: the first one is said at once; to each command, up to the next that is no event, and
/// then an answer. When there are no more, it goes.
pub fn check(said: &[u8]) {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let (ours, theirs) = UnixStream::pair().expect("descriptors");
            // Who closes first is nobody's concern.
            let (_, asked) = tokio::join!(serve(theirs, said), ask(ours));
            if let Err(error) = asked {
                let waited = matches!(error, Error::Timeout { .. } | Error::NoGreeting { .. });
                assert!(!waited, "{error}");
            }
        });
    });
}

async fn ask(stream: UnixStream) -> Result<(), Error> {
    let client = Client::from_stream(stream, "monitor", LIMIT).await?;
    let mut events = client.subscribe();
    let status = client
        .execute_within(commands::query_status {}, LIMIT)
        .await;
    // Its answer may have another shape; the connection stays of use.
    if status.is_err_and(|error| error.is_closed()) {
        assert!(client.is_closed());
    }
    let migrating = migration::query(&client).await;
    if let Ok(progress) = &migrating {
        assert!(progress.ratio >= 1.0, "{progress:?}");
    }
    objects::names(&client, "/objects").await?;
    drop(client);
    while let Ok(event) = events.next().await {
        assert!(
            event
                .text("device")
                .is_none_or(|device| device.len() < 1 << 20)
        );
    }
    Ok(())
}

async fn serve(stream: UnixStream, said: &[u8]) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut commands = BufReader::new(read).lines();
    let mut lines = said.split_inclusive(|byte| *byte == b'\n').peekable();
    if let Some(greeting) = lines.next() {
        write.write_all(greeting).await?;
    }
    while lines.peek().is_some() {
        let Some(command) = commands.next_line().await? else {
            break;
        };
        for line in lines.by_ref() {
            write.write_all(line).await?;
            if !line.windows(7).any(|window| window == b"\"event\"") {
                break;
            }
        }
        let command: Value = serde_json::from_str(&command)?;
        let answer = json!({ "return": {}, "id": command["id"] });
        write.write_all(format!("\n{answer}\n").as_bytes()).await?;
    }
    Ok(())
}
