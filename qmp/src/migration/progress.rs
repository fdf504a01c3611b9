//! How far a migration is.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Status;
use crate::client::Client;
use crate::error::{CommandName, Error};
use crate::event::Timestamp;

/// What is known about a migration at one moment. Byte counts are those of RAM.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Progress {
    /// Where it stands.
    pub status: Status,
    /// Every status it went through, with QEMU's own time.
    pub history: Vec<StatusChange>,
    /// Bytes sent so far, in all passes.
    pub transferred: u64,
    /// Bytes still to be sent, as of the last look at the dirty pages.
    pub remaining: u64,
    /// Size of the machine's memory, in bytes.
    pub total: u64,
    /// Bytes that the guest dirties per second; 0 before the second pass.
    pub dirty_rate: u64,
    /// Bytes sent per second, recently.
    pub throughput: u64,
    /// Bytes of memory that went over in each byte sent: above 1 where they are compressed.
    pub ratio: f64,
    /// Share of their time that the vCPUs are kept from running for it, in percent.
    pub throttle: u8,
    /// Passes over the dirty pages so far.
    pub passes: u64,
    /// Downtime that QEMU expects now.
    pub expected_downtime: Option<Duration>,
    /// Downtime that it was, once completed.
    pub downtime: Option<Duration>,
    /// Time that setting up took.
    pub setup: Option<Duration>,
    /// Time since the start; until the end, once ended.
    pub elapsed: Option<Duration>,
    /// Why it failed, in QEMU's words.
    pub error: Option<String>,
    /// What forbids a migration now.
    pub blocked_reasons: Vec<String>,
}

/// A change of a migration's status.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct StatusChange {
    /// The new status.
    pub status: Status,
    /// When, by the clock of QEMU's host; None if it was learned by asking.
    pub at: Option<Timestamp>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress {
            status: Status::none,
            history: Vec::new(),
            transferred: 0,
            remaining: 0,
            total: 0,
            dirty_rate: 0,
            throughput: 0,
            ratio: 1.0,
            throttle: 0,
            passes: 0,
            expected_downtime: None,
            downtime: None,
            setup: None,
            elapsed: None,
            error: None,
            blocked_reasons: Vec::new(),
        }
    }
}

impl Progress {
    /// Whether it has ended, well or not.
    pub fn is_over(&self) -> bool {
        is_over(self.status)
    }

    /// When it entered `status` (the last time, if several), by the clock of QEMU's host.
    pub fn entered(&self, status: Status) -> Option<Timestamp> {
        self.history
            .iter()
            .rev()
            .find(|change| change.status == status)?
            .at
    }

    /// Takes over a status, unless it is the one it has.
    pub(super) fn enter(&mut self, status: Status, at: Option<Timestamp>) {
        if self.status != status {
            self.status = status;
            self.history.push(StatusChange { status, at });
        }
    }

    /// Takes over the numbers of an answer, not its status.
    pub(super) fn update(&mut self, answer: &Answer) {
        if let Some(ram) = &answer.ram {
            self.transferred = ram.transferred;
            self.remaining = ram.remaining;
            self.total = ram.total;
            self.dirty_rate = ram.dirty_pages_rate.saturating_mul(ram.page_size);
            // Megabits; truncation to whole bytes is intended.
            self.throughput = (ram.mbps.max(0.0) * 125_000.0) as u64;
            self.passes = ram.dirty_sync_count;
            self.ratio = ram.ratio();
        }
        self.throttle = answer.cpu_throttle_percentage.unwrap_or(0);
        self.expected_downtime = answer.expected_downtime.map(Duration::from_millis);
        self.downtime = answer.downtime.map(Duration::from_millis);
        self.setup = answer.setup_time.map(Duration::from_millis);
        self.elapsed = answer.total_time.map(Duration::from_millis);
        self.error.clone_from(&answer.error_desc);
        self.blocked_reasons.clone_from(&answer.blocked_reasons);
    }
}

/// Whether the destination may run the machine, which the source can not do any more.
pub(super) fn may_run_there(status: Status) -> bool {
    match status {
        Status::completed
        | Status::postcopy_active
        | Status::postcopy_paused
        | Status::postcopy_recover_setup
        | Status::postcopy_recover => true,
        Status::none
        | Status::setup
        | Status::cancelling
        | Status::cancelled
        | Status::active
        | Status::failed
        | Status::colo
        | Status::pre_switchover
        | Status::device
        | Status::wait_unplug => false,
    }
}

