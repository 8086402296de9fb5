//! `[kernel]`: which kernel the nodes shall run, and what happens when the wanted one does not come up.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::check::Wrong;

/// How long a kernel on trial has by itself, from its start to its acceptance.
const TRIAL: Duration = Duration::from_secs(600);
/// Shorter ones end while a slow machine still boots; with longer ones a machine is away for too long.
const BOUNDS: std::ops::RangeInclusive<u64> = 120..=3600;

/// What to do about the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Policy.
    pub policy: KernelPolicy,
    /// What becomes of this host's installation when the kernel it is to run was tried and failed.
    pub on_failure: OnFailure,
    /// Why a reboot without a way back is accepted, on hosts whose boot loader cannot boot a kernel once.
    pub without_fallback: Option<String>,
    /// How long a kernel on trial has until it is given up.
    pub trial: Duration,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { policy: KernelPolicy::Keep, on_failure: OnFailure::Continue, without_fallback: None, trial: TRIAL }
    }
}

/// Policy for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelPolicy {
    /// Keep the running kernel.
    Keep,
    /// `require`: a running kernel that fits is kept, else the bundle's is installed.
    Require(Requirement),
    /// `exact = "bundle"`: the bundle's kernel.
    Bundle,
    /// `exact = "6.1.0-49-amd64"`: the kernel of this release (`uname -r`).
    Exact(String),
}

/// What becomes of the installation when the kernel was tried and failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It goes on, on the kernel that the host had.
    Continue,
    /// It ends with an error; the host is back on the kernel that it had.
    Stop,
}

/// One or more comparisons with the numeric part of `uname -r`, all of which must hold: `>= 6.1, < 6.13`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement(Vec<(Comparison, Vec<u32>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    AtLeast,
    Above,
    AtMost,
    Below,
    Equal,
}

/// Longest first: `>=` begins with `>`.
const COMPARISONS: [(&str, Comparison); 5] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    (">", Comparison::Above),
    ("<", Comparison::Below),
    ("=", Comparison::Equal),
];

impl Requirement {
    /// Reads `>= 6.12` or `>= 6.1, < 6.13`; `None` when it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let one = |part: &str| {
            let part = part.trim();
            let (sign, comparison) = COMPARISONS.into_iter().find(|(sign, _)| part.starts_with(sign))?;
            let numbers = part[sign.len()..].trim().split('.').map(|number| number.parse().ok());
            let numbers: Vec<u32> = numbers.collect::<Option<_>>()?;
            (numbers.len() <= 3).then_some((comparison, numbers))
        };
        text.split(',').map(one).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Whether a kernel release fits. Numbers that the requirement does not name are not looked at by `=`, and count as 0
    /// otherwise.
    pub fn fits(&self, release: &str) -> bool {
        let found = numbers(release);
        self.0.iter().all(|(comparison, wanted)| {
            let padded = |numbers: &[u32]| [0, 1, 2].map(|at| numbers.get(at).copied().unwrap_or(0));
            let order = padded(&found).cmp(&padded(wanted));
            match comparison {
                Comparison::AtLeast => order != Ordering::Less,
                Comparison::Above => order == Ordering::Greater,
                Comparison::AtMost => order != Ordering::Greater,
                Comparison::Below => order == Ordering::Less,
                Comparison::Equal => padded(&found)[..wanted.len()] == wanted[..],
            }
        })
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = |wanted| COMPARISONS.iter().find(|(_, found)| *found == wanted).map_or("", |(sign, _)| *sign);
        let part = |(comparison, wanted): &(Comparison, Vec<u32>)| {
            let numbers: Vec<String> = wanted.iter().map(u32::to_string).collect();
            format!("{} {}", sign(*comparison), numbers.join("."))
        };
        f.write_str(&self.0.iter().map(part).collect::<Vec<_>>().join(", "))
    }
}

/// The numeric part of a kernel release: `6.12.57+deb13-amd64` → 6, 12, 57. What follows it is the distribution's.
pub fn numbers(release: &str) -> Vec<u32> {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    release[..end].split('.').map_while(|number| number.parse().ok()).take(3).collect()
}

/// `[kernel]` as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawKernel {
    policy: Option<Spanned<RawPolicy>>,
    require: Option<Spanned<String>>,
    exact: Option<Spanned<String>>,
    on_failure: Option<OnFailure>,
    without_fallback: Option<Spanned<String>>,
    trial: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawPolicy {
    Keep,
}

