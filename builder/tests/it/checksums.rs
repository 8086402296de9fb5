//! `checksums = "URL"`: upstream's own list vouches, contradicts, is missing, or is not reached.

use bundle::Digest;

use builder::sha512::Sha512;

use crate::workshop::{Workshop, stderr, stdout};

const LIST: &str = "https://upstream.invalid/v{version}/SUMS";

/// A workshop whose server archive has no digest in the manifest but in `list`, which lies beside it.
fn workshop(list: impl Fn(&[u8]) -> String, address: &str) -> Workshop {
    let workshop = Workshop::new(2000);
    let archive = fs_err::read(workshop.path("release/server.tar.gz")).unwrap();
    workshop.write("release/SUMS", list(&archive).as_bytes());
    let digest = format!("sha256 = {{ amd64 = \"{}\" }}\nfiles", Digest::of(&archive).hex());
    workshop.edit("release/demo.toml", &digest, &format!("checksums = \"{address}\"\nfiles"));
    workshop
}

fn lock_text(workshop: &Workshop) -> String {
    fs_err::read_to_string(workshop.path("release/demo.lock")).unwrap()
}

#[test]
fn the_lock_says_that_upstreams_list_vouched_and_keeps_what_it_said() {
    let workshop = workshop(|archive| format!("{}  server.tar.gz\n", Digest::of(archive).hex()), LIST);
    workshop.lock().success();
    assert!(lock_text(&workshop).contains("proof = \"checksums:https://upstream.invalid/v1.0/SUMS\""));
    workshop.build("dist").assert().success();
    // A list that changes later is not asked again: the lock has been reviewed.
    workshop.write("release/SUMS", b"<html>");
    assert!(stdout(&workshop.lock().success()).contains("is current"));
    // Nothing but the listed file is taken.
    fs_err::remove_file(workshop.path("release/demo.lock")).unwrap();
    workshop.write("release/SUMS", format!("{}  server.tar.gz\n", Digest::of(b"another").hex()).as_bytes());
    let error = stderr(&workshop.lock().code(1));
    assert!(error.contains("sent wrong content: expected sha256:"), "{error}");
}

#[test]
fn a_sha512_is_recorded_and_checked_when_the_file_is_downloaded() {
    let workshop = workshop(|archive| format!("{}  server.tar.gz\n", Sha512::of(archive)), LIST);
    workshop.lock().success();
    let archive = fs_err::read(workshop.path("release/server.tar.gz")).unwrap();
    let text = lock_text(&workshop);
    assert!(text.contains(&format!("sha512 = \"{}\"", Sha512::of(&archive))), "{text}");
    assert!(text.contains(&format!("sha256 = \"{}\"", Digest::of(&archive))), "{text}");
    workshop.build("dist").assert().success();
    // The lock says another SHA-512: that file is refused although its SHA-256 is right, in the cache and from outside.
    let text = text.replace(&Sha512::of(&archive).to_string(), &Sha512::of(b"another").to_string());
    workshop.write("release/demo.lock", text.as_bytes());
    let error = stderr(&workshop.builder("fetch").arg("release/demo.toml").assert().code(1));
    assert!(error.contains("in the cache, expected sha512:"), "{error}");
    fs_err::remove_dir_all(workshop.path("cache")).unwrap();
    let error = stderr(&workshop.builder("fetch").arg("release/demo.toml").assert().code(1));
    assert!(error.contains("sent wrong content: expected sha512:"), "{error}");
}

#[test]
fn a_manifest_that_the_list_contradicts_is_an_error_that_shows_both() {
    let workshop = workshop(|_| format!("{}  server.tar.gz\n", Digest::of(b"theirs").hex()), LIST);
    let ours = Digest::of(b"ours").hex();
    workshop.edit("release/demo.toml", "checksums =", &format!("sha256 = {{ amd64 = \"{ours}\" }}\nchecksums ="));
    let error = stderr(&workshop.lock().code(1));
    assert!(error.contains(&ours) && error.contains(&Digest::of(b"theirs").hex()), "{error}");
    assert!(error.contains("resolving component `alpha`") && error.contains("hint:"), "{error}");
}

#[test]
fn a_list_vouches_for_what_was_compared_with_it_only() {
    let workshop = workshop(|_| format!("{}  server.tar.gz\n", Sha512::of(b"another")), LIST);
    let archive = fs_err::read(workshop.path("release/server.tar.gz")).unwrap();
    let pin = format!("sha256 = {{ amd64 = \"{}\" }}", Digest::of(&archive).hex());
    let list = format!("checksums = \"{LIST}\"");
    // Locked by the manifest's own digest first; the list, which knows SHA-512 only, comes later and says something else.
    workshop.edit("release/demo.toml", &list, &pin);
    workshop.lock().success();
    workshop.edit("release/demo.toml", &pin, &format!("{pin}\n{list}"));
    let error = stderr(&workshop.lock().code(1));
    assert!(error.contains("in the cache, expected sha512:"), "{error}");
}

#[test]
fn a_list_that_is_missing_or_long_is_an_error_and_one_that_is_not_reached_leaves_the_entry_open() {
    let address = "https://upstream.invalid/v{version}/NOSUMS";
    let error = stderr(&workshop(|_| String::new(), address).lock().code(1));
    assert!(error.contains("NOSUMS` answered 404"), "{error}");
    let error = stderr(&workshop(|_| "0".repeat((1 << 20) + 1), LIST).lock().code(1));
    assert!(error.contains("more than 1048576 bytes"), "{error}");
    let error = stderr(&workshop(|_| "<html>no</html>".into(), LIST).lock().code(1));
    assert!(error.contains("line 1 is not a checksum") && error.contains("hint: look at what"), "{error}");
    // Port 1 of loopback refuses.
    let workshop = workshop(|_| String::new(), "https://127.0.0.1:1/SUMS");
    workshop.lock().success();
    let text = lock_text(&workshop);
    assert!(text.contains("unresolved = \"upstream's list of checksums was not reached"), "{text}");
}

#[test]
fn a_sha512_of_the_manifest_vouches_alone() {
    let workshop = workshop(|_| String::new(), LIST);
    let archive = fs_err::read(workshop.path("release/server.tar.gz")).unwrap();
    let right = format!("sha512 = {{ amd64 = \"{}\" }}", Sha512::of(&archive));
    workshop.edit("release/demo.toml", &format!("checksums = \"{LIST}\""), &right);
    workshop.lock().success();
    let text = lock_text(&workshop);
    assert!(text.contains(&Digest::of(&archive).to_string()) && text.contains(&Sha512::of(&archive).to_string()));
    assert!(!text.contains("checksums:") && text.contains("proof = \"manifest\""), "{text}");
    // Another value is another artifact: neither the old lock nor the cache answers for it.
    let wrong = format!("sha512 = {{ amd64 = \"{}\" }}", Sha512::of(b"another"));
    workshop.edit("release/demo.toml", &right, &wrong);
    let error = stderr(&workshop.lock().code(1));
    assert!(error.contains("sent wrong content: expected sha512:"), "{error}");
}
