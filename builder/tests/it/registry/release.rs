//! Whole commands on a manifest with container images.

use std::os::unix::fs::PermissionsExt as _;

use bundle::Digest;

use super::{Shelf, honest, host, refuse, start};
use crate::server::Server;
use crate::workshop::{Workshop, stderr, stdout};

/// The workshop's release with one more component, an image of `registry.invalid`.
fn with_image(image: &str) -> Workshop {
    let shop = Workshop::new(1000);
    let manifest = fs_err::read_to_string(shop.path("release/demo.toml")).unwrap();
    let image = format!("{manifest}\n[component.app]\nversion = \"1.0\"\n[[component.app.artifact]]\n{image}\n");
    shop.write("release/demo.toml", image.as_bytes());
    let recipe = "name = \"app\"\ndescription = \"x\"\nkind = \"container\"\nroles = [\"master\"]\nlicence = \"MIT\"\n";
    shop.write("release/components/app/component.toml", recipe.as_bytes());
    shop
}

fn mirror(registry: &Server) -> String {
    format!("https://registry.invalid/={}/", registry.url)
}

fn lock(shop: &Workshop, registry: &Server) -> assert_cmd::assert::Assert {
    shop.builder("lock").arg("--mirror").arg(mirror(registry)).arg("release/demo.toml").assert()
}

#[test]
fn an_image_is_locked_and_packed_and_then_read_by_the_reader_of_bundles() {
    let mut shelf = Shelf::default();
    let digest = shelf.index("team/app", "1.0", 10);
    let registry = honest(shelf.clone());
    let shop = with_image("image = \"registry.invalid/team/app:{version}\"");
    lock(&shop, &registry).success();
    let text = fs_err::read_to_string(shop.path("release/demo.lock")).unwrap();
    for line in
        ["url = \"image:registry.invalid/team/app:1.0\"", "proof = \"registry\"", &format!("sha256 = \"{digest}\"")]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    // What the lock has, is kept: also when the tag is moved.
    let mut moved = shelf.clone();
    let new = moved.index("team/app", "1.0", 20);
    let other = honest(moved.clone());
    lock(&shop, &other).success();
    let mut check = shop.builder("lock");
    let check = check.arg("--mirror").arg(mirror(&other)).args(["--check", "release/demo.toml"]).assert().failure();
    assert!(stdout(&check).contains(&new.hex()), "{}", stdout(&check));
    assert_eq!(fs_err::read_to_string(shop.path("release/demo.lock")).unwrap(), text);

    let fetch =
        shop.builder("fetch").arg("--mirror").arg(mirror(&registry)).arg("release/demo.toml").assert().success();
    assert!(stdout(&fetch).contains("4 artifacts"), "{}", stdout(&fetch));
    drop(registry);
    shop.build("one").arg("--offline").assert().success();
    shop.build("two").arg("--offline").assert().success();
    let bundle = fs_err::read(shop.bundle("one")).unwrap();
    assert_eq!(bundle, fs_err::read(shop.bundle("two")).unwrap());
    // Verbatim: every blob of ours is in it, and no other architecture's.
    let layer = |seed: u32| crate::workshop::bytes(seed, 20_000);
    let has = |content: &[u8]| bundle.windows(content.len()).any(|part| part == content);
    assert!(has(&layer(10)[..2000]) && has(&layer(77)[..2000]) && !has(&layer(12)[..2000]));
    let inspect = crate::workshop::plain().args(["inspect", "--json"]).arg(shop.bundle("one")).assert().success();
    let text = stdout(&inspect);
    assert!(text.contains("registry.invalid/team/app:1.0") && text.contains(&digest.to_string()), "{text}");
}

#[test]
fn a_digest_of_the_manifest_is_held_against_the_registry() {
    let mut shelf = Shelf::default();
    let digest = shelf.index("team/app", "1.0", 10);
    let registry = honest(shelf);
    let wrong = Digest::of(b"wrong");
    let shop = with_image(&format!("image = \"registry.invalid/team/app:1.0\"\ndigest = \"{wrong}\""));
    let text = stderr(&lock(&shop, &registry).failure());
    assert!(text.contains(&wrong.to_string()) && text.contains(&digest.to_string()), "{text}");
    shop.edit("release/demo.toml", &wrong.to_string(), &digest.to_string());
    lock(&shop, &registry).success();
    assert!(fs_err::read_to_string(shop.path("release/demo.lock")).unwrap().contains("proof = \"registry\""));
}

#[test]
fn an_image_that_is_not_reached_stays_unresolved() {
    let shop = with_image("image = \"registry.invalid/team/app:1.0\"");
    let lock = shop.builder("lock").args(["--offline", "release/demo.toml"]).assert().success();
    let text = stderr(&lock);
    assert!(text.contains("app (amd64): image:registry.invalid/team/app:1.0: digest and size not known"), "{text}");
    let refused = stderr(&shop.build("out").assert().failure());
    assert!(refused.contains("`app`: image:registry.invalid/team/app:1.0"), "{refused}");
}

#[test]
fn a_helper_is_asked_for_the_login_and_nothing_of_it_is_shown() {
    let mut shelf = Shelf::default();
    shelf.index("team/app", "1.0", 10);
    // alice:wonderland
    let registry = start(shelf, |request, stream| {
        let right = request.header("authorization") == Some("Basic YWxpY2U6d29uZGVybGFuZA==");
        if !right {
            refuse(stream, "Basic realm=\"x\"");
        }
        !right
    });
    let shop = with_image("image = \"registry.invalid/team/app:1.0\"");
    let helper = "#!/bin/sh\ntest \"$1\" = get || exit 1\nread server\ntest \"$server\" = \"$EXPECTED\" || exit 1\n\
                  echo '{\"ServerURL\":\"x\",\"Username\":\"alice\",\"Secret\":\"wonderland\"}'\n";
    shop.write("bin/docker-credential-ours", helper.as_bytes());
    let executable = std::fs::Permissions::from_mode(0o755);
    fs_err::set_permissions(shop.path("bin/docker-credential-ours"), executable).unwrap();
    shop.write("docker/config.json", format!(r#"{{"credHelpers":{{"{}":"ours"}}}}"#, host(&registry)).as_bytes());
    let lock = |expected: &str| {
        let mut lock = shop.builder("lock");
        lock.arg("--mirror").arg(mirror(&registry)).arg("release/demo.toml");
        lock.env("PATH", format!("{}:/usr/bin:/bin", shop.path("bin").display()));
        lock.env("DOCKER_CONFIG", shop.path("docker")).env("EXPECTED", expected).assert()
    };
    let text = stderr(&lock("another").failure());
    assert!(text.contains("`docker-credential-ours` gives no credentials") && !text.contains("wonderland"), "{text}");
    let done = lock(&host(&registry)).success();
    assert!(!format!("{}{}", stdout(&done), stderr(&done)).contains("wonderland"));
}
