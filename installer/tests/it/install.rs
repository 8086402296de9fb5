//! A whole run on a directory: what it leaves, that a second one changes nothing, what is refused, what a death leaves.

use std::path::{Path, PathBuf};

use bundle::fake::{Fake, Key};
use installer::commands;
use installer::host::Host;
use installer::journal::Journal;
use installer::output::Output;
use installer::report::{Exit, exit_of, render};

use crate::host::{Bed, Tree};

#[test]
fn a_run_leaves_store_generation_and_record_and_the_next_changes_nothing() {
    let bed = Bed::new();
    assert_eq!(bed.install().unwrap(), Exit::Done);
    let read = |path: &str| bed.host.read_text(Path::new(path)).unwrap();
    assert!(read("/opt/sealift/current/etcd/bin/etcd").unwrap().contains("echo etcd fake"));
    assert_eq!(
        read("/opt/sealift/current/units/etcd.service").unwrap(),
        read("/etc/systemd/system/etcd.service").unwrap()
    );
    assert_eq!(read("/opt/sealift/bin/installer").unwrap(), "the installer");
    assert!(read("/var/lib/sealift/accepted.json").unwrap().contains("\"sequence\": 2"));
    assert!(read("/var/lib/sealift/log").unwrap().contains("signed by"));
    let mode = |path: &str| bed.host.entry(Path::new(path)).unwrap().unwrap().mode;
    assert_eq!(mode("/opt/sealift/current/etcd/bin/etcd"), 0o555, "the store is read-only");
    assert_eq!(mode("/etc/sealift/secrets/key"), 0o600);
    assert_eq!(mode("/var/lib/sealift/journal"), 0o600, "before-images may be secrets");
    assert!(Journal::read(&bed.host).unwrap().pending().is_none());
    let blobs = bed.host.list(Path::new("/opt/sealift/store/blobs")).unwrap();
    // `pause`: index, manifest, config, layer; `linux`: manifest, config, two packages; `busybox` is for workers.
    assert_eq!(blobs.len(), 8, "{blobs:?}");
    assert!(bed.host.list(Path::new("/opt/sealift/store")).unwrap().iter().all(|name| !name.starts_with('.')));

    let before = bed.tree();
    bed.host.fake().clear();
    assert_eq!(bed.install().unwrap(), Exit::Done);
    assert_eq!(bed.tree(), before);
    let changing = bed.host.fake().operations().into_iter().filter(|operation| !operation.starts_with("run "));
    assert_eq!(changing.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn plan_touches_nothing() {
    let bed = Bed::new();
    let before = bed.tree();
    let none = |_: &installer::config::Roles| installer::plan::Steps { preflight: vec![], rest: vec![] };
    assert_eq!(commands::plan(&bed.host, &bed.arguments, &Output::silent(), &none).unwrap(), Exit::Done);
    assert_eq!(bed.tree(), before);
}

#[test]
fn plan_answers_for_whole_bundles_only() {
    let bed = Bed::new();
    let whole = Fake::new().bytes().unwrap();
    let last = bundle::fake::regions(&mut std::io::Cursor::new(&whole)).unwrap().pop().unwrap();
    let mut damaged = whole.clone();
    damaged[usize::try_from(last.content + last.size / 2).unwrap()] ^= 1;
    let cut = whole[..usize::try_from(last.content).unwrap()].to_vec();
    let none = |_: &installer::config::Roles| installer::plan::Steps { preflight: vec![], rest: vec![] };
    for bytes in [damaged, cut] {
        bed.insert(&bytes);
        let error = commands::plan(&bed.host, &bed.arguments, &Output::silent(), &none).unwrap_err();
        assert_eq!(exit_of(&error), Exit::Bundle, "{}", render(&error));
    }
}

#[test]
fn hostile_bundles_leave_the_host_as_it_was() {
    let bed = Bed::new();
    let before = bed.tree();
    for hostile in bundle::fake::hostile().unwrap() {
        bed.insert(&hostile.bytes);
        assert_eq!(bed.exit(), Exit::Bundle, "{}", hostile.name);
        assert_eq!(bed.tree(), before, "{}", hostile.name);
    }
}

#[test]
fn hostile_bundles_leave_an_installed_host_as_it_was() {
    let bed = Bed::new();
    bed.install().unwrap();
    let before = bed.tree();
    for hostile in bundle::fake::hostile().unwrap() {
        bed.insert(&hostile.bytes);
        assert_eq!(bed.exit(), Exit::Bundle, "{}", hostile.name);
        assert_eq!(bed.tree(), before, "{}", hostile.name);
    }
    for (name, bytes) in bundle::fake::refused_by_installers().unwrap() {
        bed.insert(&bytes);
        assert_eq!(bed.exit(), Exit::Bundle, "{name}");
        assert_eq!(bed.tree(), before, "{name}");
    }
}

#[test]
fn an_older_bundle_is_taken_with_a_reason_and_a_new_one_makes_a_new_generation() {
    let mut bed = Bed::new();
    bed.install().unwrap();
    bed.insert(&Fake::new().sequence(3).marker("newer").bytes().unwrap());
    bed.install().unwrap();
    let current = |host: &Host| host.link_target(Path::new("/opt/sealift/current")).unwrap().unwrap();
    assert_eq!(current(&bed.host), PathBuf::from("generations/2"));
    bed.insert(&Fake::new().sequence(1).marker("older").bytes().unwrap());
    assert_eq!(bed.exit(), Exit::Bundle);
    bed.arguments.allow_downgrade = Some("newer loses data".to_owned());
    bed.install().unwrap();
    assert_eq!(current(&bed.host), PathBuf::from("generations/3"));
    let accepted = bed.host.read_text(Path::new("/var/lib/sealift/accepted.json")).unwrap().unwrap();
    assert!(accepted.contains("newer loses data"), "{accepted}");
    // The same content under a higher sequence is another bundle, and a generation says which one it comes from.
    bed.arguments.allow_downgrade = None;
    bed.insert(&Fake::new().sequence(4).marker("older").bytes().unwrap());
    bed.install().unwrap();
    assert_eq!(current(&bed.host), PathBuf::from("generations/4"));
}

#[test]
fn what_another_run_accepted_before_the_lock_counts() {
    let bed = Bed::new();
    bed.install().unwrap();
    let path = Path::new("/var/lib/sealift/accepted.json");
    let accepted = bed.host.read_text(path).unwrap().unwrap();
    bed.insert(&Fake::new().sequence(3).marker("newer").bytes().unwrap());
    let steps = |_: &installer::config::Roles| installer::plan::Steps {
        preflight: vec![Box::new(crate::host::Meanwhile(accepted.replace("\"sequence\": 2", "\"sequence\": 9")))],
        rest: vec![],
    };
    let before = bed.host.list(Path::new("/opt/sealift/store")).unwrap();
    let error = commands::install(&bed.host, &bed.arguments, &Output::silent(), &steps).unwrap_err();
    assert_eq!(exit_of(&error), Exit::Bundle, "{}", render(&error));
    assert_eq!(bed.host.list(Path::new("/opt/sealift/store")).unwrap(), before, "nothing was unpacked");
}

#[test]
fn a_store_that_others_can_write_or_that_is_occupied_is_not_used() {
    let bed = Bed::new();
    bed.install().unwrap();
    bed.insert(&Fake::new().sequence(3).marker("newer").bytes().unwrap());
    let store = Path::new("/opt/sealift/store");
    for place in [store, &store.join("blobs"), Path::new("/opt/sealift")] {
        bed.host.set_mode(place, 0o775).unwrap();
        let before = bed.tree();
        let error = bed.install().unwrap_err();
        assert_eq!(exit_of(&error), Exit::Preflight, "{}", render(&error));
        assert!(render(&error).contains("can be written by others") && render(&error).contains("hint: "));
        assert_eq!(bed.tree(), before);
        bed.host.set_mode(place, 0o755).unwrap();
    }
    let staging = store.join(format!(".tmp-{}", std::process::id()));
    bed.host.create_dir(Path::new("/srv"), 0o755).unwrap();
    bed.host.symlink(&staging, Path::new("../../../srv")).unwrap();
    let error = bed.install().unwrap_err();
    assert_eq!(exit_of(&error), Exit::Preflight, "{}", render(&error));
    assert!(render(&error).contains("hint: "), "{}", render(&error));
    assert_eq!(bed.host.list(Path::new("/srv")).unwrap(), Vec::<String>::new());
    bed.host.remove(&staging).unwrap();
    // What a run that was killed left is removed, whatever is in it.
    bed.host.write(&staging.join("etcd/bin/etcd"), b"half", 0o644).unwrap();
    bed.install().unwrap();
    assert!(!bed.host.exists(&staging).unwrap());
}

#[test]
fn trust_comes_from_the_host() {
    let mut bed = Bed::new();
    bed.arguments.keys.clear();
    let before = bed.tree();
    let error = bed.install().unwrap_err();
    assert_eq!(exit_of(&error), Exit::Bundle);
    assert!(render(&error).contains("hint: "), "{}", render(&error));
    assert_eq!(bed.tree(), before);
    let key = Path::new("/etc/sealift/trusted-keys/publisher.pub");
    bed.host.write(key, Key::Publisher.public_text().as_bytes(), 0o644).unwrap();
    bed.install().unwrap();
}

#[test]
fn a_pending_run_goes_on_only_with_its_own_inputs() {
    let total = operations(&Bed::new());
    let mut bed = Bed::new();
    bed.host.fake().die_at(total - 4);
    bed.install().unwrap_err();
    bed.host.fake().revive();
    let pending = Journal::read(&bed.host).unwrap().pending().unwrap();
    assert_eq!(pending.interrupted.as_deref(), Some("etcd"));

    bed.insert(&Fake::new().sequence(3).marker("other").bytes().unwrap());
    let error = bed.install().unwrap_err();
    assert_eq!(exit_of(&error), Exit::Usage, "{}", render(&error));
    assert!(render(&error).contains("another bundle"), "{}", render(&error));
    bed.arguments.abandon = true;
    bed.install().unwrap();
    assert!(Journal::read(&bed.host).unwrap().pending().is_none());
}

/// Number of changing operations of a whole run.
fn operations(bed: &Bed) -> usize {
    bed.install().unwrap();
    bed.host.fake().operations().len()
}

/// Whatever operation the program dies at or the disk fails at: nothing under a final name is half-written, and the next
/// run completes to the same end.
#[test]
fn death_or_a_full_disk_at_every_operation() {
    let whole = Bed::new();
    let total = operations(&whole);
    let end = stable(&whole.tree());
    assert!(total > 80, "{total}");
    for dies in [true, false] {
        for n in 0..total {
            let bed = Bed::new();
            if dies {
                bed.host.fake().die_at(n);
            } else {
                bed.host.fake().fail_at(n);
            }
            let died = bed.install();
            for (path, found) in stable(&bed.tree()) {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                let temporary =
                    path.iter().any(|part| part.to_str().unwrap().starts_with(".tmp-")) || name.contains(".sealift-");
                if !temporary {
                    assert_eq!(Some(&found), end.get(&path), "operation {n} (dies: {dies}): {}", path.display());
                }
            }
            bed.host.fake().revive();
            let again = bed.install();
            assert!(again.is_ok(), "operation {n} (dies: {dies}): {died:?}, then {}", render(&again.unwrap_err()));
            assert_eq!(difference(&stable(&bed.tree()), &end), Vec::<String>::new(), "operation {n} (dies: {dies})");
        }
    }
}

/// A second bundle over an installed one: whatever operation the program dies at, `resume` either reaches the end of that
/// bundle or says that it has to be given again, and everything it finds is of the old bundle or of the new one.
#[test]
fn death_at_every_operation_of_an_upgrade_is_resumed_with_the_right_bundle() {
    let newer = Fake::new().sequence(3).marker("newer").bytes().unwrap();
    let installed = || {
        let bed = Bed::new();
        bed.install().unwrap();
        bed.insert(&newer);
        bed.host.fake().clear();
        bed
    };
    let whole = installed();
    let start = stable(&whole.tree());
    let total = operations(&whole);
    let end = stable(&whole.tree());
    let (mut resumed, mut given_again) = (0, 0);
    for n in 0..total {
        let bed = installed();
        bed.host.fake().die_at(n);
        let _ = bed.install();
        bed.host.fake().revive();
        for (path, found) in stable(&bed.tree()) {
            let temporary = path.iter().any(|part| part.to_str().unwrap().starts_with('.'));
            let known = [start.get(&path), end.get(&path)].contains(&Some(&found));
            assert!(temporary || known, "operation {n}: {}", path.display());
        }
        if Journal::read(&bed.host).unwrap().pending().is_some() {
            match bed.resume() {
                Ok(exit) => {
                    assert_eq!(exit, Exit::Done);
                    resumed += 1;
                    assert_eq!(difference(&stable(&bed.tree()), &end), Vec::<String>::new(), "operation {n}");
                }
                Err(error) => {
                    assert_eq!(exit_of(&error), Exit::Usage, "operation {n}: {}", render(&error));
                    assert!(render(&error).contains("give the bundle again"), "{}", render(&error));
                    given_again += 1;
                }
            }
        }
        bed.install().unwrap();
        assert_eq!(difference(&stable(&bed.tree()), &end), Vec::<String>::new(), "operation {n}");
    }
    assert!(resumed > 5 && given_again > 5, "{resumed} resumed, {given_again} given again, of {total}");
}

/// One line for each path that is not the same in both.
fn difference(found: &Tree, wanted: &Tree) -> Vec<String> {
    let paths: std::collections::BTreeSet<_> = found.keys().chain(wanted.keys()).collect();
    let differ = paths.into_iter().filter(|path| found.get(*path) != wanted.get(*path));
    differ.map(|path| format!("{}: {:?} for {:?}", path.display(), found.get(path), wanted.get(path))).collect()
}

/// Without what may differ from run to run: journal and log grow, the lock is empty.
fn stable(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    tree.retain(|path, _| !path.starts_with("var/lib/sealift/journal") && !path.starts_with("var/lib/sealift/log"));
    tree
}
