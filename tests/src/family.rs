//! A process and those that it started, for a command that has to end with all of them.

use nix::unistd::Pid;

/// A process: its number may be another's once it has ended, which has started later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its number.
    pub pid: Pid,
    parent: Pid,
    start: u64,
}

impl Member {
    fn of(pid: Pid) -> Option<Member> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name is in parentheses and may contain anything.
        let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
        Some(Member {
            pid,
            parent: Pid::from_raw(fields.get(1)?.parse().ok()?),
            start: fields.get(19)?.parse().ok()?,
        })
    }

    /// Whether it has not ended, whosever child it is by now.
    pub fn is_alive(&self) -> bool {
        Member::of(self.pid).is_some_and(|now| now.start == self.start)
    }
}

/// A process and all below it, parents first.
pub fn of(top: Pid) -> Vec<Member> {
    let processes: Vec<Member> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Member::of(Pid::from_raw(pid))
        })
        .collect();
    let mut family: Vec<Member> = Member::of(top).into_iter().collect();
    let mut at = 0;
    while let Some(here) = family.get(at).map(|member| member.pid) {
        family.extend(processes.iter().filter(|member| member.parent == here));
        at += 1;
    }
    family
}
