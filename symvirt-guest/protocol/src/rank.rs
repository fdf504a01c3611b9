//! Messages between one rank and the coordinator, relayed by the rank's agent.
//!
//! ```text
//!  make-before-break                         break-before-make (hold)
//!  C ► Prepare   R ► Published | Veto        C ► Commit    R ► Counters   (gate closes)
//!  C ► Peers     R ► Ready     | Veto        C ► Expect    R ► Drained    (gate stays closed)
//!  C ► Commit    R ► Counters  (gate closes) C ► Release   R ► Released   (HCA let go)
//!  C ► Expect    R ► Drained   (gate opens)  … the host unplugs, migrates, plugs …
//!  C ► Release   R ► Released                C ► Prepare   R ► Published | Veto
//!                                            C ► Peers     R ► Ready     | Veto
//!                                            C ► Open      R ► Opened     (gate opens)
//! ```
//!
//! Where the messages that wait for their receives might not fit into some rank's spool
//! ([`Load`]), the drain is weighed before it begins:
//!
//! ```text
//!  C ► Expect { weigh }   R ► Weighed | Veto   (everything has arrived, nothing was fetched)
//!  C ► Proceed            R ► Drained
//! ```
//!
//! `Abort` is obeyed until `Expect` is received (`Proceed`, if the drain is weighed), and answered
//! by `Aborted`: the old transport is as it was. A held rank (after `Drained` in break-before-make) that receives `Abort` while it
//! rebuilds drops what it built and answers `Aborted`; it stays held until a `Prepare` succeeds.
//! Every message carries the [`Epoch`] of its switch; one of another epoch is ignored. From `Expect`
//! on, and for `Abort`, a repeated one is answered again, also by a rank that is through with the
//! switch: a coordinator that takes another's place repeats what the other one had told.
//!
//! A rank whose gate is closed while its coordinator is gone waits for the next one, however long:
//! whether others have changed over already, it cannot know. It says so in its log every minute.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, MemoryId, ObjectId, ProcId, WorkerId};
use crate::transport::Transports;

/// What peers need to reach an object: a worker's address as `ucp_worker_get_address` packed it,
/// or the remote key of registered memory as `ucp_rkey_pack` did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Blob {
    /// Which object it leads to.
    pub object: ObjectId,
    /// Opaque bytes of the real UCX.
    pub bytes: Vec<u8>,
}

/// A number attached to a worker: messages sent to it, or hellos it will receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkerCount {
    /// The worker that receives.
    pub worker: WorkerId,
    /// How many.
    pub count: u64,
}

/// A synchronous send under way at a switch. Draining its message at the receiver must not
/// complete it towards the sender's application: only the match does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncSend {
    /// Who waits for the match.
    pub sender: ProcId,
    /// The sender's number for it.
    pub id: u64,
    /// The worker that receives.
    pub worker: WorkerId,
    /// The message's tag.
    pub tag: u64,
}

/// How a switch orders making and breaking.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SwitchOrder {
    /// The new transport is built while the job runs on the old one.
    MakeBeforeBreak,
    /// The old transport is let go first; ranks wait in between.
    BreakBeforeMake,
}

/// First message of a rank on its connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Join {
    /// Identity drawn by the process.
    pub process: ProcId,
    /// Process id in the guest; the agent checks it against the socket's peer credentials.
    pub pid: u32,
    /// Program name (`/proc/self/comm`).
    pub program: String,
    /// Rank in MPI_COMM_WORLD, if the launcher's environment tells it.
    pub mpi_rank: Option<u32>,
    /// Version of UCX, for example `1.18.1`.
    pub ucx_version: String,
    /// The epoch this process is in, and whether it is held; not 0 when it joins again after
    /// the agent restarted.
    pub epoch: Epoch,
    /// How its objects are reached, if it has been switched: a coordinator that has lost its memory
    /// learns it here.
    pub blobs: Vec<Blob>,
}

/// Answer to [`Join`]: the transports to start on. The rank's `ucp_init` waits for it; it is
/// delayed while a switch is under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Current epoch of the gang.
    pub epoch: Epoch,
    /// Transports of that epoch for this guest.
    pub transports: Transports,
}

