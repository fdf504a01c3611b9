//! Messages on standard error, chosen by `SYMVIRT_LOG` (`error`, `warn`, `info`, `debug`;
//! default `warn`). Never called on the message path.

use std::fmt;
use std::sync::OnceLock;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

fn threshold() -> Level {
    static THRESHOLD: OnceLock<Level> = OnceLock::new();
    *THRESHOLD.get_or_init(|| match std::env::var("SYMVIRT_LOG").as_deref() {
        Ok("error") => Level::Error,
        Ok("info") => Level::Info,
        Ok("debug") => Level::Debug,
        _ => Level::Warn,
    })
}

pub fn write(level: Level, message: fmt::Arguments<'_>) {
    if level > threshold() {
        return;
    }
    let name = match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
    };
    let line = format!("symvirt[{}] {name}: {message}\n", std::process::id());
    // SAFETY: the pointer and length describe `line`. One write, so that lines of several ranks
    // on one terminal stay whole; a message that cannot be written is lost, by intent.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}

macro_rules! error {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Error, format_args!($($arg)*)) };
}
macro_rules! warning {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Warn, format_args!($($arg)*)) };
}
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Info, format_args!($($arg)*)) };
}
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Debug, format_args!($($arg)*)) };
}
pub(crate) use {debug, error, info, warning};
