//! Debian's kernels, as the machine's own apt sources have them: which there are, and the package files themselves.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::root::Debian;

/// The package that always depends on Debian's newest kernel.
const META: &str = "linux-image-amd64";

/// A private apt: its lists and nothing of the machine's state.
#[derive(Debug)]
pub struct Archive {
    directory: PathBuf,
    /// Of which the packages are.
    pub(super) release: Debian,
}

impl Archive {
    /// Fetches a release's lists from the archives of the machine's own sources into `directory`.
    pub fn open(directory: &Path, release: Debian) -> Result<Self> {
        for part in ["etc/sources.list.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"] {
            fs_err::create_dir_all(directory.join(part))?;
        }
        fs_err::write(directory.join("status"), "")?;
        let sources = release.sources()?;
        let name = sources.file_name().context("the sources have a name")?;
        let list = if name == "sources.list" { "etc".into() } else { PathBuf::from("etc/sources.list.d") };
        fs_err::copy(&sources, directory.join(list).join(name))?;
        let archive = Self { directory: directory.to_owned(), release };
        archive.apt("apt-get").arg("update").run().context("fetching the lists of the machine's apt sources")?;
        Ok(archive)
    }

    fn apt(&self, program: &str) -> Process {
        let place = self.directory.display();
        let options = [
            "quiet=2".to_owned(),
            format!("Dir::Etc={place}/etc"),
            format!("Dir::State={place}/state"),
            format!("Dir::State::status={place}/status"),
            format!("Dir::Cache={place}/cache"),
            "APT::Sandbox::User=root".to_owned(),
            "APT::Architecture=amd64".to_owned(),
        ];
        options.iter().fold(Process::new(program), |apt, option| apt.args(["-o", option]))
    }

    /// All versions of a package, the oldest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = self.apt("apt-cache").args(["madison", package]).text()?;
        let mut found: Vec<String> =
            table.lines().filter_map(|line| line.split('|').nth(1)).map(|word| word.trim().to_owned()).collect();
        sort(&mut found)?;
        Ok(found)
    }

    /// What apt would install of a package, in `package=version` form, so that the machine has a kernel older than the newest: the
    /// oldest that [`META`] stands for, or where there is but one (just after a point release), the newest but one of the same series.
    pub fn older_kernel(&self) -> Result<String> {
        let versions = self.versions(META)?;
        if let [oldest, _, ..] = versions.as_slice() {
            return Ok(format!("{META}={oldest}"));
        }
        let kernels = self.kernels(match self.release {
            Debian::Bookworm => "linux-image-6[.]1[.]0-",
            Debian::Trixie => "linux-image-6[.]12[.]",
        })?;
        ensure!(kernels.len() > 1, "the archive has but one kernel: {kernels:?}");
        Ok(kernels[kernels.len() - 2].clone())
    }

    /// Signed kernel packages whose names start like this, the oldest first.
    pub fn kernels(&self, prefix: &str) -> Result<Vec<String>> {
        let names = self.apt("apt-cache").args(["search", "--names-only"]).arg(format!("^{prefix}.*-amd64$")).text()?;
        let names = names.lines().filter_map(|line| line.split_whitespace().next());
        let mut found: Vec<String> = names
            .filter(|name| {
                !["cloud", "rt", "unsigned", "dbg"].iter().any(|word| name.split('-').any(|part| part == *word))
            })
            .map(str::to_owned)
            .collect();
        sort(&mut found)?;
        Ok(found)
    }

    /// The kernel package that [`META`] depends on in its newest version.
    pub fn newest_kernel(&self) -> Result<String> {
        let shown = self.apt("apt-cache").args(["show", "--no-all-versions", META]).text()?;
        let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: "));
        let first = depends.and_then(|line| line.split([' ', ',']).next());
        Ok(first.with_context(|| format!("{META} depends on nothing"))?.to_owned())
    }

    /// Fetches a package, newest version or `name=version`, into `directory`.
    pub fn download(&self, package: &str, directory: &Path) -> Result<PathBuf> {
        fs_err::create_dir_all(directory)?;
        self.apt("apt-get").args(["download", package]).directory(directory).run()?;
        let name = package.split('=').next().unwrap_or_default();
        let mut found = Vec::new();
        for entry in fs_err::read_dir(directory)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}_"))) {
                found.push(path);
            }
        }
        found.pop().with_context(|| format!("apt-get download left no {name}"))
    }
}

/// By Debian's own order of versions, which suits names that end in one, too.
fn sort(words: &mut Vec<String>) -> Result<()> {
    let text = words.join("\n");
    let mut sort = Process::new("sh");
    sort = sort.args(["-c", "printf '%s\\n' \"$1\" | sort -Vu", "sort"]).arg(text);
    *words = sort.text()?.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    Ok(())
}
