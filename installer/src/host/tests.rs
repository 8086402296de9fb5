//! The door: what is atomic, what is private, what an error says, how long something may take.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use super::*;

fn host() -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::under(dir.path());
    (dir, host)
}

#[test]
fn a_write_that_dies_leaves_the_old_file_and_the_next_one_tidies_up() {
    let (_dir, host) = host();
    let path = Path::new("/etc/sealift/secrets/key");
    host.write(path, b"old secret", 0o600).unwrap();
    host.fake().clear();
    host.write(path, b"new secret", 0o600).unwrap();
    let operations = host.fake().operations().len();
    for n in 0..operations {
        host.write(path, b"old secret", 0o600).unwrap();
        host.fake().die_at(n);
        host.write(path, b"new secret", 0o600).unwrap_err();
        host.fake().revive();
        assert!(host.has(path, b"old secret", 0o600).unwrap(), "operation {n}");
        for name in host.list(path.parent().unwrap()).unwrap() {
            let entry = host.entry(&path.with_file_name(&name)).unwrap().unwrap();
            assert_eq!(entry.mode & 0o077, 0, "{name} can be read by others after dying at operation {n}");
        }
        host.write(path, b"new secret", 0o600).unwrap();
        assert_eq!(host.list(path.parent().unwrap()).unwrap(), ["key"], "operation {n}");
    }
}

/// `security.*` takes root, also where the kernel has no SELinux.
#[test]
fn a_file_that_is_replaced_keeps_its_label_and_its_owner() {
    let (_dir, host) = host();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let path = Path::new("/etc/hosts");
    host.write(path, b"a\n", 0o640).unwrap();
    host.set_owner(path, 1000, 1001).unwrap();
    super::label::set(&host.real_path(path), b"system_u:object_r:net_conf_t:s0\0").unwrap();
    let label = || super::label::read(&host.real_path(path)).unwrap();
    host.fake().clear();
    host.edit(path, b"b\n").unwrap();
    assert!(!host.fake().operations().iter().any(|line| line.starts_with("chown")), "it has its owner before its name");
    let entry = host.entry(path).unwrap().unwrap();
    assert_eq!((entry.mode, entry.uid, entry.gid), (0o640, 1000, 1001));
    assert_eq!(label().as_deref(), Some(&b"system_u:object_r:net_conf_t:s0\0"[..]));
    host.write(path, b"c\n", 0o600).unwrap();
    assert_eq!(label().as_deref(), Some(&b"system_u:object_r:net_conf_t:s0\0"[..]));
    host.remove(path).unwrap();
    host.write(path, b"d\n", 0o600).unwrap();
    assert_eq!(label(), None);
}

#[test]
fn a_stream_that_fails_leaves_nothing() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("wrong hash"))
        }
    }
    let (_dir, host) = host();
    let error = host.write_from(Path::new("/opt/x"), &mut Broken, 0o755).unwrap_err();
    assert!(format!("{error:#}").contains("wrong hash"));
    assert_eq!(host.list(Path::new("/opt")).unwrap(), Vec::<String>::new());
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    // The usual umask 022 would take the write bits of the group away.
    let (_dir, host) = host();
    host.write(Path::new("/etc/a"), b"", 0o664).unwrap();
    host.create_dir(Path::new("/opt/b"), 0o775).unwrap();
    assert_eq!(host.entry(Path::new("/etc/a")).unwrap().unwrap().mode, 0o664);
    assert_eq!(host.entry(Path::new("/opt/b")).unwrap().unwrap().mode, 0o775);
}

#[test]
fn absence_is_not_an_error_but_a_wrong_kind_is() {
    let (_dir, host) = host();
    assert_eq!(host.read(Path::new("/nowhere/at/all")).unwrap(), None);
    assert_eq!(host.list(Path::new("/nowhere")).unwrap(), Vec::<String>::new());
    host.remove(Path::new("/nowhere")).unwrap();
    host.write(Path::new("/etc/file"), b"x", 0o644).unwrap();
    assert_eq!(host.read(Path::new("/etc/file/below")).unwrap(), None);
    assert!(host.create_dir(Path::new("/etc/file"), 0o755).is_err());
    assert!(host.read(Path::new("/etc")).is_err());
}

#[test]
fn removing_a_tree_does_not_follow_links() {
    let (_dir, host) = host();
    host.write(Path::new("/precious/data"), b"x", 0o644).unwrap();
    host.symlink(Path::new("/tree/link"), Path::new("../precious")).unwrap();
    host.remove_tree(Path::new("/tree")).unwrap();
    assert!(host.exists(Path::new("/precious/data")).unwrap());
}

#[test]
fn a_path_leads_where_its_links_lead() {
    let (_dir, host) = host();
    host.symlink(Path::new("/var"), Path::new("big/./var")).unwrap();
    host.create_dir(Path::new("/big/var/lib"), 0o755).unwrap();
    host.symlink(Path::new("/big/var/lib/etcd"), Path::new("../../fast/etcd")).unwrap();
    host.symlink(Path::new("/loop"), Path::new("loop")).unwrap();
    for (path, real) in [
        ("/var/lib/etcd/member", "/big/fast/etcd/member"),
        ("/var/lib/x", "/big/var/lib/x"),
        ("/a/b", "/a/b"),
        ("/", "/"),
    ] {
        assert_eq!(host.resolve(Path::new(path)).unwrap(), Path::new(real), "{path}");
    }
    assert!(host.resolve(Path::new("/loop")).is_err());
}

