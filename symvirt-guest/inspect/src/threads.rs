//! Where the threads of a process stand, as the kernel shows it.

use std::fs;
use std::path::Path;

/// Longest answer, in bytes: it travels in a frame.
const MOST: usize = 1500;

/// One line: for each thread its name, its state (proc(5): R runs, S sleeps, D waits for a device,
/// T is stopped), and where it waits in the kernel. `None` if the process is gone.
pub fn describe(proc: &Path, pid: u32) -> Option<String> {
    let tasks = proc.join(pid.to_string()).join("task");
    let mut ids: Vec<u32> = fs::read_dir(tasks.clone())
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    ids.sort_unstable();
    let threads = ids
        .iter()
        .filter_map(|id| thread(&tasks.join(id.to_string()), *id));
    let mut text = threads.collect::<Vec<_>>().join("; ");
    if text.len() > MOST {
        let cut = (0..=MOST).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(cut.unwrap_or(0));
        text.push('…');
    }
    Some(text)
}

fn thread(task: &Path, id: u32) -> Option<String> {
    let read = |name: &str| {
        let text = fs::read_to_string(task.join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    let stat = read("stat")?;
    let state = stat[stat.rfind(')')? + 1..].split_whitespace().next()?;
    let name = read("comm").unwrap_or_default();
    let mut text = format!("thread {id} {name} {state}");
    // "0" where it runs, or where the reader may not know.
    if let Some(place) = read("wchan").filter(|place| place != "0" && !place.is_empty()) {
        text.push_str(&format!(" in {place}"));
    }
    // Number and arguments; "running" where there is none.
    if let Some(number) = read("syscall").and_then(|call| {
        let first = call.split_whitespace().next()?.parse::<u32>().ok();
        first.map(|number| number.to_string())
    }) {
        text.push_str(&format!(" (system call {number})"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_is_told_with_what_it_waits_for() {
        let proc = tempfile::tempdir().expect("tempdir");
        let files = [
            ("7/stat", "7 (a (b) c) T 1 7 7"),
            ("7/comm", "a (b) c\n"),
            ("7/wchan", "do_signal_stop"),
            ("7/syscall", "202 0x7f 0x80 0x0\n"),
            ("9/stat", "9 (symvirt-switch) R 1 7 7"),
            ("9/comm", "symvirt-switch\n"),
            ("9/wchan", "0"),
            ("9/syscall", "running\n"),
        ];
        for (file, text) in files {
            let file = proc.path().join("7/task").join(file);
            fs::create_dir_all(file.parent().expect("a task")).expect("mkdir");
            fs::write(file, text).expect("write");
        }
        let said = describe(proc.path(), 7).expect("is there");
        assert_eq!(
            said,
            "thread 7 a (b) c T in do_signal_stop (system call 202); thread 9 symvirt-switch R"
        );
        assert_eq!(describe(proc.path(), 8), None);
    }
}
