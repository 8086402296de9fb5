//! The command line: types only, no logic.

use std::path::PathBuf;

use bundle::{Architecture, ComponentName};
use clap::{Args, Parser, Subcommand};

/// Builds signed, byte-reproducible Sealift bundles from pinned upstream artifacts.
#[derive(Debug, Parser)]
#[command(name = "builder", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// One JSON object a line on standard output, for programs.
    #[arg(long, global = true)]
    pub json: bool,
}

const EXAMPLES: &str = "\
The way of a bundle:
  builder keygen --out release             a key pair: release.key (keep it), release.pub (give it away)
  builder lock manifests/debian-12.toml    resolve versions to sizes and digests: debian-12.lock
  builder fetch manifests/debian-12.toml   download into the cache (build does it, too)
  builder build manifests/debian-12.toml --installer target/release/installer --key release.key
  builder verify dist/debian-12-1.20.2-1-amd64.bundle --key release.pub
  builder inspect dist/debian-12-1.20.2-1-amd64.bundle
  builder inspect NEW.bundle --diff OLD.bundle

Proxies come from HTTPS_PROXY, HTTP_PROXY and NO_PROXY. An interrupted command is continued by running it again.

Exit codes: 0 done, 1 failed, 2 wrong usage, 4 bundle refused, 130 interrupted.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key pair that signs bundles.
    Keygen(KeygenArgs),
    /// Resolve a manifest: write sizes, digests and what vouched for them beside it.
    Lock(LockArgs),
    /// Download everything a lock names into the cache.
    Fetch(FetchArgs),
    /// Build the bundle that a manifest and its lock describe.
    Build(BuildArgs),
    /// Add a signature to a bundle.
    Sign(SignArgs),
    /// Check a bundle completely: signatures, structure, every byte.
    Verify(VerifyArgs),
    /// Show what is inside a bundle.
    Inspect(InspectArgs),
    /// State what targets with a distribution have, from a root directory with a minimal installation of it.
    Base(BaseArgs),
    /// Print completions for a shell.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

/// `builder keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// Writes NAME.key (secret, mode 0600) and NAME.pub; existing files are never replaced.
    #[arg(long, value_name = "NAME", default_value = "sealift")]
    pub out: PathBuf,
    /// Do not protect the secret key with a password (tests only).
    #[arg(long, conflicts_with = "password_file")]
    pub no_password: bool,
    /// Where the password comes from.
    #[command(flatten)]
    pub password: PasswordArgs,
}

