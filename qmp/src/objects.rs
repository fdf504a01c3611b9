//! QEMU's tree of objects: what is in it, and user-made objects by id.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::Client;
use crate::commands;
use crate::error::Error;

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

/// Makes a user-made object with the arguments of `object-add`, in place of one of the same id.
///
/// # Errors
/// Any [`Error`]; the earlier one may be gone.
pub async fn replace(client: &Client, id: &str, arguments: Value) -> Result<(), Error> {
    remove(client, id).await?;
    client.execute_raw("object-add", arguments).await.map(drop)
}
