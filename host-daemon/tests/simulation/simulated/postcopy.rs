//! A VM that crosses before its memory.

use symvirt_host::operation::effects::{CopyStatus, Crossing, HostReply};

use super::world::{Destination, Link, Source, Vm};

/// The memory follows, unless the link breaks or is broken.
pub fn follow(vm: &mut Vm) -> HostReply {
    let Source::Serving(left) = vm.source else {
        panic!("nothing follows: {vm:?}")
    };
    let has_begun = left < vm.rest;
    if has_begun && vm.link == Link::Up && vm.breaks > 0 {
        vm.link = Link::Broken;
    }
    if matches!(vm.destination, Destination::Dead(_)) {
        vm.link = Link::Broken;
    }
    let flows = vm.link == Link::Up;
    let left = if flows { left / 2 } else { left };
    vm.source = Source::Serving(left);
    if left == 0 && vm.destination == Destination::Lacking {
        vm.source = Source::Completed;
        vm.destination = Destination::Running;
        let crossing = Crossing::Completed {
            downtime_ms: Some(1),
            transferred: 1,
            passes: 3,
        };
        return HostReply::Crossed { crossing };
    }
    let state = if flows {
        "postcopy-active"
    } else {
        "postcopy-paused"
    };
    let copy = CopyStatus {
        state: state.into(),
        remaining: u64::from(left) << 20,
        ..CopyStatus::default()
    };
    let crossing = Crossing::Postcopy { copy };
    HostReply::Crossed { crossing }
}

/// The destination waits for its source anew.
pub fn rejoin(vm: &mut Vm) -> HostReply {
    assert_eq!(vm.destination, Destination::Lacking, "it lacks nothing");
    vm.link = Link::Listening;
    let uri = "tcp:b:2".into();
    HostReply::Waiting { uri }
}

/// The source joins its destination, if that listens.
pub fn send_on(vm: &mut Vm) -> HostReply {
    let Source::Serving(_) = vm.source else {
        panic!("nothing is left: {vm:?}")
    };
    vm.breaks = vm.breaks.saturating_sub(1);
    vm.link = match (vm.link, vm.breaks) {
        (Link::Listening, 0) => Link::Up,
        _ => Link::Broken,
    };
    HostReply::Done
}

/// Whether what is left of a VM is given up, because nobody has the rest.
pub fn forfeit(here: &str, vm: &mut Vm) -> bool {
    match (here, vm.source, vm.destination) {
        ("a", Source::Serving(_), destination) => {
            let dead = matches!(destination, Destination::Dead(_) | Destination::None);
            assert!(dead, "a VM is taken the rest of its memory: {vm:?}");
            vm.source = Source::Gone;
            true
        }
        ("b", source, Destination::Lacking) => {
            let dead = matches!(source, Source::Dead(_));
            assert!(dead, "a VM is ended that would have been whole: {vm:?}");
            vm.destination = Destination::Dead(true);
            true
        }
        _ => false,
    }
}
