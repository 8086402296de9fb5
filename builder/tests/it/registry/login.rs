//! What registries are told: logins and tokens, to whom they belong and to nobody else.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use builder::source::registry::Reference;
use bundle::Architecture;

use super::{AMD64, BOTH, Shelf, User, authorizations, error, honest, host, refuse, serve, start};
use crate::server::{Server, respond};

/// A registry for which `alice` needs the password `wonderland`.
fn basic(shelf: Shelf, storage: Option<String>) -> Server {
    let right = format!("Basic {}", BASE64_STANDARD.encode("alice:wonderland"));
    start(shelf, move |request, stream| {
        if request.header("authorization") != Some(&right) {
            refuse(stream, "Basic realm=\"registry\"");
            return true;
        }
        let Some(storage) = storage.as_ref().filter(|_| request.target().contains("/blobs/")) else { return false };
        let headers = [format!("Location: {storage}{}", request.target()), "Content-Length: 0".to_owned()];
        respond(stream, "307 Temporary Redirect", &headers, b"");
        true
    })
}

#[test]
fn a_redirect_to_another_host_never_sees_the_login() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let storage = honest(shelf.clone());
    let registry = basic(shelf, Some(storage.url.clone()));
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let pinned = user.resolve(&format!("{}/app:1", host(&registry)), None, &AMD64).unwrap();
    user.fetch(&pinned, Architecture::Amd64).unwrap();
    assert!(authorizations(&registry).iter().any(Option::is_some));
    assert_eq!(authorizations(&storage), [None, None, None]);
}

#[test]
fn a_redirect_that_asks_for_a_login_gets_none() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let thief = Server::start(|_, _, stream| refuse(stream, "Basic realm=\"registry\""));
    let registry = basic(shelf, Some(thief.url.clone()));
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let pinned = user.resolve(&format!("{}/app:1", host(&registry)), None, &AMD64).unwrap();
    let text = error(user.fetch(&pinned, Architecture::Amd64));
    assert!(text.contains("401"), "{text}");
    assert!(!thief.requests().is_empty());
    assert!(authorizations(&thief).iter().all(Option::is_none));
}

#[test]
fn a_wrong_or_missing_login_is_said_without_showing_it() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let registry = basic(shelf, None);
    let user = User::new();
    let reference = format!("{}/app:1", host(&registry));
    let text = error(user.resolve(&reference, None, &AMD64));
    assert!(text.contains("wants a login") && text.contains("config.json"), "{text}");
    user.login(&registry, "alice", "looking-glass");
    let text = error(user.resolve(&reference, None, &AMD64));
    assert!(text.contains("does not let us have"), "{text}");
    assert!(
        !text.contains("looking-glass") && !text.contains(&BASE64_STANDARD.encode("alice:looking-glass")),
        "{text}"
    );
    assert!(registry.requests().len() < 8);
}

/// A registry with a token server: `pull` tokens for its repositories, given to `alice` alone.
struct Guarded {
    registry: Server,
    tokens: Server,
    valid: Arc<Mutex<String>>,
}

