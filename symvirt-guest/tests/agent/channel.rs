//! `symvirt-guest agent` between simulated ranks and a simulated coordinator.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use symvirt_protocol::agent::{FromAgent, ToAgent};
use symvirt_protocol::frame::{self, Decoder};
use symvirt_protocol::gang::{Gang, GuestId, Outcome};
use symvirt_protocol::ids::{Epoch, ProcId};
use symvirt_protocol::query::{Answer, GREETING, Query, Reach};
use symvirt_protocol::rank::{FromRank, SwitchOrder, ToRank};
use symvirt_protocol::transport::{Interconnect, Transports};

use crate::daemon::Daemon;
use crate::rank::{PATIENCE, Rank, join, worker};

const MBB: SwitchOrder = SwitchOrder::MakeBeforeBreak;

struct Agent {
    child: Child,
    directory: tempfile::TempDir,
}

impl Agent {
    fn start() -> (Agent, Daemon) {
        let directory = tempfile::tempdir().expect("tempdir");
        let daemon = Daemon::listen(&directory.path().join("host.sock"));
        let agent = Agent {
            child: spawn(&directory),
            directory,
        };
        agent.wait_for_socket();
        (agent, daemon)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    fn wait_for_socket(&self) {
        let limit = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < limit, "agent does not listen");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn restart(&mut self) {
        self.child.kill().expect("kill agent");
        self.child.wait().expect("reap agent");
        self.child = spawn(&self.directory);
        self.wait_for_socket();
    }

    fn status(&self) -> serde_json::Value {
        let output = Command::new(env!("CARGO_BIN_EXE_symvirt-guest"))
            .args(["status", "--json", "--socket"])
            .arg(self.socket())
            .output()
            .expect("run status");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Until that many ranks are members, and no other process is known.
    fn wait_for_ranks(&self, members: usize) {
        let limit = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            let ranks = status["ranks"].as_array().cloned().unwrap_or_default();
            if ranks.len() == members && ranks.iter().all(|rank| rank["member"] == true) {
                return;
            }
            assert!(Instant::now() < limit, "{status}");
        }
    }

    /// A rank that joins and answers until its connection ends.
    fn rank(&self, process: u64) -> JoinHandle<()> {
        let socket = self.socket();
        thread::spawn(move || {
            let mut rank = Rank::connect(&socket, ProcId(process));
            rank.join();
            rank.serve(|_| false);
        })
    }
}

fn spawn(directory: &tempfile::TempDir) -> Child {
    Command::new(env!("CARGO_BIN_EXE_symvirt-guest"))
        .arg("agent")
        .arg("--socket")
        .arg(directory.path().join("agent.sock"))
        .arg("--host")
        .arg(directory.path().join("host.sock"))
        .env("SYMVIRT_LOG", "error")
        .spawn()
        .expect("run agent")
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().expect("kill agent");
        self.child.wait().expect("reap agent");
    }
}

fn explicit() -> Interconnect {
    let tls = Some("tcp,self".to_owned());
    Interconnect::Explicit(Transports {
        tls,
        net_devices: Some("lo".to_owned()),
    })
}

fn switch(daemon: &mut Daemon) {
    let epoch = daemon.gang.next_epoch();
    let effects = daemon.gang.switch(epoch, explicit(), MBB).expect("idle");
    daemon.apply(effects);
}

fn members(daemon: &Daemon) -> usize {
    daemon.gang.ranks().count()
}

#[test]
fn a_gang_switches_through_agent_and_link() {
    let (agent, mut daemon) = Agent::start();
    daemon.accept();
    daemon.run("session", |daemon| daemon.heard.len() == 1);
    let ranks: Vec<_> = (1..5).map(|process| agent.rank(process)).collect();
    daemon.run("join", |daemon| members(daemon) == 4);
    for number in 1..20 {
        switch(&mut daemon);
        let epoch = Epoch(number);
        daemon.run("release", |daemon| {
            matches!(daemon.outcomes.last(), Some(Outcome::Released { epoch: at, .. }) if *at == epoch)
        });
    }
    let status = agent.status();
    assert_eq!(status["epoch"], 19);
    assert_eq!(status["transports"]["net_devices"], "lo");
    assert_eq!(status["ranks"].as_array().map(Vec::len), Some(4));
    // One frame a guest and round, if ranks answer promptly: never more frames than messages.
    let frames = daemon
        .heard
        .iter()
        .filter(|heard| matches!(heard, FromAgent::Ranks(_)))
        .count();
    assert!(frames < 4 * (1 + 5 * 19), "{frames} frames");
    drop(agent);
    for rank in ranks {
        rank.join().expect("rank ends with its agent");
    }
}

