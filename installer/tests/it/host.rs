//! A directory that plays a host, with a bundle beside it and three tiny steps instead of Kubernetes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bundle::fake::{Fake, Key};
use installer::cli::Install;
use installer::commands;
use installer::config::Roles;
use installer::context::Context;
use installer::host::{Host, Reply};
use installer::output::Output;
use installer::plan::Steps;
use installer::report::{Exit, exit_of};
use installer::step::{Change, Check, Step, Target};

const ADDRESSES: &str = r#"[{"ifname":"eth0","addr_info":[{"local":"192.0.2.1","prefixlen":24}]}]"#;
const CLUSTER: &str =
    "[cluster]\nname = \"test\"\n\n[[node]]\nname = \"m1\"\naddress = \"192.0.2.1\"\nroles = [\"master\"]\n";

/// The directory, and what is on the medium that was carried in.
pub(crate) struct Bed {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) host: Host,
    pub(crate) arguments: Install,
}

/// Everything below a directory: mode and content by path. Directories that play the kernel are left out.
pub(crate) type Tree = BTreeMap<PathBuf, (u32, String)>;

/// Made once: packing and signing cost more than the run.
static BUNDLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();

/// Once more while another test's child, on its way to its own program, has a copy of the lock that an earlier run let go of (flock(2),
/// fork(2)). Only runs of one process meet that. A lock that stays is an error after ten seconds.
pub(crate) fn unlocked(run: impl Fn() -> anyhow::Result<Exit>) -> anyhow::Result<Exit> {
    for _ in 0..2000 {
        match run() {
            Err(error) if error.to_string().ends_with("is installing on this host") => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            ended => return ended,
        }
    }
    run()
}

impl Bed {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        for (path, text) in [
            ("/proc/sys/kernel/arch", "x86_64\n"),
            ("/proc/sys/kernel/osrelease", "6.1.0-40-amd64\n"),
            ("/proc/self/exe", "the installer"),
            ("/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
            ("/etc/resolv.conf", "nameserver 192.0.2.53\n"),
            ("/media/cluster.toml", CLUSTER),
            ("/media/fake.pub", Key::Publisher.public_text()),
        ] {
            host.write(Path::new(path), text.as_bytes(), 0o644).unwrap();
        }
        for directory in ["/opt", "/var/lib"] {
            host.create_dir(Path::new(directory), 0o755).unwrap();
        }
        host.fake().on("ip -j addr", Reply::ok(ADDRESSES));
        host.fake().on("touch-unit", Reply::ok(""));
        let arguments = Install {
            roles: vec![bundle::component::Role::Master],
            bundle: "/media/x.bundle".into(),
            keys: vec!["/media/fake.pub".into()],
            config: Some("/media/cluster.toml".into()),
            join: None,
            passphrase_file: None,
            identity: None,
            ca_pin: None,
            init: false,
            wait: std::time::Duration::ZERO,
            reboot: installer::restart::Mode::Never,
            retry_kernel: false,
            allow_downgrade: None,
            abandon: false,
            ignored: Vec::new(),
            json: false,
        };
        let bed = Self { directory, host, arguments };
        bed.insert(BUNDLE.get_or_init(|| Fake::new().bytes().unwrap()));
        bed.host.fake().clear();
        bed
    }

    /// Puts a bundle on the medium.
    pub(crate) fn insert(&self, bundle: &[u8]) {
        fs_err::write(self.host.real_path(Path::new("/media/x.bundle")), bundle).unwrap();
    }

    pub(crate) fn install(&self) -> anyhow::Result<Exit> {
        unlocked(|| commands::install(&self.host, &self.arguments, &Output::silent(), &tiny))
    }

    pub(crate) fn resume(&self) -> anyhow::Result<Exit> {
        self.resume_with(&tiny)
    }

    /// With other steps.
    pub(crate) fn resume_with(&self, steps: installer::plan::StepsOf) -> anyhow::Result<Exit> {
        let patience = installer::cli::cluster::Patience { wait: std::time::Duration::ZERO };
        let format = installer::cli::Format { json: false };
        let refresh = installer::cli::cluster::Refresh { patience, from: None, format };
        let arguments = installer::cli::cluster::Resume { refresh, reboot: None, retry_kernel: false };
        commands::resume(&self.host, &arguments, &Output::silent(), steps)
    }