fn guarded(shelf: Shelf) -> Guarded {
    let valid = Arc::new(Mutex::new("one".to_owned()));
    let (given, wanted) = (valid.clone(), valid.clone());
    let login = format!("Basic {}", BASE64_STANDARD.encode("alice:wonderland"));
    let tokens = Server::start(move |_, request, stream| {
        if request.header("authorization") != Some(&login) {
            respond(stream, "401 Unauthorized", &["Content-Length: 0".to_owned()], b"");
            return;
        }
        let token = given.lock().unwrap().clone();
        // Both names are in use.
        let name = if request.target().contains("team%2Fa") { "token" } else { "access_token" };
        serve(stream, "application/json", format!(r#"{{"{name}":"{token}","expires_in":60}}"#).as_bytes());
    });
    let realm = format!("{}/token", tokens.url);
    let registry = start(shelf, move |request, stream| {
        let right = format!("Bearer {}", wanted.lock().unwrap());
        if request.header("authorization") == Some(&right) {
            return false;
        }
        let repository = request.target().trim_start_matches("/v2/").split("/manifests/").next().unwrap();
        let repository = repository.split("/blobs/").next().unwrap();
        let scope = format!("repository:{repository}:pull,push");
        refuse(stream, &format!(r#"Bearer realm="{realm}",service="the registry",scope="{scope}""#));
        true
    });
    Guarded { registry, tokens, valid }
}

#[test]
fn a_token_is_asked_for_once_a_repository_and_only_to_pull() {
    let mut shelf = Shelf::default();
    shelf.index("team/a", "1", 10);
    shelf.index("team/b", "1", 20);
    let Guarded { registry, tokens, .. } = guarded(shelf);
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let client = user.registry();
    let network = user.network();
    for repository in ["team/a", "team/b"] {
        let reference: Reference = format!("{}/{repository}:1", host(&registry)).parse().unwrap();
        let pinned = client.resolve(&reference, None, &BOTH, &network, &user.cache).unwrap();
        client.fetch(&[pinned], Architecture::Amd64, &network, &user.cache).unwrap();
    }
    let asked: Vec<String> = tokens.requests().iter().map(|request| request.target().to_owned()).collect();
    let query = |repository: &str| format!("/token?service=the+registry&scope=repository%3Ateam%2F{repository}%3Apull");
    assert_eq!(asked, [query("a"), query("b")]);
    // The password went to the token server, the token to the registry.
    let sent = authorizations(&registry);
    assert!(sent.iter().flatten().all(|sent| sent == "Bearer one"), "{sent:?}");
}

#[test]
fn a_token_that_has_expired_is_renewed() {
    let mut shelf = Shelf::default();
    shelf.index("team/a", "1", 10);
    let Guarded { registry, tokens, valid } = guarded(shelf);
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let (client, network) = (user.registry(), user.network());
    let reference: Reference = format!("{}/team/a:1", host(&registry)).parse().unwrap();
    let pinned = client.resolve(&reference, None, &AMD64, &network, &user.cache).unwrap();
    *valid.lock().unwrap() = "two".to_owned();
    client.fetch(&[pinned], Architecture::Amd64, &network, &user.cache).unwrap();
    assert!(tokens.requests().len() > 1);
}

#[test]
fn a_token_server_that_refuses_is_named_without_the_password() {
    let mut shelf = Shelf::default();
    shelf.index("team/a", "1", 10);
    let Guarded { registry, tokens, .. } = guarded(shelf);
    let user = User::new();
    let reference = format!("{}/team/a:1", host(&registry));
    let text = error(user.resolve(&reference, None, &AMD64));
    assert!(text.contains("wants a login"), "{text}");
    user.login(&registry, "alice", "looking-glass");
    let text = error(user.resolve(&reference, None, &AMD64));
    assert!(text.contains("does not accept the login") && !text.contains("looking-glass"), "{text}");
    assert_eq!(tokens.requests().len(), 2);
}

#[test]
fn a_registry_that_never_has_enough_is_left() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let tokens = Server::start(|number, _, stream| {
        serve(stream, "application/json", format!(r#"{{"token":"token-{number}"}}"#).as_bytes());
    });
    let realm = format!(r#"Bearer realm="{}/token",service="x""#, tokens.url);
    let registry = start(shelf, move |_, stream| {
        refuse(stream, &realm);
        true
    });
    let text = error(User::new().resolve(&format!("{}/app:1", host(&registry)), None, &AMD64));
    assert!(text.contains("does not let us have"), "{text}");
    assert_eq!((registry.requests().len(), tokens.requests().len()), (2, 1));
}

#[test]
fn a_token_server_without_tls_elsewhere_is_never_asked() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let registry = start(shelf, |_, stream| {
        refuse(stream, r#"Bearer realm="http://auth.example.invalid/token",service="x""#);
        true
    });
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let text = error(user.resolve(&format!("{}/app:1", host(&registry)), None, &AMD64));
    assert!(text.contains("token server") && text.contains("not https"), "{text}");
    assert!(!text.contains("wonderland"), "{text}");
}

#[test]
fn a_token_server_that_sends_us_on_does_not_take_the_password_along() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let thief = Server::start(|_, _, stream| serve(stream, "application/json", br#"{"token":"x"}"#));
    let location = format!("Location: {}/", thief.url);
    let tokens = Server::start(move |_, _, stream| {
        respond(stream, "307 Temporary Redirect", &[location.clone(), "Content-Length: 0".to_owned()], b"");
    });
    let realm = format!(r#"Bearer realm="{}/token""#, tokens.url);
    let registry = start(shelf, move |_, stream| {
        refuse(stream, &realm);
        true
    });
    let user = User::new();
    user.login(&registry, "alice", "wonderland");
    let _ = user.resolve(&format!("{}/app:1", host(&registry)), None, &AMD64);
    assert!(authorizations(&tokens).iter().all(Option::is_some));
    assert!(authorizations(&thief).iter().all(Option::is_none));
}

#[test]
fn a_login_is_for_its_own_host_only() {
    let mut shelf = Shelf::default();
    shelf.index("app", "1", 10);
    let (mine, theirs) = (basic(shelf.clone(), None), basic(shelf, None));
    let user = User::new();
    user.login(&mine, "alice", "wonderland");
    assert!(user.resolve(&format!("{}/app:1", host(&mine)), None, &AMD64).is_ok());
    // The same machine, another port: another registry.
    assert!(user.resolve(&format!("{}/app:1", host(&theirs)), None, &AMD64).is_err());
    // A mirror is another registry, too.
    let mirror = (format!("{}/", mine.url), format!("{}/", theirs.url));
    let mirrored = User { mirrors: vec![mirror], ..user };
    assert!(mirrored.resolve(&format!("{}/app:1", host(&mine)), None, &AMD64).is_err());
    assert!(authorizations(&theirs).iter().all(Option::is_none));
}

/// A user for whom an identity token is kept, as cloud registries give them.
fn identified(registry: &Server) -> User {
    let user = User::new();
    let text = format!(r#"{{"auths":{{"{}":{{"identitytoken":"looking-glass"}}}}}}"#, host(registry));
    fs_err::write(user.config(), text).unwrap();
    user
}

#[test]
fn an_identity_token_is_posted_and_exchanged() {
    let mut shelf = Shelf::default();
    shelf.index("team/a", "1", 10);
    let tokens = Server::start(|_, request, stream| {
        if request.body().contains("refresh_token=looking-glass") {
            serve(stream, "application/json", br#"{"access_token":"one","refresh_token":"two"}"#);
        } else {
            respond(stream, "400 Bad Request", &["Content-Length: 0".to_owned()], b"");
        }
    });
    let challenge = format!(r#"Bearer realm="{}/oauth2/token",service="x y""#, tokens.url);
    let registry = start(shelf, move |request, stream| {
        let right = request.header("authorization") == Some("Bearer one");
        if !right {
            refuse(stream, &challenge);
        }
        !right
    });
    identified(&registry).resolve(&format!("{}/team/a:1", host(&registry)), None, &BOTH).unwrap();
    let [asked] = &tokens.requests()[..] else { panic!("{:?}", tokens.requests()) };
    assert_eq!(asked.target(), "/oauth2/token");
    let fields = "service=x+y&scope=repository%3Ateam%2Fa%3Apull&grant_type=refresh_token&client_id=sealift-builder";
    assert_eq!(asked.body(), format!("{fields}&refresh_token=looking-glass"));
    assert!(authorizations(&registry).iter().flatten().all(|sent| sent == "Bearer one"));
}

#[test]
fn an_identity_token_follows_no_redirect() {
    let mut shelf = Shelf::default();
    shelf.index("team/a", "1", 10);
    let thief = Server::start(|_, _, stream| serve(stream, "application/json", br#"{"access_token":"one"}"#));
    let location = format!("Location: {}/", thief.url);
    let tokens = Server::start(move |_, _, stream| {
        respond(stream, "307 Temporary Redirect", &[location.clone(), "Content-Length: 0".to_owned()], b"");
    });
    let challenge = format!(r#"Bearer realm="{}/token""#, tokens.url);
    let registry = start(shelf, move |_, stream| {
        refuse(stream, &challenge);
        true
    });
    let user = identified(&registry);
    // Nor a mirror.
    let mirror = (format!("{}/", tokens.url), format!("{}/", thief.url));
    for user in [User { mirrors: vec![mirror], ..identified(&registry) }, user] {
        let text = error(user.resolve(&format!("{}/team/a:1", host(&registry)), None, &AMD64));
        assert!(text.contains("answered 307") && !text.contains("looking-glass"), "{text}");
    }
    assert_eq!((tokens.requests().len(), thief.requests().len()), (2, 0));
}
