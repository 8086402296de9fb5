use super::*;

const MANIFEST: &str = r#"
name = "demo"
version = "1-1"
sequence = 1
created = "2026-11-21"
architectures = ["amd64"]
distributions = ["debian-12"]
[component.etcd]
version = "3.7.1"
[[component.etcd.artifact]]
url = "https://x/etcd-{version}"
sha256 = { amd64 = "HEX" }
checksums = "https://x/SUMS"
[component.linux]
version = "6.1"
[[component.linux.artifact]]
apt = "linux-image-amd64"
follow = "linux-image-6*"
[component.nginx]
version = "1"
[component.nginx.packages.debian-12]
install = ["nginx"]
programs = { "bin/nginx" = "/usr/sbin/nginx" }
[packages.debian-12]
install = ["socat", "bash"]
suites = ["bookworm"]
[addon.dns]
version = "1"
url = "https://x/dns.yaml"
trust = "first-use"
[addon.net]
version = "1"
url = "https://x/net.yaml"
trust = "first-use"
"#;

const LOCK: &str = r#"
format = 1
name = "demo"
version = "1-1"
manifest = "sha256:HEX"
level = 12
[component.etcd]
version = "3.7.1"
amd64 = [{ url = "https://x/etcd-3.7.1", size = 1, sha256 = "sha256:HEX", proof = "checksums:https://x/SUMS" }]
[component.linux]
version = "6.1.153"
amd64 = [{ url = "apt:linux-image-6.1.0-40-amd64=6.1.153-1", size = 1, sha256 = "sha256:HEX", proof = "apt:x" }]
[component.packages-debian-12]
version = "1-1"
made = "packages"
distribution = "debian-12"
amd64 = [
  { url = "apt:socat=1", size = 1, sha256 = "sha256:HEX", proof = "apt:x" },
  { url = "apt:libwrap0=1", size = 1, sha256 = "sha256:HEX", proof = "apt:x", needed_by = "socat" },
  { url = "apt:nginx=1", size = 1, sha256 = "sha256:HEX", proof = "apt:x" },
]
[component.addon-dns]
version = "1"
made = "addon"
images = ["r.io/dns:1", "r.io/pause:1"]
amd64 = [{ url = "https://x/dns.yaml", size = 1, sha256 = "sha256:HEX", proof = "first-use" }]
[component.addon-net]
version = "1"
made = "addon"
images = ["r.io/pause:1"]
amd64 = [{ url = "https://x/net.yaml", size = 1, sha256 = "sha256:HEX", proof = "first-use" }]
[component.image-dns]
version = "1"
made = "container"
amd64 = [{ url = "image:r.io/dns:1", size = 1, sha256 = "sha256:HEX", proof = "registry" }]
[component.image-pause]
version = "1"
made = "container"
amd64 = [{ url = "image:r.io/pause:1", size = 1, sha256 = "sha256:HEX", proof = "registry" }]
"#;

fn both(manifest: &str, lock: &str) -> (Manifest, Lock, tempfile::TempDir) {
    let (hex, home) = ("0".repeat(64), tempfile::tempdir().unwrap());
    let path = home.path().join("demo.toml");
    fs_err::create_dir(home.path().join("bases")).unwrap();
    let base = "distribution = \"debian-12\"\nfamily = \"deb\"\nglibc = \"2.36\"\nlibraries = []\nprograms = []\nmodules = []\n[packages]\nbash = \"5\"\n";
    fs_err::write(home.path().join("bases/debian-12.toml"), base).unwrap();
    fs_err::write(&path, manifest.replace("HEX", &hex)).unwrap();
    (Manifest::read(&path).unwrap(), toml::from_str(&lock.replace("HEX", &hex)).unwrap(), home)
}

#[test]
fn what_does_not_follow_from_the_manifest_is_found_where_it_is() {
    let (manifest, lock, _home) = both(MANIFEST, LOCK);
    assert_eq!(misfits(&manifest, &lock), BTreeMap::new());
    for (from, to, name, says) in [
        ("3.7.1", "3.7.2", "etcd", "is 3.7.1 in the lock, 3.7.2 in the manifest"),
        ("https://x/etcd", "https://y/etcd", "etcd", "`https://y/etcd-3.7.1` in the manifest"),
        (
            "{ amd64 = \"HEX\"",
            "{ amd64 = \"1111111111111111111111111111111111111111111111111111111111111111\"",
            "etcd",
            "sha256:1111",
        ),
        ("https://x/SUMS", "https://x/OTHER", "etcd", "which the manifest does not say any more"),
        ("sha256 = { amd64", "mirrors = [\"https://m/\"]\nsha256 = { amd64", "etcd", "other mirrors"),
        ("version = \"6.1\"", "version = \"6.12\"", "linux", "is 6.1.153 in the lock, 6.12 in the manifest"),
        ("linux-image-6*", "linux-image-7*", "linux", "apt:linux-image-6.1.0-40-amd64"),
        ("\"socat\", \"bash\"", "\"socat\", \"jq\"", "packages-debian-12", "does not have `jq`"),
        ("\"socat\", \"bash\"", "\"bash\"", "packages-debian-12", "has `socat`, which the manifest does not ask for"),
        ("install = [\"nginx\"]", "install = [\"haproxy\"]", "packages-debian-12", "`nginx`"),
        ("[addon.dns]\nversion = \"1\"", "[addon.dns]\nversion = \"2\"", "addon-dns", "is 1 in the lock, 2 in"),
        ("[addon.dns]", "[addon.new]", "addon-dns", "not in the manifest any more"),
        ("[addon.dns]", "[addon.new]", "addon-new", "is not in the lock"),
    ] {
        let changed = MANIFEST.replacen(from, to, 1);
        assert_ne!(changed, MANIFEST, "{from}");
        let (manifest, lock, _home) = both(&changed, LOCK);
        let found = misfits(&manifest, &lock);
        let wrong = found.get(&name.parse().unwrap()).unwrap_or_else(|| panic!("{to}: {found:?}"));
        assert!(wrong.contains(says), "{to}: {wrong}");
        assert_eq!(found.len(), if to == "[addon.new]" { 2 } else { 1 }, "{to}: {found:?}");
    }
}

