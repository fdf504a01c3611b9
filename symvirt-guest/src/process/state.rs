//! What the process can tell of itself (`symvirt_get_state`).

use std::collections::BTreeSet;
use std::ffi::c_char;

use symvirt_ffi::symvirt::{CLASSES, NAMES, State};
use symvirt_protocol::ids::ProcId;

use super::{gang, holds, round};
use crate::object::{lanes, lock};
use crate::{channel, gate};

/// Fills in everything but the size.
pub fn tell(state: &mut State) {
    state.epoch = 0;
    state.member = 0;
    state.switching = 0;
    state.transports = [[0; NAMES]; CLASSES];
    state.holds = holds::count().try_into().unwrap_or(u32::MAX);
    if !gang::is_member() {
        return;
    }
    // Before the gate: the agent is no part of UCX.
    let neighbours = channel::processes_of_this_guest();
    let mut names: [BTreeSet<String>; CLASSES] = Default::default();
    {
        let _passage = gate::enter();
        collect(&neighbours, &mut names);
        state.epoch = gang::epoch().0;
    }
    state.member = 1;
    state.switching = round::is_under_way().into();
    for (place, names) in state.transports.iter_mut().zip(names) {
        write(place, &names);
    }
}

fn collect(neighbours: &BTreeSet<ProcId>, names: &mut [BTreeSet<String>; CLASSES]) {
    let own = gang::process();
    for context in lock(&gang::STATE.contexts).iter() {
        // SAFETY: listed contexts, and their listed workers, are live.
        for &worker in lock(unsafe { &(*context.0).workers }).iter() {
            // SAFETY: as above.
            let worker = unsafe { &*worker };
            let _inside = worker.enter();
            worker.each_endpoint(|endpoint| {
                if endpoint.is_asleep() {
                    return;
                }
                let class = match endpoint.peer().map(|peer| peer.process) {
                    Some(process) if process == own => 0,
                    Some(process) if neighbours.contains(&process) => 1,
                    Some(_) => 2,
                    None => return,
                };
                // SAFETY: symvirt.h asks for a thread that may call MPI; the gate is passed.
                names[class].extend(unsafe { lanes::of(endpoint.real()) });
            });
        }
    }
}

/// As many whole names as there is room for, and the null that ends them.
fn write(place: &mut [c_char; NAMES], names: &BTreeSet<String>) {
    let mut text = String::new();
    for name in names {
        let separator = if text.is_empty() { "" } else { "," };
        if text.len() + separator.len() + name.len() < NAMES {
            text.push_str(separator);
            text.push_str(name);
        }
    }
    for (to, from) in place.iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_fit_are_left_out_whole() {
        let mut place = [0; NAMES];
        let long = "x".repeat(NAMES - 10);
        let names = [long.as_str(), "aaaaaaaaa/b", "tcp/lo"].map(str::to_owned);
        write(&mut place, &names.into_iter().collect());
        let end = place.iter().position(|&byte| byte == 0).expect("ends");
        let text: String = place[..end]
            .iter()
            .map(|&byte| byte as u8 as char)
            .collect();
        assert_eq!(text, "aaaaaaaaa/b,tcp/lo");
    }
}
