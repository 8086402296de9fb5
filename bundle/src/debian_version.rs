//! Debian package versions: `[epoch:]upstream[-revision]`, ordered as dpkg orders them (deb-version(7)).

use std::cmp::Ordering;

/// Compares two versions.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (parts(left), parts(right));
    left.0.cmp(&right.0).then_with(|| compare_part(left.1, right.1)).then_with(|| compare_part(left.2, right.2))
}

/// Epoch, upstream version, revision.
fn parts(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(u64::MAX), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// The upstream part: without epoch and revision.
pub fn upstream(version: &str) -> &str {
    parts(version).1
}

/// The version before the stable updates that its suffix tells of: `2.36-9` of `2.36-9+deb12u10` or `2.36-9+deb12u10+b1`.
/// A version that an update brought as a whole (`3.0.17-1~deb12u2`) stays as it is.
pub fn before_updates(version: &str) -> &str {
    let is_update = |suffix: &str| {
        let (update, rebuild) = suffix.split_once("+b").unwrap_or((suffix, "1"));
        update.split('u').chain([rebuild]).all(|part| part.parse::<u32>().is_ok())
    };
    match version.rsplit_once("+deb") {
        Some((before, suffix)) if is_update(suffix) => before,
        _ => version,
    }
}

/// The version that a component has whose manifest wants `wanted` and whose package has version `package`: `wanted` itself
/// when the package is exactly that (a repacking suffix such as `+dfsg` or `~ds1` does not count), the package's upstream
/// version when `wanted` is a series of it (`6.1` of `6.1.153`), else `None`.
pub fn component_version<'a>(package: &'a str, wanted: &'a str) -> Option<&'a str> {
    let upstream = upstream(package);
    match upstream.strip_prefix(wanted)? {
        rest if rest.is_empty() || rest.starts_with(['+', '~']) => Some(wanted),
        rest if rest.starts_with('.') => Some(upstream),
        _ => None,
    }
}

/// Alternates between non-digits (`~` before the end, letters before all else) and numbers.
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        let (a, b) =
            (split(&mut left, |byte| !byte.is_ascii_digit()), split(&mut right, |byte| !byte.is_ascii_digit()));
        for at in 0..a.len().max(b.len()) {
            let ordering = weight(a.get(at)).cmp(&weight(b.get(at)));
            if ordering != Ordering::Equal {
                return ordering;
            }
        }
        let (a, b) = (split(&mut left, u8::is_ascii_digit), split(&mut right, u8::is_ascii_digit));
        let ordering = number(a).cmp(&number(b));
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

fn split<'a>(rest: &mut &'a [u8], belongs: impl Fn(&u8) -> bool) -> &'a [u8] {
    let end = rest.iter().position(|byte| !belongs(byte)).unwrap_or(rest.len());
    let (part, after) = rest.split_at(end);
    *rest = after;
    part
}

fn weight(byte: Option<&u8>) -> u16 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(letter) if letter.is_ascii_alphabetic() => 2 + u16::from(*letter),
        Some(other) => 300 + u16::from(*other),
    }
}

/// Length without leading zeros, then digits: numbers of any size.
fn number(digits: &[u8]) -> (usize, &[u8]) {
    let start = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    (digits.len() - start, &digits[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_as_dpkg_orders_them() {
        let ascending = [
            "1.0~~",
            "1.0~~a",
            "1.0~",
            "1.0~rc1-1",
            "1.0",
            "1.0-0.1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb12u1",
            "1.0-2",
            "1.0a",
            "1.0+dfsg-1",
            "1.0.1",
            "1.2",
            "1.10",
            "0:1.11",
            "2.0",
            "10.0",
            "1:0.1",
            "1:0.1-1",
            "2:0",
        ];
        for (low, high) in ascending.iter().zip(&ascending[1..]) {
            assert_eq!(compare(low, high), Ordering::Less, "{low} {high}");
            assert_eq!(compare(high, low), Ordering::Greater, "{high} {low}");
        }
        for (a, b) in [("1.0", "0:1.0"), ("1.01", "1.1"), ("1.0-0", "1.0"), ("007", "7")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    #[test]
    fn stable_updates_are_taken_off() {
        for (version, before) in [
            ("2.36-9+deb12u10", "2.36-9"),
            ("1:2.0-3+deb12u1", "1:2.0-3"),
            ("3.0.17-1~deb12u2", "3.0.17-1~deb12u2"),
            ("2.6.1", "2.6.1"),
            ("1.0-1+debian1", "1.0-1+debian1"),
            ("1.0-1+deb12u1+b2", "1.0-1"),
            ("1.0-1+deb12u1+bpo", "1.0-1+deb12u1+bpo"),
        ] {
            assert_eq!(before_updates(version), before);
        }
    }

    #[test]
    fn upstream_versions_are_recognised() {
        for (package, version) in [
            ("3.4.23+dfsg-4+b5", "3.4.23"),
            ("1.6.20~ds1-1+deb12u1", "1.6.20"),
            ("1:1.22.1-9", "1.22.1"),
            ("6.1.153-1", "6.1.153"),
        ] {
            assert_eq!(component_version(package, version), Some(version), "{package}");
        }
        assert_eq!(component_version("3.4.23+dfsg-4", "3.4.2"), None);
        assert_eq!(component_version("6.1.153-1", "6.1"), Some("6.1.153"));
        assert_eq!(component_version("6.10.3-1", "6.1"), None);
    }
}
