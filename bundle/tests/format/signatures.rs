//! Who is believed, and who is not.

use std::io::Cursor;

use bundle::fake::{self, Fake, Key};
use bundle::sign::{SecretKey, Signature, generate_keypair, sign_index};
use bundle::{Bundle, Discard, Error, PublicKey, Reason, Trust, UnverifiedBundle};

fn verify<'a>(bytes: &'a [u8], trust: &Trust) -> Result<Bundle<&'a [u8]>, Error> {
    UnverifiedBundle::open(bytes)?.verify(trust)
}

fn reason(result: Result<Bundle<&[u8]>, Error>) -> Reason {
    result.unwrap_err().refusal().expect("a refusal").reason
}

#[test]
fn trust_needs_keys_and_a_threshold_they_can_reach() {
    let publisher = || Key::Publisher.public().unwrap();
    assert!(Trust::new(vec![], 1).is_err());
    assert!(Trust::new(vec![publisher()], 0).is_err());
    assert!(Trust::new(vec![publisher()], 2).is_err());
    assert!(Trust::new(vec![publisher(), publisher()], 2).is_err(), "the same key twice is one key");
    assert!(Trust::new(vec![publisher(), Key::Other.public().unwrap()], 2).is_ok());
}

/// The same public key under another key id: the key id is no identity.
fn renamed(key: &PublicKey) -> PublicKey {
    use base64::Engine as _;
    let base64 = &base64::engine::general_purpose::STANDARD;
    let mut bytes = base64.decode(key.to_text().lines().nth(1).unwrap()).unwrap();
    bytes[2..10].copy_from_slice(&[7; 8]);
    PublicKey::parse(&base64.encode(bytes)).unwrap()
}

#[test]
fn distinct_keys_are_counted_not_key_ids() {
    let publisher = Key::Publisher.public().unwrap();
    let alias = renamed(&publisher);
    assert_ne!(alias.key_id(), publisher.key_id());
    assert!(Trust::new(vec![publisher.clone(), alias.clone()], 2).is_err());

    // One key signs twice, under two ids, to look like two of three.
    let trust = Trust::new(vec![publisher.clone(), alias.clone(), Key::Other.public().unwrap()], 2).unwrap();
    let layout = Fake::new().layout().unwrap();
    let one = sign_index(&Key::Publisher.secret().unwrap(), layout.index_bytes(), layout.release()).unwrap();
    let other = {
        use base64::Engine as _;
        let base64 = &base64::engine::general_purpose::STANDARD;
        let mut lines = one.text().lines().map(str::to_owned).collect::<Vec<_>>();
        let mut bytes = base64.decode(&lines[1]).unwrap();
        bytes[2..10].copy_from_slice(&[7; 8]);
        lines[1] = base64.encode(bytes);
        Signature::normalise(&lines.join("\n")).unwrap()
    };
    let mut bytes = Vec::new();
    layout.write(&mut bytes, &[one, other]).unwrap();
    assert_eq!(reason(verify(&bytes, &trust)), Reason::Signature);
    let one_is_enough = Trust::new(vec![publisher, alias], 1).unwrap();
    assert!(verify(&bytes, &one_is_enough).is_ok());
}

#[test]
fn a_threshold_is_reached_by_distinct_signers_only() {
    let both = [Key::Publisher, Key::Other];
    let two = Fake::new().signed_by(&both).bytes().unwrap();
    let one = Fake::new().signed_by(&[Key::Publisher]).bytes().unwrap();
    assert_eq!(verify(&two, &fake::trust(&both, 2)).unwrap().signers().len(), 2);
    assert_eq!(reason(verify(&one, &fake::trust(&both, 2))), Reason::Signature);
    assert!(verify(&one, &fake::trust(&both, 1)).is_ok());
}

#[test]
fn strangers_are_ignored() {
    let two = Fake::new().signed_by(&[Key::Publisher, Key::Other]).bytes().unwrap();
    let bundle = verify(&two, &fake::trust(&[Key::Publisher], 1)).unwrap();
    assert_eq!(bundle.signers(), [Key::Publisher.public().unwrap().key_id()]);
}

