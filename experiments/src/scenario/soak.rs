//! Crossings without end, of one job that verifies every byte.

use std::time::{Duration, Instant};

use super::{at_home, crossing, expect_verified};
use crate::traffic::Transport;

/// Longer than any crossing takes: the job must not end in mid-crossing.
const MARGIN: Duration = Duration::from_secs(600);

/// Crosses until `time` is over; `Ok(true)` if the job then ends verified.
///
/// # Errors
/// The first crossing that does not end as asked.
pub fn soak(time: Duration) -> anyhow::Result<bool> {
    let bed = at_home(None)?;
    let seconds = (time + MARGIN).as_secs();
    let mut job = bed.job(&format!("halo --seconds {seconds}"))?;
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < time {
        for mode in ["live", "hold"] {
            for (from, to, transport) in [("a", "b", Transport::Tcp), ("b", "a", Transport::Rdma)] {
                let result = crossing::done(&bed, from, to, mode)
                    .and_then(|crossing| bed.expect(transport).map(|()| crossing));
                let crossing = match result {
                    Ok(crossing) => crossing,
                    Err(error) => {
                        println!("logs are kept in {}", bed.lab.keep_logs()?.display());
                        return Err(error);
                    }
                };
                println!(
                    "round {rounds}: {from} → {to} {mode}, {:.1} s, standstill {:?}",
                    (crossing.ended_ms - crossing.began_ms) as f64 / 1e3,
                    crossing.downtime().unwrap_or_default()
                );
            }
        }
        rounds += 1;
    }
    job.finish("halo")?;
    expect_verified(&mut job, MARGIN)?;
    println!("{rounds} rounds of four crossings");
    Ok(true)
}
