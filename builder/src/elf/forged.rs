//! Small ELF files for tests: only what the loader reads, nothing that could run.

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forged<'a> {
    /// `e_machine`: 62 is x86-64, 183 AArch64.
    pub(crate) machine: u16,
    /// The loader.
    pub(crate) interpreter: Option<&'a str>,
    /// `DT_NEEDED`.
    pub(crate) needed: &'a [&'a str],
    /// `DT_RUNPATH`.
    pub(crate) run_path: Option<&'a str>,
    /// Symbol versions of libc.so.6 that it needs; those that start with `?` are weak.
    pub(crate) versions: &'a [&'a str],
}

impl Default for Forged<'_> {
    fn default() -> Self {
        Self { machine: 62, interpreter: None, needed: &[], run_path: None, versions: &[] }
    }
}

impl Forged<'_> {
    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut strings = vec![0];
        let mut name = |text: &str| {
            let at = strings.len() as u64;
            strings.extend(text.bytes().chain([0]));
            at
        };
        let mut entries: Vec<(u64, u64)> = self.needed.iter().map(|library| (1, name(library))).collect();
        entries.extend(self.run_path.map(|path| (29, name(path))));
        let (libc, versions) = (name("libc.so.6"), self.versions);
        let named: Vec<(u16, u64)> = versions
            .iter()
            .map(|version| (if version.starts_with('?') { 2 } else { 0 }, name(version.trim_start_matches('?'))))
            .collect();
        let mut needs = Vec::new();
        if !named.is_empty() {
            needs.extend([1, u16::try_from(named.len()).unwrap()].iter().flat_map(|number| number.to_le_bytes()));
            needs.extend([u32::try_from(libc).unwrap(), 16, 0].iter().flat_map(|number| number.to_le_bytes()));
        }
        for (at, (flags, version)) in named.iter().enumerate() {
            let next: u32 = if at + 1 == named.len() { 0 } else { 16 };
            needs.extend(0_u32.to_le_bytes());
            needs.extend([*flags, 2].iter().flat_map(|number| number.to_le_bytes()));
            needs.extend([u32::try_from(*version).unwrap(), next].iter().flat_map(|number| number.to_le_bytes()));
        }
        let interpreter = self.interpreter.map(|path| [path.as_bytes(), &[0]].concat()).unwrap_or_default();

        let headers = 64 + 3 * 56;
        let dynamic = (entries.len() as u64 + 5) * 16;
        let (versions_at, strings_at) = (headers + dynamic, headers + dynamic + needs.len() as u64);
        let interpreter_at = strings_at + strings.len() as u64;
        entries.extend([(5, strings_at), (10, strings.len() as u64)]);
        if needs.is_empty() {
            entries.extend([(0, 0); 2]);
        } else {
            entries.extend([(0x6fff_fffe, versions_at), (0x6fff_ffff, 1)]);
        }
        entries.push((0, 0));
        let end = interpreter_at + interpreter.len() as u64;

        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend([3, self.machine].iter().flat_map(|number| number.to_le_bytes()));
        file.extend(1_u32.to_le_bytes());
        file.extend([0_u64, 64, 0].iter().flat_map(|number| number.to_le_bytes()));
        file.extend(0_u32.to_le_bytes());
        file.extend([64_u16, 56, 3, 0, 0, 0].iter().flat_map(|number| number.to_le_bytes()));
        // Without a loader the third header is of a kind that means nothing.
        let third = if interpreter.is_empty() { 0 } else { 3 };
        for (kind, at, size) in
            [(1_u32, 0, end), (2, headers, dynamic), (third, interpreter_at, interpreter.len() as u64)]
        {
            file.extend([kind, 4].iter().flat_map(|number| number.to_le_bytes()));
            file.extend([at, at, at, size, size, 8].iter().flat_map(|number| number.to_le_bytes()));
        }
        file.extend(entries.iter().flat_map(|(tag, value)| [*tag, *value]).flat_map(u64::to_le_bytes));
        [file, needs, strings, interpreter].concat()
    }
}
