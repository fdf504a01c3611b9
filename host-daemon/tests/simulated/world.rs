//! The state of the simulated hosts and guests, and its rules.

use std::collections::BTreeMap;

use symvirt_host::config::VmName;
use symvirt_host::operation::Plan;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The nth effect is not carried out.
    Refused(usize),
    /// The nth effect is carried out, but its answer is lost.
    AnswerLost(usize),
    /// The migration of the nth VM that is let cross fails in QEMU.
    Stays(usize),
    /// The ports of plugged HCAs never become active.
    LinkDown,
    /// A process that is no rank holds the verbs devices.
    Stranger,
    /// A rank dies while the gang is held.
    DiesHeld,
    /// The second VM does not send its rest in time the first n times that it is stopped.
    Lingers(usize),
    /// The nth effect, if it is a switch of transports, breaks when the others have changed over.
    Breaks(usize),
}

/// Where a VM runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Source,
    Destination,
    /// Everything is at the destination, which was not told to run it.
    Unresumed,
    Nowhere,
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
    Completed,
    Gone,
}

/// The destination's QEMU of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    None,
    Waiting,
    Running,
}

#[derive(Clone, Debug)]
pub struct Vm {
    pub source: Source,
    pub destination: Destination,
    pub hca_at_source: bool,
    pub hca_at_destination: bool,
    /// How often it is stopped before it sends its rest in time.
    pub lingers: usize,
}

#[derive(Clone, Debug)]
pub struct World {
    pub vms: BTreeMap<VmName, Vm>,
    pub job: Job,
    pub ranks: bool,
    pub handed_over: bool,
    /// The point of no return was passed.
    pub crossed: bool,
    pub aborted: bool,
    crossings: usize,
    effects: usize,
    fault: Option<Fault>,
}

/// What is to become of one effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Normal,
    Refuse,
    LoseAnswer,
    Break,
}

impl World {
    pub fn new(plan: &Plan, fault: Option<Fault>) -> Self {
        let vm = |hca: bool| Vm {
            source: Source::Running,
            destination: Destination::None,
            hca_at_source: hca,
            hca_at_destination: false,
            lingers: 0,
        };
        let mut vms: BTreeMap<_, _> = plan
            .vms
            .iter()
            .map(|p| (p.vm.clone(), vm(p.source_hca.is_some())))
            .collect();
        if let (Some(Fault::Lingers(times)), Some(second)) = (fault, vms.values_mut().nth(1)) {
            second.lingers = times;
        }
        Self {
            vms,
            job: Job::Native,
            ranks: plan.ranks,
            handed_over: false,
            crossed: false,
            aborted: false,
            crossings: 0,
            effects: 0,
            fault,
        }
    }

    /// Counts an effect and says what becomes of it.
    pub fn effect(&mut self) -> Verdict {
        self.effects += 1;
        match self.fault {
            Some(Fault::Refused(n)) if n == self.effects => Verdict::Refuse,
            Some(Fault::AnswerLost(n)) if n == self.effects => Verdict::LoseAnswer,
            Some(Fault::Breaks(n)) if n == self.effects => Verdict::Break,
            _ => Verdict::Normal,
        }
    }

    /// Counts a VM that is let cross, and says whether it arrives.
    pub fn arrives(&mut self) -> bool {
        self.crossings += 1;
        self.fault != Some(Fault::Stays(self.crossings))
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Effects so far.
    pub fn effects(&self) -> usize {
        self.effects
    }

    pub fn places(&self) -> impl Iterator<Item = (&VmName, Place)> {
        self.vms.iter().map(|(name, vm)| {
            let at_source = matches!(vm.source, Source::Running | Source::Copying(..));
            let place = match (at_source, vm.destination) {
                (true, Destination::Running) => panic!("{name} runs twice"),
                (true, _) => Place::Source,
                (false, Destination::Running) => Place::Destination,
                (false, Destination::Waiting) if vm.source == Source::Completed => Place::Unresumed,
                (false, _) => Place::Nowhere,
            };
            (name, place)
        })
    }

    pub fn hcas_are_at_source(&self, wanted: bool) -> bool {
        self.vms
            .values()
            .all(|vm| vm.hca_at_source == wanted && !vm.hca_at_destination)
    }

    /// The kernel's rule: an unplug under a rank that uses the HCA kills the job.
    pub fn see_job_survives_unplug(&self, vm: &VmName) {
        let uses = self.ranks && self.job == Job::Native;
        assert!(!uses, "the HCA of {vm} is unplugged while ranks use it");
    }
}
