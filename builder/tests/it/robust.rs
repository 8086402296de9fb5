//! Signals, full disks, caches that cannot be written or are damaged, and two builders at once: no wrong byte, a clear word.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use builder::sha512::Sha512;
use bundle::Digest;
use rustix::process::{Pid, Signal};

use crate::server::{Server, honest, respond};
use crate::workshop::{Workshop, names, stderr};

/// A locked workshop and the archive that its server has to serve.
fn workshop(size: usize) -> (Workshop, Vec<u8>) {
    let workshop = Workshop::new(size);
    workshop.lock().success();
    fs_err::remove_dir_all(workshop.path("cache")).unwrap();
    let archive = fs_err::read(workshop.path("release/server.tar.gz")).unwrap();
    (workshop, archive)
}

/// Serves the first half, and the rest only when it is told to hurry.
fn slow(content: Vec<u8>) -> (Server, Arc<AtomicBool>) {
    let hurry = Arc::new(AtomicBool::new(false));
    let told = hurry.clone();
    let server = Server::start_parallel(move |_, request, stream| {
        if request.offset().is_some() || told.load(Ordering::SeqCst) {
            return honest(request, stream, &content);
        }
        let (first, rest) = content.split_at(content.len() / 2);
        let length = format!("Content-Length: {}", content.len());
        respond(stream, "200 OK", &["ETag: \"one\"".into(), length], first);
        until("the word to hurry", || told.load(Ordering::SeqCst));
        // Whoever was killed is not there any more.
        let _ = stream.write_all(rest);
    });
    (server, hurry)
}

/// The program, reading the archive from `mirror`.
fn builder(workshop: &Workshop, mirror: &str, arguments: &[&str]) -> Command {
    let mut builder = Command::new(assert_cmd::cargo::cargo_bin("builder"));
    builder.env_clear().current_dir(workshop.path("")).args(arguments).args(["--cache", "cache", "--mirror"]);
    builder.arg(format!("https://upstream.invalid/v1.0/={mirror}/")).stdin(Stdio::null());
    builder.stdout(Stdio::piped()).stderr(Stdio::piped());
    builder
}

const FETCH: [&str; 2] = ["fetch", "release/demo.toml"];

