//! Decompresses a layer: exactly one zstd frame, with a small window, of exactly the size that the signed list implies.

use std::io::{self, Read};

use zstd::stream::read::Decoder;

use super::files;
use crate::component::File;
use crate::error::{Error, Reason, quote, refuse};
use crate::limit::WINDOW_LOG_MAX;
use crate::pipe::{CHUNK, Feed, Feeder};

/// Decompresses the current blob of `feed` into `feeder`.
pub(crate) fn decompress<S>(place: &str, list: &[File], feed: &mut Feed, feeder: &Feeder) -> Result<(), S>
where
    S: From<Error> + From<crate::pipe::Gone>,
{
    let mut decoder = Decoder::with_buffer(feed).map_err(Error::Read)?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(Error::Read)?;
    let mut left = files::unpacked_size(list);
    while left > 0 {
        let mut buffer = feeder.buffer()?;
        buffer.resize(usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK)), 0);
        let filled = fill(place, &mut decoder, &mut buffer)?;
        left -= filled as u64;
        if filled < buffer.len() {
            // Too short; the side that knows the entries says at which.
            left = 0;
            buffer.truncate(filled);
        }
        feeder.data(buffer)?;
    }
    if fill(place, &mut decoder, &mut [0])? != 0 {
        return Err(refuse(Reason::Trailing, place, "nothing after the end of the layer", "more bytes").into());
    }
    let rest = decoder.finish().drain()?;
    if rest != 0 {
        return Err(refuse(Reason::Trailing, place, "nothing after the zstd frame", format!("{rest} bytes")).into());
    }
    Ok(())
}

/// Fills the buffer; less only at the end of the frame.
fn fill(place: &str, decoder: &mut Decoder<'static, &mut Feed>, buffer: &mut [u8]) -> Result<usize, Error> {
    let mut filled = 0;
    while filled < buffer.len() {
        match decoder.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                // Either the bundle's reader failed, or the frame is bad.
                return Err(decoder.get_mut().take_failure().unwrap_or_else(|| {
                    let expected = "a zstd frame with a window of at most 8 MiB";
                    refuse(Reason::Compression, place, expected, quote(&error.to_string()))
                }));
            }
        }
    }
    Ok(filled)
}
