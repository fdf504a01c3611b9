//! The gang's transports: switch, hold, rebuild.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Crew, Trouble};
use crate::config::VmName;
use crate::operation::effects::{Left, Standing, SwitchFailure, Switched};
use crate::operation::phase::Phase;
use crate::operation::plan::{Request, Target};
use crate::operation::report::SwitchReport;

/// Interval of looking whose agent is silent.
const LOOK: Duration = Duration::from_secs(1);

impl Crew {
    pub(super) async fn switch_in_place(&self) -> Result<(), Trouble> {
        match &self.plan.request {
            Request::Switch { to, .. } => self.switch(Phase::Switch, *to).await,
            Request::Migrate { .. } => Ok(()),
        }
    }

    pub(super) async fn switch(&self, phase: Phase, to: Target) -> Result<(), Trouble> {
        self.doing(format!("the job runs; its ranks build {to} transports"));
        let began = Instant::now();
        let limit = self.plan.limits().switch();
        let switched = match self.take_met() {
            Some(met) if met.is_on(to) => return self.found(to),
            Some(Standing { held: true, .. }) => {
                self.attended(self.guests.rebuild(to, limit)).await
            }
            _ => self.attended(self.guests.switch(to, limit)).await,
        };
        self.count(phase, Some(to), began, switched)
    }

    pub(super) async fn hold(&self, phase: Phase) -> Result<(), Trouble> {
        self.doing("the job's ranks drain, stop and let go of their transports");
        let began = Instant::now();
        if self.take_met().is_some_and(|met| met.held) {
            self.progress(|progress| progress.interconnect = None);
            return Ok(());
        }
        let held = self.guests.hold(self.plan.limits().switch());
        let held = self.attended(held).await;
        self.count(phase, None, began, held)
    }

    pub(super) async fn rebuild(&self, phase: Phase, to: Target) -> Result<(), Trouble> {
        self.doing(format!(
            "the job stands still; its ranks build {to} transports"
        ));
        let began = Instant::now();
        let limit = self.plan.limits().switch();
        let rebuilt = match self.take_met() {
            Some(met) if met.is_on(to) => return self.found(to),
            Some(Standing { held: false, .. }) => {
                self.attended(self.guests.switch(to, limit)).await
            }
            _ => self.attended(self.guests.rebuild(to, limit)).await,
        };
        let counted = self.count(phase, Some(to), began, rebuilt);
        counted.map_err(|trouble| match (phase, trouble) {
            // There is nothing less that they could be given.
            (Phase::RebuildFallback | Phase::RebuildBackFallback, Trouble::Failed(reason)) => {
                let gang = self.plan.request.gang();
                Trouble::Failed(format!(
                    "{reason}; the job stands still until `symvirt switch {gang} --to fallback`, on \
                     the host that it is on, gives it transports"
                ))
            }
            (_, trouble) => trouble,
        })
    }

    /// Says of a switch under way whose agent it waits for: one that was killed is started again by
    /// its guest, or has to be by somebody.
    async fn attended<T>(&self, switching: impl Future<Output = T>) -> T {
        let doing = self.shown.borrow().progress.doing.clone();
        let mut named = Vec::new();
        let mut switching = pin!(switching);
        loop {
            tokio::select! {
                switched = &mut switching => return switched,
                () = sleep(LOOK) => {}
            }
            let silent = self.guests.silent();
            if silent == named {
                continue;
            }
            let names: Vec<_> = silent.iter().map(VmName::as_str).collect();
            match names[..] {
                [] => self.doing(doing.clone()),
                _ => self.doing(format!(
                    "{doing}; nothing is heard of the agent in {}, which is waited for",
                    names.join(", ")
                )),
            }
            named = silent;
        }
    }

    /// An earlier daemon has brought the gang there.
    fn found(&self, to: Target) -> Result<(), Trouble> {
        self.progress(|progress| progress.interconnect = Some(to));
        Ok(())
    }

    /// What held ranks get in the end.
    pub(super) fn best_after(&self) -> Target {
        if let Request::Switch { to, .. } = &self.plan.request {
            *to
        } else if self.plan.plugs() {
            Target::Native
        } else if self.plan.unplugs() {
            Target::Fallback
        } else {
            self.plan.interconnect
        }
    }

    fn count(
        &self,
        phase: Phase,
        to: Option<Target>,
        began: Instant,
        switched: Result<Switched, SwitchFailure>,
    ) -> Result<(), Trouble> {
        let took_ms = began.elapsed().as_secs_f64() * 1000.0;
        let stalls = match switched {
            Ok(Switched { stalls }) => stalls,
            Err(failure) => return Err(trouble(phase, &failure)),
        };
        self.progress(|progress| progress.interconnect = to);
        self.measured().report.switches.push(SwitchReport {
            phase,
            to,
            took_ms,
            stalls,
        });
        Ok(())
    }
}

/// Whether a failed switch, hold or rebuild has had its effect on the ranks that are left.
fn trouble(phase: Phase, failure: &SwitchFailure) -> Trouble {
    let reason = failure.to_string();
    let SwitchFailure::Broken { left, .. } = failure else {
        return Trouble::Failed(reason);
    };
    let settled = match left {
        Left::Before => return Trouble::Failed(reason),
        Left::Held if !matches!(phase, Phase::Hold | Phase::HoldLate) => {
            return Trouble::Failed(reason);
        }
        Left::Held | Left::After => true,
        Left::Unknown => false,
    };
    Trouble::Broke { reason, settled }
}
