//! The C ABI of UCP (UCX 1.13 to 1.18), as SymVirt interposes it, and our own.
//!
//! | module | holds |
//! |---|---|
//! | [`ucs`] | status codes, thread modes, small shared structs |
//! | [`ucp`] | handles, parameter and attribute structs, callbacks |
//! | [`flags`] | the bits of `field_mask`, feature and operation masks |
//! | [`functions`] | types of the UCP functions that SymVirt calls |
//! | [`symvirt`] | the structs of our own `include/symvirt.h` |
//! | [`exports`] | every public `ucp_*` function and what SymVirt does with it |
//!
//! The declarations are written by hand, so that the library builds without UCX installed; the
//! test `headers` holds them against the headers that are installed. Structs grow by version:
//! read only the fields that `field_mask` announces, and never copy one by `size_of`.
//!
//! Nothing is declared `extern "C" { fn ucp_* }`: beside an export of the same name such a call
//! would bind to itself. Real entries are found at run time.

pub mod exports;
pub mod flags;
pub mod functions;
pub mod symvirt;
pub mod ucp;
pub mod ucs;
