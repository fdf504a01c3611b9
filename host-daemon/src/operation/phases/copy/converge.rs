//! Waits until the gang fits its downtime, foresees when that will be, and finds out if it never
//! will be; see [`crate::operation::convergence`].

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::pace::{Pace, fits};
use super::slower::Slower;
use super::{Copies, LOOK, LOOK_CLOSELY, LOOK_NEAR, READY};
use crate::config::VmName;
use crate::operation::convergence::{Course, Trend, course, fits_in, streams};
use crate::operation::effects::CopyStatus;
use crate::operation::phases::{Crew, Trouble};

/// How the gang is to be stopped.
pub(super) enum Converged {
    /// It fits the downtime.
    Fits,
    /// It does not, and is stopped all the same; how long the rest should take.
    Forced(Duration),
    /// It does not, and crosses all the same; how long the rest should take, which follows.
    Early(Duration),
}

impl Crew {
    /// Returns when every VM fits the downtime, and goes at full pace; or is to be stopped without.
    pub(super) async fn converge(
        &self,
        pace: &mut Pace,
        deadline: Instant,
    ) -> Result<Converged, Trouble> {
        let limit = match self.plan.ranks && !self.holds() {
            true => self.plan.limits().throttle,
            false => 0,
        };
        let mut slower = Slower::until(limit);
        let ended = self.converge_slowing(pace, deadline, &mut slower).await;
        // A gang that fits stays as slow as it is until it stands still.
        if !matches!(ended, Ok(Converged::Fits)) {
            slower.end(&*self.guests);
        }
        ended
    }

    async fn converge_slowing(
        &self,
        pace: &mut Pace,
        deadline: Instant,
        slower: &mut Slower,
    ) -> Result<Converged, Trouble> {
        let limits = *self.plan.limits();
        let began = *self.measured().copy_began.get_or_insert_with(Instant::now);
        let mut trend = Trend::default();
        self.doing("copying while the VMs run");
        self.converging(|convergence| convergence.streams = streams(&limits));
        loop {
            let copies = self.look().await?;
            self.still_worth_it()?;
            self.foresee(&copies, pace, began);
            if copies
                .iter()
                .all(|(vm, copy)| fits(vm, copy, pace, limits.downtime_ms))
            {
                self.note_convergence(&copies, pace, began);
                self.nobody_slowed(pace, &copies).await?;
                return Ok(Converged::Fits);
            }
            let changes = pace.look(&copies, limits.downtime_ms);
            self.set_pace(&changes).await?;
            slower.keep(&*self.guests);
            let too_late = Instant::now() >= deadline;
            let stagnates = self.stagnates(&mut trend, &copies, pace, began.elapsed());
            if stagnates && !too_late && slower.step() {
                trend = Trend::default();
                self.slowed(slower.percent());
            } else if stagnates || too_late {
                self.note_convergence(&copies, pace, began);
                let forced = self.diverges(&copies, pace, too_late, slower.percent())?;
                self.nobody_slowed(pace, &copies).await?;
                return Ok(forced);
            }
            sleep(if pace.is_near(&copies) {
                LOOK_NEAR
            } else {
                LOOK
            })
            .await;
        }
    }

    /// Tells that the job is slowed down further.
    fn slowed(&self, percent: u8) {
        self.doing(format!(
            "copying while the VMs run, the job slowed down by {percent} %"
        ));
        self.converging(|convergence| convergence.slowed = percent);
    }

    /// Returns when the copies that were slowed down go at full pace. QEMU keeps to a bandwidth over
    /// a tenth of a second, and only then takes up a new one; no longer than that is anybody left
    /// at full pace with nothing to send, see [`super::pace`].
    async fn nobody_slowed(&self, pace: &mut Pace, copies: &Copies) -> Result<(), Trouble> {
        let slowed = pace.all_off();
        if slowed.is_empty() {
            return Ok(());
        }
        self.set_pace(&slowed).await?;
        let deadline = Instant::now() + LOOK;
        let mut asleep: Vec<(&VmName, u64)> = copies
            .iter()
            .filter(|(vm, _)| slowed.contains_key(vm))
            .map(|(vm, copy)| (vm, copy.passes))
            .collect();
        while !asleep.is_empty() && Instant::now() < deadline {
            sleep(LOOK_CLOSELY).await;
            for (vm, copy) in self.look().await? {
                asleep.retain(|(slow, passes)| **slow != vm || copy.passes <= *passes);
            }
        }
        Ok(())
    }

    /// Whether a VM at full pace has long stopped getting smaller, slowed down as far as it may be.
    fn stagnates(&self, trend: &mut Trend, copies: &Copies, pace: &Pace, now: Duration) -> bool {
        let limits = self.plan.limits();
        let mut stagnant = false;
        for (vm, copy) in copies {
            if fits(vm, copy, pace, limits.downtime_ms) {
                trend.forget(vm);
            } else if pace.slows(vm) {
                trend.slowed(now, vm);
            } else {
                stagnant |= trend.stagnates(now, vm, copy);
            }
        }
        stagnant
    }