/// From the coordinator to a rank.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToRank {
    /// The rank is a member now.
    Welcome(Welcome),
    /// Build a second context and worker for each that exists, register memory there too, and
    /// publish how peers reach them.
    Prepare {
        /// This switch.
        epoch: Epoch,
        /// Resolved for this guest.
        transports: Transports,
    },
    /// How the objects are reached that this rank asked for in [`FromRank::Published`], and the
    /// hellos its workers will receive: make endpoints, send and consume hellos, then vote.
    Peers {
        /// This switch.
        epoch: Epoch,
        /// Of what was published.
        table: Vec<Blob>,
        /// Hellos to consume.
        hellos: Vec<WorkerCount>,
        /// What was asked for and is no more: an endpoint to it is no reason for a veto.
        gone: Vec<ObjectId>,
    },
    /// Close the gate and publish the send counters.
    Commit {
        /// This switch.
        epoch: Epoch,
        /// Whether the rank changes over by itself once drained, or stays closed and waits.
        order: SwitchOrder,
    },
    /// Messages sent to each worker in the closing epoch, over all senders: drain them. From
    /// here on the switch cannot be aborted, unless it asks to weigh.
    Expect {
        /// This switch.
        epoch: Epoch,
        /// Totals of this rank's workers; missing ones expect 0.
        totals: Vec<WorkerCount>,
        /// Synchronous sends to this rank that were not matched when the gates closed.
        syncs: Vec<SyncSend>,
        /// Make-before-break: the gate stays closed until [`ToRank::Release`].
        barrier: bool,
        /// First wait until everything has arrived, fetch nothing, and say whether it fits.
        weigh: bool,
    },
    /// After [`FromRank::Weighed`] of all: drain. From here on the switch cannot be aborted.
    Proceed {
        /// This switch.
        epoch: Epoch,
    },
    /// Synchronous sends of this rank were matched.
    Matched {
        /// The sender's numbers.
        ids: Vec<u64>,
    },
    /// Every rank has drained: destroy the old transport.
    Release {
        /// This switch.
        epoch: Epoch,
    },
    /// Break-before-make only: change over to what was prepared and open the gate.
    Open {
        /// This switch.
        epoch: Epoch,
    },
    /// Forget the switch.
    Abort {
        /// This switch.
        epoch: Epoch,
    },
    /// Stand still for a part of the time, in the same beat as all others. Belongs to no switch.
    SlowDown {
        /// Which part; 0 ends it.
        percent: u8,
        /// For how long, unless it is said again.
        millis: u32,
    },
}

impl ToRank {
    /// The switch that it belongs to.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            ToRank::Welcome(_) | ToRank::Matched { .. } | ToRank::SlowDown { .. } => None,
            ToRank::Prepare { epoch, .. }
            | ToRank::Peers { epoch, .. }
            | ToRank::Commit { epoch, .. }
            | ToRank::Expect { epoch, .. }
            | ToRank::Proceed { epoch }
            | ToRank::Release { epoch }
            | ToRank::Open { epoch }
            | ToRank::Abort { epoch } => Some(*epoch),
        }
    }
}

