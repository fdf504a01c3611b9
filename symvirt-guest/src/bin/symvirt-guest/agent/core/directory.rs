//! How objects are reached, as far as the ranks of this guest had to know.

use std::collections::{BTreeMap, BTreeSet};

use symvirt_protocol::agent::FromAgent;
use symvirt_protocol::ids::{Epoch, ObjectId};
use symvirt_protocol::query::Reach;
use symvirt_protocol::rank::Blob;

use super::{Core, Host, Output};

/// An answer may have been dropped, by a coordinator whose channel to this guest was full: it is
/// asked again when ranks have come so often, some seconds later.
const ASKED_AGAIN: u32 = 128;

/// Of one epoch.
#[derive(Debug, Default)]
pub(super) struct Directory {
    known: BTreeMap<ObjectId, Vec<u8>>,
    gone: BTreeSet<ObjectId>,
    /// The coordinator cannot tell, and no rank has heard that yet.
    unknown: BTreeSet<ObjectId>,
    /// The coordinator has been asked and has not answered, though ranks came for it so often.
    asked: BTreeMap<ObjectId, u32>,
}

impl Directory {
    pub fn insert(&mut self, blobs: &[Blob]) {
        let blobs = blobs.iter().cloned();
        self.known
            .extend(blobs.map(|blob| (blob.object, blob.bytes)));
    }

    /// Who was asked has lost its memory.
    pub fn ask_again(&mut self) {
        self.asked.clear();
    }
}

impl Core {
    /// Tells a rank of `epoch` how an object is reached; asks the coordinator if need be.
    pub fn reach(&mut self, object: ObjectId, epoch: Epoch) -> Reach {
        let can_ask = self.host != Host::Unknown;
        let Some(directory) = self.directory_of(epoch) else {
            return Reach::Unheard;
        };
        if let Some(bytes) = directory.known.get(&object) {
            return Reach::By(bytes.clone());
        }
        if directory.gone.contains(&object) {
            return Reach::Gone;
        }
        if directory.unknown.remove(&object) {
            return Reach::Unknown;
        }
        let times = directory.asked.entry(object).or_default();
        let is_due = times.is_multiple_of(ASKED_AGAIN);
        *times = times.wrapping_add(u32::from(can_ask));
        if can_ask && is_due {
            let objects = vec![object];
            self.outputs
                .push(Output::Host(FromAgent::Ask { epoch, objects }));
        }
        Reach::Unheard
    }

    /// The coordinator's answer.
    pub(super) fn found(
        &mut self,
        epoch: Epoch,
        blobs: &[Blob],
        gone: &[ObjectId],
        unknown: &[ObjectId],
        later: &[ObjectId],
    ) {
        let Some(directory) = self.directory_of(epoch) else {
            return;
        };
        directory.insert(blobs);
        directory.gone.extend(gone);
        directory.unknown.extend(unknown);
        // What is not known may be asked for again.
        let answered = blobs.iter().map(|blob| &blob.object);
        for object in answered.chain(gone).chain(unknown).chain(later) {
            directory.asked.remove(object);
        }
    }

    /// Ranks run in the gang's epoch, or already in that of the switch under way.
    fn directory_of(&mut self, epoch: Epoch) -> Option<&mut Directory> {
        if epoch == self.told().0 {
            return Some(&mut self.directory);
        }
        let next = self.next_directory.as_mut();
        next.filter(|(of, _)| *of == epoch).map(|(_, it)| it)
    }
}