fn build(out: &str) -> [&str; 6] {
    ["build", "release/demo.toml", "--installer", "installer.bin", "--out", out]
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn assert_every_file_is_what_its_name_says(workshop: &Workshop) {
    for name in names(&workshop.path("cache/sha256")) {
        assert_eq!(name, Digest::of(&fs_err::read(workshop.path("cache/sha256").join(&name)).unwrap()).hex());
    }
}

/// Sends the signal when part of the archive has arrived.
fn end_in_the_middle(workshop: &Workshop, archive: &[u8], child: Child, signal: Signal) -> Output {
    let part = workshop.path("cache/part").join(Digest::of(archive).hex());
    until("a first part", || fs_err::metadata(&part).is_ok_and(|metadata| metadata.len() > 100_000));
    rustix::process::kill_process(Pid::from_child(&child), signal).unwrap();
    let output = child.wait_with_output().unwrap();
    let length = fs_err::metadata(&part).unwrap().len();
    assert!(length < archive.len() as u64, "it was too late to end it");
    assert_every_file_is_what_its_name_says(workshop);
    assert!(!workshop.path("cache/sha256").join(Digest::of(archive).hex()).exists());
    output
}

#[test]
fn a_download_that_a_signal_ends_is_continued_by_the_next_run() {
    for (signal, arguments) in
        [(Signal::INT, &FETCH[..]), (Signal::TERM, &FETCH), (Signal::KILL, &FETCH), (Signal::INT, &build("dist"))]
    {
        let (workshop, archive) = workshop(1_500_000);
        let (server, hurry) = slow(archive.clone());
        let child = builder(&workshop, &server.url, arguments).spawn().unwrap();
        let output = end_in_the_middle(&workshop, &archive, child, signal);
        if signal == Signal::KILL {
            assert_eq!(output.status.signal(), Some(9));
        } else {
            assert_eq!(output.status.code(), Some(128 + signal.as_raw()));
            let word = if signal == Signal::INT { "error: interrupted" } else { "error: terminated" };
            assert!(said(&output).contains(word) && said(&output).contains("hint: run the same"), "{output:?}");
            assert_eq!(names(&workshop.path("cache/tmp")), Vec::<String>::new());
        }
        assert_eq!(names(&workshop.path("dist")), Vec::<String>::new());
        hurry.store(true, Ordering::SeqCst);
        let again = builder(&workshop, &server.url, arguments).output().unwrap();
        assert!(again.status.success(), "{}", said(&again));
        let requests = server.requests();
        assert_eq!(requests.len(), 2);
        assert!(requests[1].offset().is_some_and(|offset| offset > 100_000), "{requests:?}");
        assert_every_file_is_what_its_name_says(&workshop);
        assert_eq!(names(&workshop.path("cache/part")), Vec::<String>::new());
    }
}

#[test]
fn a_download_that_was_complete_when_it_was_killed_is_not_asked_for_again() {
    let (workshop, archive) = workshop(2000);
    let server = Server::start(|_, _, stream| respond(stream, "404 Not Found", &[], b""));
    builder(&workshop, &server.url, &FETCH).output().unwrap();
    assert_eq!(server.requests().len(), 1);
    let part = workshop.path("cache/part").join(Digest::of(&archive).hex());
    fs_err::write(&part, &archive).unwrap();
    assert!(builder(&workshop, &server.url, &FETCH).output().unwrap().status.success());
    assert_eq!(server.requests().len(), 1);
    // Unless it is not what it should be.
    fs_err::remove_file(workshop.path("cache/sha256").join(Digest::of(&archive).hex())).unwrap();
    fs_err::write(&part, vec![0; archive.len()]).unwrap();
    assert!(!builder(&workshop, &server.url, &FETCH).output().unwrap().status.success());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn two_builders_on_one_cache_both_succeed_and_download_once() {
    let (workshop, archive) = workshop(1_500_000);
    let (server, hurry) = slow(archive.clone());
    let children: Vec<Child> =
        ["one", "two"].iter().map(|out| builder(&workshop, &server.url, &build(out)).spawn().unwrap()).collect();
    let part = workshop.path("cache/part").join(Digest::of(&archive).hex());
    until("a first part", || fs_err::metadata(&part).is_ok_and(|metadata| metadata.len() > 100_000));
    hurry.store(true, Ordering::SeqCst);
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(server.requests().len(), 1, "one downloads, the other waits for it");
    assert!(fs_err::read(workshop.bundle("one")).unwrap() == fs_err::read(workshop.bundle("two")).unwrap());
    assert_every_file_is_what_its_name_says(&workshop);
    for directory in ["cache/part", "cache/tmp"] {
        assert_eq!(names(&workshop.path(directory)), Vec::<String>::new(), "{directory}");
    }
}

#[test]
fn one_builder_killed_while_another_waits_for_its_download_holds_nobody_up() {
    let (workshop, archive) = workshop(1_500_000);
    let (server, hurry) = slow(archive.clone());
    let first = builder(&workshop, &server.url, &FETCH).spawn().unwrap();
    let part = workshop.path("cache/part").join(Digest::of(&archive).hex());
    until("a first part", || fs_err::metadata(&part).is_ok_and(|metadata| metadata.len() > 0));
    let second = builder(&workshop, &server.url, &FETCH).spawn().unwrap();
    end_in_the_middle(&workshop, &archive, first, Signal::KILL);
    hurry.store(true, Ordering::SeqCst);
    let output = second.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_every_file_is_what_its_name_says(&workshop);
}

/// The most memory that a process has had, in MiB (proc(5), `VmHWM`).
fn peak(child: &Child) -> u64 {
    let status = fs_err::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn memory_does_not_depend_on_the_size_of_what_is_downloaded() {
    const SIZE: usize = 256 << 20;
    let (workshop, _) = workshop(2000);
    let (go, last) = std::sync::mpsc::channel::<()>();
    let server = Server::start(move |_, _, stream| {
        respond(stream, "200 OK", &[format!("Content-Length: {SIZE}")], &[]);
        let zeros = vec![0; 1 << 20];
        (1..SIZE >> 20).for_each(|_| stream.write_all(&zeros).unwrap());
        // The last MiB waits until the memory was looked at.
        last.recv().unwrap();
        stream.write_all(&zeros).unwrap();
    });
    let digest = Digest::of(&vec![0; SIZE]);
    workshop.edit("release/demo.toml", "file = \"shell\"", &format!("url = \"{}/shell\"", server.url));
    let text = fs_err::read_to_string(workshop.path("release/demo.toml")).unwrap();
    workshop.write(
        "release/demo.toml",
        text.replace(
            "trust = \"first-use\"",
            &format!(
                "sha256 = {{ amd64 = \"{}\" }}\nsha512 = {{ amd64 = \"{}\" }}",
                digest.hex(),
                Sha512::of(&vec![0; SIZE])
            ),
        )
        .as_bytes(),
    );
    let mirror = format!("file://{}", workshop.path("release").display());
    let child = builder(&workshop, &mirror, &["lock", "release/demo.toml"]).spawn().unwrap();
    let part = workshop.path("cache/part").join(digest.hex());
    until("most of the download", || fs_err::metadata(&part).is_ok_and(|file| file.len() >= (SIZE - (1 << 20)) as u64));
    let peak = peak(&child);
    go.send(()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(peak < 32, "{peak} MiB");
}

#[test]
fn a_flipped_bit_in_the_cache_is_noticed() {
    let (workshop, archive) = workshop(2000);
    let fetch = |more: &[&str]| workshop.builder("fetch").arg("release/demo.toml").args(more).assert();
    fetch(&[]).success();
    let path = workshop.path("cache/sha256").join(Digest::of(&archive).hex());
    let mut flipped = archive.clone();
    flipped[100] ^= 1;
    fs_err::write(&path, &flipped).unwrap();
    let refused = stderr(&fetch(&["--offline"]).code(1));
    assert!(refused.contains("is damaged in the cache") && refused.contains(path.to_str().unwrap()), "{refused}");
    assert_eq!(fs_err::read(&path).unwrap(), flipped, "what cannot be fetched again is not removed");
    let mut build = workshop.build("dist");
    assert!(stderr(&build.arg("--offline").assert().code(1)).contains("is damaged in the cache"));
    assert!(stderr(&fetch(&[]).success()).contains("is damaged in the cache"), "a warning");
    assert_eq!(fs_err::read(&path).unwrap(), archive);
}

/// Runs a shell script in a mount namespace of its own; `$builder` and `$mirror` are for it.
fn in_own_mounts(workshop: &Workshop, script: &str) -> String {
    let namespace = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
    let mirror = format!("https://upstream.invalid/v1.0/=file://{}/", workshop.path("release").display());
    let output = Command::new("unshare")
        .args([namespace, "sh", "-euc", script])
        .current_dir(workshop.path(""))
        .env("builder", assert_cmd::cargo::cargo_bin("builder"))
        .env("mirror", mirror)
        .env("out", "--installer installer.bin --out dist")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), said(&output));
    assert!(output.status.success(), "unshare and mount (package util-linux) are needed: {text}");
    text
}

#[test]
fn a_read_only_cache_serves_what_it_has_and_nothing_else() {
    let (workshop, archive) = workshop(2000);
    workshop.builder("fetch").arg("release/demo.toml").assert().success();
    let lock_down = "mount --bind cache cache && mount -o remount,bind,ro cache cache\n";
    let text = in_own_mounts(
        &workshop,
        &format!(
            "{lock_down}\"$builder\" fetch release/demo.toml --cache cache --offline --mirror \"$mirror\"\n\"$builder\" build release/demo.toml $out --cache cache --offline 2>&1\nls /tmp | grep '^sealift-' || true"
        ),
    );
    assert!(text.contains("3 packed anew") && !text.contains("\nsealift-"), "{text}");
    assert!(workshop.bundle("dist").exists());
    // The same bytes as with a cache that can be written.
    workshop.build("writable").assert().success();
    assert!(fs_err::read(workshop.bundle("dist")).unwrap() == fs_err::read(workshop.bundle("writable")).unwrap());
    // Layers are there now: nothing is packed.
    let text = in_own_mounts(&workshop, &format!("{lock_down}\"$builder\" build release/demo.toml $out --cache cache"));
    assert!(text.contains("0 packed anew"), "{text}");
    // Something is missing.
    fs_err::remove_file(workshop.path("cache/sha256").join(Digest::of(&archive).hex())).unwrap();
    let fetch = "\"$builder\" fetch release/demo.toml --cache cache --mirror \"$mirror\" && exit 9\n";
    let text = in_own_mounts(&workshop, &format!("{lock_down}{fetch}true"));
    assert!(text.contains("cannot be written") && text.contains("hint: make it writable"), "{text}");
    // Nothing is there at all.
    let empty = "mkdir empty; mount --bind empty empty; mount -o remount,bind,ro empty empty\n";
    let text = in_own_mounts(&workshop, &format!("{empty}{}true", fetch.replace("--cache cache", "--cache empty/new")));
    assert!(text.contains("the cache cannot be used") && text.contains("empty/new"), "{text}");
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_wrong() {
    let (workshop, archive) = workshop(3_000_000);
    let check = "for file in cache/sha256/*; do [ ! -e \"$file\" ] || echo \"$(basename \"$file\")  $file\" | sha256sum -c --quiet; done\n";
    // Downloads do not fit; then they do, and go on where they were.
    let disk = |free: usize| {
        let filler = (40 << 20) - free;
        format!(
            "mkdir -p cache; mount -t tmpfs -o mode=700,size=40m none cache; head -c {filler} /dev/zero > cache/filler\n"
        )
    };
    let small = disk(archive.len() / 2);
    let fetch = "\"$builder\" fetch release/demo.toml --cache cache --mirror \"$mirror\"";
    let larger = "rm cache/filler\n";
    let text = in_own_mounts(
        &workshop,
        &format!(
            "{small}{fetch} && exit 9\n{check}ls cache/sha256 | wc -l\n{larger}{fetch}\n{check}ls cache/part cache/tmp"
        ),
    );
    assert!(text.contains("No space left on device") && text.contains("cache/part/"), "{text}");
    assert!(text.contains("hint: the disk is full: free some space"), "{text}");
    assert!(text.contains("3 artifacts"), "{text}");
    // Downloads fit, layers do not.
    let tight = disk(archive.len() * 5 / 4);
    let build = "\"$builder\" build release/demo.toml $out --cache cache --mirror \"$mirror\"";
    let text = in_own_mounts(
        &workshop,
        &format!("{tight}{build} && exit 9\n{check}echo \"left: $(ls -A cache/tmp)\"\n{larger}{build}\n{check}"),
    );
    assert!(text.contains("No space left on device") && text.contains("hint: the disk is full"), "{text}");
    assert!(text.contains("left: \n"), "{text}");
    let expected = fs_err::read(workshop.bundle("dist")).unwrap();
    fs_err::remove_dir_all(workshop.path("dist")).unwrap();
    // All fits but the bundle.
    let text = in_own_mounts(
        &workshop,
        &format!(
            "mkdir -p dist kept; mount -t tmpfs -o size=40m none dist; head -c 39m /dev/zero > dist/filler\n{build} && exit 9\nls -A dist\nrm dist/filler\n{build}\ncp dist/*.bundle kept"
        ),
    );
    assert!(text.contains("No space left on device") && text.contains("hint: the disk is full"), "{text}");
    assert!(!text.contains("bundle.partial\n"), "{text}");
    assert!(fs_err::read(workshop.bundle("kept")).unwrap() == expected);
}
