use super::*;

fn inputs(bundle: &str) -> Inputs {
    Inputs {
        index: Digest::of(bundle.as_bytes()),
        config: Digest::of(b"config"),
        roles: "master".to_owned(),
        installer: Digest::of(b"installer"),
        joined: false,
        ignored: BTreeSet::new(),
        reboot: crate::restart::Mode::Ask,
        retry_kernel: None,
    }
}

fn host() -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::under(dir.path());
    (dir, host)
}

fn begun(host: &Host) -> Journal<'_> {
    let mut journal = Journal::read(host).unwrap();
    journal.begin(&inputs("a"), "[cluster]").unwrap();
    journal
}

#[test]
fn a_torn_last_line_is_dropped_and_overwritten() {
    let (_dir, host) = host();
    let mut journal = begun(&host);
    journal.applying("etcd").unwrap();
    let whole = host.read(Path::new(PATH)).unwrap().unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for cut in first..whole.len() {
        host.write(Path::new(PATH), &whole[..cut], 0o600).unwrap();
        let mut journal = Journal::read(&host).unwrap();
        let pending = journal.pending().unwrap();
        assert_eq!((pending.config.as_str(), pending.interrupted), ("[cluster]", None), "cut at {cut}");
        journal.applying("kubelet").unwrap();
        let pending = Journal::read(&host).unwrap().pending().unwrap();
        assert_eq!(pending.interrupted.as_deref(), Some("kubelet"), "cut at {cut}");
    }
}

#[test]
fn damage_before_the_last_line_is_an_error() {
    let (_dir, host) = host();
    let mut journal = begun(&host);
    journal.applying("etcd").unwrap();
    let whole = host.read(Path::new(PATH)).unwrap().unwrap();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap();
    for at in 0..first {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        host.write(Path::new(PATH), &damaged, 0o600).unwrap();
        let error = format!("{:#}", Journal::read(&host).unwrap_err());
        assert!(error.contains("line 1 is damaged"), "byte {at}: {error}");
    }
}

#[test]
fn a_pending_run_is_bound_to_its_inputs() {
    let (_dir, host) = host();
    let mut journal = begun(&host);
    journal.require(&inputs("a")).unwrap();
    let other = Inputs { roles: "worker".to_owned(), ..inputs("b") };
    let error = journal.require(&other).unwrap_err().to_string();
    assert!(error.contains("another bundle, another roles"), "{error}");
    journal.end().unwrap();
    Journal::read(&host).unwrap().require(&other).unwrap();
}

#[test]
fn a_run_that_was_given_a_join_file_stays_one_until_it_ends() {
    let (_dir, host) = host();
    let mut journal = begun(&host);
    assert!(!journal.joined());
    let joined = Inputs { joined: true, ..inputs("a") };
    journal.require(&joined).unwrap();
    journal.begin(&joined, "[cluster]").unwrap();
    let mut journal = Journal::read(&host).unwrap();
    assert!(journal.joined());
    journal.require(&joined).unwrap();
    assert!(journal.require(&inputs("a")).unwrap_err().to_string().contains("another join file"));
    journal.end().unwrap();
    assert!(!Journal::read(&host).unwrap().joined());
    // What older versions wrote.
    let mut old = serde_json::to_value(inputs("a")).unwrap();
    for field in ["joined", "ignored"] {
        old.as_object_mut().unwrap().remove(field);
    }
    assert_eq!(serde_json::from_value::<Inputs>(old).unwrap(), inputs("a"));
}

#[test]
fn the_first_before_image_stays_and_undo_leads_back_to_it() {
    let (_dir, host) = host();
    let conf = Path::new("/etc/example.conf");
    let fresh = Path::new("/etc/fresh.conf");
    let sysctl = "net.ipv4.ip_forward";
    host.write(conf, b"before\n", 0o640).unwrap();
    host.symlink(Path::new("/etc/link"), Path::new("elsewhere")).unwrap();
    host.write(&crate::host::sysctl_path(sysctl), b"0\n", 0o644).unwrap();
    let targets = [
        Target::File(conf.to_owned()),
        Target::File(fresh.to_owned()),
        Target::File(PathBuf::from("/etc/link")),
        Target::Sysctl(sysctl.to_owned()),
    ];
    let mut journal = begun(&host);
    for round in ["first", "second"] {
        journal.capture("settings", &targets).unwrap();
        host.write(conf, round.as_bytes(), 0o600).unwrap();
        host.write(fresh, round.as_bytes(), 0o600).unwrap();
        host.write(Path::new("/etc/link"), b"a file now", 0o644).unwrap();
        host.set_sysctl(sysctl, "1").unwrap();
    }
    let journal = Journal::read(&host).unwrap();
    assert_eq!(journal.images_of("settings").len(), 4);
    for (target, image) in journal.images_of("settings") {
        assert_eq!(image.restore(&host, target).unwrap(), None, "{target}");
    }
    assert!(host.has(conf, b"before\n", 0o640).unwrap());
    assert!(!host.exists(fresh).unwrap());
    assert_eq!(host.link_target(Path::new("/etc/link")).unwrap(), Some(PathBuf::from("elsewhere")));
    assert_eq!(host.sysctl(sysctl).unwrap().as_deref(), Some("0"));
    // Twice is once.
    host.fake().clear();
    for (target, image) in journal.images_of("settings") {
        image.restore(&host, target).unwrap();
    }
    assert_eq!(host.fake().operations(), Vec::<String>::new());
}

#[test]
fn data_that_grew_in_a_new_directory_is_not_deleted() {
    let (_dir, host) = host();
    let target = Target::File(PathBuf::from("/var/lib/etcd"));
    let mut journal = begun(&host);
    journal.capture("etcd", std::slice::from_ref(&target)).unwrap();
    host.write(Path::new("/var/lib/etcd/member/snap/db"), b"data", 0o600).unwrap();
    let left = journal.before(&target).unwrap().restore(&host, &target).unwrap();
    assert!(left.unwrap().contains("not empty"));
    assert!(host.exists(Path::new("/var/lib/etcd/member/snap/db")).unwrap());
}

#[test]
fn a_sysctl_that_is_gone_needs_nothing() {
    let (_dir, host) = host();
    let target = Target::Sysctl("net.ipv4.conf.tun0.rp_filter".to_owned());
    let image = BeforeImage::Sysctl { value: "1".to_owned() };
    assert_eq!(image.restore(&host, &target).unwrap(), None);
    assert!(host.fake().operations().is_empty());
}