#[test]
fn a_wrong_signature_by_a_trusted_key_is_an_error_even_if_others_suffice() {
    let layout = Fake::new().layout().unwrap();
    let good = sign_index(&Key::Publisher.secret().unwrap(), layout.index_bytes(), layout.release()).unwrap();
    let wrong = Key::Other.secret().unwrap().sign(b"else", &layout.release().trusted_comment()).unwrap();
    let mut bytes = Vec::new();
    layout.write(&mut bytes, &[good, wrong]).unwrap();
    let both = fake::trust(&[Key::Publisher, Key::Other], 1);
    assert_eq!(reason(verify(&bytes, &both)), Reason::Signature);
    assert!(verify(&bytes, &fake::trust(&[Key::Publisher], 1)).is_ok());
}

#[test]
fn a_signature_can_be_added_to_a_finished_bundle() {
    let unsigned = Fake::new().signed_by(&[]).bytes().unwrap();
    let mut bytes = unsigned;
    for key in [Key::Publisher, Key::Other, Key::Publisher] {
        let open = UnverifiedBundle::open(Cursor::new(bytes.clone())).unwrap();
        let (index, release) = open.unsigned_index().unwrap();
        let signature = sign_index(&key.secret().unwrap(), index, &release).unwrap();
        let mut more = Vec::new();
        open.add_signature(signature, &mut more).unwrap();
        bytes = more;
    }
    let both = fake::trust(&[Key::Publisher, Key::Other], 2);
    let bundle = verify(&bytes, &both).unwrap();
    assert_eq!(bundle.signers().len(), 2);
    bundle.unpack(&mut Discard).unwrap();
    let direct = Fake::new().signed_by(&[Key::Publisher, Key::Other]).bytes().unwrap();
    assert_eq!(bytes.len(), direct.len());
}

#[test]
fn an_unsigned_bundle_can_be_inspected_but_not_verified() {
    let unsigned = Fake::new().signed_by(&[]).bytes().unwrap();
    assert_eq!(reason(verify(&unsigned, &Fake::new().trust())), Reason::Signature);
    let bundle = UnverifiedBundle::open(unsigned.as_slice()).unwrap().without_signatures().unwrap();
    assert!(bundle.signers().is_empty());
    bundle.unpack(&mut Discard).unwrap();
}

#[test]
fn signatures_of_other_minisign_programs_are_brought_into_our_spelling() {
    let ours = Key::Publisher.secret().unwrap().sign(b"index", "comment").unwrap();
    let foreign =
        ours.text().replace("sealift bundle signature", "signature from minisign secret key").replace('\n', "\r\n");
    assert_eq!(Signature::normalise(&foreign).unwrap().text(), ours.text());
    assert!(Signature::normalise(&foreign.replace("trusted comment: comment", "trusted comment: x\ty")).is_err());
    assert!(Signature::normalise(&format!("{foreign}{}", "x".repeat(5000))).is_ok(), "what follows is not kept");
}

#[test]
fn new_keys_sign_with_and_without_a_password() {
    let (secret, public) = generate_keypair(None).unwrap();
    let secret = SecretKey::parse(&secret, None).unwrap();
    let public = PublicKey::parse(&public).unwrap();
    assert_eq!(secret.public_key().key_id(), public.key_id());
    let layout = Fake::new().layout().unwrap();
    let signature = sign_index(&secret, layout.index_bytes(), layout.release()).unwrap();
    let mut bytes = Vec::new();
    layout.write(&mut bytes, &[signature]).unwrap();
    assert!(verify(&bytes, &Trust::new(vec![public], 1).unwrap()).is_ok());
}

/// Slow: minisign's scrypt takes a gigabyte of memory and a second, three times.
#[test]
fn a_password_protects_a_secret_key() {
    let (secret, _) = generate_keypair(Some("correct horse")).unwrap();
    assert!(SecretKey::parse(&secret, Some("correct horse")).is_ok());
    assert!(SecretKey::parse(&secret, Some("wrong")).is_err());
    assert!(SecretKey::parse(&secret, None).is_err());
}

#[test]
fn refusals_say_what_where_and_what_to_do() {
    let bytes = Fake::new().signed_by(&[Key::Other]).bytes().unwrap();
    let error = verify(&bytes, &Fake::new().trust()).unwrap_err();
    let expected = format!(
        "bundle refused: `index.json`: expected 1 signature by trusted keys ({}), found 0 by trusted keys; the bundle is signed by {}",
        Key::Publisher.public().unwrap().key_id(),
        Key::Other.public().unwrap().key_id(),
    );
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().unwrap().contains("key"));
}