/// Asks as a rank does that uses what it did not ask for when the switch was prepared.
fn reach(agent: &Agent, process: u64, epoch: u64) -> Reach {
    let object = worker(ProcId(process));
    let epoch = Epoch(epoch);
    let mut stream = UnixStream::connect(agent.socket()).expect("connect to agent");
    let query = frame::encode(&Query::Reach { object, epoch }).expect("short");
    stream.write_all(&GREETING).expect("agent reads");
    stream.write_all(&query).expect("agent reads");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    match decoder.next().expect("a frame") {
        Some(Answer::Reach(reach)) => reach,
        other => panic!("another answer: {other:?}"),
    }
}

#[test]
fn a_rank_that_asks_later_is_told_and_the_coordinator_is_asked_once() {
    let (mut agent, mut daemon) = Agent::start();
    daemon.accept();
    daemon.run("session", |daemon| daemon.heard.len() == 1);
    let first = agent.rank(1);
    daemon.run("join", |daemon| members(daemon) == 1);
    switch(&mut daemon);
    daemon.run("release", |daemon| {
        matches!(daemon.outcomes.last(), Some(Outcome::Released { .. }))
    });
    let asked = |daemon: &Daemon| {
        let asks = daemon.heard.iter();
        asks.filter(|heard| matches!(heard, FromAgent::Ask { .. }))
            .count()
    };
    assert_eq!(reach(&agent, 1, 1), Reach::Unheard);
    assert_eq!(reach(&agent, 1, 1), Reach::Unheard);
    daemon.run("question", |daemon| asked(daemon) == 1);
    let limit = Instant::now() + PATIENCE;
    let known = loop {
        match reach(&agent, 1, 1) {
            Reach::Unheard => assert!(Instant::now() < limit, "never told"),
            known => break known,
        }
    };
    assert_eq!(known, Reach::By(vec![7; 100]));
    // Of another epoch the rank will ask again when both are there.
    assert_eq!(reach(&agent, 1, 9), Reach::Unheard);
    agent.restart();
    first.join().expect("rank ends with its agent");
}

#[test]
fn a_lost_host_channel_costs_no_message() {
    let (agent, mut daemon) = Agent::start();
    daemon.accept();
    daemon.run("session", |daemon| daemon.heard.len() == 1);
    let _rank = agent.rank(1);
    daemon.run("join", |daemon| members(daemon) == 1);
    for _ in 0..10 {
        switch(&mut daemon);
        // Whatever is under way is lost, in both directions.
        daemon.disconnect();
        daemon.accept();
        let switches = daemon.gang.epoch();
        daemon.run("release", |daemon| daemon.gang.phase().is_none());
        assert!(
            matches!(daemon.outcomes.last(), Some(Outcome::Released { .. })),
            "{switches}"
        );
    }
    assert_eq!(daemon.sessions, 1, "no memory was lost");
}

#[test]
fn without_a_coordinator_ranks_start_at_once_and_are_announced_later() {
    let (agent, mut daemon) = Agent::start();
    let mut early = Rank::connect(&agent.socket(), ProcId(1));
    let welcome = early.join();
    assert_eq!(
        (welcome.epoch, welcome.transports),
        (Epoch(0), Transports::default())
    );
    let mut gone = Rank::connect(&agent.socket(), ProcId(2));
    gone.join();
    gone.say(&FromRank::Leave { sent: Vec::new() });
    drop(gone);
    agent.wait_for_ranks(1);
    daemon.accept();
    daemon.run("announcement", |daemon| !daemon.heard.is_empty());
    let [FromAgent::Hello { ranks, memory, .. }, ..] = &daemon.heard[..] else {
        panic!("{:?}", daemon.heard)
    };
    let names: Vec<ProcId> = ranks.iter().map(|join| join.process).collect();
    assert_eq!(names, [ProcId(1)]);
    assert_eq!(memory.left, [ProcId(2)]);
    assert_eq!(memory.departed.len(), 1, "what it sent: {memory:?}");
}

#[test]
fn a_rank_that_dies_is_reported_with_its_pid() {
    let (agent, mut daemon) = Agent::start();
    daemon.accept();
    daemon.run("session", |daemon| daemon.heard.len() == 1);
    let socket = agent.socket();
    let rank = thread::spawn(move || {
        Rank::connect(&socket, ProcId(9)).join();
    });
    let pid = std::process::id();
    daemon.run("gone", |daemon| {
        daemon.heard.contains(&FromAgent::Gone {
            process: ProcId(9),
            pid,
        })
    });
    rank.join().expect("welcomed");
}

#[test]
fn a_rank_that_talks_nonsense_is_disconnected_and_harms_nobody() {
    let (agent, mut daemon) = Agent::start();
    daemon.accept();
    daemon.run("session", |daemon| daemon.heard.len() == 1);
    let _good = agent.rank(1);
    daemon.run("join", |daemon| members(daemon) == 1);
    let nonsense: [&[u8]; 3] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 300],
        b"SYMV\x01\0\0\0\xff\xff\xff\xff\0\0\0\0",
    ];
    for bytes in nonsense {
        let mut bad = Rank::connect(&agent.socket(), ProcId(666));
        bad.write_raw(bytes);
        assert_eq!(bad.hear(), None, "{bytes:?}");
    }
    let mut liar = Rank::connect(&agent.socket(), ProcId(667));
    let mut claim = join(ProcId(667));
    claim.pid = 1;
    liar.say(&FromRank::Join(claim));
    assert_eq!(liar.hear(), None, "claims to be init");
    let mut early = Rank::connect(&agent.socket(), ProcId(668));
    early.say(&FromRank::Ready { epoch: Epoch(1) });
    assert_eq!(early.hear(), None, "speaks before it joined");
    switch(&mut daemon);
    daemon.run("release", |daemon| {
        matches!(daemon.outcomes.last(), Some(Outcome::Released { .. }))
    });
}

