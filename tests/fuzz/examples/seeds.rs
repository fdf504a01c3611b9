//! Writes the seeds that encoders of ours make: `cargo run -p symvirt-fuzz --example seeds`. Those
//! of operators and of QEMU (`*.toml`, `qmp_line`, `monitor`) are text, and kept by hand.

use std::io;
use std::path::Path;

use serde_json::json;
use symvirt_host::operation::effects::{HostCall, HostError, HostReply};
use symvirt_host::operation::journal::{Journal, Record, path_of};
use symvirt_host::operation::state::Event;
use symvirt_host::operation::{Phase, Plan, Report, Request};
use symvirt_protocol::agent::{DeviceReport, FromAgent, Recipient, ToAgent, VerbsDevice};
use symvirt_protocol::frame::{HEADER, encode};
use symvirt_protocol::ids::{Epoch, ObjectId, ProcId};
use symvirt_protocol::link::{Link, Packet};
use symvirt_protocol::memory::Memory;
use symvirt_protocol::packed::{Place, pack_address, pack_key};
use symvirt_protocol::query::{Answer, Query, Reach};
use symvirt_protocol::rank::{
    Blob, FromRank, Join, Load, Stall, SwitchOrder, SyncSend, ToRank, WorkerCount,
};
use symvirt_protocol::trailer::Trailer;
use symvirt_protocol::transport::{Interconnect, Transports};

const EPOCH: Epoch = Epoch(1);
const RANK: ProcId = ProcId(1);
const WORKER: ObjectId = ObjectId {
    process: RANK,
    index: 0,
};

fn main() -> io::Result<()> {
    frames()?;
    link()?;
    gang()?;
    packed()?;
    journal()?;
    peer()
}

fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), bytes)
}

fn framed<T: serde::Serialize>(message: &T) -> Vec<u8> {
    encode(message).expect("short")
}

fn join() -> Join {
    Join {
        process: RANK,
        pid: 4711,
        program: "app".into(),
        mpi_rank: Some(0),
        ucx_version: "1.18.1".into(),
        epoch: Epoch(0),
        blobs: vec![],
    }
}

fn blobs() -> Vec<Blob> {
    vec![Blob {
        object: WORKER,
        bytes: b"address".to_vec(),
    }]
}

fn counts() -> Vec<WorkerCount> {
    vec![WorkerCount {
        worker: WORKER,
        count: 3,
    }]
}

fn syncs() -> Vec<SyncSend> {
    vec![SyncSend {
        sender: RANK,
        id: 5,
        worker: WORKER,
        tag: 6,
    }]
}

/// What a rank says in a switch, in order.
fn said() -> Vec<FromRank> {
    let (epoch, stall) = (EPOCH, Stall::default());
    vec![
        FromRank::Join(join()),
        FromRank::Published {
            epoch,
            blobs: blobs(),
            hellos: counts(),
            opens: vec![WORKER],
        },
        FromRank::Ready { epoch },
        FromRank::Counters {
            epoch,
            sent: counts(),
            syncs: syncs(),
            late: blobs(),
            atomics: true,
            load: Load::default(),
        },
        FromRank::Weighed { epoch },
        FromRank::Drained { epoch, stall },
        FromRank::Released {
            epoch,
            release_us: 7,
            stall: Some(stall),
        },
        FromRank::Opened { epoch, stall },
        FromRank::Matched { syncs: syncs() },
        FromRank::Veto {
            epoch,
            reason: "no".into(),
        },
        FromRank::Aborted { epoch },
        FromRank::Leave { sent: counts() },
    ]
}

fn told() -> Vec<ToRank> {
    let epoch = EPOCH;
    vec![
        ToRank::Prepare {
            epoch,
            transports: Transports {
                tls: Some("tcp,self".into()),
                net_devices: Some("eth0".into()),
            },
        },
        ToRank::Peers {
            epoch,
            table: blobs(),
            hellos: counts(),
            gone: vec![WORKER],
        },
        ToRank::Commit {
            epoch,
            order: SwitchOrder::MakeBeforeBreak,
        },
        ToRank::Expect {
            epoch,
            totals: counts(),
            syncs: syncs(),
            barrier: true,
            weigh: false,
        },
        ToRank::Release { epoch },
    ]
}

