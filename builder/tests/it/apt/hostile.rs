//! Indexes that lie about their size, their place or their suite.

use std::io::Write as _;

use bundle::Digest;

use super::{Archive, run};
use crate::workshop::stderr;

const DATE: &str = "Sat, 07 Nov 2026 10:00:00 UTC";

fn gzip(parts: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for part in parts {
        encoder.write_all(&part).unwrap();
    }
    encoder.finish().unwrap()
}

/// A Release for these files below `main/binary-amd64`, each with the size that is claimed.
fn release(more: &str, files: &[(&str, &[u8], usize)]) -> String {
    let line = |(name, bytes, size): &(&str, &[u8], usize)| {
        format!(" {} {size} main/binary-amd64/{name}\n", Digest::of(bytes).hex())
    };
    let lines: Vec<String> = files.iter().map(line).collect();
    format!("Origin: Test\nSuite: stable\nCodename: testing-x\nDate: {DATE}\n{more}SHA256:\n{}", lines.concat())
}

#[test]
fn an_index_that_unpacks_without_end_is_refused() {
    let archive = Archive::new();
    let name = "archive/dists/stable/main/binary-amd64/Packages.gz";
    let plain = archive.packages();
    // More entries than the Release lists.
    let bomb = gzip(std::iter::repeat_n(format!("{plain}\n").into_bytes(), 20_000));
    assert!(bomb.len() < 1 << 20);
    archive.workshop.write(name, &bomb);
    let files = [("Packages", plain.as_bytes(), plain.len()), ("Packages.gz", &bomb[..], bomb.len())];
    archive.sign(&release("", &files), "gpg");
    archive.assert_refused(&format!("it unpacks to more than {} bytes", plain.len()));
    // One entry without end, and a Release that does not say how large the whole is.
    let endless = gzip(std::iter::repeat_n(vec![b'x'; 1 << 20], 256));
    archive.workshop.write(name, &endless);
    archive.sign(&release("", &[("Packages.gz", &endless, endless.len())]), "gpg");
    archive.assert_refused("an entry is longer than 1048576 bytes");
    // The same bytes are fine when they are what the Release says.
    let honest = gzip([plain.clone().into_bytes()].into_iter());
    archive.workshop.write(name, &honest);
    let files = [("Packages", plain.as_bytes(), plain.len()), ("Packages.gz", &honest[..], honest.len())];
    archive.sign(&release("", &files), "gpg");
    archive.lock().success();
}

#[test]
fn an_index_of_another_size_is_refused() {
    let archive = Archive::new();
    let plain = archive.packages();
    for size in [plain.len() - 1, plain.len() + 1] {
        archive.sign(&release("", &[("Packages", plain.as_bytes(), size)]), "gpg");
        let text = stderr(&archive.lock().code(1));
        assert!(text.contains("bytes") && text.contains("stable main/binary-amd64/Packages"), "{text}");
    }
}

#[test]
fn an_index_is_found_by_its_hash_and_believed_for_it_alone() {
    let archive = Archive::new();
    let plain = archive.packages();
    let directory = "archive/dists/stable/main/binary-amd64";
    let by_hash = format!("{directory}/by-hash/SHA256/{}", Digest::of(plain.as_bytes()).hex());
    archive.sign(&release("Acquire-By-Hash: yes\n", &[("Packages", plain.as_bytes(), plain.len())]), "gpg");
    // A mirror in the middle of an update: the plain name is newer already, the hash still there.
    archive.workshop.write(&format!("{directory}/Packages"), b"newer");
    archive.workshop.write(&by_hash, plain.as_bytes());
    archive.lock().success();
    // Another content under that hash.
    fs_err::remove_dir_all(archive.workshop.path("cache")).unwrap();
    archive.workshop.write(&by_hash, plain.replace("tool", "eviI").as_bytes());
    archive.assert_refused("wrong content");
    // Then the plain name serves as well as it can.
    archive.workshop.write(&format!("{directory}/Packages"), plain.as_bytes());
    archive.lock().success();
}

#[test]
fn a_signature_beside_another_message_is_refused() {
    let archive = Archive::new();
    let good = archive.in_release();
    let (head, signature) = good.split_once("-----BEGIN PGP SIGNATURE-----").unwrap();
    let text = head.split_once("\n\n").unwrap().1;
    let other = text.replace("Suite: stable", "Suite: stable\nNote: evil");
    let begin = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n";
    for (forged, says) in [
        // Two messages, of which the second is signed.
        (format!("{begin}{other}{good}"), "not one signed message and nothing else"),
        // The signed text twice behind one head, or another text under the same signature.
        (format!("{begin}{text}{text}-----BEGIN PGP SIGNATURE-----{signature}"), "no good signature"),
        (format!("{begin}{other}-----BEGIN PGP SIGNATURE-----{signature}"), "no good signature"),
        // A second signature block.
        (format!("{good}-----BEGIN PGP SIGNATURE-----{signature}"), "not one signed message and nothing else"),
        // No signature at all.
        (format!("{begin}{text}"), "not one signed message and nothing else"),
        (String::new(), "not one signed message and nothing else"),
    ] {
        archive.write_in_release(&forged);
        archive.assert_refused(says);
    }
}

#[test]
fn an_expired_key_signs_nothing() {
    let archive = Archive::new();
    let home = archive.home("gpg-old");
    fs_err::create_dir(&home).unwrap();
    fs_err::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let home = home.to_str().unwrap().to_owned();
    let gpg = |arguments: &[&str]| {
        run(
            "gpg",
            &[
                &["--homedir", &home, "--batch", "--yes", "--quiet", "--faked-system-time", "20200101T000000"],
                arguments,
            ]
            .concat(),
        );
    };
    gpg(&["--passphrase", "", "--quick-gen-key", "Old <old@example.invalid>", "ed25519", "sign", "20200301T000000"]);
    gpg(&["--output", archive.home("gpg/keyring.gpg").to_str().unwrap(), "--export"]);
    let (text, signed) = (archive.workshop.path("Release"), archive.workshop.path("archive/dists/stable/InRelease"));
    gpg(&["--clearsign", "--output", signed.to_str().unwrap(), text.to_str().unwrap()]);
    archive.assert_refused("no good signature");
    run("gpgconf", &["--homedir", &home, "--kill", "all"]);
}
