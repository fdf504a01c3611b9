//! QEMU's tree of objects: what is in it, and user-made objects by id.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;
use crate::commands;
use crate::error::Error;

/// QEMU frees memory some tens of milliseconds after the object is gone, later on a busy machine.
const RELEASED: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// The names of an object's children; ids of user-made objects are children of `/objects`.
///
/// # Errors
/// Any [`Error`].
pub async fn names(client: &Client, path: &str) -> Result<BTreeSet<String>, Error> {
    let listed = client
        .execute_raw("qom-list", json!({ "path": path }))
        .await?;
    let children = listed.as_array().into_iter().flatten().filter(|property| {
        let kind = property["type"].as_str().unwrap_or_default();
        kind.starts_with("child<")
    });
    Ok(children
        .filter_map(|property| property["name"].as_str().map(str::to_owned))
        .collect())
}

/// Removes a user-made object; nothing happens if there is none of this id.
///
/// # Errors
/// Any [`Error`], for example that it is in use.
pub async fn remove(client: &Client, id: &str) -> Result<(), Error> {
    if !names(client, "/objects").await?.contains(id) {
        return Ok(());
    }
    let id = id.to_owned();
    client.execute(commands::object_del { id }).await.map(drop)
}

/// Waits until QEMU does not list the memory of removed backends any more: a migration that begins
/// before would speak of it, and its destination, which never had it, ends the migration.
/// (`x-query-ramblock`, for people: a QEMU that lacks it, or takes long, is not waited for.)
///
/// # Errors
/// [`Error::Closed`] and the like; not what QEMU refuses.
pub async fn memory_released(client: &Client, ids: &[String]) -> Result<(), Error> {
    let endings: Vec<String> = ids.iter().map(|id| format!("/{id}")).collect();
    let released = async {
        while !endings.is_empty() {
            let listed = match client.execute_raw("x-query-ramblock", Value::Null).await {
                Err(error) if error.refusal().is_some() => return Ok(()),
                listed => listed?,
            };
            let blocks = listed["human-readable-text"].as_str().unwrap_or_default();
            let of_ours = |block: &str| endings.iter().any(|ending| block.ends_with(ending));
            let mut names = blocks
                .lines()
                .filter_map(|line| line.split_whitespace().next());
            if !names.any(of_ours) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    };
    tokio::time::timeout(RELEASED, released)
        .await
        .unwrap_or(Ok(()))
}

/// Makes a user-made object with the arguments of `object-add`, in place of one of the same id.
///
/// # Errors
/// Any [`Error`]; the earlier one may be gone.
pub async fn replace(client: &Client, id: &str, arguments: Value) -> Result<(), Error> {
    remove(client, id).await?;
    client.execute_raw("object-add", arguments).await.map(drop)
}
