//! The gang's state machine against simulated ranks.
mod properties;
mod reach;
mod recovery;
mod scenarios;
mod world;
