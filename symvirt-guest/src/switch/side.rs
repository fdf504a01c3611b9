//! A real side under construction: for each of our contexts and workers another real one, on the
//! target transports, and for each endpoint in use a twin, wired up by a hello that the library
//! consumes. Endpoints that have been silent for long go without: see
//! [`endpoints`](crate::process::endpoints).

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use symvirt_ffi::ucp::RequestParam;
use symvirt_ffi::ucs::Status;
use symvirt_protocol::ids::{Epoch, MemoryId, ObjectId, WorkerId};
use symvirt_protocol::rank::{Blob, WorkerCount};
use symvirt_protocol::transport::Transports;

use super::exposure::Keys;
use super::hello::Hellos;
use crate::object::context::Context;
use crate::object::lock;
use crate::object::memory::Memory;
use crate::object::request::Kind;
use crate::object::route::{Reals, Route};
use crate::object::worker::{Worker, real_address};
use crate::process::{environment, gang};
use crate::real::real;

/// How long endpoints may take to wire up before the rank votes no.
const WIRE_UP_LIMIT: Duration = Duration::from_secs(25);
/// How long an abandoned side is driven on, so that no hello is in flight when it is destroyed.
const SETTLE_LIMIT: Duration = Duration::from_millis(300);

/// See the module.
pub struct Side {
    pub epoch: Epoch,
    pub transports: Transports,
    pub contexts: Vec<ContextSide>,
    /// How peers' objects are reached on it, of those that this process asked for.
    pub table: Vec<Blob>,
    /// How this process's are.
    pub own: Vec<Blob>,
}

/// The new real context of one of ours.
pub struct ContextSide {
    pub context: *const Context,
    pub real: *mut c_void,
    /// Memory registered in it.
    pub memories: Vec<(*const Memory, *mut c_void)>,
    pub workers: Vec<WorkerSide>,
}

/// The new real worker of one of ours.
pub struct WorkerSide {
    pub worker: *const Worker,
    pub real: *mut c_void,
    /// Its real endpoints.
    pub twins: Reals,
    /// Its real keys.
    pub keys: Keys,
    /// Routes that will send a hello: those in use when the addresses were published, or new.
    pub greeting: HashSet<Route>,
    pub hellos: Hellos,
}

// SAFETY: handed over whole between helpers; our objects outlive the round, which changes to them
// wait for.
unsafe impl Send for Side {}

/// Why a side could not be built or wired up.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    #[error("ucp_init on {transports:?}: {status}")]
    Context {
        transports: Transports,
        status: Status,
    },
    #[error("ucp_worker_create on {transports:?}: {status}")]
    Worker {
        transports: Transports,
        status: Status,
    },
    #[error("ucp_mem_map of {memory}: {status}")]
    Memory { memory: MemoryId, status: Status },
    #[error("ucp_rkey_pack of {memory}: {status}")]
    Pack { memory: MemoryId, status: Status },
    #[error("ucp_ep_rkey_unpack of {memory}: {status}")]
    Key { memory: MemoryId, status: Status },
    #[error("ucp_worker_get_address: {0}")]
    Address(Status),
    #[error("no address of peer {0}: it is not in the gang")]
    UnknownPeer(WorkerId),
    #[error("ucp_ep_create to peer {peer}: {status}")]
    Endpoint { peer: WorkerId, status: Status },
    #[error("hello: {0}")]
    Hello(Status),
    #[error("wiring up took longer than {WIRE_UP_LIMIT:?}")]
    Slow,
    #[error("abandoned")]
    Abandoned,
}

impl Side {
    /// Builds contexts and workers. Nothing is left behind on failure.
    ///
    /// # Errors
    /// UCX's, with the object.
    pub fn build(epoch: Epoch, transports: Transports) -> Result<Side, SideError> {
        let mut side = Side {
            epoch,
            transports,
            contexts: Vec::new(),
            table: Vec::new(),
            own: Vec::new(),
        };
        let ours: Vec<_> = lock(&gang::STATE.contexts).clone();
        let _environment = environment::hold();
        for pointer in ours {
            if let Err(error) = side.build_context(pointer.0) {
                side.destroy();
                return Err(error);
            }
        }
        Ok(side)
    }

    fn build_context(&mut self, pointer: *const Context) -> Result<(), SideError> {
        // SAFETY: contexts are not destroyed during a round.
        let context = unsafe { &*pointer };
        let transports = self.transports.clone();
        let real_context = context
            .make_real(&transports)
            .map_err(|status| SideError::Context {
                transports: transports.clone(),
                status,
            })?;
        let workers = lock(&context.workers).clone();
        self.contexts.push(ContextSide {
            context,
            real: real_context,
            memories: Vec::new(),
            workers: Vec::new(),
        });
        self.register_memory(context)?;
        for pointer in workers {
            // SAFETY: workers are not destroyed during a round.
            let worker = unsafe { &*pointer };
            let real = worker
                .make_real(real_context)
                .map_err(|status| SideError::Worker {
                    transports: transports.clone(),
                    status,
                })?;
            let mut greeting = HashSet::new();
            worker.each_endpoint(|endpoint| {
                if endpoint.is_busy() {
                    greeting.extend(endpoint.route);
                }
            });
            let side = WorkerSide {
                greeting,
                ..WorkerSide::new(worker, real)
            };
            if let Some(last) = self.contexts.last_mut() {
                last.workers.push(side);
            }
        }
        Ok(())
    }