#[test]
fn a_restarted_agent_is_met_anew_and_its_ranks_join_again() {
    let (mut agent, mut daemon) = Agent::start();
    daemon.accept();
    daemon.run("session", |daemon| daemon.heard.len() == 1);
    let rank = agent.rank(1);
    daemon.run("join", |daemon| members(daemon) == 1);
    agent.wait_for_ranks(1);
    agent.restart();
    rank.join().expect("its connection ended");
    daemon.accept();
    daemon.run("hello", |daemon| {
        daemon
            .heard
            .iter()
            .filter(|heard| matches!(heard, FromAgent::Hello { .. }))
            .count()
            == 2
    });
    let again = agent.rank(1);
    daemon.run("join", |daemon| {
        matches!(daemon.heard.last(), Some(FromAgent::Ranks(said)) if matches!(said[..], [(_, FromRank::Join(_))]))
    });
    switch(&mut daemon);
    daemon.run("release", |daemon| {
        matches!(daemon.outcomes.last(), Some(Outcome::Released { .. }))
    });
    drop(agent);
    again.join().expect("ends with its agent");
}

#[test]
fn devices_are_reported_when_asked_for() {
    let (_agent, mut daemon) = Agent::start();
    daemon.accept();
    daemon.run("session", |daemon| daemon.heard.len() == 1);
    daemon.send(&ToAgent::ReportDevices);
    daemon.run("report", |daemon| {
        matches!(daemon.heard.last(), Some(FromAgent::Devices(_)))
    });
}

/// The coordinator is replaced when the rank has heard a message for which `last` holds and has not
/// answered; what the rank hears from the next one until `end` holds.
fn outlived(last: fn(&ToRank) -> bool, end: fn(&ToRank) -> bool) -> (Daemon, Vec<ToRank>) {
    let (agent, mut daemon) = Agent::start();
    daemon.accept();
    daemon.run("session", |daemon| daemon.heard.len() == 1);
    let (tell, told) = std::sync::mpsc::channel();
    let socket = agent.socket();
    let rank = thread::spawn(move || {
        let mut rank = Rank::connect(&socket, ProcId(1));
        rank.join();
        loop {
            let message = rank.hear().expect("the agent stays");
            if last(&message) {
                break;
            }
            let answer = rank.answer(&message).expect("a request");
            rank.say(&answer);
        }
        tell.send(()).expect("the test waits");
        let mut heard = Vec::new();
        rank.serve(|message| {
            heard.push(message.clone());
            end(message)
        });
        heard
    });
    daemon.run("join", |daemon| members(daemon) == 1);
    switch(&mut daemon);
    daemon.run("the last message", |_| told.try_recv().is_ok());
    daemon.disconnect();
    daemon.link = symvirt_protocol::link::Link::new(2);
    daemon.gang = Gang::resume(Epoch(0), Interconnect::Native);
    daemon.accept();
    daemon.run("hello", |daemon| {
        daemon.sessions == 2 && members(daemon) == 1
    });
    let effects = daemon.gang.recover(&[GuestId("g1".into())]);
    daemon.apply(effects.expect("all were heard"));
    daemon.run("end", |daemon| {
        daemon.outcomes.iter().any(Outcome::is_terminal)
    });
    let heard = rank.join().expect("rank");
    (daemon, heard)
}

#[test]
fn a_new_coordinator_frees_ranks_that_an_old_one_left_with_closed_gates() {
    let (daemon, heard) = outlived(
        |message| matches!(message, ToRank::Commit { .. }),
        |message| matches!(message, ToRank::Abort { .. }),
    );
    assert!(matches!(heard[..], [ToRank::Abort { .. }]), "{heard:?}");
    assert_eq!(daemon.gang.epoch(), Epoch(0));
}

#[test]
fn a_new_coordinator_goes_on_where_an_old_one_had_decided() {
    let (daemon, heard) = outlived(
        |message| matches!(message, ToRank::Expect { .. }),
        |message| matches!(message, ToRank::Release { .. }),
    );
    let [ToRank::Expect { totals, .. }, ToRank::Release { .. }] = &heard[..] else {
        panic!("{heard:?}")
    };
    // As the rank had counted them for the first.
    assert_eq!(totals.iter().map(|total| total.count).sum::<u64>(), 3);
    assert_eq!(daemon.gang.epoch(), Epoch(1));
}
