//! What the guests' kernels count, four times a second: the proof of the transport in use.
//!
//! ```text
//!   guest: bed-sample ── ssh ──► thread ──► samples, with this machine's clock
//! ```
//!
//! RDMA packets are counted by soft-RoCE itself (`hw_counters`), Ethernet packets by virtio-net.
//! A job that communicates over one leaves the other to ssh and the launcher, a few packets a
//! second. Nothing here looks into the library or the daemon.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::lab::LabError;
use crate::lab::guest::Guest;

/// How far [`Traffic::wait_for`] looks back.
const WINDOW_MS: u64 = 6000;
/// Packets a second that only a communicating job causes; ssh and the sampler make a third of it.
const JOB_RATE: u64 = 30;
/// Fewer packets than this prove nothing, however short the time.
const FEWEST: u64 = 30;

/// One line of a guest.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Sample {
    /// When it arrived, in milliseconds since 1970.
    pub at_ms: u64,
    /// Number of the guest.
    pub guest: u8,
    /// Packets sent and received by the verbs device, if there is one.
    pub rdma_packets: Option<u64>,
    /// Packets sent and received on Ethernet.
    pub ethernet_packets: u64,
    /// Bytes sent and received on Ethernet.
    pub ethernet_bytes: u64,
}

/// The interconnect that a job was seen to use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// The verbs device counts, Ethernet is quiet.
    Rdma,
    /// Ethernet counts, the verbs device does not or is not there.
    Tcp,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Rdma => "RDMA",
            Self::Tcp => "TCP",
        })
    }
}

/// The observation of all guests of a bed; ends when it is dropped.
#[derive(Debug)]
pub struct Traffic {
    samples: Arc<Mutex<Vec<Sample>>>,
    children: Vec<Child>,
}

impl Traffic {
    /// Starts to observe.
    ///
    /// # Errors
    /// If ssh cannot be started.
    pub fn observe(guests: &[Guest]) -> Result<Self, LabError> {
        let mut traffic = Self {
            samples: Arc::default(),
            children: Vec::new(),
        };
        for guest in guests {
            let mut command = guest.ssh("exec bed-sample");
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.spawn().map_err(|source| LabError::File {
                what: "start",
                path: "ip netns exec … ssh".into(),
                source,
            })?;
            let output = child.stdout.take();
            traffic.children.push(child);
            let (samples, number) = (Arc::clone(&traffic.samples), guest.id.0);
            std::thread::spawn(move || {
                let lines = output.map(BufReader::new).into_iter();
                for line in lines.flat_map(BufRead::lines).map_while(Result::ok) {
                    if let Some(sample) = parse(number, &line) {
                        lock(&samples).push(sample);
                    }
                }
            });
        }
        Ok(traffic)
    }

    /// Everything so far.
    pub fn samples(&self) -> Vec<Sample> {
        lock(&self.samples).clone()
    }

