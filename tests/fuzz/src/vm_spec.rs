//! VM files of operators, and the specifications that peers send.

use std::path::{Path, PathBuf};

use serde_json::Value;
use symvirt_host::config::{ConfigError, VmSpec};
use symvirt_host::vm::command_line::{Start, arguments};
use symvirt_host::vm::instance::Files;

use crate::peer::said_again;

/// A file, or a specification as JSON.
pub fn check(bytes: &[u8]) {
    said_again::<VmSpec>(bytes);
    if let Ok(spec) = serde_json::from_slice::<VmSpec>(bytes) {
        stays_in_its_arguments(&spec);
    }
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let file = Path::new("/vms/vm.toml");
    match VmSpec::from_text(file, text) {
        Ok(spec) => {
            assert_eq!(spec.check(), Ok(()));
            assert!(spec.kernel.iter().all(|kernel| kernel.is_absolute()));
            assert!(spec.disks.iter().all(|disk| disk.path.is_absolute()));
            stays_in_its_arguments(&spec);
            keeps_its_addresses(&spec, text);
            let again = toml::to_string(&spec).expect("what was read from TOML");
            assert_eq!(VmSpec::from_text(file, &again).expect("the same"), spec);
        }
        Err(error) => names_a_line(&error, text),
    }
}

/// A hardware address is what the operator wrote, but for capitals.
fn keeps_its_addresses(spec: &VmSpec, text: &str) {
    let written: toml::Table = text.parse().expect("what was read from TOML");
    let nets = written.get("net").and_then(toml::Value::as_array);
    for (net, written) in spec.nets.iter().zip(nets.into_iter().flatten()) {
        let written = written["mac"].as_str().map(str::to_lowercase);
        assert_eq!(written, Some(net.mac.to_string()));
    }
}

/// A refusal says where to look, and that is in the file.
pub fn names_a_line(error: &ConfigError, text: &str) {
    if let ConfigError::Malformed { line, .. } = error {
        let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
        assert!((1..=lines).contains(line), "line {line} of {lines}");
    }
    assert!(!error.to_string().is_empty());
}

/// Nothing in a specification becomes an option of its own.
fn stays_in_its_arguments(spec: &VmSpec) {
    for name in [spec.name.as_str(), spec.gang.as_str()] {
        assert!(!name.is_empty() && !name.contains(['/', '\0', '\n', ',']));
    }
    let files = Files::in_directory(PathBuf::from("/run/vm"));
    let Ok(line) = arguments(spec, &files, &[], Start::Waiting) else {
        return;
    };
    let mut plain = spec.clone();
    plain.name = "vm".parse().expect("a name");
    plain.machine = "q35".into();
    plain.accel = "tcg".into();
    plain.cpu = "max".into();
    plain.kernel = spec.kernel.as_ref().map(|_| "/kernel".into());
    plain.append = String::from(if spec.append.is_empty() { "" } else { "quiet" });
    plain.initrd = spec.initrd.as_ref().map(|_| "/initrd".into());
    for disk in &mut plain.disks {
        disk.path = "/disk".into();
    }
    let expected = arguments(&plain, &files, &[], Start::Waiting).expect("as many devices");
    assert_eq!(line.len(), expected.len(), "{line:?}");
    let flags = |line: &[String]| -> Vec<usize> {
        let places = 0..line.len();
        places.filter(|at| expected[*at].starts_with('-')).collect()
    };
    for at in flags(&line) {
        assert_eq!(line[at], expected[at]);
    }
    let images = line.windows(2).filter(|pair| pair[0] == "-blockdev");
    for (image, disk) in images.zip(&spec.disks) {
        let image: Value = serde_json::from_str(&image[1]).expect("JSON");
        assert_eq!(image["file"]["filename"].as_str(), disk.path.to_str());
    }
}
