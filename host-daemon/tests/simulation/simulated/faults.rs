//! What goes wrong in a simulated operation, and when.

use symvirt_host::operation::IfNotConverging;

/// At which of two hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Source,
    Destination,
}

/// When the coordinating daemon ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// As the nth effect is asked for, before it is carried out.
    BeforeEffect(usize),
    /// When the nth effect was carried out, before the daemon hears of it.
    AfterEffect(usize),
    /// As the nth record is to be written.
    BeforeRecord(usize),
    /// When the nth record was written.
    AfterRecord(usize),
}

/// The coordinating daemon ends and another one starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crash {
    pub at: Moment,
    /// A switch of transports that was under way goes on to its end, or is undone.
    pub forward: bool,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The nth effect is not carried out.
    Refused(usize),
    /// The nth effect is carried out, but its answer is lost.
    AnswerLost(usize),
    /// From the nth effect on, the destination's daemon does not answer the next so many calls.
    Away(usize, usize),
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
    /// The second VM dirties its memory faster than it is copied, while its job runs; and what was
    /// asked for in that case.
    Dirties(IfNotConverging),
    /// The link of the second VM breaks so often, or cannot be joined, while its memory follows.
    LinkBreaks(usize),
    /// If it does so, then not any more once its job is slowed down by 60 %.
    GivesWay,
    /// The job may be slowed down by so many percent; without, by 60.
    MayBeSlowed(u8),
    /// The nth effect, if it is a switch of transports, breaks when the others have changed over.
    Breaks(usize),
    /// The coordinating daemon is killed and started again.
    Crashes(Crash),
    /// At the nth effect, the QEMU of the VM of that number is killed.
    Dies(usize, Side, usize),
    /// At the nth effect the agent of the second VM is killed, and so many seconds later its guest
    /// has started another.
    AgentDies(usize, u64),
    /// The agent of the second VM has just begun anew, and its rank has not found it yet.
    AgentNew,
}

/// What is to become of one effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Normal,
    Refuse,
    LoseAnswer,
    Break,
    CrashBefore(Crash),
    CrashAfter(Crash),
}

/// All that goes wrong in one operation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults(pub Vec<Fault>);

impl From<Option<Fault>> for Faults {
    fn from(fault: Option<Fault>) -> Self {
        Self(fault.into_iter().collect())
    }
}

impl Faults {
    pub fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }

    pub fn lingers(&self) -> Option<usize> {
        self.0.iter().find_map(|fault| match fault {
            Fault::Lingers(times) => Some(*times),
            _ => None,
        })
    }

    /// What was asked for in the case that a VM dirties its memory too fast.
    pub fn dirties(&self) -> Option<IfNotConverging> {
        self.0.iter().find_map(|fault| match fault {
            Fault::Dirties(asked) => Some(*asked),
            _ => None,
        })
    }

    /// How often the link breaks over which memory follows.
    pub fn link_breaks(&self) -> Option<usize> {
        self.0.iter().find_map(|fault| match fault {
            Fault::LinkBreaks(times) => Some(*times),
            _ => None,
        })
    }

    /// How far the job may be slowed down.
    pub fn throttle(&self) -> u8 {
        let asked = self.0.iter().find_map(|fault| match fault {
            Fault::MayBeSlowed(percent) => Some(*percent),
            _ => None,
        });
        asked.unwrap_or(if self.has(Fault::GivesWay) { 60 } else { 0 })
    }

    /// Whose QEMU dies at the nth effect.
    pub fn dies(&self, effect: usize) -> Option<(Side, usize)> {
        self.0.iter().find_map(|fault| match fault {
            Fault::Dies(n, side, vm) if *n == effect => Some((*side, *vm)),
            _ => None,
        })
    }

    /// For how many seconds an agent is away that is killed at the nth effect.
    pub fn agent_dies(&self, effect: usize) -> Option<u64> {
        self.0.iter().find_map(|fault| match fault {
            Fault::AgentDies(n, away) if *n == effect => Some(*away),
            _ => None,
        })
    }

    /// Whether the destination answers the nth effect.
    pub fn away(&self, effect: usize) -> bool {
        self.0
            .iter()
            .any(|fault| matches!(fault, Fault::Away(n, long) if (*n..n + long).contains(&effect)))
    }

    pub fn verdict(&self, effect: usize) -> Verdict {
        let verdict = |fault: &Fault| match fault {
            Fault::Refused(n) if *n == effect => Some(Verdict::Refuse),
            Fault::AnswerLost(n) if *n == effect => Some(Verdict::LoseAnswer),
            Fault::Breaks(n) if *n == effect => Some(Verdict::Break),
            Fault::Crashes(crash) if crash.at == Moment::BeforeEffect(effect) => {
                Some(Verdict::CrashBefore(*crash))
            }
            Fault::Crashes(crash) if crash.at == Moment::AfterEffect(effect) => {
                Some(Verdict::CrashAfter(*crash))
            }
            _ => None,
        };
        self.0.iter().find_map(verdict).unwrap_or(Verdict::Normal)
    }

    /// The crash at the nth record, and whether the record was written. The daemon that follows writes a record of the same number.
    pub fn take_crash_at_record(&mut self, record: usize) -> Option<(Crash, bool)> {
        let mut faults = self.0.iter().enumerate();
        let (place, crash, written) = faults.find_map(|(place, fault)| match fault {
            Fault::Crashes(crash) if crash.at == Moment::BeforeRecord(record) => {
                Some((place, *crash, false))
            }
            Fault::Crashes(crash) if crash.at == Moment::AfterRecord(record) => {
                Some((place, *crash, true))
            }
            _ => None,
        })?;
        self.0.remove(place);
        Some((crash, written))
    }
}
