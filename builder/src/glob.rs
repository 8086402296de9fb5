//! Glob patterns over paths inside archives: `*` and `?` stay within one path component, `**` crosses them.

/// Whether `path` matches `pattern`.
pub fn matches(pattern: &str, path: &str) -> bool {
    matches_bytes(pattern.as_bytes(), path.as_bytes())
}

fn matches_bytes(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*', b'/', rest @ ..] => {
            // `**/` matches nothing or any number of whole components.
            matches_bytes(rest, path)
                || path.iter().enumerate().any(|(at, byte)| *byte == b'/' && matches_bytes(rest, &path[at + 1..]))
        }
        [b'*', b'*', rest @ ..] => (0..=path.len()).any(|at| matches_bytes(rest, &path[at..])),
        [b'*', rest @ ..] => {
            let component = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
            (0..=component).any(|at| matches_bytes(rest, &path[at..]))
        }
        [b'?', rest @ ..] => path.first().is_some_and(|byte| *byte != b'/') && matches_bytes(rest, &path[1..]),
        [literal, rest @ ..] => path.first() == Some(literal) && matches_bytes(rest, &path[1..]),
    }
}

/// Up to three of `names` that look most like `pattern`: same file name, or a file name close to it.
pub fn near_misses<'a>(pattern: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let wanted = last(pattern);
    let mut scored: Vec<(usize, &str)> = names
        .map(|name| {
            let file = last(name);
            let score = if matches(&wanted, &file) { 0 } else { 1 + distance(&wanted, &file) };
            (score, name)
        })
        .filter(|(score, _)| *score <= 1 + wanted.len() / 3)
        .collect();
    scored.sort_unstable();
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Levenshtein distance over bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut previous = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let substituted = previous + usize::from(a != b);
            previous = row[j + 1];
            row[j + 1] = substituted.min(previous + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_a_component_and_double_stars_do_not() {
        for (pattern, path) in [
            ("usr/bin/etcd", "usr/bin/etcd"),
            ("usr/*/etcd", "usr/bin/etcd"),
            ("**/etcd", "usr/bin/etcd"),
            ("**/etcd", "etcd"),
            ("usr/lib/*-linux-gnu/libz.so.?", "usr/lib/x86_64-linux-gnu/libz.so.1"),
            ("etcd-v3.?.*-linux-amd64/etcd", "etcd-v3.6.1-linux-amd64/etcd"),
            ("a/**", "a/b/c"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*/etcd", "usr/bin/etcd"),
            ("usr/bin/etcd", "usr/bin/etcdctl"),
            ("etcd", "usr/bin/etcd"),
            ("usr/bin/?", "usr/bin/"),
            ("usr?bin", "usr/bin"),
            ("**/etcd", "usr/bin/xetcd"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn near_misses_name_what_was_probably_meant() {
        let names = ["usr/bin/etcdctl", "usr/sbin/etcd", "usr/share/doc/copyright"];
        assert_eq!(near_misses("usr/bin/etcd", names.into_iter())[0], "usr/sbin/etcd");
    }
}