/// Where a key's password comes from; the terminal is asked otherwise.
#[derive(Clone, Debug, Args)]
pub struct PasswordArgs {
    /// First line of this file is the key's password; otherwise $SEALIFT_KEY_PASSWORD, otherwise the terminal is asked.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// How artifacts are reached.
#[derive(Clone, Debug, Args)]
pub struct NetworkArgs {
    /// Read URLs that begin with FROM from TO instead (TO may be file:///DIR/). Can be given several times: all that fit are
    /// tried in this order, and the original only if it is among them (`--mirror https://dl.k8s.io/=https://dl.k8s.io/`).
    #[arg(long = "mirror", value_name = "FROM=TO", value_parser = parse_mirror)]
    pub mirrors: Vec<(String, String)>,
    /// Trust the certificates in this PEM file, too.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Use the cache alone.
    #[arg(long)]
    pub offline: bool,
    /// Cache directory [default: $XDG_CACHE_HOME/sealift].
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Read apt sources from this file instead of /etc/apt; can be given several times.
    #[arg(long, value_name = "FILE")]
    pub apt_sources: Vec<PathBuf>,
    /// Read credentials for apt sources from this file instead of /etc/apt/auth.conf and /etc/apt/auth.conf.d.
    #[arg(long, value_name = "FILE")]
    pub apt_auth: Option<PathBuf>,
    /// Take RPM packages from the repositories in this .repo file; can be given several times.
    #[arg(long, value_name = "FILE")]
    pub rpm_repos: Vec<PathBuf>,
    /// Ask this registry over plain http; can be given several times. Those of this machine need no permission, and nobody is
    /// sent a login in the clear.
    #[arg(long = "insecure-registry", value_name = "HOST:PORT", value_parser = parse_host)]
    pub insecure_registries: Vec<String>,
    /// Downloads at the same time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub downloads: u8,
    /// Downloads at the same time from one server.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub per_host: u8,
    /// Give a download up when nothing arrives for this many seconds, or less than 1 KiB/s in that time on average.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub stall: u64,
    /// Try a failing download again this many times.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub retries: usize,
}

fn parse_host(text: &str) -> Result<String, String> {
    let good = text.rsplit_once(':').is_some_and(|(host, port)| {
        let name = !host.is_empty() && !host.contains(['/', '@', ' ']);
        name && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if good { Ok(text.to_owned()) } else { Err("expected HOST:PORT, for example `registry.lan:5000`".into()) }
}

fn parse_mirror(text: &str) -> Result<(String, String), String> {
    let (from, to) = text.split_once('=').ok_or("expected FROM=TO")?;
    let url = |text: &str| ["https://", "http://", "file:///"].iter().any(|scheme| text.starts_with(scheme));
    if url(from) && url(to) {
        Ok((from.into(), to.into()))
    } else {
        Err("both sides are URLs (https:, http:, file:///)".into())
    }
}

/// `builder lock`.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// The manifest.
    pub manifest: PathBuf,
    /// Only say whether the lock is current and complete: exit code 1 if it is not. Upstreams are asked (unless `--offline`),
    /// nothing is written, no artifact is downloaded.
    #[arg(long, conflicts_with = "update")]
    pub check: bool,
    /// Move only this component, ask anew even if the last lock has an answer, and leave everything else as it was; can be
    /// given several times. Also packages-DISTRIBUTION, kernel-DISTRIBUTION, addon-NAME (with the images it needs).
    #[arg(long, value_name = "NAME")]
    pub update: Vec<ComponentName>,
    /// How artifacts are reached.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `builder fetch`.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// The manifest.
    pub manifest: PathBuf,
    /// Only this architecture [default: all of the manifest].
    #[arg(long)]
    pub arch: Option<Architecture>,
    /// How artifacts are reached.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `builder build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The manifest.
    pub manifest: PathBuf,
    /// Architecture of the bundle [default: the manifest's only one].
    #[arg(long)]
    pub arch: Option<Architecture>,
    /// The installer for that architecture: copied beside the bundle, its digest goes into the index.
    #[arg(long, value_name = "PATH")]
    pub installer: PathBuf,
    /// Directory for the results.
    #[arg(long, value_name = "DIR", default_value = "dist")]
    pub out: PathBuf,
    /// Sign with this secret key.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Where the key's password comes from.
    #[command(flatten)]
    pub password: PasswordArgs,
    /// Component data [default: `components` beside the manifest].
    #[arg(long, value_name = "DIR")]
    pub components_dir: Option<PathBuf>,
    /// Threads that pack [default: the machine's cores]; the result does not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// How artifacts are reached.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `builder sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The bundle; `installer` beside it is signed, too.
    pub bundle: PathBuf,
    /// The secret key.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Where the key's password comes from.
    #[command(flatten)]
    pub password: PasswordArgs,
}

/// `builder verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The bundle.
    pub bundle: PathBuf,
    /// Public key that is trusted; several can be given.
    #[arg(long = "key", value_name = "FILE", required = true)]
    pub keys: Vec<PathBuf>,
    /// So many of the keys must have signed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threshold: usize,
    /// Build it again from this manifest (or lock) and compare all but the signatures; nothing that was packed before is used.
    #[arg(long, value_name = "MANIFEST")]
    pub rebuild: Option<PathBuf>,
    /// For `--rebuild`: the installer that was published with the bundle [default: `installer` beside the bundle].
    #[arg(long, value_name = "PATH", requires = "rebuild")]
    pub installer: Option<PathBuf>,
    /// For `--rebuild`: component data [default: `components` beside the manifest].
    #[arg(long, value_name = "DIR", requires = "rebuild")]
    pub components_dir: Option<PathBuf>,
    /// For `--rebuild`: threads that pack [default: the machine's cores].
    #[arg(long, value_name = "N", requires = "rebuild", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// For `--rebuild`: how artifacts are reached.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// `builder inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The bundle.
    pub bundle: PathBuf,
    /// Verify the bundle's head with this public key first; without one everything shown is unverified.
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,
    /// List every file of every component.
    #[arg(long)]
    pub files: bool,
    /// Show what has changed since this older bundle, and how many bytes are new.
    #[arg(long, value_name = "OLD", conflicts_with_all = ["files", "sbom"])]
    pub diff: Option<PathBuf>,
    /// Print the bill of materials that the bundle carries (CycloneDX, JSON).
    #[arg(long, conflicts_with = "files")]
    pub sbom: bool,
}

/// `builder base`.
#[derive(Debug, Args)]
pub struct BaseArgs {
    /// Root directory of a minimal installation; nothing in it is run.
    #[arg(long, value_name = "DIR")]
    pub from_root: PathBuf,
    /// Root directory in which the distribution's kernel package is unpacked [default: the same]. Without a kernel no modules are
    /// noted.
    #[arg(long, value_name = "DIR")]
    pub kernel_root: Option<PathBuf>,
    /// Name of the distribution, for example debian-12.
    #[arg(long, value_name = "NAME")]
    pub distribution: String,
    /// Note versions as they were before stable updates (+deb12u1), so that targets without them are covered. Where such an update
    /// brought a new upstream version (~deb12u1), the older one is not known, and that of the root is noted.
    #[arg(long)]
    pub oldest: bool,
    /// The file to write: bases/NAME.toml beside the manifest.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn mirrors_are_two_urls() {
        assert!(parse_mirror("https://dl.k8s.io/=file:///srv/k8s/").is_ok());
        for wrong in ["https://dl.k8s.io/", "https://dl.k8s.io/=/srv", "x=https://y/"] {
            assert!(parse_mirror(wrong).is_err(), "{wrong}");
        }
    }
}
