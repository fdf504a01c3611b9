//! How each of the application's configurations was made: read with which prefix and file, and
//! changed how.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::sync::Mutex;

use symvirt_ffi::ucs::Status;

use crate::object::context::RealConfig;
use crate::object::lock;

#[derive(Clone, Default)]
struct Recipe {
    prefix: Option<CString>,
    file: Option<CString>,
    changes: Vec<(CString, CString)>,
}

/// By the address of the real configuration.
static RECIPES: Mutex<Option<HashMap<usize, Recipe>>> = Mutex::new(None);

/// Remembers a configuration that was read.
pub fn record(config: *mut c_void, prefix: Option<&CStr>, file: Option<&CStr>) {
    let recipe = Recipe {
        prefix: prefix.map(CStr::to_owned),
        file: file.map(CStr::to_owned),
        changes: Vec::new(),
    };
    lock(&RECIPES)
        .get_or_insert_default()
        .insert(config.addr(), recipe);
}

/// Remembers a change to a configuration.
pub fn record_change(config: *mut c_void, name: &CStr, value: &CStr) {
    if let Some(recipe) = lock(&RECIPES)
        .get_or_insert_default()
        .get_mut(&config.addr())
    {
        recipe.changes.push((name.to_owned(), value.to_owned()));
    }
}

/// Forgets a configuration that is released.
pub fn forget(config: *mut c_void) {
    if let Some(recipes) = lock(&RECIPES).as_mut() {
        recipes.remove(&config.addr());
    }
}

/// Reads two configurations of our own as the application read `config` (null: the default).
///
/// # Errors
/// UCX's.
pub fn copy_twice(config: *mut c_void) -> Result<(RealConfig, RealConfig), Status> {
    let known = lock(&RECIPES)
        .as_ref()
        .and_then(|recipes| recipes.get(&config.addr()).cloned());
    let recipe = known.unwrap_or_default();
    let read = || {
        RealConfig::read(
            recipe.prefix.as_deref(),
            recipe.file.as_deref(),
            &recipe.changes,
        )
    };
    Ok((read()?, read()?))
}