fn hello() -> FromAgent {
    FromAgent::Hello {
        guest: "guest1".into(),
        agent_version: "0.1.0".into(),
        ranks: vec![join()],
        memory: Box::new(Memory {
            current: Some((EPOCH, Interconnect::Native)),
            table: blobs(),
            ..Memory::default()
        }),
    }
}

fn devices() -> FromAgent {
    FromAgent::Devices(DeviceReport {
        verbs: vec![VerbsDevice {
            name: "rxe0".into(),
            ports: vec![],
            netdev: Some("eth1".into()),
            holders: vec![],
        }],
        netdevs: vec![],
    })
}

/// Before each stream, what is expected and how it is cut.
fn frames() -> io::Result<()> {
    let stream = |kind: u8, frames: Vec<Vec<u8>>| [vec![36 + kind], frames.concat()].concat();
    let from_rank = said().iter().map(framed).collect();
    write("frame", "from_rank", &stream(0, from_rank))?;
    let to_rank: Vec<_> = told().iter().map(framed).collect();
    write("frame", "to_rank", &stream(1, to_rank.clone()))?;
    let from_agent = vec![
        framed(&hello()),
        framed(&FromAgent::Ranks(vec![(RANK, said().swap_remove(1))])),
        framed(&devices()),
    ];
    write("frame", "from_agent", &stream(2, from_agent))?;
    let to_agent = told().into_iter().map(|message| (Recipient::All, message));
    let to_agent = framed(&ToAgent::Ranks(to_agent.collect()));
    write("frame", "to_agent", &stream(3, vec![to_agent]))?;
    let query = framed(&Query::Reach {
        object: WORKER,
        epoch: EPOCH,
    });
    write("frame", "query", &stream(4, vec![query]))?;
    let answers = vec![
        framed(&Answer::Reach(Reach::By(b"address".to_vec()))),
        framed(&Answer::Processes(vec![RANK])),
    ];
    write("frame", "answers", &stream(5, answers))?;
    let cut = to_rank[0].len() - 3;
    let lost = vec![to_rank[0][..cut].to_vec(), to_rank[1].clone()];
    write("frame", "bytes_lost", &stream(1, lost))
}

fn link() -> io::Result<()> {
    let mut agent: Link<FromAgent, ToAgent> = Link::new(2);
    let mut daemon: Link<ToAgent, FromAgent> = Link::new(1);
    agent.reconnected();
    daemon.reconnected();
    agent.send(&hello()).expect("room");
    let mut stream = vec![0];
    for _ in 0..3 {
        let said = agent.take_output();
        daemon.receive(&said);
        stream.extend(said);
        agent.receive(&daemon.take_output());
    }
    write("link", "hello", &stream)?;
    // From who lies: the last of all numbers.
    let last = [
        Packet::Resume {
            session: 2,
            peer: None,
            oldest: u64::MAX,
            probe: false,
        },
        Packet::Data {
            session: 2,
            of: 1,
            seq: u64::MAX,
            ack: 0,
            payload: vec![7],
        },
    ];
    let stream: Vec<u8> = last.iter().flat_map(framed).collect();
    write("link", "last_number", &[&[0], &stream[..]].concat())?;
    // Sends, deliveries, a loss, a tick, another stream.
    let acts = [
        128, 0, 4, 200, 5, 200, 0, 0, 1, 0, 8, 3, 4, 99, 14, 0, 12, 0, 10, 0,
    ];
    write("link", "losses", &acts)
}

fn gang() -> io::Result<()> {
    let payload = |frame: Vec<u8>| frame[HEADER..].to_vec();
    let mut acts = Vec::new();
    let mut act = |what: u8, said: Vec<u8>| {
        acts.extend([what, u8::try_from(said.len()).expect("short")]);
        acts.extend(said);
    };
    act(15, payload(framed(&hello())));
    // The daemon begins a switch when the rank has joined.
    for (number, message) in said().iter().enumerate() {
        let what = if number == 1 { 16 } else { 31 };
        act(what, payload(framed(message)));
    }
    write("gang", "switch", &acts)
}

