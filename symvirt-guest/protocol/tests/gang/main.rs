//! The gang's state machine against simulated ranks.
mod properties;
mod recovery;
mod scenarios;
mod world;
