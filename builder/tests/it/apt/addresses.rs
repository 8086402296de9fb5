//! Where archives are found: several addresses of one, archives without suites, archives that ask who we are.

use std::path::PathBuf;

use super::Archive;
use crate::server::{Server, honest, respond};
use crate::workshop::stderr;

/// Serves a directory, to those who send this `Authorization` if there is one.
fn serve(directory: PathBuf, authorization: Option<&'static str>) -> Server {
    Server::start(move |_, request, stream| {
        if authorization.is_some() && request.header("authorization") != authorization {
            return respond(stream, "401 Unauthorized", &["WWW-Authenticate: Basic realm=x".to_owned()], b"");
        }
        match fs_err::read(directory.join(request.target().trim_start_matches('/'))) {
            Ok(content) => honest(request, stream, &content),
            Err(_) => respond(stream, "404 Not Found", &[], b""),
        }
    })
}

impl Archive {
    fn write_sources(&self, name: &str, uris: &str, suite: &str) {
        let keyring = self.home("gpg/keyring.gpg");
        let components = if suite.ends_with('/') { "" } else { "Components: main\n" };
        let text = format!("Types: deb\nURIs: {uris}\nSuites: {suite}\n{components}Signed-By: {}\n", keyring.display());
        self.workshop.write(name, text.as_bytes());
    }

    fn uri(&self) -> String {
        format!("file:{}", self.workshop.path("archive").display())
    }

    fn lock_text(&self) -> String {
        fs_err::read_to_string(self.workshop.path("deb.lock")).unwrap()
    }
}

#[test]
fn addresses_of_one_archive_stand_in_for_each_other() {
    let archive = Archive::new();
    let live = serve(archive.workshop.path("archive"), None);
    // Nobody listens on port 1.
    archive.write_sources("test.sources", &format!("http://127.0.0.1:1/debian {}", live.url), "stable");
    let text = stderr(&archive.lock().success());
    assert!(text.contains("another address of `stable` is used"), "{text}");
    assert!(archive.lock_text().contains("apt:tool=1.0-1"));
    let build = ["build", "deb.toml", "--apt-sources", "test.sources", "--cache", "cache", "--retries", "0"];
    let rest = ["--installer", "installer.bin", "--out", "dist"];
    let mut builder = crate::workshop::plain();
    builder.current_dir(archive.workshop.path("")).args(build).args(rest).assert().success();
    assert!(live.requests().iter().any(|request| request.target() == "/pool/tool_1.0-1_amd64.deb"));
    // None can be reached.
    archive.write_sources("test.sources", "http://127.0.0.1:1/a http://127.0.0.1:1/b", "stable");
    let text = stderr(&archive.lock().code(1));
    assert!(text.contains("http://127.0.0.1:1/a"), "{text}");
}

#[test]
fn a_mirror_that_is_behind_does_not_hold_the_others_back() {
    let archive = Archive::new();
    super::run(
        "cp",
        &["-r", "archive", "behind"]
            .map(|name| match name {
                "-r" => name.to_owned(),
                name => archive.workshop.path(name).display().to_string(),
            })
            .each_ref()
            .map(String::as_str),
    );
    archive.publish("Sat, 07 Nov 2026 12:00:00 UTC");
    let behind = format!("file:{}", archive.workshop.path("behind").display());
    archive.write_sources("test.sources", &format!("{behind} {}", archive.uri()), "stable");
    archive.lock().success();
    assert!(archive.lock_text().contains("date = \"Sat, 07 Nov 2026 12:00:00 UTC\""), "{}", archive.lock_text());
    // Alone it is refused: the lock has seen a newer one.
    archive.write_sources("test.sources", &behind, "stable");
    archive.assert_refused("the lock has seen one of Sat, 07 Nov 2026 12:00:00 UTC");
    // One that serves a forgery is an error, whatever the others serve.
    let forged = fs_err::read_to_string(archive.workshop.path("behind/dists/stable/InRelease")).unwrap();
    archive.workshop.write("behind/dists/stable/InRelease", forged.replace("Origin", "0rigin").as_bytes());
    archive.write_sources("test.sources", &format!("{} {behind}", archive.uri()), "stable");
    archive.assert_refused("no good signature");
}