    /// The new workers.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerSide> {
        self.contexts.iter().flat_map(|context| &context.workers)
    }

    pub(super) fn workers_mut(&mut self) -> impl Iterator<Item = &mut WorkerSide> {
        self.contexts
            .iter_mut()
            .flat_map(|context| &mut context.workers)
    }

    /// How peers reach the new workers and the memory registered beside them; kept, too.
    ///
    /// # Errors
    /// UCX's.
    pub fn publish(&mut self) -> Result<Vec<Blob>, SideError> {
        self.own = self.pack()?;
        Ok(self.own.clone())
    }

    fn pack(&self) -> Result<Vec<Blob>, SideError> {
        let address = |side: &WorkerSide| {
            // SAFETY: workers are not destroyed during a round.
            let object = unsafe { &*side.worker }.id;
            let bytes = real_address(side.real).map_err(SideError::Address)?;
            Ok(Blob { object, bytes })
        };
        let addresses = self.workers().map(address);
        addresses.chain(self.packed_keys()).collect()
    }

    /// Hellos that this side will send.
    pub fn hellos(&self) -> Vec<WorkerCount> {
        let mut counts: HashMap<WorkerId, u64> = HashMap::new();
        for route in self.workers().flat_map(|side| &side.greeting) {
            *counts.entry(route.peer).or_default() += 1;
        }
        counts
            .into_iter()
            .map(|(worker, count)| WorkerCount { worker, count })
            .collect()
    }

    /// Makes the twins, sends and consumes all hellos.
    ///
    /// # Errors
    /// The first failure, or [`SideError::Abandoned`] once the flag is set. The side is to be
    /// destroyed then.
    pub fn wire_up(
        &mut self,
        table: Vec<Blob>,
        expected: &[WorkerCount],
        gone: &[ObjectId],
        abandoned: &AtomicBool,
    ) -> Result<(), SideError> {
        let addresses = by_object(&table);
        let gone: HashSet<ObjectId> = gone.iter().copied().collect();
        for side in self.workers_mut() {
            side.greet(&addresses, |peer| gone.contains(&peer))?;
            // SAFETY: workers are not destroyed during a round.
            let id = unsafe { &*side.worker }.id;
            let count = expected.iter().find(|count| count.worker == id);
            side.expect_hellos(count.map_or(0, |count| count.count))?;
        }
        self.table = table;
        let deadline = Instant::now() + WIRE_UP_LIMIT;
        while !self.hellos_done()? {
            if abandoned.load(Ordering::Acquire) {
                return Err(SideError::Abandoned);
            }
            if Instant::now() > deadline {
                return Err(SideError::Slow);
            }
            if self.progress() == 0 {
                // The peers are at it too, and the job wants the processor more than we do.
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        self.unpack_keys()
    }

    fn hellos_done(&mut self) -> Result<bool, SideError> {
        let mut done = true;
        for side in self.workers_mut() {
            done &= side.hellos.are_done()?;
        }
        Ok(done)
    }

    /// Drives the new workers; returns how many events there were.
    pub fn progress(&self) -> u32 {
        // SAFETY: the side's own workers, owned by the calling helper.
        self.workers()
            .map(|side| unsafe { (real().worker_progress)(side.real) })
            .sum()
    }

    /// Whether operations of ours are under way on an old side that its workers have left.
    pub fn is_busy(&self) -> bool {
        self.workers().any(|side| {
            // SAFETY: workers are not destroyed during a round.
            let worker = unsafe { &*side.worker };
            let left = worker.side_of(Kind::Receive) ^ 1;
            worker.traffic.operations_on(left) > 0
        })
    }

    /// Lets what is in flight arrive, before an abandoned side is destroyed.
    pub fn settle(&mut self) {
        let deadline = Instant::now() + SETTLE_LIMIT;
        while !matches!(self.hellos_done(), Ok(true)) && Instant::now() < deadline {
            if self.progress() == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        for side in self.workers_mut() {
            side.hellos.give_up(side.real);
        }
    }

    /// Destroys the real workers, with their endpoints, and contexts.
    pub fn destroy(self) {
        for context in &self.contexts {
            for side in &context.workers {
                for &key in side.keys.values() {
                    // SAFETY: made by this side, in use by nobody.
                    unsafe { (real().rkey_destroy)(key) };
                }
                // SAFETY: as above.
                unsafe { (real().worker_destroy)(side.real) };
            }
            for &(_, memory) in &context.memories {
                // SAFETY: as above.
                unsafe { (real().mem_unmap)(context.real, memory) };
            }
            // SAFETY: as above; its workers are gone.
            unsafe { (real().cleanup)(context.real) };
        }
    }

    /// A side made of what was in use: the old one, to be released.
    pub fn retired(epoch: Epoch, contexts: Vec<ContextSide>) -> Side {
        let transports = Transports::default();
        Side {
            epoch,
            transports,
            contexts,
            table: Vec::new(),
            own: Vec::new(),
        }
    }
}

impl WorkerSide {
    /// A real worker of one of ours, without endpoints.
    pub fn new(worker: *const Worker, real: *mut c_void) -> WorkerSide {
        WorkerSide {
            worker,
            real,
            twins: Reals::new(),
            keys: Keys::new(),
            greeting: HashSet::new(),
            hellos: Hellos::default(),
        }
    }
}

/// A table to look up in.
pub fn by_object(table: &[Blob]) -> HashMap<ObjectId, &[u8]> {
    table
        .iter()
        .map(|blob| (blob.object, blob.bytes.as_slice()))
        .collect()
}

/// Options of an operation of our own on a real object: bytes, no callback.
pub fn plain_param(mask: u32) -> RequestParam {
    RequestParam {
        op_attr_mask: mask,
        ..RequestParam::default()
    }
}
