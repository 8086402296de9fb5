use std::io::Cursor;

use proptest::prelude::*;

use super::forged::Forged;
use super::*;

fn of(bytes: &[u8]) -> Result<Option<Elf>, ElfError> {
    read(&mut Cursor::new(bytes))
}

const WHOLE: Forged<'_> = Forged {
    machine: 62,
    interpreter: Some("/lib64/ld-linux-x86-64.so.2"),
    needed: &["libpcre2-8.so.0", "libc.so.6"],
    run_path: Some("$ORIGIN/../lib:/opt/x"),
    versions: &["GLIBC_2.2.5", "GLIBC_2.34", "GLIBC_2.9", "?GLIBC_2.99", "GLIBC_PRIVATE"],
};

#[test]
fn a_program_says_what_it_needs() {
    let elf = of(&WHOLE.bytes()).unwrap().unwrap();
    assert_eq!(elf.machine, "x86_64");
    assert_eq!(elf.interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
    assert_eq!(elf.needed, ["libpcre2-8.so.0", "libc.so.6"]);
    assert_eq!(elf.run_path, ["$ORIGIN/../lib", "/opt/x"]);
    assert_eq!(elf.glibc, Some("2.34".parse().unwrap()), "numbers are compared, and weak versions may be absent");
    assert_eq!(elf.unusual, ["GLIBC_PRIVATE"]);
    assert_eq!(of(&Forged { machine: 183, ..WHOLE }.bytes()).unwrap().unwrap().machine, "aarch64");
    assert_eq!(
        of(&Forged { machine: 243, ..WHOLE }.bytes()).unwrap().unwrap().machine,
        "ELF machine 243 (64 bit, little endian)"
    );
    let relative = of(&Forged { versions: &["GLIBC_2.3", "GLIBC_ABI_DT_RELR"], ..WHOLE }.bytes()).unwrap().unwrap();
    assert_eq!(relative.glibc, Some("2.36".parse().unwrap()));
    assert!(relative.unusual.is_empty());
}

#[test]
fn what_is_no_elf_file_is_none_of_our_business() {
    for bytes in [&b""[..], b"#!/bin/sh\nexit 0\n", b"\x7fEL", b"\x1f\x8b\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"] {
        assert!(of(bytes).unwrap().is_none(), "{bytes:?}");
    }
}

#[test]
fn a_table_that_is_cut_short_does_not_pass_for_a_short_table() {
    let whole = WHOLE.bytes();
    for length in 16..whole.len() {
        assert!(of(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
    }
    // The second of five versions says that it is the last.
    let at = whole.windows(4).position(|window| window == [1, 0, 5, 0]).unwrap() + 16 + 16 + 12;
    let mut shortened = whole.clone();
    assert_eq!(shortened[at], 16);
    shortened[at] = 0;
    assert!(matches!(of(&shortened), Err(ElfError::Damaged(_))));
    // A string table that says it is larger than any real one is not even tried.
    let size = whole.chunks(8).skip(29).collect::<Vec<_>>().chunks(2).position(|entry| entry[0][0] == 10).unwrap();
    let mut huge = whole;
    huge[232 + size * 16 + 8..][..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    assert!(of(&huge).unwrap_err().to_string().contains("at most"), "{:?}", of(&huge));
}

#[test]
fn versions_of_glibc_are_numbers() {
    let version = |text: &str| text.parse::<GlibcVersion>();
    assert!(version("2.9").unwrap() < version("2.36").unwrap());
    assert!(version("2.2.5").unwrap() < version("2.3").unwrap());
    assert_eq!(version("2.36").unwrap().to_string(), "2.36");
    assert_eq!(version("2.2.5").unwrap().to_string(), "2.2.5");
    for wrong in ["", "2", "2.", "2.x", "2.36-9", "2.3.4.5", "2.+3", "2.99999"] {
        assert!(version(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_panics(tail in prop::collection::vec(any::<u8>(), 0..400), class in 0..4_u8, data in 0..4_u8) {
        let file = [&[0x7f, b'E', b'L', b'F', class, data, 1][..], &tail].concat();
        let _ = of(&file);
    }

    #[test]
    fn damage_anywhere_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut file = WHOLE.bytes();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(Some(elf)) = of(&file) {
            prop_assert!(elf.needed.iter().all(|name| !name.chars().any(char::is_control)));
        }
    }
}