#[test]
fn what_the_lock_says_beyond_the_manifest_is_found() {
    let other = "1".repeat(64);
    let strange = "[component.packages-evil]\nversion = \"1\"\nmade = \"packages\"\n[component.image-dns]";
    let alone = "[component.image-evil]\nversion = \"1\"\nmade = \"container\"\namd64 = [{ url = \"image:r.io/evil:1\", size = 1, sha256 = \"sha256:HEX\", proof = \"registry\" }]\n[component.image-dns]";
    for (from, to, name, says) in [
        ("etcd-3.7.1\", size", "evil\", size", "etcd", "is `https://x/evil` in the lock, `https://x/etcd-3.7.1`"),
        ("sha256:HEX\", proof = \"checksums", &format!("sha256:{other}\", proof = \"checksums"), "etcd", &other),
        ("proof = \"checksums:https://x/SUMS\"", "proof = \"first-use\"", "etcd", "vouched for by first-use"),
        ("\"checksums:https://x/SUMS\"", "\"manifest\", sha512 = \"ab\"", "etcd", "SHA-512 ab in the lock, none"),
        ("proof = \"checksums", "mirrors = [\"https://e/\"], proof = \"checksums", "etcd", "`https://e/` in the lock"),
        ("proof = \"checksums", "licence = \"MIT\", proof = \"checksums", "etcd", "licence `MIT`"),
        ("version = \"3.7.1\"", "version = \"3.7.1\"\nmade = \"packages\"", "etcd", "made as packages"),
        ("amd64 = [{ url = \"https://x/etcd", "arm64 = []\namd64 = [{ url = \"https://x/etcd", "etcd", "for arm64"),
        ("proof = \"apt:x\" }]", "proof = \"manifest\" }]", "linux", "vouched for by manifest"),
        ("proof = \"apt:x\", needed_by", "proof = \"manifest\", needed_by", "packages-debian-12", "by manifest"),
        ("\"apt:libwrap0=1\"", "\"https://evil/x.deb\"", "packages-debian-12", "is no package"),
        ("made = \"packages\"", "made = \"kernel\"", "packages-debian-12", "made as kernel"),
        ("\"debian-12\"", "\"el9\"", "packages-debian-12", "distribution el9 in the lock, debian-12"),
        ("[component.image-dns]", strange, "packages-evil", "is not in the manifest"),
        ("[component.image-dns]", alone, "image-evil", "which no addon needs"),
        ("proof = \"registry\"", "proof = \"manifest\"", "image-dns", "by manifest in the lock, by registry"),
        ("made = \"container\"", "made = \"packages\"", "image-dns", "made as packages"),
    ] {
        let changed = LOCK.replacen(from, to, 1);
        assert_ne!(changed, LOCK, "{from}");
        let (manifest, lock, _home) = both(MANIFEST, &changed);
        let found = misfits(&manifest, &lock);
        let wrong = found.get(&name.parse().unwrap()).unwrap_or_else(|| panic!("{to}: {found:?}"));
        assert!(wrong.contains(says), "{to}: {wrong}");
        assert_eq!(found.len(), 1, "{to}: {found:?}");
    }
}

#[test]
fn an_addon_takes_the_images_with_it_that_nobody_else_needs() {
    let (manifest, lock, _home) = both(MANIFEST, LOCK);
    let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<BTreeSet<ComponentName>>();
    assert_eq!(images(&lock, &names(&["addon-dns"])), names(&["image-dns"]));
    assert_eq!(images(&lock, &names(&["addon-dns", "addon-net"])), names(&["image-dns", "image-pause"]));
    let only = narrowed(&manifest, &names(&["packages-debian-12", "addon-net"])).release;
    assert_eq!((only.addons.len(), only.packages.len(), only.components.len()), (1, 1, 1), "nginx brings packages");
    assert!(narrowed(&manifest, &names(&["etcd"])).release.packages.is_empty());
}
