//! Benchmarks: what the library costs when nothing happens, and what a switch costs.
//!
//! Every comparison is made within one run, by turns, because the machine is another one every
//! minute: A B A B, a ratio for each pair, then the median of the ratios and their spread.

pub mod overhead;
pub mod scale;
pub mod statistics;
pub mod switch;