#[test]
fn an_archive_without_suites_is_read() {
    let archive = Archive::new();
    let packages = archive.packages().replace("Architecture: amd64", "Architecture: all");
    let other = packages.replace("Architecture: all", "Architecture: arm64").replace("Version: 1.0-1", "Version: 9-1");
    let packages = format!("{packages}\n{other}");
    archive.workshop.write("archive/Packages", packages.as_bytes());
    let line = format!(" {} {} ./Packages", bundle::Digest::of(packages.as_bytes()).hex(), packages.len());
    archive.sign(&format!("Label: Test archive\nDate: Sat, 07 Nov 2026 10:00:00 UTC\nSHA256:\n{line}\n"), "gpg");
    let from = archive.workshop.path("archive/dists/stable/InRelease");
    fs_err::rename(from, archive.workshop.path("archive/InRelease")).unwrap();
    archive.write_sources("test.sources", &archive.uri(), "./");
    archive.lock().success();
    let lock = archive.lock_text();
    assert!(lock.contains("apt:tool=1.0-1") && lock.contains("proof = \"apt:flat:Test-archive/-/amd64\""), "{lock}");
    let build = ["build", "deb.toml", "--apt-sources", "test.sources", "--cache", "cache"];
    let rest = ["--installer", "installer.bin", "--out", "dist"];
    let mut builder = crate::workshop::plain();
    builder.current_dir(archive.workshop.path("")).args(build).args(rest).assert().success();
}

#[test]
fn several_files_of_sources_are_read() {
    let archive = Archive::new();
    archive.workshop.write("empty.list", b"# nothing\n");
    let mut lock = crate::workshop::plain();
    lock.current_dir(archive.workshop.path("")).args(["lock", "deb.toml", "--cache", "cache"]);
    lock.args(["--apt-sources", "empty.list", "--apt-sources", "test.sources"]).assert().success();
}

#[test]
fn credentials_go_to_their_machine_and_show_nowhere() {
    let archive = Archive::new();
    // user:Geheim1
    let guarded = serve(archive.workshop.path("archive"), Some("Basic dXNlcjpHZWhlaW0x"));
    archive.write_sources("test.sources", &guarded.url, "stable");
    let lock = |auth: &str| {
        archive.workshop.write("auth.conf", auth.as_bytes());
        let mut lock = crate::workshop::plain();
        lock.current_dir(archive.workshop.path("")).args(["lock", "deb.toml", "--cache", "cache", "--retries", "0"]);
        let assert = lock.args(["--apt-sources", "test.sources", "--apt-auth", "auth.conf"]).assert();
        let output = assert.get_output();
        for text in [&output.stderr, &output.stdout] {
            let text = String::from_utf8_lossy(text);
            assert!(!text.contains("Geheim1") && !text.contains("dXNlcjpHZWhlaW0x"), "{text}");
        }
        assert
    };
    let sent = || guarded.requests().iter().filter(|request| request.header("authorization").is_some()).count();
    // Not without TLS unless the entry says so; not to another port; not to another path.
    let host = guarded.url.trim_start_matches("http://").to_owned();
    for machine in [host.clone(), "http://127.0.0.1".to_owned(), format!("http://{host}/other")] {
        lock(&format!("machine {machine} login user password Geheim1\n")).code(1);
        assert_eq!(sent(), 0, "{machine}");
    }
    let text = stderr(&lock(&format!("machine http://{host} login user\n password Geheim1 extra\n")).code(1));
    assert!(text.contains("cannot use the credentials in `auth.conf`"), "{text}");
    lock(&format!("machine http://{host} login user password Geheim1\n")).success();
    assert!(sent() > 0);
    assert!(!archive.lock_text().contains("Geheim1"));
}
