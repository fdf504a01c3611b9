//! The units of `packaging/`: what they forbid must not be what the programs need.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use symvirt_tests::units::{BED, Bed, asked, done, inside, main_pid, said, status_line};
use symvirt_tests::{apps, built};

/// Longest wait for something that is to come about.
const LIMIT: Duration = Duration::from_secs(60);

/// The configuration of host `a` or `b`; both are this machine.
fn configuration(host: &str) -> String {
    let (suffix, port, other, its_port) = match host {
        "a" => ("", 7420, "b", 7421),
        _ => ("-b", 7421, "a", 7420),
    };
    format!(
        "host = \"{host}\"\nstate_dir = \"/var/lib/symvirt{suffix}\"\n\
         socket = \"/run/symvirt{suffix}/symvirtd.sock\"\nbridge = \"br0\"\nmemory = \"1GiB\"\n\
         listen = \"127.0.0.1:{port}\"\n\
         [tls]\nca = \"pki/ca.pem\"\ncert = \"pki/{host}.pem\"\nkey = \"pki/{host}.key\"\n\
         [[peer]]\nname = \"{other}\"\naddress = \"127.0.0.1:{its_port}\"\n"
    )
}

/// Its disk is written to, and not in the state directory.
const VM: &str = r#"
name = "vm1"
gang = "job"
memory = "32MiB"
balloon = true

[[disk]]
path = "disks/vm1.raw"
format = "raw"

[[net]]
mac = "52:54:00:00:00:01"
"#;

/// What `symvirt` says of the VMs of a host: name, state, process id.
fn vms(socket: &[&str]) -> Vec<(String, String, u64)> {
    let text = said("symvirt", &[socket, &["--json", "vm", "list"]].concat());
    let list: Vec<Value> = serde_json::from_str(&text).expect("a list of VMs");
    let text = |vm: &Value, key: &str| vm[key].as_str().unwrap_or_default().to_owned();
    list.iter()
        .map(|vm| {
            let pid = vm["pid"].as_u64().unwrap_or_default();
            (text(vm, "name"), text(vm, "state"), pid)
        })
        .collect()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        sleep(Duration::from_millis(100));
    }
}

/// systemd says that a daemon runs when its program does; this is when it answers.
fn until_it_answers() {
    until("the daemon answers", || {
        asked("symvirt", &["vm", "list"]).is_ok()
    });
}

/// Whether the agent hears both ranks of the job.
fn hears_both() -> bool {
    let status = asked("symvirt-guest", &["status", "--json"]);
    let status = status.map(|text| serde_json::from_str::<Value>(&text).expect("a status"));
    status.is_ok_and(|status| {
        status["ranks"]
            .as_array()
            .is_some_and(|ranks| ranks.len() == 2)
    })
}

#[test]
fn a_daemon_under_its_unit_starts_and_moves_vms_and_may_be_killed() {
    if !inside() {
        let bed = Bed::new();
        let release = built::release();
        for program in [&release.daemon, &release.command] {
            bed.program(program);
        }
        // Here, so that they belong to who has to remove them.
        let made = Command::new(&release.command)
            .args("pki init --host a=127.0.0.1 --host b=127.0.0.1 --dir".split(' '))
            .arg(bed.path("pki"))
            .output();
        assert!(made.is_ok_and(|output| output.status.success()));
        bed.file("host.toml", &configuration("a"));
        bed.file("b.toml", &configuration("b"));
        bed.file("vm1.toml", VM);
        bed.file("disks/vm1.raw", &"\0".repeat(1 << 20));
        // As docs/hosts.md says.
        let disks = format!("ReadWritePaths={BED}/disks\n");
        let unit = "host/symvirtd.service";
        bed.unit(unit, "symvirtd", |text| text, &disks);
        let other = |text: String| {
            text.replace("host.toml", "b.toml")
                .replace("Directory=symvirt", "Directory=symvirt-b")
        };
        bed.unit(unit, "symvirtd-b", other, &disks);
        bed.run("a_daemon_under_its_unit_starts_and_moves_vms_and_may_be_killed");
        return;
    }
    done("ip", &["link", "add", "br0", "type", "bridge"]);
    done("ip", &["link", "set", "br0", "up"]);
    done("systemctl", &["start", "symvirtd", "symvirtd-b"]);
    until_it_answers();

    done("symvirt", &["vm", "start", &format!("{BED}/vm1.toml")]);
    let [(_, state, qemu)] = &vms(&[])[..] else {
        panic!("one VM was started: {:?}", vms(&[]));
    };
    assert_eq!(state, "running");
    let qemu = u32::try_from(*qemu).expect("a process id");
    for pid in [main_pid("symvirtd"), qemu] {
        // In force, also for what it starts: no new privileges, a filter, few capabilities.
        assert_eq!(status_line(pid, "NoNewPrivs"), "1");
        assert_eq!(status_line(pid, "Seccomp"), "2");
        let bounds = u64::from_str_radix(&status_line(pid, "CapBnd"), 16).expect("a set");
        assert_eq!(bounds & (1 << 21), 0, "CAP_SYS_ADMIN");
    }

    let first = main_pid("symvirtd");
    done("kill", &["-KILL", &first.to_string()]);
    until("it is started again", || {
        ![0, first].contains(&main_pid("symvirtd"))
    });
    until_it_answers();
    done("systemctl", &["restart", "symvirtd"]);
    until_it_answers();
    let as_before = ("vm1".to_owned(), "running".to_owned(), u64::from(qemu));
    assert_eq!(vms(&[]), [as_before]);

    done("symvirt", &["migrate", "job", "--to", "b"]);
    assert_eq!(vms(&[]), []);
    let there = vms(&["--socket", "/run/symvirt-b/symvirtd.sock"]);
    let [(name, state, _)] = &there[..] else {
        panic!("it has arrived: {there:?}");
    };
    assert_eq!((name.as_str(), state.as_str()), ("vm1", "running"));
}

#[test]
fn an_agent_under_its_unit_hears_ranks_of_other_users_and_may_be_killed() {
    if !inside() {
        let bed = Bed::new();
        let release = built::release();
        for program in [
            &release.guest,
            &release.library,
            &apps::program("openmpi/collectives"),
        ] {
            bed.program(program);
        }
        bed.unit(
            "guest/symvirt-agent.service",
            "symvirt-agent",
            |text| text,
            "",
        );
        bed.run("an_agent_under_its_unit_hears_ranks_of_other_users_and_may_be_killed");
        return;
    }
    done("systemctl", &["start", "symvirt-agent"]);
    until("its socket", || {
        fs::exists("/run/symvirt/agent.sock").is_ok_and(|there| there)
    });
    let agent = main_pid("symvirt-agent");
    assert_eq!(status_line(agent, "NoNewPrivs"), "1");
    // CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE, no more.
    assert_eq!(
        status_line(agent, "CapBnd"),
        format!("{:016x}", 1 << 2 | 1 << 19)
    );

    let guest = format!("{BED}/bin/symvirt-guest");
    let mut job = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "mpirun"])
        .args(["-n", "2", "--oversubscribe", &guest, "exec", "--"])
        .args([&format!("{BED}/bin/collectives"), "--seconds", "30"])
        .env("HOME", "/tmp")
        .spawn()
        .expect("start setpriv of util-linux");
    until("both ranks are heard", hears_both);
    done("kill", &["-KILL", &agent.to_string()]);
    until("both are heard by the next agent", || {
        ![0, agent].contains(&main_pid("symvirt-agent")) && hears_both()
    });
    assert!(job.wait().expect("wait for it").success());
}
