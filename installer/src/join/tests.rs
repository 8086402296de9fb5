use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::contents::Needs;
use super::seal::{self, Key};
use super::*;
use crate::cli::joining::JoinSource;
use crate::commands::found;
use crate::config::ClusterConfig;
use crate::fixture::cluster_toml;
use crate::host::{Command, Host};
use crate::pki::tokens::Tokens;
use crate::pki::{Inspection, files};
use crate::report::{exit_of, render};

const STACKED: &str = cluster_toml!(
    "site",
    "m1" "192.0.2.1" ["master"],
    "m2" "192.0.2.2" ["master", "worker"],
    "w1" "192.0.2.3" ["worker"],
);

const DEDICATED: &str = cluster_toml!(
    "site",
    "m1" "192.0.2.1" ["master"],
    "e1" "192.0.2.2" ["etcd"],
    "e2" "192.0.2.3" ["etcd", "worker"],
    "e3" "192.0.2.4" ["etcd", "master"],
);

/// A host that is a directory, with join files of a new cluster below `/media`.
struct Bed {
    _directory: tempfile::TempDir,
    host: Host,
    joins: Vec<Join>,
}

fn identity() -> (String, Secret) {
    use age::secrecy::ExposeSecret as _;
    let identity = age::x25519::Identity::generate();
    (identity.to_public().to_string(), Secret::new(identity.to_string().expose_secret().to_owned()))
}

impl Bed {
    fn new(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let parsed = ClusterConfig::parse(config, Path::new("cluster.toml")).unwrap();
        let expires = host.now() + std::time::Duration::from_secs(72 * 3600);
        let joins = found(&parsed, config, host.now(), expires).unwrap();
        Self { _directory: directory, host, joins }
    }

    fn join(&self, node: &str) -> &Join {
        self.joins.iter().find(|join| join.node == node).unwrap()
    }

    fn put(&self, path: &str, bytes: &[u8], mode: u32) -> PathBuf {
        self.host.write(Path::new(path), bytes, mode).unwrap();
        PathBuf::from(path)
    }

    /// Writes a file of these bytes and opens it with this key.
    fn open(&self, bytes: &[u8], change: impl FnOnce(&mut JoinSource)) -> Result<Join> {
        let mut source = JoinSource { join: Some(self.put("/media/x.join", bytes, 0o600)), ..JoinSource::default() };
        change(&mut source);
        open(&self.host, &source).map(Option::unwrap)
    }

    /// A sealed text and how to open it.
    fn sealed(&self, text: &str) -> (Vec<u8>, PathBuf) {
        let (public, private) = identity();
        let sealed = seal::seal(&Secret::new(text.to_owned()), &Sealing::Recipients(vec![public])).unwrap();
        (sealed, self.put("/media/identity", private.expose().as_bytes(), 0o600))
    }

    /// Opens a text as a sealed file.
    fn open_text(&self, text: &str) -> Result<Join> {
        let (sealed, identity) = self.sealed(text);
        self.open(&sealed, |source| source.identity = Some(identity))
    }
}

fn refusal(result: Result<Join>) -> (Exit, String) {
    let error = result.unwrap_err();
    (exit_of(&error), render(&error))
}

fn text(join: &Join) -> String {
    join.write().unwrap().expose().to_owned()
}

