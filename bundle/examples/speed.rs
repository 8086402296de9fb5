//! Measures the format on real files: `speed make BUNDLE DIRECTORY...` packs directories as components into a bundle signed
//! with the published test key; `speed verify BUNDLE`, `speed hash BUNDLE` and `speed unpack BUNDLE DIRECTORY` read it (`-` is standard input).

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bundle::component::{Kind, Role};
use bundle::fake::{self, Fake, Key};
use bundle::layer::{PackEntry, Source};
use bundle::{Digest, Discard, HashOnly, Image, LayerPath, Sink, UnverifiedBundle};

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let arguments = arguments.iter().map(String::as_str).collect::<Vec<_>>();
    match arguments.as_slice() {
        ["make", bundle, directories @ ..] => make(Path::new(bundle), directories),
        ["verify", bundle] => read(bundle, &mut Discard),
        ["hash", bundle] => read(bundle, &mut HashOnly),
        ["unpack", bundle, into] => read(bundle, &mut Files(PathBuf::from(into))),
        _ => {
            Err("usage: speed make BUNDLE DIRECTORY... | verify BUNDLE | hash BUNDLE | unpack BUNDLE DIRECTORY".into())
        }
    }
}

fn make(bundle: &Path, directories: &[&str]) -> Result<(), Failure> {
    let mut fake = Fake::new();
    for (number, directory) in directories.iter().enumerate() {
        let mut files = BTreeMap::new();
        collect(Path::new(directory), Path::new(directory), &mut files)?;
        fake = fake.program(fake::component(&format!("part-{number}"), "1.0", Kind::Program, &[Role::Master])?, files);
    }
    let layout = fake.layout()?;
    let out = io::BufWriter::with_capacity(1 << 20, fs_err::File::create(bundle)?);
    layout.write(out, &fake.signatures(&layout)?)?;
    Ok(())
}

fn collect(top: &Path, at: &Path, files: &mut BTreeMap<LayerPath, PackEntry>) -> Result<(), Failure> {
    for entry in fs_err::read_dir(at)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        let Ok(name) = path.strip_prefix(top)?.to_str().ok_or("a name")?.parse::<LayerPath>() else { continue };
        if kind.is_dir() {
            collect(top, &path, files)?;
        } else if kind.is_file() {
            files.insert(name, PackEntry::Regular { mode: 0o755, source: Source::File(path) });
        }
    }
    Ok(())
}

fn read(path: &str, sink: &mut dyn Sink) -> Result<(), Failure> {
    let input: Box<dyn Read + Send> =
        if path == "-" { Box::new(io::stdin()) } else { Box::new(fs_err::File::open(path)?) };
    let start = Instant::now();
    let trust = fake::trust(&[Key::Publisher], 1);
    let summary = UnverifiedBundle::open(input)?.verify(&trust)?.unpack(sink)?;
    let seconds = start.elapsed().as_secs_f64();
    let status = fs_err::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM unknown");
    // Figures for people.
    #[allow(clippy::cast_precision_loss)]
    let rate = |bytes: u64| bytes as f64 / 1e6 / seconds;
    writeln!(
        io::stdout(),
        "{seconds:.2} s, {:.0} MB/s of bundle, {:.0} MB/s of files; {peak}; {summary:?}",
        rate(summary.bundle_size),
        rate(summary.file_bytes + summary.blob_bytes),
    )?;
    Ok(())
}

/// Writes files below a directory, as `tar x` would.
struct Files(PathBuf);

impl Files {
    fn at(&self, image: &Image, path: &LayerPath) -> PathBuf {
        self.0.join(image.component.name.as_str()).join(path.as_str())
    }
}

fn copy(content: &mut dyn Read, path: &Path) -> io::Result<()> {
    let mut file = fs_err::File::create(path)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(()),
            read => file.write_all(&buffer[..read])?,
        }
    }
}

impl Sink for Files {
    fn begin(&mut self, image: &Image) -> io::Result<bool> {
        fs_err::create_dir_all(self.0.join(image.component.name.as_str())).map(|()| true)
    }

    fn directory(&mut self, image: &Image, path: &LayerPath) -> io::Result<()> {
        fs_err::create_dir(self.at(image, path))
    }

    fn file(&mut self, image: &Image, path: &LayerPath, _: u32, _: u64, content: &mut dyn Read) -> io::Result<()> {
        copy(content, &self.at(image, path))
    }

    fn symlink(&mut self, _: &Image, _: &LayerPath, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn blob(&mut self, _: &Image, digest: &Digest, _: u64, content: &mut dyn Read) -> io::Result<()> {
        copy(content, &self.0.join(digest.hex()))
    }
}