    /// What becomes of a gang that does not converge, as the request has it; its job was slowed down
    /// by `slowed` percent.
    fn diverges(
        &self,
        copies: &Copies,
        pace: &Pace,
        too_late: bool,
        slowed: u8,
    ) -> Result<Converged, Trouble> {
        let limits = self.plan.limits();
        let within = match too_late {
            true => format!("within {:.1} s", limits.converge().as_secs_f64()),
            false => "and what is left of it shrinks no more".into(),
        };
        let within = match slowed {
            0 => within,
            percent => format!("{within}, with the job slowed down by {percent} %"),
        };
        let why = too_slow(copies, pace, limits.downtime_ms, &within);
        let (course, but) = course(limits.if_not_converging, self.plan.ranks, self.holds());
        let (what, outcome) = match course {
            Course::Refuse => {
                let reason = format!(
                    "{why}{but}; allow a longer --downtime, a --throttle, or use \
                     --if-not-converging hold, force or postcopy"
                );
                ("rolled back", Err(Trouble::Failed(reason)))
            }
            Course::Hold => {
                let reason = why.clone();
                ("the job is held", Err(Trouble::Diverges { reason }))
            }
            Course::Force => {
                let rest = rest(copies, pace);
                ("the VMs are stopped", Ok(Converged::Forced(rest)))
            }
            Course::Postcopy => {
                let rest = rest(copies, pace);
                (
                    "the VMs cross, and the rest follows",
                    Ok(Converged::Early(rest)),
                )
            }
        };
        self.converging(|convergence| {
            convergence.diverged = Some(format!("{why}: {what}"));
            if course == Course::Postcopy {
                // What is left is not waited for.
                convergence.predicted_downtime_ms = None;
            }
        });
        outcome
    }

    /// Foresees when the copy will fit, once every VM has been measured.
    fn foresee(&self, copies: &Copies, pace: &Pace, began: Instant) {
        let measured = copies.iter().all(|(_, copy)| copy.passes >= 2);
        if !measured {
            return;
        }
        let downtime_ms = self.plan.limits().downtime_ms;
        let each = copies
            .iter()
            .map(|(vm, copy)| fits_in(copy, pace.nominal(vm, copy), downtime_ms));
        let longest = each.collect::<Option<Vec<_>>>();
        let longest = longest.and_then(|each| each.into_iter().max());
        let now = began.elapsed();
        self.converging(|convergence| {
            if convergence.predicted_at_ms.is_none() {
                convergence.predicted_at_ms = Some(millis(now));
                convergence.predicted_ms = longest.map(|more| millis(now + more));
            }
        });
    }

    fn note_convergence(&self, copies: &Copies, pace: &Pace, began: Instant) {
        let now = began.elapsed();
        let downtime = rest(copies, pace);
        self.converging(|convergence| {
            convergence.converged_ms = Some(millis(now));
            convergence.predicted_downtime_ms = Some(millis(downtime));
        });
    }

    fn converging(&self, change: impl FnOnce(&mut crate::operation::convergence::Convergence)) {
        change(
            self.measured()
                .report
                .convergence
                .get_or_insert_with(Default::default),
        );
    }
}

/// How long the longest rest takes.
fn rest(copies: &Copies, pace: &Pace) -> Duration {
    let each = copies
        .iter()
        .map(|(vm, copy)| copy.sending_ms(copy.remaining, pace.nominal(vm, copy)));
    Duration::from_millis(each.max().unwrap_or(0))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Why a gang was not, or could not be, stopped.
pub(super) fn too_slow(copies: &Copies, pace: &Pace, downtime_ms: u64, within: &str) -> String {
    let describe = |vm: &VmName, copy: &CopyStatus| {
        let ratio = copy.ratio_percent.max(100);
        let speed = pace.nominal(vm, copy).saturating_mul(ratio) / 100;
        let slowed = match copy.throttle {
            0 => String::new(),
            percent => format!(", slowed down by {percent} %"),
        };
        format!(
            "{vm} dirties {:.1} MB/s and is copied at {:.1} MB/s{slowed}",
            copy.dirty_rate as f64 / 1e6,
            speed as f64 / 1e6
        )
    };
    let slow: Vec<_> = copies
        .iter()
        .filter(|(_, copy)| copy.state != READY)
        .map(|(vm, copy)| describe(vm, copy))
        .collect();
    format!(
        "the gang did not converge to a downtime of {downtime_ms} ms {within}: {}",
        slow.join(", ")
    )
}