    /// Exit code, whatever happens.
    pub(crate) fn exit(&self) -> Exit {
        self.install().unwrap_or_else(|error| exit_of(&error))
    }

    pub(crate) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        walk(self.directory.path(), Path::new(""), &mut tree);
        tree
    }
}

fn walk(root: &Path, below: &Path, tree: &mut Tree) {
    for entry in fs_err::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        if path == Path::new("proc") || path == Path::new("media") {
            continue;
        }
        let metadata = fs_err::symlink_metadata(root.join(&path)).unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&metadata);
        let content = if metadata.is_symlink() {
            fs_err::read_link(root.join(&path)).unwrap().display().to_string()
        } else if metadata.is_file() {
            bundle::Digest::of(&fs_err::read(root.join(&path)).unwrap()).to_string()
        } else {
            walk(root, &path, tree);
            "directory".to_owned()
        };
        tree.insert(path, (mode, content));
    }
}

fn tiny(_: &Roles) -> Steps {
    Steps {
        preflight: vec![],
        rest: vec![
            Box::new(File("settings", "/etc/example.conf", b"a = 1\n", 0o644)),
            Box::new(File("secret", "/etc/sealift/secrets/key", b"0123456789", 0o600)),
            Box::new(Etcd),
        ],
    }
}

/// Writes a file.
pub(crate) struct File(pub(crate) &'static str, pub(crate) &'static str, pub(crate) &'static [u8], pub(crate) u32);

impl Step for File {
    fn name(&self) -> &'static str {
        self.0
    }

    fn title(&self) -> &'static str {
        "Write a file"
    }

    fn touches(&self, _: &Context<'_>) -> anyhow::Result<Vec<Target>> {
        Ok(vec![Target::File(self.1.into())])
    }

    fn check(&self, context: &Context<'_>) -> anyhow::Result<Check> {
        let done = context.host.has(Path::new(self.1), self.2, self.3)?;
        Ok(if done { Check::Done } else { Check::Needed(vec![Change::new(format!("write {}", self.1))]) })
    }

    fn apply(&self, context: &Context<'_>) -> anyhow::Result<()> {
        context.host.write(Path::new(self.1), self.2, self.3)
    }
}

/// Plays another run that ends while this one is at its preflight: this is what it leaves in `accepted.json`.
pub(crate) struct Meanwhile(pub(crate) String);

impl Step for Meanwhile {
    fn name(&self) -> &'static str {
        "preflight"
    }

    fn title(&self) -> &'static str {
        "Check the host"
    }

    fn check(&self, context: &Context<'_>) -> anyhow::Result<Check> {
        context.host.write(Path::new("/var/lib/sealift/accepted.json"), self.0.as_bytes(), 0o644)?;
        Ok(Check::Done)
    }

    fn apply(&self, _: &Context<'_>) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Puts the rendered unit of the fake bundle in place and "starts" it.
struct Etcd;

impl Step for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn title(&self) -> &'static str {
        "Start etcd"
    }

    fn check(&self, context: &Context<'_>) -> anyhow::Result<Check> {
        let unit = context.desired.unit("etcd.service").unwrap();
        let program = context.program("etcd", "bin/etcd");
        assert!(context.host.is_real() || String::from_utf8_lossy(unit).contains(&program.display().to_string()));
        let stamp = context.desired.stamp("etcd").unwrap();
        let started = context.host.has(Path::new("/run/sealift/started/etcd.service"), stamp, 0o644)?;
        let written = context.host.has(Path::new("/etc/systemd/system/etcd.service"), unit, 0o644)?;
        Ok(if started && written { Check::Done } else { Check::Needed(vec![Change::new("start etcd.service")]) })
    }

    fn apply(&self, context: &Context<'_>) -> anyhow::Result<()> {
        let unit = context.desired.unit("etcd.service").unwrap();
        context.host.write(Path::new("/etc/systemd/system/etcd.service"), unit, 0o644)?;
        context.host.run(&installer::host::Command::new("touch-unit").arg("etcd.service"))?;
        let stamp = context.desired.stamp("etcd").unwrap();
        context.host.write(Path::new("/run/sealift/started/etcd.service"), stamp, 0o644)
    }
}
