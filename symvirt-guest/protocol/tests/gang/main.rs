//! The gang's state machine against simulated ranks.
mod properties;
mod scenarios;
mod world;
