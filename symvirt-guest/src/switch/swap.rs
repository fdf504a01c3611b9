//! The change-over: sends are led over the new side, at once or ahead of the rest; posted receives
//! are taken back from the old side, real pointers change, receives are posted again. Only under
//! the closed gate, and but for sends when everything sent here has arrived.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use symvirt_protocol::ids::Epoch;

use super::exposure;
use super::side::{ContextSide, Side, WorkerSide};
use crate::object::lock;
use crate::object::request::{RETURNED, Request};
use crate::object::route::Reals;
use crate::object::worker::Worker;
use crate::process::gang;
use crate::real::real;
use crate::transfer::receive::{self, PostOutcome};

/// UCX cancels a posted receive at once; this bounds the wait for a version that would not.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);

/// Calls `body` with every worker of the process.
pub fn each_worker(mut body: impl FnMut(&Worker)) {
    for context in lock(&gang::STATE.contexts).iter() {
        // SAFETY: listed contexts, and their listed workers, are live during a round.
        for &worker in lock(&unsafe { &*context.0 }.workers).iter() {
            // SAFETY: as above.
            body(unsafe { &*worker });
        }
    }
}

/// Takes all posted receives back; the application does not notice.
pub fn take_back_receives() {
    each_worker(|worker| {
        worker.reposting.store(true, Ordering::Relaxed);
        let posted = worker.posted.snapshot();
        for &request in &posted {
            // SAFETY: posted and not complete; its real request is live.
            unsafe { (real().request_cancel)(worker.real(), (*request).real) };
        }
        let deadline = Instant::now() + CANCEL_LIMIT;
        let is_posted = |&request: &*mut Request| {
            // SAFETY: members of the list are live.
            unsafe { (*request).state.load(Ordering::Relaxed) & RETURNED != 0 }
        };
        while worker.posted.snapshot().iter().any(is_posted) && Instant::now() < deadline {
            // SAFETY: the real worker in use, owned by this helper.
            unsafe { (real().worker_progress)(worker.real()) };
        }
        worker.reposting.store(false, Ordering::Relaxed);
    });
}

/// Takes the real side out of our objects: what comes back is to be released.
pub fn detach(epoch: Epoch) -> Side {
    let mut contexts = Vec::new();
    for pointer in lock(&gang::STATE.contexts).iter() {
        // SAFETY: listed contexts, and their listed workers, are live during a round.
        let context = unsafe { &*pointer.0 };
        let mut workers = Vec::new();
        for &worker in lock(&context.workers).iter() {
            // SAFETY: as above.
            let ours = unsafe { &*worker };
            let old = ours.swap_real(std::ptr::null_mut());
            // From now on messages of the next epoch may come, where peers are ahead.
            ours.side.fetch_add(1, Ordering::Relaxed);
            ours.traffic.reset();
            if ours.ahead().is_null() {
                ours.routes.replace(Reals::new());
                // Peers that are ahead may let go of the old side while it is still driven here:
                // nobody is to be told.
                ours.each_endpoint(|endpoint| endpoint.set_real(std::ptr::null_mut()));
            }
            let keys = exposure::close(ours);
            workers.push(WorkerSide {
                keys,
                ..WorkerSide::new(worker, old)
            });
        }
        let memories = exposure::withdraw(context);
        let old = context.swap_real(std::ptr::null_mut());
        contexts.push(ContextSide {
            context,
            real: old,
            memories,
            workers,
        });
    }
    Side::retired(epoch, contexts)
}

/// Leads sends over a prepared side; all else stays on the old one until it is attached.
pub fn lead_sends(side: &mut Side) {
    for worker_side in side
        .contexts
        .iter_mut()
        .flat_map(|context| &mut context.workers)
    {
        // SAFETY: workers are not destroyed during a round.
        let worker = unsafe { &*worker_side.worker };
        worker.set_ahead(worker_side.real);
        worker.deferred.begin_detour();
        redirect(worker, std::mem::take(&mut worker_side.twins));
    }
    let (transports, own) = (side.transports.clone(), side.own.clone());
    gang::begin_epoch(side.epoch, transports, &side.table, own);
}

/// Puts a prepared side into our objects and posts the receives again, in their order.
pub fn attach(side: Side) {
    let begins = gang::epoch() < side.epoch;
    for context_side in side.contexts {
        // SAFETY: contexts and workers are not destroyed during a round.
        unsafe { &*context_side.context }.swap_real(context_side.real);
        for (memory, real_memory) in context_side.memories {
            // SAFETY: listed when the gate closed.
            unsafe { &*memory }.swap_real(real_memory);
        }
        for worker_side in context_side.workers {
            // SAFETY: as above.
            let worker = unsafe { &*worker_side.worker };
            worker.swap_real(worker_side.real);
            if worker.set_ahead(std::ptr::null_mut()).is_null() {
                redirect(worker, worker_side.twins);
            } else {
                worker.deferred.end_detour();
            }
            exposure::open(worker, worker_side.keys);
        }
    }
    if begins {
        gang::begin_epoch(side.epoch, side.transports, &side.table, side.own);
    }
    each_worker(repost);
}

/// Leads the endpoints of a worker over the routes of its new side. Those of which it has no twin
/// sleep: they were made since the addresses were published, have been silent for long, or their
/// peer is gone.
fn redirect(worker: &Worker, twins: Reals) {
    worker.each_endpoint(|endpoint| {
        let twin = endpoint.route.and_then(|route| twins.get(&route).copied());
        endpoint.begin_epoch(twin);
    });
    worker.routes.replace(twins);
}

fn repost(worker: &Worker) {
    for request in worker.posted.snapshot() {
        // SAFETY: taken back, on the list, not seen by the new worker yet.
        match unsafe { receive::repost(worker, request) } {
            PostOutcome::Pending => {}
            // A message of the new epoch was there already.
            PostOutcome::Completed => worker.deferred.push(request),
            PostOutcome::Refused(status) => {
                crate::log::error!("a posted receive is lost: {status}");
                worker.posted.remove(request);
                // SAFETY: a live request; the application learns of the failure.
                unsafe { (*request).status.store(status.0, Ordering::Relaxed) };
                worker.deferred.push(request);
            }
        }
    }
}