/// Reads only: the kernel's own file systems are mounted below `/` everywhere.
#[test]
fn a_tree_ends_where_another_file_system_is_mounted() {
    let (dir, host) = host();
    host.write(Path::new("/tree/a/b"), b"x", 0o644).unwrap();
    assert_eq!(super::tree::on_other_device(dir.path()).unwrap(), None);
    let other = super::tree::on_other_device(Path::new("/dev")).unwrap();
    assert!(other.is_some_and(|other| other.starts_with("/dev")), "/dev/pts at least");
}

#[test]
fn commands_have_a_clean_environment_and_errors_carry_stderr() {
    let host = Host::real();
    let environment = host.run(&Command::new("env").env("ONE", "1")).unwrap().text();
    let mut names: Vec<&str> = environment.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LC_ALL", "ONE", "PATH"]);
    let error = host.run(&Command::new("ls").arg("/nowhere-at-all")).unwrap_err().to_string();
    assert!(error.starts_with("`ls /nowhere-at-all` failed with exit code 2: ls: cannot access"), "{error}");
    assert_eq!(host.run(&Command::new("cat").input("given")).unwrap().text(), "given");
    assert_eq!(host.run(&Command::new("cat")).unwrap().text(), "", "stdin is closed");
    assert!(host.run(&Command::new("no-such-program")).is_err());
}

#[test]
fn a_command_that_does_not_end_is_killed_with_its_children() {
    let host = Host::real();
    let start = std::time::Instant::now();
    let command = Command::new("sh").args(["-c", "sleep 60 & wait"]).timeout(Duration::from_millis(200));
    let error = host.try_run(&command).unwrap_err().to_string();
    assert!(error.contains("did not end within"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_command_fed_with_bad_data_never_sees_its_end() {
    struct Bad(bool);
    impl Read for Bad {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::Error::other("wrong hash"));
            }
            buffer[..4].copy_from_slice(b"data");
            Ok(4)
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("done");
    // `tee` copies its input to the file, and only a proper end of the input lets `cp` run.
    let script = format!("cat >/dev/null && : > {}", done.display());
    let error = Host::real().feed(&Command::new("sh").args(["-c", &script]), &mut Bad(false)).unwrap_err();
    assert!(format!("{error:#}").contains("wrong hash"), "{error:#}");
    assert!(!done.exists());
}

#[test]
fn waiting_ends_with_the_last_reason() {
    let (_dir, host) = host();
    let mut asked = 0;
    let found = host.wait_for("etcd", Duration::from_secs(60), Duration::from_secs(1), || {
        asked += 1;
        Ok(if asked == 5 { Ok(asked) } else { Err("no leader".to_owned()) })
    });
    assert_eq!(found.unwrap(), 5);
    let (limit, every) = (Duration::from_secs(60), Duration::from_secs(1));
    let error = host.wait_for::<()>("etcd to be ready", limit, every, || Ok(Err("no leader".to_owned()))).unwrap_err();
    assert_eq!(error.to_string(), "etcd to be ready: not so after 60 s: no leader");
}

#[test]
fn directories_that_others_can_write_are_not_private() {
    let (_dir, host) = host();
    host.write(Path::new("/opt/sealift/store/x"), b"", 0o644).unwrap();
    let path = Path::new("/opt/sealift/store/x");
    host.require_private(path).unwrap();
    for part in ["/opt", "/opt/sealift/store", "/opt/sealift/store/x"] {
        let before = host.entry(Path::new(part)).unwrap().unwrap().mode;
        host.set_mode(Path::new(part), before | 0o020).unwrap();
        let error = host.require_private(path).unwrap_err().to_string();
        assert!(error.contains(&format!("`{part}` can be written by others")), "{error}");
        host.set_mode(Path::new(part), before).unwrap();
    }
}

#[test]
fn the_way_to_a_links_target_is_looked_at_too() {
    let (_dir, host) = host();
    let path = Path::new("/opt/sealift/store");
    for directory in ["/data/sealift/store", "/srv", "/opt"] {
        host.create_dir(Path::new(directory), 0o755).unwrap();
    }
    host.symlink(Path::new("/opt/sealift"), Path::new("../srv/./link")).unwrap();
    host.symlink(Path::new("/srv/link"), Path::new("/data/sealift")).unwrap();
    host.require_private(path).unwrap();
    for part in ["/opt", "/srv", "/data", "/data/sealift", "/data/sealift/store"] {
        for mode in [0o775, 0o757, 0o1777] {
            host.set_mode(Path::new(part), mode).unwrap();
            let error = host.require_private(path).unwrap_err().to_string();
            assert!(error.contains(&format!("`{part}` can be written by others")), "{error}");
        }
        host.set_mode(Path::new(part), 0o755).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        host.set_owner(Path::new("/srv/link"), 1000, 1000).unwrap();
        assert!(host.require_private(path).unwrap_err().to_string().contains("`/srv/link` belongs to user 1000"));
    }
    host.symlink(Path::new("/data/loop"), Path::new("loop")).unwrap();
    assert!(host.require_private(Path::new("/data/loop")).unwrap_err().to_string().contains("too many links"));
}

#[test]
fn a_disk_that_was_full_is_said_before_what_followed_from_it() {
    let said = |stderr: &str| Finished { code: 1, stdout: Vec::new(), stderr: stderr.as_bytes().to_vec() }.tail();
    let full = " cannot copy extracted data: failed to write (No space left on device)";
    assert_eq!(said(&format!("dpkg: error\n{full}\n1\n2\n3\n4\n5\n6\n")), format!("{full}\n1\n2\n3\n4\n5\n6"));
    assert_eq!(said(&format!("1\n{full}\n2\n")), format!("1\n{full}\n2"));
    assert_eq!(said("0\n1\n2\n3\n4\n5\n6\n"), "1\n2\n3\n4\n5\n6");
}
