//! What is written is read back.

use bundle::fake::Fake;
use bundle::{Discard, UnverifiedBundle};

#[test]
fn a_good_bundle_is_accepted() {
    let fake = Fake::new();
    let bytes = fake.bytes().unwrap();
    let bundle = UnverifiedBundle::open(bytes.as_slice()).unwrap().verify(&fake.trust()).unwrap();
    let summary = bundle.unpack(&mut Discard).unwrap();
    assert_eq!(summary.bundle_size, bytes.len() as u64);
}