/// REQUIREMENTS B7: nothing on a host that its roles do not need.
#[test]
fn each_role_gets_exactly_these_files() {
    const MASTER: [&str; 9] = [
        "pki/ca.crt",
        "pki/ca.key",
        "pki/etcd/ca.crt",
        "pki/front-proxy-ca.crt",
        "pki/front-proxy-ca.key",
        "pki/service-account.key",
        "pki/service-account.pub",
        "secrets/encryption.json",
        "secrets/tokens.json",
    ];
    let (stacked, dedicated) = (Bed::new(STACKED), Bed::new(DEDICATED));
    let with = |more: &[&'static str]| [&MASTER[..], more].concat();
    for (join, paths) in [
        (stacked.join("m1"), with(&["pki/etcd/ca.key"])),
        (stacked.join("m2"), with(&["pki/etcd/ca.key"])),
        (stacked.join("w1"), vec!["pki/ca.crt", "secrets/tokens.json"]),
        (dedicated.join("m1"), with(&["pki/apiserver-etcd-client.crt", "pki/apiserver-etcd-client.key"])),
        (dedicated.join("e1"), vec!["pki/etcd/ca.crt", "pki/etcd/ca.key"]),
        (dedicated.join("e2"), vec!["pki/ca.crt", "pki/etcd/ca.crt", "pki/etcd/ca.key", "secrets/tokens.json"]),
        (dedicated.join("e3"), with(&["pki/etcd/ca.key"])),
    ] {
        let found: BTreeSet<&str> = join.files.keys().map(|path| path.strip_prefix("/etc/sealift/").unwrap()).collect();
        assert_eq!(found, paths.into_iter().collect(), "{}", join.node);
    }
}

#[test]
fn only_etcd_members_learn_of_the_founding_and_only_masters_of_others_tokens() {
    let (stacked, dedicated) = (Bed::new(STACKED), Bed::new(DEDICATED));
    let knows = |join: &Join| !join.founding.founders.is_empty() && join.founding.etcd_token.is_some();
    let of = |bed: &Bed| -> Vec<bool> { bed.joins.iter().map(knows).collect() };
    assert_eq!((of(&stacked), of(&dedicated)), (vec![true, true, false], vec![false, true, true, true]));
    assert_eq!(dedicated.join("e1").founding.founders.len(), 3);
    let tokens = |join: &Join| Tokens::parse(join.files[files::TOKENS].expose()).unwrap();
    let names = |join: &Join| tokens(join).iter().map(|(node, _)| node.to_owned()).collect::<Vec<_>>();
    assert_eq!(names(stacked.join("m2")), ["m1", "m2", "w1"]);
    assert_eq!(names(stacked.join("w1")), ["w1"]);
    assert_eq!(names(dedicated.join("m1")), ["e2", "e3", "m1"]);
    let ids: BTreeSet<&String> = stacked.joins.iter().chain(&dedicated.joins).map(|join| &join.founding.id).collect();
    assert_eq!(ids.len(), 2, "one id for each cluster, although the configs have the same name");
}

#[test]
fn what_is_written_is_read_back_and_says_no_secret_in_debug_output() {
    let bed = Bed::new(STACKED);
    for join in &bed.joins {
        let back = bed.open_text(&text(join)).unwrap();
        assert_eq!((&back.node, &back.founding, &back.files), (&join.node, &join.founding, &join.files));
        assert_eq!((back.expires, back.generation, &back.config), (join.expires, 1, &join.config));
        let shown = format!("{back:?} {:?}", Sealing::Passphrase(Secret::new("correct horse".to_owned())));
        assert!(!shown.contains("PRIVATE KEY") && !shown.contains("BEGIN") && !shown.contains("horse"));
        assert!(join.founding.etcd_token.iter().all(|token| !shown.contains(token)));
        let tokens = Tokens::parse(join.files[files::TOKENS].expose()).unwrap();
        assert!(tokens.iter().all(|(_, token)| !shown.contains(token.text().expose())));
    }
}

#[test]
fn a_passphrase_opens_a_file_and_a_wrong_one_or_a_changed_file_does_not() {
    let bed = Bed::new(STACKED);
    let passphrase = Sealing::Passphrase(Secret::new("correct horse battery".to_owned()));
    let sealed = seal::seal(&bed.join("m1").write().unwrap(), &passphrase).unwrap();
    let good = bed.put("/media/passphrase", b"correct horse battery\nmore\n", 0o600);
    let wrong = bed.put("/media/wrong", b"correct horse", 0o600);
    let empty = bed.put("/media/empty", b"\n", 0o600);
    let with = |bytes: &[u8], path: &Path| bed.open(bytes, |source| source.passphrase_file = Some(path.to_owned()));
    assert_eq!(with(&sealed, &good).unwrap().node, "m1");
    let (exit, said) = refusal(with(&sealed, &wrong));
    assert!(exit == Exit::Usage && said.contains("the passphrase is wrong"), "{said}");
    let (exit, said) = refusal(with(&sealed, &empty));
    assert!(exit == Exit::Usage && said.contains("is empty"), "{said}");
    let (exit, said) = refusal(with(&sealed, Path::new("/media/none")));
    assert!(exit == Exit::Usage && said.contains("does not exist"), "{said}");
    let mut changed = sealed.clone();
    changed[130] ^= 1;
    assert_eq!(refusal(with(&changed, &good)).0, Exit::Usage);
}

#[test]
fn any_changed_or_missing_byte_is_noticed() {
    let bed = Bed::new(STACKED);
    let (sealed, identity) = bed.sealed(&text(bed.join("w1")));
    let open = |bytes: &[u8]| bed.open(bytes, |source| source.identity = Some(identity.clone()));
    assert!(open(&sealed).is_ok());
    for index in (0..sealed.len()).step_by(97).chain([sealed.len() - 1]) {
        let mut changed = sealed.clone();
        changed[index] ^= 4;
        let (exit, said) = refusal(open(&changed));
        assert!(exit == Exit::Usage && said.contains("was refused"), "{index}: {said}");
    }
    for length in [0, 10, 100, sealed.len() / 2, sealed.len() - 1] {
        assert_eq!(refusal(open(&sealed[..length])).0, Exit::Usage, "{length}");
    }
    assert_eq!(refusal(open(&[&sealed[..], b"x"].concat())).0, Exit::Usage);
    let (_, other) = bed.sealed("");
    let (_, said) = refusal(bed.open(&sealed, |source| source.identity = Some(other)));
    assert!(said.contains("not sealed for this age key"), "{said}");
    let armoured = b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n";
    assert!(refusal(open(armoured)).1.contains("armoured"));
    assert!(refusal(open(b"PK\x03\x04")).1.contains("neither"));
}

#[test]
fn the_tool_of_debian_opens_what_we_seal_and_we_open_what_it_seals() {
    let (bed, real) = (Bed::new(STACKED), Host::real());
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (public, private) = identity();
    real.write(&at("identity"), private.expose().as_bytes(), 0o600).unwrap();
    let plain = bed.join("m1").write().unwrap();
    let sealed = seal::seal(&plain, &Sealing::Recipients(vec![public.clone()])).unwrap();
    real.write(&at("m1.join"), &sealed, 0o600).unwrap();
    let age = |arguments: &[&str]| real.run(&Command::new("age").args(arguments)).expect("`age` of Debian is needed");
    let shown = |name: &str| at(name).display().to_string();
    let opened = age(&["-d", "-i", &shown("identity"), &shown("m1.join")]);
    assert_eq!(opened.text().trim_end(), plain.expose().trim_end());

    real.write(&at("plain"), plain.expose().as_bytes(), 0o600).unwrap();
    age(&["-r", &public, "-o", &shown("theirs"), &shown("plain")]);
    let theirs = real.read(&at("theirs")).unwrap().unwrap();
    assert_eq!(seal::unseal(&theirs, &Key::Identity(private)).unwrap(), plain);
}

#[test]
fn an_expired_file_and_one_that_others_can_read_are_noticed() {
    let bed = Bed::new(STACKED);
    let (sealed, identity) = bed.sealed(&text(bed.join("w1")));
    bed.host.set_mode(Path::new("/media/identity"), 0o644).unwrap();
    let join = bed.open(&sealed, |source| source.identity = Some(identity.clone())).unwrap();
    assert!(join.warnings.len() == 1 && join.warnings[0].contains("mode 0644"), "{:?}", join.warnings);
    bed.host.fake().set_now(join.expires);
    let (exit, said) = refusal(bed.open(&sealed, |source| source.identity = Some(identity)));
    assert!(exit == Exit::Preflight && said.contains("it expired at"), "{said}");
    assert!(said.contains("hint: make another one on a master: `installer join-file --node w1`"), "{said}");
}

#[test]
fn a_plain_file_needs_the_pin_of_the_authority_and_is_for_workers_only() {
    let bed = Bed::new(STACKED);
    let worker = text(bed.join("w1"));
    let (exit, said) = refusal(bed.open(worker.as_bytes(), |_| ()));
    assert!(exit == Exit::Usage && said.contains("--ca-pin sha256:"), "{said}");
    let certificate = bed.join("w1").files["/etc/sealift/pki/ca.crt"].expose();
    let pin = Inspection::of_pem(certificate).unwrap().public_key_pin().to_string();
    let pinned = |text: &str, pin: &str| bed.open(text.as_bytes(), |source| source.ca_pin = Some(pin.to_owned()));
    assert_eq!(pinned(&worker, &pin).unwrap().node, "w1");
    assert_eq!(refusal(pinned(&worker, "sha256:12")).0, Exit::Usage);

    // Somebody in the middle puts another authority in.
    let other = Bed::new(STACKED);
    let theirs = other.join("w1").files["/etc/sealift/pki/ca.crt"].clone();
    let mut changed = bed.join("w1").clone();
    changed.files.insert("/etc/sealift/pki/ca.crt".to_owned(), theirs);
    let (exit, said) = refusal(pinned(&text(&changed), &pin));
    assert!(exit == Exit::Preflight && said.contains("as pinned"), "{said}");

    for node in ["m1", "m2"] {
        let (exit, said) = refusal(pinned(&text(bed.join(node)), &pin));
        assert!(exit == Exit::Preflight && said.contains("is not a mere worker"), "{said}");
    }
    // A pin is compared with a sealed file too.
    let (sealed, identity) = bed.sealed(&worker);
    let refused = bed.open(&sealed, |source| {
        source.identity = Some(identity);
        source.ca_pin = Some(format!("sha256:{}", "0".repeat(64)));
    });
    assert!(refusal(refused).1.contains("as pinned"));
}

#[test]
fn each_certificate_and_key_is_one_block_and_nothing_more() {
    let (bed, other) = (Bed::new(STACKED), Bed::new(STACKED));
    let own = bed.join("w1").files["/etc/sealift/pki/ca.crt"].expose().to_owned();
    let theirs = other.join("w1").files["/etc/sealift/pki/ca.crt"].expose();
    let key = bed.join("m1").files["/etc/sealift/pki/ca.key"].expose().to_owned();
    let with = |node: &str, path: &str, content: &str| {
        let mut value: serde_json::Value = serde_json::from_str(&text(bed.join(node))).unwrap();
        value["files"][path] = content.into();
        value.to_string()
    };
    // The pin is that of the first certificate: whoever appends his own must not get through with it.
    let pin = Inspection::of_pem(&own).unwrap().public_key_pin().to_string();
    let pinned = |text: &str| bed.open(text.as_bytes(), |source| source.ca_pin = Some(pin.clone()));
    let certificate = |content: &str| with("w1", "/etc/sealift/pki/ca.crt", content);
    assert_eq!(pinned(&certificate(&own)).unwrap().node, "w1");
    let inner = own.replacen('\n', "\nProc-Type: 4,ENCRYPTED\n\n", 1);
    let empty = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned();
    for content in [
        format!("{own}{theirs}"),
        format!("{theirs}{own}"),
        format!("{}{theirs}", own.trim_end()),
        format!("a comment\n{own}"),
        format!("{own}a comment\n"),
        format!("{own}{key}"),
        own.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        inner,
        empty,
        key.clone(),
        String::new(),
    ] {
        let (exit, said) = refusal(pinned(&certificate(&content)));
        assert!(exit == Exit::Usage && said.contains("is not one PEM block `CERTIFICATE`"), "{content}: {said}");
    }
    for content in [format!("{key}{key}"), format!("{key}{own}"), own.clone(), key.replace("PRIVATE", "EC PRIVATE")] {
        let (exit, said) = refusal(bed.open_text(&with("m1", "/etc/sealift/pki/ca.key", &content)));
        assert!(exit == Exit::Usage && said.contains("is not one PEM block `PRIVATE KEY`"), "{said}");
        assert!(!said.contains("BEGIN"), "no key in a message: {said}");
    }
}

type Change = &'static dyn Fn(&mut serde_json::Value);

#[test]
fn what_this_version_does_not_know_is_refused() {
    let bed = Bed::new(STACKED);
    let (worker, master) = (text(bed.join("w1")), text(bed.join("m1")));
    let changed = |text: &str, change: Change| {
        let mut value = serde_json::from_str(text).unwrap();
        change(&mut value);
        refusal(bed.open_text(&value.to_string()))
    };
    let cases: [(&str, Change, &str); 15] = [
        (&worker, &|v| v["version"] = 2.into(), "it has version 2"),
        (&worker, &|v| v["format"] = "other".into(), "it says that it is a `other`"),
        (&worker, &|v| v["more"] = 1.into(), "fields are not those of this version"),
        (&worker, &|v| v["founding"]["more"] = 1.into(), "fields are not those of this version"),
        (&worker, &|v| v["founding"]["made_here"] = true.into(), "claims that its host founded"),
        (&worker, &|v| v["founding"]["id"] = "x".into(), "32 hexadecimal digits"),
        (&worker, &|v| v["roles"] = serde_json::json!(["worker", "etcd"]), "with the roles worker,etcd"),
        (&worker, &|v| v["node"] = "w9".into(), "which its config does not have"),
        (&worker, &|v| v["cluster"] = "other".into(), "is of another"),
        (&worker, &|v| v["files"]["/etc/sealift/pki/ca.key"] = "x".into(), "do not need: `/etc/sealift/pki/ca.key`"),
        (&worker, &|v| v["files"]["/root/.ssh/authorized_keys"] = "x".into(), "do not need: `/root/.ssh/"),
        (&worker, &|v| v["founding"]["etcd_token"] = "x".into(), "names the founding members"),
        (&worker, &|v| v["files"]["/etc/sealift/pki/ca.crt"] = "x".repeat(65 << 10).into(), "larger than 64 KiB"),
        (&worker, &|v| v["config"] = "x".repeat(2 << 20).into(), "larger than 1024 KiB"),
        (
            &master,
            &|v| {
                v["files"].as_object_mut().unwrap().remove("/etc/sealift/pki/etcd/ca.key");
            },
            "lacks `/etc/sealift/pki/etcd/ca.key`",
        ),
    ];
    for (text, change, words) in cases {
        let (exit, said) = changed(text, change);
        assert!(exit == Exit::Usage && said.contains(words), "{words}: {said}");
    }
    let (exit, said) = refusal(bed.open_text("{\"password\": \"hunter2\""));
    assert!(exit == Exit::Usage && !said.contains("hunter2"), "{said}");
}

#[test]
fn a_renewed_etcd_certificate_alone_is_a_file_for_masters_without_etcd() {
    let bed = Bed::new(DEDICATED);
    let needs = Needs { master: true, kubelet: true, etcd: false };
    let keep = |node: &str| {
        let mut join = bed.join(node).clone();
        join.files.retain(|path, _| needs.renewal_paths().contains(path));
        join.write()
    };
    assert!(keep("m1").is_ok());
    assert!(keep("e3").is_err());
}

#[test]
fn a_new_passphrase_must_be_long_enough() {
    let strong = |text: &str| passphrase::require_strength(&Secret::new(text.to_owned())).is_ok();
    assert_eq!((strong("1234567"), strong("12345678")), (false, true));
}
