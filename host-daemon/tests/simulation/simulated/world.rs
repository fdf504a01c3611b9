//! The state of the simulated hosts and guests, and its rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use symvirt_host::config::VmName;
use symvirt_host::operation::Plan;
use symvirt_host::retry::Wish;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::faults::{Crash, Fault, Faults, Side, Verdict};

/// Until a rank has found the agent that took the place of its own.
const LOOKING_FOR_AGENT: Duration = Duration::from_secs(1);

/// Where a VM runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Source,
    Destination,
    /// Everything is at the destination, which was not told to run it.
    Unresumed,
    /// It stands at the source, before its switchover.
    Standing,
    /// The QEMU that had it has ended.
    Lost,
}

/// What the ranks do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Job {
    Native,
    Fallback,
    Held,
}

/// The source's QEMU of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    Running,
    /// Percent that is left, and whether it is stopped.
    Copying(u32, bool),
    Ready,
    /// The VM has crossed; percent of its memory that are still here.
    Serving(u32),
    Completed,
    /// Ended by us.
    Gone,
    /// Ended by itself; whether the VM had crossed.
    Dead(bool),
}

/// The destination's QEMU of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    None,
    Waiting,
    /// It runs, and lacks memory that its source has.
    Lacking,
    Running,
    /// Ended by itself, or given up; whether it had run.
    Dead(bool),
}

/// Over which memory follows a VM that has crossed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    Up,
    Broken,
    /// The destination waits for the source to join it again.
    Listening,
}

#[derive(Clone, Debug)]
pub struct Vm {
    pub source: Source,
    pub destination: Destination,
    pub hca_at_source: bool,
    pub hca_at_destination: bool,
    /// How often it is stopped before it sends its rest in time.
    pub lingers: usize,
    /// It dirties its memory faster than it is copied, while its job runs.
    pub dirties: bool,
    /// How often its copy was looked at.
    pub looks: u64,
    /// Percent that are to follow when it crosses.
    pub rest: u32,
    pub link: Link,
    /// How often its link still breaks, or cannot be joined, while its memory follows.
    pub breaks: usize,
}

impl Vm {
    fn place(&self) -> Place {
        match (self.source, self.destination) {
            (
                Source::Running | Source::Copying(..),
                Destination::Running | Destination::Lacking,
            ) => {
                panic!("a VM runs twice")
            }
            (Source::Running | Source::Copying(..), _) => Place::Source,
            (_, Destination::Running) | (Source::Serving(_), Destination::Lacking) => {
                Place::Destination
            }
            (_, Destination::Dead(true) | Destination::Lacking) => Place::Lost,
            (Source::Serving(_), Destination::Waiting) => Place::Unresumed,
            (Source::Serving(_), Destination::None | Destination::Dead(false)) => Place::Lost,
            (Source::Ready, _) => Place::Standing,
            (Source::Completed | Source::Dead(true), Destination::Waiting) => Place::Unresumed,
            // The source has all of it still.
            (Source::Completed, Destination::Dead(false)) => Place::Unresumed,
            (Source::Dead(_) | Source::Gone | Source::Completed, _) => Place::Lost,
        }
    }
}

#[derive(Clone, Debug)]
pub struct World {
    pub vms: BTreeMap<VmName, Vm>,
    pub job: Job,
    /// The switch of transports that is under way.
    pub switching: Option<Job>,
    pub ranks: bool,
    pub handed_over: bool,
    /// What the destination was told to give the gang later.
    pub wish: Option<Wish>,
    /// The point of no return was passed.
    pub crossed: bool,
    pub aborted: bool,
    /// Which daemon coordinates; those before have ended.
    pub incarnation: usize,
    /// Told when it ends.
    pub crashed: Arc<Notify>,
    pub faults: Faults,
    /// When the agent of the second VM is there again.
    pub agent_back: Option<Instant>,
    crossings: usize,
    effects: usize,
    /// How far the job was to be slowed down, each time that it was said.
    pub slowed: Vec<u8>,
}

impl World {
    /// Whether a job that dirties too much is slowed down enough.
    pub fn gives_way(&self) -> bool {
        self.has(Fault::GivesWay) && self.slowed.last().is_some_and(|percent| *percent >= 60)
    }