/// From a rank to the coordinator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FromRank {
    /// The process wants to be a member.
    Join(Join),
    /// The process destroys its last context. Carries what its peers still have to receive.
    Leave {
        /// Messages sent in the current epoch, per receiving worker.
        sent: Vec<WorkerCount>,
    },
    /// The new side exists. Asks for the way to the workers that it will greet and the memory that
    /// it will open; whatever else it needs later it asks its agent for
    /// ([`Query::Reach`](crate::query::Query)).
    Published {
        /// This switch.
        epoch: Epoch,
        /// How this rank's objects will be reached.
        blobs: Vec<Blob>,
        /// Hellos this rank will send: to each worker, as many as it has endpoints to it in use.
        hellos: Vec<WorkerCount>,
        /// Memory of peers that it will open.
        opens: Vec<MemoryId>,
    },
    /// New endpoints are wired up: the rank votes yes.
    Ready {
        /// This switch.
        epoch: Epoch,
    },
    /// The rank cannot take part: the switch is abandoned on all.
    Veto {
        /// This switch.
        epoch: Epoch,
        /// For the operator: what failed, on which object.
        reason: String,
    },
    /// The gate is closed. Messages sent in the closing epoch, per receiving worker.
    Counters {
        /// This switch.
        epoch: Epoch,
        /// Per receiving worker.
        sent: Vec<WorkerCount>,
        /// Synchronous sends that have not been matched yet.
        syncs: Vec<SyncSend>,
        /// How memory will be reached that was registered since [`FromRank::Published`].
        late: Vec<Blob>,
        /// Whether the rank has issued atomics in the closing epoch. Those of two epochs must not
        /// meet: hardware may carry out the ones and a processor the others.
        atomics: bool,
        /// What the drain may have to keep, and what it can.
        load: Load,
    },
    /// Everything sent here has arrived, and what has to be kept fits into the spool.
    Weighed {
        /// This switch.
        epoch: Epoch,
    },
    /// Synchronous sends of others, whose messages this rank had drained, were matched. Belongs
    /// to no switch; relayed as [`ToRank::Matched`].
    Matched {
        /// Whose, and which: `worker` and `tag` as announced.
        syncs: Vec<SyncSend>,
    },
    /// Everything sent here has arrived and every own send is complete. In make-before-break the
    /// rank runs on the new transport.
    Drained {
        /// This switch.
        epoch: Epoch,
        /// How long the application was stopped, and why.
        stall: Stall,
    },
    /// The old transport is gone from this process.
    Released {
        /// This switch.
        epoch: Epoch,
        /// How long it took, in microseconds.
        release_us: u64,
        /// How long the application was stopped, if [`ToRank::Expect`] asked for a barrier: more
        /// than [`FromRank::Drained`] could know.
        stall: Option<Stall>,
    },
    /// Break-before-make: the gate is open again.
    Opened {
        /// This switch.
        epoch: Epoch,
        /// How long the application was stopped in all.
        stall: Stall,
    },
    /// No answer yet: where the rank stands, in its own words or in its agent's, for the operator.
    Stands {
        /// This switch.
        epoch: Epoch,
        /// What it waits for.
        at: String,
    },
    /// The switch is forgotten, the old transport is in use.
    Aborted {
        /// This switch.
        epoch: Epoch,
    },
}

/// Where the time went while one rank stood still, in microseconds. In make-before-break the gate
/// may close twice, for the sends and for the rest; what lies between counts where an application
/// thread was kept out of UCX.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stall {
    /// From closing the gate until no application thread was inside UCX.
    pub gate_us: u64,
    /// From publishing the counters until the totals arrived.
    pub counters_us: u64,
    /// Until everything expected had arrived and, where sends did not change over first, own sends
    /// were complete.
    pub drain_us: u64,
    /// Cancelling and re-posting receives, swapping.
    pub repost_us: u64,
    /// From closing to opening the gate, each time.
    pub total_us: u64,
    /// Messages that were drained into the library's own memory.
    pub drained_messages: u64,
    /// Their bytes.
    pub drained_bytes: u64,
    /// Bytes of the spool in use after the drain.
    #[serde(default)]
    pub spool_bytes: u64,
    /// The most that were ever in use.
    #[serde(default)]
    pub spool_peak: u64,
}

/// What one rank knows about the size of the coming drain, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// Of its own sends that are not complete: their receivers may have to fetch and keep them.
    pub sending: u64,
    /// Of messages that have arrived here and wait for a receive.
    pub waiting: u64,
    /// What its spool can still take.
    pub room: u64,
}

impl Load {
    /// What may be on its way in buffers of the transports: complete for its sender, not arrived
    /// yet.
    const TRANSIT: u64 = 64 << 20;

    /// Whether a rank's spool might be too small, given what all ranks together are sending.
    pub fn is_tight(&self, sending: u64) -> bool {
        let most = sending
            .saturating_add(self.waiting)
            .saturating_add(Self::TRANSIT);
        most > self.room
    }
}
