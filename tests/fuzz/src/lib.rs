//! What must hold for any bytes that another process may have sent: one function of bytes for each
//! decoder, which a fuzzer calls (`cargo xtask soak fuzz`), and `cargo test` with the seeds.
//!
//! | module | bytes of | beyond no panic |
//! |---|---|---|
//! | [`frame`] | ranks, agents, daemons | cuts change nothing, a cut tail is no message, messages can be said again |
//! | [`link`] | a channel that loses bytes | each message once and in order; answers are bounded |
//! | [`gang`] | agents, to a coordinator | what it says to them can be sent |
//! | [`address`], [`key`], [`trailer`] | ranks, through the application | read as far as they go; what is understood is packed so again |
//! | [`journal`] | the disk | what is told was written whole; a cut tail is told less |
//! | [`vm_spec`], [`host_config`] | operators, and peers | what is taken makes sense, and stays inside its argument |
//! | [`peer`] | other daemons and users | what is understood can be said again |
//! | [`qmp_line`], [`monitor`] | QEMU | answers are answers; a command ends |
//!
//! A checksum keeps nearly all that a fuzzer makes from the decoder behind it, so targets look at
//! their bytes twice: as they are, and with checksums made right ([`mended`]).
#![forbid(unsafe_code)]

pub mod address;
pub mod frame;
pub mod gang;
pub mod host_config;
pub mod journal;
pub mod key;
pub mod link;
pub mod mended;
pub mod monitor;
pub mod peer;
pub mod qmp_line;
pub mod trailer;
pub mod vm_spec;

/// A target and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them; the names of `targets/`, and of the folders in `seeds/`.
pub const TARGETS: [Target; 12] = [
    ("address", address::check),
    ("frame", frame::check),
    ("gang", gang::check),
    ("host_config", host_config::check),
    ("journal", journal::check),
    ("key", key::check),
    ("link", link::check),
    ("monitor", monitor::check),
    ("peer", peer::check),
    ("qmp_line", qmp_line::check),
    ("trailer", trailer::check),
    ("vm_spec", vm_spec::check),
];
