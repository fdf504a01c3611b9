//! Starting operations on the real side: what the exports call once they are inside the gate.
//!
//! | module | holds |
//! |---|---|
//! | [`begin`] | what every operation begins with: a header, and parameters for the real library |
//! | [`short`] | the short way of what is usually over at once |
//! | [`send`] | sends, and what completes as sends do: flushes and closes |
//! | [`active`] | active messages: sends, and fetches of their data |
//! | [`one_sided`] | puts and gets of a peer's memory |
//! | [`atomic`] | atomics on it |
//! | [`receive`] | receives by tag and of probed messages, from the real side or from our memory |

pub mod active;
pub mod atomic;
pub mod begin;
pub mod one_sided;
pub mod receive;
pub mod send;
pub mod short;
