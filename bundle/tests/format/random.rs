//! Random input: what is packed is unpacked the same, and no parser panics or accepts noise.

use std::collections::BTreeMap;
use std::io::{self, Read};

use bundle::component::{Component, File, Kind, Role};
use bundle::fake::{self, Fake};
use bundle::layer::{PackEntry, Source, pack};
use bundle::sign::Signature;
use bundle::{Digest, Discard, Image, LayerPath, PublicKey, Sink, UnverifiedBundle};
use proptest::prelude::*;

/// Keeps the files of one component.
#[derive(Default)]
struct Files(BTreeMap<String, (u32, Vec<u8>)>);

impl Sink for Files {
    fn begin(&mut self, image: &Image) -> io::Result<bool> {
        Ok(image.component.name.as_str() == "random")
    }

    fn directory(&mut self, _: &Image, _: &LayerPath) -> io::Result<()> {
        Ok(())
    }

    fn file(&mut self, _: &Image, path: &LayerPath, mode: u32, _: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        self.0.insert(path.to_string(), (mode, bytes));
        Ok(())
    }

    fn symlink(&mut self, _: &Image, path: &LayerPath, target: &str) -> io::Result<()> {
        self.0.insert(path.to_string(), (0, target.as_bytes().to_vec()));
        Ok(())
    }

    fn blob(&mut self, _: &Image, _: &Digest, _: u64, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

fn files() -> impl Strategy<Value = BTreeMap<String, (u32, Vec<u8>)>> {
    let path = proptest::collection::vec("[a-zA-Z0-9ü _.+-]{1,12}", 1..5)
        .prop_map(|parts| parts.join("/"))
        .prop_filter("a layer path", |path| path.parse::<LayerPath>().is_ok() && !path.contains(".wh."));
    let mode = prop_oneof![Just(0o755), Just(0o644), Just(0o555), Just(0o444), Just(0o700), Just(0o600)];
    let content = proptest::collection::vec(any::<u8>(), 0..2000);
    // A path that is also the parent of another cannot be a file.
    proptest::collection::btree_map(path, (mode, content), 0..12).prop_map(|files| {
        let paths = files.keys().cloned().collect::<Vec<_>>();
        let parent = |path: &String| paths.iter().any(|other| other.starts_with(&format!("{path}/")));
        files.into_iter().filter(|(path, _)| !parent(path)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn layers_come_out_as_they_went_in(files in files(), level in 1..=19, workers in 0_u32..4) {
        let entries = files.iter().map(|(path, (mode, bytes))| {
            let source = Source::Bytes(bytes.clone());
            (path.parse().unwrap(), PackEntry::Regular { mode: *mode, source })
        });
        let entries = entries.collect::<BTreeMap<_, _>>();
        let one = pack(entries.clone(), level, workers, io::sink()).unwrap();
        prop_assert_eq!(&one, &pack(entries.clone(), level, 1, io::sink()).unwrap());
        let component = fake::component("random", "1", Kind::Program, &[Role::Master]).unwrap();
        let fake = Fake::new().program(component, entries);
        let bytes = fake.bytes().unwrap();
        let mut seen = Files::default();
        UnverifiedBundle::open(bytes.as_slice()).unwrap().verify(&fake.trust()).unwrap().unpack(&mut seen).unwrap();
        prop_assert_eq!(seen.0, files);
    }
}

proptest! {
    #[test]
    fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let refused = UnverifiedBundle::open(bytes.as_slice()).is_err_and(|error| error.is_refusal());
        prop_assert!(refused);
    }

    #[test]
    fn text_parsers_do_not_panic(text in ".{0,200}") {
        let _ = PublicKey::parse(&text);
        let _ = Signature::normalise(&text);
        let _ = text.parse::<Digest>();
        let _ = text.parse::<LayerPath>();
        let _ = serde_json::from_str::<File>(&text);
        let _ = serde_json::from_str::<Component>(&text);
    }

    #[test]
    fn signature_like_text_does_not_panic(a in "[A-Za-z0-9+/=]{0,120}", b in "[A-Za-z0-9+/=]{0,100}", comment in ".{0,40}") {
        let _ = Signature::normalise(&format!("untrusted comment: x\n{a}\ntrusted comment: {comment}\n{b}\n"));
        let _ = PublicKey::parse(&format!("untrusted comment: x\n{a}\n"));
    }

    #[test]
    fn a_bundle_with_a_random_splice_is_refused(at in 0_usize..20_000, bytes in proptest::collection::vec(any::<u8>(), 1..600)) {
        let fake = Fake::new();
        let good = GOOD.with(Clone::clone);
        let at = at % good.len();
        let mut bad = good.clone();
        let end = (at + bytes.len()).min(bad.len());
        bad.splice(at..end, bytes);
        let result = UnverifiedBundle::open(bad.as_slice())
            .and_then(|bundle| bundle.verify(&fake.trust()))
            .and_then(|bundle| bundle.unpack(&mut Discard));
        prop_assert_eq!(result.is_ok(), bad == good);
    }
}

thread_local! {
    static GOOD: Vec<u8> = Fake::new().bytes().unwrap();
}