    /// Waits until, for some seconds, a job communicates over `transport` in every guest. What
    /// its launcher says over Ethernet at its start does not count: it passes.
    ///
    /// # Errors
    /// What was seen instead in the last seconds of `limit`.
    pub fn wait_for(&self, transport: Transport, limit: Duration) -> Result<(), Option<Transport>> {
        let begun = now_ms();
        let deadline = Instant::now() + limit;
        loop {
            let now = now_ms();
            let seen = self.transport_between(begun.max(now.saturating_sub(WINDOW_MS)), now);
            if seen == Some(transport) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(seen);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// For people: what each guest counted between two instants.
    pub fn describe(&self, from_ms: u64, to_ms: u64) -> String {
        let samples = self.samples();
        let guests = 1..=u8::try_from(self.children.len()).unwrap_or(u8::MAX);
        let counts = guests.map(|guest| {
            let (rdma, ethernet, length) = count(&samples, guest, from_ms, to_ms);
            format!("g{guest} {rdma} RDMA, {ethernet} Ethernet packets in {length} ms")
        });
        counts.collect::<Vec<_>>().join("; ")
    }

    /// What the job of all guests was seen to use between two instants, if it was seen at all.
    pub fn transport_between(&self, from_ms: u64, to_ms: u64) -> Option<Transport> {
        let samples = self.samples();
        let guests = u8::try_from(self.children.len()).unwrap_or(u8::MAX);
        let mut seen = (1..=guests).map(|guest| transport(&samples, guest, from_ms, to_ms));
        let first = seen.next()??;
        seen.all(|other| other == Some(first)).then_some(first)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn lock(samples: &Mutex<Vec<Sample>>) -> std::sync::MutexGuard<'_, Vec<Sample>> {
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse(guest: u8, line: &str) -> Option<Sample> {
    let mut words = line.split_whitespace();
    let _uptime = words.next()?;
    let rdma = words.next()?;
    Some(Sample {
        at_ms: now_ms(),
        guest,
        rdma_packets: if rdma == "-" {
            None
        } else {
            Some(rdma.parse().ok()?)
        },
        ethernet_packets: words.next()?.parse().ok()?,
        ethernet_bytes: words.next()?.parse().ok()?,
    })
}

/// RDMA and Ethernet packets over a window, and its length in milliseconds; a counter that began
/// anew (another device) counts from 0.
fn count(samples: &[Sample], guest: u8, from_ms: u64, to_ms: u64) -> (u64, u64, u64) {
    let window: Vec<&Sample> = samples
        .iter()
        .filter(|sample| sample.guest == guest && (from_ms..=to_ms).contains(&sample.at_ms))
        .collect();
    let (mut rdma, mut ethernet) = (0, 0);
    for pair in window.windows(2) {
        let [before, after] = pair else { continue };
        ethernet += after
            .ethernet_packets
            .saturating_sub(before.ethernet_packets);
        if let (Some(old), Some(new)) = (before.rdma_packets, after.rdma_packets) {
            rdma += if new >= old { new - old } else { new };
        }
    }
    let length = match (window.first(), window.last()) {
        (Some(first), Some(last)) => last.at_ms.saturating_sub(first.at_ms),
        (None, _) | (_, None) => 0,
    };
    (rdma, ethernet, length)
}

fn transport(samples: &[Sample], guest: u8, from_ms: u64, to_ms: u64) -> Option<Transport> {
    let (rdma, ethernet, length) = count(samples, guest, from_ms, to_ms);
    let enough = FEWEST.max(JOB_RATE * length / 1000);
    if rdma >= enough && rdma > 3 * ethernet {
        Some(Transport::Rdma)
    } else if ethernet >= enough && ethernet > 3 * rdma {
        Some(Transport::Tcp)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(counts: &[(Option<u64>, u64)]) -> Vec<Sample> {
        let numbered = counts.iter().enumerate();
        numbered
            .map(|(at, (rdma, ethernet))| Sample {
                at_ms: at as u64,
                guest: 1,
                rdma_packets: *rdma,
                ethernet_packets: *ethernet,
                ethernet_bytes: 0,
            })
            .collect()
    }

    #[test]
    fn a_job_on_the_verbs_device_is_told_from_ssh_on_ethernet() {
        let seen = samples(&[(Some(10), 0), (Some(500), 20), (Some(900), 40)]);
        assert_eq!(transport(&seen, 1, 0, 9), Some(Transport::Rdma));
    }

    #[test]
    fn a_device_that_came_back_counts_from_zero() {
        let seen = samples(&[(Some(9000), 0), (None, 5), (Some(3), 9), (Some(400), 12)]);
        assert_eq!(transport(&seen, 1, 0, 9), Some(Transport::Rdma));
    }

    #[test]
    fn a_quiet_guest_proves_nothing() {
        let seen = samples(&[(None, 0), (None, 20)]);
        assert_eq!(transport(&seen, 1, 0, 9), None);
        assert_eq!(transport(&seen, 2, 0, 9), None);
    }

    #[test]
    fn a_line_of_a_guest_without_device_is_understood() {
        let sample = parse(2, "17.77 - 300 40000").unwrap();
        assert_eq!((sample.rdma_packets, sample.ethernet_packets), (None, 300));
        assert!(parse(2, "broken").is_none());
    }
}
