//! Starting operations on the real side: what the exports call once they are inside the gate.
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | an operation's options, whichever variant of the C function they came in by |
//! | [`send`] | sends, and what completes as sends do: flushes and closes |
//! | [`receive`] | receives by tag and of probed messages, from the real side or from our memory |

pub mod options;
pub mod receive;
pub mod send;
