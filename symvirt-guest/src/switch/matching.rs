//! Synchronous sends of the whole process around a drain; see `object::syncs`.

use symvirt_protocol::rank::SyncSend;

use super::swap;

/// The application finds the synchronous sends complete at its next progress.
pub fn deliver_matched(ids: &[u64]) {
    swap::each_worker(|worker| {
        for request in worker.syncs.matched(ids) {
            worker.deferred.push(request);
        }
    });
}

/// Synchronous sends that are not matched at the moment the counters are published.
pub fn begin_drains() -> Vec<SyncSend> {
    let mut syncs = Vec::new();
    swap::each_worker(|worker| syncs.extend(worker.syncs.begin_drain()));
    syncs
}

/// Abandoned before anybody drained: completions meant what they said.
pub fn abandon_drains() {
    swap::each_worker(|worker| {
        for request in worker.syncs.abandon_drain() {
            worker.deferred.push(request);
        }
    });
}

/// Attaches synchronous sends of others to the messages that the drain took; returns those that
/// posted receives have matched.
pub fn attach_syncs(syncs: &[SyncSend]) -> Vec<SyncSend> {
    let mut matched = Vec::new();
    swap::each_worker(|worker| {
        let mine = syncs.iter().filter(|sync| sync.worker == worker.id);
        matched.extend(mine.filter(|sync| !worker.drained.attach(**sync)));
    });
    matched
}
