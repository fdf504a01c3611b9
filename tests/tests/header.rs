//! `symvirt.h` and `symvirt.f90` compile as C, C++ and Fortran without a warning, mean the same
//! structs, and find the library, or find that it is absent, when the program runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use symvirt_tests::{apps, built};

const PROBE: &str = r#"
#include "symvirt.h"
#include <stdio.h>
int main(void)
{
    unsigned major = 9, minor = 9, patch = 9;
    struct symvirt_state state;
    state.size = sizeof(state);
    printf("version %d", symvirt_version(&major, &minor, &patch));
    printf(" %u.%u.%u\n", major, minor, patch);
    printf("state %d", symvirt_get_state(&state));
    printf(" hold %d", symvirt_hold("probe"));
    printf(" allow %d", symvirt_allow());
    printf(" %d", symvirt_allow());
    printf(" add %d", symvirt_add(NULL));
    printf(" remove %d\n", symvirt_remove("nobody", NULL));
    printf("sizes %zu %zu %zu\n", sizeof(struct symvirt_state), sizeof(struct symvirt_switch),
           sizeof(struct symvirt_participant));
    return 0;
}
"#;

const FORTRAN: &str = r#"
program probe
    use, intrinsic :: iso_c_binding
    use symvirt
    implicit none
    integer(c_int) :: major, minor, patch, status
    type(symvirt_state) :: state
    type(symvirt_switch) :: change
    type(symvirt_participant) :: participant
    status = symvirt_version(major, minor, patch)
    print '("version ", i0, " ", i0, ".", i0, ".", i0)', status, major, minor, patch
    participant%prepare = c_funloc(refuse)
    print '("state ", i0, " hold ", i0, " allow ", i0, " ", i0, " add ", i0, " remove ", i0)', &
        symvirt_get_state(state), symvirt_hold("probe"), symvirt_allow(), symvirt_allow(), &
        symvirt_add("nobody", participant), symvirt_remove("nobody", c_null_ptr)
    print '("sizes ", i0, " ", i0, " ", i0)', c_sizeof(state), c_sizeof(change), c_sizeof(participant)
contains
    function refuse(context, change) bind(c) result(reason)
        type(c_ptr), value :: context
        type(symvirt_switch), intent(in) :: change
        type(c_ptr) :: reason
        reason = merge(c_null_ptr, context, change%epoch == 0)
    end function
end program
"#;

fn folder() -> PathBuf {
    let folder = built::target_dir().join("header");
    std::fs::create_dir_all(&folder).expect("make a folder");
    folder
}

fn write(name: &str, text: &str) -> PathBuf {
    let file = folder().join(name);
    std::fs::write(&file, text).expect("write the probe");
    file
}

fn compile(compiler: &str, options: &[&str], sources: &[&Path], name: &str) -> PathBuf {
    let program = folder().join(name);
    let output = Command::new(compiler)
        .current_dir(folder())
        .args(options)
        .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(apps::include())
        .arg("-o")
        .arg(&program)
        .args(sources)
        .output()
        .unwrap_or_else(|error| panic!("start {compiler}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} {name}:\n{stderr}");
    program
}

fn said(command: &mut Command) -> Vec<String> {
    let output = command.output().expect("run the probe");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(str::to_owned).collect()
}

/// As the probe says it: alone, and with the library; `add` is what it makes of its argument.
fn find_what_is_there(program: &Path, version: &str, add: i32, remove: i32) {
    use symvirt_ffi::symvirt::{Participant, State, Switch};
    let alone = said(&mut Command::new(program));
    let absent = "state -1 hold -1 allow -1 -1 add -1 remove -1";
    assert_eq!(
        alone[..2],
        [format!("version -1 {version}"), absent.to_owned()]
    );
    let library = &built::release().library;
    let with = said(Command::new(program).env("LD_PRELOAD", library));
    let present = format!("state 0 hold 0 allow 0 -3 add {add} remove {remove}");
    let ours = format!("version 0 {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(with[..2], [ours, present]);
    let sizes = [
        size_of::<State>(),
        size_of::<Switch>(),
        size_of::<Participant>(),
    ];
    let sizes = format!("sizes {} {} {}", sizes[0], sizes[1], sizes[2]);
    assert_eq!([&alone[2], &with[2]], [&sizes, &sizes]);
}

#[test]
fn c_programs_find_the_library_if_it_is_there() {
    let source = write("probe.c", PROBE);
    for (standard, name) in [("-std=c99", "c99"), ("-std=c17", "c17")] {
        let program = compile("cc", &[standard], &[&source], name);
        find_what_is_there(&program, "9.9.9", -2, -3);
    }
}

#[test]
fn cpp_programs_find_the_library_if_it_is_there() {
    let source = write("probe.cc", PROBE);
    for (standard, name) in [("-std=c++11", "cpp11"), ("-std=c++20", "cpp20")] {
        let program = compile("c++", &[standard], &[&source], name);
        find_what_is_there(&program, "9.9.9", -2, -3);
    }
}

#[test]
fn fortran_programs_find_the_library_if_it_is_there() {
    let source = write("probe.f90", FORTRAN);
    let module = apps::include().join("symvirt.f90");
    let program = compile("gfortran", &["-std=f2018"], &[&module, &source], "fortran");
    find_what_is_there(&program, "0.0.0", 0, 0);
}

#[test]
fn a_program_may_link_the_library_itself() {
    let source = write("linked.c", &format!("#define SYMVIRT_LINKED\n{PROBE}"));
    let library = built::release().library.as_path();
    let program = compile("cc", &["-std=c99"], &[&source, library], "linked");
    let with = said(&mut Command::new(program));
    assert_eq!(with[1], "state 0 hold 0 allow 0 -3 add -2 remove -3");
}