fn packed() -> io::Result<()> {
    let place = Place {
        process: 4711,
        descriptor: 12,
        address: 0x7fff_1234_5000,
        length: 1 << 20,
    };
    write("address", "worker", &pack_address(WORKER, EPOCH, b"of UCX"))?;
    write("key", "memory", &pack_key(WORKER, EPOCH, &place, b"of UCX"))?;
    let trailer = Trailer {
        sender: WORKER,
        err_mode: 1,
        id: 40_000,
    };
    write("trailer", "header", &trailer.append(b"header"))?;
    write("trailer", "none", b"header")
}

fn plan() -> Plan {
    let plan = json!({
        "id": "a-00001",
        "request": { "operation": "migrate", "gang": "job", "to": "b" },
        "vms": [{ "vm": "vm1", "source": "a", "source_hca": "hca0", "destination_hca": "hca0" }],
        "ranks": true, "interconnect": "native", "planned_ms": 7,
    });
    serde_json::from_value(plan).expect("a plan")
}

fn journal() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut journal = Journal::create(folder.path(), &plan(), 7).expect("room");
    let mut append = |record| journal.append(record, 8).expect("room");
    for phase in [Phase::Prepare, Phase::LeaveHca, Phase::CheckHolders] {
        let event = Event::Completed;
        append(Record::Intent { phase });
        append(Record::Outcome { phase, event });
    }
    let split = Event::Split {
        stayed: vec![("vm1".parse().expect("a name"), "cut off".into())],
        unknown: vec![],
    };
    append(Record::Outcome {
        phase: Phase::SwitchOver,
        event: split,
    });
    append(Record::Ended {
        phase: Phase::Degraded,
        report: Box::new(Report::default()),
    });
    let whole = std::fs::read(path_of(folder.path(), &plan().id))?;
    write("journal", "ended", &whole)?;
    write("journal", "cut", &whole[..whole.len() - 40])?;
    let damaged = String::from_utf8_lossy(&whole).replacen("leave-hca", "leave hca", 1);
    write("journal", "damaged", damaged.as_bytes())?;
    let signed = [b"+0", &whole[..]].concat();
    write("journal", "signed", &signed)
}

fn peer() -> io::Result<()> {
    let spec = json!({
        "name": "vm1", "gang": "job", "memory": "512MiB", "kernel": "/img/vmlinuz",
        "disk": [{ "path": "/img/vm1.qcow2", "format": "qcow2" }],
        "net": [{ "mac": "52:54:00:00:00:01" }], "hca": { "mac": "52:54:00:00:01:01" },
    });
    let call = |call| serde_json::from_value::<HostCall>(call).expect("a call");
    let calls = [
        (
            "admit",
            json!({ "call": "admit", "operation": "a-00001", "vms": [spec] }),
        ),
        (
            "start_copy",
            json!({ "call": "start-copy", "vm": "vm1", "to": "b", "uri": "tcp:10.0.0.1:1",
                "bandwidth": 0, "streams": "zstd", "throttle": 20 }),
        ),
        (
            "plug",
            json!({ "call": "plug", "vm": "vm1", "hca": "hca0" }),
        ),
    ];
    for (name, json) in calls {
        let text = serde_json::to_vec(&call(json)).expect("plain data");
        write("peer", &format!("{name}.json"), &text)?;
    }
    let reply = HostReply::Stopped { at_us: Some(7) };
    let failed = HostError::Failed {
        host: "b".parse().expect("a name"),
        reason: "plug hca0".into(),
    };
    let replies: [(&str, Result<HostReply, HostError>); 2] =
        [("stopped", Ok(reply)), ("failed", Err(failed))];
    for (name, reply) in replies {
        let text = serde_json::to_vec(&reply).expect("plain data");
        write("peer", &format!("{name}.json"), &text)?;
    }
    let request: &Request = &plan().request;
    let text = serde_json::to_vec(request).expect("plain data");
    write("peer", "migrate.json", &text)?;
    let text = serde_json::to_vec(&plan()).expect("plain data");
    write("peer", "plan.json", &text)
}