impl RawKernel {
    /// Checks it; the first thing that is wrong.
    pub(super) fn check(self) -> Result<Kernel, Wrong> {
        let named = [
            self.policy.as_ref().map(Spanned::span),
            self.require.as_ref().map(Spanned::span),
            self.exact.as_ref().map(Spanned::span),
        ];
        let mut named: Vec<_> = named.into_iter().flatten().collect();
        named.sort_by_key(|span| span.start);
        if let Some(second) = named.into_iter().nth(1) {
            return Err(Wrong(second, "only one of `policy`, `require` and `exact` can be given".to_owned()));
        }
        let policy = match (self.require, self.exact) {
            (Some(require), _) => KernelPolicy::Require(requirement(&require)?),
            (None, Some(exact)) => exactly(exact)?,
            (None, None) => KernelPolicy::Keep,
        };
        let by_itself = match policy {
            // A demand; the others are wishes.
            KernelPolicy::Require(_) => OnFailure::Stop,
            _ => OnFailure::Continue,
        };
        Ok(Kernel {
            policy,
            on_failure: self.on_failure.unwrap_or(by_itself),
            without_fallback: self.without_fallback.map(reason).transpose()?,
            trial: self.trial.as_ref().map_or(Ok(TRIAL), trial)?,
        })
    }
}

fn requirement(text: &Spanned<String>) -> Result<Requirement, Wrong> {
    Requirement::parse(text.get_ref()).ok_or_else(|| {
        let message = "expected comparisons with a kernel release, such as `>= 6.12` or `>= 6.1, < 6.13`";
        Wrong(text.span(), message.to_owned())
    })
}

fn exactly(exact: Spanned<String>) -> Result<KernelPolicy, Wrong> {
    let (span, exact) = (exact.span(), exact.into_inner());
    let plain = exact.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+~_-".contains(&byte));
    if exact == "bundle" {
        Ok(KernelPolicy::Bundle)
    } else if plain && numbers(&exact).len() > 1 {
        Ok(KernelPolicy::Exact(exact))
    } else {
        let message = "expected `bundle`, or a kernel release as `uname -r` prints it, such as `6.1.0-49-amd64`";
        Err(Wrong(span, message.to_owned()))
    }
}

fn reason(text: Spanned<String>) -> Result<String, Wrong> {
    let (span, text) = (text.span(), text.into_inner());
    if text.trim().len() >= 3 && !text.chars().any(char::is_control) {
        return Ok(text.trim().to_owned());
    }
    Err(Wrong(span, "say why a reboot without a way back is right here: it is recorded".to_owned()))
}

fn trial(text: &Spanned<String>) -> Result<Duration, Wrong> {
    let time = crate::cli::lifetime(text.get_ref()).map_err(|message| Wrong(text.span(), message))?;
    if BOUNDS.contains(&time.as_secs()) {
        return Ok(time);
    }
    Err(Wrong(text.span(), "a kernel's trial must be between 2m and 60m".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (requirement, release, fits) in [
            (">= 6.12", "6.12.57+deb13-amd64", true),
            (">= 6.12", "6.1.0-49-amd64", false),
            (">= 6.12", "6.12-rc1", true),
            (">= 6.1", "6.1.0-49-amd64", true),
            ("> 6.1", "6.1.0-49-amd64", false),
            ("> 6.1", "6.1.153", true),
            (">= 6.1, < 6.13", "6.12.3", true),
            (">= 6.1, < 6.13", "6.13.0", false),
            ("= 6.1", "6.1.153-1-generic", true),
            ("= 6.1", "6.12.0", false),
            ("<= 5.14", "5.14.0-503.11.1.el9_5.x86_64", true),
            (">= 4", "3.10.0-1160.el7.x86_64", false),
            (">= 6", "no number at all", false),
        ] {
            let parsed = Requirement::parse(requirement).unwrap();
            assert_eq!(parsed.fits(release), fits, "{requirement} {release}");
            assert_eq!(parsed.to_string(), requirement);
        }
        for wrong in ["6.12", ">= ", ">= six", ">= 6.1.2.3", "", ">= 6,", "~ 6"] {
            assert_eq!(Requirement::parse(wrong), None, "{wrong}");
        }
        assert_eq!(numbers("6.12.57+deb13-amd64"), [6, 12, 57]);
    }
}