pub(super) fn is_over(status: Status) -> bool {
    match status {
        Status::completed | Status::failed | Status::cancelled => true,
        Status::none
        | Status::setup
        | Status::cancelling
        | Status::active
        | Status::postcopy_active
        | Status::postcopy_paused
        | Status::postcopy_recover_setup
        | Status::postcopy_recover
        | Status::colo
        | Status::pre_switchover
        | Status::device
        | Status::wait_unplug => false,
    }
}

/// The answer of `query-migrate`, as much as is used, tolerant towards other versions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Answer {
    #[serde(deserialize_with = "known_status")]
    pub(super) status: Option<Status>,
    ram: Option<Ram>,
    expected_downtime: Option<u64>,
    downtime: Option<u64>,
    setup_time: Option<u64>,
    total_time: Option<u64>,
    /// Only where QEMU slows the machine down.
    cpu_throttle_percentage: Option<u8>,
    error_desc: Option<String>,
    blocked_reasons: Vec<String>,
    pub(super) socket_address: Vec<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Ram {
    transferred: u64,
    remaining: u64,
    total: u64,
    dirty_pages_rate: u64,
    page_size: u64,
    mbps: f64,
    dirty_sync_count: u64,
    /// Of pages that are not zero.
    normal_bytes: u64,
    /// As sent by several channels, where there are several.
    multifd_bytes: u64,
}

impl Ram {
    fn ratio(&self) -> f64 {
        match self.multifd_bytes {
            0 => 1.0,
            sent => (self.normal_bytes as f64 / sent as f64).max(1.0),
        }
    }
}

fn known_status<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Status>, D::Error> {
    Ok(Status::deserialize(Value::deserialize(from)?).ok())
}

pub(super) async fn ask(client: &Client) -> Result<Answer, Error> {
    let answer = client.execute_raw("query-migrate", Value::Null).await?;
    client.decode(CommandName::Borrowed("query-migrate"), answer)
}

/// What QEMU says about its current or latest migration, in or out. The status may be that of an
/// earlier one, for example `completed` in a machine that was restored from a file; its
/// `blocked_reasons` are of now.
///
/// # Errors
/// Any [`Error`] of the query.
pub async fn query(client: &Client) -> Result<Progress, Error> {
    let answer = ask(client).await?;
    let mut progress = Progress::default();
    progress.update(&answer);
    if let Some(status) = answer.status {
        progress.enter(status, None);
    }
    Ok(progress)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_of_another_version_is_understood_as_far_as_it_goes() {
        let answer: Answer = serde_json::from_value(json!({
            "status": "from-the-future", "novelty": [1], "ram": {"transferred": 5}
        }))
        .unwrap();
        assert_eq!(answer.status, None);
        let mut progress = Progress::default();
        progress.update(&answer);
        assert_eq!(progress.transferred, 5);
    }

    #[test]
    fn the_dirty_rate_is_in_bytes() {
        let ram = json!({"dirty-pages-rate": 3, "page-size": 4096, "mbps": 8.0});
        let answer: Answer = serde_json::from_value(json!({ "ram": ram })).unwrap();
        let mut progress = Progress::default();
        progress.update(&answer);
        assert_eq!(
            (progress.dirty_rate, progress.throughput),
            (12288, 1_000_000)
        );
    }

    #[test]
    fn what_is_compressed_counts_as_the_memory_that_it_was() {
        let ratio = |normal: u64, sent: u64| {
            let ram = json!({"normal-bytes": normal, "multifd-bytes": sent});
            let answer: Answer = serde_json::from_value(json!({ "ram": ram })).unwrap();
            let mut progress = Progress::default();
            progress.update(&answer);
            progress.ratio
        };
        assert_eq!(ratio(4096, 1024), 4.0);
        assert_eq!(ratio(4096, 4100), 1.0, "headers are no memory");
        assert_eq!(ratio(4096, 0), 1.0, "one channel does not compress");
    }

    #[test]
    fn a_repeated_status_is_one_change() {
        let mut progress = Progress::default();
        for status in [
            Status::setup,
            Status::active,
            Status::active,
            Status::completed,
        ] {
            progress.enter(status, None);
        }
        assert_eq!(progress.history.len(), 3);
        assert!(progress.is_over());
    }
}
