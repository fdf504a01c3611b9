//! What agents say to the coordinator of a gang, at any time.

use symvirt_protocol::agent::FromAgent;
use symvirt_protocol::frame::{decode_payload, encode};
use symvirt_protocol::gang::{Effect, Gang, GuestId};
use symvirt_protocol::ids::ProcId;
use symvirt_protocol::rank::{FromRank, SwitchOrder};
use symvirt_protocol::transport::Interconnect;

/// Over and over: a byte that says what the daemon does and which guest speaks, one that says how
/// long the message is, and the message.
pub fn check(mut bytes: &[u8]) {
    let guests = ["a", "b"].map(|name| GuestId(name.to_owned()));
    let mut gang = Gang::new(Interconnect::Native);
    while let [what, length, rest @ ..] = bytes {
        see(command(&mut gang, *what));
        let length = rest.len().min(usize::from(*length));
        let (said, rest) = rest.split_at(length);
        bytes = rest;
        let guest = &guests[usize::from(*what >> 7)];
        if let Ok(message) = decode_payload::<FromAgent>(said) {
            see(gang.hear(guest, message));
        }
        if let Ok(message) = decode_payload::<FromRank>(said) {
            let process = ProcId(u64::from((*what >> 4) & 3));
            see(gang.hear(guest, FromAgent::Ranks(vec![(process, message)])));
        }
        // Whom an operator is told to look at.
        gang.waiting();
    }
}

/// What the daemon may do in between; mostly nothing.
fn command(gang: &mut Gang, what: u8) -> Vec<Effect> {
    let epoch = gang.next_epoch();
    let effects = match what % 16 {
        0 => gang.switch(epoch, Interconnect::Fallback, SwitchOrder::MakeBeforeBreak),
        1 => gang.switch(epoch, Interconnect::Fallback, SwitchOrder::BreakBeforeMake),
        2 => gang.rebuild(Interconnect::Native),
        3 => gang.abort(),
        4 => Ok(gang.time_out()),
        5 => Ok(gang.lose_guest(&GuestId("a".to_owned()))),
        _ => Ok(Vec::new()),
    };
    effects.unwrap_or_default()
}

fn see(effects: Vec<Effect>) {
    for effect in effects {
        if let Effect::Send { message, .. } = effect {
            encode(&message).expect("no longer than what it was made of");
        }
    }
}
