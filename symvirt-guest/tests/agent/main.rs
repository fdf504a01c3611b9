//! The in-guest program with simulated ranks: real sockets, real processes, no UCX.
mod channel;
mod daemon;
mod rank;
mod rehearsal;
mod virtio;