    pub fn new(plan: &Plan, faults: Faults) -> Self {
        let vm = |hca: bool| Vm {
            source: Source::Running,
            destination: Destination::None,
            hca_at_source: hca,
            hca_at_destination: false,
            lingers: 0,
            dirties: false,
            looks: 0,
            rest: 0,
            link: Link::Up,
            breaks: 0,
        };
        let mut vms: BTreeMap<_, _> = plan
            .vms
            .iter()
            .map(|p| (p.vm.clone(), vm(p.source_hca.is_some())))
            .collect();
        if let (Some(times), Some(second)) = (faults.lingers(), vms.values_mut().nth(1)) {
            second.lingers = times;
        }
        if let (Some(_), Some(second)) = (faults.dirties(), vms.values_mut().nth(1)) {
            second.dirties = true;
        }
        if let (Some(times), Some(second)) = (faults.link_breaks(), vms.values_mut().nth(1)) {
            second.breaks = times;
        }
        Self {
            vms,
            job: Job::Native,
            switching: None,
            ranks: plan.ranks,
            handed_over: false,
            wish: None,
            crossed: false,
            aborted: false,
            incarnation: 0,
            crashed: Arc::default(),
            agent_back: faults.has(Fault::AgentNew).then(Instant::now),
            faults,
            crossings: 0,
            slowed: Vec::new(),
            effects: 0,
        }
    }

    /// Counts an effect and says what becomes of it.
    pub fn effect(&mut self) -> Verdict {
        self.effects += 1;
        if let Some((side, vm)) = self.faults.dies(self.effects) {
            self.die(side, vm);
        }
        if let Some(away) = self.faults.agent_dies(self.effects) {
            self.agent_back = Some(Instant::now() + Duration::from_secs(away));
        }
        self.faults.verdict(self.effects)
    }

    /// Whether nobody speaks for the guest.
    pub fn is_mute(&self, vm: &VmName) -> bool {
        self.is_second(vm) && self.agent_back.is_some_and(|back| Instant::now() < back)
    }

    /// Whether who speaks for the guest does not know of its rank yet.
    pub fn is_new(&self, vm: &VmName) -> bool {
        let new = |back| (back..back + LOOKING_FOR_AGENT).contains(&Instant::now());
        self.is_second(vm) && self.agent_back.is_some_and(new)
    }

    fn is_second(&self, vm: &VmName) -> bool {
        self.vms.keys().nth(1) == Some(vm)
    }

    /// The QEMU of a VM ends by itself.
    fn die(&mut self, side: Side, vm: usize) {
        let Some(vm) = self.vms.values_mut().nth(vm) else {
            return;
        };
        match side {
            Side::Source => {
                vm.source = match vm.source {
                    gone @ (Source::Gone | Source::Dead(_)) => gone,
                    now => Source::Dead(now == Source::Completed),
                }
            }
            Side::Destination => {
                vm.destination = match vm.destination {
                    gone @ (Destination::None | Destination::Dead(_)) => gone,
                    now => {
                        let ran = [Destination::Running, Destination::Lacking].contains(&now);
                        Destination::Dead(ran)
                    }
                }
            }
        }
    }

    /// The coordinating daemon ends; what it had begun with the ranks they end by themselves.
    pub fn crash(&mut self, crash: Crash) {
        self.incarnation += 1;
        if let Some(job) = self.switching.take().filter(|_| crash.forward) {
            self.job = job;
        }
        self.crashed.notify_one();
    }

    /// Counts a VM that is let cross, and says whether it arrives.
    pub fn arrives(&mut self) -> bool {
        self.crossings += 1;
        !self.faults.has(Fault::Stays(self.crossings))
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.has(fault)
    }

    /// Effects so far.
    pub fn effects(&self) -> usize {
        self.effects
    }

    pub fn places(&self) -> impl Iterator<Item = (&VmName, Place)> {
        self.vms.iter().map(|(name, vm)| (name, vm.place()))
    }

    pub fn hcas_are_at_source(&self, wanted: bool) -> bool {
        self.vms
            .values()
            .all(|vm| vm.hca_at_source == wanted && !vm.hca_at_destination)
    }

    /// The kernel's rule: an unplug under a rank that uses the HCA kills the job.
    pub fn see_job_survives_unplug(&self, vm: &VmName) {
        let uses = self.ranks && self.job == Job::Native;
        let there = self.vms[vm].hca_at_source;
        assert!(
            !(uses && there),
            "the HCA of {vm} is unplugged while ranks use it"
        );
    }
}
