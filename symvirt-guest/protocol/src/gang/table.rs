//! How objects are reached, and who is told what of it.
//!
//! Each guest hears of a switch what its ranks need for it. What they turn out to need later
//! ([`FromAgent::Ask`](crate::agent::FromAgent)), they ask for: mostly nothing.

use std::collections::BTreeMap;

use super::outcome::{Effect, GuestId};
use super::roster::to_counts;
use super::{Gang, Phase, Round};
use crate::agent::{Recipient, ToAgent};
use crate::ids::{Epoch, ObjectId, ProcId, WorkerId};
use crate::rank::{Blob, SyncSend, ToRank};
use crate::share::Wants;

/// How objects of one epoch are reached.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<ObjectId, Vec<u8>>);

impl Table {
    /// What a process has published; objects of others are none of its business.
    pub fn insert(&mut self, process: ProcId, blobs: Vec<Blob>) {
        let own = blobs.into_iter();
        let own = own.filter(|blob| blob.object.process == process);
        self.0.extend(own.map(|blob| (blob.object, blob.bytes)));
    }

    /// What an agent remembers of a process; what is known already stands.
    pub fn insert_new(&mut self, process: ProcId, blobs: Vec<Blob>) {
        for blob in blobs.into_iter().filter(|it| it.object.process == process) {
            self.0.entry(blob.object).or_insert(blob.bytes);
        }
    }

    pub fn retain(&mut self, is_wanted: impl Fn(ProcId) -> bool) {
        self.0.retain(|object, _| is_wanted(object.process));
    }

    fn get(&self, object: ObjectId) -> Option<Blob> {
        let bytes = self.0.get(&object)?.clone();
        Some(Blob { object, bytes })
    }

    fn knows_any_of(&self, process: ProcId) -> bool {
        let first = ObjectId { process, index: 0 };
        let mut later = self.0.range(first..);
        later
            .next()
            .is_some_and(|(object, _)| object.process == process)
    }
}

impl Gang {
    /// Each guest's part of what was published and greeted.
    pub(super) fn peers(&self, round: &Round) -> Vec<Effect> {
        let epoch = round.epoch;
        let mut effects = Vec::new();
        let hellos = round.hellos.clone();
        let mut hellos = self.by_guest(hellos, |(worker, _)| *worker);
        for (guest, wants) in self.wants_by_guest(round) {
            let (mut table, mut gone) = (Vec::new(), Vec::new());
            for object in wants.iter() {
                match round.published.get(object) {
                    Some(blob) => table.push(blob),
                    // Members have published all that they have.
                    None if self.is_gone(object.process, true) => gone.push(object),
                    None => {}
                }
            }
            let hellos = hellos.remove(&guest).unwrap_or_default();
            let peers = ToRank::Peers {
                epoch,
                table,
                hellos: to_counts(hellos.into_iter().collect()),
                gone,
            };
            effects.push(to_all_of(guest, peers));
        }
        effects
    }

    /// Each guest's part of what was sent.
    pub(super) fn totals(&self, round: &Round) -> Vec<Effect> {
        let mut effects = Vec::new();
        let (epoch, barrier, weigh) = (round.epoch, round.barrier, round.is_tight());
        let (mut sent, syncs) = (round.sent.clone(), round.syncs.clone());
        self.roster.add_departed_of(self.epoch, &mut sent);
        let mut totals = self.by_guest(sent, |(worker, _)| *worker);
        let mut syncs = self.by_guest(syncs, |sync: &SyncSend| sync.worker);
        for guest in self.roster.populated() {
            let totals = totals.remove(&guest).unwrap_or_default();
            let expect = ToRank::Expect {
                epoch,
                totals: to_counts(totals.into_iter().collect()),
                syncs: syncs.remove(&guest).unwrap_or_default(),
                barrier,
                weigh,
            };
            effects.push(to_all_of(guest, expect));
        }
        effects
    }

    /// An agent whose ranks need what they did not ask for.
    pub(super) fn ask(&self, guest: &GuestId, epoch: Epoch, objects: Vec<ObjectId>) -> Effect {
        let (mut blobs, mut gone) = (Vec::new(), Vec::new());
        let (mut unknown, mut later) = (Vec::new(), Vec::new());
        let ahead = self.round.as_ref().filter(|round| {
            // Complete since all have published: those that are ahead run on it.
            round.epoch == epoch && matches!(round.phase, Phase::Drain | Phase::Open)
        });
        let table = match ahead {
            Some(round) => Some(&round.published),
            None => (epoch == self.epoch).then_some(&self.table),
        };
        for object in objects {
            match table.and_then(|table| table.get(object)) {
                Some(blob) => blobs.push(blob),
                None => {
                    let told_all = table.is_some_and(|table| table.knows_any_of(object.process));
                    let is_gone = table.is_some() && self.is_gone(object.process, told_all);
                    let answer = match is_gone {
                        true => &mut gone,
                        false if self.may_come(object.process) => &mut later,
                        false => &mut unknown,
                    };
                    answer.push(object);
                }
            }
        }
        Effect::Send {
            guest: guest.clone(),
            message: ToAgent::Found {
                epoch,
                blobs,
                gone,
                unknown,
                later,
            },
        }
    }

    /// Whether more may be heard of a process than is known: it has not been met yet, or comes
    /// through an agent that has begun anew.
    fn may_come(&self, process: ProcId) -> bool {
        let member = self.roster.members.get(&process);
        let mut parked = self.roster.parked.iter();
        self.meeting
            || self.is_unsettled()
            || member.is_some_and(|member| member.absent)
            || parked.any(|(_, join)| join.process == process)
    }

    /// Whether an object that is not in a table is no more: its process has left, or `told_all`
    /// that it has. Otherwise it may come: this coordinator may have been away.
    fn is_gone(&self, process: ProcId, told_all: bool) -> bool {
        let is_member = self.roster.members.contains_key(&process);
        (is_member && told_all) || self.roster.left().any(|left| left == process)
    }

    fn wants_by_guest(&self, round: &Round) -> BTreeMap<GuestId, Wants> {
        let mut all: BTreeMap<GuestId, Wants> = BTreeMap::new();
        for (process, member) in &self.roster.members {
            let of_guest = all.entry(member.guest.clone()).or_default();
            if let Some(wants) = round.wants.get(process) {
                of_guest.join(wants);
            }
        }
        all
    }

    /// Sorts what is meant for workers by the guests that they are in; nobody waits for the rest.
    fn by_guest<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        worker: impl Fn(&T) -> WorkerId,
    ) -> BTreeMap<GuestId, Vec<T>> {
        let mut sorted: BTreeMap<GuestId, Vec<T>> = BTreeMap::new();
        for item in items {
            if let Some(member) = self.roster.members.get(&worker(&item).process) {
                sorted.entry(member.guest.clone()).or_default().push(item);
            }
        }
        sorted
    }
}

fn to_all_of(guest: GuestId, message: ToRank) -> Effect {
    Effect::Send {
        guest,
        message: ToAgent::Ranks(vec![(Recipient::All, message)]),
    }
}
