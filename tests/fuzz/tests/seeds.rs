//! What fuzzing begins with holds, in every ordinary run of the tests.

use std::path::Path;

use symvirt_fuzz::TARGETS;

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn every_seed_of_every_decoder_holds() {
    for (name, check) in TARGETS {
        let seeds = folder("seeds").join(name);
        let mut count = 0;
        for seed in std::fs::read_dir(&seeds).expect("seeds of every target") {
            let seed = seed.expect("an entry").path();
            println!("{}", seed.display());
            let bytes = std::fs::read(&seed).expect("a file");
            check(&bytes);
            // Nor does a part of it break anything.
            check(&bytes[..bytes.len() / 2]);
            count += 1;
        }
        assert!(count > 0, "no seeds in {}", seeds.display());
    }
}

#[test]
fn every_function_is_a_target_and_has_seeds() {
    let expected: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(&folder("targets")), expected);
    assert_eq!(names(&folder("seeds")), expected);
}
